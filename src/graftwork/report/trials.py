"""What `auto` tried: the picture of its trials, and what they say and cost in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from graftwork.records import Result, Trial
from graftwork.report.charts import COLOURS, shares
from graftwork.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    grid,
    padded,
    path,
    picture,
    scatter,
    tag,
)
from graftwork.report.words import count, duration, figure, metric_name, percent, plain, points, visible

OPEN_TRIALS = 20
"""So many trials are shown at once in the table; the others fold away."""
OUTCOMES = {"chosen": "chosen", "went on": "went on", "stopped": "left behind", "failed": "failed"}


@dataclass(frozen=True)
class Spent:
    """Seconds that one strategy's trials took, or everything that was no trial (name None)."""

    name: str | None
    seconds: float
    trials: int


def strategies(trials: Sequence[Trial]) -> list[str]:
    """In the order of their first trials; their places are their colours and shapes."""
    return list(dict.fromkeys(one.strategy for one in trials))


def probe_level(trials: Sequence[Trial]) -> float | None:
    """The probe's score, of its furthest trial."""
    found = [one for one in trials if one.strategy == "probe" and _scored(one)]
    return max(found, key=lambda one: one.rung).score if found else None


def sentence(result: Result) -> str:
    """What was tried and what came of it."""
    trials = result.trials
    allowed = f" of {duration(result.budget)} allowed" if result.budget is not None else ""
    spent = duration(sum(one.seconds for one in trials))
    tried = count(len(strategies(trials)), "strategy", "strategies")
    said = f"{count(len(trials), 'trial')} of {tried} in {spent}{allowed}."
    chosen = next((one for one in trials if one.outcome == "chosen"), None)
    if chosen is None or chosen.score is None:
        return said
    level, metric = probe_level(trials), metric_name(result.metric)
    said += f" Chosen: {visible(chosen.strategy)}, {figure(result.metric, chosen.score)} {metric}"
    if chosen.strategy == "probe" or level is None:
        return f"{said}{'; nothing did clearly better' if chosen.strategy == 'probe' else ''}."
    ahead = chosen.score - level
    if abs(ahead) < 0.0005:
        return f"{said}, level with the probe."
    return f"{said}, {points(abs(ahead))[1:]} points {'above' if ahead > 0 else 'below'} the probe."


def spending(result: Result) -> list[Spent]:
    """How the time was spent: strategy by strategy, then whatever was no trial."""
    found = [
        Spent(name, sum(one.seconds for one in mine), len(mine))
        for name in strategies(result.trials)
        for mine in [[one for one in result.trials if one.strategy == name]]
    ]
    total = result.seconds.get("total")
    rest = total - sum(one.seconds for one in found) if total is not None else 0.0
    return [*found, Spent(None, rest, 0)] if rest > 0 else found


def settings(trial: Trial) -> str:
    """What was set, in words."""
    return ", ".join(
        f"{visible(name).replace('_', ' ')} {plain(value)}" for name, value in trial.settings.items()
    )


def chart(result: Result) -> Markup:
    """Score against the time gone by, one mark a trial; a candidate's looks are joined by a line.

    Scores far below the others stand at the bottom edge, with their number.
    """
    trials = result.trials
    ends = list(accumulate(one.seconds for one in trials))
    unit, word = (60.0, "minutes") if ends[-1] >= 180 else (1.0, "seconds")
    level = probe_level(trials)
    scores = {i: one.score for i, one in enumerate(trials) if one.score is not None and _scored(one)}
    low, high = _range(list(scores.values()), level)
    x = Axis(0.0, ends[-1] / unit, LEFT, WIDTH - RIGHT)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    x_ticks = [(t, f"{t:g}") for t in x.ticks(6)]
    marks = [grid(x, y, x_ticks, shares(y), f"{word} of trials", metric_name(result.metric))]
    if level is not None:
        at = y.at(level)
        marks.append(tag("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="without"))
    places = {i: (x.at(ends[i] / unit), y.at(max(score, low))) for i, score in scores.items()}
    marks += _joined(trials, places)
    for number, name in enumerate(strategies(trials)):
        mine = [places[i] for i, one in enumerate(trials) if one.strategy == name and i in places]
        marks.append(scatter(mine, number, f"point c{number % COLOURS}"))
    marks += [_below(places[i], figure(result.metric, score)) for i, score in scores.items() if score < low]
    marks += [_cross(x.at(end / unit), y.start - 7) for i, end in enumerate(ends) if i not in places]
    marks += [
        _emphasis(*places[i]) for i, one in enumerate(trials) if one.outcome == "chosen" and i in places
    ]
    return picture("trials", "Trials", _described(result, list(scores.values()), level), *marks)


def _range(scores: Sequence[float], level: float | None) -> tuple[float, float]:
    """The scores that the axis shows: all, but for those so far below that the others would run together."""
    known = [*scores, *([level] if level is not None else [])]
    if not known:
        return 0.0, 1.0
    best = max(known)
    reach = max(0.1, 4 * (best - (best if level is None else level)))
    low, high = padded([max(one, best - reach) for one in known], 0.1, 0.01)
    return max(low, 0.0), min(high, 1.02)


def _below(place: tuple[float, float], shown: str) -> Markup:
    """The number of a score that lies under the axis."""
    x, y = place
    side = "end" if x > WIDTH / 2 else "start"
    return tag("text", f"↓ {shown}", x=x - 7 if side == "end" else x + 7, y=y - 5, text_anchor=side)


def cross_key() -> Markup:
    """The key of a trial that failed."""
    return tag("svg", _cross(8.0, 8.0), width=16, height=16, aria_hidden="true")


def chosen_key() -> Markup:
    """The key of the chosen trial."""
    return tag(
        "svg", tag("circle", cx=8, cy=8, r=6.5, class_="picked"), width=16, height=16, aria_hidden="true"
    )


def _joined(trials: Sequence[Trial], places: dict[int, tuple[float, float]]) -> list[Markup]:
    """Lines from a candidate's look with few rows to its looks with more."""
    names = strategies(trials)
    candidates: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(trials):
        if i in places:
            candidates.setdefault((one.strategy, settings(one)), []).append(i)
    return [
        path([places[i] for i in mine], f"rungs c{names.index(strategy) % COLOURS}")
        for (strategy, _), mine in candidates.items()
        if len(mine) > 1
    ]


def _emphasis(x: float, y: float) -> Markup:
    """A ring around the chosen trial, and its name on the side that has room."""
    side = "end" if x > WIDTH / 2 else "start"
    label = tag(
        "text", "chosen", x=x - 11 if side == "end" else x + 11, y=y - 8, text_anchor=side, class_="key small"
    )
    return tag("circle", cx=x, cy=y, r=7.5, class_="picked") + label


def _cross(x: float, y: float) -> Markup:
    return tag("path", d=f"M{x - 3.5:g} {y - 3.5:g}l7 7m0-7l-7 7", class_="failed")


def _described(result: Result, scores: Sequence[float], level: float | None) -> str:
    metric = metric_name(result.metric)
    said = f"{count(len(result.trials), 'trial')} in the order they were made"
    if scores:
        said += f", {metric} from {percent(min(scores))} to {percent(max(scores))}"
    return said + (f"; the probe's level is {percent(level)}" if level is not None else "")


def _scored(trial: Trial) -> bool:
    return trial.score is not None and math.isfinite(trial.score)
