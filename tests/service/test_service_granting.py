"""`graft key`: keys made beside the service, with no browser and no other key."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

import tiny_server
from graftwork.cli import app
from graftwork.service import home
from graftwork.service.database import Database
from graftwork.service.database.tables import Key, Owner
from graftwork.service.security import digest
from graftwork.service.settings import Settings


def graft(*words: Any, status: int = 0) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == status, (done.stdout, done.stderr, done.exception)
    assert done.stderr.count("\n") == (1 if status else done.stderr.count("\n"))
    return done


def test_a_key_is_alone_on_stdout_and_its_owner_is_made_once(
    database: Database, settings: Settings, empty_url: str
) -> None:
    at = (settings.root, "--database", empty_url, "--owner", "Änne")
    first = graft("key", *at, "--scope", "predict")
    second = graft("key", *at, "--name", "laptop", "--days", 30)
    assert first.stderr == "graft: Änne is a new owner\n" and second.stderr == ""
    said = [one.stdout.removesuffix("\n") for one in (first, second)]
    with database.read() as session:
        (owner,) = session.scalars(select(Owner).where(Owner.name == "Änne"))
        keys = {key.hash: key for key in session.scalars(select(Key).where(Key.owner_id == owner.id))}
    held, dated = (keys[digest(one)] for one in said)
    assert (held.scope, held.expires) == ("predict", None)
    assert dated.scope == "write" and dated.name == "laptop"
    assert dated.expires is not None and dated.expires - dated.created == pytest.approx(30 * 86_400, abs=60)


def test_a_key_opens_a_server_that_starts_later_and_one_that_runs(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    early = graft("key", root, "--scope", "admin", "--quiet").stdout.strip()
    with tiny_server.running(root, home) as site:
        assert site.said["link"] is None  # somebody can sign in as admin
        late = graft("key", root).stdout.strip()
        for key in (early, late):
            said = httpx.get(f"{site.url}/v1/owners/me", headers={"Authorization": f"Bearer {key}"})
            assert (said.status_code, said.json()["name"]) == (200, "operator")


def test_what_cannot_be_meant_is_refused_in_a_line(tmp_path: Path) -> None:
    assert "did you mean 'write'" in graft("key", tmp_path, "--scope", "wrote", status=2).stderr
    assert "no folder" in graft("key", tmp_path / "none", status=2).stderr
    assert "visible characters" in graft("key", tmp_path, "--owner", "a\nb", status=2).stderr
    assert "--days 0 seen" in graft("key", tmp_path, "--days", 0, status=2).stderr
    assert not (tmp_path / ".graftwork").exists()


def test_a_key_goes_to_the_database_that_the_service_has(tmp_path: Path) -> None:
    settings = Settings(tmp_path, database="postgresql://graft:secret@127.0.0.1:1/graft")
    home.prepare(settings)
    with home.only_one(settings) as note:
        note(Database(settings.url).shown)
    said = graft("key", tmp_path, status=2).stderr
    assert "postgresql://graft:***@127.0.0.1:1/graft; give it as --database" in said
    assert not list(settings.home.glob("*.db"))


def test_the_version_is_printed() -> None:
    from graftwork import __version__

    assert graft("--version").stdout == f"graft {__version__}\n"
