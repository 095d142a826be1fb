"""The report's charts, each from its record to markup.

Colour never stands alone: a shape, a dash or a number says the same.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import median

from markupsafe import Markup

from graftwork.records import CalibrationBin, FeatureMap, LearningCurve, Score, Verdict
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
    round1,
    scatter,
    strip,
    tag,
    whisker,
)
from graftwork.report.words import metric_name, percent

COLOURS = 8
MAP_CLASSES = 20
KEYED_CLASSES = 60
MAP_POINTS = 1500
MAP_SIZE = 340.0

Point = tuple[float, float]
Epoch = tuple[int, float, float | None]


def differences(verdict: Verdict) -> tuple[list[Markup], Markup]:
    """One strip a comparison, on one axis around zero with the margin shaded; and that axis."""
    values = [v for c in verdict.comparisons for v in (c.low, c.high, c.difference)]
    low, high = padded([*values, 0.0, -verdict.margin, verdict.margin], 0.14)
    axis = Axis(low, high, 0.0, 100.0)
    left, right = axis.at(-verdict.margin), axis.at(verdict.margin)
    band = tag("rect", x=f"{left:g}%", width=f"{right - left:g}%", y=0, height="100%", class_="margin")
    zero = tag("line", x1=f"{axis.at(0):g}%", x2=f"{axis.at(0):g}%", y1=0, y2="100%", class_="zero")
    strips = [strip(band, zero, interval(axis, c.difference, c.low, c.high)) for c in verdict.comparisons]
    return strips, axis_strip(axis, lambda value: f"{100 * value:+g}".replace("-", "−") if value else "0")


def models(scores: Sequence[Score]) -> tuple[list[Markup], Markup]:
    """One strip a model, value and interval on one axis of shares; and that axis."""
    low, high = padded([v for s in scores for v in (s.low, s.high, s.value)], 0.14, 0.01)
    axis = Axis(low, high, 0.0, 100.0)
    lines = [
        tag("line", x1=f"{axis.at(t):g}%", x2=f"{axis.at(t):g}%", y1=0, y2="100%", class_="grid")
        for t in axis.ticks(5)
    ]
    strips = [strip(*lines, interval(axis, s.value, s.low, s.high)) for s in scores]
    return strips, axis_strip(axis, dict(shares(axis)).__getitem__)


def share_bar(score: Score) -> Markup:
    """A bar from 0 to 100% with the score's interval on it; empty where nothing was measured."""
    track = tag("rect", x=0, y=5, width="100%", height=8, rx=2, class_="track")
    if not math.isfinite(score.value):
        return strip(track, height=18)
    bar = tag("rect", x=0, y=5, width=f"{100 * score.value:.1f}%", height=8, rx=2, class_="bar")
    if not (math.isfinite(score.low) and math.isfinite(score.high)):
        return strip(track, bar, height=18)
    return strip(track, bar, whisker(_hundredth(score.low), _hundredth(score.high), 9.0), height=18)


def amount_bar(value: float, largest: float) -> Markup:
    """A bar in proportion to the largest of its kind."""
    share = value / largest if largest > 0 and math.isfinite(value) else 0.0
    return strip(
        tag("rect", x=0, y=4, width=f"{max(100 * share, 0.4):.1f}%", height=10, rx=2, class_="bar"), height=18
    )


def measured(bins: Sequence[CalibrationBin]) -> list[CalibrationBin]:
    """The bins that hold rows."""
    return [b for b in bins if b.rows and math.isfinite(b.confidence) and math.isfinite(b.accuracy)]


def calibration(bins: Sequence[CalibrationBin]) -> Markup:
    """Stated confidence against the share that was right; the diagonal is what it should be."""
    low = math.floor(10 * min(min(b.confidence, b.accuracy) for b in bins)) / 10
    low = max(0.0, min(low, 0.9))
    x = Axis(low, 1.0, LEFT, WIDTH - RIGHT)
    y = Axis(low, 1.0, HEIGHT - BOTTOM, TOP)
    ticks = shares(x)
    at = [(x.at(b.confidence), y.at(b.accuracy)) for b in bins]
    gaps = [
        tag("line", x1=px, x2=px, y1=y.at(b.confidence), y2=py, class_="gap")
        for b, (px, py) in zip(bins, at, strict=True)
    ]
    return picture(
        "calibration",
        "Calibration diagram",
        "Stated confidence across, share of right answers upwards, one point for each of "
        f"{len(bins)} bins: "
        + "; ".join(f"stated {percent(b.confidence)}, right {percent(b.accuracy)}" for b in bins),
        grid(x, y, ticks, ticks, "stated confidence", "answered rightly"),
        path([(x.at(low), y.at(low)), (x.at(1.0), y.at(1.0))], "ideal"),
        *gaps,
        path(at, "line c0"),
        *(tag("circle", cx=px, cy=py, r=4.0, class_="point c0") for px, py in at),
    )


