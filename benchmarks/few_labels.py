"""Few labels: trec6 with eight a class, contrastive tuning against SetFit on the same draws, in one run.

Ours is the whole fit: source opened, encoder pulled, head fitted. SetFit runs at its own defaults (one
epoch of pairs, batches of 16) in an environment of its own, whose Python GRAFT_SETFIT_PYTHON names; its
imports are not counted. The two take turns, draw by draw, after the probe, whose seconds in the first draw
include the choice of a runtime, made once a machine. Settings of ours were chosen on training rows
that these draws leave alone as well as the test rows; test rows are only counted.
Where the trees of real data and models are: GRAFT_TEST_DATA, GRAFT_TEST_MODELS.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import common

DRAWS, LABELS_A_CLASS = 5, 8
RIVAL = Path(__file__).parent / "few_labels_setfit.py"
TARGETS = {
    "accuracy": "mean of ours at least 0.82, and at least SetFit's",
    "seconds": "ours at most a quarter of SetFit's",
}


def ours(bench: Any, strategy: str) -> dict[str, Any]:
    """Test accuracy and seconds of one draw, from the source's files to the head."""
    from graftwork import registry, starting
    from graftwork.evaluation import measure
    from graftwork.records import silent
    from graftwork.sources import find

    started = time.perf_counter()
    source = find("minilm", offline=True)
    basis, _ = starting.opened(bench.dataset, source, "", pooling=None, resize=None, notify=silent)
    model = registry.get("strategies", strategy)().fit(bench.task(bench.learning), basis, silent)
    seconds = time.perf_counter() - started
    given = model.answer(bench.dataset.rows.take(bench.test)).probabilities
    codes = bench.codes[bench.test]
    return {
        "accuracy": measure("accuracy", codes, given),
        "log_loss": float(-np.log(given[np.arange(len(codes)), codes]).mean()),
        "seconds": seconds,
    }


def setfit(bench: Any, seed: int) -> dict[str, Any]:
    """Test accuracy and seconds of the same draw by SetFit."""
    from graftwork.sources import find

    def texts(index: Any) -> list[str]:
        return [bench.dataset.rows.column.read(int(i)).decode() for i in index]

    asked = {
        "source": str(find("minilm", offline=True).folder), "seed": seed,
        "texts": texts(bench.learning), "labels": bench.codes[bench.learning].tolist(),
        "questions": texts(bench.test),
    }  # fmt: skip
    done = subprocess.run(
        [os.environ["GRAFT_SETFIT_PYTHON"], str(RIVAL)],
        input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    right = np.array(said.pop("answers")) == bench.codes[bench.test]
    return {"accuracy": float(right.mean()), **said}


def main() -> None:
    if "GRAFT_SETFIT_PYTHON" not in os.environ:
        sys.exit("set GRAFT_SETFIT_PYTHON to the Python of an environment that has setfit")
    import graftwork as gw
    from graftwork import starting
    from graftwork.bench import Bench
    from graftwork.records import silent

    data = gw.load(str(common.DATA / "trec6"), text="text", label="label")
    draws: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        for seed in range(DRAWS):
            ready, _ = starting.ready(data.few(LABELS_A_CLASS, seed), seed=seed)
            bench = Bench(ready, "accuracy", seed, silent)
            draws.append(
                {
                    "seed": seed,
                    "rows": len(bench.learning),
                    "probe": ours(bench, "probe"),
                    "contrastive": ours(bench, "contrastive"),
                    "setfit": setfit(bench, seed),
                }
            )
            print(json.dumps(draws[-1]), file=sys.stderr)
    common.record("few_labels", {**summary(draws), "draws": draws}, TARGETS)


def summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side in ("probe", "contrastive", "setfit"):
        found[side] = {
            "accuracy": float(np.mean([draw[side]["accuracy"] for draw in draws])),
            "seconds": common.median([draw[side]["seconds"] for draw in draws]),
        }
    shares = [draw["contrastive"]["seconds"] / draw["setfit"]["seconds"] for draw in draws]
    return {**found, "share_of_setfit_seconds": common.median(shares)}


if __name__ == "__main__":
    main()
