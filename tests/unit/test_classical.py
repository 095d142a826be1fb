import json
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from graftwork import registry
from graftwork.backbones import restore
from graftwork.backbones.descriptor import Descriptor
from graftwork.errors import FeatureWidth, Unreadable
from graftwork.folds import folds
from graftwork.kernel_head import KernelHead
from graftwork.model import Model
from graftwork.records import Progress, silent
from graftwork.rows import Contents, Rows, Texts
from graftwork.strategies import classical_texts, kernel_ridge
from graftwork.strategies.base import Task
from graftwork.strategies.classical import Classical, Judged, best, inner_folds, tuning_rows

THEMES = {
    "food": ["soup", "bread", "cheese", "rice", "salad", "cook", "taste", "dinner"],
    "sport": ["goal", "match", "team", "score", "coach", "league", "win", "ball"],
    "weather": ["rain", "wind", "storm", "sun", "cloud", "snow", "cold", "warm"],
}
LABELS = tuple(THEMES)


def texts(
    per_class: int, seed: int = 0, labels: tuple[str, ...] = LABELS
) -> tuple[list[str], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(labels)), per_class)
    filler = ["the", "a", "we", "saw", "some", "today"]
    lines = [" ".join([*rng.choice(filler, 3), *rng.choice(THEMES[labels[code]], 3)]) for code in codes]
    return lines, codes


