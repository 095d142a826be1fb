"""Tables of every kind become the same dataset; columns are guessed only where one alone would do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftwork.datasets import dataset_digest, load, rows_from_path
from graftwork.errors import RequestError
from graftwork.rows import UNLABELLED, Contents, Dataset, Files, Texts

TEXTS = ["good film", "坏电影, 很坏", 'he said "no"', "two\nlines", "plain"]
LABELS = ["yes", "no", "no", "yes", "yes"]


def texts(dataset: Dataset) -> list[str]:
    column = dataset.rows.column
    assert isinstance(column, Texts)
    return list(column.values)


def labels(dataset: Dataset) -> list[str | None]:
    return [None if code == UNLABELLED else dataset.labels[code] for code in dataset.target.codes]


def frame() -> pd.DataFrame:
    return pd.DataFrame({"text": TEXTS, "label": LABELS})


WRITERS: dict[str, Callable[[Path], object]] = {
    "data.csv": lambda path: frame().to_csv(path, index=False),
    "data.tsv": lambda path: frame().to_csv(path, index=False, sep="\t"),
    "semicolons.csv": lambda path: frame().to_csv(path, index=False, sep=";"),
    "bom.csv": lambda path: frame().to_csv(path, index=False, encoding="utf-8-sig"),
    "utf16.csv": lambda path: frame().to_csv(path, index=False, encoding="utf-16"),
    "returns.csv": lambda path: path.write_bytes(frame().to_csv(index=False).replace("\r", "").encode()),
    "data.parquet": lambda path: frame().to_parquet(path),
    "data.jsonl": lambda path: frame().to_json(path, orient="records", lines=True, force_ascii=False),
    "data.ndjson": lambda path: frame().to_json(path, orient="records", lines=True),
    "lines.json": lambda path: frame().to_json(path, orient="records", lines=True),
    "array.json": lambda path: frame().to_json(path, orient="records"),
    "数据 表.csv": lambda path: frame().to_csv(path, index=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_table_gives_the_same_dataset(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    dataset = load(tmp_path / name, text="text")
    assert texts(dataset) == TEXTS
    assert labels(dataset) == LABELS
    assert dataset.labels == ("no", "yes")
    assert dataset.split.origin == "none"
    assert dataset_digest(dataset) == dataset_digest(load(TEXTS, labels=LABELS))


@pytest.mark.parametrize("table", [frame(), pa.Table.from_pandas(frame()), frame().to_dict("list")])
def test_tables_in_memory_give_the_same_dataset(table: Any) -> None:
    dataset = load(table)
    assert (texts(dataset), labels(dataset)) == (TEXTS, LABELS)


def test_a_row_is_known_by_the_line_it_begins_on(tmp_path: Path) -> None:
    WRITERS["data.csv"](tmp_path / "data.csv")
    assert list(load(tmp_path / "data.csv").rows.names)[-1] == "data.csv:7"  # "two\nlines" takes two


def test_chinese_from_a_spreadsheet_is_read_and_said(tmp_path: Path) -> None:
    content = "文本,标签\n很好的外卖,好\n太慢了,坏\n".encode("gb18030")
    (tmp_path / "a.csv").write_bytes(content)
    dataset = load(tmp_path / "a.csv")
    assert texts(dataset) == ["很好的外卖", "太慢了"]
    assert "GB18030" in dataset.notes[0]


def test_a_text_of_a_million_characters_is_a_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["word " * 200_000, "short"], "label": ["a", "b"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert len(texts(load(tmp_path / "a.csv"))[0]) == 1_000_000


def test_stray_quotes_in_a_tsv_are_characters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"Hello" he said\ta\nsize 5"\tb\n"open\tb\n')
    dataset = load(tmp_path / "a.tsv")
    assert texts(dataset) == ['"Hello" he said', 'size 5"', '"open']
    assert "plain characters" in dataset.notes[0]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,a\n\n,\ntwo,b\n")
    assert texts(load(tmp_path / "a.csv")) == ["one", "two"]


def test_an_empty_label_is_an_unlabelled_row_and_said() -> None:
    dataset = load({"text": ["a", "b", "c", "d"], "label": ["x", "", None, float("nan")]})
    assert labels(dataset) == ["x", None, None, None]
    assert any("3 of 4 rows have no label" in note for note in dataset.notes)


def test_a_row_without_text_is_left_out_and_said() -> None:
    dataset = load({"text": ["a", None, " ", "d"], "label": ["x", "y", "y", "y"]})
    assert texts(dataset) == ["a", "d"]
    assert any("2 rows without a text" in note for note in dataset.notes)


def test_labels_lose_surrounding_space_and_keep_their_case() -> None:
    dataset = load({"text": list("abcd"), "label": [" cat", "cat ", "Cat", "dog"]})
    assert dataset.labels == ("Cat", "cat", "dog")
    assert any("space around 2 labels" in note for note in dataset.notes)
    assert any("'Cat' and 'cat'" in note for note in dataset.notes)


def test_equal_labels_in_two_unicode_forms_are_one() -> None:
    assert load({"text": ["a", "b", "c"], "label": ["e\u0301t\u00e9", "\u00e9te\u0301", "x"]}).labels == (
        "x", "été",
    )  # fmt: skip


def test_numbered_classes_sort_as_numbers_and_lose_a_needless_fraction() -> None:
    table = {"text": [f"t{i}" for i in range(13)], "label": [float(i) for i in range(12)] + [float("nan")]}
    assert load(table).labels == tuple(map(str, range(12)))


def test_the_plain_name_wins_over_others_of_the_kind() -> None:
    dataset = load(
        {"text": ["a", "b"], "label": ["x", "y"], "category": ["p", "q"], "fine_label": ["1", "2"]}
    )
    assert dataset.labels == ("x", "y")


def test_given_columns_are_used() -> None:
    table = {"a": ["1", "2"], "b": ["x", "y"], "c": ["p", "q"], "g": ["u", "u"], "s": ["Train", "test"]}
    dataset = load(table, text="a", label="c", group="g", split="s")
    assert (texts(dataset), dataset.labels) == (["1", "2"], ("p", "q"))
    assert dataset.groups is not None and dataset.groups.tolist() == [0, 0]
    assert (dataset.split.parts.tolist(), dataset.split.origin) == (["train", "test"], "given")


def test_numbers_and_dates_are_not_the_text(tmp_path: Path) -> None:
    made = frame().rename(columns={"text": "what was said"})
    made.insert(0, "number", range(1, len(TEXTS) + 1))
    made["came"] = "2026-11-22 10:00:00"
    made.to_csv(tmp_path / "data.csv", index=False)
    assert texts(load(tmp_path / "data.csv")) == TEXTS


def test_the_only_column_left_is_the_text() -> None:
    dataset = load({"plot": ["a", "b"], "year": [1999, 2000], "label": ["x", "y"]})
    assert texts(dataset) == ["a", "b"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"one": ["a"], "two": ["b"], "label": ["x"]}, ["'one', 'two'", "--text"]),
        ({"text": ["a"], "image": ["a.jpg"], "label": ["x"]}, ["'text'", "'image'", "--file"]),
        ({"text": ["a"], "class": ["x"], "target": ["y"]}, ["'class', 'target'", "--label"]),
        ({"text": ["a"], "sentiment": ["x"]}, ["'sentiment'", "--label"]),
        ({"size": [1], "label": ["x"]}, ["'size'", "--text"]),
    ],
)
def test_a_guess_that_would_be_a_guess_is_asked(table: dict[str, list[Any]], said: list[str]) -> None:
    with pytest.raises(RequestError) as refused:
        load(table)
    assert all(word in str(refused.value) for word in said)


def test_a_column_named_split_that_names_no_parts_is_left_alone() -> None:
    dataset = load({"text": ["a", "b"], "label": ["x", "y"], "split": ["banana", "hair"]})
    assert dataset.split.parts.tolist() == ["train", "train"]


@pytest.mark.parametrize("word", ["validation", "valid", "val", "dev", "VAL "])
def test_a_validation_part_has_many_names(word: str) -> None:
    dataset = load({"text": list("abc"), "label": list("xyx"), "split": ["train", word, "test"]})
    assert dataset.split.parts.tolist() == ["train", "validation", "test"]


def test_a_folder_of_tables_is_one_dataset(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "train.csv", index=False)
    frame().to_parquet(tmp_path / "dev.parquet")
    frame().to_json(tmp_path / "test-00000-of-00001.jsonl", orient="records", lines=True)
    (tmp_path / "README.md").write_text("about")
    dataset = load(tmp_path)
    assert dataset.name == tmp_path.name
    assert {str(p): len(dataset.split.index(p)) for p in ("train", "validation", "test")} == {
        "train": 5, "validation": 5, "test": 5,
    }  # fmt: skip


def test_a_test_table_without_labels_is_unlabelled_and_no_test_part(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "train.csv", index=False)
    frame()[["text"]].to_csv(tmp_path / "test.csv", index=False)
    dataset = load(tmp_path)
    assert dataset.split.origin == "none"
    assert sorted(map(str, labels(dataset))) == sorted(["None"] * 5 + LABELS)
    assert any("no labels to score" in note for note in dataset.notes)


def picture(path: Path) -> bytes:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path)
    return path.read_bytes()


def test_paths_in_a_column_are_relative_to_the_table(tmp_path: Path) -> None:
    content = picture(tmp_path / "图片" / "a.png")
    (tmp_path / "a.csv").write_text("image,label\n图片/a.png,x\n图片/missing.png,y\n", encoding="utf-8")
    dataset = load(tmp_path / "a.csv")
    assert isinstance(dataset.rows.column, Files)
    assert dataset.rows.column.read(0) == content
    assert list(dataset.rows.names) == ["图片/a.png", "图片/missing.png"]


def test_a_lone_column_of_picture_names_is_the_file() -> None:
    dataset = load({"where": ["a.JPG", "b.png"], "label": ["x", "y"]})
    assert dataset.kind == "image"


def test_pictures_inside_parquet_are_read(tmp_path: Path) -> None:
    content = picture(tmp_path / "a.png")
    table = pa.table({"image": [{"bytes": content, "path": "a.png"}, {"bytes": None, "path": "a.png"}],
                      "label": [0, 1]})  # fmt: skip
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    info = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "t.parquet")
    dataset = load(tmp_path / "t.parquet")
    assert isinstance(dataset.rows.column, Contents)
    assert [dataset.rows.column.read(i) for i in (0, 1)] == [content, content]
    assert dataset.labels == ("cat", "dog")
    raw = load(pa.table({"picture": [content], "label": ["x"]}))
    assert raw.rows.column.read(0) == content


def test_rows_without_labels_are_read_for_prediction(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2,\n3,three\n")
    rows = rows_from_path(tmp_path / "a.csv", "text")
    # an empty text stays, so that answers keep the table's order
    assert [rows.column.read(i) for i in range(3)] == [b"one", b"", b"three"]
    with pytest.raises(RequestError, match="--file"):
        rows_from_path(tmp_path / "a.csv", "image")


def test_pictures_named_in_a_table_are_read_for_prediction(tmp_path: Path) -> None:
    content = picture(tmp_path / "in" / "a.png")
    (tmp_path / "a.tsv").write_text("photo\tnote\nin/a.png\tfirst\n")
    assert rows_from_path(tmp_path / "a.tsv", "image").column.read(0) == content


def test_groups_are_ids_and_a_row_without_one_is_its_own() -> None:
    groups = load(
        {"text": list("abcde"), "label": list("xyxyx"), "group": ["p", None, "p", np.nan, ""]}
    ).groups
    assert groups is not None
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 4
