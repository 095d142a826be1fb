"""TransferClassifier keeps scikit-learn's promises."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import graftwork as gw

pytestmark = pytest.mark.usefixtures("brisk")

PRAISE = ["good service", "lovely and quick", "very kind staff", "I am delighted", "great help", "well done"]
BLAME = ["bad service", "late again", "rude staff", "I am furious", "no help at all", "badly done"]
TEXTS, LABELS = PRAISE + BLAME, ["praise"] * 6 + ["blame"] * 6


def test_clone_keeps_the_settings_and_forgets_the_fit() -> None:
    fitted = gw.TransferClassifier(source="minilm", seed=3).fit(TEXTS, LABELS)
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params() and not hasattr(fresh, "model_")


def test_labels_come_back_as_they_were_given_in_sklearns_order() -> None:
    numbers = [10 if label == "praise" else 2 for label in LABELS]
    fitted = gw.TransferClassifier(source="minilm").fit(TEXTS, numbers)
    assert fitted.classes_.tolist() == [2, 10]
    assert fitted.predict(TEXTS).dtype.kind == "i"
    assert fitted.score(TEXTS, numbers) == 1.0
    probabilities = fitted.predict_proba(["good service"])
    assert probabilities.argmax() == 1 and probabilities.sum() == pytest.approx(1)


def test_pipelines_searches_and_cross_validation_work() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, gw.TransferClassifier(source="minilm"))
    assert np.mean(cross_val_score(pipeline, TEXTS, LABELS, cv=2)) > 0.5
    search = GridSearchCV(gw.TransferClassifier(source="minilm"), {"strategy": ["probe", "mlp"]}, cv=2)
    search.fit(TEXTS, LABELS)
    assert search.best_params_["strategy"] in ("probe", "mlp")


def test_pictures_as_arrays_work_and_features_can_be_had_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = [np.full((12, 12), 255 * (i % 2), np.uint8) + rng.integers(0, 2, (12, 12)) for i in range(8)]
    pictures = [picture.clip(0, 255).astype(np.uint8) for picture in pictures]
    for picture in pictures[1::2]:
        picture[3:9, 3:5] = 0
    fitted = gw.TransferClassifier(source="glyphs").fit(pictures, ["blank", "bar"] * 4)
    features = fitted.transform(pictures)
    assert features.shape == (8, fitted.model_.backbone.width) and features.dtype == np.float32
    assert set(fitted.predict(pictures)) <= {"blank", "bar"}


def test_a_numeric_target_is_refused_in_plain_words() -> None:
    with pytest.raises(gw.RequestError, match=r"continuous.*not there yet"):
        gw.TransferClassifier(source="minilm").fit(TEXTS, np.linspace(0, 1, 12))


def test_one_class_is_refused_as_in_fit() -> None:
    with pytest.raises(gw.RequestError, match=r"one class .'praise'.; expected two"):
        gw.TransferClassifier(source="minilm").fit(PRAISE, ["praise"] * 6)


def test_asked_before_it_is_fitted_it_says_so() -> None:
    with pytest.raises(NotFittedError):
        gw.TransferClassifier(source="minilm").predict(PRAISE)
