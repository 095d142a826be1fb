"""The folder that a service keeps: what a server is refused, and what a moved one is not."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from graftwork.errors import RequestError, WorkError
from graftwork.service import home, security, server
from graftwork.service.database import Database
from graftwork.service.granting import grant
from graftwork.service.settings import Settings

ELSEWHERE = "postgresql://graft:***@db/graft"


@pytest.fixture
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would serve without end fails."""

    def run(*_: object) -> None:
        raise AssertionError("it serves")

    monkeypatch.setattr(server, "_run", run)


def served(root: Path, database: str) -> None:
    """A server has run there, and opened that database."""
    said = None if database.startswith("sqlite") else database
    with home.only_one(Settings(root, database=said)) as note:
        note(database)


def test_a_forgotten_database_is_told_before_all_begins_anew(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    served(tmp_path, ELSEWHERE)
    for _ in range(2):  # what was noted is kept
        with pytest.raises(RequestError, match="--database"), home.only_one(Settings(tmp_path)):
            pass
    served(tmp_path, "postgresql://other/graft")  # said, not forgotten: the database has moved


@pytest.mark.usefixtures("no_service")
def test_a_database_that_could_not_be_opened_is_not_taken_for_the_right_one(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    wrong = Settings(tmp_path, database="postgresql://nobody@127.0.0.1:1/graft")
    with pytest.raises(WorkError, match="cannot be opened"):
        server.serve(replace(wrong, port=0), lambda ready: None)
    home.require_same(Settings(tmp_path))  # SQLite, as before
    served(tmp_path, ELSEWHERE)
    with pytest.raises(WorkError, match="cannot be opened"):
        server.serve(replace(wrong, port=0), lambda ready: None)
    with pytest.raises(RequestError, match="db/graft"):
        home.require_same(Settings(tmp_path))


@pytest.mark.usefixtures("no_service")
@pytest.mark.parametrize(
    "kept", ["uploads/operator/00ff", "datasets/data_1/rows", "artefacts/00ff/manifest.json"]
)
def test_what_a_service_has_kept_is_not_swept_for_an_empty_database(
    settings: Settings, empty_url: str, kept: str
) -> None:
    asked = replace(settings, database=empty_url)
    path = asked.home / kept
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(RequestError, match="is empty"):
        server.serve(replace(asked, port=0), lambda ready: None)
    with pytest.raises(RequestError, match="is empty"):
        grant(asked, "operator", "laptop", "write", None)
    assert path.exists()
    with closing(Database(asked.url)) as database:
        security.first_link(database)  # a service has run on it: the files are its own
        home.require_records(asked, database)


def test_a_folder_that_was_moved_is_served(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    for database in ("sqlite:////before/.graftwork/service.db", "sqlite:////after/.graftwork/service.db"):
        served(tmp_path, database)


def test_a_folder_is_served_by_one_process(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    other = (
        "import sys; from pathlib import Path; from graftwork.service import home;"
        "from graftwork.service.settings import Settings\n"
        "with home.only_one(Settings(Path(sys.argv[1]))): pass"
    )
    command = [sys.executable, "-c", other, str(tmp_path)]
    with home.only_one(Settings(tmp_path)) as note:
        note("sqlite://")
        said = subprocess.run(command, capture_output=True, text=True).stderr
    assert f"served already (process {os.getpid()})" in said
    assert subprocess.run(command, check=False).returncode == 0
