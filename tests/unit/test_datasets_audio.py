from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftwork.datasets import dataset_digest, load, rows_from_items, rows_from_path
from graftwork.errors import RequestError, Unreadable
from graftwork.inputs import rows_of
from graftwork.rows import Files, Rows
from graftwork.sounds import decode, encode, look
from tiny_sounds import RATE, class_folders, glides

SAMPLES = np.linspace(-0.5, 0.5, 800).astype(np.float32)


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def rate_of(rows: Rows, i: int) -> int:
    with rows.column.open(i) as file:
        return look(file).rate


def test_class_folders_of_recordings(tmp_path: Path) -> None:
    data = load(class_folders(tmp_path / "calls", 2))
    assert (data.kind, len(data), data.labels) == ("audio", 6, ("falling", "level", "rising"))
    assert isinstance(data.rows.column, Files) and data.rows.names[0].startswith("falling/")
    assert data.split.origin == "none" and data.notes == ()


def test_parts_each_with_class_folders_and_a_table_beside_them(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / part, 2, seed=len(part))
    (tmp_path / "metadata.csv").write_text("file,label\n")
    data = load(tmp_path)
    assert data.split.origin == "given" and len(data.split.index("test")) == 6
    with pytest.raises(
        RequestError, match=r"folder of files, no table; name the table in it: .*metadata.csv"
    ):
        load(tmp_path, group="speaker")


@pytest.mark.parametrize("suffix", [".FLAC", ".mp3", ".ogg", ".wave", ".m4a"])
def test_suffixes_of_recordings_count_in_any_case(tmp_path: Path, suffix: str) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / f"1{suffix}").write_bytes(b"x")
    assert load(tmp_path).kind == "audio"


def test_pictures_beside_recordings_are_refused(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "mixed", 2)
    (folder / "level" / "cover.png").write_bytes(b"\x89PNG")
    with pytest.raises(RequestError) as refused:
        load(folder)
    assert "holds both pictures and recordings, such as cover.png and" in one_line(refused.value)


def table(folder: Path, content: str) -> Path:
    class_folders(folder / "train", 2)
    path = folder / "metadata.csv"
    path.write_text(content)
    return path


TABLE = "file,label,speaker,split\n" + "".join(
    f"train/{label}/{i}.wav,{label},{'ann' if i < 3 else 'ben'},{'test' if i < 3 else 'train'}\n"
    for i, label in enumerate(("rising", "level", "falling", "rising", "level", "falling"))
)


def test_a_table_of_files_with_speakers_and_parts(tmp_path: Path) -> None:
    data = load(table(tmp_path, TABLE), group="speaker")
    assert (data.kind, len(data)) == ("audio", 6)
    assert data.split.origin == "given" and list(data.split.index("test")) == [0, 1, 2]
    assert data.groups is not None and data.groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.rows.names[1] == "train/level/1.wav"
    assert rate_of(data.rows, 1) == RATE


def test_a_table_that_names_both_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"column 'file' holds both pictures and recordings"):
        load(table(tmp_path, TABLE + "cover.png,level,ann,train\n"))


def test_parquet_with_sounds_in_it(tmp_path: Path) -> None:
    contents, codes = glides(2)
    for name, cells in {
        "bytes": contents,
        "records": [{"bytes": content, "path": None} for content in contents],
    }.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"audio": cells, "label": [f"c{code}" for code in codes]}), path)
        data = load(path)
        assert data.kind == "audio" and data.rows.column.read(3) == contents[3]


INTEGERS = {
    "int16": (SAMPLES * 32_768).astype(np.int16),
    "int32": (SAMPLES.astype(np.float64) * 2**31).astype(np.int32),
    "uint8": (SAMPLES * 128 + 128).round().astype(np.uint8),
}
ITEMS: dict[str, Any] = {
    "samples and rate": (SAMPLES, RATE),
    "record": {"array": SAMPLES, "sampling_rate": RATE},
    "record with a path": {"path": "gone.wav", "array": SAMPLES.astype(np.float64), "sampling_rate": RATE},
    "list": (SAMPLES.tolist(), float(RATE)),
    "channels first": (np.stack([SAMPLES, SAMPLES]), RATE),
    "channels last": (np.stack([SAMPLES, SAMPLES], axis=1), RATE),
    "bytes": encode(SAMPLES, RATE, exact=True),
    **{name: (samples, RATE) for name, samples in INTEGERS.items()},
}


