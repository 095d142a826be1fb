"""Workbooks of strangers: a table like any other, read by a job in bounds, refused in one line."""

import io
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import hostile
import pandas as pd
import pytest

import tiny_workbooks as books
from graftwork.client import Client
from graftwork.errors import RequestError
from graftwork.service.intake.arrange import Sent, arrange, to_load
from graftwork.service.problems import Problem
from graftwork.service.settings import Limits
from tiny_server import Running, running

TABLE: list[list[books.Cell]] = [["内容", "类别"], ["很好", "好"], ["不行", "坏"]]


def laid_out(folder: Path, name: str, content: bytes, rows: int | None = None) -> list[str]:
    """Names of the tables that would be read, relative to the dataset's folder."""
    (folder / "upload").write_bytes(content)
    done = arrange([Sent(folder / "upload", name)], folder / "data", Limits(), rows=rows)
    path, read = to_load(folder / "data", done.at, False)
    assert path.exists()
    return [one.name for one in read]


def test_a_workbook_is_a_table_by_its_name_and_no_archive(tmp_path: Path) -> None:
    assert laid_out(tmp_path, "工单.xlsx", books.xlsx({"S": TABLE})) == ["工单.xlsx"]


@pytest.mark.parametrize("name", ["tickets.zip", "tickets.csv", "tickets"])
def test_a_workbook_under_another_name_is_told_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(Problem, match=rf"'{name}' is a workbook under another name; call it \.xlsx"):
        laid_out(tmp_path, name, books.xlsx({"S": TABLE}))


def test_an_archive_stays_one_whatever_lies_in_it(tmp_path: Path) -> None:
    pictures = hostile.zip_of([("cats/1.png", b"x"), ("dogs/1.png", b"y"), ("dogs/notes.xlsx", b"z")])
    (tmp_path / "1").mkdir()
    assert laid_out(tmp_path / "1", "pets.zip", pictures) == []
    packed = hostile.zip_of([("tickets.xlsx", books.xlsx({"S": TABLE})), ("~$tickets.xlsx", b"a lock")])
    assert laid_out(tmp_path, "tickets.zip", packed) == ["tickets.xlsx"]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([["text", "label"], ["a", "b"], ["c", "d"], ["e", "f"]], "more than the 2 rows"),
        ([[f"c{i}" for i in range(3_000)], ["x"] * 3_000], "3,000 columns or more"),
        ([["text", "label"], ["a", "b"], ["x" * 1_000_001, "y"]], "row 3: a cell of more than"),
    ],
)
def test_what_no_table_may_exceed_no_workbook_may(
    tmp_path: Path, cells: list[list[books.Cell]], said: str
) -> None:
    with pytest.raises(Problem, match=said):
        laid_out(tmp_path, "t.xlsx", books.xlsx({"S": cells}), rows=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root, home = (tmp_path_factory.mktemp(name) for name in ("root", "home"))
    with running(root, home, workers=1) as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url, server.key) as found:
        yield found


def test_from_a_workbook_to_a_prediction(client: Client, tmp_path: Path) -> None:
    messages = pd.read_csv(io.BytesIO((files("graftwork") / "packaged" / "messages.csv").read_bytes()))
    rows = messages[messages["label"].isin(sorted(set(messages["label"]))[:2])].to_numpy().tolist()
    (tmp_path / "tickets.xlsx").write_bytes(
        books.xlsx({"Empty": [], "Tickets": [["text", "label"], *rows], "Old": TABLE})
    )
    data = client.dataset(tmp_path / "tickets.xlsx")
    assert (data.kind, data.rows, data.state) == ("text", len(rows), "ready")
    assert any("'Tickets' was read, 'Old' left out" in note for note in data.inspection["notes"])
    client.fit(data, source="minilm", baselines="none", name="tickets").wait()
    assert client.predict("tickets", [rows[0][0]])[0].label == rows[0][1]


FAR = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
BOMB = b"<sst><si><t>" + b"A" * 10**8
HOSTILE: dict[str, Callable[[], bytes]] = {
    "far.xlsx": lambda: books.xlsx({"S": FAR}),
    "wide.xlsx": lambda: books.xlsx({"S": f"<row>{'<c><v>1</v></c>' * 100_000}</row>" * 2}),
    "bomb.xlsx": lambda: books.xlsx({"S": TABLE}, **{"xl/sharedStrings.xml": BOMB}),
    "letter.xlsx": lambda: books.packed(
        {"[Content_Types].xml": "<Types/>", "word/document.xml": "<document/>"}
    ),
    "classes.xlsx": lambda: books.packed({"cats/1.png": b"x", "dogs/1.png": b"y"}),
    "cut.xlsx": lambda: books.xlsx({"S": TABLE})[:900],
    "secret.xlsx": lambda: books.ole("EncryptedPackage", b"x"),
    "text.xls": lambda: b"text\tlabel\na\tb\n",
    "none.ods": lambda: books.ods([]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_workbook_costs_its_sender_one_line(client: Client, server: Running, name: str) -> None:
    with server.client() as http:
        file: Any = http.post("/v1/files", params={"name": name}, content=HOSTILE[name]()).json()
        made = http.post("/v1/datasets", json={"files": [{"file": file["id"]}]}).json()
        job = client.job(made["job"])
        with pytest.raises(RequestError) as caught:
            job.wait()
        found = http.get(f"/v1/datasets/{made['id']}").json()
        job_said = http.get(f"/v1/jobs/{made['job']}").json()
    assert found["state"] == "refused" and job_said["attempt"] == 1
    said = found["problem"]["detail"]
    expected = "invalid-request" if name == "wide.xlsx" else "unreadable-workbook"
    assert found["problem"]["code"] == caught.value.code == expected, found["problem"]
    assert name in said and "\n" not in said and str(server.settings.root) not in said
    assert said in str(caught.value)
