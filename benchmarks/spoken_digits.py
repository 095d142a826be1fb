"""Spoken digits with the speech embedding and a linear probe, against not transferring.

The set's own test split, and three pairs of speakers held out of all 1,500 recordings (learnt from the
other four, grouped by speaker). How windows are placed and pooled was chosen on training speakers only;
see backbones/speech_embedding.py. Where the trees of data and models are: GRAFT_TEST_DATA,
GRAFT_TEST_MODELS.
"""

import csv
import os
import statistics
import sys
import tempfile
from typing import Any

import numpy as np

import common

PAIRS = (("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler"))
TARGETS = {"test split": 0.965, "mean of the pairs of speakers": 0.92}


def datasets() -> dict[str, Any]:
    """The set by its own split, then with each pair of speakers as the test part."""
    from graftwork.rows import Dataset, Files, Rows, Split, Target

    folder = common.DATA / "spoken_digits"
    with (folder / "metadata.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    names = [row["file"] for row in listed]
    rows = Rows(names, {"audio": Files("audio", [folder / name for name in names])})
    labels = tuple(sorted({row["label"] for row in listed}))
    target = Target(np.array([labels.index(row["label"]) for row in listed]), labels)
    speakers = np.array([row["speaker"] for row in listed])
    groups = np.unique(speakers, return_inverse=True)[1].astype(np.int64)
    given = Split(np.array([row["split"] for row in listed]), "given")
    found = {"test split": Dataset("spoken_digits", rows, target, given)}
    for pair in PAIRS:
        split = Split(np.where(np.isin(speakers, pair), "test", "train"), "given")
        found[" and ".join(pair)] = Dataset("spoken_digits", rows, target, split, groups)
    return found


def measured(data: Any, baselines: str) -> dict[str, Any]:
    import graftwork as gw

    source = str(common.MODELS / "speech_embedding")
    outcome = gw.fit(data, source=source, strategy="probe", metric="accuracy", baselines=baselines)
    result, verdict = outcome.result, outcome.verdict
    assert verdict is not None
    score = outcome.scores["accuracy"]
    return {
        "accuracy": score.value,
        "interval": [score.low, score.high],
        "test_rows": score.rows,
        "without_transfer": {name: one.scores["accuracy"].value for name, one in result.baselines.items()},
        "verdict": {
            "outcome": verdict.outcome,
            "difference": verdict.difference,
            "interval": [verdict.decisive.low, verdict.decisive.high],
            "baseline": verdict.decisive.baseline,
        },
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        figures = {}
        for name, data in datasets().items():
            # a network from scratch costs the most; held against it once
            figures[name] = measured(data, "all" if name == "test split" else "classical")
            print(name, figures[name]["accuracy"], file=sys.stderr, flush=True)
    pairs = [figures[" and ".join(pair)] for pair in PAIRS]
    figures["mean of the pairs of speakers"] = {
        "accuracy": statistics.mean(one["accuracy"] for one in pairs),
        "classical": statistics.mean(one["without_transfer"]["classical"] for one in pairs),
    }
    common.record("spoken_digits", figures, TARGETS)


if __name__ == "__main__":
    main()