@pytest.mark.parametrize("form", ITEMS)
def test_recordings_in_memory_keep_their_samples(form: str) -> None:
    data = load([ITEMS[form]] * 2, labels=["a", "b"])
    assert data.kind == "audio"
    found = decode(data.rows.column.open(0), RATE)
    np.testing.assert_allclose(found, SAMPLES, atol=1 / 120 if form == "uint8" else 1e-4)


def test_the_same_samples_have_the_same_digest_whatever_their_form() -> None:
    forms = ["samples and rate", "record", "channels last", "bytes"]
    digests = {rows_from_items([ITEMS[form]], "audio").column.digest(0) for form in forms}
    assert len(digests) == 1


BAD_ITEMS: dict[str, tuple[Any, str]] = {
    "no rate": (SAMPLES, r"item 1 is an array of shape \(800,\) without a rate; expected a recording"),
    "rate first": ((RATE, SAMPLES), "item 1 has the rate .*expected samples a second"),
    "absurd rate": ((SAMPLES, 0), "item 1 has the rate 0; expected samples a second"),
    "three axes": ((np.zeros((2, 2, 2)), RATE), r"item 1 has samples of shape \(2, 2, 2\)"),
    "words": ((np.array(["a"]), RATE), "expected numbers"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_items_are_refused_in_one_line(case: str) -> None:
    item, expected = BAD_ITEMS[case]
    with pytest.raises(RequestError, match=expected) as refused:
        load([item, item], labels=["a", "b"])
    assert len(one_line(refused.value)) < 250


def test_a_list_of_pictures_and_recordings_is_refused() -> None:
    with pytest.raises(RequestError, match="the list holds both"):
        load([np.zeros((8, 8), np.uint8), (SAMPLES, RATE)], labels=["a", "b"])


def test_paths_in_a_list_are_recordings_where_the_files_are_there(tmp_path: Path) -> None:
    files = sorted(map(str, class_folders(tmp_path, 1).rglob("*.wav")))
    assert load(files, labels=["a", "b", "c"]).kind == "audio"
    assert rows_from_items([Path(files[0])], "audio").column.kind == "audio"


def test_what_is_to_be_answered_is_found(tmp_path: Path) -> None:
    folder = class_folders(tmp_path, 2)
    (folder / "level" / "notes.txt").write_text("x")
    assert len(rows_of(str(folder), "audio")) == 6
    assert len(rows_of(str(folder / "level"), "audio")) == 2
    (one,) = (folder / "level").glob("1.wav")
    assert rows_of(str(one), "audio").names == [one.as_posix()]
    listed = tmp_path / "new.csv"
    listed.write_text("file\nlevel/1.wav\ngone.wav\n")
    rows = rows_of(str(listed), "audio")
    assert rows.kind == "audio" and rate_of(rows, 0) == RATE
    with pytest.raises(Unreadable, match="cannot be opened"):
        rows.column.open(1)


def test_ids_without_a_suffix_are_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a1").write_bytes(encode(SAMPLES, RATE))
    path = tmp_path / "ids.csv"
    path.write_text("file\na1\n")
    assert rows_from_path(path, "audio").kind == "audio"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: (p / "a.txt").write_text("x"), "holds no recordings; expected recordings"),
        (lambda p: (p / "a.png").write_bytes(b"x"), "holds no recordings; expected recordings"),
    ],
)
def test_folders_without_recordings_are_refused(tmp_path: Path, make: Any, expected: str) -> None:
    make(tmp_path)
    with pytest.raises(RequestError, match=expected):
        rows_from_path(tmp_path, "audio")


def test_real_recordings_as_folders_and_as_their_table(real_data: Path) -> None:
    folders = load(real_data / "spoken_digits")
    listed = load(real_data / "spoken_digits" / "metadata.csv", group="speaker")
    assert folders.kind == listed.kind == "audio"
    assert len(folders.split.index("test")) == len(listed.split.index("test")) == 300
    assert listed.groups is not None and len(np.unique(listed.groups)) == 6
    assert dataset_digest(folders) == dataset_digest(listed)
    assert rate_of(folders.rows, 0) == RATE
