"""Tasks opened on demand: a head each, the network of many opened once.

An artefact's files are verified when it is opened. The first that brings a backbone answers its probe rows
through the network, as `graftwork.artefact.load` does; further ones replay their head on the features that
were recorded when they were saved. Heads, with the low-rank pairs that a task adds to a network that it
shares, are held under a limit of bytes; those asked longest ago go.
"""

import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from graftwork import opening, paths
from graftwork.backbones.base import Backbone
from graftwork.backbones.served import NOTHING, Added, added_of, network_of
from graftwork.errors import ArtefactError, RequestError
from graftwork.manifest import Manifest, read, verify
from graftwork.model import Familiarity, Head, Model
from graftwork.rows import Kind
from graftwork.serving.aside import Aside
from graftwork.unknown import Familiarity as Known
from graftwork.unknown import Shortlisted

STALE_S = 1.0
"""How long a task is believed to be unchanged on disk before that is looked at again."""
_READ = ("head.safetensors", "familiarity.safetensors", "probe/answers.safetensors")
"""Files that are verified as they are read."""
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Task:
    """One artefact, ready to answer what its backbone makes of an input. bytes: that it takes in memory.

    network: see `served.network_of`; added: what its backbone adds there.
    """

    folder: Path
    digest: str
    kind: Kind
    labels: tuple[str, ...]
    head: Head
    familiarity: Familiarity | None
    fingerprint: str
    bytes: int
    network: str
    added: Added = NOTHING


@dataclass
class _Held:
    """A task in memory. stamp: of its artefact when it was opened. looked: when that was last compared."""

    task: Task
    stamp: Stamp | None
    looked: float


@dataclass(frozen=True)
class _Claim:
    """What an artefact says that decides its backbone, and an artefact that says so."""

    key: str
    folder: Path


class Tasks:
    """Artefacts by folder; every method may be called from any thread.

    memory: bytes that tasks may take. Opening one holds up nobody but those who ask for the same one, or
    for another that is the first of the same backbone.
    """

    def __init__(self, memory: int, *, offline: bool = False) -> None:
        self._memory, self._offline = memory, offline
        self._held: OrderedDict[Path, _Held] = OrderedDict()
        self._bytes = self._opened = 0
        self._backbones: dict[str, Backbone] = {}
        self._claims: dict[str, tuple[str, str]] = {}
        self._added: WeakValueDictionary[str, Added] = WeakValueDictionary()
        self._places: dict[str, Path] = {}
        self._proven: set[tuple[str, str]] = set()
        self._replayed: set[str] = set()
        self._lock = threading.Lock()
        self._turn = _Turns()
        self._banks = Aside()

    def held(self, folder: Path) -> Task | None:
        """The task where it is in memory and unchanged on disk, which is looked at once a second at most."""
        now = time.monotonic()
        with self._lock:
            found = self._held.get(folder)
            if found is None:
                return None
            self._held.move_to_end(folder)
            if now - found.looked <= STALE_S:
                return found.task
        if _stamp(folder) != found.stamp:
            return None
        found.looked = now
        return found.task

    def get(self, folder: Path) -> Task:
        """The task, opened where it is not in memory.

        Raises ArtefactError, or RequestError where its source is not on this machine.
        """
        found = self.held(folder)
        if found is not None:
            return found
        with self._turn(folder):
            while (found := self.held(folder)) is None:
                stamp = _stamp(folder)
                try:
                    return self._open(folder, stamp)
                except ArtefactError:
                    if _stamp(folder) == stamp:  # else it was replaced meanwhile, and two were seen mixed
                        raise
            return found

    def backbone(self, network: str) -> Backbone:
        """A backbone of a task that was opened, of that network; where it was dropped one is opened again.

        Raises ArtefactError where no artefact is left that it could be opened from, RequestError where its
        source is gone.
        """
        missing: dict[Path, RequestError] = {}
        with self._lock:
            found = self._backbones.get(network)
            places = [one.task.folder for one in self._held.values() if one.task.network == network]
            places.append(self._places[network])
        for folder in [] if found else places:
            try:
                manifest = read(folder)[0]
                source = manifest.source
                place = folder if source is None or source.bundled else Path(source.folder)
                if place in missing:
                    continue  # a thousand artefacts of one source that is gone are not a thousand searches
                other = self._restored(_Claim(_said(manifest), folder), manifest)
            except ArtefactError:
                continue  # deleted or replaced: another may still have it
            except RequestError as error:  # another may have the source in itself
                missing[place] = error
                continue
            if network_of(other) == network:
                found = other
                break
        if found is None:
            for one in missing.values():
                raise one
            raise ArtefactError(
                f"{places[-1]} and all that shared its backbone are gone; fit or fetch one again"
            )
        return found

    def drop(self, network: str) -> None:
        """Let go of a network's backbone, which is not needed now."""
        with self._lock:
            self._backbones.pop(network, None)

    def forget(self, folder: Path) -> None:
        """Let go of an artefact that was deleted or replaced."""
        with self._lock:
            self._remove(folder)

    def counted(self) -> Mapping[str, int]:
        """Network -> tasks of it in memory."""
        with self._lock:
            return Counter(one.task.network for one in self._held.values())

    def adapters(self) -> Mapping[str, int]:
        """Network -> how many different low-rank changes of it are in memory, where there are any."""
        with self._lock:
            pairs = {(one.task.network, one.task.added.key) for one in self._held.values()}
        return Counter(network for network, key in pairs if key)

    def figures(self) -> Mapping[str, float]:
        """For metrics: tasks in memory, their bytes, their low-rank changes, how many were opened so far."""
        counted = {"tasks_held": len(self._held), "task_bytes": self._bytes, "tasks_opened": self._opened}
        return {**counted, "adapters_held": sum(self.adapters().values())}

    def _open(self, folder: Path, stamp: Stamp | None) -> Task:
        manifest, digest = read(folder)
        opening.require_known(folder, manifest)
        new = digest not in self._replayed
        if new:
            for name in manifest.files.keys() - set(_READ):
                verify(folder, manifest, name)
        head, known = opening.head_of(folder, manifest)
        claim = _Claim(_said(manifest), folder)
        backbone = self._restored(claim, manifest)
        if new:
            self._replay(claim, manifest, Model(backbone, head, known))
        familiarity = self._quick(known)
        added = added_of(backbone)
        with self._lock:
            added = self._added.setdefault(added.key, added) if added.key else added
        task = Task(
            folder,
            digest,
            manifest.kind,
            tuple(manifest.labels),
            head,
            familiarity,
            backbone.fingerprint,
            _size(head, familiarity) + added.nbytes + sum(map(sys.getsizeof, manifest.labels)),
            network_of(backbone),
            added,
        )
        with self._lock:
            self._opened += 1
            self._replayed.add(digest)
            self._remove(folder)
            self._held[folder] = _Held(task, stamp, time.monotonic())
            self._bytes += task.bytes
            while self._bytes > self._memory and len(self._held) > 1:
                self._remove(next(iter(self._held)))
        return task

    def _replay(self, claim: _Claim, manifest: Manifest, model: Model) -> None:
        """Through the network where nothing has yet proven that it gives what the manifest recorded."""
        proof = claim.key, manifest.fingerprint
        with self._turn(proof):
            if proof in self._proven:
                opening.replay_head(claim.folder, manifest, model.head)
                return
            opening.replay(claim.folder, manifest, model)
            self._proven.add(proof)

    def _restored(self, claim: _Claim, manifest: Manifest) -> Backbone:
        """The backbone that the manifest speaks of, built where no artefact has brought it yet."""
        with self._turn(claim.key):
            with self._lock:
                network, fingerprint = self._claims.get(claim.key, ("", ""))
                known = self._backbones.get(network)
            if known is not None and known.fingerprint == fingerprint:
                return known
            backbone = opening.backbone_of(claim.folder, manifest, offline=self._offline)
            with self._lock:
                # the same numbers by another name: the one that is held serves both; of those that share
                # a network one is held, by which it can be loaded
                held = self._backbones.setdefault(network_of(backbone), backbone)
                self._claims[claim.key] = network_of(backbone), backbone.fingerprint
                self._places[network_of(backbone)] = claim.folder
            return held if held.fingerprint == backbone.fingerprint else backbone

    def _quick(self, known: Familiarity | None) -> Familiarity | None:
        """What tells unknown inputs as `known` does, sooner and in less memory."""
        if not isinstance(known, Known):
            return known
        if np.isinf(known.threshold):
            return None  # nothing is unknown then
        aside = replace(known, bank=self._banks.put(known.bank[:]))
        return Shortlisted.of(aside)

    def _remove(self, folder: Path) -> None:
        found = self._held.pop(folder, None)
        if found is not None:
            self._bytes -= found.task.bytes