def pictures(per_class: int, seed: int = 0) -> tuple[list[bytes], NDArray[np.int64]]:
    """Noisy stripes: upright, lying, aslant."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(3), per_class)
    down, across = np.mgrid[0:24, 0:24]
    contents = []
    for code in codes:
        phase = (across, down, across + down)[code] / 1.5 + rng.uniform(0, 6)
        grey = 128 + 80 * np.sin(phase) + rng.normal(0, 40, (24, 24))
        buffer = BytesIO()
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents, codes


def text_rows(lines: list[str]) -> Rows:
    return Rows([f"row {i}" for i in range(len(lines))], {"text": Texts(lines)})


def picture_rows(contents: list[bytes]) -> Rows:
    return Rows([f"row {i}" for i in range(len(contents))], {"image": Contents("image", contents)})


def task(rows: Rows, codes: NDArray[np.int64], labels: tuple[str, ...] = LABELS, **given: object) -> Task:
    plain = {
        "groups": np.arange(len(codes)),
        "validation": np.zeros(len(codes), dtype=bool),
        "weights": np.ones(len(codes)),
        "metric": "accuracy",
        "seed": 0,
    }
    return Task(rows, np.asarray(codes, dtype=np.int64), labels, **{**plain, **given})  # type: ignore[arg-type]


def fit(one: Task) -> Model:
    strategy = Classical()
    return strategy.fit(one, strategy.basis(one.kind, None), silent)


def accuracy(model: Model, rows: Rows, codes: NDArray[np.int64]) -> float:
    return float((model.answer(rows).probabilities.argmax(axis=1) == codes).mean())


def test_it_is_registered_and_does_not_transfer() -> None:
    strategy = registry.get("strategies", "classical")()
    assert (strategy.name, strategy.transfers) == ("classical", False)


def test_basis_is_the_descriptor_for_pictures_and_none_for_texts() -> None:
    basis = Classical().basis("image", None)
    assert basis is not None and basis.fingerprint == Descriptor().fingerprint
    assert Classical().basis("text", None) is None


def test_texts_are_learnt() -> None:
    model = fit(task(text_rows(texts(20)[0]), texts(20)[1]))
    new, codes = texts(50, seed=1)
    assert accuracy(model, text_rows(new), codes) > 0.95
    assert model.settings["held_out_accuracy"] > 0.8
    json.dumps(dict(model.settings))


def test_pictures_are_learnt() -> None:
    contents, codes = pictures(12)
    model = fit(task(picture_rows(contents), codes))
    new, truth = pictures(20, seed=1)
    assert accuracy(model, picture_rows(new), truth) > 0.9
    assert model.settings["features"] != "pixels", "stripes move from picture to picture"
    json.dumps(dict(model.settings))


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_few_rows_a_class_are_enough_to_answer(per_class: int) -> None:
    lines, codes = texts(per_class)
    contents, _ = pictures(per_class)
    for model, rows in (
        (fit(task(text_rows(lines), codes)), text_rows(lines)),
        (fit(task(picture_rows(contents), codes)), picture_rows(contents)),
    ):
        answers = model.answer(rows)
        np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1)
        assert (answers.probabilities.argmax(axis=1) == codes).all()


def test_a_class_of_one_row_is_kept() -> None:
    lines, codes = texts(6)
    kept = np.flatnonzero((codes < 2) | (np.arange(len(codes)) == len(codes) - 1))
    model = fit(task(text_rows([lines[i] for i in kept]), codes[kept]))
    assert model.labels == LABELS
    assert model.predict(["rain wind storm snow cold " + lines[-1]]) == ["weather"]


def test_two_classes_answer_in_the_given_order() -> None:
    labels = ("weather", "food")
    lines, codes = texts(10, labels=labels)
    model = fit(task(text_rows(lines), codes, labels))
    assert model.predict(["soup and cheese", "storm and snow"]) == ["food", "weather"]


def test_a_label_without_any_row_is_never_the_answer() -> None:
    lines, codes = texts(6)
    contents, _ = pictures(6)
    labels = ("none", *LABELS)
    for rows in (text_rows(lines), picture_rows(contents)):
        probabilities = fit(task(rows, codes + 1, labels)).answer(rows).probabilities
        assert (probabilities.argmax(axis=1) == codes + 1).all()
    two = fit(task(text_rows(lines[:12]), codes[:12] + 1, labels))
    assert two.predict(lines[:12]) == [labels[code + 1] for code in codes[:12]]


def test_two_hundred_classes_are_learnt() -> None:
    labels = tuple(f"kind {i}" for i in range(200))
    lines = [f"word{i} thing{i} item{i}{'!' * copy}" for i in range(200) for copy in range(3)]
    codes = np.repeat(np.arange(200), 3)
    model = fit(task(text_rows(lines), codes, labels))
    assert accuracy(model, text_rows(lines), codes) == 1.0


def test_texts_without_a_single_word_do_not_break_it() -> None:
    answers = fit(task(text_rows(["", " ", "", " "]), np.array([0, 0, 1, 1]), ("a", "b")))
    np.testing.assert_allclose(answers.predict_proba(["new"]), 0.5)


def test_the_same_seed_gives_the_same_model() -> None:
    for rows, codes in (
        (text_rows(texts(8)[0]), texts(8)[1]),
        (picture_rows(pictures(4)[0]), pictures(4)[1]),
    ):
        one, other = fit(task(rows, codes, seed=3)), fit(task(rows, codes, seed=3))
        np.testing.assert_array_equal(one.answer(rows).probabilities, other.answer(rows).probabilities)
        assert one.settings == other.settings


def test_saved_state_answers_bit_for_bit() -> None:
    for rows, codes in (
        (text_rows(texts(8)[0]), texts(8)[1]),
        (picture_rows(pictures(4)[0]), pictures(4)[1]),
    ):
        model = fit(task(rows, codes))
        state = model.backbone.state()
        name, config, arrays = model.head.state()
        backbone = restore(state)
        head = registry.get("heads", name)(model.labels, json.loads(json.dumps(config)), arrays)
        again = Model(backbone, head)
        np.testing.assert_array_equal(again.answer(rows).probabilities, model.answer(rows).probabilities)


def test_probabilities_are_calibrated_where_the_labels_are_noisy() -> None:
    lines, codes = texts(100)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(codes)) < 0.3, rng.integers(0, 3, len(codes)), codes)
    model = fit(task(text_rows(lines), noisy))
    new, _ = texts(100, seed=1)
    # a label is the theme's with probability 0.8
    assert 0.7 < model.answer(text_rows(new)).probabilities.max(axis=1).mean() < 0.88


def test_heavier_rows_win_where_labels_contradict() -> None:
    lines = ["soup bread"] * 8
    codes = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    weights = np.where(codes == 1, 4.0, 0.5)
    assert fit(task(text_rows(lines), codes, ("a", "b"))).predict(["soup"]) == ["a"]
    assert fit(task(text_rows(lines), codes, ("a", "b"), weights=weights)).predict(["soup"]) == ["b"]
    content = pictures(1)[0][:1] * 8
    new = picture_rows(content[:1])
    for given, expected in (({}, 0), ({"weights": weights}, 1)):
        answers = fit(task(picture_rows(content), codes, ("a", "b"), **given)).answer(new)
        assert answers.probabilities.argmax() == expected


def test_groups_are_never_parted_while_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, codes = texts(12)
    groups = np.arange(len(codes)) // 3
    seen = []

    def watched(*arguments: object) -> object:
        split = inner_folds(*arguments)  # type: ignore[arg-type]
        seen.extend(split)
        return split

    monkeypatch.setattr(classical_texts, "inner_folds", watched)
    fit(task(text_rows(lines), codes, groups=groups))
    assert seen
    for train, held in seen:
        assert not set(groups[train]) & set(groups[held])


def test_unreadable_rows_are_named() -> None:
    with pytest.raises(Unreadable, match="row 1"):
        fit(task(picture_rows([*pictures(1)[0][:1], b"broken"]), np.array([0, 1]), ("a", "b")))


def test_held_out_answers_equal_refitting_without_the_fold() -> None:
    contents, codes = pictures(6)
    one = task(picture_rows(contents), codes, weights=np.linspace(0.5, 1.5, len(codes)))
    features = Descriptor().features(one.rows).matrix
    rows = np.arange(len(codes))
    columns = np.full(features.shape[1], 0.07, dtype=np.float32)
    splits = folds(codes, None, 3, 0)
    closed = kernel_ridge.held_out(one, kernel_ridge.scaled(features, columns), rows, 0.2, splits)
    for train, held in splits:
        part = task(one.rows.take(train), codes[train], weights=one.weights[train])
        landmarks = kernel_ridge.scaled(features[train], columns)
        coefficients = kernel_ridge.solve(
            part, features[train], columns, landmarks, np.arange(len(train)), 0.2
        )
        new = kernel_ridge.gaussian(kernel_ridge.scaled(features[held], columns), landmarks)
        np.testing.assert_allclose(closed[held], new @ coefficients, atol=1e-9)


def test_keeping_every_row_equals_least_squares_over_all_rows() -> None:
    contents, codes = pictures(5)
    one = task(picture_rows(contents), codes)
    features = Descriptor().features(one.rows).matrix
    columns = np.full(features.shape[1], 0.07, dtype=np.float32)
    # every row twice: the landmarks are the distinct rows, the data all of them
    twice = task(picture_rows(contents * 2), np.tile(codes, 2), weights=np.full(2 * len(codes), 0.5))
    landmarks = kernel_ridge.scaled(features, columns)
    rows = np.arange(len(codes))
    exact = kernel_ridge.solve(one, features, columns, landmarks, rows, 0.2)
    over_all = kernel_ridge.solve(twice, np.tile(features, (2, 1)), columns, landmarks, rows, 0.2)
    similar = kernel_ridge.gaussian(landmarks, landmarks)
    np.testing.assert_allclose(similar @ over_all, similar @ exact, atol=1e-5)


def test_more_rows_than_are_kept_are_learnt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ridge, "_KEPT", 24)
    contents, codes = pictures(20)
    model = fit(task(picture_rows(contents), codes))
    assert model.settings["kept_rows"] == 24
    new, truth = pictures(20, seed=1)
    assert accuracy(model, picture_rows(new), truth) > 0.9


def test_kernel_head_refuses_features_of_another_width() -> None:
    head = KernelHead(
        ("a", "b"),
        {"temperature": 1.0},
        {
            "columns": np.ones(4, dtype=np.float32),
            "landmarks": np.zeros((2, 4), dtype=np.float32),
            "coefficients": np.eye(2),
        },
    )
    assert head.logits(np.zeros((3, 4), dtype=np.float32)).shape == (3, 2)
    with pytest.raises(FeatureWidth, match="width 4, these have 5"):
        head.logits(np.zeros((3, 5), dtype=np.float32))


def test_among_settings_that_chance_cannot_tell_apart_the_lower_log_loss_wins() -> None:
    lucky = Judged({"which": "lucky"}, 1.0, value=0.81, log_loss=0.9, rows=100)
    steady = Judged({"which": "steady"}, 1.0, value=0.80, log_loss=0.5, rows=100)
    worse = Judged({"which": "worse"}, 1.0, value=0.60, log_loss=0.1, rows=100)
    assert best([lucky, steady, worse]) is steady
    many = [Judged(one.settings, 1.0, one.value, one.log_loss, 100_000) for one in (lucky, steady)]
    assert best(many).settings == {"which": "lucky"}


def test_tuning_rows_hold_every_class_and_are_the_same_for_the_same_seed() -> None:
    codes = np.array([0] * 300 + [1] * 7 + [2] * 2)
    rows = tuning_rows(codes, 40, seed=1)
    assert len(rows) == 40 and (np.diff(rows) > 0).all()
    counts = np.bincount(codes[rows])
    assert counts[1] >= 5 and counts[2] == 2
    np.testing.assert_array_equal(rows, tuning_rows(codes, 40, seed=1))
    assert tuning_rows(codes, 309, seed=1).tolist() == list(range(309))


def test_of_too_much_text_a_part_of_every_class_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical_texts, "_MOST_SIGNS", 1)
    monkeypatch.setattr(classical_texts, "_MOST_SIGNS_IN_RUNS", 1)
    lines, codes = texts(500)
    lines, codes = [*lines, "a goal in the storm"], np.append(codes, 3)
    model = fit(task(text_rows(lines), codes, (*LABELS, "rare")))
    assert (model.settings["rows"], model.settings["views"]) == (1000, ["words"])
    new, truth = texts(50, seed=1)
    assert accuracy(model, text_rows(new), truth) > 0.95


def test_progress_is_told() -> None:
    told: list[Progress] = []
    lines, codes = texts(4)
    Classical().fit(task(text_rows(lines), codes), None, told.append)
    assert told and {one.stage for one in told} == {"classical"}


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_settings_are_chosen_by_the_metric_of_the_task(metric: str) -> None:
    lines, codes = texts(6)
    model = fit(task(text_rows(lines), codes, metric=metric))
    assert f"held_out_{metric}" in model.settings
