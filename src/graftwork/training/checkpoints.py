"""The state of a training on disk, so that a run that was killed goes on where it was."""

import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graftwork import paths
from graftwork.errors import WorkError

EVERY_S = 40.0
"""Seconds between checkpoints: with the time that one step and one write take, within a minute."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in one folder. Whoever trains asks for the one of its own work."""

    folder: Path
    every_s: float = EVERY_S

    def of(self, work: Any) -> "Checkpoint":
        """The checkpoint of what `work` (plain JSON of all that shapes the training) describes."""
        return Checkpoint(self.folder / f"{paths.digest_of(work)}.safetensors", self.every_s)


@dataclass
class Checkpoint:
    """One training's state: written whole or not at all, read back only where it is whole.

    clock: seconds from any start; the first state is due `every_s` after this was made.
    """

    path: Path
    every_s: float = EVERY_S
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    @property
    def due(self) -> bool:
        return self.clock() - self._last >= self.every_s

    def save(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """said: plain JSON. Raises WorkError where the disk cannot take it; the state before then stays."""
        from safetensors.torch import save

        kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        try:
            self._replace(save(kept, {"said": json.dumps(said), "sum": str(_sum(kept))}))
        except OSError as error:
            raise WorkError(
                f"the checkpoint {self.path} cannot be written ({error.strerror or error}); free the disk, "
                "then go on with --resume"
            ) from error
        self._last = self.clock()

    def _replace(self, content: bytes) -> None:
        """By way of a file of one fixed name: what a killed writer left is written over, not left behind."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        finally:
            unfinished.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """(said, tensors) as they were saved; None where there are none. Raises WorkError where damaged."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                said, expected = json.loads(file.metadata()["said"]), file.metadata()["sum"]
                found = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise self.damaged(str(error)) from error
        if str(_sum(found)) != expected:
            raise self.damaged("its numbers do not add up to the sum that it names")
        return said, found

    def damaged(self, reason: str) -> WorkError:
        line = " ".join(reason.split())
        return WorkError(
            f"the checkpoint {self.path} is damaged ({line}); remove it and start again without --resume"
        )


def _sum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: `NUMBER.KEY`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what `optimiser_tensors` gave, each tensor laid out in memory as its parameter is."""
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        mine = parameters[int(number)]
        # the fused step walks through memory, so an order of its own would mix numbers up
        laid = torch.empty_like(mine.data).copy_(value) if value.shape == mine.shape and value.ndim else value
        state.setdefault(int(number), {})[key] = laid
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
