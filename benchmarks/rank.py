"""How good and how dear the choice of a source by `rank` is: seven image sources over three sets of photos.

Truth: mean test accuracy of the linear probe over ten fresh splits of all rows (a third held out, groups
whole), with all rows or ten labels a class. The ranking sees the rows that may be learnt from, never a
test row. Where the trees of real data and models are: GRAFT_TEST_DATA, GRAFT_TEST_MODELS.
`python benchmarks/rank.py choice` or `cost` measures one half alone and keeps the other's figures.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import common

SETS = ("clothing10", "birds6", "ants_bees")
RESPLITS = DRAWS = 10
PER_CLASS = 10
SHUFFLES = 20
REPEATS = 3
TARGETS = {
    "regret_points": {"mean": 0.7, "worst": 2.0},
    "weighted_kendall_tau_mean": 0.8,
    "twenty_percent": "same first choice, or regret under 1 point",
    "shuffled_labels": "nothing stands out in all but about 5%",
    "cost_over_extraction": 1.2,
    "warm_seconds": 10.0,
}
SETTLED = ("converted", "digests", "parity", "classifiers", "processors")
"""Facts of this machine and of unchanged files, settled at a source's first opening."""


def names() -> list[str]:
    return sorted(path.name for path in common.MODELS.iterdir() if path.name.startswith("mobilenet"))


class Photos:
    """One set, prepared, with the features of every row by every source."""

    def __init__(self, name: str) -> None:
        from graftwork import sources
        from graftwork.backbones import open_backbone
        from graftwork.starting import ready
        from graftwork.store import remember

        self.name = name
        self.data, _ = ready(str(common.DATA / name), seed=0)
        rows = self.data.rows
        self.features = {
            one: remember(open_backbone(sources.find(one), rows)).features(rows).matrix for one in names()
        }

    def truth(self, per_class: int | None) -> dict[str, float]:
        """Mean test accuracy (points) of the linear probe over RESPLITS splits, by source."""
        return {
            one: 100 * float(np.mean([self.accuracy(one, *split) for split in self.splits(per_class)]))
            for one in names()
        }

    def splits(self, per_class: int | None) -> Iterator[tuple[Any, Any]]:
        from graftwork.datasets.split import draw_test

        codes, groups = self.data.target.codes, self.data.groups
        for seed in range(RESPLITS):
            test = np.flatnonzero(draw_test(codes, groups, 1 / 3, seed))
            learn = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(codes)), test))
            if per_class is not None:
                classes = range(len(self.data.labels))
                learn = np.concatenate([learn[codes[learn] == code][:per_class] for code in classes])
            yield np.sort(learn), test

    def accuracy(self, source: str, learn: Any, test: Any) -> float:
        from graftwork.bench import Bench
        from graftwork.records import silent
        from graftwork.strategies.probe import fit_head

        matrix, codes = self.features[source], self.data.target.codes
        task = replace(Bench(self.data, "accuracy", 0, silent).task(learn), metric="accuracy")
        head, _ = fit_head(matrix[learn], task, "auto")
        return float(np.mean(head.logits(matrix[test]).argmax(1) == codes[test]))


def ranked(data: Any, seed: int) -> Any:
    """The ranking of the seven sources on the rows of `data` that may be learnt from."""
    import graftwork as gw

    return gw.rank(data, sources=names(), metric="accuracy", baseline=False, seed=seed)


def judged(ranking: Any, truth: dict[str, float]) -> dict[str, Any]:
    from scipy.stats import weightedtau

    first = ranking.candidates[0]
    expected = [one.expected.value + 1e-9 * one.probability_best for one in ranking.candidates]
    true = [truth[one.name] for one in ranking.candidates]
    return {
        "first": first.name,
        "regret_points": max(true) - true[0],
        "tau": float(weightedtau(expected, true).statistic),
        "p": ranking.p,
        "probability_best": first.probability_best,
        "expected_regret_points": 100 * first.regret,
        "within_interval": float(
            np.mean(
                [one.expected.low <= truth[one.name] / 100 <= one.expected.high for one in ranking.candidates]
            )
        ),
        "expected": {one.name: one.expected.value for one in ranking.candidates},
    }


def share_of(data: Any, share: float, seed: int) -> Any:
    """A stratified share of the rows that may be learnt from."""
    rng = np.random.default_rng(seed)
    learn = data.split.index("train", "validation")
    codes = data.target.codes[learn]
    kept = [rng.permutation(learn[codes == code]) for code in range(len(data.labels))]
    return data.take(np.sort(np.concatenate([rows[: max(2, round(share * len(rows)))] for rows in kept])))


def shuffled(data: Any, seed: int) -> Any:
    codes = np.random.default_rng(seed).permutation(data.target.codes)
    return replace(data, target=replace(data.target, codes=codes))


