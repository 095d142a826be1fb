"""Where a pretrained model comes from: name, revision, files and their SHA-256, licence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graftwork.rows import Kind


@dataclass(frozen=True)
class Source:
    """Files of a pretrained model on this machine. It knows nothing of data.

    files: relative file name -> SHA-256 (hex). revision: the resolved hub commit, None elsewhere.
    """

    name: str
    kind: Kind
    folder: Path
    files: Mapping[str, str]
    origin: Literal["packaged", "local", "hub"]
    revision: str | None = None
    licence: str | None = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file; with several shards, of their sorted digests."""
        raise AssertionError("written by the sources module's owner")
