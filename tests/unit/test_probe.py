"""The linear probe: what it chooses, that nothing held out leaks in, and that odd data do not stop it."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import graftwork.strategies.probe as module
from graftwork import registry
from graftwork.backbones.base import BackboneState
from graftwork.errors import RequestError, UnknownName
from graftwork.model import softmax
from graftwork.records import Extraction, Features, Notify, silent
from graftwork.rows import IntArray, Kind, Rows, Texts
from graftwork.spectrum import Held, Spectrum, held_groups
from graftwork.strategies.base import Task
from graftwork.strategies.probe import Choice, Fitting, Probe, fit_head


@dataclass(frozen=True)
class Fixed:
    """A backbone whose features of row "i" are the i-th of a table."""

    table: NDArray[np.float32]
    kind: Kind = "text"
    fingerprint: str = "fixed"

    @property
    def width(self) -> int:
        return self.table.shape[1]

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        matrix = self.table[[int(name) for name in rows.names]]
        return Features({"table": matrix}, {}, Extraction(len(rows), len(rows), 0, 0.0))

    def state(self) -> BackboneState:
        return BackboneState("fixed", {})


def a_task(codes: NDArray[np.int64], groups: NDArray[np.int64] | None = None, seed: int = 0) -> Task:
    names = [str(i) for i in range(len(codes))]
    return Task(
        Rows(names, {"text": Texts(names)}),
        codes,
        tuple(f"label {c}" for c in range(codes.max() + 1)),
        np.arange(len(codes)) if groups is None else groups,
        np.zeros(len(codes), dtype=bool),
        np.ones(len(codes)),
        "accuracy",
        seed,
    )


def clouds(
    rows: int, width: int, classes: int = 3, apart: float = 1.5, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussian classes with equally many rows."""
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % classes
    centres = apart * np.random.default_rng(99).standard_normal((classes, width)) / np.sqrt(width) * 2
    return (1 + centres[codes] + rng.standard_normal((rows, width))).astype(np.float32), codes


CHOICES: tuple[Choice, ...] = ("auto", "ridge", "logistic", "discriminant", "centroid")


@pytest.mark.parametrize("choice", CHOICES)
def test_a_model_is_fitted_recorded_and_answers(choice: Choice) -> None:
    features, codes = clouds(120, 12)
    task = a_task(codes)
    backbone = Fixed(features)
    probe = Probe(choice)
    model = probe.fit(task, probe.basis("text", backbone), silent)
    accuracy = (model.answer(task.rows).probabilities.argmax(1) == codes).mean()
    assert accuracy > 0.8
    assert json.loads(json.dumps(model.settings)) == model.settings
    assert choice == "auto" or str(model.settings["head"]).startswith(choice)
    losses = [c["log_loss"] for c in model.settings["candidates"]]
    assert model.settings["log_loss"] == min(losses)
    name, config, arrays = model.head.state()
    again = registry.get("heads", name)(model.labels, config, arrays)
    np.testing.assert_array_equal(again.logits(features), model.head.logits(features))


def test_a_probe_without_a_source_says_what_to_do() -> None:
    with pytest.raises(RequestError, match="--source"):
        Probe().basis("image", None)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ridge'"):
        Probe("rigde")  # type: ignore[arg-type]


def test_auto_keeps_the_candidate_with_the_lowest_out_of_fold_loss() -> None:
    features, codes = clouds(90, 8)
    _, settings = fit_head(features, a_task(codes))
    best = min(settings["candidates"], key=lambda c: c["log_loss"])
    assert settings["head"] == best["head"] and settings["strength"] == best["strength"]
    alone = [fit_head(features, a_task(codes), choice)[1]["log_loss"] for choice in ("ridge", "logistic")]
    listed = {c["head"]: c["log_loss"] for c in settings["candidates"]}
    assert alone == pytest.approx([listed["ridge"], listed["logistic"]])


