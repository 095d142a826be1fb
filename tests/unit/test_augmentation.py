"""Pictures distorted by tensor operations: each by its own draw, within its range, still what it shows."""

import colorsys
from collections.abc import Callable

import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from graftwork.training.augmentation import Augmentation, affine, recoloured
from graftwork.training.randaugment import GEOMETRY, OPERATIONS, RandAugment

SIDE = 24


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(n: int = 6, channels: int = 3, side: int = SIDE) -> Tensor:
    """Pictures without fine detail, in 0..1."""
    coarse = torch.rand(n, channels, 4, 4, generator=seeded(9))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def ones(n: int) -> Tensor:
    return torch.ones(n)


def test_crops_show_a_part_of_the_picture_of_at_least_the_stated_area() -> None:
    # a picture whose colours are its coordinates says where a crop was taken
    place = (torch.arange(64) + 0.5) / 64
    picture = torch.stack([place.expand(64, 64), place[:, None].expand(64, 64)])
    seen = Augmentation(crop=0.4)(picture.expand(300, -1, -1, -1), seeded())
    wide = (seen[:, 0, :, -1] - seen[:, 0, :, 0]).mean(1) * 64 / 63
    high = (seen[:, 1, -1] - seen[:, 1, 0]).mean(1) * 64 / 63
    area, ratio = wide * high, wide / high
    assert 0.37 < area.min() < 0.5 and 0.9 < area.max() < 1.02
    assert 0.7 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.4
    # anywhere in the picture
    assert seen[:, 0].mean((1, 2)).std() > 0.05 and seen[:, 1].mean((1, 2)).std() > 0.05
    # inside: no edge is repeated
    assert seen[:, :, 0, 0].min() > 0 and (seen[:, 0, :, -1] > seen[:, 0, :, -3]).all()


def test_crops_of_pictures_that_are_not_square_keep_their_shape() -> None:
    assert Augmentation(crop=0.5)(torch.rand(3, 3, 12, 20), seeded()).shape == (3, 3, 12, 20)


def test_unchanged_factors_leave_colours_alone() -> None:
    pictures = smooth()
    same = recoloured(pictures, ones(6), ones(6), ones(6), torch.zeros(6))
    assert torch.allclose(same, pictures, atol=1e-5)


def test_brightness_scales_and_saturation_of_zero_is_grey() -> None:
    pictures = smooth()
    assert torch.allclose(
        recoloured(pictures, 0.5 * ones(6), ones(6), ones(6), torch.zeros(6)), pictures / 2, atol=1e-5
    )
    grey = recoloured(pictures, ones(6), ones(6), torch.zeros(6), torch.zeros(6))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert torch.allclose(grey, (weights * pictures).sum(1, keepdim=True).expand(-1, 3, -1, -1), atol=1e-5)


def test_contrast_of_zero_is_the_mean_brightness() -> None:
    pictures = smooth()
    flat = recoloured(pictures, ones(6), torch.zeros(6), ones(6), torch.zeros(6))
    assert flat.flatten(2).std(2).max() < 1e-5
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert torch.allclose(flat[:, 0, 0, 0], (weights * pictures).sum(1).mean((1, 2)), atol=1e-5)


def test_a_turn_of_the_colour_circle_moves_hues_by_as_much() -> None:
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    for turn, wanted in ((1 / 3, 1 / 3), (-1 / 3, 2 / 3), (0.05, 0.05)):
        found = recoloured(red, ones(1), ones(1), ones(1), torch.tensor([turn])).flatten().tolist()
        assert colorsys.rgb_to_hsv(*found)[0] == pytest.approx(wanted, abs=0.01)
    assert torch.allclose(
        recoloured(0.4 * torch.ones(1, 3, 1, 1), ones(1), ones(1), ones(1), ones(1) / 7), torch.tensor(0.4)
    )


