"""Records -> plain JSON, in the one shape that the command line, the manifest and (later) HTTP share."""

import math
from collections.abc import Mapping
from typing import Any

from graftwork.model import Answers
from graftwork.records import Assessment, Extraction, LearningCurve, Ranking, Result, Score, Trial, Verdict

CONFUSIONS = 10


def score(value: Score) -> dict[str, float | None]:
    """{value, low, high}; a number that could not be computed is null, as JSON has no NaN."""
    return {"value": _number(value.value), "low": _number(value.low), "high": _number(value.high)}


def assessment(value: Assessment) -> dict[str, Any]:
    return {name: score(one) for name, one in value.scores.items()}


def per_class(value: Assessment) -> list[dict[str, Any]]:
    return [
        {
            "label": one.label,
            "rows": one.rows,
            "precision": score(one.precision),
            "recall": score(one.recall),
            "f1": _number(one.f1),
        }
        for one in value.classes
    ]


def confusions(value: Assessment) -> list[dict[str, Any]]:
    """Which label was taken for which other, most rows first; no more than ten."""
    labels = [one.label for one in value.classes]
    found: list[dict[str, Any]] = [
        {"label": labels[i], "answer": labels[j], "rows": rows}
        for i, line in enumerate(value.confusion)
        for j, rows in enumerate(line)
        if i != j and rows
    ]
    return sorted(found, key=lambda one: -one["rows"])[:CONFUSIONS]


def verdict(value: Verdict | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "outcome": value.outcome,
        "difference": value.decisive.difference,
        "low": value.decisive.low,
        "high": value.decisive.high,
        "baseline": value.decisive.baseline,
        "metric": value.metric,
        "about": value.about,
        "level": value.level,
        "margin": value.margin,
        "rows": value.rows,
        "caution": value.caution,
        "comparisons": {
            one.baseline: {"difference": one.difference, "low": one.low, "high": one.high}
            for one in value.comparisons
        },
    }


def extraction(value: Extraction | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "rows": value.rows,
        "computed": value.computed,
        "reused": value.reused,
        "rows_per_second": round(value.rows_per_second, 1),
        "runtime": value.runtime,
        "precision": value.precision,
        "parity": dict(value.parity),
    }


def curve(value: LearningCurve | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "metric": value.metric,
        "labels_saved": value.labels_saved,
        "sentence": value.sentence,
        "curves": {
            name: [
                {"per_class": p.per_class, "rows": p.rows, "mean": _number(p.mean), "error": _number(p.error)}
                for p in points
            ]
            for name, points in value.curves.items()
        },
    }


def ranking(value: Ranking) -> dict[str, Any]:
    """The JSON of `graft rank`. expected_accuracy is of `metric`, whatever that is."""
    return {
        "choice": value.choice,
        "metric": value.metric,
        "sentence": value.sentence,
        "p": _number(value.p),
        "baseline": None if value.baseline is None else score(value.baseline),
        "ahead": None if value.ahead is None else score(value.ahead),
        "rows": value.rows,
        "budget": value.budget,
        "seconds": round(value.seconds, 3),
        "refused": dict(value.refused),
        "sources": [
            {
                "name": one.name,
                "expected_accuracy": score(one.expected),
                "probability_best": one.probability_best,
                "regret": one.regret,
                "seconds": round(one.seconds, 3),
                "scores": {
                    s.name: {"value": _number(s.value), "z": _number(s.z), "p": _number(s.p)}
                    for s in one.scores
                },
                "rows": one.rows,
                "rows_per_second": one.rows_per_second and round(one.rows_per_second, 1),
                "memory": one.memory,
                "width": one.width,
                "licence": one.licence,
                "sha256": one.sha256,
                "reason": one.reason,
            }
            for one in value.candidates
        ],
    }


def trial(value: Trial) -> dict[str, Any]:
    """One candidate that `auto` tried; what was not measured is null."""
    return {
        "strategy": value.strategy,
        "settings": plain(value.settings),
        "rung": value.rung,
        "rows": value.rows,
        "score": None if value.score is None else _number(value.score),
        "log_loss": None if value.log_loss is None else _number(value.log_loss),
        "seconds": round(value.seconds, 3),
        "outcome": value.outcome,
        "reason": value.reason,
    }


def result(value: Result) -> dict[str, Any]:
    """The JSON of `graft fit`, without the artefact's path; pictures and texts of rows stay out."""
    data = value.dataset
    return {
        "dataset": {
            "name": data.name,
            "kind": data.kind,
            "rows": data.rows,
            "classes": list(data.labels),
            "splits": data.splits,
            "split_origin": data.split_origin,
            "unlabelled": data.unlabelled,
            "unreadable": len(data.unreadable),
            "digest": data.digest,
            "notes": list(data.notes),
        },
        "source": None if value.source is None else value.source.name,
        "source_reason": None if value.source is None else value.source.reason,
        "source_notes": [] if value.source is None else list(value.source.notes),
        "ranking": None if value.ranking is None else ranking(value.ranking),
        "strategy": value.strategy,
        "settings": dict(value.settings),
        "trials": [trial(one) for one in value.trials],
        "training_curve": [list(point) for point in value.training_curve],
        "budget": value.budget,
        "seed": value.seed,
        "metric": value.metric,
        "features": extraction(value.extraction),
        "scores": {value.assessed_on: assessment(value.assessment)},
        "classes": per_class(value.assessment),
        "confusions": confusions(value.assessment),
        "baselines": {name: assessment(one) for name, one in value.baselines.items()},
        "verdict": verdict(value.verdict),
        "no_verdict": value.no_verdict,
        "learning_curve": curve(value.curve),
        "unknown_rate": value.unknown_rate,
        "seconds": {stage: round(seconds, 3) for stage, seconds in value.seconds.items()},
    }


def answer(name: str, answers: Answers, i: int) -> dict[str, Any]:
    """One line of `graft predict --json`; an unreadable input has `error` instead of a label."""
    if i in answers.unreadable:
        return {"input": name, "error": answers.unreadable[i]}
    row = answers.probabilities[i]
    best = int(row.argmax())
    return {
        "input": name,
        "label": answers.labels[best],
        "probability": float(row[best]),
        "unknown": bool(answers.unknown[i]),
        "probabilities": {label: float(p) for label, p in zip(answers.labels, row, strict=True)},
    }


def cell(text: str) -> str:
    """A text as a cell of a CSV file: what a spreadsheet would run as a formula begins with an apostrophe."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text  # a number, such as the label -1


def plain(value: Any) -> Any:
    """Settings as strategies record them -> plain JSON: numpy scalars and tuples become Python's own."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return _number(value)
    assert value is None or isinstance(value, (bool, int, str)), f"not plain JSON: {value!r}"
    return value


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
