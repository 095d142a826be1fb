"""The subword backbone: any script becomes tokens, and a text's answer is its own."""

import json

import numpy as np
import pytest
import torch

from graftwork.backbones.compact import weights
from graftwork.backbones.subwords import GRAMS, LONGEST, Subwords, restore, tokens
from graftwork.errors import ArtefactError
from graftwork.networks import SubwordConfig, SubwordNet
from graftwork.rows import Rows, Texts

CONFIG = SubwordConfig(buckets=500, width=8)


def backbone(seed: int = 0) -> Subwords:
    torch.manual_seed(seed)
    return Subwords(CONFIG, weights(SubwordNet(CONFIG, classes=2)))


def rows_of(texts: list[str]) -> Rows:
    return Rows([str(i) for i in range(len(texts))], {"text": Texts(texts)})


TEXTS = rows_of(["a fine film", "", "味道很好，送得快", "ไม่อร่อย", "word " * 700, "naïve café 😀", "x"] * 9)


@pytest.mark.parametrize(("text", "count"), [("a fine film", 3), ("味道很好", 4), ("ok, go", 3), ("", 1)])
def test_words_and_signs_become_tokens(text: str, count: int) -> None:
    assert tokens(text, 500).shape == (count, GRAMS)


def test_bucket_zero_means_nothing_only() -> None:
    assert not tokens("", 500).any()
    assert (tokens("a fine film", 2)[:, 0] == 1).all()  # the only bucket that is left
    assert tokens("some longer words", 500).max() < 500


def test_words_that_share_a_stem_share_n_grams() -> None:
    one, other, unlike = (set(tokens(word, 100_000)[0]) - {0} for word in ("reading", "reader", "cloud"))
    assert len(one & other) >= 3
    assert not one & unlike


def test_a_million_characters_are_read_by_their_beginning() -> None:
    assert len(tokens("word " * 200_000, 500)) == LONGEST


def test_answers_do_not_depend_on_order_or_company() -> None:
    found = backbone()
    whole = found.features(TEXTS).matrix
    assert np.isfinite(whole).all()
    order = np.random.default_rng(0).permutation(len(TEXTS))
    assert np.array_equal(found.features(TEXTS.take(order)).matrix, whole[order])
    assert np.array_equal(found.features(TEXTS.take(np.array([2]))).matrix, whole[[2]])


def test_restored_backbone_gives_the_same_numbers() -> None:
    found = backbone()
    state = found.state()
    assert json.loads(json.dumps(state.config)) == state.config
    again = restore(state)
    assert again.fingerprint == found.fingerprint != backbone(seed=1).fingerprint
    assert np.array_equal(again.features(TEXTS).matrix, found.features(TEXTS).matrix)


def test_state_of_another_version_is_refused() -> None:
    from dataclasses import replace

    state = backbone().state()
    for config in ({**state.config, "version": 99}, {**state.config, "longest": 5}):
        with pytest.raises(ArtefactError, match="fit it again"):
            restore(replace(state, config=config))
    with pytest.raises(ArtefactError, match="belong together"):
        restore(replace(state, arrays={}))
