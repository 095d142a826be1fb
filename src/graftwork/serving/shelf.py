"""Artefacts under a folder, found by walking and read for what they say of themselves alone."""

import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graftwork.errors import ArtefactError
from graftwork.manifest import read
from graftwork.serving.records import Shelved

SUFFIX = ".graft"
STALE_S = 1.0
"""How long what was found may be believed before the folder is looked at again."""
_Stamp = tuple[int, int, int]


def shelf(root: Path) -> "Shelf":
    return Shelf(root)


@dataclass
class Shelf:
    """NAME.graft under `root`, at any depth; new, replaced and deleted ones are noticed.

    Folders whose name begins with a dot are passed over (what is half written has such a name), and so
    are links that lead out of `root`.
    """

    root: Path
    _known: dict[str, tuple[_Stamp, Shelved | str]] = field(default_factory=dict, init=False)
    _looked: float = field(default=float("-inf"), init=False)
    _took: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def found(self) -> Mapping[str, Shelved]:
        """Name -> artefact, in the order of names; never older than a second."""
        return {name: one for name, (_, one) in self._look().items() if isinstance(one, Shelved)}

    def faults(self) -> Mapping[str, str]:
        """Name -> what is wrong with an artefact that cannot be served."""
        return {name: one for name, (_, one) in self._look().items() if isinstance(one, str)}

    def get(self, name: str) -> Shelved | None:
        """The artefact of that name; one that is not known is looked for at once.

        Raises ArtefactError where it is damaged.
        """
        known = self._look().get(name) or self._look(now=True).get(name)
        if known is None:
            return None
        if isinstance(known[1], str):
            raise ArtefactError(known[1])
        return known[1]

    def _look(self, now: bool = False) -> dict[str, tuple[_Stamp, Shelved | str]]:
        with self._lock:
            begun = time.monotonic()
            # a large folder is not walked without end, whoever asks for names that are not there
            if begun - self._looked > (0.0 if now else STALE_S) + 4 * self._took:
                there = dict(sorted(_walk(self.root)))
                self._known = {
                    name: self._known[name]
                    if name in self._known and self._known[name][0] == stamp
                    else (stamp, _read(name, folder))
                    for name, (folder, stamp) in there.items()
                }
                self._looked = time.monotonic()
                self._took = self._looked - begun
            return self._known


def _walk(root: Path) -> Iterator[tuple[str, tuple[Path, _Stamp]]]:
    """(name, (folder, what changes with its manifest)) of every artefact."""
    top = root.resolve()
    for place, folders, _ in os.walk(top):
        inner = [one for one in folders if not one.startswith(".")]
        folders[:] = [one for one in inner if not one.endswith(SUFFIX)]
        for one in inner:
            folder = Path(place, one)
            stamp = _stamp(folder, top) if one.endswith(SUFFIX) else None
            if stamp is not None:
                name = os.fsencode(folder.relative_to(top)).decode("utf-8", "replace").removesuffix(SUFFIX)
                yield name, (folder, stamp)


def _stamp(folder: Path, top: Path) -> _Stamp | None:
    """None where it is no artefact (yet), or a link that leads out of `top`."""
    if folder.is_symlink() and not folder.resolve().is_relative_to(top):
        return None
    try:
        status = (folder / "manifest.json").lstat()
    except OSError:
        return None
    regular = stat.S_ISREG(status.st_mode)
    return (status.st_mtime_ns, status.st_size, status.st_ino) if regular else None


def _read(name: str, folder: Path) -> Shelved | str:
    try:
        manifest, digest = read(folder)
        size = sum(one.stat().st_size for one in os.scandir(folder) if one.is_file(follow_symlinks=False))
    except (ArtefactError, OSError) as error:
        return str(error)
    source = manifest.source.name if manifest.source else None
    return Shelved(
        name,
        folder,
        digest,
        manifest.kind,
        tuple(manifest.labels),
        manifest.strategy,
        source,
        manifest.fingerprint,
        manifest.created,
        size,
    )