def learning(curve: LearningCurve) -> Markup:
    """Score by labels a class, one line a strategy, with one standard error either side."""
    every = [p for line in curve.curves.values() for p in line]
    sizes = sorted({p.per_class for p in every})
    low, high = padded([v for p in every for v in (p.mean - p.error, p.mean + p.error)], 0.08, 0.01)
    x = Axis(sizes[0], sizes[-1], LEFT + 14, WIDTH - RIGHT - 6, log=True)
    y = Axis(max(low, 0.0), min(high, 1.02), HEIGHT - BOTTOM, TOP)
    marks = [
        grid(
            x,
            y,
            _apart(x, [(float(s), str(s)) for s in sizes], 24),
            shares(y),
            "labels a class",
            metric_name(curve.metric),
        )
    ]
    for i, line in enumerate(curve.curves.values()):
        marks += _line([(x.at(p.per_class), y.at(p.mean)) for p in line], i)
        marks += [
            tag(
                "line",
                x1=x.at(p.per_class),
                x2=x.at(p.per_class),
                y1=y.at(p.mean - p.error),
                y2=y.at(p.mean + p.error),
                class_=f"spread c{i % COLOURS}",
            )
            for p in line
        ]
    ends = [f"{name}: {percent(line[-1].mean)}" for name, line in curve.curves.items() if line]
    description = f"From {sizes[0]} to {sizes[-1]} labels a class; at the end " + ", ".join(ends)
    return picture("learning", "Learning curve", description, *marks)


def training(epochs: Sequence[Epoch]) -> Markup:
    """Loss by epoch: training, and validation where it was measured."""
    held = [(float(n), loss) for n, _, loss in epochs if loss is not None and math.isfinite(loss)]
    fitted = [(float(n), loss) for n, loss, _ in epochs if math.isfinite(loss)]
    low, high = padded([loss for _, loss in fitted + held])
    x = Axis(epochs[0][0], epochs[-1][0], LEFT, WIDTH - RIGHT)
    y = Axis(max(low, 0.0), high, HEIGHT - BOTTOM, TOP)
    x_ticks = [(t, f"{t:g}") for t in x.ticks(6) if t == int(t)]
    marks = [grid(x, y, x_ticks, [(t, f"{t:g}") for t in y.ticks(5)], "epoch", "loss")]
    for i, line in enumerate((fitted, held)):
        marks += _line([(x.at(n), y.at(loss)) for n, loss in line], i, marked=len(epochs) <= 30)
    description = f"{len(epochs)} epochs; training loss from {epochs[0][1]:.3f} to {epochs[-1][1]:.3f}"
    return picture("training", "Training curve", description, *marks)


_ICONS = {
    "helped": "M12 20V5M5 11l7-7 7 7",
    "hurt": "M12 4v15M5 13l7 7 7-7",
    "undecided": "M3 14c3-6 6-6 9-2s6 4 9-2",
    "none": "M4 12h16",
    "chosen": "M4 13l5.5 5.5L20 6",
    "warning": "M12 3L2 20.5h20zM12 10v4.5M12 17.6v.1",
}


def icon(name: str) -> Markup:
    """The sign beside a headline: an arrow up or down, a wave, a dash, a tick, a warning triangle."""
    return tag("svg", tag("path", d=_ICONS[name]), class_="icon", viewBox="0 0 24 24", aria_hidden="true")


def swatch(index: int, *, line: bool) -> Markup:
    """The key of a line or of a map's class: its colour, shape and dash."""
    if not line:
        return tag(
            "svg",
            scatter([(8, 8)], index, f"point c{index % COLOURS}"),
            width=16,
            height=16,
            aria_hidden="true",
        )
    return tag("svg", *_line([(2, 8), (16, 8), (30, 8)], index), width=32, height=16, aria_hidden="true")


def feature_map(shown: FeatureMap, classes: int) -> Markup:
    """Rows in two dimensions, a number at the middle of each of up to KEYED_CLASSES classes.

    Wrong answers are ringed. At most MAP_POINTS rows are drawn, evenly taken. Up to MAP_CLASSES
    classes have a colour and shape of their own; beyond that only right and wrong are told apart.
    """
    at, codes, right = _placed(shown)
    marks = [tag("rect", x=0.5, y=0.5, width=WIDTH - 1, height=MAP_SIZE - 1, rx=6, class_="frame")]
    for code in sorted(set(codes)):
        mine = [p for p, c in zip(at, codes, strict=True) if c == code]
        told = 0 <= code < classes <= MAP_CLASSES
        marks.append(
            scatter(mine, code if told else 0, f"point c{code % COLOURS}" if told else "point plain")
        )
    wrong = [p for p, good in zip(at, right, strict=True) if not good]
    marks += [tag("circle", cx=px, cy=py, r=4.8, class_="wrong") for px, py in wrong]
    marks += [
        tag("text", str(code + 1), x=px, y=py + 4.5, text_anchor="middle", class_="key")
        for code, (px, py) in (_middles(at, codes) if classes <= KEYED_CLASSES else {}).items()
    ]
    description = f"{len(at)} rows of {classes} classes, {len(wrong)} of them answered wrongly" + (
        "; numbers stand at the middle of each class" if classes <= KEYED_CLASSES else ""
    )
    return picture("map", "Map of the features", description, *marks, height=MAP_SIZE)


