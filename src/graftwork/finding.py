"""What a fit finds out beside its model: the learning curve, cautions, familiarity, the rows of the probe."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from graftwork import registry
from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.bench import Bench, Held
from graftwork.model import Model
from graftwork.records import LearningCurve
from graftwork.rows import Rows
from graftwork.seen import seen_rows
from graftwork.store import remember
from graftwork.strategies.base import Strategy, Task
from graftwork.strategies.scratch import FEWEST_TO_HOLD_OUT, held_rows
from graftwork.strategies.setting import known_settings
from graftwork.unknown import Familiarity

PROBE_ROWS = 8


def versions() -> dict[str, str]:
    """Versions of what shapes the numbers."""
    return {
        name: version(name)
        for name in ("graftwork", "numpy", "torch", "openvino", "transformers", "scikit-learn")
    }


def settings_of(recipe: Strategy) -> dict[str, object]:
    """A strategy's settings in plain JSON, as far as they are plain."""
    shared = getattr(recipe, "options", None)
    return {
        name: getattr(shared if inside else recipe, name)
        for name, (_, inside) in known_settings(recipe).items()
    }


def transfers(name: str) -> bool:
    return name not in registry.names("strategies") or registry.get("strategies", name)().transfers


def curve_of(
    bench: Bench,
    recipe: Strategy,
    held: Held,
    basis: Backbone | None,
    rivals: Mapping[str, Held],
    seconds: float,
    own: bool,
) -> LearningCurve | None:
    """The transfer's curve beside that of `classical`; a network from scratch is too slow to repeat.

    own: the curve is of the strategy that was asked for; else it is the probe's, and says so.
    """
    if not recipe.transfers:
        return None
    learners: dict[str, tuple[Strategy, Backbone | None]] = {recipe.name: (recipe, basis)}
    if "classical" in rivals:
        classical: Strategy = registry.get("strategies", "classical")()
        needed = classical.basis(bench.dataset.kind, None)
        learners["classical"] = (classical, None if needed is None else remember(needed))
    curve = bench.curve(learners, recipe.name, {recipe.name: held, **rivals}, seconds)
    return curve if own else replace(curve, sentence=f"Learning curve of the probe: {curve.sentence}")


def caution(basis: Backbone | None, rows: Rows) -> str | None:
    """What to say where the source, as far as is known, was pretrained on rows of this very dataset."""
    source = None if basis is None else basis.state().source
    seen = None if source is None else seen_rows(source, rows)
    if source is None or not seen:
        return None
    return f"{source.name} was pretrained on {seen:,} of these {len(rows):,} rows"


def familiar(model: Model, bench: Bench) -> Model:
    learnt = bench.task(bench.learning)
    matrix = labelled_matrix(model.backbone, learnt.rows)
    known = Familiarity.fit(
        matrix, learnt.codes, learnt.groups, seed=learnt.seed, unseen=_unseen(model, learnt)
    )
    return replace(model, familiarity=known)


def _unseen(model: Model, learnt: Task) -> NDArray[np.bool_] | None:
    """(rows,) True for rows that the model's backbone has not learnt from; None for all.

    Where it has learnt from all of many rows, each row weighs little: they count as unseen.
    """
    state = model.backbone.state()
    if state.source is None or not state.arrays:
        return None
    held = held_rows(learnt)
    if model.settings.get("refit_epochs") or not held.any():
        return None if len(held) >= FEWEST_TO_HOLD_OUT else np.zeros(len(held), dtype=bool)
    return held


def unknown_rate(model: Model, bench: Bench) -> float | None:
    if model.familiarity is None or not len(bench.test):
        return None
    return float(model.answer(bench.dataset.rows.take(bench.test)).unknown.mean())


def probe_rows(bench: Bench) -> Rows:
    index = bench.test if len(bench.test) else np.arange(len(bench.dataset))
    return bench.dataset.rows.take(index[:: max(1, len(index) // PROBE_ROWS)][:PROBE_ROWS])
