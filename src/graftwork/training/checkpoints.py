"""The state of a training on disk, so that a run that was killed goes on where it was."""

import json
import time
from collections.abc import Mapping
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
    """One training's state: written whole or not at all, read back only where it is whole."""

    path: Path
    every_s: float = EVERY_S
    _last: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every_s

    def save(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """said: plain JSON. Raises WorkError where the disk cannot take it."""
        from safetensors.torch import save

        kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        try:
            paths.replace_file(self.path, save(kept, {"said": json.dumps(said)}))
        except OSError as error:
            raise WorkError(
                f"the checkpoint {self.path} cannot be written ({error.strerror or error}); free the disk, "
                "then go on with --resume"
            ) from error
        self._last = time.monotonic()

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """(said, tensors) as they were saved; None where there are none."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                said = json.loads(file.metadata()["said"])
                return said, {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise WorkError(
                f"the checkpoint {self.path} is damaged ({error}); remove it and start again without --resume"
            ) from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: `NUMBER.KEY`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
