"""Inspection finds repeats, leaks, contradictions and gaps; preparing keeps duplicates on one side."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from graftwork.backbones.base import Backbone
from graftwork.backbones.thumbnail import WIDTH, Thumbnail, restore
from graftwork.datasets import load
from graftwork.datasets.duplicates import alike, components, near_pictures, near_texts
from graftwork.errors import RequestError
from graftwork.inspection import Inspection, dataset_digest, in_words, inspect, prepare
from graftwork.records import Progress
from graftwork.rows import UNLABELLED, Dataset, Rows

LONG = (
    "The committee met on Tuesday to discuss the budget for the coming year, and although several members "
    "raised concerns about the cost of heating the old library, the proposal was adopted without a vote. "
)


def photo(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Smooth random colours, as a photo has them."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    target = BytesIO()
    picture.save(target, "JPEG", quality=quality)
    return target.getvalue()


def pictures(
    contents: list[bytes], labels: list[str] | None = None, split: list[str] | None = None
) -> Dataset:
    labels = ["ab"[i % 2] for i in range(len(contents))] if labels is None else labels
    return load(contents, labels=labels, split=split)


def texts(values: list[str], labels: list[str] | None = None, **more: list[str]) -> Dataset:
    labels = ["ab"[i % 2] for i in range(len(values))] if labels is None else labels
    return load(values, labels=labels, **more)


def together(found: Inspection) -> list[list[int]]:
    """Rows that share a group with another, in order."""
    members = [np.flatnonzero(found.groups == group).tolist() for group in np.unique(found.groups)]
    return sorted(rows for rows in members if len(rows) > 1)


# Near-duplicates


def test_a_copy_in_another_size_quality_or_brightness_is_found() -> None:
    whole = photo(0, (400, 300))
    copies = [
        whole,
        whole.resize((200, 150)),
        whole.resize((200, 200)),
        ImageEnhance.Brightness(whole).enhance(1.04),
    ]
    contents = [*map(jpeg, copies), jpeg(whole, 40), *(jpeg(photo(i, (400, 300))) for i in range(1, 30))]
    assert together(inspect(pictures(contents))) == [[0, 1, 2, 3, 4]]


def test_the_same_shape_in_another_colour_is_no_copy() -> None:
    shape = Image.new("RGB", (100, 100), (200, 200, 200))
    red, green = shape.copy(), shape.copy()
    red.paste((200, 0, 0), (30, 20, 70, 90))
    green.paste((0, 102, 0), (30, 20, 70, 90))
    assert together(inspect(pictures([jpeg(red), jpeg(green)]))) == []


@pytest.mark.parametrize(("side", "copies"), [(16, []), (160, [[0, 1]])])
def test_small_pictures_that_look_alike_are_no_copies(side: int, copies: list[list[int]]) -> None:
    stroke = np.zeros((side, side))
    stroke[side // 8 : -side // 8, side * 7 // 16 : side * 9 // 16] = 1
    another = stroke.copy()
    another[side // 8 :, side * 7 // 16 : side * 8 // 16] *= 0.8
    # as digits written by two hands: correlated at 0.99, yet not the same
    assert together(inspect(load([stroke, another], labels=["1", "7"]))) == copies


def test_pictures_without_contrast_are_only_equal_to_themselves() -> None:
    shades = [jpeg(Image.new("RGB", (64, 64), (shade, shade, shade))) for shade in (100, 101, 102, 100)]
    assert together(inspect(pictures(shades))) == [[0, 3]]


def test_frames_of_one_film_cost_memory_in_proportion_and_are_joined() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (1, 32, 32)).astype(np.uint8)
    greys = np.repeat(frame, 800, axis=0)
    pairs = near_pictures(greys, np.zeros((800, 48), np.uint8), np.zeros(800, bool))
    assert len(pairs) <= 74 * 800
    assert components(800, pairs).max() == 0


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Good film!", "good   film", True),
        ("ｇｏｏｄ film", "good film", True),
        ("送餐速度快", "送餐速度快！", True),
        ("Straße", "STRASSE", True),
        ("good film", "good films", False),
        ("good 👍", "good 👎", False),
        ("?!", "...", False),
        (LONG, LONG.replace("Tuesday", "Monday"), True),
        (LONG, LONG + "It was late.", True),
        (LONG, LONG[::-1], False),
        (LONG, LONG[: len(LONG) // 2], False),
        (LONG[:49], LONG[:49].replace("met", "sat"), False),
    ],
)
def test_texts_are_nearly_equal_where_little_differs(one: str, other: str, alike: bool) -> None:
    filler = [f"{i} something else that is said number {i * 7}" for i in range(20)]
    assert (together(inspect(texts([one, *filler, other]))) == [[0, 21]]) is alike


def test_long_texts_with_nine_tenths_in_common_are_found_among_many() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(5000)])
    originals = [rng.choice(words, 200) for _ in range(300)]
    values = [" ".join(words) for words in originals]
    for words_of in originals[:50]:
        changed = words_of.copy()
        changed[rng.integers(200)] = "different"
        values.append(" ".join(changed))
    pairs = near_texts(values)
    assert sorted(map(tuple, pairs.tolist())) == [(i, 300 + i) for i in range(50)]


def test_components_join_what_any_pair_joins() -> None:
    pairs = [np.array([[0, 2], [3, 4]]), np.array([[2, 3]])]
    assert components(6, *pairs).tolist() == [0, 1, 0, 0, 0, 2]
    assert components(3).tolist() == [0, 1, 2]
    assert alike(["a", None, "a", None, "b", "a"]).tolist() == [[0, 2], [0, 5]]


def test_a_set_too_large_to_be_copies_is_reported_and_left_apart() -> None:
    values = [LONG * 2 + f"{i:03}" for i in range(60)] + [f"short {i} text of its own" for i in range(40)]
    found = inspect(texts([*values, values[0]]))
    assert found.oversized == (61,)
    # equal contents still stay together
    assert together(found) == [[0, 100]]
    assert any("sets of 61 rows look alike" in warning for warning in found.warnings)


# What is said


def test_repeats_and_leaks_are_counted_by_part() -> None:
    split = ["train"] * 4 + ["validation"] + ["test"] * 3
    dataset = texts(
        ["one", "one", "two", "three", "two", "One!", "one", "four"], ["a"] * 7 + ["b"], split=split
    )
    found = inspect(dataset)
    assert found.exact.within == 1
    assert [(leak.part, leak.seen_in, leak.rows) for leak in found.exact.leaks] == [
        ("validation", "train", 1), ("test", "train", 1),
    ]  # fmt: skip
    assert found.exact.leaks[1].examples == (("item 7", "item 1"),)
    assert [(leak.part, leak.seen_in, leak.rows) for leak in found.near.leaks] == [("test", "train", 1)]
    assert found.near.leaks[0].examples == (("item 6", "item 1"),)


def test_equal_contents_with_different_labels_are_named() -> None:
    found = inspect(texts(["same", "other", "same", "Same.", "same"], ["a", "b", "b", "a", "a"]))
    assert found.conflicts == ((("item 1", "a"), ("item 3", "b"), ("item 4", "a"), ("item 5", "a")),)


def test_a_class_missing_from_a_part_is_named() -> None:
    found = inspect(texts(list("pqrst"), list("abcab"), split=["train"] * 3 + ["test"] * 2))
    assert found.absent == (("test", "c"),)
    assert any("'c' has no row in test" in warning for warning in found.warnings)


def test_unbalanced_classes_are_said() -> None:
    found = inspect(texts([f"text {i}" for i in range(44)], ["a"] * 40 + ["b", "b", "c", "c"]))
    assert found.imbalance == 20.0
    assert any("unbalanced" in warning for warning in found.warnings)
    assert inspect(texts(["x", "y", "z"], ["a", "b", "a"])).imbalance == 2.0


@pytest.mark.parametrize(("long", "said"), [(3, True), (1, False)])
def test_elongated_pictures_suggest_the_whole_picture(long: int, said: bool) -> None:
    shapes = [(60, 200)] * long + [(100, 120)] * (10 - long)
    found = inspect(pictures([jpeg(photo(i, shape)) for i, shape in enumerate(shapes)]))
    assert found.elongated == long / 10
    assert any("--resize fit" in warning for warning in found.warnings) is said


def test_everything_found_is_one_json_object_and_a_page_of_words() -> None:
    dataset = texts(["a", "b", "a", "c"], ["x", "y", "y", "X"], split=["train"] * 3 + ["test"])
    found = inspect(dataset)
    shown = json.loads(json.dumps(found.to_json()))
    assert shown["classes"] == ["X", "x", "y"]
    assert shown["counts"] == {"train": {"X": 0, "x": 1, "y": 2}, "test": {"X": 1, "x": 0, "y": 0}}
    assert shown["clashes"] == [["X", "x"]]
    assert shown["conflicts"] == [[["item 1", "x"], ["item 3", "y"]]]
    words = in_words(found)
    clean = in_words(inspect(texts(list("abcd"))))
    assert "no unreadable rows" in clean and "no unreadable rows" not in words
    assert all(warning in words for warning in (*found.warnings, *found.notes))
    assert found.warnings and found.notes


def test_looking_again_costs_nothing_with_a_backbone_that_remembers() -> None:
    asked: list[int] = []
    kept: dict[bytes, np.ndarray] = {}

    class Remembering:
        kind, width = "image", WIDTH

        def __init__(self, inner: Backbone) -> None:
            self.inner, self.fingerprint, self.state = inner, inner.fingerprint, inner.state

        def features(self, rows: Rows, notify: Callable[[Progress], None] = print) -> object:
            digests = [rows.column.digest(i) for i in range(len(rows))]
            new = np.array([i for i, digest in enumerate(digests) if digest not in kept], dtype=np.int64)
            asked.append(len(new))
            fresh = self.inner.features(rows.take(new))
            kept.update({digests[i]: fresh.matrix[at] for at, i in enumerate(new)})
            matrix = np.array([kept[digest] for digest in digests])
            return type(fresh)({"thumbnail": matrix}, {}, fresh.extraction)

    dataset = pictures([jpeg(photo(i)) for i in range(6)])
    first = inspect(dataset, Remembering)  # type: ignore[arg-type]
    assert inspect(dataset, Remembering) == first  # type: ignore[arg-type]
    assert asked == [6, 0]


def test_progress_reaches_the_caller_and_ends_at_the_total() -> None:
    heard: list[Progress] = []
    inspect(pictures([jpeg(photo(i)) for i in range(3)]), notify=heard.append)
    assert (heard[-1].done, heard[-1].total) == (3, 3)


# Thumbnails


def test_thumbnails_are_bounded_and_name_what_cannot_be_decoded() -> None:
    dataset = pictures([jpeg(photo(1, (300, 100))), b"no picture", jpeg(photo(2))])
    seen = Thumbnail().features(dataset.rows)
    assert seen.matrix.shape == (3, Thumbnail().width)
    assert seen.matrix.dtype == np.float32
    assert list(seen.unreadable) == [1] and "not a picture" in seen.unreadable[1]
    assert np.isnan(seen.matrix[1]).all()
    assert 0 <= seen.matrix[0, :-2].min() and seen.matrix[0, :-2].max() <= 1
    assert seen.matrix[0, -2] / seen.matrix[0, -1] == 3
    assert (seen.extraction.rows, seen.extraction.computed) == (3, 3)


def test_a_thumbnail_backbone_is_restored_from_its_state() -> None:
    again = restore(Thumbnail().state())
    assert again.fingerprint == Thumbnail().fingerprint
    assert len(again.fingerprint) == 64


def test_thumbnails_do_not_depend_on_their_neighbours() -> None:
    dataset = pictures([jpeg(photo(i)) for i in range(5)])
    whole = Thumbnail().features(dataset.rows).matrix
    for i in range(5):
        assert (Thumbnail().features(dataset.rows.take(np.array([i]))).matrix[0] == whole[i]).all()


# Preparing


def many(rows: int, **more: list[str]) -> Dataset:
    values = [f"text number {i} about {i * 31 % 97}" for i in range(rows)]
    return texts(values, ["abc"[i % 3] for i in range(rows)], **more)


def test_a_test_part_is_made_from_a_thousand_rows_on() -> None:
    made = prepare(many(1002), inspect(many(1002)))
    assert made.split.origin == "made"
    codes = made.target.codes[made.split.index("test")]
    assert np.bincount(codes).tolist() == [67, 67, 67]
    few = prepare(many(999), inspect(many(999)))
    assert (few.split.origin, len(few.split.index("test"))) == ("none", 0)


def test_the_share_of_the_test_part_can_be_asked_for() -> None:
    dataset = many(30)
    half = prepare(dataset, inspect(dataset), test=0.5)
    assert (half.split.origin, len(half.split.index("test"))) == ("made", 15)
    large = many(1200)
    assert prepare(large, inspect(large), test=0).split.origin == "none"


def test_the_made_split_follows_the_seed() -> None:
    dataset = many(1200)
    found = inspect(dataset)
    parts = [prepare(dataset, found, seed=seed).split.parts.tolist() for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]


def test_a_users_split_is_respected_and_its_leaks_are_said() -> None:
    split = ["train", "train", "test", "test"]
    dataset = texts(["one", "two", "one", "three"], list("abab"), split=split, group=list("pqrq"))
    ready = prepare(dataset, inspect(dataset))
    assert (ready.split.parts.tolist(), ready.split.origin) == (split, "given")
    assert any("exact copies of train rows in test: 1" in note for note in ready.notes)
    assert any("groups both in test and in what is learnt from: 1" in note for note in ready.notes)


def test_groups_join_the_users_groups_and_the_duplicates() -> None:
    dataset = texts(["one", "two", "two", "four", "five"], list("ababa"), group=["p", "p", "", "", ""])
    groups = prepare(dataset, inspect(dataset)).groups
    assert groups is not None
    assert groups.tolist() == [0, 0, 0, 1, 2]


def test_groups_stay_with_their_rows_where_unreadable_ones_are_dropped() -> None:
    contents = [jpeg(photo(i)) for i in range(30)]
    dataset = pictures([contents[0], b"no picture", *contents[1:], contents[5]])
    ready = prepare(dataset, inspect(dataset))
    assert ready.groups is not None
    same = np.flatnonzero(ready.groups == ready.groups[-1])
    assert [ready.rows.names[i] for i in same] == ["item 7", "item 32"]


def test_no_group_is_parted_by_a_made_split() -> None:
    groups = [f"g{i // 7}" for i in range(1400)]
    dataset = many(1400, group=groups)
    ready = prepare(dataset, inspect(dataset))
    test = ready.split.index("test")
    assert ready.groups is not None
    assert not set(ready.groups[test]) & set(ready.groups[ready.split.index("train")])
    assert 0.18 * 1400 <= len(test) <= 0.22 * 1400


def test_validation_rows_and_their_groups_stay_out_of_a_made_test_part() -> None:
    split = ["validation" if i < 100 else "train" for i in range(1200)]
    group = [f"g{i % 100}" if i < 200 else "" for i in range(1200)]
    dataset = many(1200, split=split, group=group)
    ready = prepare(dataset, inspect(dataset))
    assert ready.split.parts[:100].tolist() == ["validation"] * 100
    assert ready.groups is not None
    validation, test = ready.split.index("validation"), ready.split.index("test")
    assert len(test) > 100 and not set(ready.groups[validation]) & set(ready.groups[test])


def test_unlabelled_rows_stay_and_are_never_test_rows() -> None:
    dataset = many(1200)
    dataset.target.codes[:150] = UNLABELLED
    ready = prepare(dataset, inspect(dataset))
    assert len(ready) == 1200
    assert (ready.target.codes[ready.split.index("test")] != UNLABELLED).all()


def test_a_class_that_only_the_test_part_has_cannot_be_scored_and_is_said() -> None:
    split = ["train"] * 4 + ["test"] * 3
    dataset = texts([f"text {i}" for i in range(7)], list("bcbcabc"), split=split)
    ready = prepare(dataset, inspect(dataset))
    assert ready.labels == ("b", "c")
    assert ready.target.codes.tolist() == [0, 1, 0, 1, UNLABELLED, 0, 1]
    assert any(note.startswith("a: no training row; 1 test rows") for note in ready.notes)


def test_preparing_twice_changes_nothing() -> None:
    dataset = many(1100)
    once = prepare(dataset, inspect(dataset))
    twice = prepare(once, inspect(once))
    assert dataset_digest(once) == dataset_digest(twice)
    assert once.split.parts.tolist() == twice.split.parts.tolist()


def test_unlabelled_data_cannot_be_learnt_from() -> None:
    dataset = texts(["a", "b", "c"], ["x", "y", "y"])
    dataset.target.codes[:2] = UNLABELLED
    with pytest.raises(RequestError, match="one class"):
        prepare(dataset, inspect(dataset))


# Real data


@pytest.mark.parametrize(
    ("name", "exact", "near"), [("sst2", {("test", "train"): 2}, {}), ("trec6", {("test", "train"): 10}, {})]
)
def test_known_leaks_of_real_texts_are_found(
    real_data: Path, name: str, exact: dict[tuple[str, str], int], near: dict[tuple[str, str], int]
) -> None:
    leaks = {(leak.part, leak.seen_in): leak.rows for leak in inspect(load(real_data / name)).exact.leaks}
    assert leaks == exact


def test_real_digits_are_hardly_merged(real_data: Path) -> None:
    dataset = load(real_data / "digits_mnist_usps" / "usps")
    found = inspect(dataset)
    assert len(np.unique(found.groups)) >= len(dataset) - 5
    assert found.oversized == ()


def test_real_copies_of_birds_are_found_and_nothing_else(real_data: Path) -> None:
    dataset = load(real_data / "birds6")
    merged = together(inspect(dataset))
    names = {tuple(dataset.rows.names[i].split("/")[-1][:6] for i in rows) for rows in merged}
    assert names == {
        ("tou001", "tou021"), ("tou026", "tou041"), ("wod005", "wod073"), ("tou029", "tou067"),
        ("tou023", "tou042"),
    }  # fmt: skip
