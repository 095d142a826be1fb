"""Tasks opened on demand: a head each, the backbone of many opened and replayed once.

An artefact's files are verified when it is opened. The first that brings a backbone answers its probe rows
through the network, as `graftwork.artefact.load` does; further ones replay their head on the features that
were recorded when they were saved. Heads are held under a limit of bytes; those asked longest ago go.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graftwork import opening, paths
from graftwork.backbones.base import Backbone
from graftwork.errors import ArtefactError
from graftwork.manifest import Manifest, read, verify
from graftwork.model import Familiarity, Head, Model
from graftwork.rows import Kind

_READ = ("head.safetensors", "familiarity.safetensors", "probe/answers.safetensors")
"""Files that are verified as they are read."""
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Task:
    """One artefact, ready to answer what its backbone makes of an input. bytes: that it takes in memory."""

    folder: Path
    digest: str
    kind: Kind
    labels: tuple[str, ...]
    head: Head
    familiarity: Familiarity | None
    fingerprint: str
    bytes: int


@dataclass(frozen=True)
class _Shared:
    """A backbone and an artefact that it can be opened from again."""

    backbone: Backbone
    folder: Path
    claim: str


class Tasks:
    """Artefacts by folder; every method may be called from any thread.

    Opening one holds up nobody but those who ask for the same one.
    """

    def __init__(self, *, head_memory: int, offline: bool = False) -> None:
        self._most, self._offline = head_memory, offline
        self._held: OrderedDict[Path, tuple[Task, Stamp]] = OrderedDict()
        self._bytes = 0
        self._backbones: dict[str, _Shared] = {}
        self._claims: dict[str, str] = {}
        self._folders: dict[str, tuple[Path, str]] = {}
        self._proven: set[tuple[str, str]] = set()
        self._replayed: set[str] = set()
        self._lock = threading.Lock()
        self._one_at_a_time = _Turns()

    def held(self, folder: Path) -> Task | None:
        """The task where it is in memory and its artefact is unchanged on disk; opens nothing."""
        stamp = _stamp(folder)
        with self._lock:
            found = self._held.get(folder)
            if found is None or found[1] != stamp:
                return None
            self._held.move_to_end(folder)
            return found[0]

    def get(self, folder: Path) -> Task:
        """The task, opened where it is not in memory.

        Raises ArtefactError, or RequestError where its source is not on this machine.
        """
        found = self.held(folder)
        if found is not None:
            return found
        with self._one_at_a_time(folder):
            return self.held(folder) or self._open(folder)

    def backbone(self, fingerprint: str) -> Backbone:
        """The backbone of a task that was opened; one that was dropped is opened again."""
        with self._lock:
            shared = self._backbones.get(fingerprint)
            place = self._folders[fingerprint]
        if shared is not None:
            return shared.backbone
        folder, claim = place
        return self._shared(folder, read(folder)[0], claim).backbone

    def drop(self, fingerprint: str) -> None:
        """Let go of a backbone that is not needed now."""
        with self._lock:
            self._backbones.pop(fingerprint, None)

    def forget(self, folder: Path) -> None:
        """Let go of an artefact that was deleted or replaced."""
        with self._lock:
            self._remove(folder)

    def count(self, fingerprint: str | None = None) -> int:
        """Tasks in memory, of one backbone or of all."""
        with self._lock:
            return sum(fingerprint in (None, task.fingerprint) for task, _ in self._held.values())

    @property
    def bytes(self) -> int:
        """What the tasks in memory take."""
        return self._bytes

    def _open(self, folder: Path) -> Task:
        stamp = _stamp(folder)
        manifest, digest = read(folder)
        opening.require_known(folder, manifest)
        first = digest not in self._replayed
        if first:
            for name in manifest.files.keys() - set(_READ):
                verify(folder, manifest, name)
        head, familiarity = opening.head_of(folder, manifest)
        shared = self._shared(folder, manifest, _claim(manifest))
        fingerprint = shared.backbone.fingerprint
        if first:
            self._replay(folder, manifest, shared, Model(shared.backbone, head, familiarity))
        size = sum(array.nbytes for array in head.state()[2].values())
        size += sum(array.nbytes for array in familiarity.arrays().values()) if familiarity else 0
        task = Task(
            folder, digest, manifest.kind, tuple(manifest.labels), head, familiarity, fingerprint, size
        )
        with self._lock:
            self._replayed.add(digest)
            self._remove(folder)
            self._held[folder] = task, stamp
            self._bytes += size
            while self._bytes > self._most and len(self._held) > 1:
                self._remove(next(iter(self._held)))
        return task

    def _replay(self, folder: Path, manifest: Manifest, shared: _Shared, model: Model) -> None:
        """Through the network where nothing has yet proven that it gives what the manifest recorded."""
        proof = shared.claim, manifest.fingerprint
        with self._one_at_a_time(proof):
            if proof in self._proven:
                opening.replay_head(folder, manifest, model.head)
                return
            opening.replay(folder, manifest, model)
            with self._lock:
                self._proven.add(proof)

    def _shared(self, folder: Path, manifest: Manifest, claim: str) -> _Shared:
        with self._one_at_a_time(claim):
            with self._lock:
                known = self._backbones.get(self._claims.get(claim, ""))
            if known is not None:
                return _Shared(known.backbone, folder, claim)
            backbone = opening.backbone_of(folder, manifest, offline=self._offline)
            if backbone.kind != manifest.kind:
                raise ArtefactError(
                    f"{folder} says that it takes {manifest.kind}, its backbone takes {backbone.kind}; "
                    "restore a copy or fit it again"
                )
            with self._lock:
                # the same numbers by another name: the one that is held serves both
                shared = self._backbones.setdefault(backbone.fingerprint, _Shared(backbone, folder, claim))
                self._claims[claim] = backbone.fingerprint
                self._folders[backbone.fingerprint] = folder, claim
            return _Shared(shared.backbone, folder, claim)

    def _remove(self, folder: Path) -> None:
        found = self._held.pop(folder, None)
        if found is not None:
            self._bytes -= found[0].bytes


def check(folder: Path, *, network: bool = False, offline: bool = False) -> Manifest:
    """Everything that can be said of an artefact without running it; raises ArtefactError in one line.

    Every file's digest, the manifest, the head with its recorded answers. network: its backbone too, and
    the whole replay (raises RequestError where its source is not here).
    """
    manifest, _ = read(folder)
    opening.require_known(folder, manifest)
    for name in manifest.files:
        verify(folder, manifest, name)
    head, _ = opening.head_of(folder, manifest)
    opening.replay_head(folder, manifest, head)
    opening.arrays_of(folder, manifest, "backbone.safetensors")
    if network:
        opening.load(folder, offline=offline)
    return manifest


def _claim(manifest: Manifest) -> str:
    """What decides which backbone an artefact is restored with on this machine."""
    said = None if manifest.source is None else manifest.source.model_dump(
        include={"kind", "family", "files", "weights", "weights_sha256", "options"}
    )  # fmt: skip
    return paths.digest_of([manifest.backbone.model_dump(), said, manifest.files.get("backbone.safetensors")])


def _stamp(folder: Path) -> Stamp:
    """Changes when the artefact is replaced; raises ArtefactError where there is none."""
    try:
        found = (folder / "manifest.json").stat()
    except OSError as error:
        raise ArtefactError(f"{folder} is no artefact any more ({error.strerror})") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


class _Turns:
    """Work with the same key is done by one thread after the other; other work is not held up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def __call__(self, key: Hashable) -> Iterator[None]:
        with self._lock:
            mine, waiting = self._busy.get(key, (threading.Lock(), 0))
            self._busy[key] = mine, waiting + 1
        try:
            with mine:
                yield
        finally:
            with self._lock:
                mine, waiting = self._busy.pop(key)
                if waiting > 1:
                    self._busy[key] = mine, waiting - 1
