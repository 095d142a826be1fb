"""`rank` and `fit --source auto` from names to answers: what is opened, refused, recorded and printed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import graft, graft_json

import graftwork as gw
import tiny
from graftwork import choosing
from graftwork.artefact import inspect
from graftwork.choosing import budget_seconds
from graftwork.errors import RequestError
from graftwork.records import Features, Notify, silent
from graftwork.rows import Dataset, Rows
from toys import ToyBackbone

pytestmark = pytest.mark.usefixtures("brisk")

SENTENCES = {
    "praise": "the film was good and bright|a fine film|good actor and fine plot|bright scene and good film|"
    "it was very good|the actor was fine|a very bright film|the plot was good|fine scene and it was good",
    "blame": "the film was bad and dull|a dull film|bad actor and dull plot|dull scene and bad film|"
    "it was very bad|the actor was dull|a very dull film|the plot was bad|dull scene and it was bad",
}


def sentences(test: int = 0) -> Dataset:
    """Eighteen short sentences; the last `test` of each class are the test part."""
    texts, labels, parts = [], [], []
    for label, said in SENTENCES.items():
        lines = said.split("|")
        texts += lines
        labels += [label] * len(lines)
        parts += ["test" if i >= len(lines) - test else "train" for i in range(len(lines))]
    return gw.load(texts, labels=labels, split=parts if test else None, name="sentences")


def a_table(folder: Path) -> Path:
    lines = [f"{text},{label}" for label, said in SENTENCES.items() for text in said.split("|")]
    path = folder / "sentences.csv"
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tiny encoders with random weights, and one whose weights are damaged."""
    folder = tmp_path_factory.mktemp("sources")
    tiny.bert(folder / "first", seed=1)
    tiny.bert(folder / "second", seed=2)
    (tiny.bert(folder / "damaged", seed=3) / "model.safetensors").write_bytes(b"no weights at all")
    return folder


