"""What ranking found, in sentences."""

from collections.abc import Sequence

from graftwork.ranking.against import Against
from graftwork.records import Candidate, Metric

FASTER = 1.5
"""How many times as fast another source must be for that to be worth a word."""

LEVEL_WITH = 0.0005
"""A difference below which none would be printed."""


def why(place: int, order: Sequence[Candidate], rows: int) -> str:
    """One sentence on the source at `place` of `order`; rows: of the largest sample of any source."""
    one, first = order[place], order[0]
    metric = one.expected.metric.replace("_", " ")
    if len(order) == 1:
        return f"the only source looked at: {metric} {one.expected.value:.3f} expected"
    if place == 0:
        apart = one.expected.value - order[1].expected.value
        if apart < LEVEL_WITH:
            return f"level with {order[1].name} in expected {metric}, and likelier to be the best"
        return f"highest expected {metric}, {_points(apart)} ahead of {order[1].name}"
    apart = first.expected.value - one.expected.value
    said = f"level with {first.name}" if apart < LEVEL_WITH else f"{_points(apart)} behind {first.name}"
    if one.rows < rows:
        said += f" after {one.rows:,} rows, and asked no further"
    if (
        one.rows_per_second
        and first.rows_per_second
        and one.rows_per_second >= FASTER * first.rows_per_second
    ):
        said += f"; {one.rows_per_second / first.rows_per_second:.1f} times as fast"
    return said


def whole(
    order: Sequence[Candidate], p: float, enough: float, against: Against | None, notes: Sequence[str]
) -> str:
    """The ranking in one sentence; p and enough: of standing out, and what it must not exceed."""
    first = order[0]
    metric: Metric = first.expected.metric  # type: ignore[assignment]  # a Score may be of more
    name = metric.replace("_", " ")
    if not p <= enough:
        said = f"nothing stands out: no source tells the labels apart better than shuffled ones (p = {p:.2f})"
    else:
        said = f"{first.name}: {name} {first.expected.value:.3f} expected with all rows"
        if len(order) > 1:
            sure = first.probability_best
            chance = "above 0.99" if sure > 0.99 else f"{sure:.2f}"
            said += f", the best of {len(order)} with probability {chance}"
        if against is not None:
            said += f"; {_compared(against)}"
    return "; ".join([said, *notes])


def _compared(against: Against) -> str:
    ahead = against.ahead
    interval = (
        f"{_signed(ahead.value)} points on the same {ahead.rows:,} rows, "
        f"95% {_signed(ahead.low)} to {_signed(ahead.high)}"
    )
    if ahead.value <= 0:
        return f"no source beats the model without transfer ({interval})"
    sure = "" if ahead.low > 0 else "perhaps "
    return f"{sure}better than the model without transfer ({interval})"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"
