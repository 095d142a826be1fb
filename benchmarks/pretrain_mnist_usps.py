"""Pretraining on mnist, moved to usps with ten labels a class, against not transferring.

The same ten draws of usps' training part for all: the source's features under `probe`, the same
network trained from scratch (its augmentation light and strong), and `classical`. All of usps' test.
Where the two data sets could share a row, the source says so: the number is in the figures.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import common

SECONDS = 60.0
"""A strategy may spend this; on a quiet machine the scratch networks end earlier, by their steps."""


def main() -> None:
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else None
    os.environ["GRAFT_HOME"] = tempfile.mkdtemp()
    from graftwork.backbones.compact import open_compact
    from graftwork.bench import Bench
    from graftwork.datasets import load
    from graftwork.pretraining import pretrain
    from graftwork.records import silent
    from graftwork.seen import seen_rows
    from graftwork.starting import ready
    from graftwork.strategies.classical import Classical
    from graftwork.strategies.probe import Probe
    from graftwork.strategies.scratch import Scratch

    digits = common.DATA / "digits_mnist_usps"
    source = pretrain(load(digits / "mnist"), Path(tempfile.mkdtemp()) / "mnist", seconds=seconds)
    usps, _ = ready(digits / "usps", seed=0)
    backbone = open_compact(source)
    strategies = {
        "probe on the pretrained": (Probe(), backbone),
        "scratch": (Scratch(like=source), None),
        "scratch, strong augmentation": (Scratch("strong", like=source), None),
        "classical": (Classical(), Classical().basis("image", None)),
    }
    found: dict[str, list[float]] = {name: [] for name in strategies}
    for draw in range(draws):
        bench = Bench(usps.few(10, draw), "accuracy", draw, silent)
        rows, codes = bench.dataset.rows.take(bench.test), bench.dataset.target.codes[bench.test]
        for name, (strategy, basis) in strategies.items():
            model = strategy.fit(bench.task(bench.learning, SECONDS), basis, silent)
            right = float((model.answer(rows).probabilities.argmax(1) == codes).mean())
            found[name].append(right)
            print(draw, name, f"{right:.4f}", file=sys.stderr, flush=True)
    figures = {
        "mean": {name: float(np.mean(values)) for name, values in found.items()},
        "deviation": {name: float(np.std(values, ddof=1)) for name, values in found.items() if draws > 1},
        "draws": found,
        "pretraining": source.json("config.json")["pretraining"],
        "usps rows seen in pretraining": seen_rows(source, usps.rows),
    }
    common.record("pretrain_mnist_usps", figures, {"probe on the pretrained": "above both others"})


if __name__ == "__main__":
    main()
