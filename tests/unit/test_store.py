"""The store remembers by content, survives damage and interruption, and never changes an answer."""

import itertools
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import toys
from graftwork import segments, store
from graftwork.errors import Unreadable
from graftwork.records import Features, Notify, Progress, silent
from graftwork.rows import IntArray, Rows, Texts
from graftwork.segments import Shelf
from graftwork.store import Stored, StoreWarning


class Partly(Texts):
    """Texts of which those that begin with "!" cannot be read, and those with "?" not decoded."""

    def take(self, index: IntArray) -> "Partly":
        return Partly([self.values[i] for i in index])

    def read(self, i: int) -> bytes:
        if self.values[i].startswith("!"):
            raise Unreadable("is not there")
        return super().read(i)


class Picky(toys.ToyBackbone):
    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        found = super().features(rows, notify)
        bad = [i for i in range(len(rows)) if rows.column.read(i).startswith(b"?")]
        found.matrix[bad] = np.nan
        return Features(found.arrays, {i: "cannot be decoded" for i in bad}, found.extraction)


def texts(*values: str) -> Rows:
    return Rows([f"row {i}" for i in range(len(values))], {"text": Partly(list(values))})


def many(count: int, start: int = 0) -> Rows:
    return texts(*(f"text number {i}" for i in range(start, start + count)))


