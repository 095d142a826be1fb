"""The artefacts' folder: whole or not at all, once each, and what a crash left is removed."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from graftwork import manifest
from graftwork.errors import WorkError
from graftwork.service.artefacts import STALE_S, Artefacts


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


def test_sweeping_removes_what_a_crash_left_and_nothing_else(
    artefacts: Artefacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefacts.sweep()
    digest = artefacts.put(finished(tmp_path / "one"))
    left = artefacts.root / ".left"
    left.mkdir()
    artefacts.sweep()
    assert left.exists()  # it may be under way
    later = time.time() + STALE_S + 1
    monkeypatch.setattr("graftwork.service.artefacts.time.time", lambda: later)
    artefacts.sweep()
    assert [path.name for path in artefacts.root.iterdir()] == [digest]
