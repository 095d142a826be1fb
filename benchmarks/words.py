"""Word vectors as features: test accuracy and verdict beside TF-IDF, what is unknown, and speed.

waimai_zh and news_titles_zh on vectors of Chinese characters, sst2 on a sample of English vectors that
lacks most words; a linear probe and a small network. Everything is chosen on training rows; test rows
are only counted. Where the trees of real data are: GRAFT_TEST_DATA.
"""

import os
import tempfile
from typing import Any

import common

CHINESE, ENGLISH = "zh_char_tencent_200d.txt", "en_sample_40d.txt"
SOURCES = {"waimai_zh": CHINESE, "news_titles_zh": CHINESE, "sst2": ENGLISH}
TARGETS = {
    "waimai_zh": {"probe": 0.865, "verdict": "hurt"},
    "news_titles_zh": {"probe": 0.755, "verdict": "hurt"},
}
REPEATS = 5


def measured(data: Any, source: str, strategy: str, baselines: str) -> dict[str, Any]:
    """Accuracy on test rows with its interval, the verdict against TF-IDF, and what is unknown."""
    import graftwork as gw

    outcome = gw.fit(data, source=source, strategy=strategy, metric="accuracy", baselines=baselines)
    score, result = outcome.scores["accuracy"], outcome.result
    found: dict[str, Any] = {
        "accuracy": score.value,
        "interval": [score.low, score.high],
        "test_rows": score.rows,
        "calibration_error": outcome.scores["calibration_error"].value,
        "head": result.settings["head"],
        "notes": list(result.source.notes) if result.source else [],
    }
    if outcome.verdict is not None:
        found["verdict"] = {"outcome": outcome.verdict.outcome, "said": str(outcome.verdict)}
        found["classical"] = result.baselines["classical"].scores["accuracy"].value
    return found


def poolings(data: Any, source: str) -> dict[str, Any]:
    """For each pooling: log-loss out of fold on training rows (which chose the default), rows a second."""
    from graftwork.backbones import open_backbone
    from graftwork.bench import Bench
    from graftwork.records import silent
    from graftwork.sources import find
    from graftwork.strategies.probe import fit_head

    bench = Bench(data, "accuracy", 0, silent)
    task, found = bench.task(bench.learning), {}
    for pooling in ("spread", "mean", "idf", "sif"):
        backbone = open_backbone(find(source), task.rows, pooling=pooling)
        matrix = backbone.features(task.rows).matrix
        seconds = common.timed(lambda one=backbone: one.features(task.rows), REPEATS)
        _, settings = fit_head(matrix, task)
        found[pooling] = {
            "width": backbone.width,
            "log_loss_out_of_fold": settings["log_loss"],
            "rows_per_second": len(task.rows) / common.median(seconds),
        }
    return found


def main() -> None:
    from graftwork.starting import ready

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        for name, vectors in SOURCES.items():
            source = str(common.DATA / "word_vectors" / vectors)
            data, _ = ready(str(common.DATA / name), seed=0, text="text", label="label")
            figures[name] = {
                "source": vectors,
                "probe": measured(data, source, "probe", "classical"),
                "mlp": measured(data, source, "mlp", "none"),
                "poolings": poolings(data, source),
            }
    common.record("words", figures, TARGETS)


if __name__ == "__main__":
    main()