@pytest.fixture
def at_hand(two_sources: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFT_SOURCES", str(two_sources))
    return two_sources


def test_rank_prints_what_the_design_promises(at_hand: Path, tmp_path: Path) -> None:
    page = tmp_path / "ranking.html"
    names = ("--source", "first", "--source", "second", "--source", "damaged", "--source", "nonsense")
    said = graft_json("rank", a_table(tmp_path), *names, "--budget", "20m", "-o", page)
    assert {one["name"] for one in said["sources"]} == {"first", "second"}
    for one in said["sources"]:
        assert {"value", "low", "high"} == set(one["expected_accuracy"])
        assert {"probability_best", "regret", "seconds", "scores", "licence", "memory"} <= set(one)
        assert one["reason"] and "evidence" in one["scores"]
    assert sum(one["probability_best"] for one in said["sources"]) == pytest.approx(1.0)
    assert said["choice"] in (None, said["sources"][0]["name"])
    assert set(said["refused"]) == {"damaged", "nonsense"}
    assert said["baseline"]["value"] > 0 and said["budget"] == 1200.0
    assert "<html" in page.read_text("utf-8")
    spoken = graft("rank", a_table(tmp_path), *names, "--no-baseline").stdout
    assert "first" in spoken and "damaged" in spoken


def test_rank_looks_at_every_source_of_the_kind_by_default(at_hand: Path) -> None:
    found = gw.rank(sentences(), baseline=False)
    assert {one.name for one in found.candidates} == {"first", "minilm", "second"}
    # nine sentences a class: a real encoder tells them apart, random ones by their words
    assert found.choice is not None and not found.refused
    assert all(one.rows == 18 for one in found.candidates)


def test_sources_of_another_kind_are_refused_by_name(at_hand: Path) -> None:
    found = gw.rank(sentences(), sources=["first", "glyphs"], baseline=False)
    assert found.refused == {"glyphs": "takes images, the data are texts"}
    with pytest.raises(RequestError, match=r"no source could be looked at .glyphs: takes images"):
        gw.rank(sentences(), sources=["glyphs"], baseline=False)


def test_test_rows_are_never_touched(at_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()

    class Noting(ToyBackbone):
        def features(self, rows: Rows, notify: Notify = silent) -> Features:
            asked.update(rows.names)
            return super().features(rows, notify)

    def opened(source: Any, sample: Rows, **_: Any) -> Noting:
        asked.update(sample.names)
        return Noting(scale=len(source.name))

    monkeypatch.setattr(choosing, "open_backbone", opened)
    data = sentences(test=3)
    found = gw.rank(data, sources=["first", "second"])
    test = {data.rows.names[i] for i in data.split.index("test")}
    assert len(test) == 6 and len(asked) == 12 and not asked & test
    assert all(one.rows == 12 for one in found.candidates)
    shuffled = data.target.codes.copy()
    shuffled[data.split.index("test")] = 0
    other = gw.rank(replace(data, target=replace(data.target, codes=shuffled)), sources=["first", "second"])
    assert [one.expected for one in other.candidates] == [one.expected for one in found.candidates]
    assert other.baseline == found.baseline


def test_auto_ranks_several_and_the_artefact_says_so(at_hand: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.graft"
    said = graft_json(
        "fit", a_table(tmp_path), "-o", out, "--source", "auto", "--baselines", "none", "--budget", "20m"
    )
    names = [one["name"] for one in said["ranking"]["sources"]]
    assert set(names) == {"first", "second", "minilm"} and said["source"] == names[0]
    assert said["source_reason"].startswith("ranked by measurement: ")
    assert said["ranking"]["budget"] == 1200.0 and "ranking" in said["seconds"]
    kept = inspect(out).result["ranking"]
    assert kept == said["ranking"]
    assert json.dumps(kept)
    report = (out / "report.html").read_text("utf-8")
    assert "second" in report and "first" in report
    model = gw.Model.load(out)
    assert model.backbone.state().source is not None
    assert model.predict(["the film was very good"]) == ["praise"]


def test_auto_takes_a_single_source_without_ranking(
    at_hand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "first").symlink_to(at_hand / "first")
    monkeypatch.setenv("GRAFT_SOURCES", str(alone))
    outcome = gw.fit(sentences(), source="auto", baselines="none")
    assert outcome.result.ranking is None
    assert outcome.result.source is not None and outcome.result.source.name == "first"


def test_auto_takes_the_best_by_expectation_where_nothing_stands_out(
    at_hand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sentences()
    rng = np.random.default_rng(0)
    data = replace(data, target=replace(data.target, codes=rng.permutation(data.target.codes)))
    outcome = gw.fit(data, source="auto", baselines="none")
    assert outcome.result.ranking is not None and outcome.result.source is not None
    assert outcome.result.ranking.choice is None
    assert outcome.result.source.name == outcome.result.ranking.candidates[0].name
    assert "nothing stands out" in outcome.result.source.reason
    assert outcome.result.source.reason.endswith("was taken as the best by expectation")


@pytest.mark.usefixtures("at_hand")
def test_the_estimator_ranks_several_sources_too() -> None:
    texts = [text for said in SENTENCES.values() for text in said.split("|")]
    labels = [label for label, said in SENTENCES.items() for _ in said.split("|")]
    fitted = gw.TransferClassifier().fit(texts, labels)
    assert fitted.ranking_ is not None
    source = fitted.model_.backbone.state().source
    assert source is not None and source.name == fitted.ranking_.candidates[0].name
    assert gw.TransferClassifier("minilm").fit(texts, labels).ranking_ is None


@pytest.mark.usefixtures("at_hand")
def test_one_source_may_be_named_without_a_list() -> None:
    found = gw.rank(sentences(), sources="first", baseline=False)
    assert [one.name for one in found.candidates] == ["first"] and not found.refused


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("30", 30.0), ("30s", 30.0), ("1m", 60.0), ("2h", 7200.0), ("1.5m", 90.0), (45, 45.0)],
)
def test_a_budget_is_read_as_people_write_it(said: Any, seconds: float) -> None:
    assert budget_seconds(said) == seconds
    assert budget_seconds(None) is None


@pytest.mark.parametrize("said", ["", "m", "5x", "-3s", "0", "inf", "nan", "1m30s"])
def test_what_is_no_budget_is_an_error_with_an_example(said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="30s, 1m, 2h"):
        budget_seconds(said)


def test_a_page_where_no_folder_is_fails_before_the_work(tmp_path: Path) -> None:
    done = graft("rank", a_table(tmp_path), "-o", tmp_path / "nowhere" / "r.html", status=2)
    assert "make it first" in done.stderr
