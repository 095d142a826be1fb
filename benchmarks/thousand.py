"""A thousand truly different tasks on one source: each fitted on another draw of classes and rows.

    python benchmarks/thousand.py FOLDER [--count 1000] [--rows 40 600] [--source S] [--data D]

Features are computed once; every task is a probe (ridge) with a bank of unknown inputs of its own, saved as
`fit` saves one. A task has 2 to 10 of the classes, some of them put together under a name of the task's own,
and 40 to 600 rows. What is in FOLDER already is kept, so a second call costs nothing.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

import common
from graftwork import artefact
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.datasets import load
from graftwork.model import Model
from graftwork.rows import Dataset, IntArray
from graftwork.sources import find
from graftwork.store import Stored
from graftwork.strategies.base import Task
from graftwork.strategies.probe import fit_head
from graftwork.unknown import Familiarity

SOURCE, DATA = common.MODELS / "mobilenet_v2_1.0_224", common.DATA / "clothing10"
ROWS = (40, 600)


def make(
    folder: Path,
    count: int = 1000,
    *,
    rows: tuple[int, int] = ROWS,
    source: Path = SOURCE,
    data: Path = DATA,
) -> list[Path]:
    """`count` artefacts in `folder`, as task-0000.graft and so on; those that are missing are made."""
    wanted = [folder / f"task-{i:04}.graft" for i in range(count)]
    missing = [i for i, one in enumerate(wanted) if not one.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        dataset = load(data)
        backbone = Stored(open_backbone(find(str(source)), dataset.rows), folder / ".features")
        features = labelled_matrix(backbone, dataset.rows)
        for i in missing:
            _save(wanted[i], np.random.default_rng(i), dataset, features, backbone, rows)
        shutil.rmtree(folder / ".features")
    return wanted


def _save(
    place: Path,
    rng: np.random.Generator,
    dataset: Dataset,
    features: np.ndarray,
    backbone: Backbone,
    rows: tuple[int, int],
) -> None:
    labels, codes = _drawn(rng, dataset, rows)
    kept = np.flatnonzero(codes >= 0)
    task = Task(
        dataset.rows.take(kept), codes[kept], labels, np.arange(len(kept)), np.zeros(len(kept), bool),
        np.ones(len(kept)), "accuracy", 0,
    )  # fmt: skip
    head, settings = fit_head(features[kept], task, "ridge")
    known = Familiarity.fit(features[kept], task.codes, task.groups)
    artefact.save(
        Model(backbone, head, known, settings),
        place,
        strategy="probe",
        result={"rows": len(kept)},
        versions={},
        created="2026-01-01T00:00:00+00:00",
        report=f"<!doctype html><title>{place.stem}</title><p>{len(kept)} rows, {', '.join(labels)}",
        probe=dataset.rows.take(kept[:4]),
    )


def _drawn(
    rng: np.random.Generator, dataset: Dataset, rows: tuple[int, int]
) -> tuple[tuple[str, ...], IntArray]:
    """Labels of a task's own, and each row's code; -1 for rows that are no part of it."""
    known = len(dataset.target.labels)
    chosen = rng.permutation(known)[: rng.integers(2, known + 1)]
    groups = max(2, len(chosen) - int(rng.integers(0, 3)))
    group = np.full(known, -1)
    group[chosen] = rng.permutation(np.arange(len(chosen)) % groups)
    labels = tuple(
        " or ".join(name for name, own in zip(dataset.target.labels, group, strict=True) if own == code)
        for code in range(groups)
    )
    codes = group[dataset.target.codes]
    size = int(np.exp(rng.uniform(*np.log(rows))))
    codes[rng.permutation(np.flatnonzero(codes >= 0))[size:]] = -1
    return labels, codes.astype(np.int64)


def main() -> None:
    said = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    said.add_argument("folder", type=Path)
    said.add_argument("--count", type=int, default=1000)
    said.add_argument("--rows", type=int, nargs=2, default=ROWS)
    said.add_argument("--source", type=Path, default=SOURCE)
    said.add_argument("--data", type=Path, default=DATA)
    given = said.parse_args()
    start = time.perf_counter()
    made = make(given.folder, given.count, rows=tuple(given.rows), source=given.source, data=given.data)
    size = sum(path.stat().st_size for one in made for path in one.rglob("*"))
    print(f"{len(made)} artefacts, {size / 1e6:.0f} MB, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
