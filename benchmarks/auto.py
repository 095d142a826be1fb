"""`auto` under a budget, against every single strategy run to its end, on the same rows.

Cases (name them as arguments; none for all; --alone for auto without the single strategies):
three minutes each on clothing10, trec6, spoken_digits and birds6: the chosen model's score on the rows
that the search held out against the best single strategy's on the very same rows, and how the budget was
kept; sst2 with five minutes: the test accuracy; waimai_zh and news_titles_zh: the test accuracy of what
was chosen, against TF-IDF's. The budget is that of the search: the rows' features are there before.

Each case adds its part to the result as soon as it is done, so cases can be run one by one. Where the
search chose by folds, single strategies are compared on the first of them.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import common

CASES: dict[str, tuple[str, float]] = {
    "clothing10": ("mobilenet_v2_1.0_224", 180.0),
    "trec6": ("minilm", 180.0),
    "spoken_digits": ("speech_embedding", 180.0),
    "birds6": ("mobilenet_v2_1.0_224", 180.0),
    "sst2": ("minilm", 300.0),
    "waimai_zh": ("minilm", 90.0),
    "news_titles_zh": ("minilm", 90.0),
}
RIVALS = {
    "image": ("probe", "mlp", "layers", "classical", "scratch", "partial", "full"),
    "text": ("probe", "mlp", "layers", "classical", "scratch", "partial", "full", "lora"),
    "audio": ("probe", "mlp", "layers", "classical", "scratch", "partial", "full"),
}
LONGEST_S = 900.0
"""A single strategy is given so long at most: its end, for all practical purposes."""
TARGETS = {
    "validation_short_of_best_single": 0.005,
    "budget_off_by": 0.1,
    "test": {"sst2": 0.878, "waimai_zh": 0.90, "news_titles_zh": 0.867},
    "test_short_of_probe_on_average": 0.002,
}


def case(name: str, alone: bool) -> dict[str, Any]:
    """One case: auto, the probe, and each single strategy on the rows that the search chose on."""
    from graftwork import registry, starting
    from graftwork.bench import Bench
    from graftwork.evaluation import measure
    from graftwork.records import silent
    from graftwork.search.candidates import Candidate
    from graftwork.search.finishing import finished
    from graftwork.search.judging import Answer, Truth, scored
    from graftwork.search.searching import Search
    from graftwork.search.trying import Watch, attempt
    from graftwork.search.validation import trial_task
    from graftwork.sources import find
    from graftwork.store import remember
    from graftwork.training.checkpoints import Checkpoints

    source, budget = CASES[name]
    path = common.MODELS / source
    dataset, _ = starting.ready(str(common.DATA / name), seed=0)
    bench = Bench(dataset, "accuracy", 0, silent)
    found = find(str(path) if path.exists() else source, offline=True)
    backbone, _ = starting.opened(dataset, found, "", pooling=None, resize=None, notify=silent)
    basis = remember(backbone)
    basis.features(dataset.rows)
    task = bench.task(bench.learning)

    def tested(recipe: Any, model: Any) -> float:
        answers = bench.answers(recipe, basis, model).probabilities[0]
        return measure("accuracy", bench.codes[bench.test], answers)

    recipe = registry.get("strategies", "auto")()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # what Auto.fit does, with the answers at hand
        kept = replace(task, seconds=budget, checkpoints=Checkpoints(Path(folder)))
        search = Search(kept, basis, silent)
        search.start()
        search.go()
        model = finished(search)
    spent = time.perf_counter() - start
    trials = model.settings["trials"]
    chosen = next(one for one in trials if one["outcome"] == "chosen")
    figures: dict[str, Any] = {
        "source": source, "budget": budget, "seconds": spent, "chosen": model.settings["chosen"],
        "chosen_settings": model.settings["chosen_settings"], "validation": chosen["score"],
        "chosen_by": model.settings["chosen_by"], "test": tested(recipe, model), "trials": trials,
        "probe_test": None, "single": {},
    }  # fmt: skip
    probe = registry.get("strategies", "probe")()
    figures["probe_test"] = tested(probe, probe.fit(task, basis, silent))
    if alone:
        return figures
    fold = search.validation.folds[0]
    truth = Truth(task.codes[fold[1]], task.groups[fold[1]], "accuracy", len(task.labels))
    mine = search.board.answer(search.board.best()).probabilities[search.board.places[0]]
    figures["validation_first_fold"] = scored(truth, Answer(0, mine))[0]
    for rival in RIVALS[task.kind]:
        candidate = Candidate(rival)
        part = trial_task(task, fold, rival, None if candidate.cheap else LONGEST_S)
        start = time.perf_counter()
        try:
            made, answers = attempt(
                candidate, task, part, fold[1], basis, Watch(time.monotonic, silent, rival, None)
            )
        except Exception as error:  # a strategy may refuse the source: that is its figure
            figures["single"][rival] = {"refused": str(error)}
            continue
        score, loss = scored(truth, Answer(0, answers))
        figures["single"][rival] = {
            "validation": score, "log_loss": loss, "test": tested(registry.get("strategies", rival)(), made),
            "seconds": time.perf_counter() - start,
        }  # fmt: skip
    return figures


def summary(cases: dict[str, Any]) -> dict[str, Any]:
    """What the targets are about, of all cases that there are."""
    said: dict[str, Any] = {}
    for name, one in cases.items():
        scores = [rival["validation"] for rival in one["single"].values() if "validation" in rival]
        said[name] = {
            "short_of_best_single": max(scores) - one["validation_first_fold"] if scores else None,
            "budget_share": one["seconds"] / one["budget"], "chosen": one["chosen"], "test": one["test"],
            "probe_test": one["probe_test"],
        }  # fmt: skip
    lost = [one["probe_test"] - one["test"] for one in cases.values()]
    return {"cases": said, "test_short_of_probe_on_average": sum(lost) / len(lost)}


def main() -> None:
    asked = [one for one in sys.argv[1:] if not one.startswith("-")] or list(CASES)
    path = common.ROOT / "benchmarks" / "results" / "auto.json"
    for name in asked:
        known = json.loads(path.read_text())["figures"]["by_case"] if path.exists() else {}
        known[name] = case(name, "--alone" in sys.argv)
        common.record("auto", {"seed": 0, "summary": summary(known), "by_case": known}, TARGETS)


if __name__ == "__main__":
    main()
