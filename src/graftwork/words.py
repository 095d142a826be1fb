"""A result in plain words, as the command line prints it."""

from collections.abc import Mapping
from typing import Any

from graftwork.catalogue import forbids_commercial_use
from graftwork.console import table
from graftwork.records import Assessment, Ranking, Result, Score
from graftwork.report.words import begun, chance, duration, size
from graftwork.rows import PLURAL
from graftwork.verdict import in_words

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error", "auroc")


def outcome_in_words(result: Result) -> str:
    """Several lines: data, source, features, scores beside the baselines, the verdict."""
    data = result.dataset
    parts = ", ".join(f"{part} {rows:,}" for part, rows in data.splits.items())
    lines = [f"data    {data.name}: {data.rows:,} {PLURAL[data.kind]}, {len(data.labels)} classes ({parts})"]
    lines += [f"        note: {one}" for one in data.notes]
    if result.source is not None:
        lines.append(f"source  {result.source.name} (width {result.source.width:,}): {result.source.reason}")
        lines += [f"        note: {one}" for one in result.source.notes]
    made = result.extraction
    if made is not None:
        speed = f" at {made.rows_per_second:,.0f} a second" if made.computed else ""
        path = " ".join(part for part in (made.runtime, made.precision) if part)
        lines.append(f"        features: {made.computed:,} computed{speed}, {made.reused:,} reused ({path})")
    lines += model_in_words(result)
    lines += ["", scores_beside(result), ""]
    lines.append(in_words(result.verdict) if result.verdict else f"No verdict: {result.no_verdict}")
    if result.curve is not None and result.curve.sentence:
        lines.append(result.curve.sentence)
    seconds = result.seconds
    spent = ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items() if stage != "total" and s >= 0.05)
    allowed = "" if result.budget is None else f" of {result.budget:g} allowed"
    lines.append(f"\n{seconds['total']:.1f} seconds{allowed} ({spent})")
    return "\n".join(lines)


def model_in_words(result: Result) -> list[str]:
    """What the strategy set and chose, a line or two; what went wrong, a line each."""
    settings = result.settings
    said = _chosen(result)
    lines = [f"model   {result.strategy}{': ' if said else ''}{said[0] if said else ''}"]
    lines += [f"        {one}" for one in said[1:]]
    for name in ("trouble", "remark"):
        if settings.get(name):
            lines.append(f"        note: {settings[name]}")
    return lines


def _chosen(result: Result) -> list[str]:
    settings = result.settings
    said = []
    if settings.get("chosen"):
        tried = [one for one in result.trials if one.outcome == "chosen"]
        reason = f"; {tried[-1].reason}" if tried else ""
        spent = sum(one.seconds for one in result.trials)
        trials = _count(len(result.trials), "trial")
        said.append(f"chose {settings['chosen']} out of {trials} in {duration(spent)}{reason}")
        left = settings.get("not_tried")
        if isinstance(left, (list, tuple)) and left:
            said.append(f"not tried, for lack of time: {', '.join(map(str, left))}")
    options = settings.get("options")
    if isinstance(options, Mapping) and options:
        said.append(settings_in_words({**{k: settings[k] for k in _OWN if k in settings}, **options}))
    elif isinstance(settings.get("head"), str) and not said:
        said.append(f"{settings['head']} head")
    if settings.get("epochs") and settings.get("stopped_by"):
        said.append(_course(settings))
    return said


_OWN = ("block", "blocks", "rank", "alpha", "targets", "layers")
_STOPPED = {
    "epochs": "all that were asked for",
    "patience": "no better any more",
    "time": "the time was up",
    "trouble": "it could not go on",
}


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Names and values with commas between, in the order given."""
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _course(settings: Mapping[str, Any]) -> str:
    """How long a training went, and which of its epochs was kept."""
    made = settings["epochs"]
    why = _STOPPED.get(str(settings["stopped_by"]), str(settings["stopped_by"]))
    kept = settings.get("kept_epoch")
    if kept is None:
        return f"trained {_count(made, 'epoch')} ({why})"
    start = "the start was kept" if kept == 0 else f"the weights after epoch {kept} were kept"
    held = settings.get("held_rows")
    rows = f" by {held:,} held rows" if held else ""
    return f"trained {_count(made, 'epoch')} ({why}); {start}{rows}"


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


def sizes_in_words(sizes: Mapping[str, int]) -> str:
    """The whole, then each part that makes a tenth of it."""
    total = sizes["total"]
    parts = [f"{name} {size(of)}" for name, of in sizes.items() if name != "total" and 10 * of >= total]
    return f"{size(total)}: {', '.join(parts)}"


def scores_beside(result: Result) -> str:
    """A table: the declared metric first, the model's column first, then each baseline's."""
    columns = {result.strategy: result.assessment, **result.baselines}
    metrics = [result.metric, *(name for name in SHOWN if name != result.metric)]
    where = "test rows" if result.assessed_on == "test" else "held-out folds"
    rows = [
        [name.replace("_", " "), *(_score(one.scores[name]) for one in columns.values())]
        for name in metrics
        if name in result.assessment.scores
    ]
    return table((f"on {where}", *columns), rows)


def scores_in_words(assessment: Assessment) -> str:
    """All scores with intervals, then precision and recall a class."""
    scores = [[name.replace("_", " "), _score(one)] for name, one in assessment.scores.items()]
    classes = [
        [one.label, f"{one.rows:,}", _score(one.precision), _score(one.recall), f"{one.f1:.3f}"]
        for one in assessment.classes
    ]
    return (
        table(("score", "value (95% interval)"), scores)
        + "\n\n"
        + table(("label", "rows", "precision", "recall", "F1"), classes)
    )


def _score(score: Score) -> str:
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def ranking_in_words(ranking: Ranking) -> str:
    """A table of the sources, best first; the whole in one sentence; why each stands there, a line each."""
    metric = ranking.metric.replace("_", " ")
    head = (
        "",
        "source",
        f"expected {metric}",
        "best",
        "regret (points)",
        "time",
        "memory",
        "rows/s",
        "licence",
    )
    rows = [
        [
            "*" if one.name == ranking.choice else "",
            one.name,
            _score(one.expected),
            chance(one.probability_best),
            f"{100 * one.regret:.1f}",
            duration(one.seconds),
            size(one.memory),
            "-" if one.rows_per_second is None else f"{one.rows_per_second:,.0f}",
            _licence(one.licence),
        ]
        for one in ranking.candidates
    ]
    if ranking.baseline is not None:
        rows.append(["", "(not transferring)", _score(ranking.baseline), *[""] * 6])
    why = [[one.name, one.reason] for one in ranking.candidates]
    why += [[name, reason] for name, reason in ranking.refused.items()]
    said = begun(ranking.sentence, [one.name for one in ranking.candidates])
    spent = f"{ranking.rows:,} rows looked at in {duration(ranking.seconds)}"
    return "\n".join([table(head, rows), "", said, "", table(("why", ""), why), "", spent])


def _licence(licence: str | None) -> str:
    if licence is None:
        return "not stated"
    return f"{licence} (no commercial use)" if forbids_commercial_use(licence) else licence
