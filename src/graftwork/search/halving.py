"""What to try next, and for how long: pure functions of what is known so far and of the time left.

Cheap candidates run to their end. Trainings are first looked at briefly, each as long as the others, as
long as the time for running the best of them to its end is not touched; the better half goes on. A
training that is given less time than it would take still ends well: its rate falls to zero in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

SLICE = 0.07
"""Share of the whole time that a first look may train."""
CHEAP = 0.35
"""Share of the time left that one cheap candidate may take."""
KEPT = 0.75
"""Share of the whole time that first looks leave for the one that goes on."""
NEARLY = 1.5
"""A training that ends in so many times a first look runs to its end at once."""
ENDED = 0.85
"""A training that took less than this share of what it was given had come to its end."""
WORTH = 0.25
"""Share of its whole training below which a second survivor is not begun."""


State = Literal["open", "looked at", "ended", "stopped"]


@dataclass(frozen=True)
class Lane:
    """A candidate, as far as its costs and its first look are known. Seconds of wall-clock time.

    cheap: its training does not change a backbone. full: from its beginning to its end. fixed: the part
    of `full` that is no training (features before, conversion after). least: training below which it
    says nothing. score, loss: of its first look.
    """

    cheap: bool
    full: float
    fixed: float = 0.0
    least: float = 0.0
    state: State = "open"
    score: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Step:
    """Try that lane for so many seconds in all. rung: 0 a first look or a cheap one, 1 to the end."""

    lane: int
    seconds: float
    rung: int


def following(lanes: Sequence[Lane], left: float, whole: float) -> Step | None:
    """The next step; None where nothing fits. whole: seconds for all trials, left: those still there."""
    return _cheap(lanes, left) or _look(lanes, left, whole) or _run(lanes, left)


def dropped(lanes: Sequence[Lane]) -> list[int]:
    """The worse half of the lanes that were looked at; one survives at least."""
    order = _by_look(lanes)
    return order[max(1, (len(order) + 1) // 2) :]


def measured(
    lane: Lane, rung: int, given: float, seconds: float, costs: tuple[float, float] | None,
    score: float, loss: float,
) -> Lane:  # fmt: skip
    """The lane after a trial that was given so many seconds and took so many. costs: see `Watch.costs`."""
    full, fixed = costs or (seconds, min(lane.fixed, seconds))
    ended = lane.cheap or rung > 0 or costs is None or seconds < ENDED * given or full <= given
    state: State = "ended" if ended else "looked at"
    return replace(lane, full=full, fixed=fixed, state=state, score=score, loss=loss)


def rescaled(lane: Lane, before: Lane, after: Lane) -> Lane:
    """A training that was not begun yet, after another took so much more or less time than was thought."""
    thought = max(before.full - before.fixed, 1e-9)
    by = min(max((after.full - after.fixed) / thought, 0.2), 5.0)
    full = after.fixed + by * (lane.full - lane.fixed)
    return replace(lane, full=full, fixed=after.fixed, least=by * lane.least)


def _cheap(lanes: Sequence[Lane], left: float) -> Step | None:
    for i, lane in enumerate(lanes):
        if lane.cheap and lane.state == "open" and lane.full <= CHEAP * left:
            return Step(i, lane.full, 0)
    return None


def _look(lanes: Sequence[Lane], left: float, whole: float) -> Step | None:
    """A first look, where several are to be told apart and the best can still end."""
    trainings = [lane for lane in lanes if not lane.cheap and lane.state in ("open", "looked at")]
    fresh = [i for i, lane in enumerate(lanes) if not lane.cheap and lane.state == "open"]
    if not fresh or len(trainings) < 2:
        return None
    ranked = _by_look(lanes)
    first = ranked[0] if ranked else fresh[0]
    kept = min(lanes[first].full, KEPT * whole)
    costs = {i: lanes[i].fixed + max(SLICE * whole, lanes[i].least) for i in fresh}
    for i in fresh:
        spare = left - kept
        if lanes[i].full <= NEARLY * costs[i] and lanes[i].full <= (left if i == first else spare):
            return Step(i, lanes[i].full, 1)
        # one look alone tells nothing apart
        others = 0.0 if ranked else min((costs[j] for j in fresh if j != i), default=0.0)
        if costs[i] + others <= spare:
            return Step(i, costs[i], 0)
    return None


def _run(lanes: Sequence[Lane], left: float) -> Step | None:
    """The best training that can still say something, for as long as it takes or as there is time."""
    fresh = [i for i, lane in enumerate(lanes) if not lane.cheap and lane.state == "open"]
    ended = any(not lane.cheap and lane.state == "ended" for lane in lanes)
    for i in [*_by_look(lanes), *fresh]:
        lane = lanes[i]
        needed = lane.fixed + max(lane.least, WORTH * (lane.full - lane.fixed) if ended else 0.0)
        if needed <= left:
            return Step(i, min(lane.full, left), 1)
    return None


def _by_look(lanes: Sequence[Lane]) -> list[int]:
    """Lanes that were looked at, best first."""
    looked = [i for i, lane in enumerate(lanes) if lane.state == "looked at"]
    return sorted(looked, key=lambda i: (-(lanes[i].score or 0.0), lanes[i].loss or 0.0, i))
