"""What may be set of strategies that change the backbone, and what suits where nobody says."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from graftwork.rows import Kind


@dataclass(frozen=True)
class Options:
    """What may be set of every strategy that changes the backbone; None leaves it to `defaults`.

    epochs, batch, rate, decay, warmup, smoothing, mixup, pull, gradual, still, clip, patience, pieces,
    precision: see `training.Plan`; rate is that of the last layers and the head. layer_decay: each earlier
    block learns at so many times the rate of the one after it. average: keep the mix of the source's and
    the tuned weights that does best on held rows (WiSE-FT, Wortsman et al. 2022). balance: how unbalanced
    classes are made up for. augment: how much training rows are distorted. views: how often each row is
    kept at a cut, once as it is and else distorted. refit: learn once more from all rows, held ones too,
    for as many epochs as the held rows chose.
    """

    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    decay: float | None = None
    layer_decay: float | None = None
    warmup: float | None = None
    smoothing: float | None = None
    mixup: float | None = None
    pull: float | None = None
    gradual: bool | None = None
    still: bool | None = None
    clip: float | None = None
    patience: int | None = None
    pieces: int | None = None
    precision: Literal["auto", "f32", "bf16"] | None = None
    average: bool | None = None
    balance: Literal["auto", "none", "weights", "sampling", "logits"] | None = None
    augment: Literal["none", "light", "strong", "randaugment"] | None = None
    views: int | None = None
    refit: bool | None = None


SHARED = Options(
    batch=32,
    decay=0.02,
    warmup=0.1,
    smoothing=0.1,
    mixup=0.0,
    pull=0.0,
    gradual=False,
    clip=1.0,
    pieces=1,
    precision="auto",
    average=True,
    balance="auto",
    augment="none",
    views=1,
    refit=False,
)
"""What suits every strategy and kind, but for what OWN says."""
OWN: dict[tuple[str, Kind], dict[str, Any]] = {
    ("partial", "image"): {"epochs": 12, "rate": 3e-4, "layer_decay": 0.7, "augment": "light", "refit": True},
    ("partial", "text"): {"epochs": 5, "rate": 2e-4, "layer_decay": 0.8, "refit": True},
    ("partial", "audio"): {"epochs": 12, "rate": 3e-4, "layer_decay": 0.7, "augment": "light", "refit": True},
    ("full", "image"): {"epochs": 8, "rate": 3e-4, "layer_decay": 0.8, "augment": "light"},
    ("full", "text"): {"epochs": 3, "rate": 1e-4, "decay": 0.01, "layer_decay": 0.9, "smoothing": 0.0},
    ("full", "audio"): {"epochs": 8, "rate": 1e-4, "layer_decay": 0.8, "augment": "light"},
    ("lora", "image"): {"epochs": 8, "rate": 1e-3, "layer_decay": 1.0, "augment": "light"},
    ("lora", "text"): {"epochs": 3, "rate": 1e-3, "decay": 0.01, "layer_decay": 1.0, "smoothing": 0.0},
    ("lora", "audio"): {"epochs": 8, "rate": 1e-3, "layer_decay": 1.0, "augment": "light"},
}
STEPS = 60
"""Few rows are seen again until about this many steps are made, at most MOST_EPOCHS times."""
MOST_EPOCHS = 20
FEW_ROWS, MANY_ROWS = 200, 10_000
VIEWED = ((5_000, 4), (20_000, 2))
"""(rows up to which, views that are kept): what is stored at a cut stays within a few gigabytes."""


def defaults(strategy: str, kind: Kind, rows: int) -> Options:
    """What suits this strategy and so many rows of this kind; rows: those that are learnt from.

    Batch normalisation keeps the source's statistics below MANY_ROWS rows.
    """
    found = replace(SHARED, **OWN.get((strategy, kind), OWN["full", kind]))
    assert found.epochs is not None
    batch = 16 if rows < FEW_ROWS else 32
    enough = min(-(-STEPS * batch // max(rows, 1)), MOST_EPOCHS)
    views = next((count for most, count in VIEWED if rows <= most), 1)
    return replace(
        found,
        epochs=max(found.epochs, enough),
        batch=batch,
        still=rows < MANY_ROWS,
        views=views if strategy == "partial" and found.augment != "none" else 1,
    )


def settled(given: Options, defaults: Options) -> Options:
    """`given`, with `defaults` for whatever it leaves open."""
    said = {field.name: getattr(given, field.name) for field in fields(Options)}
    return replace(defaults, **{name: value for name, value in said.items() if value is not None})
