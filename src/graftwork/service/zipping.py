"""A zip that is sent while it is made: nothing of it is held, in memory or on disk."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

PIECE = 256_000


def zipped(files: Mapping[str, Path]) -> Iterator[bytes]:
    """The bytes of a zip of `files` (name in it -> where it lies), stored as they are.

    Raises OSError where a file goes away meanwhile: what was sent then lacks its end, and opens nowhere.
    """
    out = _Out()
    # a type that cannot seek: zipfile then writes sizes after each file
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, path in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    yield out.take()
    yield out.take()


class _Out:
    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, piece: bytes) -> int:
        self._held += piece
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken = bytes(self._held)
        self._held.clear()
        return taken
