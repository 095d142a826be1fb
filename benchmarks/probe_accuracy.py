"""Test accuracy of the linear probe, and of the small network, by the public API alone.

clothing10 with mobilenet_v2_1.0_224 (all labels, and ten labels a class over five draws), trec6 and
sst2 with MiniLM. Everything is chosen on training and validation rows; test rows are only counted.
Where the trees of real data and models are: GRAFT_TEST_DATA, GRAFT_TEST_MODELS.
"""

import os
import tempfile
from typing import Any

import common

DRAWS = 5
TARGETS = {"clothing10": 0.855, "clothing10, ten labels a class": 0.70, "trec6": 0.90, "sst2": 0.805}


def measured(data: Any, source: str, strategy: str, seed: int = 0) -> dict[str, Any]:
    """Accuracy and calibration error on test rows, what was chosen, and the head's seconds."""
    import graftwork as gw

    outcome = gw.fit(data, source=source, strategy=strategy, metric="accuracy", baselines="none", seed=seed)
    score, settings = outcome.scores["accuracy"], outcome.result.settings
    return {
        "accuracy": score.value,
        "interval": [score.low, score.high],
        "test_rows": score.rows,
        "calibration_error": outcome.scores["calibration_error"].value,
        "log_loss": outcome.scores["log_loss"].value,
        "head": settings["head"],
        "log_loss_out_of_fold": settings["log_loss"],
        "head_seconds": outcome.result.seconds["head"],
        "seed": seed,
    }


def main() -> None:
    import graftwork as gw

    photos = str(common.MODELS / "mobilenet_v2_1.0_224")
    sources = {"clothing10": photos, "trec6": "minilm", "sst2": "minilm"}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        for name, source in sources.items():
            columns = {} if name == "clothing10" else {"text": "text", "label": "label"}
            data = gw.load(str(common.DATA / name), **columns)
            figures[name] = {one: measured(data, source, one) for one in ("probe", "mlp")}
            if name == "clothing10":
                few = [measured(data.few(10, draw), source, "probe", draw) for draw in range(DRAWS)]
                mean = sum(one["accuracy"] for one in few) / DRAWS
                figures["clothing10, ten labels a class"] = {"probe": {"accuracy": mean, "draws": few}}
    common.record("probe_accuracy", figures, TARGETS)


if __name__ == "__main__":
    main()
