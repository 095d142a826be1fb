"""The artefacts' folder: whole or not at all, once each, and what a crash left is removed."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from graftwork import manifest
from graftwork.errors import WorkError
from graftwork.service import ids
from graftwork.service.artefacts import Artefacts
from graftwork.service.database import Database
from graftwork.service.database.tables import Model
from graftwork.service.jobs import queue, tidying
from graftwork.service.settings import Settings


def finished(folder: Path, said: bytes = b"numbers") -> Path:
    """The files of an artefact: enough for its digests to be verified."""
    (folder / "probe").mkdir(parents=True)
    files = {"head.safetensors": said, "probe/answers.safetensors": b"answers"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    said_of = {
        "schema_version": 1,
        "task": "classification",
        "kind": "text",
        "labels": ["a", "b"],
        "source": None,
        "backbone": {"name": "tfidf", "config": {}},
        "fingerprint": "f",
        "head": {"name": "linear", "config": {}},
        "strategy": "classical",
        "settings": {},
        "result": {},
        "machine": "",
        "versions": {},
        "examples": False,
        "created": "2026-01-01T00:00:00+00:00",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(said_of), encoding="utf-8")
    return folder


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "artefacts")


def test_what_is_put_lies_whole_under_the_digest_of_its_manifest(
    artefacts: Artefacts, tmp_path: Path
) -> None:
    given = finished(tmp_path / "new.graft")
    expected = manifest.digest(given)
    assert artefacts.digests() == set()
    assert artefacts.put(given) == expected
    assert artefacts.digests() == {expected}
    assert not given.exists()
    manifest.inspect(artefacts.folder(expected))
    assert [path.name for path in artefacts.root.iterdir()] == [expected]


def test_the_same_content_lies_there_once(artefacts: Artefacts, tmp_path: Path) -> None:
    first = artefacts.put(finished(tmp_path / "one"))
    kept = artefacts.folder(first).stat().st_ino
    assert artefacts.put(finished(tmp_path / "other")) == first
    assert artefacts.folder(first).stat().st_ino == kept
    assert len(list(artefacts.root.iterdir())) == 1


def test_a_damaged_one_is_replaced_when_the_same_content_is_put_again(
    artefacts: Artefacts, tmp_path: Path
) -> None:
    digest = artefacts.put(finished(tmp_path / "one"))
    (artefacts.folder(digest) / "head.safetensors").write_bytes(b"dust")
    assert artefacts.put(finished(tmp_path / "other")) == digest
    manifest.inspect(artefacts.folder(digest))


def test_a_put_that_fails_leaves_nothing_there(
    artefacts: Artefacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="No space left"):
        artefacts.put(finished(tmp_path / "one"))
    assert list(artefacts.root.iterdir()) == []


def test_removing_is_done_once_and_for_all(artefacts: Artefacts, tmp_path: Path) -> None:
    digest = artefacts.put(finished(tmp_path / "one"))
    artefacts.remove(digest)
    artefacts.remove(digest)
    assert list(artefacts.root.iterdir()) == []


@pytest.mark.parametrize("digest", ["../../etc", "", "a" * 63 + "/", "." * 64])
def test_nothing_but_a_digest_names_a_folder(artefacts: Artefacts, digest: str) -> None:
    with pytest.raises(AssertionError):
        artefacts.folder(digest)


def test_tidying_removes_what_nobody_needs_and_nothing_else(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefacts = Artefacts(settings.artefacts)
    named, orphan = (artefacts.put(finished(tmp_path / name, name.encode())) for name in ("named", "orphan"))
    with database.write() as session:
        session.add(
            Model(
                id=ids.new("model"), owner_id="operator", name="", digest=named, kind="text", labels=[],
                strategy="", fingerprint="", summary={}, created=0.0,
            )
        )  # fmt: skip
        waiting, over = (queue.enqueue(session, "operator", "fit", {}).id for _ in range(2))
    queue.cancel(database, over)
    for name in (waiting, over, "unknown"):
        settings.run(name).mkdir(parents=True)
    (settings.artefacts / ".left").mkdir()
    tidying.tidy(settings, database)
    assert {path.name for path in settings.run("any").parent.iterdir()} == {waiting}
    assert {path.name for path in artefacts.root.iterdir()} == {named, orphan, ".left"}  # they are young
    later = time.time() + tidying.OLD_S + 1
    monkeypatch.setattr(tidying.time, "time", lambda: later)
    tidying.tidy(settings, database)
    assert {path.name for path in artefacts.root.iterdir()} == {named}
