"""Columns are read lazily, digests are of the content alone, taking rows keeps all fields together."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from graftwork.errors import RequestError, Unreadable
from graftwork.rows import UNLABELLED, Contents, Dataset, Files, Rows, Split, Target, Texts


def index(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def small(codes: list[int], parts: list[str]) -> Dataset:
    texts = [f"text {i}" for i in range(len(codes))]
    rows = Rows([f"row {i}" for i in range(len(codes))], {"text": Texts(texts)})
    target = Target(index(*codes), ("a", "b"))
    return Dataset("small", rows, target, Split(np.array(parts), "given"), np.arange(len(codes)) % 3)


def test_a_text_has_the_digest_of_its_utf8() -> None:
    column = Texts(["été", "\ud800"])
    assert column.digest(0) == hashlib.sha256("été".encode()).digest()
    assert len(column.digest(1)) == 32


def test_a_file_is_read_when_asked_for_and_not_before(tmp_path: Path) -> None:
    column = Files("image", [tmp_path / "a.jpg"]).take(index(0, 0))
    (tmp_path / "a.jpg").write_bytes(b"content")
    assert column.read(1) == b"content"
    assert column.digest(0) == hashlib.sha256(b"content").digest()


def test_the_digest_does_not_depend_on_the_path(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"same")
    column = Files("image", [tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert column.digest(0) == column.digest(1) == Contents("image", [b"same"]).digest(0)


def test_views_share_what_was_hashed(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"content")
    column = Files("image", [path])
    before = column.digest(0)
    path.unlink()
    assert column.take(index(0)).digest(0) == before


@pytest.mark.parametrize("column", [Files("image", [Path("/no/such/file.jpg")]), Contents("image", [b""])])
def test_what_cannot_be_read_says_why(column: Files | Contents) -> None:
    for ask in (column.read, column.digest):
        with pytest.raises(Unreadable, match=r"cannot be opened|is empty"):
            ask(0)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(Unreadable, match=r"is empty \(0 bytes\)"):
        Files("image", [tmp_path / "a.jpg"]).read(0)


def test_several_fields_have_no_single_column() -> None:
    rows = Rows(["one"], {"title": Texts(["a"]), "body": Texts(["b"])})
    with pytest.raises(RequestError, match="body"):
        _ = rows.column


def test_columns_of_unequal_length_are_our_own_slip() -> None:
    with pytest.raises(AssertionError):
        Rows(["one", "two"], {"text": Texts(["a"])})


def test_taking_rows_takes_everything_that_belongs_to_them() -> None:
    taken = small([0, 1, UNLABELLED, 1], ["train", "test", "train", "train"]).take(index(3, 1))
    assert list(taken.rows.names) == ["row 3", "row 1"]
    assert taken.rows.column.read(0) == b"text 3"
    assert taken.target.codes.tolist() == [1, 1]
    assert taken.split.parts.tolist() == ["train", "test"]
    assert taken.groups is not None and taken.groups.tolist() == [0, 1]


def test_few_keeps_some_labelled_training_rows_and_every_test_row() -> None:
    dataset = small([0, 0, 0, 1, UNLABELLED, 0, 1], ["train"] * 5 + ["test", "validation"])
    kept = dataset.few(2, seed=0)
    train = kept.target.codes[kept.split.index("train")]
    assert sorted(train.tolist()) == [0, 0, 1]
    assert len(kept.split.index("test")) == 1
    assert len(kept.split.index("validation")) == 0
    assert list(kept.rows.names) == list(dataset.few(2, seed=0).rows.names)


def test_a_dataset_prints_short() -> None:
    assert len(repr(small([0] * 50 + [1] * 50, ["train"] * 100))) < 200