def test_stated_loss_is_about_the_loss_on_new_rows() -> None:
    features, codes = clouds(600, 10)
    head, settings = fit_head(features, a_task(codes))
    fresh, truth = clouds(6000, 10, seed=1)
    probabilities = softmax(head.logits(fresh))
    loss = -np.log(probabilities[np.arange(len(truth)), truth]).mean()
    assert settings["log_loss"] == pytest.approx(loss, abs=0.06)
    confidence = probabilities.max(1).mean()
    assert confidence == pytest.approx((probabilities.argmax(1) == truth).mean(), abs=0.03)


@pytest.mark.parametrize("width", [10, 200])
def test_shuffled_labels_earn_no_confidence(width: int) -> None:
    features, codes = clouds(100, width)
    shuffled = np.random.default_rng(0).permutation(codes)
    head, settings = fit_head(features, a_task(shuffled))
    assert settings["log_loss"] > math.log(3) - 0.06
    fresh, _ = clouds(500, width, seed=1)
    assert softmax(head.logits(fresh)).max(1).mean() < 0.5


def test_groups_are_never_broken() -> None:
    # every row has five near-copies with the same random label: only leaving all out tells
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    features = rng.standard_normal((40, 30))[groups] + 0.01 * rng.standard_normal((240, 30))
    codes = rng.integers(0, 3, 40)[groups]
    _, broken = fit_head(features.astype(np.float32), a_task(codes))
    assert broken["log_loss"] < 0.2
    for choice in CHOICES:
        _, whole = fit_head(features.astype(np.float32), a_task(codes, groups), choice)
        assert whole["log_loss"] > 1.0, choice


def test_a_group_leaves_whole_though_some_of_its_rows_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, codes = clouds(90, 6)
    groups = np.arange(90) // 3
    codes = np.where(groups == 4, np.array([0, 1, 3])[np.arange(90) % 3], codes)  # 3 is in group 4 alone
    left: list[NDArray[np.int64]] = []

    def spy(spectrum: Spectrum, groups: IntArray, rows: IntArray, classes: int) -> Iterator[Held]:
        left.append(rows)
        return held_groups(spectrum, groups, rows, classes)

    monkeypatch.setattr(module, "held_groups", spy)
    fitting = Fitting(features, a_task(codes, groups), module.factorise(features))
    found = list(fitting.closed_form("auto"))
    assert 14 in left[0] and 14 not in fitting.asked and codes[14] == 3
    assert all(candidate.log_loss is not None and candidate.log_loss < 1.0 for candidate in found)


def test_weights_make_rare_labels_count() -> None:
    features, codes = clouds(300, 6, classes=2, apart=0.7)
    keep = np.flatnonzero((codes == 0) | (np.arange(300) % 20 == 1))
    features, codes = features[keep], codes[keep]
    task = a_task(codes)
    balanced = 0.5 * len(codes) / np.bincount(codes)[codes]
    fresh, truth = clouds(2000, 6, classes=2, apart=0.7, seed=1)

    def recall(weighted: Task, choice: Choice) -> float:
        head, _ = fit_head(features, weighted, choice)
        return float((head.logits(fresh).argmax(1) == truth)[truth == 1].mean())

    for choice in ("auto", "ridge", "logistic", "discriminant"):
        assert recall(replace(task, weights=balanced), choice) > recall(task, choice) + 0.2, choice


def test_folds_learn_only_from_other_folds() -> None:
    features, codes = clouds(80, 5)
    task = a_task(codes)
    fitting = Fitting(features, task, module.factorise(features))
    rows = module.design(fitting.spectrum)
    held = fitting.folds[:, None] == np.arange(fitting.count)
    found = module.logistic(rows, codes, 3, 2.0, ~held, tolerance=1e-8)
    seen = module.held_logits(rows, found, fitting.folds, fitting.asked)
    for fold in range(fitting.count):
        out = held[:, fold]
        exact = features.astype(np.float64)
        theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(exact[~out], codes[~out])
        expected = theirs.predict_proba(exact[out])
        np.testing.assert_allclose(softmax(seen[out].astype(np.float64)), expected, atol=1e-3)


