"""Unknown inputs: about 5% of known rows refused, strangers told apart, few rows handled honestly."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from graftwork import unknown
from graftwork.errors import ArtefactError, FeatureWidth
from graftwork.unknown import Familiarity

WIDTH, CLASSES = 32, 5
CENTRES = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))


def known(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(CLASSES, size=rows)
    return (CENTRES[codes] + 0.7 * rng.normal(size=(rows, WIDTH))).astype(np.float32), codes


def strangers(rows: int) -> np.ndarray:
    rng = np.random.default_rng(99)
    return (1.2 * rng.normal(size=WIDTH) + 0.7 * rng.normal(size=(rows, WIDTH))).astype(np.float32)


def test_about_one_in_twenty_known_rows_is_refused() -> None:
    refused = []
    for seed in range(20):
        found = Familiarity.fit(*known(300, seed), seed=seed)
        refused.append(found.unknown(known(1000, 1000 + seed)[0]).mean())
    assert np.mean(refused) == pytest.approx(0.05, abs=0.01)


def test_the_rate_is_the_callers() -> None:
    found = Familiarity.fit(*known(800, 1), rate=0.2)
    assert found.unknown(known(4000, 2)[0]).mean() == pytest.approx(0.2, abs=0.04)


def test_strangers_are_told_apart() -> None:
    found = Familiarity.fit(*known(500, 3))
    here, there = found.distance(known(400, 4)[0]), found.distance(strangers(400))
    assert roc_auc_score(np.repeat([0, 1], 400), np.concatenate([here, there])) > 0.97
    assert found.unknown(strangers(400)).mean() > 0.8


def test_distance_is_one_minus_the_mean_cosine_of_the_nearest() -> None:
    features, codes = known(60, 5)
    found = Familiarity.fit(features, codes)
    rows = strangers(7)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.sort(rows / np.linalg.norm(rows, axis=1, keepdims=True) @ unit.T, axis=1)[:, -5:]
    assert found.distance(rows) == pytest.approx(1 - cosines.mean(1), abs=2e-3)  # float16 in the bank


def test_one_row_a_class_never_says_unknown() -> None:
    features, _ = known(CLASSES, 6)
    found = Familiarity.fit(features, np.arange(CLASSES))
    assert np.isfinite(found.distance(strangers(3))).all()
    assert not found.unknown(strangers(50)).any()


@pytest.mark.parametrize(("rows", "says"), [(18, False), (19, True)])
def test_a_threshold_needs_enough_rows_to_keep_its_promise(rows: int, says: bool) -> None:
    assert np.isfinite(Familiarity.fit(*known(rows, 7)).threshold) == says


def test_copies_do_not_make_rows_familiar() -> None:
    features, codes = known(100, 8)
    copies = np.repeat(np.arange(100), 3)
    grouped = Familiarity.fit(features[copies], codes[copies], copies)
    blind = Familiarity.fit(features[copies], codes[copies])
    alone = Familiarity.fit(features, codes)
    fresh = known(2000, 9)[0]
    assert grouped.unknown(fresh).mean() < 0.12
    # within its bank a copy lies beside itself, so the threshold is set far too near
    assert blind.threshold < 0.8 * alone.threshold
    assert blind.unknown(fresh).mean() > 0.3


def test_one_group_says_nothing_rather_than_something_wrong() -> None:
    features, codes = known(30, 10)
    found = Familiarity.fit(features, codes, np.zeros(30, dtype=np.int64))
    assert not found.unknown(strangers(20)).any()


def test_stored_arrays_give_the_same_answers() -> None:
    found = Familiarity.fit(*known(200, 11))
    again = Familiarity.from_arrays(dict(found.arrays()))
    rows = strangers(50)
    assert np.array_equal(found.distance(rows), again.distance(rows))
    assert np.array_equal(found.unknown(rows), again.unknown(rows))


def test_missing_arrays_are_refused() -> None:
    arrays = dict(Familiarity.fit(*known(50, 12)).arrays())
    del arrays["threshold"]
    with pytest.raises(ArtefactError, match="threshold"):
        Familiarity.from_arrays(arrays)


def test_another_width_is_refused() -> None:
    with pytest.raises(FeatureWidth, match="width 32, these have 31"):
        Familiarity.fit(*known(50, 13)).distance(np.zeros((2, 31), dtype=np.float32))


def test_many_rows_stay_compact_and_small_classes_stay_in() -> None:
    features, codes = known(5000, 14)
    codes[:] = 0
    codes[:10] = 1
    found = Familiarity.fit(features, codes)
    assert sum(array.nbytes for array in found.arrays().values()) < 1000 * WIDTH * 2 + 100
    unit = (features[:10] / np.linalg.norm(features[:10], axis=1, keepdims=True)).astype(np.float16)
    assert (unit[:, None] == found.bank).all(2).any(1).all()


def test_long_inputs_are_measured_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Familiarity.fit(*known(100, 15))
    rows = strangers(25)
    whole = found.distance(rows)
    monkeypatch.setattr(unknown, "CHUNK", 4)
    assert found.distance(rows) == pytest.approx(whole, abs=1e-6)


def test_a_row_of_zeros_is_far_not_an_error() -> None:
    found = Familiarity.fit(*known(100, 16))
    assert found.distance(np.zeros((1, WIDTH), dtype=np.float32)) == pytest.approx([1.0])
    assert found.unknown(np.zeros((1, WIDTH), dtype=np.float32)).all()


def test_a_threshold_is_set_by_rows_that_the_backbone_has_not_learnt_from() -> None:
    rng = np.random.default_rng(0)
    # tuned rows lie at their class's centre, unseen ones around it
    codes = np.arange(200) % 2
    centres = np.eye(8, dtype=np.float32)[codes]
    unseen = np.arange(200) >= 100
    spread = np.where(unseen, 0.3, 0.01)[:, None]
    features = (centres + spread * rng.normal(size=(200, 8))).astype(np.float32)
    fresh = (np.eye(8)[codes] + 0.3 * rng.normal(size=(200, 8))).astype(np.float32)
    naive = Familiarity.fit(features[:100], codes[:100])
    found = Familiarity.fit(features, codes, unseen=unseen)
    assert naive.unknown(fresh).mean() > 0.5
    assert found.unknown(fresh).mean() < 0.15
    nothing = Familiarity.fit(features, codes, unseen=np.zeros(200, dtype=bool))
    assert not nothing.unknown(fresh).any() and np.isinf(nothing.threshold)