def _size(head: Head, familiarity: Familiarity | None) -> int:
    arrays = list(head.state()[2].values())
    if isinstance(familiarity, Shortlisted):
        whole = familiarity.whole.bank
        arrays += [familiarity.placed, *([whole] if isinstance(whole, np.ndarray) else [])]
    elif familiarity is not None:
        arrays += familiarity.arrays().values()
    return sum(array.nbytes for array in arrays)


def check(folder: Path, *, network: bool = False, offline: bool = False) -> Manifest:
    """Everything that can be said of an artefact without running it; raises ArtefactError in one line.

    No file but those of the manifest, each with its digest; the head and its recorded answers; sound arrays.
    network: its backbone too, and the whole replay (raises RequestError where its source is not here).
    """
    manifest, _ = read(folder)
    opening.require_known(folder, manifest)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    more = sorted(there - manifest.files.keys() - {"manifest.json"})
    if more:
        raise ArtefactError(f"{folder} holds {more[0]!r}, which its manifest does not name; do not trust it")
    for name in manifest.files:
        verify(folder, manifest, name)
    head, _ = opening.head_of(folder, manifest)
    opening.replay_head(folder, manifest, head)
    opening.arrays_of(folder, manifest, "backbone.safetensors")
    if network:
        opening.load(folder, offline=offline)
    return manifest


def _said(manifest: Manifest) -> str:
    """What decides which backbone an artefact is restored with on this machine."""
    said = None if manifest.source is None else manifest.source.model_dump(
        include={"kind", "family", "files", "weights", "weights_sha256", "options"}
    )  # fmt: skip
    return paths.digest_of(
        [manifest.kind, manifest.backbone.model_dump(), said, manifest.files.get("backbone.safetensors")]
    )


def _stamp(folder: Path) -> Stamp | None:
    """Changes when the artefact is replaced; None where there is none."""
    try:
        found = (folder / "manifest.json").stat()
    except OSError:
        return None  # reading it will say why
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
