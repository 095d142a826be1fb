"""Artefacts under a folder come and go, and none spoils the others."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_tasks
import toys
from graftwork.errors import ArtefactError
from graftwork.serving import shelf as shelf_module
from graftwork.serving.shelf import Shelf, shelf


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    toys.register(monkeypatch)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every question looks at the folder again."""
    monkeypatch.setattr(shelf_module, "STALE_S", float("-inf"))
    yield


VERSIONS = [b'{"schema_version": 99}', b'{"schema_version": NaN}', b'{"schema_version": 3}']


def names(found: Shelf) -> list[str]:
    return list(found.found())


def test_artefacts_are_named_by_their_path(tmp_path: Path) -> None:
    tiny_tasks.save(tmp_path / "team" / "tickets.graft", scale=2.0)
    tiny_tasks.save(tmp_path / "tickets.graft")
    found = shelf(tmp_path).found()
    assert list(found) == ["team/tickets", "tickets"]
    one = found["team/tickets"]
    assert (one.kind, one.labels, one.strategy, one.source) == ("text", tiny_tasks.LABELS, "probe", None)
    assert (one.fingerprint, one.name, one.folder) == (
        "toy-2.0", "team/tickets", (tmp_path / "team" / "tickets.graft").resolve(),
    )  # fmt: skip
    assert one.bytes > 500 and len(one.digest) == 64


def test_what_is_half_written_hidden_or_elsewhere_is_passed_over(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    kept = tiny_tasks.save(root / "kept.graft")
    tiny_tasks.save(outside / "secret.graft")
    for hidden in (".graftwork/artefacts/abc.graft", ".kept.graft.run/x.graft", ".kept.graft.tmp1.graft"):
        shutil.copytree(kept, root / hidden)
    shutil.copytree(kept, root / "kept.graft" / "inner.graft")
    (root / "empty.graft").mkdir()
    (root / "leading-out.graft").symlink_to(outside / "secret.graft")
    (root / "also").symlink_to(outside)
    (root / "borrowed.graft").mkdir()
    (root / "borrowed.graft" / "manifest.json").symlink_to(outside / "secret.graft" / "manifest.json")
    (root / "within.graft").symlink_to(kept)
    assert names(shelf(root)) == ["kept", "within"]


def test_no_folder_is_an_empty_shelf(tmp_path: Path) -> None:
    assert names(shelf(tmp_path / "none")) == []


@pytest.mark.usefixtures("at_once")
def test_new_replaced_and_deleted_artefacts_are_noticed(tmp_path: Path) -> None:
    found = shelf(tmp_path)
    assert names(found) == []
    tiny_tasks.save(tmp_path / "a.graft")
    before = found.found()["a"]
    tiny_tasks.save(tmp_path / "a.graft", scale=2.0)
    assert found.found()["a"].fingerprint == "toy-2.0" != before.fingerprint
    assert found.found()["a"].digest != before.digest
    shutil.rmtree(tmp_path / "a.graft")
    assert names(found) == [] and found.get("a") is None


def test_an_unknown_name_is_looked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "STALE_S", 1e9)
    found = shelf(tmp_path)
    assert found.get("a") is None
    tiny_tasks.save(tmp_path / "a.graft")
    assert names(found) == []
    found._took = 0.0  # however slow this machine is
    one = found.get("a")
    assert one is not None and one.name == "a"


def test_names_that_are_not_there_do_not_keep_the_disk_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, clock = [], [0.0]

    def slow(root: Path) -> Iterator[Any]:
        looks.append(clock[0])
        clock[0] += 1.0
        return iter(())

    monkeypatch.setattr(shelf_module, "_walk", slow)
    monkeypatch.setattr(shelf_module.time, "monotonic", lambda: clock[0])
    found = shelf(tmp_path)
    for _ in range(100):
        assert found.get("a") is None
        clock[0] += 0.1
    assert looks == pytest.approx([0.0, 5.1, 10.2], abs=0.3)


def test_an_unchanged_artefact_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "STALE_S", float("-inf"))
    tiny_tasks.save(tmp_path / "a.graft")
    found = shelf(tmp_path)
    first = found.found()["a"]

    def never(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(shelf_module, "read", never)
    assert found.found()["a"] is first


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("manifest", [b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, *VERSIONS])
def test_a_damaged_artefact_is_reported_and_spoils_no_other(tmp_path: Path, manifest: bytes) -> None:
    tiny_tasks.save(tmp_path / "good.graft")
    path = tiny_tasks.save(tmp_path / "bad.graft") / "manifest.json"
    good = path.read_bytes()
    path.write_bytes(manifest)
    found = shelf(tmp_path)
    assert names(found) == ["good"]
    assert list(found.faults()) == ["bad"] and "\n" not in found.faults()["bad"]
    with pytest.raises(ArtefactError, match=r"bad\.graft"):
        found.get("bad")
    path.write_bytes(good)
    assert names(found) == ["bad", "good"] and not found.faults()


def test_a_name_that_is_no_text_can_still_be_said(tmp_path: Path) -> None:
    made = tiny_tasks.save(tmp_path / "a.graft")
    made.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.graft"))
    (name,) = names(shelf(tmp_path))
    assert name == "\N{REPLACEMENT CHARACTER}"