@pytest.mark.parametrize("choice", CHOICES)
def test_one_label_a_class_has_finite_settings(choice: Choice) -> None:
    features, codes = clouds(4, 20, classes=4, apart=3)
    head, settings = fit_head(features, a_task(codes), choice)
    assert settings["log_loss"] is None and settings["rows_out_of_fold"] == 0
    probabilities = softmax(head.logits(features))
    assert probabilities.argmax(1).tolist() == codes.tolist()
    assert 0.5 < probabilities.max(1).mean() < 0.999
    json.dumps(settings, allow_nan=False)


def test_a_class_with_a_single_row_does_not_count_against_any_candidate() -> None:
    features, codes = clouds(61, 8)
    codes = np.where(np.arange(61) == 60, 3, codes)
    _, settings = fit_head(features, a_task(codes))
    assert settings["rows_out_of_fold"] == 60
    assert settings["log_loss"] < math.log(4)


def test_a_label_without_rows_is_answered_as_all_but_impossible() -> None:
    features, codes = clouds(60, 8)
    task = replace(a_task(np.where(codes == 2, 3, codes)), labels=("a", "b", "gone", "c"))
    for choice in CHOICES:
        head, _ = fit_head(features, task, choice)
        probabilities = softmax(head.logits(features))
        assert head.labels == task.labels
        assert (probabilities[:, 2] < 1e-10).all(), choice


ODD: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
    "constant features": (np.full((30, 5), 7.3, np.float32), np.arange(30) % 3),
    "one column": (np.linspace(0, 1, 24, dtype=np.float32)[:, None], np.arange(24) // 12),
    "fewer rows than labels times two": (clouds(70, 30, classes=50)[0], np.arange(70) % 50),
    "duplicated rows": (np.repeat(clouds(10, 6)[0], 8, axis=0), np.repeat(np.arange(10) % 3, 8)),
    "one class": (clouds(12, 4)[0], np.zeros(12, dtype=np.int64)),
    "two rows": (np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), np.array([0, 1])),
    "tiny numbers": ((1e-20 * clouds(40, 6)[0]).astype(np.float32), clouds(40, 6)[1]),
    "huge numbers": ((1e15 * clouds(40, 6)[0]).astype(np.float32), clouds(40, 6)[1]),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("case", sorted(ODD))
def test_odd_data_give_finite_answers(case: str, choice: Choice) -> None:
    features, codes = ODD[case]
    head, settings = fit_head(features, a_task(codes), choice)
    logits = head.logits(features)
    assert np.isfinite(logits).all()
    json.dumps(settings, allow_nan=False)
    if case in ("duplicated rows", "tiny numbers", "huge numbers"):
        assert (logits.argmax(1) == codes).mean() > 0.7


def test_two_hundred_classes_work() -> None:
    features, codes = clouds(600, 40, classes=200, apart=4)
    head, _ = fit_head(features, a_task(codes))
    assert (head.logits(features).argmax(1) == codes).mean() > 0.9


def test_very_wide_features_of_few_rows_work() -> None:
    features, codes = clouds(200, 25_088)
    head, settings = fit_head(features, a_task(codes))
    assert (head.logits(features).argmax(1) == codes).mean() > 0.9
    assert settings["log_loss"] < math.log(3)


def test_many_rows_are_asked_in_part_and_read_block_by_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, codes = clouds(1200, 10)
    whole, _ = fit_head(features, a_task(codes))
    monkeypatch.setattr(module, "ASKED", 200)
    monkeypatch.setattr("graftwork.logistic.HELD_IN_MEMORY", 0)
    head, settings = fit_head(features, a_task(codes))
    assert settings["rows_out_of_fold"] == 240
    agree = head.logits(features).argmax(1) == whole.logits(features).argmax(1)
    assert agree.mean() > 0.97


def test_the_same_seed_gives_the_same_bits() -> None:
    features, codes = clouds(150, 10)
    first, _ = fit_head(features, a_task(codes, seed=3))
    again, _ = fit_head(features, a_task(codes, seed=3))
    np.testing.assert_array_equal(first.logits(features), again.logits(features))