def asked(backbone: toys.ToyBackbone) -> int:
    return sum(map(len, backbone.asked))


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_open", {})


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has read and checked, as a new one would not know it."""
    monkeypatch.setattr(store, "_open", {})


def test_a_second_call_computes_nothing_and_gives_the_same_bits(tmp_path: Path) -> None:
    backbone = toys.ToyBackbone()
    stored = Stored(backbone, tmp_path)
    first = stored.features(many(50))
    second = stored.features(many(50))
    assert asked(backbone) == 50
    assert np.array_equal(first.matrix, second.matrix)
    assert np.array_equal(first.matrix, toys.ToyBackbone().features(many(50)).matrix)
    assert (first.extraction.computed, first.extraction.reused) == (50, 0)
    assert (second.extraction.computed, second.extraction.reused) == (0, 50)
    assert second.arrays.keys() == first.arrays.keys()
    assert second.extraction.runtime == first.extraction.runtime


def test_adding_ten_rows_computes_ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stored(toys.ToyBackbone(), tmp_path).features(many(100))
    another_process(monkeypatch)
    backbone = toys.ToyBackbone()
    Stored(backbone, tmp_path).features(many(110))
    assert asked(backbone) == 10


def test_equal_contents_in_one_call_are_computed_once(tmp_path: Path) -> None:
    backbone = toys.ToyBackbone()
    found = Stored(backbone, tmp_path).features(texts("a", "b", "a", "a", "b"))
    assert asked(backbone) == 2
    assert np.array_equal(found.matrix[0], found.matrix[2])
    assert np.array_equal(found.matrix[1], found.matrix[4])


def test_another_fingerprint_or_view_shares_nothing(tmp_path: Path) -> None:
    plain, other, turned = (toys.ToyBackbone() for _ in range(3))
    other.scale = 2.0
    rows = many(5)
    one = Stored(plain, tmp_path).features(rows)
    two = Stored(other, tmp_path).features(rows)
    Stored(turned, tmp_path, view=b"turned").features(rows)
    assert asked(plain) == asked(other) == asked(turned) == 5
    assert np.array_equal(2 * one.matrix, two.matrix)


def test_results_cannot_be_written_to(tmp_path: Path) -> None:
    found = Stored(toys.ToyBackbone(), tmp_path).features(many(3))
    with pytest.raises(ValueError, match="read-only"):
        found.matrix[0, 0] = 1.0


def test_unreadable_rows_are_named_and_not_stored(tmp_path: Path) -> None:
    backbone = Picky()
    rows = texts("a", "!gone", "?broken", "b", "?broken")
    for _ in range(2):
        found = Stored(backbone, tmp_path).features(rows)
        assert found.unreadable == {1: "is not there", 2: "cannot be decoded", 4: "cannot be decoded"}
        assert np.isnan(found.matrix[[1, 2, 4]]).all() and np.isfinite(found.matrix[[0, 3]]).all()
    assert store.info(tmp_path)["rows"] == 2


def test_no_rows_at_all_are_no_trouble(tmp_path: Path) -> None:
    found = Stored(toys.ToyBackbone(), tmp_path).features(texts())
    assert found.matrix.shape == (0, toys.WIDTH) and not found.unreadable


@pytest.mark.parametrize("where", ["features", "keys", "header", "length"])
def test_a_damaged_segment_is_recomputed_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    backbone = toys.ToyBackbone()
    whole = Stored(backbone, tmp_path).features(many(20)).matrix
    (path,) = segments.files(tmp_path / backbone.fingerprint)
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    at = {"features": len(content) - 3, "keys": start + 5, "header": 12, "length": 2}[where]
    content[at] ^= 0x55
    path.chmod(0o600)
    path.write_bytes(content)
    another_process(monkeypatch)
    again = toys.ToyBackbone()
    found = Stored(again, tmp_path).features(many(20))
    assert asked(again) == 20
    assert np.array_equal(found.matrix, whole)
    assert not path.exists()


def test_a_truncated_segment_is_recomputed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toys.ToyBackbone()
    Stored(backbone, tmp_path).features(many(20))
    (path,) = segments.files(tmp_path / backbone.fingerprint)
    os.truncate(path, path.stat().st_size - 1)
    another_process(monkeypatch)
    Stored(backbone, tmp_path).features(many(20))
    assert asked(backbone) == 40


class Interrupted(toys.ToyBackbone):
    """Stopped by Ctrl-C in its third call."""

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        if len(self.asked) == 2:
            raise KeyboardInterrupt
        return super().features(rows, notify)


def test_an_interrupted_run_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        Stored(stopped, tmp_path).features(many(2000))
    kept = store.info(tmp_path)["rows"]
    assert kept == asked(stopped) > 0
    another_process(monkeypatch)
    backbone = toys.ToyBackbone()
    Stored(backbone, tmp_path).features(many(2000))
    assert asked(backbone) == 2000 - kept


def test_rows_of_another_process_are_taken_over_while_running(tmp_path: Path) -> None:
    values = toys.ToyBackbone().features(many(2000)).matrix

    class Beside(toys.ToyBackbone):
        """While this one computes its first chunk, another process writes all the others."""

        def features(self, rows: Rows, notify: Notify = silent) -> Features:
            if not self.asked:
                keys, _ = mine._keys(many(2000))
                Shelf(tmp_path / self.fingerprint).put_many(keys[256:], values[256:], {})
            return super().features(rows, notify)

    backbone = Beside()
    mine = Stored(backbone, tmp_path)
    assert np.array_equal(mine.features(many(2000)).matrix, values)
    assert asked(backbone) == 256


def test_two_fits_at_once_on_one_store_both_work(tmp_path: Path) -> None:
    results: list[np.ndarray] = []

    def fit() -> None:
        results.append(Stored(toys.ToyBackbone(), tmp_path).features(many(3000)).matrix)

    threads = [threading.Thread(target=fit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = toys.ToyBackbone().features(many(3000)).matrix
    assert len(results) == 2 and all(np.array_equal(found, expected) for found in results)
    assert store.verify(tmp_path)["damaged"] == 0


def test_many_single_rows_do_not_make_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toys.ToyBackbone()
    for i in range(100):
        Stored(backbone, tmp_path).features(many(1, start=i))
    assert len(segments.files(tmp_path / backbone.fingerprint)) <= segments.SMALL_FILES
    another_process(monkeypatch)
    again = toys.ToyBackbone()
    found = Stored(again, tmp_path).features(many(100))
    assert asked(again) == 0
    assert np.array_equal(found.matrix, toys.ToyBackbone().features(many(100)).matrix)


def test_pruning_removes_what_was_used_longest_ago(tmp_path: Path) -> None:
    backbone = toys.ToyBackbone()
    shelf = Shelf(tmp_path / backbone.fingerprint)
    for start in (0, 10, 20):
        Stored(backbone, tmp_path).features(many(10, start))
    old, used, new = segments.files(shelf.folder)
    for path, age in ((old, 2000), (used, 500), (new, 1000)):
        os.utime(path, (age, age))
    Stored(backbone, tmp_path).features(many(10, 10))
    size = old.stat().st_size
    done = store.prune(tmp_path, 2 * size)
    assert done["removed"] == 1 and done["bytes"] == 2 * size
    assert segments.files(shelf.folder) == [old, used]  # the newest was unused, the second just used
    assert store.prune(tmp_path, 0)["bytes"] == 0
    assert asked(backbone) == 30
    Stored(backbone, tmp_path).features(many(10))
    assert asked(backbone) == 40


def test_a_store_stays_within_its_limit(tmp_path: Path) -> None:
    stored = Stored(toys.ToyBackbone(), tmp_path, limit_bytes=4_000)
    for start in range(0, 200, 10):
        stored.features(many(10, start))
        assert store.info(tmp_path)["bytes"] <= 4_000


def full_disk(*_: object) -> Path:
    raise OSError(28, "No space left on device")


def test_a_full_disk_costs_no_answer_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "write", full_disk)
    stored = Stored(toys.ToyBackbone(), tmp_path)
    with pytest.warns(StoreWarning, match="No space left on device.*GRAFT_HOME") as said:
        found = stored.features(many(600))
        stored.features(many(600))
        Stored(toys.ToyBackbone(2.0), tmp_path).features(many(600))
    assert len(said) == 1
    assert np.array_equal(found.matrix, toys.ToyBackbone().features(many(600)).matrix)
    assert not segments.files(tmp_path / stored.fingerprint)


def test_nothing_half_written_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.warns(StoreWarning):
        Stored(toys.ToyBackbone(), tmp_path).features(many(5))
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert left == []


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    shelf = tmp_path / "toy"
    shelf.mkdir()
    old, recent = shelf / ".1-a.tmp", shelf / ".2-b.tmp"
    for path in (old, recent):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    store.prune(tmp_path, 10**9)
    assert not old.exists() and recent.exists()


def test_verify_finds_and_removes_what_is_damaged(tmp_path: Path) -> None:
    backbone = toys.ToyBackbone()
    for start in (0, 10):
        Stored(backbone, tmp_path).features(many(10, start))
    broken, whole = segments.files(tmp_path / backbone.fingerprint)
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    assert store.verify(tmp_path) == {"folder": str(tmp_path), "segments": 1, "damaged": 1}
    assert segments.files(tmp_path / backbone.fingerprint) == [whole]


def test_info_of_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert store.info(tmp_path / "none")["rows"] == 0


def test_info_says_what_is_held(tmp_path: Path) -> None:
    Stored(toys.ToyBackbone(), tmp_path).features(many(10))
    said = store.info(tmp_path)
    assert (said["rows"], said["segments"]) == (10, 1)
    (one,) = said["backbones"]
    assert one["fingerprint"] == toys.ToyBackbone().fingerprint and one["width"] == toys.WIDTH
    assert one["bytes"] == said["bytes"] > 0


def test_progress_counts_all_rows_and_never_goes_back(tmp_path: Path) -> None:
    class Telling(toys.ToyBackbone):
        def features(self, rows: Rows, notify: Notify = silent) -> Features:
            notify(Progress("features", 0, len(rows)))
            notify(Progress("features", len(rows), len(rows)))
            return super().features(rows)

    Stored(Telling(), tmp_path).features(many(100))
    heard: list[Progress] = []
    Stored(Telling(), tmp_path).features(many(1000), heard.append)
    done = [progress.done for progress in heard]
    assert done == sorted(done) and done[0] == 100 and done[-1] == 1000
    assert {progress.total for progress in heard} == {1000}


def test_a_large_result_lies_in_a_file_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.backbones import pretrained

    monkeypatch.setattr(pretrained, "MAPPED_BYTES", 1000)
    found = Stored(toys.ToyBackbone(), tmp_path).features(many(100)).matrix
    assert isinstance(found.base, np.memmap) or isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert np.array_equal(found, toys.ToyBackbone().features(many(100)).matrix)


def test_a_large_result_that_is_still_held_is_not_laid_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.backbones import pretrained

    monkeypatch.setattr(pretrained, "MAPPED_BYTES", 1000)
    stored = Stored(toys.ToyBackbone(), tmp_path)
    first = stored.features(many(100))
    again = stored.features(many(100))
    assert np.shares_memory(first.matrix, again.matrix)
    assert (again.extraction.computed, again.extraction.reused) == (0, 100)
    assert not np.shares_memory(first.matrix, stored.features(many(99)).matrix)
    reached = stored.features(many(100).take(np.arange(100)[::-1])).matrix
    assert np.array_equal(reached, first.matrix[::-1])


def test_remembering_twice_remembers_once(home: Path) -> None:
    stored = store.remember(toys.ToyBackbone())
    assert store.remember(stored) is stored
    assert stored.folder == home / "store"


def test_names_of_segments_sort_by_time() -> None:
    names = [segments._name() for _ in itertools.repeat(None, 20)]
    assert names == sorted(names) and len(set(names)) == 20
