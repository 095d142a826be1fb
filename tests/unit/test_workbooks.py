"""Workbooks are tables: their cells say what a user sees, and what cannot be read is refused in one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tiny_workbooks as books
from graftwork.cli import app
from graftwork.datasets import dataset_digest, load, rows_from_path
from graftwork.datasets.tables import Table, read_table
from graftwork.datasets.workbooks import sheets_told
from graftwork.errors import RequestError, UnreadableWorkbook
from graftwork.rows import Texts
from tiny_workbooks import CLOCK, DATE, DURATION, MOMENT, raw

TICKETS: list[list[books.Cell]] = [
    ["工单内容", "类别"],
    ["包裹三天没有动静 & <丢了?>", "物流"],
    ['two\nlines, "quoted"', 7],
    ["被扣了两次款", "账单"],
]


def table(folder: Path, content: bytes, name: str = "tickets.xlsx") -> Table:
    (folder / name).write_bytes(content)
    return read_table(folder / name)


def values(found: Table) -> dict[str, list[object]]:
    return {name: column() for name, column in found.columns.items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xlsx", books.xlsx({"S": TICKETS})),
        ("a.XLSM", books.xlsx({"S": TICKETS})),
        ("a.ods", books.ods(TICKETS)),
        ("a.xls", books.xls(TICKETS)),
        ("old.xlsx", books.xls(TICKETS)),
        ("new.xls", books.xlsx({"S": TICKETS})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_workbook_gives_the_dataset_of_its_csv(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / "a.csv").write_text(
        '工单内容,类别\n包裹三天没有动静 & <丢了?>,物流\n"two\nlines, ""quoted""",7\n被扣了两次款,账单\n',
        "utf-8",
    )
    (tmp_path / name).write_bytes(content)
    plain, found = (load(tmp_path / one, text="工单内容") for one in ("a.csv", name))
    assert found.labels == plain.labels == ("7", "物流", "账单")
    assert dataset_digest(found) == dataset_digest(plain)
    assert list(found.rows.names) == [f"{name}:{number}" for number in (2, 3, 4)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (raw("3"), "3"),
        (raw("-3.50"), "-3.5"),
        (raw("0.30000000000000004"), "0.3"),
        (raw("1.10101199001011E+17"), "1.10101199001011e+17"),
        (raw("NaN"), "nan"),
        (raw("1", "b"), "TRUE"),
        (raw("0", "b"), "FALSE"),
        (raw("45000", style=DATE), "2023-03-15"),
        (raw("45000.52", style=MOMENT), "2023-03-15 12:28:48"),
        (raw("0.52", style=CLOCK), "12:28:48"),
        (raw("1.52", style=DURATION), "36:28:48"),
        (raw("2", before="<f>1+1</f>"), "2"),
        (raw("done", "str", before='<f>HYPERLINK("http://x.example")</f>'), "done"),
        ("<c><f>1+1</f></c>", ""),  # a program wrote the formula, and none has computed it
        (raw("#N/A", "e"), ""),
        (raw("0", "s"), "shared"),
        (
            '<c t="inlineStr"><is><r><t xml:space="preserve">rich </t></r><r><t>text</t></r></is></c>',
            "rich text",
        ),
    ],
)
def test_a_cell_says_what_a_user_sees(tmp_path: Path, cell: str, text: str) -> None:
    rows = f"<row>{raw('text', 'str')}{raw('value', 'str')}</row><row>{raw('a', 'str')}{cell}</row>"
    found = table(tmp_path, books.xlsx({"S": rows}, shared=["shared"]))
    assert values(found) == {"text": ["a"], "value": [text]}


def test_the_header_is_the_first_row_that_shows_anything(tmp_path: Path) -> None:
    cells: list[list[books.Cell]] = [
        [None, None, None, None],
        [None, "text", " ", "label"],
        [None, "one", None, "a"],
        [" ", None, None, ""],
        [None, "two", None, "b", None],
        [None, None, None, "c"],
    ]
    found = table(tmp_path, books.xlsx({"S": cells}))
    assert values(found) == {"text": ["one", "two", ""], "label": ["a", "b", "c"]}
    assert list(found.row_names) == ["tickets.xlsx:3", "tickets.xlsx:5", "tickets.xlsx:6"]


def test_a_merged_cell_is_its_first_and_notes_beside_the_table_are_a_column(tmp_path: Path) -> None:
    cells: list[list[books.Cell]] = [["text", "label"], ["one", "a"], ["two", None, "see Ann"]]
    assert values(table(tmp_path, books.xlsx({"S": cells}))) == {
        "text": ["one", "two"],
        "label": ["a", ""],
        "column 3": ["", "see Ann"],
    }


def test_the_first_sheet_with_data_is_read_and_said(tmp_path: Path) -> None:
    other: list[list[books.Cell]] = [["text", "label"], ["x", "y"]]
    book = books.xlsx({"Hidden": other, "Empty": [[None]], "工单": TICKETS, "Old": other}, hidden=["Hidden"])
    found = table(tmp_path, book)
    assert list(found.columns) == ["工单内容", "类别"]
    (note,) = found.notes
    assert sheets_told(note) == ("'工单'", "'Old', 'Hidden'")
    assert note in load(tmp_path / "tickets.xlsx", text="工单内容").notes
    assert sheets_told("tickets.xlsx: 3 rows without a text were left out") is None


def test_one_sheet_with_data_needs_no_word(tmp_path: Path) -> None:
    assert table(tmp_path, books.xlsx({"S": TICKETS, "Empty": []})).notes == ()


def test_parts_may_be_workbooks(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"{part}.xlsx").write_bytes(books.xlsx({"S": TICKETS}))
    (tmp_path / "~$train.xlsx").write_bytes(b"what Excel leaves beside an open workbook")
    assert load(tmp_path, text="工单内容").split.origin == "given"


