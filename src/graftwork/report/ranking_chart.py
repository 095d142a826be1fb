"""The picture of a ranking: what each source is expected to reach, against not transferring."""

import math

from markupsafe import Markup

from graftwork.records import Ranking
from graftwork.report.charts import axis_strip, interval, shares
from graftwork.report.svg import Axis, padded, strip, tag

BEYOND = 200
"""Pixels by which what spans all rows reaches over a strip; the page cuts it at the row's edge."""
_HEIGHT = 28


def headline(ranking: Ranking) -> tuple[str, str]:
    """(what was found in a few words, the sign beside it: see charts.icon)."""
    ahead = ranking.ahead
    if ranking.choice is None:
        return "Nothing stands out", "undecided"
    if ahead is not None and ahead.value <= 0:
        return "No source beats not transferring", "hurt"
    if ahead is not None and ahead.low <= 0:
        return f"{ranking.choice} comes first", "undecided"
    return f"Start from {ranking.choice}", "chosen"


def expectations(ranking: Ranking) -> tuple[list[Markup], Markup]:
    """One strip a source, best first, and their axis; the dashed line through all is not transferring."""
    scores = [one.expected for one in ranking.candidates]
    every = [*scores, ranking.baseline] if ranking.baseline else scores
    low, high = padded([v for s in every for v in (s.low, s.high, s.value)], 0.08, 0.01)
    axis = Axis(low, high, 0.0, 100.0)
    behind = _reference(axis, ranking)
    strips = [strip(*behind, interval(axis, s.value, s.low, s.high), height=_HEIGHT) for s in scores]
    return strips, axis_strip(axis, dict(shares(axis)).__getitem__)


def likelihood(probability: float) -> Markup:
    """A short bar for a probability of being the best; its number stands beside it."""
    track = tag("rect", x=0, y=0, width="100%", height=6, rx=3, class_="track")
    share = probability if math.isfinite(probability) else 0.0
    bar = tag("rect", x=0, y=0, width=f"{100 * min(max(share, 0.0), 1.0):.1f}%", height=6, rx=3, class_="bar")
    return strip(track, bar, height=6, class_="strip likelihood")


def _reference(axis: Axis, ranking: Ranking) -> list[Markup]:
    """Not transferring, drawn behind a strip and over the gaps to its neighbours."""
    one = ranking.baseline
    if one is None or not math.isfinite(one.value):
        return []
    top, bottom = -BEYOND, _HEIGHT + BEYOND
    x = f"{axis.at(one.value):g}%"
    line = tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="without")
    if not (math.isfinite(one.low) and math.isfinite(one.high)):
        return [line]
    left, right = axis.at(one.low), axis.at(one.high)
    width = f"{right - left:g}%"
    return [tag("rect", x=f"{left:g}%", width=width, y=top, height=bottom - top, class_="margin"), line]
