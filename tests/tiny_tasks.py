"""Small artefacts on one toy backbone, for tests of what serves many of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as packed

import toys
from graftwork import artefact
from graftwork.heads import CentroidHead, LinearHead, MLPHead
from graftwork.kernel_head import KernelHead
from graftwork.model import Head, Model
from graftwork.rows import Rows, Texts
from graftwork.unknown import Familiarity

TEXTS = ["where is my parcel", "charged twice", "例子", "a" * 50]
LABELS = ("billing", "delivery", "其他")


def head(kind: str = "linear", labels: tuple[str, ...] = LABELS, seed: int = 0) -> Head:
    """A head of the kind with random numbers."""
    rng, width, classes = np.random.default_rng(seed), toys.WIDTH, len(labels)
    if kind == "linear":
        weights = rng.normal(size=(width, classes)) / 20
        return LinearHead.of(labels, weights, rng.normal(size=classes), 1 + rng.random())
    centre, scale = rng.normal(size=width), 1 + rng.random(width)
    if kind in ("cosine", "distance"):
        return CentroidHead.of(labels, kind, centre, scale, rng.normal(size=(classes, width)), 2.0)
    if kind == "mlp":
        arrays = {
            "centre": centre, "scale": scale, "hidden": rng.normal(size=(width, 5)),
            "hidden_bias": rng.normal(size=5), "out": rng.normal(size=(5, classes)),
            "out_bias": rng.normal(size=classes),
        }  # fmt: skip
        return MLPHead.of(labels, arrays, 1.5)
    columns = np.where(np.arange(width) % 2, 0.1, 0).astype(np.float32)
    landmarks = rng.normal(size=(4, width // 2)).astype(np.float32)
    kept = {"columns": columns, "landmarks": landmarks, "coefficients": rng.normal(size=(4, classes))}
    return KernelHead(labels, {"temperature": 1.0}, kept)


def known(rows: int = 200, seed: int = 0) -> Familiarity:
    """Familiarity with random texts' features."""
    rng = np.random.default_rng(seed)
    features = rng.poisson(3, (rows, toys.WIDTH)).astype(np.float32)
    return Familiarity.fit(features, rng.integers(0, 3, rows))


def save(
    folder: Path, task: Head | None = None, *, scale: float = 1.0, familiar: Familiarity | None = None
) -> Path:
    """An artefact of the head on the toy backbone of that scale."""
    model = Model(toys.ToyBackbone(scale), head() if task is None else task, familiar)
    probe = Rows([f"row {i}" for i in range(len(TEXTS))], {"text": Texts(TEXTS)})
    return artefact.save(
        model, folder, strategy="probe", result={}, versions={}, created="2026-01-01T00:00:00+00:00",
        report="", probe=probe,
    )  # fmt: skip


def edit(folder: Path, **fields: Any) -> None:
    """Other fields in the manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def replace_file(folder: Path, name: str, content: bytes | Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Another file in its place, its digest made to fit."""
    written = content if isinstance(content, bytes) else packed(dict(content))
    (folder / name).write_bytes(written)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    edit(folder, files={**files, name: hashlib.sha256(written).hexdigest()})
