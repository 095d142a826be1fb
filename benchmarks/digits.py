"""The digits demo over ten draws of three labels a class: transfer, classical, scratch light and strong.

The learning curve is not drawn here, to save time. "same network" is that of glyphs with fresh weights.
"""

import os
import sys
import tempfile
import time

import numpy as np

import common


def main() -> None:
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    from graftwork import bench as benches
    from graftwork import demo
    from graftwork.bench import Bench
    from graftwork.records import silent
    from graftwork.sources import find
    from graftwork.starting import ready
    from graftwork.strategies.scratch import Scratch
    from graftwork.transfer import fit

    benches.CURVE_SECONDS = 0.1
    found: dict[str, list[float]] = {}
    outcomes, times = [], []
    for draw in range(draws):
        with tempfile.TemporaryDirectory() as home:
            os.environ["GRAFT_HOME"] = home
            _, dataset, source = demo.digits(draw)
            start = time.perf_counter()
            outcome = fit(dataset, source=source, seed=draw)
            times.append(time.perf_counter() - start)
            outcomes.append(str(outcome.verdict))
            found.setdefault("transfer", []).append(outcome.scores["accuracy"].value)
            for name, one in outcome.result.baselines.items():
                found.setdefault(name, []).append(one.scores["accuracy"].value)
            prepared, _ = ready(dataset, seed=draw)
            bench = Bench(prepared, "accuracy", draw, silent)
            strong = Scratch(augment="strong", like=find(source))
            model = strong.fit(bench.task(bench.learning, 20.0), None, silent)
            answers = model.answer(prepared.rows.take(bench.test)).probabilities.argmax(1)
            right = float((answers == prepared.target.codes[bench.test]).mean())
            found.setdefault("same network from scratch, strong augmentation", []).append(right)
    figures = {
        "mean": {name: float(np.mean(values)) for name, values in found.items()},
        "draws": found,
        "verdicts": outcomes,
        "seconds": times,
    }
    common.record("digits", figures, {"transfer": 0.90, "verdict": "helped"})


if __name__ == "__main__":
    main()
