"""fit joins everything: what reaches a strategy, what is remembered, what is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graftwork as gw
from graftwork import finding, registry, starting, transfer
from graftwork.backbones.base import Backbone
from graftwork.bench import Bench, Held
from graftwork.model import Model
from graftwork.pretraining import pretrain
from graftwork.records import Notify, silent
from graftwork.rows import Dataset
from graftwork.strategies.base import Task
from graftwork.strategies.probe import Probe

pytestmark = pytest.mark.usefixtures("brisk")

WORDS = {
    "fruit": "apple pear plum cherry grape fig".split(),
    "tool": "hammer saw drill wrench file axe".split(),
}


def a_dataset(rows_a_class: int = 12, test: int = 0) -> Dataset:
    """Short sentences about fruits and tools; the last `test` of each class are the test part."""
    texts, labels, parts = [], [], []
    for label, words in WORDS.items():
        for i in range(rows_a_class):
            texts.append(f"{'the a this one my her'.split()[i % 6]} {words[i // 2 % 6]} number {i}")
            labels.append(label)
            parts.append("test" if i >= rows_a_class - test else "train")
    split = parts if test else None
    return gw.load(texts, labels=labels, split=split, name="words")


class Spy(Probe):
    """A probe that notes every row it was given."""

    seen: list[str] = []  # noqa: RUF012 (one list for the instances that the registry makes)

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        self.seen.extend(task.rows.names)
        return super().fit(task, basis, notify)


def test_no_test_row_reaches_any_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    Spy.seen.clear()
    monkeypatch.setattr(registry, "get", _with(probe=Spy))
    data = a_dataset(12, test=4)
    gw.fit(data, source="minilm", baselines="none")
    test = {data.rows.names[i] for i in data.split.index("test")}
    assert Spy.seen and not test & set(Spy.seen)


def _with(**strategies: Any) -> Any:
    real = registry.get

    def get(group: registry.Group, name: str) -> Any:
        return strategies[name] if group == "strategies" and name in strategies else real(group, name)

    return get


def test_scores_are_of_the_saved_model_and_evaluate_agrees(tmp_path: Path) -> None:
    data = a_dataset(12, test=4)
    outcome = gw.fit(data, source="minilm", baselines="none")
    model = gw.Model.load(outcome.save(tmp_path / "m.graft"))
    again = gw.evaluate(model, data)
    assert again.scores["accuracy"] == outcome.scores["accuracy"]
    assert outcome.result.assessed_on == "test" and outcome.scores["accuracy"].rows == 8


def test_without_a_test_part_every_row_is_held_out_once_and_the_verdict_is_on_the_procedure() -> None:
    outcome = gw.fit(a_dataset(10), source="minilm", baselines="classical")
    assert outcome.result.assessed_on == "folds"
    assert outcome.scores["accuracy"].rows == 20
    assert outcome.verdict is not None and outcome.verdict.about == "the procedure"


def test_two_fits_with_one_seed_are_the_same() -> None:
    first, second = (gw.fit(a_dataset(10), source="minilm", baselines="classical", seed=5) for _ in range(2))
    assert first.verdict == second.verdict
    assert first.scores == second.scores
    texts = ["a ripe apple", "a sharp saw"]
    assert np.array_equal(first.model.predict_proba(texts), second.model.predict_proba(texts))


def test_baselines_are_fitted_once_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_dataset(10)
    gw.fit(data, source="minilm", baselines="classical")
    monkeypatch.setattr(finding, "curve_of", lambda *_: None)

    class Broken:
        transfers, name = False, "classical"

        def basis(self, *_: object) -> None:
            return None

        def fit(self, *_: object) -> None:
            raise AssertionError("fitted a second time")

    monkeypatch.setattr(registry, "get", _with(classical=Broken))
    again = gw.fit(data, source="minilm", baselines="classical")
    assert "classical" in again.result.baselines


def test_unlabelled_rows_are_kept_counted_and_never_learnt() -> None:
    data = a_dataset(10)
    codes = data.target.codes.copy()
    codes[::5] = -1
    outcome = gw.fit(
        replace(data, target=replace(data.target, codes=codes)), source="minilm", baselines="none"
    )
    assert outcome.result.dataset.unlabelled == 4
    assert outcome.scores["accuracy"].rows == 16


def test_a_source_of_another_kind_is_refused() -> None:
    with pytest.raises(gw.RequestError, match=r"takes images, the data are texts"):
        gw.fit(a_dataset(10), source="glyphs")


def test_evaluate_counts_near_duplicates_once_as_fit_does() -> None:
    data = a_dataset(12, test=4)
    texts = [data.rows.column.read(i).decode() for i in range(len(data))]
    test = data.split.index("test")
    texts[test[1]] = texts[test[2]] = texts[test[0]]
    repeated = gw.load(
        texts, labels=[data.labels[c] for c in data.target.codes], split=data.split.parts.tolist()
    )
    outcome = gw.fit(repeated, source="minilm", baselines="none")
    assert gw.evaluate(outcome.model, repeated) == outcome.result.assessment


def test_evaluate_says_which_rows_it_left_out_and_stops_where_they_are_many(tmp_path: Path) -> None:
    shades = np.linspace(20, 235, 24).astype(np.uint8)
    for i, shade in enumerate(shades):
        folder = tmp_path / ("dark" if i < 12 else "light")
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 20), shade)).save(folder / f"{i}.png")
    outcome = gw.fit(tmp_path, source="glyphs", baselines="none")
    (tmp_path / "dark" / "broken.png").write_bytes(b"no picture")
    with pytest.warns(transfer.RowsWarning, match=r"1 of 25 rows .* left out, such as dark/broken.png"):
        gw.evaluate(outcome.model, tmp_path)
    (tmp_path / "dark" / "empty.png").touch()
    with pytest.raises(gw.RequestError, match="2 of 26 rows cannot be read, more than 5%"):
        gw.evaluate(outcome.model, tmp_path)
    with pytest.raises(gw.RequestError, match="holds texts; expected labelled images"):
        gw.evaluate(outcome.model, a_dataset(10))


def test_evaluate_refuses_labels_that_the_model_does_not_know() -> None:
    outcome = gw.fit(a_dataset(10), source="minilm", baselines="none")
    with pytest.raises(gw.RequestError, match="does not know the labels animal"):
        gw.evaluate(outcome.model, gw.load(["a cat", "an apple"], labels=["animal", "fruit"]))


def test_a_bundled_artefact_needs_nothing_else(tmp_path: Path) -> None:
    outcome = gw.fit(a_dataset(10), source="minilm", baselines="none")
    folder = outcome.save(tmp_path / "m.graft", bundle=True)
    assert (folder / "source" / "model.safetensors").is_file()
    assert gw.Model.load(folder).predict(["a pear"]) == outcome.model.predict(["a pear"])


def test_a_source_pretrained_on_these_very_rows_is_said_beside_the_verdict(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (16, 16), dtype=np.uint8) // (1 + i % 2) for i in range(40)]
    data = gw.load(pictures, labels=["dark" if i % 2 else "light" for i in range(40)])
    source = pretrain(data, tmp_path / "own", seconds=1)
    outcome = gw.fit(data, source=str(tmp_path / "own"), baselines="classical")
    assert source.origin == "local" and outcome.verdict is not None
    assert outcome.verdict.caution is not None and "40 of these 40 rows" in outcome.verdict.caution


def test_each_row_is_assessed_at_most_once_whatever_the_number_of_folds() -> None:
    # groups that leave one repeat with two folds and another with three
    groups = [3, 4, 4, 1, 0, 0, 3, 1]
    data, _ = starting.ready(
        gw.load([f"text {i}" for i in range(8)], labels=list("abbbcccc"), group=groups), seed=0
    )
    for seed in range(30):
        bench = Bench(data, "accuracy", seed, silent)
        held = tuple(held for _, held in bench.splits)
        rows, _ = bench.shown(Held(held, tuple(np.zeros((len(part), 3)) for part in held)))
        assert len(set(rows.tolist())) == len(rows)
        assert set(rows.tolist()) == set(np.concatenate(held[: bench.first]).tolist())


@pytest.mark.parametrize("option", [{"source": "minilm"}, {"pooling": "mean"}, {"resize": "fit"}], ids=str)
def test_an_option_of_sources_is_refused_where_no_source_is_used(option: dict[str, str]) -> None:
    given = next(iter(option))
    with pytest.raises(gw.RequestError, match=f"'classical' uses no source; leave --{given} out"):
        gw.fit(a_dataset(10), strategy="classical", baselines="none", **option)
