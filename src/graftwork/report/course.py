"""How a training went, in words: what its two curves say, what was set, what of it was kept and stored."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from graftwork.records import Result
from graftwork.report.words import count, duration, percent, plain, size, visible

Epoch = tuple[int, float, float | None]

LARGE_GAP = 0.15
"""A gap between the losses is large from this share of the loss of guessing, ln(classes), on..."""
LARGE_SHARE = 1 / 3
"""... if it is also at least this share of the validation loss: else both are high, not apart."""
RISE = 0.05
"""The validation loss rises where its last value lies this share above its lowest."""
STILL_FALLING = 0.03
"""It still falls where its last epoch is its best, by this share of the one before."""


@dataclass(frozen=True)
class Course:
    """What the curves of a training say. sentence: all of it in words, with the numbers it rests on.

    kind: "memorises" (a large gap), "past its best" (no large gap, but validation rises), "unfinished"
    (still falling at the end), "fine", or "alone" where no rows were held to compare with.
    """

    kind: Literal["memorises", "past its best", "unfinished", "fine", "alone"]
    sentence: str
    remedies: tuple[str, ...] = ()


def course(result: Result) -> Course | None:
    """What the training curve says; None where there is none."""
    finite = [one for one in result.training_curve if math.isfinite(one[1])]
    if not finite:
        return None
    held = [(number, loss) for number, _, loss in finite if loss is not None and math.isfinite(loss)]
    if not held:
        return Course(
            "alone", "No rows were held to compare with, so nothing here tells learning from memory."
        )
    classes = max(len(result.dataset.labels), 2)
    floor = smoothing_floor(_smoothing(result.settings), classes)
    last, (lowest_at, lowest) = held[-1][1], min(held, key=lambda one: one[1])
    fitted = next(loss for number, loss, _ in reversed(finite) if number == held[-1][0])
    gap = last - max(fitted - floor, 0.0)
    rising = last > (1 + RISE) * lowest and lowest_at < held[-1][0]
    large = gap >= LARGE_GAP * math.log(classes) and gap >= LARGE_SHARE * last
    losses = f"Training loss {fitted:.2f}{_less(floor)}, validation {last:.2f}"
    since = f" and rising since epoch {lowest_at} ({lowest:.2f})" if rising else ""
    if large:
        said = f"{losses}{since}: the network memorises its training rows.{_kept(result, lowest_at, rising)}"
        return Course("memorises", said, _remedies(result))
    if rising:
        said = f"{losses}{since}: it went past its best.{_kept(result, lowest_at, rising)}"
        return Course("past its best", said, ("fewer epochs",))
    before = held[-2][1] if len(held) > 1 else last
    if lowest_at == held[-1][0] and last < (1 - STILL_FALLING) * before and not _patient(result):
        return Course(
            "unfinished",
            f"{losses}: it was still falling when the training ended.",
            ("more epochs, or time",),
        )
    return Course("fine", f"{losses}: no sign that the network learns its training rows by heart.")


def smoothing_floor(smoothing: float, classes: int) -> float:
    """What the loss never falls below where labels are smoothed: the entropy of the labels themselves."""
    shares = [1 - smoothing + smoothing / classes, *[smoothing / classes] * (classes - 1)]
    return -sum(share * math.log(share) for share in shares if share > 0)


def facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, how it was) of a training, in reading order; what was not recorded is left out."""
    found = [
        ("Kept", _epoch_kept(settings)),
        ("It ended", _STOPPED.get(str(settings.get("stopped_by")))),
        ("An epoch took", _per_epoch(settings.get("seconds_an_epoch"))),
        ("Held rows", _whole(settings.get("held_rows"))),
        ("Unequal classes", _balance(settings.get("balance"))),
        ("Mix of weights", _mix(settings)),
        ("Learnt once more from all rows", _again(settings.get("refit_epochs"))),
        ("Changed and stored", _stored(settings)),
        ("Peak memory of the device", _memory(settings.get("memory"))),
    ]
    return [(name, said) for name, said in found if said]


