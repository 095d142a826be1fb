from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from graftwork.backbones.base import BackboneState
from graftwork.backbones.descriptor import BLOCKS, Descriptor, describe, restore
from graftwork.errors import ArtefactError
from graftwork.rows import Contents, Rows

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (5, 48, 48, 3)).astype(np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def rows(contents: list[bytes]) -> Rows:
    return Rows([str(i) for i in range(len(contents))], {"image": Contents("image", contents)})


def stripes(across: bool) -> NDArray[np.uint8]:
    wave = (128 + 100 * np.sin(np.arange(48) * np.pi / 6)).astype(np.uint8)
    grey = np.broadcast_to(wave if across else wave[:, None], (48, 48))
    return np.repeat(grey[..., None], 3, axis=2)


def test_features_are_one_finite_row_a_picture_of_the_stated_width() -> None:
    backbone = Descriptor()
    features = backbone.features(rows([png(picture) for picture in NOISE]))
    assert features.matrix.shape == (5, backbone.width) and features.matrix.dtype == np.float32
    assert np.isfinite(features.matrix).all() and not features.unreadable
    assert sum(block.stop - block.start for block in BLOCKS.values()) == backbone.width


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    together = describe(NOISE)
    for i in range(len(NOISE)):
        np.testing.assert_array_equal(describe(NOISE[i : i + 1])[0], together[i])


def test_more_rows_than_a_batch_come_in_order() -> None:
    greys = [png(np.full((8, 8, 3), i, dtype=np.uint8)) for i in range(150)]
    pixels = Descriptor().features(rows(greys)).matrix[:, BLOCKS["pixels"]]
    np.testing.assert_allclose(pixels.mean(axis=1) * 255, np.arange(150), atol=0.01)


def test_gradients_tell_directions_apart_and_colours_do_not() -> None:
    upright, lying = describe(np.stack([stripes(True), stripes(False)]))
    apart = {name: float(np.abs(upright[block] - lying[block]).mean()) for name, block in BLOCKS.items()}
    assert apart["gradients"] > 0.02 and apart["outlines"] > 0.02
    assert apart["colours"] < 1e-6


def test_turning_a_picture_by_a_quarter_shifts_its_directions_by_a_quarter() -> None:
    def mean_directions(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        cells = describe(picture[None])[0, BLOCKS["gradients"]].reshape(8, 8, 31)
        return np.asarray(cells[2:6, 2:6, :18].mean(axis=(0, 1)))

    ramp = np.repeat(np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1))[..., None], 3, axis=2)
    right, down = mean_directions(ramp), mean_directions(ramp.transpose(1, 0, 2))
    assert right.argmax() == 0, "light grows to the right: direction 0"
    # a quarter of 18 directions is 4.5: the two neighbours share it
    assert set(np.argsort(down)[-2:].tolist()) == {4, 5}


def test_an_even_picture_has_no_gradients() -> None:
    even = describe(np.full((1, 48, 48, 3), 77, dtype=np.uint8))[0]
    assert not even[BLOCKS["gradients"]].any() and not even[BLOCKS["outlines"]].any()


def test_colour_shares_of_each_quarter_sum_to_a_quarter() -> None:
    colours = describe(NOISE)[:, BLOCKS["colours"]].reshape(5, 4, 72)
    np.testing.assert_allclose((colours**2).sum(axis=2), 0.25, rtol=1e-5)


def test_hues_fall_into_their_bins() -> None:
    pure = np.zeros((3, 48, 48, 3), dtype=np.uint8)
    for channel in range(3):
        pure[channel, ..., channel] = 255
    used = describe(pure)[:, BLOCKS["colours"]].reshape(3, 4, 8, 3, 3)[:, 0]
    hues = [int(np.argwhere(one)[0][0]) for one in used]
    assert hues == [0, 2, 5], "red at 0, green at a third and blue at two thirds of eight bins"


def test_unreadable_pictures_are_named_and_hold_nan() -> None:
    features = Descriptor().features(rows([png(NOISE[0]), b"no picture", b""]))
    assert set(features.unreadable) == {1, 2}
    assert np.isnan(features.matrix).all(axis=1).tolist() == [False, True, True]


def test_state_restores_and_another_version_is_refused() -> None:
    state = Descriptor().state()
    assert restore(state).fingerprint == Descriptor().fingerprint
    with pytest.raises(ArtefactError, match="version 99"):
        restore(BackboneState("descriptor", {"version": 99}))
