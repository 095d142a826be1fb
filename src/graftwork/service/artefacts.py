"""Artefacts that the service keeps: each in a folder named by the SHA-256 of its manifest.

The manifest names the digest of every other file, so a folder's name covers all of its content.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from graftwork import manifest
from graftwork.errors import ArtefactError, WorkError

STALE_S = 3600.0
"""No move takes that long."""


class Artefacts:
    """A folder of artefacts. Small on purpose: an object store could stand behind the same calls."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, finished: Path) -> str:
        """Take over the finished artefact, whole or not at all, and return its digest.

        `finished` is gone afterwards. The same content put twice lies there once. What `put` has returned
        survives a crash. Raises WorkError where it cannot be written.
        """
        digest = manifest.digest(finished)
        place = self.folder(digest)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            moved = Path(tempfile.mkdtemp(prefix=".", dir=self.root)) / "artefact"
            try:
                shutil.move(finished, moved)
                _flush(moved)
                if place.exists() and not _is_whole(place):
                    self.remove(digest)
                if not place.exists():
                    moved.rename(place)
                _flush_folder(self.root)
            finally:
                shutil.rmtree(moved.parent, ignore_errors=True)
        except OSError as error:
            if not _is_whole(place):  # another may have put the same content meanwhile
                raise WorkError(
                    f"{self.root} cannot be written ({error.strerror or error}); free the disk or choose "
                    "another place"
                ) from error
        return digest

    def folder(self, digest: str) -> Path:
        """Where the artefact of that digest lies, or would."""
        assert len(digest) == 64 and digest.isalnum(), digest
        return self.root / digest

    def remove(self, digest: str) -> None:
        """Remove it in one step, if it is there."""
        if not self.folder(digest).is_dir():
            return
        aside = Path(tempfile.mkdtemp(prefix=".", dir=self.root))
        try:
            self.folder(digest).rename(aside / "artefact")
        except FileNotFoundError:
            pass
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what calls that were killed half-way have left."""
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.name.startswith(".") and time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)

    def digests(self) -> set[str]:
        """Of all that is there."""
        if not self.root.is_dir():
            return set()
        return {path.name for path in self.root.iterdir() if not path.name.startswith(".")}


def _is_whole(folder: Path) -> bool:
    try:
        manifest.inspect(folder)
    except ArtefactError:
        return False
    return True


def _flush(folder: Path) -> None:
    for path in manifest.files_of(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path in (*(one for one in folder.rglob("*") if one.is_dir()), folder):
        _flush_folder(path)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