def options(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name as --set takes it, value) of everything that was set."""
    given = settings.get("options")
    if not isinstance(given, Mapping):
        return []
    own = {name: settings[name] for name in _OWN if settings.get(name) is not None}
    return [(str(name), plain(value)) for name, value in {**own, **given}.items()]


SHOWN = frozenset(
    {
        "options", "seconds_an_epoch", "balance", "share_of_tuned", "bytes", "tensors", "memory", "trouble",
        "kept_epoch", "stopped_by", "epochs", "held_rows", "refit_epochs",
    }
)  # fmt: skip
"""Settings that the part on the training shows; the record at the end leaves them out."""

MEANINGS: Mapping[str, str] = {
    "blocks": "how many of the last blocks learn, or the first that does",
    "block": "the first block that learns",
    "layers": "layers whose features the head sees",
    "rank": "of the matrices that stand beside the source's",
    "epochs": "passes over the rows, at most",
    "steps": "batches that the encoder is pulled by",
    "batch": "rows a step",
    "rate": "learning rate of the last layers and the head",
    "decay": "weight decay",
    "layer_decay": "each earlier block learns at so many times the rate of the next",
    "warmup": "share of the steps in which the rate rises",
    "smoothing": "of the labels",
    "mixup": "how strongly rows are mixed in pairs",
    "pull": "towards the source's weights (L2-SP)",
    "gradual": "later layers learn first",
    "still": "batch normalisation keeps the source's statistics",
    "clip": "largest norm of a step's gradient",
    "patience": "epochs without a better score after which to stop",
    "pieces": "parts that a step's rows go through in",
    "precision": "numbers the network computes in",
    "average": "mix the source's and the tuned weights (WiSE)",
    "balance": "how unequal classes are made up for",
    "augment": "how much training rows are distorted",
    "views": "ways in which each row is seen where its features are stored at a cut",
    "refit": "learn once more, from held rows too, for as many epochs as they chose",
    "embeddings": "the table of token vectors learns too",
    "head": "fitted on what the encoder gives then",
    "calibrate": "halves of few rows say how sure answers to unseen rows may be",
}
_OWN = ("blocks", "block", "layers", "rank", "alpha")
_STOPPED = {
    "epochs": "after all epochs",
    "patience": "as the score got no better",
    "time": "as the time was up",
    "trouble": "early, with trouble",
}
_BALANCES = {
    "none": "left as they are",
    "weights": "rows of rare classes weigh more",
    "sampling": "rare classes are drawn as often as others",
    "logits": "logits shifted by the classes' shares while learning",
}


def _less(floor: float) -> str:
    return f" ({floor:.2f} of it from label smoothing)" if floor >= 0.005 else ""


def _kept(result: Result, lowest_at: int, rising: bool) -> str:
    kept = result.settings.get("kept_epoch")
    if not isinstance(kept, int) or not rising:
        return ""
    if kept == 0:
        return " None of it was kept: the start did better."
    return f" The weights after epoch {kept} were kept."


def _remedies(result: Result) -> tuple[str, ...]:
    """What helps against learning by heart, as far as it is not done already."""
    settings, strategy = result.settings, str(result.settings.get("chosen", result.strategy))
    given = settings.get("options")
    chosen = given if isinstance(given, Mapping) else {}
    amount = chosen.get("augment", settings.get("augment"))
    blocks = settings.get("blocks")
    found = [
        ("fewer epochs", True),
        ("more augmentation", amount in (None, "none", "light")),
        ("fewer blocks that learn", strategy == "partial" and blocks != 1),
        ("partial, which learns fewer weights", strategy == "full"),
        ("a lower rank", strategy == "lora"),
        ("a source to start from", strategy == "scratch"),
        ("more labels", True),
    ]
    return tuple(remedy for remedy, suits in found if suits)


def _smoothing(settings: Mapping[str, Any]) -> float:
    for place in ("options", "plan"):
        found = settings.get(place)
        if isinstance(found, Mapping) and isinstance(found.get("smoothing"), int | float):
            return min(max(float(found["smoothing"]), 0.0), 1.0)
    return 0.0


def _patient(result: Result) -> bool:
    return result.settings.get("stopped_by") == "patience"


def _epoch_kept(settings: Mapping[str, Any]) -> str | None:
    kept, made = settings.get("kept_epoch"), settings.get("epochs")
    if not isinstance(kept, int):
        return None
    if kept == 0:
        return "the start, before any epoch"
    # an epoch 0, asked for its score alone, is counted among them
    return f"epoch {kept}" + (f" of {max(made, kept)}" if isinstance(made, int) else "")


def _per_epoch(seconds: object) -> str | None:
    given = seconds if isinstance(seconds, list | tuple) else ()
    known = [float(one) for one in given if isinstance(one, int | float) and one > 0]
    return duration(median(known)) if known else None


def _whole(rows: object) -> str | None:
    return f"{rows:,}" if isinstance(rows, int) and rows else None


def _balance(found: object) -> str | None:
    method = found.get("method") if isinstance(found, Mapping) else found
    if not isinstance(method, str):
        return None
    said = _BALANCES.get(method, visible(method))
    reason = found.get("reason") if isinstance(found, Mapping) else None
    return f"{said}: {visible(str(reason))}" if reason else said


def _mix(settings: Mapping[str, Any]) -> str | None:
    share = settings.get("share_of_tuned")
    if not isinstance(share, int | float) or isinstance(share, bool) or settings.get("kept_epoch") == 0:
        return None
    if share >= 1:
        return "the tuned weights alone"
    return f"{percent(share, 0)} tuned, {percent(1 - share, 0)} the source's"


def _again(epochs: object) -> str | None:
    return f"for {count(epochs, 'epoch')}" if isinstance(epochs, int) and epochs else None


def _stored(settings: Mapping[str, Any]) -> str | None:
    amount, tensors = settings.get("bytes"), settings.get("tensors")
    if not isinstance(amount, int):
        return None
    if not amount:
        return "nothing: the network is the source's own"
    return size(amount) + (f" in {count(tensors, 'tensor')}" if isinstance(tensors, int) else "")


def _memory(amount: object) -> str | None:
    return size(amount) if isinstance(amount, int) and amount else None
