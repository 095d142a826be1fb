"""Rows a second from files to features: this engine against transformers and sentence-transformers.

Each repeat runs every side once, so that whatever else the machine does falls on all of them; figures
are medians. A rival runs as its documentation shows it and at its own best batch size and memory
format, found first. Usage: python benchmarks/extraction.py [images|texts|all] [ROWS] [REPEATS]
"""

import csv
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import common

SOURCE = "mobilenet_v2_1.0_224"
Side = Callable[[], int]


def rate(side: Side) -> float:
    """Rows a second of one call, which returns how many rows it did."""
    start = time.perf_counter()
    rows = side()
    return rows / (time.perf_counter() - start)


def best(sides: dict[str, Side]) -> str:
    """The name of the fastest, each tried twice."""
    return max(sides, key=lambda name: max(rate(sides[name]) for _ in range(2)))


def compared(sides: dict[str, Side], repeats: int) -> dict[str, float]:
    """Median rows a second of each side over interleaved repeats."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            found[name].append(rate(side))
    return {name: common.median(rates) for name, rates in found.items()}


def photos(limit: int) -> list[Path]:
    files = sorted((common.DATA / "clothing10").rglob("*.jpg"))
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:limit]]


def images(rows: int, repeats: int) -> dict[str, Any]:
    from graftwork.backbones import engine, open_backbone
    from graftwork.rows import Files, Rows
    from graftwork.sources import find
    from graftwork.store import Stored

    files = photos(rows)
    data = Rows([str(file) for file in files], {"image": Files("image", files)})
    start = time.perf_counter()
    backbone: Any = open_backbone(find(str(common.MODELS / SOURCE)), data)
    backbone.features(data.take(np.arange(8)))
    prepared = time.perf_counter() - start
    runner = engine.runner(backbone.recipe, backbone.config["runtime"], backbone.config["precision"])
    decoded = list(itertools.chain.from_iterable(_rows(batch) for batch in backbone.batches(data, {})))

    def cold() -> int:
        with tempfile.TemporaryDirectory() as folder:
            found = Stored(backbone, Path(folder)).features(data)
        assert found.extraction.computed == rows
        return rows

    def in_memory() -> int:
        engine.collect(
            runner, iter(decoded), np.empty((rows, backbone.width), np.float32), lambda _: None, ""
        )
        return rows

    few = files[: min(rows, 128)]
    tried = {
        f"batch {batch}{' channels-last' if last else ''}": _transformers(few, batch, last)
        for batch in (1, 4, 16, 32)
        for last in (False, True)
    }
    chosen = best(tried)
    sides = {
        "ours, files to stored features": cold,
        "ours, decoded photos in memory": in_memory,
        "transformers, batch 32": tried["batch 32"],
        f"transformers at its best ({chosen})": tried[chosen],
    }
    rates = compared(sides, repeats)
    ours, memory, default, strongest = rates.values()
    return {
        "rows_per_second": rates,
        "against_default": ours / default,
        "against_best": ours / strongest,
        "share_of_engine": ours / memory,
        "first_preparation_seconds": prepared,
        "precision": backbone.config["precision"],
        "parity": backbone.config["parity"],
    }


def _rows(batch: Any) -> list[Any]:
    positions, arrays = batch
    return [(positions[i : i + 1], tuple(a[i : i + 1] for a in arrays)) for i in range(len(positions))]


def _transformers(files: Sequence[Path], batch: int, channels_last: bool) -> Side:
    """AutoImageProcessor and AutoModel with Pillow, as the library's own examples do."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    from graftwork.backbones.quiet import quiet

    with quiet():
        folder = common.MODELS / SOURCE
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        model = AutoModel.from_pretrained(folder).eval()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)

    def side() -> int:
        with torch.inference_mode():
            for start in range(0, len(files), batch):
                pictures = [Image.open(file).convert("RGB") for file in files[start : start + batch]]
                pixels = processor(pictures, return_tensors="pt")["pixel_values"]
                _ = model(pixels.to(memory_format=layout)).pooler_output.numpy()
        return len(files)

    return side


def texts(rows: int, repeats: int) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    from graftwork.backbones import open_backbone
    from graftwork.rows import Rows, Texts
    from graftwork.sources import find
    from graftwork.store import Stored

    with (common.DATA / "sst2" / "train.csv").open(encoding="utf-8") as file:
        values = [row["text"] for row in csv.DictReader(file)][:rows]
    data = Rows(values, {"text": Texts(values)})
    source = find("minilm")
    backbone: Any = open_backbone(source, data)
    backbone.features(data.take(np.arange(8)))
    rival = SentenceTransformer(str(source.folder), device="cpu", local_files_only=True)

    def cold() -> int:
        with tempfile.TemporaryDirectory() as folder:
            found = Stored(backbone, Path(folder)).features(data)
        assert found.extraction.computed == len(set(values))
        return len(values)

    def encode(batch: int) -> Side:
        def side() -> int:
            rival.encode(values, batch_size=batch, show_progress_bar=False)
            return len(values)

        return side

    tried = {f"batch {batch}": encode(batch) for batch in (8, 32, 128)}
    chosen = best(tried)
    sides = {
        "ours, texts to stored features": cold,
        "sentence-transformers, batch 32": tried["batch 32"],
        f"sentence-transformers at its best ({chosen})": tried[chosen],
    }
    rates = compared(sides, repeats)
    ours, default, strongest = rates.values()
    return {
        "rows_per_second": rates,
        "against_default": ours / default,
        "against_best": ours / strongest,
        "precision": backbone.config["precision"],
        "parity": backbone.config["parity"],
    }


def main() -> None:
    which = sys.argv[1] if len(sys.argv) > 1 else "all"
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    figures: dict[str, Any] = {"rows": rows, "repeats": repeats}
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        if which in ("images", "all"):
            figures["images"] = images(rows, repeats)
        if which in ("texts", "all"):
            figures["texts"] = texts(rows, repeats)
    targets = {
        "images": {"against_default": 12, "against_best": 3.5, "share_of_engine": 0.65},
        "texts": {"against_default": 2.5, "against_best": 2.5},
    }
    common.record("extraction", figures, targets)


if __name__ == "__main__":
    main()
