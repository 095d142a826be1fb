"""Is a source what it was, and does it run: every file compared, the network loaded, rows put through it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graftwork.artefact import synthetic_rows
from graftwork.backbones import open_backbone
from graftwork.errors import ArtefactError
from graftwork.records import Notify, silent
from graftwork.rows import Contents, Kind, Rows
from graftwork.sources import Source

ROWS = 4


@dataclass(frozen=True)
class Check:
    """What came of a source that works. seconds: of comparing, loading and the made-up rows."""

    name: str
    kind: Kind
    files: int
    width: int
    runtime: str
    precision: str
    parity: Mapping[str, float]
    rows: int
    seconds: float


def check(source: Source, notify: Notify = silent) -> Check:
    """Compare every file with its digest, load the network, and extract a few made-up rows.

    Raises ArtefactError for files that are not as they were and for features that are no numbers, and
    whatever opening the source raises.
    """
    started = time.perf_counter()
    source.verify()
    backbone = open_backbone(source, None, notify=notify)
    own = getattr(backbone, "synthetic", None)  # a family knows best what suits it
    rows: Rows = own() if own is not None else _made_up(source.kind)
    rows = rows.take(np.arange(min(ROWS, len(rows))))
    found = backbone.features(rows, notify)
    read = np.delete(found.matrix, list(found.unreadable), axis=0)
    if not len(read) or not np.isfinite(read).all():
        said = next(iter(found.unreadable.values()), "gives features that are no numbers")
        raise ArtefactError(
            f"source {source.name!r}: a made-up row {said}; fetch the source again, or use another"
        )
    made = found.extraction
    return Check(
        name=source.name,
        kind=source.kind,
        files=len(source.files),
        width=backbone.width,
        runtime=made.runtime,
        precision=made.precision,
        parity=dict(made.parity),
        rows=len(rows),
        seconds=time.perf_counter() - started,
    )


def _made_up(kind: Kind) -> Rows:
    if kind != "audio":
        return synthetic_rows(kind, ROWS)
    from graftwork import sounds

    rng = np.random.default_rng(0)
    # two seconds: some networks take no less than one
    noise = rng.uniform(-0.5, 0.5, (ROWS, 2 * sounds.RATE))
    contents = [sounds.encode(one, sounds.RATE) for one in noise]
    return Rows([f"made-up {i}" for i in range(ROWS)], {"audio": Contents("audio", contents)})
