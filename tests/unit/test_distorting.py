"""Batches are distorted as networks take them: by the draw alone, in shape, padding and ends untouched."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from graftwork.backbones.examples import Distorted, Pictures
from graftwork.errors import RequestError, UnknownName
from graftwork.records import silent
from graftwork.rows import Contents, Kind, Rows
from graftwork.strategies.base import Task
from graftwork.strategies.scratch import Scratch
from graftwork.training import Augmentation, distortion, mirrorable, views
from graftwork.training.distorting import DROPPED
from graftwork.training.hearing import Sounds

AMOUNTS = ("light", "strong")
Batch = tuple[Tensor, ...]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(n: int = 4, channels: int = 3) -> Batch:
    coarse = torch.rand(n, channels, 5, 5, generator=seeded(1))
    fine = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    return ((255 * fine).permute(0, 2, 3, 1).contiguous(),)


def texts(lengths: tuple[int, ...] = (20, 9, 3, 2, 1)) -> Batch:
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(101, 101 + length)
    return ids, (ids > 0).long()


def samples(lengths: tuple[int, ...] = (4000, 2500)) -> Batch:
    found = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        found[row, :length] = torch.randn(length, generator=seeded(row))
    return (found,)


def spectra(late: bool = True, heard: tuple[int, ...] = (100, 60)) -> Batch:
    found = torch.full((len(heard), 40, 100), -1.5)
    for row, length in enumerate(heard):
        found[row, :, :length] = torch.randn(40, length, generator=seeded(row))
    return (found if late else found.transpose(1, 2).contiguous(), torch.tensor(heard) // 2)


BATCHES: dict[str, tuple[Kind, str, Batch]] = {
    "photos": ("image", "whole", photos()),
    "grey photos": ("image", "whole", photos(channels=1)),
    "drawings": ("image", "ink", photos(channels=1)),
    "sounds seen": ("audio", "sound", photos(channels=1)),
    "texts": ("text", "whole", texts()),
    "samples": ("audio", "whole", samples()),
    "whisper": ("audio", "whole", spectra()),
    "filterbank": ("audio", "whole", spectra(late=False)),
}


def distorted(name: str, amount: str, seed: int = 0) -> Batch:
    kind, frame, batch = BATCHES[name]
    distort = distortion(kind, amount, frame)
    assert distort is not None
    return distort(batch, seeded(seed))


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("amount", AMOUNTS)
def test_shapes_and_dtypes_stay_and_the_draw_decides(name: str, amount: str) -> None:
    batch = BATCHES[name][2]
    before = [one.clone() for one in batch]
    first, again, other = (distorted(name, amount, seed) for seed in (0, 0, 1))
    assert [(one.shape, one.dtype) for one in first] == [(one.shape, one.dtype) for one in batch]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], batch[0])
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))


@pytest.mark.parametrize("name", ["photos", "grey photos", "drawings", "sounds seen"])
@pytest.mark.parametrize("amount", [*AMOUNTS, "randaugment"])
def test_pictures_stay_in_their_range_and_look_like_themselves(name: str, amount: str) -> None:
    if (name, amount) == ("sounds seen", "randaugment"):
        return
    many = BATCHES[name][2][0].repeat(40, 1, 1, 1)
    kind, frame, _ = BATCHES[name]
    distort = distortion(kind, amount, frame, mirror=False)
    assert distort is not None
    seen = distort((many,), seeded())[0]
    assert 0 <= seen.min() and seen.max() <= 255.001 and torch.isfinite(seen).all()
    alike = [
        float(np.corrcoef(a.mean(2).flatten(), b.mean(2).flatten())[0, 1])
        for a, b in zip(seen.numpy(), many.numpy(), strict=True)
    ]
    assert np.median(alike) > 0.35  # the mean of unrelated ones is 0


def test_nothing_is_distorted_where_none_is_asked_for() -> None:
    assert distortion("image", "none") is None and views("image", "none", 5) == [None]


def test_amounts_that_are_not_known_or_do_not_suit_are_refused() -> None:
    with pytest.raises(UnknownName, match="strong"):
        distortion("image", "stron")
    with pytest.raises(RequestError, match="for pictures, these rows are of kind text; try light or strong"):
        distortion("text", "randaugment")
    with pytest.raises(RequestError, match="randaugment"):
        distortion("audio", "randaugment", "sound")


def mirrored(amount: str, frame: str, mirror: bool) -> bool:
    """Whether any of many pictures, dark on the left, comes out dark on the right."""
    ramp = torch.linspace(0, 255, 32).view(1, 1, 32, 1).expand(64, 32, 32, 3)
    distort = distortion("image", amount, frame, mirror=mirror)
    assert distort is not None
    seen = distort((ramp,), seeded())[0]
    return bool((seen[:, :, :8].mean((1, 2, 3)) > seen[:, :, -8:].mean((1, 2, 3)) + 20).any())


@pytest.mark.parametrize("amount", [*AMOUNTS])
def test_left_and_right_change_places_only_where_labels_allow(amount: str) -> None:
    assert mirrored(amount, "whole", True)
    assert not mirrored(amount, "whole", False)
    assert not mirrored(amount, "ink", True)


@pytest.mark.parametrize(
    "labels",
    [
        ("turn_left", "turn_right"), ("LeftHand", "RightHand"), ("left2", "up"), ("clockwise", "still"),
        ("a", "b", "d"), ("0", "1", "2", "other"), ("links abbiegen", "geradeaus"),
        ("左", "上"), ("左转弯", "直行"), ("à droite", "ici"), ("counter-clockwise", "x-ray"),
    ],
)  # fmt: skip
def test_labels_that_speak_of_sides_forbid_mirroring(labels: tuple[str, ...]) -> None:
    assert not mirrorable(labels)


@pytest.mark.parametrize(
    "labels",
    [
        ("ants", "bees"),
        ("bright", "cleft lip", "leftover food"),
        ("t-shirt", "long sleeve"),
        ("上衣", "裤子"),
    ],
)
def test_other_labels_allow_it(labels: tuple[str, ...]) -> None:
    assert mirrorable(labels)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.sampled_from(AMOUNTS), st.integers(0, 99))
def test_texts_lose_tokens_but_neither_order_nor_ends(lengths: list[int], amount: str, seed: int) -> None:
    ids, mask = texts(tuple(lengths))
    distort = distortion("text", amount)
    assert distort is not None
    fewer, kept = distort((ids, mask), seeded(seed))
    for row, length in enumerate(lengths):
        left = fewer[row, : kept[row].sum()].tolist()
        assert left == sorted(left) and set(left) <= set(ids[row, :length].tolist())
        assert left[0] == ids[row, 0] and left[-1] == ids[row, length - 1]
        assert length < 3 or len(left) >= 3
        # what is masked is padding, all of it at the end
        assert not fewer[row, len(left) :].any() and kept[row].tolist() == [1] * len(left) + [0] * (
            kept.shape[1] - len(left)
        )


def test_a_text_never_loses_all_it_says() -> None:
    ids, mask = texts((4,) * 400)
    distort = distortion("text", "strong")
    assert distort is not None
    kept = distort((ids, mask), seeded())[1].sum(1)
    assert set(kept.tolist()) == {3, 4}


def test_as_many_tokens_go_as_stated() -> None:
    ids, mask = texts((102,) * 60)
    for amount, share in DROPPED.items():
        distort = distortion("text", amount)
        assert distort is not None
        gone = 102 - distort((ids, mask), seeded())[1].sum(1).float().mean()
        assert float(gone) == pytest.approx(100 * share, rel=0.15)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_padding_of_sounds_is_not_touched(amount: str) -> None:
    (found,), (given_,) = distorted("samples", amount), samples()
    assert not found[1, 2500:].any() and not torch.equal(found[1, :2500], given_[1, :2500])
    (late, steps), (before, stated) = distorted("whisper", amount), spectra()
    assert torch.equal(late[1, :, 60:], before[1, :, 60:]) and torch.equal(steps, stated)
    (early, _), (before, _) = distorted("filterbank", amount), spectra(late=False)
    assert torch.equal(early[1, 60:], before[1, 60:]) and not torch.equal(early[1, :60], before[1, :60])


def test_silence_stays_silence() -> None:
    distort = distortion("audio", "strong")
    assert distort is not None
    assert not distort((torch.zeros(3, 500),), seeded())[0].any()
    flat = torch.full((2, 10, 50), -1.5)
    assert torch.equal(distort((flat, torch.ones(2)), seeded())[0], flat)


@pytest.mark.parametrize("name", ["samples", "whisper", "filterbank"])
def test_sounds_stay_sounds_of_their_own_loudness(name: str) -> None:
    kind, _, batch = BATCHES[name]
    distort = distortion(kind, "light")
    assert distort is not None
    loud = [float(distort(batch, seeded(seed))[0][0].std() / batch[0][0].std()) for seed in range(40)]
    assert 0.75 < np.median(loud) < 1.1 and min(loud) > 0.4 and max(loud) < 2


def test_sounds_move_by_at_most_the_stated_share_and_silence_comes_in() -> None:
    rising = torch.arange(1.0, 201.0).repeat(60, 1)
    only = Sounds(shift=0.1, gain=0, stretch=0, band=0, masks=0)
    (found,) = only((torch.cat([rising, torch.zeros(60, 30)], 1),), seeded())
    assert not found[:, 200:].any()
    firsts, lasts = found[:, 0], found[:, 199]
    ahead = found[:, 100] - 101  # of where it was
    assert ahead.abs().max() <= 20 and ahead.min() < -10 and ahead.max() > 10
    assert (firsts[ahead < 0] == 0).all() and (lasts[ahead > 0] == 0).all()
    assert ((found == 0).sum(1) == 30 + ahead.abs()).all()
    bands = torch.cat([rising, torch.zeros(60, 30)], 1)[:, None].repeat(1, 4, 1)
    (energies,) = only((bands,), seeded())
    # the quietest there is stands for silence, beside its own place where that is still there
    assert torch.equal((energies[:, 0] == 1).sum(1), torch.where(ahead > 0, ahead, 1 - ahead).long())


def test_spectra_of_another_unit_are_distorted_alike() -> None:
    distort = distortion("audio", "strong")
    assert distort is not None
    sound, steps = spectra()
    once, scaled = distort((sound, steps), seeded())[0], distort((8 * sound, steps), seeded())[0]
    assert torch.allclose(8 * once, scaled, atol=1e-4)


def test_examples_are_distorted_in_training_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    distort = distortion("image", "strong")
    assert distort is not None
    examples = Distorted(Pictures(pixels), distort)
    index = np.array([3, 1])
    assert torch.equal(examples.batch(index)[0], torch.from_numpy(pixels[index]).float())
    assert not torch.equal(examples.batch(index, seeded())[0], examples.batch(index)[0])


ROWS: dict[str, tuple[Kind, tuple[np.ndarray, ...]]] = {
    "photo": ("image", (np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8),)),
    "text": ("text", tuple(one[:1].numpy() for one in texts())),
    "samples": ("audio", tuple(one[:1].numpy() for one in samples())),
    "spectrum": ("audio", tuple(one[:1].numpy() for one in spectra())),
}


@pytest.mark.parametrize("name", ROWS)
def test_views_are_fixed_by_their_number_and_the_rows_content(name: str) -> None:
    kind, row = ROWS[name]
    first, one, two, three = views(kind, "strong", 4)
    assert first is None and one is not None and two is not None and three is not None
    seen = one(row, b"content")
    assert [(a.shape, a.dtype) for a in seen] == [(a.shape, a.dtype) for a in row]
    again = views(kind, "strong", 2)[1]
    assert again is not None
    assert all(np.array_equal(a, b) for a, b in zip(seen, again(row, b"content"), strict=True))
    for other in (two(row, b"content"), three(row, b"content"), one(row, b"other content"), row):
        assert not np.array_equal(other[0], seen[0])


def test_views_leave_masks_and_steps_alone() -> None:
    for name in ("text", "spectrum"):
        kind, row = ROWS[name]
        view = views(kind, "strong", 2)[1]
        assert view is not None
        assert np.array_equal(view(row, b"x")[1], row[1])


def test_keys_of_views_are_plain_and_tell_them_apart() -> None:
    many = [
        *views("image", "light", 3)[1:], *views("image", "strong", 2)[1:], *views("text", "light", 2)[1:],
        *views("image", "light", 2, mirror=False)[1:], *views("image", "light", 2, "ink")[1:],
    ]  # fmt: skip
    keys = [json.dumps(dict(view.key), sort_keys=True) for view in many if view is not None]
    assert len(set(keys)) == len(keys) == 6
    assert all("version" in json.loads(key) for key in keys)


@pytest.mark.parametrize(
    ("labels", "wanted"), [(("ants", "bees"), True), (("turn left", "turn right"), False)]
)
def test_scratch_swaps_sides_only_where_labels_allow(labels: tuple[str, str], wanted: bool) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 40, 48, 3), dtype=np.uint8)
    contents = []
    for pixels in colours:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    rows = Rows([str(i) for i in range(8)], {"image": Contents("image", contents)})
    task = Task(
        rows, np.arange(8) % 2, labels, np.arange(8), np.zeros(8, bool), np.ones(8), "accuracy", 0
    )  # fmt: skip
    augment = Scratch()._made(task, silent).augment
    assert isinstance(augment, Augmentation) and augment.mirror == wanted
