import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from graftwork.backbones.base import BackboneState
from graftwork.backbones.tfidf import (
    LONGEST,
    Tfidf,
    View,
    Weighting,
    counts,
    matrix,
    read_texts,
    restore,
)
from graftwork.errors import ArtefactError, Unreadable
from graftwork.rows import Rows, Texts

ENGLISH = ["the cat sat on the mat", "a dog sat", "the cat and the dog", "", "rain, rain again!"]
CHINESE = ["今天天气很好", "天气不好", "很好吃"]


def rows(texts: list[str]) -> Rows:
    return Rows([str(i) for i in range(len(texts))], {"text": Texts(texts)})


def fitted(texts: list[str], views: tuple[View, ...] = ("words", "characters")) -> Tfidf:
    weightings = tuple(Weighting.of(counts(texts, view), view, least=1, most=1000) for view in views)
    rng = np.random.default_rng(0)
    width = sum(len(weighting.columns) for weighting in weightings)
    return Tfidf(
        weightings, rng.normal(size=(width, 3)).astype(np.float32), np.array([1, 2, 3], dtype=np.float32)
    )


def test_runs_of_characters_are_counted_as_scikit_learn_counts_them() -> None:
    theirs = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5)).fit_transform(ENGLISH)
    ours = counts(ENGLISH, "characters")
    assert len(np.unique(ours.indices)) == theirs.shape[1]
    assert [*_rows(ours)] == [*_rows(theirs)]


def test_words_and_pairs_are_counted_as_scikit_learn_counts_them() -> None:
    pattern = r"\w+|[^\w\s]"
    theirs = CountVectorizer(ngram_range=(1, 2), token_pattern=pattern).fit_transform(ENGLISH)
    ours = counts(ENGLISH, "words")
    assert len(np.unique(ours.indices)) == theirs.shape[1]
    assert [*_rows(ours)] == [*_rows(theirs)]


def _rows(counted) -> list[list[float]]:
    """Each row's counts in ascending order: the same whatever the columns are called."""
    return [sorted(counted[[i]].data.tolist()) for i in range(counted.shape[0])]


def test_no_pair_of_words_spans_two_texts() -> None:
    apart, alone = counts(["red", "fish"], "words"), counts(["red fish"], "words")
    assert np.diff(apart.indptr).tolist() == [1, 1]
    assert np.diff(alone.indptr).tolist() == [3]


def test_a_chinese_sign_is_a_word() -> None:
    words = counts(CHINESE, "words")
    assert np.diff(words.indptr).tolist() == [5 + 5, 4 + 3, 3 + 2]
    shared = np.intersect1d(words[[0]].indices, words[[1]].indices)
    assert len(shared) == 4, "天, 气, 天气 and 好"


def test_weights_are_sublinear_tf_times_smoothed_idf_at_length_one() -> None:
    texts = ["a a b", "a c"]
    counted = counts(texts, "words")
    weighting = Weighting.of(counted, "words", least=1, most=100)
    dense = weighting.weigh(counted).toarray()
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, rtol=1e-6)
    rare = np.log(3 / 2) + 1
    expected = np.array([1 + np.log(2), rare, rare, rare])  # a (twice), b, "a a", "a b"
    np.testing.assert_allclose(
        np.sort(dense[0][dense[0] > 0]), np.sort(expected / np.linalg.norm(expected)), rtol=1e-6
    )


def test_vocabulary_is_bounded_and_keeps_the_most_frequent() -> None:
    counted = counts(["a b", "a c", "a d"], "words")
    weighting = Weighting.of(counted, "words", least=1, most=1)
    assert weighting.columns.tolist() == counts(["a"], "words").indices.tolist()
    assert len(Weighting.of(counted, "words", least=2, most=100).columns) == 1


def test_features_do_not_depend_on_neighbours() -> None:
    backbone = fitted(ENGLISH)
    together = backbone.features(rows(ENGLISH)).matrix
    for i, text in enumerate(ENGLISH):
        np.testing.assert_array_equal(backbone.features(rows([text])).matrix[0], together[i])


def test_restored_backbone_gives_the_same_features_bit_for_bit() -> None:
    backbone = fitted(ENGLISH + CHINESE)
    again = restore(backbone.state())
    assert again.fingerprint == backbone.fingerprint
    np.testing.assert_array_equal(
        again.features(rows(CHINESE)).matrix, backbone.features(rows(CHINESE)).matrix
    )


def test_fingerprint_changes_with_the_weights() -> None:
    backbone = fitted(ENGLISH)
    other = Tfidf(backbone.weightings, backbone.weights + 1, backbone.intercept)
    assert backbone.fingerprint != other.fingerprint


def test_state_of_another_version_is_refused() -> None:
    state = fitted(ENGLISH).state()
    with pytest.raises(ArtefactError, match="version 99"):
        restore(BackboneState("tfidf", {**state.config, "version": 99}, state.arrays))


def test_texts_without_a_known_n_gram_get_the_intercept() -> None:
    features = fitted(ENGLISH).features(rows(["", "   ", "Ωμέγα"])).matrix
    np.testing.assert_array_equal(features, np.tile([1, 2, 3], (3, 1)))


def test_case_and_width_of_signs_do_not_matter() -> None:
    assert (counts(["ＡＢＣ Rain"], "words") != counts(["abc rain"], "words")).nnz == 0


def test_a_very_long_text_is_judged_by_its_beginning() -> None:
    weightings = fitted(["x y"]).weightings
    long = matrix(["x " * LONGEST], weightings)
    longer = matrix(["x " * LONGEST + "y " * 1_000_000], weightings)
    assert (long != longer).nnz == 0


def test_lone_surrogates_are_read() -> None:
    assert np.isfinite(fitted(ENGLISH).features(rows(["cat \ud800 dog"])).matrix).all()


class Broken(Texts):
    def read(self, i: int) -> bytes:
        if i == 1:
            raise Unreadable("is gone")
        return super().read(i)


def test_unreadable_rows_are_named_and_hold_nan() -> None:
    broken = Rows(["a", "b", "c"], {"text": Broken(ENGLISH[:3])})
    features = fitted(ENGLISH).features(broken)
    assert features.unreadable == {1: "is gone"}
    assert np.isnan(features.matrix).any(axis=1).tolist() == [False, True, False]
    with pytest.raises(Unreadable, match="b is gone"):
        read_texts(broken)
