"""The folder that a service keeps: what a server is refused, and what a moved one is not."""

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
