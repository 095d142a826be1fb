"""Jobs from uploads to models: what a dataset becomes, what a fit leaves, what its owner may read of it."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hostile
import pytest

from graftwork import artefact, transfer
from graftwork.errors import RequestError
from graftwork.service.database.tables import Dataset, Job
from graftwork.service.jobs import queue
from graftwork.service.settings import Quotas
from graftwork.service.work import data
from tiny_shop import Shop

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def flowers(per_class: int = 12) -> tuple[str, bytes]:
    return "flowers.zip", hostile.zip_of(hostile.class_folders(per_class, top="flowers/"))


def texts(rows: int = 24) -> bytes:
    good, bad = "a fine and pleasant day", "rain and cold and mud"
    lines = [f"{(good, bad)[i % 2]} number {i},{('good', 'bad')[i % 2]}" for i in range(rows)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()


def says_nothing_of_the_server(shop: Shop, value: Any) -> bool:
    """Whether no place of the server is in a JSON value or text."""
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    places = (str(shop.settings.root), os.environ["GRAFT_HOME"], str(Path.home()), str(Path.cwd()))
    return not any(place in said for place in places)


# Inspecting


def test_an_archive_of_class_folders_becomes_a_dataset(shop: Shop) -> None:
    made = shop.dataset(flowers())
    assert (made.state, made.kind, made.rows, made.problem) == ("ready", "image", 24, None)
    assert made.inspection is not None and made.inspection["classes"] == ["dark", "light"]
    assert made.bytes > 0 and says_nothing_of_the_server(shop, made.inspection)


def test_files_with_labels_become_rows_by_their_names(shop: Shop) -> None:
    pictures = list(hostile.class_folders(3).items())
    files = [(name.rsplit("/")[-1], content, f"<b>{name[:4]}</b>/..") for name, content in pictures]
    made = shop.dataset(*files, ("bad.jpg", hostile.truncated_png(), "<b>dark</b>/.."))
    assert made.state == "refused" and made.problem is not None  # one of seven is more than 5%
    assert "bad.jpg is truncated" in made.problem["detail"]
    made = shop.dataset(*files)
    assert made.state == "ready" and made.inspection is not None
    assert made.inspection["classes"] == ["<b>dark</b>/..", "<b>ligh</b>/.."]


def test_recordings_in_an_archive_become_a_dataset_and_a_bomb_among_them_an_unreadable_row(
    shop: Shop, tmp_path: Path
) -> None:
    from tiny_sounds import class_folders

    folder = class_folders(tmp_path / "sounds", 12)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}
    label = next(iter(files)).split("/")[0]
    made = shop.dataset(
        ("sounds.zip", hostile.zip_of({**files, f"{label}/lies.wav": hostile.wav_that_lies()}))
    )
    assert (made.state, made.kind) == ("ready", "audio"), made.problem
    assert made.inspection is not None and list(made.inspection["unreadable"]) == [f"{label}/lies.wav"]


@pytest.mark.parametrize(
    ("files", "code", "word"),
    [
        ([("x.zip", hostile.zip_slip())], "invalid-request", "leads out"),
        ([("t.csv", hostile.csv_with_nul())], "invalid-data", "t.csv, line 3: NUL"),
        ([("t.csv", hostile.csv_one_class())], "one-class", "one class"),
        ([("t.csv", hostile.csv_many_columns())], "invalid-request", "2,000 at most"),
        ([("t.csv", hostile.csv_of_paths("../../../etc/passwd"))], "invalid-data", "outside the data"),
        (
            [("t.csv", b"text,label\n" + b"x,a\n" * 40 + b"y," + b"b" * 2_000 + b"\n")],
            "invalid-data",
            "2,000 char",
        ),
        ([("t.jsonl", hostile.deep_json())], "invalid-data", "too deep"),
        ([("t.csv", b"file,label\n" + b"x" * 5_000 + b".png,a\ny.png,b\n")], "invalid-data", "5,004 char"),
        ([(f"{i}.csv", b"text,label\nx,a\n") for i in "ab"], "invalid-data", "the upload holds"),
        ([("t.csv", b"h" * 900 + b",label\n" + b"a,b,c\n")], "invalid-data", "put texts that hold"),
        ([("notes.txt", b"just a text")], "invalid-request", "no label"),
        ([("x.zip", hostile.zip_of({"a/b.png": b"x"}))], "rows-unreadable", "no readable"),
        ([], "invalid-request", "no file"),
    ],
)
def test_a_dataset_that_cannot_be_learnt_from_is_refused_in_one_line(
    shop: Shop, files: list[tuple[str, bytes]], code: str, word: str
) -> None:
    made = shop.dataset(*files)
    assert made.state == "refused" and made.problem is not None and made.job_id is None
    assert made.problem["code"] == code, made.problem
    detail = made.problem["detail"]
    assert any(one in detail for one in word.split("|")), detail
    assert "\n" not in detail and len(detail) <= 800 and says_nothing_of_the_server(shop, made.problem)
    assert not (shop.settings.dataset(made.id) / "contents").exists() and made.bytes == 0


def test_columns_that_say_nothing_are_offered_to_choose_from(shop: Shop) -> None:
    content = b"one,two,three\n" + b"".join(b"some words %d,more words,%d\n" % (i, i % 2) for i in range(10))
    made = shop.dataset(("t.csv", content))
    assert made.problem is not None and "with the option label" in made.problem["detail"]
    assert (made.problem["code"], made.problem["columns"]) == ("columns-unclear", ["one", "two", "three"])
    made = shop.dataset(("t.csv", content), text="one", label="three")
    assert (made.state, made.kind) == ("ready", "text")


def test_more_rows_or_bytes_than_the_quota_are_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path, quotas=Quotas(rows=10, bytes=100_000))
    made = shop.dataset(("t.csv", texts(24)))
    assert made.problem is not None and made.problem["code"] == "quota-exceeded"
    made = shop.dataset(("x.zip", hostile.zip_of({f"a/{i}.png": bytes(60_000) for i in range(3)})))
    assert made.problem is not None and "quota" in made.problem["detail"]


def test_an_inspection_that_was_killed_half_way_is_done_again(shop: Shop) -> None:
    made = shop.dataset(flowers(4))
    folder = shop.settings.dataset(made.id)
    (folder / "arranged.json").unlink()
    shutil.rmtree(folder / "contents/flowers/flowers/dark")
    shop.job("inspect", made.id)
    again = shop.get(Dataset, made.id)
    assert (again.state, again.rows) == ("ready", 8)


def test_a_record_of_an_inspection_stays_short_whatever_is_in_the_rows(shop: Shop) -> None:
    rows = [f"the very same text,{'ab'[i % 2]}" for i in range(3_000)]
    rows += [f"text of its own number {i},{'ab'[i % 2]}" for i in range(3_000)]
    made = shop.dataset(("t.csv", ("text,label\n" + "\n".join(rows) + "\n").encode()))
    assert made.state == "ready", made.problem
    assert len(json.dumps(made.inspection)) < 100_000


def test_a_dataset_deleted_while_it_is_inspected_leaves_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.service.work import inspecting

    honest = inspecting.inspect

    def deleted_meanwhile(*args: Any) -> Any:
        with shop.database.write() as session:
            (row,) = session.query(Dataset)
            session.delete(row)
        return honest(*args)

    monkeypatch.setattr(inspecting, "inspect", deleted_meanwhile)
    with pytest.raises(AssertionError):  # the shop looks for what has gone
        shop.dataset(flowers(4))
    assert not list((shop.settings.home / "datasets").rglob("*.png"))


def test_another_owners_file_is_no_file_of_a_dataset(shop: Shop) -> None:
    from graftwork.service.database.tables import File

    made = shop.dataset(("t.csv", texts()))
    with shop.database.write() as session:
        file = session.get(File, made.files[0]["file"])
        assert file is not None
        file.owner_id = "bob"
    ended = shop.job("inspect", made.id)
    assert (ended.state, ended.problem and ended.problem["code"]) == ("failed", "not-found")


# Fitting


def test_a_fit_leaves_a_model_that_answers_and_says_nothing_of_the_server(shop: Shop) -> None:
    made = shop.dataset(flowers())
    ended = shop.job("fit", made.id, name="my flowers", source="glyphs", baselines="classical")
    assert ended.state == "succeeded" and ended.result is not None
    model, folder = shop.model(ended)
    assert (model.name, model.kind, model.labels, model.source) == (
        "my flowers",
        "image",
        ["dark", "light"],
        "glyphs",
    )
    assert model.digest == artefact.digest(folder) and ended.result["model"] == model.id
    assert model.summary["rows"] == 24 and model.summary["bytes"] > 1_000 and model.summary["scores"]["folds"]
    loaded, manifest = artefact.load(folder, offline=True)
    assert set(loaded.predict([hostile.png(28)])) <= {"dark", "light"}
    assert manifest.source is not None and manifest.source.folder == ""
    for path in folder.rglob("*"):
        if path.is_file():
            assert says_nothing_of_the_server(shop, path.read_bytes().decode("utf-8", "replace")), path
    assert says_nothing_of_the_server(shop, ended.result)
    scores = shop.events(ended, "score")
    assert [one["strategy"] for one in scores] == ["probe"] and 0 <= scores[0]["value"] <= 1


def test_a_training_tells_its_curve(shop: Shop) -> None:
    made = shop.dataset(flowers())
    settings = {"epochs": 3}
    ended = shop.job("fit", made.id, source="glyphs", strategy="full", settings=settings, baselines="none")
    assert ended.state == "succeeded", ended.problem
    curve = shop.events(ended, "curve")
    assert [one["epoch"] for one in curve][:3] == [1, 2, 3] and all(one["loss"] is not None for one in curve)
    assert [one["strategy"] for one in shop.events(ended, "score")] == ["probe", "full"]


def test_a_fit_killed_at_any_moment_ends_as_one_that_was_not(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the artefact is put away, and again before the job is ended: no second fit is made."""
    made = shop.dataset(("t.csv", texts()))
    fits: list[bool] = []
    honest = transfer.fit

    def counted(*args: Any, **options: Any) -> Any:
        fits.append(options["resume"])
        return honest(*args, **options)

    monkeypatch.setattr(transfer, "fit", counted)

    def dies(*_: object, **__: object) -> None:
        raise SystemExit(9)

    shop.ask("fit", made.id, strategy="classical", source="auto")
    for where in ("graftwork.service.artefacts.Artefacts.put", "graftwork.service.jobs.desk.Desk.finish"):
        with monkeypatch.context() as patched:
            patched.setattr(where, dies)
            with pytest.raises(SystemExit):
                shop.do()
            _requeue(shop)
    ended = shop.do()
    assert ended.state == "succeeded" and fits == [False]
    assert shop.model(ended)[1].is_dir()