def drawn(shown: FeatureMap) -> list[int]:
    """Which rows of the map are drawn: all, or MAP_POINTS evenly taken; never one that has no place."""
    placed = [i for i, p in enumerate(zip(shown.x, shown.y, strict=True)) if all(map(math.isfinite, p))]
    step = max(1.0, len(placed) / MAP_POINTS)
    return [placed[int(i * step)] for i in range(min(len(placed), MAP_POINTS))]


def _placed(shown: FeatureMap) -> tuple[list[Point], list[int], list[bool]]:
    kept = drawn(shown)
    x_low, x_high = padded([shown.x[i] for i in kept], 0.02)
    y_low, y_high = padded([shown.y[i] for i in kept], 0.02)
    x, y = Axis(x_low, x_high, 10, WIDTH - 10), Axis(y_low, y_high, MAP_SIZE - 10, 10)
    at = [(x.at(shown.x[i]), y.at(shown.y[i])) for i in kept]
    return at, [shown.codes[i] for i in kept], [shown.right[i] for i in kept]


def _middles(at: Sequence[Point], codes: Sequence[int]) -> dict[int, Point]:
    """The median place of each class, pushed apart until the numbers there can be read."""
    middles: dict[int, Point] = {}
    for code in sorted({c for c in codes if c >= 0}):
        mine = [p for p, c in zip(at, codes, strict=True) if c == code]
        middles[code] = median(p[0] for p in mine), median(p[1] for p in mine)
    for _ in range(60):
        for first, second in combinations(middles, 2):
            middles[first], middles[second] = _parted(middles[first], middles[second], turn=second)
    return {code: (round1(px), round1(py)) for code, (px, py) in middles.items()}


def _parted(a: Point, b: Point, turn: int, apart: float = 19.0) -> tuple[Point, Point]:
    """Both places moved away from each other to `apart` units, within the frame."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    distance = math.hypot(dx, dy)
    if distance >= apart:
        return a, b
    # places that coincide have no direction to part in: each pair takes one of its own
    ux, uy = (dx / distance, dy / distance) if distance > 0.01 else (math.cos(turn), math.sin(turn))
    push = (apart - distance) / 2
    return _inside(a[0] - push * ux, a[1] - push * uy), _inside(b[0] + push * ux, b[1] + push * uy)


def _inside(x: float, y: float) -> Point:
    return min(max(x, 12.0), WIDTH - 12), min(max(y, 12.0), MAP_SIZE - 12)


def _line(at: list[Point], index: int, *, marked: bool = True) -> list[Markup]:
    drawing = [path(at, f"line c{index % COLOURS} d{index % 4}")]
    return [*drawing, scatter(at, index, f"point c{index % COLOURS}")] if marked else drawing


def interval(axis: Axis, value: float, low: float, high: float) -> Markup:
    """A value and its whisker on a strip; nothing where one of them is missing."""
    if not all(map(math.isfinite, (value, low, high))):
        return Markup("")
    dot = tag("circle", cx=f"{axis.at(value):g}%", cy=14, r=5, class_="dot")
    return whisker(axis.at(low), axis.at(high), 14.0) + dot


def axis_strip(axis: Axis, shown: Callable[[float], str]) -> Markup:
    """The numbers below strips."""
    ticks = [t for t in axis.ticks(5) if 4 <= axis.at(t) <= 96]
    return strip(
        *(tag("text", shown(t), x=f"{axis.at(t):g}%", y=13, text_anchor="middle") for t in ticks),
        height=18,
        class_="strip ticks",
    )


def shares(axis: Axis) -> list[tuple[float, str]]:
    """Ticks as percentages, with a decimal only where the steps need one."""
    ticks = axis.ticks(5)
    whole = all(abs(100 * t - round(100 * t)) < 1e-6 for t in ticks)
    return [(t, percent(t, 0 if whole else 1)) for t in ticks]


def _apart(axis: Axis, ticks: list[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """The ticks that leave `least` units to the one kept before; the last always stays."""
    kept: list[tuple[float, str]] = []
    for tick in reversed(ticks):
        if not kept or axis.at(kept[-1][0]) - axis.at(tick[0]) >= least:
            kept.append(tick)
    return kept[::-1]


def _hundredth(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 1)
