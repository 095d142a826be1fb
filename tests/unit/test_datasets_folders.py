"""Folders of pictures: labels and parts come from the folders, whatever else lies beside."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftwork.datasets import dataset_digest, load, rows_from_items, rows_from_path
from graftwork.errors import RequestError, Unreadable
from graftwork.rows import UNLABELLED, Dataset


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 4), shade).save(path, "PNG")
    return path


def by_part(dataset: Dataset) -> Counter[tuple[str, str | None]]:
    names = [None if code == UNLABELLED else dataset.labels[code] for code in dataset.target.codes]
    return Counter(zip(dataset.split.parts.tolist(), names, strict=True))


def test_class_folders_give_the_labels(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.JPG", "a/deep/er/3.webp", "猫/四.png"):
        picture(tmp_path / name)
    dataset = load(tmp_path)
    assert dataset.labels == ("a", "b", "猫")
    assert list(dataset.rows.names) == ["a/2.JPG", "a/deep/er/3.webp", "b/1.png", "猫/四.png"]
    assert by_part(dataset) == {("train", "a"): 2, ("train", "b"): 1, ("train", "猫"): 1}
    assert (dataset.split.origin, dataset.notes) == ("none", ())


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev", "Val"])
def test_part_folders_give_the_split(tmp_path: Path, validation: str) -> None:
    for part in ("Train", validation, "test"):
        picture(tmp_path / part / "a" / "1.png")
        picture(tmp_path / part / "b" / "2.png")
    dataset = load(str(tmp_path))
    assert dataset.split.origin == "given"
    assert by_part(dataset) == {(p, c): 1 for p in ("train", "validation", "test") for c in "ab"}


def test_train_can_be_the_name_of_a_class(tmp_path: Path) -> None:
    for name in ("train", "plane", "bus"):
        picture(tmp_path / name / "1.png")
    assert load(tmp_path).labels == ("bus", "plane", "train")


def test_what_lies_beside_the_pictures_is_left_out_and_said(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        picture(tmp_path / name)
    for name in ("a/Thumbs.db", "a/.DS_Store", "b/._2.png", ".git/x.png", "__MACOSX/a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    for name in ("a/1.txt", "a/1.json", "b/2.txt", "labels.csv"):
        (tmp_path / name).write_text("x")
    dataset = load(tmp_path)
    assert len(dataset) == 2
    (note,) = dataset.notes
    assert note.endswith("1 .csv, 1 .json, 2 .txt")


def test_a_file_of_unknown_suffix_is_a_row(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2", "b/3.camera"):
        picture(tmp_path / name)
    assert len(load(tmp_path)) == 3


def test_pictures_beside_the_class_folders_have_no_label(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "train/3.png", "test/a/4.png", "test/5.png"):
        picture(tmp_path / name)
    assert by_part(load(tmp_path)) == {
        ("train", "a"): 1, ("train", "b"): 1, ("train", None): 1, ("test", "a"): 1, ("test", None): 1,
    }  # fmt: skip


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    inside = picture(root / "a" / "1.png")
    picture(root / "b" / "2.png")
    outside = picture(tmp_path / "secret" / "3.png")
    (root / "a" / "4.png").symlink_to(outside)
    (root / "a" / "5.png").symlink_to(inside)
    (root / "c").symlink_to(outside.parent)
    (root / "a" / "loop").symlink_to(root)
    dataset = load(root)
    assert list(dataset.rows.names) == ["a/1.png", "a/5.png", "b/2.png"]
    assert any(note.endswith("were not followed: 2") for note in dataset.notes)


def test_a_link_to_the_folder_itself_is_the_users_own_wish(tmp_path: Path) -> None:
    for name in ("root/a/1.png", "root/b/2.png"):
        picture(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert len(load(tmp_path / "link")) == 2


def test_an_empty_class_folder_is_said(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        picture(tmp_path / name)
    (tmp_path / "c").mkdir()
    assert load(tmp_path).notes == ("no pictures in c",)


def test_the_digest_is_that_of_contents_labels_and_parts(tmp_path: Path) -> None:
    for root in ("one", "two"):
        picture(tmp_path / root / "a" / f"{root}.png", 10)
        picture(tmp_path / root / "b" / "2.png", 20)
    same = dataset_digest(load(tmp_path / "one"))
    assert dataset_digest(load(tmp_path / "two")) == same
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
    assert dataset_digest(load(tmp_path / "two")) != same
    picture(tmp_path / "one" / "b" / "2.png", 30)
    assert dataset_digest(load(tmp_path / "one")) != same


def test_pictures_as_python_has_them_are_one_column(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 200)
    grey = np.full((4, 6), 200, dtype=np.uint8)
    given = [path, str(path), path.read_bytes(), Image.open(path), grey, grey.astype(int), grey / 255]
    dataset = load(given, labels=list("aabbabb"))
    from graftwork.images import decode

    for i in range(len(given)):
        seen = np.asarray(decode(dataset.rows.column.read(i)))
        assert seen.shape == (4, 6, 3)
        assert (seen == 200).all()
    assert len({dataset.rows.column.digest(i) for i in range(4, 7)}) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_pil_pictures_of_every_mode_are_kept(mode: str) -> None:
    rows = rows_from_items([Image.new(mode, (5, 3))], "image")
    from graftwork.images import decode

    assert decode(rows.column.read(0)).size == (5, 3)


def test_a_pil_picture_keeps_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (8, 4))
    lying.info["exif"] = exif.tobytes()
    from io import BytesIO

    content = BytesIO()
    lying.save(content, "JPEG", exif=exif)
    from graftwork.images import decode

    rows = rows_from_items([Image.open(BytesIO(content.getvalue()))], "image")
    assert decode(rows.column.read(0)).size == (4, 8)


@pytest.mark.parametrize(
    ("item", "seen"),
    [
        (np.zeros(64), r"\(64,\)"),
        (np.zeros((3, 8, 8)), r"\(3, 8, 8\)"),
        (np.full((8, 8), 16.0), "from 16 to 16"),
        (np.full((8, 8), -1), "from -1 to -1"),
        (np.zeros((0, 8)), r"\(0, 8\)"),
        (7, "int"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_was_seen(item: object, seen: str) -> None:
    with pytest.raises(RequestError, match=seen) as refused:
        load([item, item], labels=["a", "b"])
    assert "expected" in str(refused.value)


def test_texts_and_paths_are_told_apart(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert load([str(path), str(path)], labels=["x", "y"]).kind == "image"
    assert load(["look at a.png", str(path)], labels=["x", "y"]).kind == "text"
    assert load(["gone.png", "lost.jpg"], labels=["x", "y"]).kind == "text"
    assert rows_from_items(["gone.png"], "image").kind == "image"


def test_lists_take_groups_and_parts_as_lists() -> None:
    dataset = load(list("abc"), labels=[1, 2, 1], group=["p", "p", "q"], split=["train", "test", "val"])
    assert dataset.groups is not None and dataset.groups.tolist() == [0, 0, 1]
    assert dataset.split.parts.tolist() == ["train", "test", "validation"]


def test_a_missing_file_shows_when_it_is_read() -> None:
    rows = rows_from_items([Path("/no/such.jpg")], "image")
    assert rows.names == ["/no/such.jpg"]
    with pytest.raises(Unreadable, match="cannot be opened"):
        rows.column.read(0)


def test_a_folder_is_searched_for_what_the_model_takes(tmp_path: Path) -> None:
    picture(tmp_path / "deep" / "a.png")
    (tmp_path / "note.txt").write_text("  a text\n")
    # a name that can be opened, as where a picture is named alone
    assert rows_from_path(tmp_path, "image").names == [str(tmp_path / "deep" / "a.png")]
    assert rows_from_path(tmp_path, "text").column.read(0) == b"a text"
    assert rows_from_path(tmp_path / "deep" / "a.png", "image").kind == "image"
    assert rows_from_path(tmp_path / "note.txt", "text").column.read(0) == b"a text"


def test_a_gap_among_texts_is_named_and_is_no_picture() -> None:
    with pytest.raises(RequestError, match="item 2 is None; expected a text"):
        load(["a", None, "b"], labels=["x", "y", "x"])