def choice() -> dict[str, Any]:
    figures: dict[str, Any] = {"sets": {}}
    regrets, taus, fifths, alone = [], [], [], []
    for name in SETS:
        photos = Photos(name)
        truth = {"all": photos.truth(None), "few": photos.truth(PER_CLASS)}
        learnt = photos.data.take(photos.data.split.index("train", "validation"))
        every = judged(ranked(photos.data, 0), truth["all"])
        few = [judged(ranked(learnt.few(PER_CLASS, draw), draw), truth["few"]) for draw in range(DRAWS)]
        fifth = [judged(ranked(share_of(photos.data, 0.2, draw), draw), truth["all"]) for draw in range(5)]
        small = learnt.few(PER_CLASS, 0)
        none = [ranked(shuffled(small, draw), draw) for draw in range(SHUFFLES)]
        mean = float(np.mean([one["regret_points"] for one in few]))
        regrets += [every["regret_points"], mean]
        taus += [every["tau"], float(np.mean([one["tau"] for one in few]))]
        fifths += [one["regret_points"] for one in fifth]
        alone += [one.p for one in none]
        figures["sets"][name] = {
            "truth": truth,
            "all_rows": every,
            "ten_labels": {
                "regret_points": mean,
                "worst_draw": max(one["regret_points"] for one in few),
                "tau": taus[-1],
                "draws": few,
            },
            "twenty_percent": fifth,
            "shuffled_p": [one.p for one in none],
        }
        print(name, regrets[-2:], taus[-2:], file=sys.stderr)
    figures["regret_points"] = {"mean": float(np.mean(regrets)), "worst": max(regrets)}
    figures["weighted_kendall_tau_mean"] = float(np.mean(taus))
    figures["twenty_percent_regret_points"] = {"mean": float(np.mean(fifths)), "worst": max(fifths)}
    figures["shuffled"] = {
        "rankings": len(alone),
        "stood_out": int(np.sum(np.array(alone) <= 0.05)),
        "mean_p": float(np.mean(alone)),
    }
    return figures


RANK = """
import sys, json, time
began = time.perf_counter()
import graftwork as gw
found = gw.rank(sys.argv[1], sources=sys.argv[3:], baseline=sys.argv[2] == "baseline")
said = {"seconds": time.perf_counter() - began, "processor": time.process_time(), "sentence": found.sentence}
print(json.dumps({**said, "sources": {one.name: [one.rows, one.seconds] for one in found.candidates}}))
"""
EXTRACT = """
import sys, json, time
began = time.perf_counter()
from graftwork import sources
from graftwork.backbones import open_backbone
from graftwork.store import remember
import graftwork as gw
data = gw.load(sys.argv[1])
data = data.take(data.split.index("train", "validation"))
asked = json.loads(sys.argv[2])
for name, rows in asked.items():
    some = data.rows.take(list(range(rows)))
    remember(open_backbone(sources.find(name), some)).features(some)
print(json.dumps({"seconds": time.perf_counter() - began, "processor": time.process_time()}))
"""


def cost() -> dict[str, Any]:
    """Medians of fresh processes: ranking clothing10 without a feature stored, the extraction alone, warm.

    Processor seconds of the whole process stand beside the wall clock's, which a busy machine stretches.
    """
    data = str(common.DATA / "clothing10")
    cold, extraction, warm, beside = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        told(first, RANK, data, "none", *names())  # settles conversion, parity and own classifiers
        for repeat in range(REPEATS):
            home = fresh(first, Path(folder) / f"rank-{repeat}")
            cold.append(told(home, RANK, data, "none", *names()))
            warm.append(told(home, RANK, data, "none", *names()))
            rows = json.dumps({name: rows for name, (rows, _) in cold[-1]["sources"].items()})
            extraction.append(told(fresh(first, Path(folder) / f"extract-{repeat}"), EXTRACT, data, rows))
        beside.append(told(home, RANK, data, "baseline", *names()))
    runs = {
        "rank_cold": cold,
        "extraction": extraction,
        "rank_warm": warm,
        "rank_warm_first_baseline": beside,
    }

    def over(unit: str) -> float:
        return common.median([a[unit] / b[unit] for a, b in zip(cold, extraction, strict=True)])

    return {
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "load": os.getloadavg()[0],
        "seconds": {name: [one["seconds"] for one in found] for name, found in runs.items()},
        "processor_seconds": {name: [one["processor"] for one in found] for name, found in runs.items()},
        "cost_over_extraction": over("seconds"),
        "cost_over_extraction_processor": over("processor"),
        "warm_seconds": common.median([one["seconds"] for one in warm]),
        "warm_processor_seconds": common.median([one["processor"] for one in warm]),
        "sources": cold[-1]["sources"],
        "sentence": beside[-1]["sentence"],
    }


def fresh(settled: Path, home: Path) -> Path:
    """A home without features, in which every source was opened before."""
    for name in SETTLED:
        if (settled / name).is_dir():
            shutil.copytree(settled / name, home / name)
    return home


def told(home: Path, code: str, *words: str) -> Any:
    """What a fresh process said as JSON."""
    environment = {**os.environ, "GRAFT_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    os.environ["GRAFT_SOURCES"] = str(common.MODELS)
    asked = sys.argv[1:] or ["choice", "cost"]
    found: dict[str, Any] = {}
    if "choice" in asked:
        with tempfile.TemporaryDirectory() as home:
            os.environ.setdefault("GRAFT_HOME", home)
            found["choice"] = {"seed": 0, **choice()}
    if "cost" in asked:
        found["cost"] = cost()
    kept = common.ROOT / "benchmarks" / "results" / "rank.json"
    before = json.loads(kept.read_text())["figures"] if kept.is_file() else {}
    common.record("rank", {**before, **found}, TARGETS)


if __name__ == "__main__":
    main()