def test_a_training_that_was_killed_goes_on_from_its_run(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop.dataset(flowers())
    monkeypatch.setenv("GRAFT_CHECKPOINT_S", "0")
    resumed: list[bool] = []
    honest = transfer.fit

    def killed_at_first(*args: Any, **options: Any) -> Any:
        resumed.append(options["resume"])
        if len(resumed) == 1:
            heard = options["notify"]

            def dies(step: Any) -> None:
                heard(step)
                if step.stage == "training" and step.point is not None and step.point[0] == 2:
                    raise SystemExit(9)

            options["notify"] = dies
        return honest(*args, **options)

    monkeypatch.setattr(transfer, "fit", killed_at_first)
    options = {"source": "glyphs", "strategy": "full", "settings": {"epochs": 3}, "baselines": "none"}
    job_id = shop.ask("fit", made.id, **options)
    with pytest.raises(SystemExit):
        shop.do()
    assert list((shop.settings.run(job_id) / "run").glob("*.safetensors"))
    _requeue(shop)
    ended = shop.do()
    assert ended.state == "succeeded", ended.problem
    assert resumed == [False, True]


def _requeue(shop: Shop) -> None:
    queue.bereave(shop.database, lambda worker: True)


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "~/model", "../glyphs", "owner/model", "keras:VGG16", "no-such"]
)
def test_a_source_that_the_operator_did_not_put_here_is_refused(shop: Shop, source: str) -> None:
    made = shop.dataset(("t.csv", texts()))
    for ended in (shop.job("fit", made.id, source=source), shop.job("rank", made.id, sources=[source])):
        assert ended.state == "failed" and ended.problem is not None
        assert ended.problem["code"] == "invalid-request" and "no source" in ended.problem["detail"]
        assert says_nothing_of_the_server(shop, ended.problem)