def test_grey_pictures_have_no_colours_to_change() -> None:
    grey = smooth(channels=1)
    assert torch.equal(Augmentation(colour=0.9, hue=0.5)(grey, seeded()), Augmentation()(grey, seeded()))


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_keeps_shape_and_range_and_changes_something(name: str, channels: int) -> None:
    pictures = 0.1 + 0.8 * smooth(channels=channels)
    seen = RandAugment((name,), layers=1, strength=0.5)(pictures, seeded(2))
    assert seen.shape == pictures.shape and 0 <= seen.min() and seen.max() <= 1
    grey = channels == 1 and name == "saturation"
    assert torch.allclose(seen, pictures, atol=1e-4) == (name == "same" or grey)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("equalise", ImageOps.equalize), ("stretch", ImageOps.autocontrast)],
)
def test_levels_are_spread_as_pillow_spreads_them(
    name: str, ours: Callable[[Image.Image], Image.Image]
) -> None:
    levels = (255 * smooth(1, 3, 64)).round().to(torch.uint8)
    picture = Image.fromarray(levels[0].permute(1, 2, 0).numpy())
    wanted = torch.frombuffer(bytearray(ours(picture).tobytes()), dtype=torch.uint8).view(64, 64, 3)
    found = 255 * OPERATIONS[name](levels.float() / 255, ones(1))[0].permute(1, 2, 0)
    # Pillow counts in whole steps, which costs a few of 256 levels
    assert (
        (found - wanted.float()).abs().mean() < 4 < (levels[0].permute(1, 2, 0) - wanted.float()).abs().mean()
    )


def test_a_turn_and_back_is_nearly_nothing() -> None:
    pictures = smooth(2, 3, 64)
    there = OPERATIONS["turn"](pictures, 0.3 * ones(2))
    back = OPERATIONS["turn"](there, -0.3 * ones(2))
    middle = slice(20, 44)
    assert (back - pictures)[:, :, middle, middle].abs().max() < 0.03
    assert (there - pictures)[:, :, middle, middle].abs().max() > 0.05


def test_a_move_to_the_right_is_by_the_stated_share() -> None:
    place = ((torch.arange(50) + 0.5) / 50).expand(1, 1, 50, 50)
    moved = OPERATIONS["across"](place, 0.5 * ones(1))
    assert float((moved - place)[0, 0, 25, 25]) == pytest.approx(0.15, abs=1e-4)


def test_posterised_pictures_have_few_levels_and_solarised_ones_no_bright_spot() -> None:
    pictures = torch.rand(1, 3, 32, 32, generator=seeded())
    assert len(set(OPERATIONS["posterise"](pictures, ones(1)).flatten().tolist())) <= 16
    assert OPERATIONS["solarise"](pictures, 0.3 * ones(1)).max() <= 0.7


def test_each_picture_draws_for_itself_and_the_seed_decides() -> None:
    same = smooth(1).expand(16, -1, -1, -1)
    seen = RandAugment()(same, seeded(4))
    assert len({one.numpy().tobytes() for one in seen}) > 8
    assert torch.equal(seen, RandAugment()(same, seeded(4)))
    assert not torch.equal(seen, RandAugment()(same, seeded(5)))


def test_the_given_pictures_stay_as_they_were() -> None:
    pictures = smooth()
    before = pictures.clone()
    RandAugment()(pictures, seeded())
    Augmentation(crop=0.5, colour=0.3, erase=1.0)(pictures, seeded())
    assert torch.equal(pictures, before)


def test_geometry_leaves_colours_alone() -> None:
    flat = torch.full((20, 3, 8, 8), 0.37)
    assert torch.allclose(RandAugment(GEOMETRY)(flat, seeded()), flat, atol=1e-6)


def test_affine_places_are_those_of_torch() -> None:
    maps = torch.randn(5, 2, 3, generator=seeded())
    wanted = torch.nn.functional.affine_grid(maps, [5, 1, 7, 11], align_corners=False)
    assert torch.allclose(affine(maps, 7, 11), wanted, atol=1e-5)
