"""The folder that a service keeps: what a server is refused, and what a moved one is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graftwork.errors import RequestError
from graftwork.service import home
from graftwork.service.settings import Settings

ELSEWHERE = "postgresql://graft:***@db/graft"


def test_a_forgotten_database_is_told_before_all_begins_anew(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    with home.only_one(Settings(tmp_path, database=ELSEWHERE), ELSEWHERE):
        pass
    for _ in range(2):  # what was noted is kept
        with (
            pytest.raises(RequestError, match="--database"),
            home.only_one(Settings(tmp_path), "sqlite:///x"),
        ):
            pass
    with home.only_one(Settings(tmp_path, database="postgresql://other/graft"), "postgresql://other/graft"):
        pass  # said, not forgotten: the database has moved


def test_a_folder_that_was_moved_is_served(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    for database in ("sqlite:////before/.graftwork/service.db", "sqlite:////after/.graftwork/service.db"):
        with home.only_one(Settings(tmp_path), database):
            pass


def test_a_folder_is_served_by_one_process(tmp_path: Path) -> None:
    home.prepare(Settings(tmp_path))
    other = (
        "import sys; from pathlib import Path; from graftwork.service import home;"
        "from graftwork.service.settings import Settings\n"
        "with home.only_one(Settings(Path(sys.argv[1])), 'sqlite://'): pass"
    )
    command = [sys.executable, "-c", other, str(tmp_path)]
    with home.only_one(Settings(tmp_path), "sqlite://"):
        said = subprocess.run(command, capture_output=True, text=True).stderr
    assert f"served already (process {os.getpid()})" in said
    assert subprocess.run(command, check=False).returncode == 0