@pytest.mark.parametrize(
    ("request_", "word"),
    [({"strategy": "porbe"}, "did you mean"), ({"metric": "f7"}, "metric"), ({"budget": "soon"}, "no time"),
     ({"settings": {"nothing": 1}}, "nothing"), ({"seed": -1}, "seed"), ({"baselines": "?"}, "baselines")],
)  # fmt: skip
def test_a_fit_that_asks_for_what_there_is_not_fails_in_one_line(
    shop: Shop, request_: dict[str, Any], word: str
) -> None:
    made = shop.dataset(("t.csv", texts()))
    ended = shop.job("fit", made.id, **{"source": "minilm", **request_})
    assert ended.state == "failed" and ended.problem is not None
    assert ended.problem["code"] == "invalid-data" and word in ended.problem["detail"]


def test_a_dataset_that_is_not_ready_is_not_fitted(shop: Shop) -> None:
    refused = shop.dataset(("t.csv", hostile.csv_one_class()))
    ended = shop.job("fit", refused.id)
    assert ended.problem is not None and "is refused; expected one that is ready" in ended.problem["detail"]


def test_ranking_tells_which_source_to_start_from(shop: Shop) -> None:
    made = shop.dataset(flowers())
    ended = shop.job("rank", made.id, sources=["glyphs"])
    assert ended.state == "succeeded" and ended.result is not None, ended.problem
    assert [one["name"] for one in ended.result["sources"]] == ["glyphs"]
    assert says_nothing_of_the_server(shop, ended.result)


