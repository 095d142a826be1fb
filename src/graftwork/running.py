"""The folder of a run: what was asked for, the checkpoints, and how long it has been at work.

It lies beside the artefact that the run will become, and goes once that is saved. A run that was killed
leaves it, and a later one with the same request goes on from it.
"""

import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftwork import paths
from graftwork.errors import RequestError, WorkError
from graftwork.records import Notify, Progress
from graftwork.training.checkpoints import EVERY_S, Checkpoints

REQUEST, ALIVE, DECIDED = "request.json", "alive", "decided.json"
ALIVE_S = 1.0
DIGEST = 64
"""Letters of a SHA-256."""
EVERY = "GRAFT_CHECKPOINT_S"
"""Environment variable: seconds between checkpoints."""


class OtherRun(RequestError):
    """The run to go on with was of another request, or of another version."""


class RunWarning(UserWarning):
    """What became of an earlier, interrupted run."""


@dataclass
class Run:
    """One run under way. before: seconds that earlier attempts at the same request have spent."""

    folder: Path
    begun: float
    before: float = 0.0
    resumed: bool = False
    _seen: float = 0.0

    @property
    def checkpoints(self) -> Checkpoints:
        """Where trainings of this run keep their state."""
        return Checkpoints(self.folder, checkpoint_seconds())

    def watched(self, notify: Notify) -> Notify:
        """`notify`, each step of which also counts as a sign of life: see `before`."""

        def heard(step: Progress) -> None:
            self.alive()
            notify(step)

        return heard

    def alive(self) -> None:
        """Note the time, so that a resumed run knows what this one had spent when it was killed."""
        now = time.time()
        if now - self._seen >= ALIVE_S:
            self._seen = now
            with suppress(OSError):  # the checkpoints' own times stand in for it
                (self.folder / ALIVE).touch()

    def decided(self, name: str, value: float | str | None) -> float | str | None:
        """`value`, or what an earlier attempt decided: what follows from the clock must not change."""
        path = self.folder / DECIDED
        known = _read(path) or {}
        if name not in known:
            known[name] = value
            _write(path, known)
        found: float | str | None = known[name]
        return found

    def remove(self) -> None:
        """The run is over; its artefact is saved."""
        shutil.rmtree(self.folder, ignore_errors=True)


def beside(artefact: Path) -> Path:
    """The hidden folder of the run that will become `artefact`."""
    return artefact.absolute().with_name(f".{artefact.name}.run")


def begin(folder: Path, request: Mapping[str, Any], *, resume: bool) -> Run:
    """Start a run, or go on with the one in `folder`; what became of an earlier one is a RunWarning.

    request: plain JSON of everything that shapes the result. Raises RequestError where the run to go on with
    was of another request, WorkError where the folder cannot be written.
    """
    known = _read(folder / REQUEST)
    run = Run(folder, time.time())
    if resume and known is not None:
        _require_same(known["request"], request, folder)
        run = replace(run, before=known["before"] + _lasted(folder, known["begun"]), resumed=True)
    else:
        if resume:
            _tell(f"there is no run to go on with at {folder}; this one starts from the beginning")
        elif known is not None:
            _tell("an interrupted run was thrown away and this one starts afresh; --resume goes on with one")
        shutil.rmtree(folder, ignore_errors=True)
    _write(folder / REQUEST, {"request": request, "begun": run.begun, "before": run.before})
    run.alive()
    return run


def source_of(folder: Path) -> str | None:
    """The weights' SHA-256 of the source that the run in `folder` had taken; None where there is none."""
    known = _read(folder / REQUEST)
    source = None if known is None else known["request"].get("source")
    return None if source is None else str(source)


def checkpoint_seconds() -> float:
    """Seconds between checkpoints: GRAFT_CHECKPOINT_S, else the default; raises RequestError."""
    said = os.environ.get(EVERY)
    try:
        seconds = EVERY_S if said is None else float(said)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 60:
        raise RequestError(f"{EVERY}={said} seen; expected seconds, from 0 to 60")
    return seconds


def _require_same(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    # another strategy has other settings too: it is said first
    for name in sorted({*then, *now}, key=lambda name: (name != "strategy", name)):
        one, other = then.get(name), now.get(name)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            one, other = ({key: given.get(key) for key in names} for given in (one, other))
        raise OtherRun(
            f"the interrupted run had {name} {_short(one)}, this one has {_short(other)}; ask for the same, "
            "or leave --resume out to start afresh"
        )


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_short(one)}" for name, one in value.items())
    if isinstance(value, str) and len(value) == DIGEST:
        return f"{value[:12]}..."
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= 80 else f"{said[:77]}..."


def _lasted(folder: Path, begun: float) -> float:
    """Seconds from the start of the last attempt to its last sign of life."""
    times = [path.stat().st_mtime for path in folder.iterdir() if path.is_file()]
    return max(0.0, max(times, default=begun) - begun)


def _tell(said: str) -> None:
    warnings.warn(said, RunWarning, stacklevel=2)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    try:
        paths.replace_file(path, json.dumps(value, ensure_ascii=False, indent=1).encode())
    except OSError as error:
        raise WorkError(
            f"{path} cannot be written ({error.strerror or error}); free the disk or choose another place"
        ) from error
