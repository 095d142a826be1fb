"""The command line, as a user would type it, on the messages that come with the package."""

import csv
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from graftwork.cli import app

pytestmark = pytest.mark.usefixtures("brisk")

MESSAGES = Path(str(files("graftwork") / "packaged" / "messages.csv"))


def graft(*words: str | Path, status: int = 0, input: str | None = None) -> Result:
    """Run `graft WORDS` in this process and check its exit status."""
    done = CliRunner().invoke(app, [str(word) for word in words], input=input)
    assert done.exit_code == status, (done.exit_code, done.stdout, done.stderr, done.exception)
    return done


def graft_json(*words: str | Path, **options: Any) -> Any:
    """The one JSON object on stdout."""
    (line,) = graft(*words, "--json", **options).stdout.splitlines()
    return json.loads(line)


def few_messages(folder: Path, rows_a_class: int = 12) -> Path:
    rows = list(csv.DictReader(io.StringIO(MESSAGES.read_text("utf-8"))))
    kept: dict[str, list[str]] = {}
    for row in rows:
        kept.setdefault(row["label"], []).append(row["text"])
    path = folder / "messages.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((text, label) for label in list(kept)[:3] for text in kept[label][:rows_a_class])
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, settled: Path) -> tuple[Path, Any]:
    """An artefact fitted on 36 messages of three classes, and the JSON that `fit` printed."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFT_HOME", str(settled))
        patch.setattr("graftwork.bench.CURVE_SECONDS", 0.3)
        out = folder / "messages.graft"
        said = graft_json("fit", few_messages(folder), "-o", out, "--baselines", "classical")
    return out, said


def test_fit_says_all_that_the_design_promises(fitted: tuple[Path, Any]) -> None:
    out, said = fitted
    assert said["artefact"] == str(out)
    assert said["dataset"]["kind"] == "text" and said["dataset"]["rows"] == 36
    assert len(said["dataset"]["classes"]) == 3
    assert said["source"] == "minilm" and said["strategy"] == "probe"
    assert {"rows", "computed", "reused", "rows_per_second", "runtime", "precision", "parity"} <= set(
        said["features"]
    )
    score = said["scores"]["folds"]["accuracy"]
    assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert said["verdict"]["outcome"] in ("helped", "hurt", "undecided")
    assert {"difference", "low", "high", "baseline"} <= set(said["verdict"])
    assert {"features", "head", "evaluation", "total"} <= set(said["seconds"])


def test_a_transfer_with_few_messages_is_better_than_guessing(fitted: tuple[Path, Any]) -> None:
    assert fitted[1]["scores"]["folds"]["accuracy"]["low"] > 1 / 3


def test_predict_answers_sentences_tables_and_stdin(fitted: tuple[Path, Any], tmp_path: Path) -> None:
    out, said = fitted
    lines = graft("predict", out, "where is my parcel?", "--json").stdout.splitlines()
    (answer,) = map(json.loads, lines)
    assert answer["input"] == "where is my parcel?"
    assert answer["label"] in said["dataset"]["classes"]
    assert answer["probability"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    table = few_messages(tmp_path, 2)
    rows = list(csv.DictReader(io.StringIO(graft("predict", out, table, "--text", "text").stdout)))
    assert len(rows) == 6 and set(rows[0]) == {"input", "label", "probability", "unknown", "error"}
    piped = graft("predict", out, "-", "--json", input="where is my parcel?\nhello\n").stdout.splitlines()
    assert json.loads(piped[0])["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-9)
    assert len(piped) == 2
    # no space and a full stop, yet no name of a file
    assert "味道不错.下次再来," in graft("predict", out, "味道不错.下次再来").stdout


def test_standard_input_in_another_encoding_is_refused(fitted: tuple[Path, Any]) -> None:
    done = CliRunner().invoke(app, ["predict", str(fitted[0])], input="味道不错\n".encode("gb18030"))
    assert done.exit_code == 2 and "standard input is not UTF-8" in done.stderr and not done.stdout


def test_evaluate_scores_other_rows(fitted: tuple[Path, Any], tmp_path: Path) -> None:
    out, _ = fitted
    said = graft_json("evaluate", out, few_messages(tmp_path, 12))
    assert said["scores"]["accuracy"]["value"] > 0.9
    assert len(said["classes"]) == 3
    shown = graft("evaluate", out, few_messages(tmp_path, 12)).stdout
    assert "accuracy" in shown and "recall" in shown


def test_report_names_an_existing_page(fitted: tuple[Path, Any]) -> None:
    said = graft_json("report", fitted[0])
    page = Path(said["report"]).read_text("utf-8")
    assert "messages" in page and "<script" not in page


def test_a_second_fit_reuses_every_feature(tmp_path: Path) -> None:
    data = few_messages(tmp_path, 6)
    first = graft_json("fit", data, "-o", tmp_path / "a.graft", "--baselines", "none")
    second = graft_json("fit", data, "-o", tmp_path / "b.graft", "--baselines", "none", "--strategy", "mlp")
    assert first["features"]["computed"] == 18 and first["features"]["reused"] == 0
    assert second["features"]["computed"] == 0 and second["features"]["reused"] == 18
    assert first["verdict"] is None and "--baselines none" in first["no_verdict"]
    info = graft_json("cache", "info")
    assert graft_json("cache", "verify") is not None and info
    graft_json("cache", "prune", "--limit", "0")
    third = graft_json("fit", data, "-o", tmp_path / "c.graft", "--baselines", "none")
    assert third["features"]["computed"] == 18


def test_a_model_without_transfer_is_saved_and_asked_like_any_other(tmp_path: Path) -> None:
    out = tmp_path / "plain.graft"
    said = graft_json(
        "fit", few_messages(tmp_path), "-o", out, "--strategy", "classical", "--baselines", "none"
    )
    assert said["source"] is None and said["verdict"] is None
    answer = json.loads(graft("predict", out, "my invoice is wrong", "--json").stdout)
    assert answer["label"] in said["dataset"]["classes"]


def test_without_examples_no_message_is_in_the_artefact(tmp_path: Path) -> None:
    data, out = few_messages(tmp_path), tmp_path / "m.graft"
    graft("fit", data, "-o", out, "--baselines", "none", "--no-examples", "--quiet")
    inside = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    with data.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert row["text"].encode() not in inside


def test_inspect_shows_rows_classes_and_warnings(tmp_path: Path) -> None:
    data = few_messages(tmp_path)
    with data.open("a", encoding="utf-8") as file:
        file.write("no label on this one,\n")
    said = graft_json("inspect", data)
    assert said["rows"] == 37 and said["unlabelled"] == 1
    assert "unlabelled" in graft("inspect", data).stdout


def test_sources_lists_and_shows_the_packaged_ones() -> None:
    names = {one["name"] for one in graft_json("sources")["sources"]}
    assert {"minilm", "glyphs"} <= names
    assert len(graft_json("sources", "show", "minilm")["sources"][0]["weights_sha256"]) == 64
    assert "minilm" in graft("sources", "list").stdout


def test_doctor_says_what_this_machine_can_do() -> None:
    assert graft_json("doctor")
    assert "torch" in graft("doctor").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit", "{data}", "-o", "x.graft", "--strategy", "porbe"), "did you mean 'probe'?"),
        (("fit", "{data}", "-o", "x.graft", "--source", "no/such/folder"), "no/such/folder"),
        (("fit", "{data}", "-o", "x.graft", "--baselines", "some"), "expected all, classical or none"),
        (("fit", "{data}", "-o", "{folder}"), "is no artefact"),
        (("fit", "{data}", "-o", "{data}/x.graft"), "would lie in the file"),
        (("fit", "{data}", "-o", "x.graft", "--seed", "-1"), "seed -1 seen"),
        (("fit", "", "-o", "x.graft"), "an empty path seen"),
        (("fit", "{folder}/nothing.csv", "-o", "x.graft"), "nothing.csv"),
        (("fit", "{data}", "-o", "x.graft", "--text", "txet"), "txet"),
        (("fit", "{data}", "-o", "x.graft", "--metric", "speed"), "accuracy"),
        (("predict", "{folder}", "a text"), "no artefact"),
        (("report", "{folder}"), "no artefact"),
        (("sources", "forget"), "expected list, show, add, check or remove"),
        (("cache", "prune", "--limit", "much"), "500MB"),
        (("demo", "sounds"), "known: digits, text"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = few_messages(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "keep.txt").write_text("x")
    filled = [word.format(data=data, folder=tmp_path / "folder") for word in words]
    done = graft(*filled, status=2)
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("graft: ") and said in line
    assert not (tmp_path / "x.graft").exists()
    assert said in graft_json(*filled, status=2)["error"]["message"]


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), ValueError("one\nline\n  each")])
def test_a_fault_of_ours_is_one_line_too(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork import datasets

    def faulty(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load", faulty)
    (line,) = graft("inspect", tmp_path, status=1).stderr.strip().splitlines()
    assert type(error).__name__ in line and "a fault in Graftwork" in line


@pytest.mark.parametrize("wrong", ["gone.csv", ""])
def test_an_input_that_is_not_there_leaves_no_half_answer(fitted: tuple[Path, Any], wrong: str) -> None:
    assert graft("predict", fitted[0], "a text", wrong, status=2).stdout == ""


def test_the_store_s_complaint_is_heard_once(capsys: pytest.CaptureFixture[str]) -> None:
    from graftwork.cli import _show_warning
    from graftwork.transfer import RowsWarning

    for _ in range(2):
        _show_warning("rows were left out", RowsWarning)
        _show_warning("a library's own", DeprecationWarning)
    assert capsys.readouterr().err == "graft: rows were left out\n"


@pytest.mark.parametrize(
    "words", [["fit", "x", "-o", "y", "--nosuch"], ["nosuch"], ["fit"], ["predict", "--seed"]]
)
def test_a_command_line_that_cannot_be_parsed_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftwork.cli import main

    for json_wanted in (False, True):
        monkeypatch.setattr("sys.argv", ["graft", *words, *(["--json"] if json_wanted else [])])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 2
        line, silent = (said.out, said.err) if json_wanted else (said.err, said.out)
        assert not silent and line.count("\n") == 1 and "--help" in line
        if json_wanted:
            assert json.loads(line)["error"]["status"] == 2


def test_an_interrupted_fit_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork import transfer

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer.Outcome, "save", interrupted)
    done = graft("fit", few_messages(tmp_path), "-o", tmp_path / "m.graft", "--baselines", "none", status=1)
    assert "run again to go on" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.graft"))


def test_pictures_go_the_same_way_from_folder_to_answer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for code, name in enumerate(("cross", "圆")):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.zeros((20, 20), dtype=np.uint8)
            at = int(rng.integers(4, 14))
            if code:
                pixels[at : at + 5, at : at + 5] = 255
                pixels[at + 1 : at + 4, at + 1 : at + 4] = 0
            else:
                pixels[at + 2, at : at + 5] = 255
                pixels[at : at + 5, at + 2] = 255
            pixels[0, i] = 9
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{i}.png")
    out = tmp_path / "shapes.graft"
    said = graft_json("fit", tmp_path / "shapes", "-o", out, "--source", "glyphs", "--baselines", "none")
    assert said["dataset"]["kind"] == "image" and said["dataset"]["classes"] == ["cross", "圆"]
    answers = [
        json.loads(line) for line in graft("predict", out, tmp_path / "shapes", "--json").stdout.splitlines()
    ]
    assert len(answers) == 20
    right = sum(Path(one["input"]).parent.name == one["label"] for one in answers)
    assert right >= 18
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    done = graft("predict", out, tmp_path / "broken.png", tmp_path / "shapes", "--json", status=2)
    assert json.loads(done.stdout.splitlines()[0])["error"]
    assert len([line for line in done.stdout.splitlines() if '"label"' in line]) == 20
