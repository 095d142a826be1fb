"""The few shapes that the report's charts are made of.

Colours are CSS classes, never attributes, so that one drawing serves light and dark. Two kinds:
strips are laid out in percentages and keep their height, so their marks do not shrink on a phone;
frames have a view box about as wide as a phone, so that 12-unit text never falls below 12 pixels.
"""

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 30.0, 44.0


def tag(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """One element; `class_` is class, other underscores become hyphens; everything is escaped."""
    written = Markup("")
    for key, value in attributes.items():
        shown = f"{value:g}" if isinstance(value, float) else value
        attribute = "class" if key == "class_" else key.replace("_", "-")
        written += Markup(' {}="{}"').format(Markup(attribute), shown)
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)


def round1(value: float) -> float:
    return round(value, 1)


@dataclass(frozen=True)
class Axis:
    """Values low..high laid on start..end; with `log`, by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round1(self.start + share * (self.end - self.start))

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the axis, at most `most` (or `most` + 1, ends included)."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = 10.0 ** math.floor(math.log10(span / most))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def padded(values: list[float], share: float = 0.1, least: float = 1e-9) -> tuple[float, float]:
    """(low, high) around the finite values, wider by `share` of their span on either side."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    pad = max(share * (high - low), least)
    return low - pad, high + pad


def strip(*marks: Markup, height: int = 28, class_: str = "strip") -> Markup:
    """A drawing in percentages of its width; what it shows is written in the text beside it."""
    return tag("svg", *marks, class_=class_, width="100%", height=height, aria_hidden="true")


def whisker(low: float, high: float, y: float, class_: str = "whisker") -> Markup:
    """An interval with end marks, from low to high percent."""
    ends = (tag("line", x1=f"{x:g}%", x2=f"{x:g}%", y1=y - 4, y2=y + 4, class_=class_) for x in (low, high))
    bar = tag("line", x1=f"{low:g}%", x2=f"{high:g}%", y1=y, y2=y, class_=class_)
    return bar + Markup("").join(ends)


def picture(key: str, title: str, description: str, *marks: Markup, height: float = HEIGHT) -> Markup:
    """A drawing with a name and a description for those who do not see it."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-chart-title"),
        tag("desc", description, id=f"{key}-chart-desc"),
        *marks,
        class_="chart",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_labelledby=f"{key}-chart-title {key}-chart-desc",
    )


def grid(
    x: Axis,
    y: Axis,
    x_ticks: list[tuple[float, str]],
    y_ticks: list[tuple[float, str]],
    x_title: str,
    y_title: str,
) -> Markup:
    """Axes, their ticks and titles. y's title stands level above the axis: it reads without tilting."""
    marks = Markup("")
    for value, shown in y_ticks:
        at = y.at(value)
        marks += tag("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid")
        marks += tag("text", shown, x=x.start - 7, y=at + 4, text_anchor="end")
    for value, shown in x_ticks:
        at = x.at(value)
        marks += tag("line", x1=at, x2=at, y1=y.start, y2=y.start + 4, class_="axis")
        marks += tag("text", shown, x=at, y=y.start + 17, text_anchor="middle")
    marks += tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis")
    marks += tag("text", x_title, x=x.end, y=y.start + 35, text_anchor="end", class_="title")
    return marks + tag("text", y_title, x=0, y=y.end - 12, class_="title")


def path(points: list[tuple[float, float]], class_: str) -> Markup:
    """A line through the points."""
    steps = " ".join(f"{'M' if i == 0 else 'L'}{x:g} {y:g}" for i, (x, y) in enumerate(points))
    return tag("path", d=steps, class_=class_) if points else Markup("")


SHAPES = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",  # circle
    "m-2.7-2.7h5.4v5.4h-5.4z",  # square
    "m0-3.6l3.6 6.2h-7.2z",  # triangle
    "m0-3.9l3.9 3.9l-3.9 3.9l-3.9-3.9z",  # diamond
    "m-1.2-3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",  # plus
    "m0 3.6l-3.6-6.2h7.2z",  # triangle, point down
)


def scatter(points: list[tuple[float, float]], shape: int, class_: str) -> Markup:
    """Every point drawn as one shape, all in a single path: a map of thousands stays small."""
    outline = SHAPES[shape % len(SHAPES)]
    return (
        tag("path", d="".join(f"M{x:g} {y:g}{outline}" for x, y in points), class_=class_)
        if points
        else Markup("")
    )
