"""A toy backbone and head: real enough to be saved, loaded and asked, with nothing to train."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork import registry
from graftwork.backbones.base import BackboneState
from graftwork.errors import FeatureWidth
from graftwork.records import Extraction, Features, Notify, silent
from graftwork.rows import Kind, Rows
from graftwork.sources import Source

WIDTH = 16


@dataclass
class ToyBackbone:
    """Counts of characters by code point modulo 16, times `scale`; remembers what it was asked."""

    scale: float = 1.0
    kind: Kind = "text"
    source: Source | None = None
    asked: list[list[str]] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.scale}"

    @property
    def width(self) -> int:
        return WIDTH

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        self.asked.append(list(rows.names))
        matrix = np.zeros((len(rows), WIDTH), dtype=np.float32)
        for i in range(len(rows)):
            for byte in rows.column.read(i):
                matrix[i, byte % WIDTH] += self.scale
        return Features({"counts": matrix}, {}, Extraction(len(rows), len(rows), 0, 0.01, "toy", "f32"))

    def state(self) -> BackboneState:
        return BackboneState("toy", {"scale": self.scale}, {}, self.source)


@dataclass(frozen=True)
class ToyHead:
    labels: tuple[str, ...]
    weights: NDArray[np.float64]

    @property
    def width(self) -> int:
        return len(self.weights)

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        if features.shape[1] != self.width:
            raise FeatureWidth(self.width, features.shape[1])
        return np.asarray(features, dtype=np.float64) @ self.weights

    def state(self) -> tuple[str, Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        return "toy", {}, {"weights": self.weights}


class ToyFamily:
    @staticmethod
    def restore(state: BackboneState) -> ToyBackbone:
        return ToyBackbone(state.config["scale"], source=state.source)


def restore_head(labels: tuple[str, ...], config: Mapping[str, Any], arrays: Mapping[str, Any]) -> ToyHead:
    return ToyHead(labels, arrays["weights"])


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make "toy" a registered backbone and head for one test."""
    real_get, real_names = registry.get, registry.names
    toys: dict[str, Any] = {
        "backbones": ToyFamily,
        "heads": restore_head,
    }
    monkeypatch.setattr(
        registry, "get", lambda group, name: toys[group] if name == "toy" else real_get(group, name)
    )
    monkeypatch.setattr(
        registry, "names", lambda group: (*real_names(group), *(["toy"] if group in toys else []))
    )
