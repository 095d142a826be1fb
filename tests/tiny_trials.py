"""Made-up searches and trainings: what `auto` would record, and what a tuned model would."""

from dataclasses import replace
from typing import Any

from graftwork.records import Result, Trial

TRIALS = (
    Trial("probe", {}, 0, 2190, 0.8612, 0.4123, 3.2, "stopped", "the model to beat"),
    Trial("mlp", {}, 0, 2190, 0.8555, 0.4377, 2.1, "stopped", "no clear lead over the chosen"),
    Trial("classical", {}, 0, 2190, 0.5811, 1.2345, 11.7, "stopped", "29.2 points behind the best"),
    Trial("layers", {}, 0, 2190, 0.8717, 0.3951, 9.4, "stopped", "no clear lead over the chosen"),
    Trial("partial", {"blocks": 2}, 0, 730, 0.8434, 0.4511, 8.8, "went on", "went on to a longer training"),
    Trial("partial", {"blocks": 4}, 0, 730, 0.8391, 0.4712, 12.9, "stopped", "behind blocks 2"),
    Trial("full", {"epochs": 2}, 0, 730, 0.8211, 0.5312, 31.0, "stopped", "would not end in time"),
    Trial("lora", {}, 0, 730, None, None, 0.4, "failed", "the network has no attention; try partial"),
    Trial("partial", {"blocks": 2}, 1, 2190, 0.8933, 0.3377, 36.5, "went on", "went on to a longer training"),
    Trial("partial", {"blocks": 2, "augment": "light"}, 1, 2190, 0.8977, 0.3301, 39.9, "chosen",
          "3.6 points ahead of the probe (95% +1.1 to +6.2)"),
)  # fmt: skip
OPTIONS: dict[str, Any] = {
    "epochs": 15, "batch": 32, "rate": 3e-4, "decay": 0.02, "layer_decay": 0.7, "warmup": 0.1,
    "smoothing": 0.1, "still": True, "clip": 1.0, "average": True, "balance": "auto", "augment": "light",
}  # fmt: skip
TUNED: dict[str, Any] = {
    "block": "layer.15", "options": OPTIONS, "held_rows": 341, "epochs": 10, "kept_epoch": 4,
    "stopped_by": "patience", "trouble": None, "tensors": 24, "bytes": 3_541_234,
    "seconds_an_epoch": [5.1, 5.2, 5.3], "share_of_tuned": 0.7, "refit_epochs": 4,
    "balance": {"method": "logits", "reason": "gains 2.1 points of accuracy on 341 rows"},
    "seed": 1729,
}  # fmt: skip
MEMORISED = (
    (1, 1.21, 0.61), (2, 0.90, 0.49), (3, 0.77, 0.44), (4, 0.69, 0.41), (5, 0.63, 0.43),
    (6, 0.58, 0.47), (7, 0.55, 0.52), (8, 0.53, 0.55), (9, 0.52, 0.57), (10, 0.52, 0.58),
)  # fmt: skip


def tuned(result: Result, **settings: Any) -> Result:
    """The same result of a model whose backbone learnt."""
    return replace(result, strategy="partial", settings={**TUNED, **settings}, training_curve=MEMORISED)


def searched(result: Result, trials: tuple[Trial, ...] = TRIALS) -> Result:
    """The same result, found by `auto` in three minutes."""
    found = tuned(result, chosen="partial")
    seconds = {"features": 6.2, "auto": 158.4, "evaluation": 4.1, "saving": 0.8, "total": 174.9}
    return replace(found, strategy="auto", trials=trials, budget=180.0, seconds=seconds)
