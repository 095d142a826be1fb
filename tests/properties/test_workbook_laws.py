"""A table is one dataset, whether it comes as CSV or as a workbook."""

import csv
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_workbooks as books
from graftwork.datasets import dataset_digest, load
from graftwork.rows import Dataset, Texts

# what both can hold: XML has no control characters and one kind of line end, CSV no NUL
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=20).map(
    lambda text: text.replace("_x", "x").replace("\ufeff", "")
)
odd = st.sampled_from(
    [" before", "after ", "two\nlines", 'a "quote"', "a, b; c", "007", "1.0", "=1+1", "é", "TRUE"]
)
cells = texts.filter(str.strip) | odd | st.integers(-(10**14), 10**14)
rows = st.lists(st.tuples(cells, st.sampled_from(["a", "猫", 3, 10])), min_size=2, max_size=8)


def said(dataset: Dataset) -> list[tuple[str, str]]:
    column = dataset.rows.column
    assert isinstance(column, Texts)
    return [
        (text, dataset.labels[code]) for text, code in zip(column.values, dataset.target.codes, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(rows)
def test_a_workbook_is_the_dataset_of_its_csv(some: list[tuple[str | int, str | int]]) -> None:
    whole = [("text", "label"), *some]
    with tempfile.TemporaryDirectory() as folder:
        plain, book = Path(folder, "a.csv"), Path(folder, "a.xlsx")
        with plain.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(whole)
        book.write_bytes(books.xlsx({"S": whole}))
        one, other = load(plain, text="text"), load(book, text="text")
    assert said(other) == said(one)
    assert dataset_digest(other) == dataset_digest(one)
