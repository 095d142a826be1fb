"""Calibration on clothing10, and "unknown": known rows wrongly refused, birds told from clothes."""

import numpy as np
from sklearn.metrics import roc_auc_score

import common


def main() -> None:
    from graftwork.datasets import load
    from graftwork.transfer import fit

    source = str(common.MODELS / "mobilenet_v2_1.0_224")
    outcome = fit(str(common.DATA / "clothing10"), source=source, baselines="none")
    model, known = outcome.model, load(str(common.DATA / "clothing10"))
    familiarity = model.familiarity
    assert familiarity is not None
    clothes = model.backbone.features(known.rows.take(known.split.index("test"))).matrix
    birds = model.backbone.features(load(str(common.DATA / "birds6")).rows).matrix
    far = np.concatenate([familiarity.distance(clothes), familiarity.distance(birds)])
    truth = np.repeat([0, 1], [len(clothes), len(birds)])
    figures = {
        "accuracy": outcome.scores["accuracy"].value,
        "calibration_error": outcome.scores["calibration_error"].value,
        "known_refused": float(familiarity.unknown(clothes).mean()),
        "birds_refused": float(familiarity.unknown(birds).mean()),
        "auroc": float(roc_auc_score(truth, far)),
    }
    targets = {"calibration_error": 0.05, "known_refused": "0.05 +- 0.02", "auroc": 0.9}
    common.record("unknown", figures, targets)


if __name__ == "__main__":
    main()
