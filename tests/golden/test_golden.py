"""An artefact saved by the first version still loads and answers as it did."""

from pathlib import Path

import pytest

import graftwork as gw

FOLDER = Path(__file__).parent / "plain_v1"
ANSWERS = {
    "I want my money back for this invoice": ("returns", 0.680),
    "the parcel never arrived": ("delivery", 0.892),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_an_old_artefact_answers_as_it_did(text: str) -> None:
    [[(label, probability)]] = gw.Model.load(FOLDER).top([text], k=1)
    assert label == ANSWERS[text][0]
    assert probability == pytest.approx(ANSWERS[text][1], abs=0.02)
