"""Bad data is refused in one line that says what was seen, what was expected and what to do next."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftwork.datasets import load, rows_from_items, rows_from_path
from graftwork.errors import RequestError
from graftwork.inspection import inspect, prepare

NOISE = np.random.default_rng(0)


def pictures(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = NOISE.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)


def write(content: str | bytes, name: str = "data.csv") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def folder(*names: str) -> Callable[[Path], Path]:
    """A folder with these pictures, and with the folders that have no dot in their name."""

    def make(root: Path) -> Path:
        pictures(root, *(name for name in names if "." in name))
        for name in names:
            if "." not in name:
                (root / name).mkdir()
        return root

    return make


def loose_files(root: Path) -> Path:
    pictures(root, "1.png", "2.png")
    return root


def texts_in_folders(root: Path) -> Path:
    (root / "pos").mkdir()
    (root / "pos" / "1.txt").write_text("good")
    return root


def links_only(root: Path) -> Path:
    pictures(root / "store", "1.png")
    (root / "data" / "a").mkdir(parents=True)
    (root / "data" / "a" / "1.png").symlink_to(root / "store" / "1.png")
    return root / "data"


def slip(root: Path) -> Path:
    (root / "data.csv").touch()
    return root / "dat.csv"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda root: root / "gone", "nothing is at .*gone"),
    "a slip in the name": (slip, "did you mean .*data.csv"),
    "empty folder": (folder(), "is empty; expected one folder a class"),
    "empty class folders": (folder("a", "b"), "is empty; expected one folder a class"),
    "no class folders": (loose_files, "2 files and no class folders"),
    "folder of data sets": (folder("x/train/a/1.png", "y/train/a/1.png"), "x, y, each with its own train"),
    "parts without classes": (folder("train/1.png", "test/2.png"), "test, train and no train folder"),
    "only a test folder": (folder("test/a/1.png", "test/b/1.png"), "holds test and no train folder"),
    "texts in folders": (texts_in_folders, "no pictures .*1 .txt.*table"),
    "links out": (links_only, "only links that lead out of it .1.; expected the pictures or"),
    "no table": (write("x", "data.docx"), "a .docx file; expected a folder of class folders, or a table"),
    "zero bytes": (write(""), "is empty; expected a header"),
    "blank": (write("\n  \n"), "is empty; expected a header"),
    "header only": (write("text,label\n"), "a header and no rows"),
    "no label column": (write("text,sentiment\na,x\n"), "say which one with --label.*'text', 'sentiment'"),
    "no text column": (write("size,label\n,x\n"), "--text or --file.*'size'"),
    "duplicate header": (write("text,label,label\na,x,y\n"), "more than one column named 'label'.*rename"),
    "ragged row": (write("text,label\na,x\nb, c,y\n"), "line 3: 3 fields seen, 2 expected.*double quotes"),
    "short row": (write("text,label\na\n"), "line 2: 1 fields seen, 2 expected"),
    "unclosed quote": (write('text,label\n"a",x\n"b,y\nc,x\n'), "line 3: a quotation mark opens here"),
    "stray quote": (write('text,label\n"a" b,x\n'), "line 2: .*double the quotation marks"),
    "nul bytes": (write("text,label\na,x\nb\0,y\n"), "line 3: NUL bytes seen.*CSV UTF-8"),
    "utf-16 unmarked": (write("text,label\na,x\n".encode("utf-16-le")), "NUL bytes seen.*UTF-16"),
    "latin-1": (write("text,label\na,x\ncaf\xe9 noir,y\n".encode("latin-1")), "line 3: byte 0xE9.*CSV UTF-8"),
    "latin-1 inside a word": (write("text,label\n\xe9cole,x\n".encode("latin-1")), "line 2: byte 0xE9"),
    "damaged utf-8": (
        write("text,label\n很好的外卖,x\n".encode() * 5 + "很好".encode()[:5] + b",x\n"), "line 11: byte 0xE5"
    ),
    "broken utf-16": (write(b"\xff\xfeA\x00\x00\xd8B\x00"), "is not UTF-16"),
    "no rows for train": (write("text,label,split\na,x,test\nb,y,test\n"), "rows for test only"),
    "no labels at all": (write("text,label\na,\nb,\n"), "none of its 2 rows has a label"),
    "no texts at all": (write("text,label\n,x\n,y\n"), "column 'text' is empty"),
    "numbers to predict": (
        write("text,label\n" + "".join(f"t{i},{i * 0.37:.2f}\n" for i in range(60))),
        "predicting a number is not possible yet",
    ),
    "a label for each row": (
        write("text,label\n" + "".join(f"t{i},name {i}\n" for i in range(60))),
        "60 different labels.*--label",
    ),
    "no Parquet": (write(b"PAR1 and no more", "data.parquet"), "cannot be read as Parquet"),
    "no JSON": (write('{"text": "a", "label": "x"}\n{"text": \n', "data.jsonl"), "line 2: not JSON"),
    "no JSON object": (write('{"text": "a", "label": "x"}\n[1]\n', "data.jsonl"), "line 2: a JSON list seen"),
    "empty JSON": (write("", "data.jsonl"), "is empty; expected one JSON object a line"),
    "empty JSON array": (write("[]", "data.json"), "no rows"),
}  # fmt: skip


def one_line(error: RequestError) -> str:
    said = str(error)
    assert "\n" not in said
    assert said[-1] not in ".\n"
    assert error.exit_status == 2
    return said


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    make, expected = BAD[case]
    with pytest.raises(RequestError) as refused:
        load(make(tmp_path))
    assert re.search(expected, one_line(refused.value))


@pytest.mark.parametrize("role", ["text", "file", "label", "group", "split"])
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, role: str) -> None:
    path = write("text,label\na,x\nb,y\n")(tmp_path)
    with pytest.raises(RequestError) as refused:
        load(path, **{role: "kind"})
    said = one_line(refused.value)
    assert "no column 'kind'" in said and f"--{role}" in said and "'text', 'label'" in said


def test_a_word_that_names_no_part_is_shown(tmp_path: Path) -> None:
    path = write("text,label,part\na,x,train\nb,y,holdout\n")(tmp_path)
    with pytest.raises(RequestError) as refused:
        load(path, split="part")
    assert re.search("row 2: 'holdout' names no part; expected train", one_line(refused.value))


def test_columns_are_no_answer_to_a_folder_of_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(RequestError, match="--text and --label name columns"):
        load(tmp_path, text="text", label="label")


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def closed(folder: Path) -> object:
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(RequestError) as refused:
        load(tmp_path)
    assert "b cannot be opened (Permission denied)" in one_line(refused.value)


def test_a_text_where_a_path_belongs_is_said() -> None:
    with pytest.raises(RequestError) as refused:
        load("a long text " * 1000)
    assert re.search("is no path .*too long", one_line(refused.value))
    assert len(str(refused.value)) < 200


def test_text_and_file_together_are_not_there_yet(tmp_path: Path) -> None:
    path = write("text,image,label\na,a.png,x\n")(tmp_path)
    with pytest.raises(RequestError, match="expected one of the two"):
        load(path, text="text", file="image")


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ([], {"labels": []}, "an empty list"),
        (["a", "b"], {"labels": ["x"]}, "labels: 1 values seen for 2 items"),
        (["a", "b"], {"labels": "xy"}, "labels: 'xy' seen"),
        (["a", "b"], {"labels": ["x", "y"], "group": "g"}, "group: 'g' seen for 2 items"),
        (["a", "b"], {"labels": ["x", "y"], "split": ["train", "later"]}, "'later' names no part"),
        (["a", b"b"], {}, "a list seen; expected a folder, a table, or a list together with labels"),
        (7, {}, "a int seen; expected a folder"),
        ({"text": ["a"], "label": ["x", "y"]}, {}, "unequal length"),
        ({}, {}, "--label"),
    ],
)
def test_bad_lists_are_refused(items: object, options: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        load(items, **options)  # type: ignore[arg-type]
    assert said in one_line(refused.value)


def test_one_item_is_no_list_of_items() -> None:
    with pytest.raises(RequestError, match="put it in brackets"):
        rows_from_items("a text", "text")
    with pytest.raises(RequestError, match="item 1 is a bytes"):
        rows_from_items([b"bytes"], "text")


@pytest.mark.parametrize("kind", ["image", "text"])
def test_nothing_to_predict_is_said(tmp_path: Path, kind: str) -> None:
    with pytest.raises(RequestError, match="holds no"):
        rows_from_path(tmp_path, kind)  # type: ignore[arg-type]


# What shows only when the contents are read


def broken_among(root: Path, whole: int, broken: dict[str, bytes]) -> Path:
    for i in range(whole):
        pictures(root, f"{'ab'[i % 2]}/{i:03}.png")
    for name, content in broken.items():
        (root / "a" / name).write_bytes(content)
    return root


def jpeg(mode: str = "RGB") -> bytes:
    from io import BytesIO

    target = BytesIO()
    Image.fromarray(NOISE.integers(0, 255, (64, 64, 3), dtype=np.uint8)).convert(mode).save(target, "JPEG")
    return target.getvalue()


def test_unreadable_pictures_are_listed_with_reasons_and_skipped(tmp_path: Path) -> None:
    bad = {"empty.jpg": b"", "cut.jpg": jpeg()[:900], "page.jpg": b"<html>oops"}
    dataset = load(broken_among(tmp_path, 60, bad))
    found = inspect(dataset)
    assert {name: reason.split(" ")[1] for name, reason in found.unreadable.items()} == {
        "a/empty.jpg": "empty", "a/cut.jpg": "truncated", "a/page.jpg": "not",
    }  # fmt: skip
    ready = prepare(dataset, found)
    assert len(ready) == 60
    assert any("3 of 63 rows cannot be read" in note for note in ready.notes)


def test_too_many_unreadable_pictures_stop_the_work(tmp_path: Path) -> None:
    bad = {f"bad{i}.jpg": b"" for i in range(4)}
    dataset = load(broken_among(tmp_path, 60, bad))
    with pytest.raises(RequestError) as refused:
        prepare(dataset, inspect(dataset))
    said = one_line(refused.value)
    assert "4 of 64 rows cannot be read, more than 5%" in said
    assert "a/bad0.jpg is empty (0 bytes)" in said


def test_no_readable_row_stops_the_work(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"RIFF....WAVE")
    dataset = load(tmp_path)
    with pytest.raises(RequestError) as refused:
        prepare(dataset, inspect(dataset))
    assert re.search("no readable row .*a/1.jpg is not a picture", one_line(refused.value))


def test_odd_but_whole_pictures_are_read(tmp_path: Path) -> None:
    odd = {"cmyk.jpg": jpeg("CMYK"), "grey.jpg": jpeg("L"), "misnamed.png": jpeg(), "no_suffix": jpeg()}
    dataset = load(broken_among(tmp_path, 2, odd))
    assert inspect(dataset).unreadable == {}


def test_one_class_is_refused(tmp_path: Path) -> None:
    dataset = load(write("text,label\na,x\nb,x\nc,\n")(tmp_path))
    with pytest.raises(RequestError) as refused:
        prepare(dataset, inspect(dataset))
    assert "one class ('x') with training rows; expected two at least" in one_line(refused.value)


def test_a_class_of_one_row_is_said(tmp_path: Path) -> None:
    dataset = load(write("text,label\na,x\nb,x\nc,y\n")(tmp_path))
    ready = prepare(dataset, inspect(dataset))
    assert any(note.startswith("y: a single training row") for note in ready.notes)
    assert len(ready.split.index("train")) == 3