def test_what_is_asked_may_be_a_workbook(tmp_path: Path) -> None:
    (tmp_path / "new.xlsx").write_bytes(books.xlsx({"S": TICKETS}))
    rows = rows_from_path(tmp_path / "new.xlsx", "text", text="工单内容")
    assert isinstance(rows.column, Texts) and rows.column.values[-1] == "被扣了两次款"


def test_the_command_line_takes_workbooks(tmp_path: Path, brisk: None) -> None:
    def graft(*words: str | Path) -> list[Any]:
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        assert done.exit_code == 0, (done.stdout, done.stderr, done.exception)
        return [json.loads(line) for line in done.stdout.splitlines()]

    cells: list[list[books.Cell]] = [["工单内容", "组"]]
    cells += [
        [f"第{i}单{what}", label] for label, what in (("物流", "没有送到"), (7, "扣款两次")) for i in range(9)
    ]
    (tmp_path / "工单.xlsx").write_bytes(books.xlsx({"S": cells, "Old": TICKETS}))
    columns = ("--text", "工单内容", "--label", "组")
    (said,) = graft("inspect", tmp_path / "工单.xlsx", *columns)
    assert (said["rows"], said["classes"]) == (18, ["7", "物流"]) and "'Old' left out" in said["notes"][0]
    out = tmp_path / "工单.graft"
    graft("fit", tmp_path / "工单.xlsx", *columns, "-o", out, "--source", "minilm", "--baselines", "none")
    answers = graft("predict", out, tmp_path / "工单.xlsx", "--text", "工单内容")
    assert len(answers) == 18 and {one["label"] for one in answers} <= {"7", "物流"}


FAR = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
ENTITIES = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(12))
LAUGHS = f"<!DOCTYPE sst [{ENTITIES}]><sst><si><t>&l11;</t></si></sst>".encode()
SHARING = "".join(f"<row>{raw('0', 's')}</row>" for _ in range(20_000))
BROKEN = books.xlsx({"S": TICKETS})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", lambda: b"", "is empty"),
        ("a.xls", lambda: b"text\tlabel\na\tb\n", "call it .csv"),
        ("a.xls", lambda: b"<html><table></table></html>", "call it .csv"),
        ("a.xlsx", lambda: books.packed({"word/document.xml": "<document/>"}), "another kind of file"),
        ("a.xlsx", lambda: books.packed({"cats/1.png": b"x", "dogs/1.png": b"y"}), "another kind of file"),
        ("a.xlsx", lambda: BROKEN[: len(BROKEN) // 2], "damaged"),
        ("a.xlsx", lambda: BROKEN[:600] + bytes(200) + BROKEN[800:], "damaged"),
        ("a.xls", lambda: books.ole("Word", b"a letter"), "another kind of file"),
        ("a.xlsx", lambda: books.ole("EncryptedPackage", b"secret"), "password"),
        ("a.xlsx", lambda: books.xlsx({"S": []}), "shows nothing"),
        ("a.xlsx", lambda: books.xlsx({"S": [["text", "label"]]}), "has a header and no rows"),
        ("a.xlsx", lambda: books.xlsx({"S": [["a", "a"], ["1", "2"]]}), "more than one column named 'a'"),
        ("a.xlsx", lambda: books.xlsx({"S": FAR}), "takes more than"),
        ("a.xlsx", lambda: books.xlsx({"S": FAR.replace("XFD", "IV")}), "takes more than"),
        ("a.xlsx", lambda: books.xlsx({"S": SHARING}, shared=["x" * 100_000]), "takes more than"),
        ("a.xlsx", lambda: books.xlsx({"S": TICKETS}, **{"xl/sharedStrings.xml": LAUGHS}), "damaged"),
        ("a.xlsx", lambda: books.xlsx({"S": TICKETS}, **{"xl/workbook.xml": b"<workbook>"}), "damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: Callable[[], bytes], said: str
) -> None:
    with pytest.raises(RequestError) as caught:
        table(tmp_path, content(), name)
    line = str(caught.value)
    assert said in line and name in line and "\n" not in line and ";" in line
    assert capfd.readouterr() == ("", "")  # nothing of what the library says when it ends


def test_a_reading_that_ends_within_a_line_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "killed.py"
    script.write_text("""import os; os.write(1, b'{"sheet": "S", "others": []}\\n[1, ["te'); os.abort()""")
    monkeypatch.setattr("graftwork.datasets.sheets.__file__", str(script))
    with pytest.raises(UnreadableWorkbook, match="takes more than 4 GB"):
        table(tmp_path, books.xlsx({"S": TICKETS}))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold processes to limits")
def test_a_reading_keeps_the_lower_limits_of_who_asks_for_it(tmp_path: Path) -> None:
    book = tmp_path / "tickets.xlsx"
    book.write_bytes(books.xlsx({"S": TICKETS}))
    code = (
        "import resource, sys; from pathlib import Path; from graftwork.datasets import sheets\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "sheets.main(Path(sys.argv[1])); print(resource.getrlimit(resource.RLIMIT_CPU)[0])"
    )
    said = subprocess.run([sys.executable, "-c", code, str(book)], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "60" and len(said.stdout.splitlines()) > 3


def test_links_to_elsewhere_are_not_followed(tmp_path: Path) -> None:
    outside = (
        b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        b'<Relationship Id="r" Type="x/externalLinkPath" Target="file:///etc/passwd" TargetMode="External"/>'
        b"</Relationships>"
    )
    book = books.xlsx({"S": TICKETS}, **{"xl/externalLinks/_rels/externalLink1.xml.rels": outside})
    assert len(table(tmp_path, book)) == 3