def test_messages_of_errors_lose_every_place_of_the_server(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.errors import WorkError

    made = shop.dataset(("t.csv", texts()))

    def fails(*_: Any, **__: Any) -> Any:
        root = shop.settings.root
        raise WorkError(f"{root}/.graftwork/x/y.bin, {Path.home()}/z and {Path.cwd()} cannot be written")

    monkeypatch.setattr(transfer, "fit", fails)
    ended: Job = shop.job("fit", made.id)
    assert ended.problem is not None
    assert ended.problem["detail"] == "(on the server), (on the server) and (on the server) cannot be written"


def test_warming_imports_all_kinds_of_work() -> None:
    import sys

    from graftwork.service import work

    list(work.warm())
    assert {
        f"graftwork.service.work.{name}" for name in ("inspecting", "ranking", "fitting", "importing")
    } <= set(sys.modules)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ([str(i) for i in range(5_001)], "5,001 classes"),
        (["good", "b" * 1_001], "a label of 1,001"),
        ([f"{i} {'b' * 900}" for i in range(300)], "characters together"),
    ],
)
def test_labels_that_every_answer_would_repeat_are_bounded(labels: list[str], word: str) -> None:
    said: Any = SimpleNamespace(name="tickets", labels=labels)
    with pytest.raises(RequestError, match=word):
        data._refuse_many(said)
