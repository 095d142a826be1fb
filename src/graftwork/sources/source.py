"""What a source is: files of a pretrained model on this machine, and their SHA-256."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graftwork import paths
from graftwork.errors import ArtefactError
from graftwork.rows import Kind

COMPACT = "graftwork-compact"
"""The model_type of sources that `graft pretrain` writes."""
Origin = Literal["packaged", "local", "hub"]


@dataclass(frozen=True)
class Source:
    """Files of a pretrained model on this machine. It knows nothing of data.

    family: the registered backbone that opens it. files: relative file name -> SHA-256 (hex).
    weights: those of the files that hold what was learnt. revision: the resolved hub commit, None
    elsewhere. options: plain JSON that the family needs beside the files, such as the name of an
    architecture.
    """

    name: str
    kind: Kind
    family: str
    folder: Path
    files: Mapping[str, str]
    weights: tuple[str, ...]
    origin: Origin
    revision: str | None = None
    licence: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file; with several, of their sorted digests."""
        shards = sorted(self.files[name] for name in self.weights)
        assert shards, f"source {self.name} without weights"
        return shards[0] if len(shards) == 1 else hashlib.sha256("".join(shards).encode()).hexdigest()

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the source ({} where it has none); raises ArtefactError where it is damaged."""
        return read_json(self.folder / name) if name in self.files else {}

    def unchanged(self) -> bool:
        """Whether every file lies where it did, with the digest it had (remembered by its size and time)."""
        try:
            places = [(self.folder / name, digest) for name, digest in self.files.items()]
            # a device or a pipe has no end
            return all(path.is_file() and file_digest(path) == digest for path, digest in places)
        except (OSError, ValueError):
            return False

    def verify(self) -> None:
        """Read every file again and compare its digest; raises ArtefactError at the first difference."""
        for name, expected in self.files.items():
            path = self.folder / name
            if not path.is_file():
                raise ArtefactError(f"source {self.name!r} lacks {path}; restore the file, then run again")
            if paths.file_digest(path) != expected:
                raise ArtefactError(
                    f"{path} has changed: its SHA-256 is no longer {expected[:12]}...; restore the file, "
                    "or fit again with the source as it is now"
                )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file as a mapping (a list under "items"); raises ArtefactError where it is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); restore or fetch the file again") from error
    if isinstance(found, list):
        return {"items": found}  # modules.json of sentence-transformers
    if not isinstance(found, dict):
        raise ArtefactError(f"{path} holds no JSON object; restore or fetch the file again")
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered by its path, size, time and inode so that a run need not read 90 MB.

    What is loaded is read and compared in full all the same: see `Source.verify`.
    """
    status = path.stat()
    known_as = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    if status.st_size < 1_000_000:
        return paths.file_digest(path)
    found = paths.kept("digests", known_as, lambda: {"sha256": paths.file_digest(path)})
    return str(found["sha256"])
