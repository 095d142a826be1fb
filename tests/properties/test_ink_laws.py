"""Laws of the preparation of drawings: brightness, polarity and place are not what is learnt from."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from graftwork.backbones.compact import Preparation, ink, prepare
from graftwork.networks import CompactConfig

CONFIG = CompactConfig(1, 16, 8, 1, (), 8)
DRAWINGS = arrays(np.uint8, st.tuples(st.integers(2, 12), st.integers(2, 12)), elements=st.integers(0, 60))


def framed(inside: np.ndarray, ground: int, pad: int) -> np.ndarray:
    return np.pad(inside + np.uint8(ground), pad, constant_values=ground)


def prepared(pixels: np.ndarray) -> np.ndarray:
    return prepare(Image.fromarray(pixels).convert("RGB"), CONFIG, Preparation("ink"))


@settings(deadline=None, max_examples=60)
@given(DRAWINGS, st.integers(0, 60), st.integers(1, 3))
def test_brightness_of_ink_and_ground_does_not_matter(inside: np.ndarray, ground: int, gain: int) -> None:
    drawing = framed(inside, 0, 2).astype(np.float32)
    assert np.allclose(ink(drawing), ink(gain * drawing + ground), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(DRAWINGS, st.integers(0, 190))
def test_dark_ink_is_bright_ink(inside: np.ndarray, ground: int) -> None:
    drawing = framed(inside, ground, 2)
    assert np.array_equal(prepared(drawing), prepared(255 - drawing))


@settings(deadline=None, max_examples=60)
@given(DRAWINGS, st.integers(1, 9), st.integers(1, 9))
def test_empty_ground_around_a_drawing_does_not_matter(inside: np.ndarray, near: int, far: int) -> None:
    assert np.array_equal(prepared(framed(inside, 0, near)), prepared(framed(inside, 0, far)))


@settings(deadline=None, max_examples=60)
@given(DRAWINGS)
def test_strongest_ink_is_one_and_ground_is_zero(inside: np.ndarray) -> None:
    found = ink(framed(inside, 0, 2).astype(np.float32))
    assert found.min() == 0 and found.max() == (1 if inside.any() else 0)
