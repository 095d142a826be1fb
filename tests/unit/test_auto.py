"""`auto`: with strategies of scripted scores and costs on a clock of their own, and once in earnest."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny
from graftwork import registry
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone
from graftwork.errors import RequestError
from graftwork.records import Notify, Progress, Trial, silent
from graftwork.rows import Kind, Rows, Texts
from graftwork.search import candidates as known
from graftwork.search.candidates import Candidate
from graftwork.search.finishing import finished, untried
from graftwork.search.searching import Search
from graftwork.search.trying import Watch, attempt
from graftwork.search.validation import trial_task, validation_of
from graftwork.sources import find
from graftwork.strategies import scratch, tuning
from graftwork.strategies.auto import Auto
from graftwork.strategies.base import Task
from graftwork.training import loop
from graftwork.training.checkpoints import Checkpoints
from toys import ToyBackbone

ROWS, CLASSES = 400, 4


class Clock:
    """Seconds that pass when somebody works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Scripted:
    """A model that answers a share of the rows rightly; which ones follows from their names."""

    quality: float
    settings: dict[str, Any]
    seed: int
    learnt: frozenset[str]
    labels: tuple[str, ...] = tuple(f"label {c}" for c in range(CLASSES))
    backbone: Backbone = field(default_factory=ToyBackbone)

    def answer(self, rows: Rows, notify: Notify = silent) -> Any:
        assert not self.learnt & set(rows.names), "a row that is asked was learnt from"
        codes = np.array([int(name) % CLASSES for name in rows.names])
        luck = np.array([np.random.default_rng([int(name), self.seed]).random() for name in rows.names])
        probabilities = np.full((len(rows), CLASSES), 0.1 / (CLASSES - 1))
        said = np.where(luck < self.quality, codes, (codes + 1) % CLASSES)
        probabilities[np.arange(len(rows)), said] = 0.9
        return type("Said", (), {"probabilities": probabilities})()


@dataclass
class World:
    """What strategies there are: name -> (quality at the end of its training, seconds to its end, fixed)."""

    clock: Clock = field(default_factory=Clock)
    strategies: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)
    fitted: list[str] = field(default_factory=list)
    tuned: dict[str, Any] = field(default_factory=dict)

    def get(self, group: str, name: str) -> Callable[[], "Fake"]:
        return lambda: Fake(self, name)

    def names(self, group: str) -> tuple[str, ...]:
        return tuple(sorted({*self.strategies, *self.failing, "auto"}))


@dataclass(frozen=True)
class Fake:
    world: World = field(compare=False)
    name: str
    blocks: int = 2
    rate: float | None = None
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Any:
        world, clock = self.world, self.world.clock
        world.fitted.append(self.name)
        if self.name in world.failing:
            clock.now += 1
            raise world.failing[self.name]
        quality, seconds, fixed = world.strategies[self.name]
        clock.now += fixed / 2
        training = seconds if task.seconds is None else min(seconds, task.seconds)
        for step in range(1, 11):
            clock.now += training / 10
            stage = "training" if fixed else "head"
            notify(Progress(stage, round(step * training / seconds * 10), 100, "steps"))
        clock.now += fixed / 2
        # half of what there is to learn is learnt in the first tenth of the time
        gained = min(1.0, 0.5 + training / seconds / 1.8)
        learnt = frozenset(np.array(task.rows.names)[~task.validation].tolist())
        return Scripted(
            0.7 + (quality - 0.7) * gained, {"name": self.name, **world.tuned}, len(self.name), learnt
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(strategies={"probe": (0.7, 0.5, 0), "mlp": (0.72, 1, 0), "classical": (0.6, 3, 0)})
    monkeypatch.setattr(registry, "get", made.get)
    monkeypatch.setattr(registry, "names", made.names)
    at = {"blocks": 6, "attention": True, "forward_s": 0.01}
    monkeypatch.setattr(known, "looked_into", lambda found, task, basis: replace(found, **at))
    monkeypatch.setattr(known, "find_spec", lambda name: name)
    yield made


def a_task(rows: int = ROWS, **changed: Any) -> Task:
    names = [str(i) for i in range(rows)]
    values: dict[str, Any] = {
        "rows": Rows(names, {"text": Texts(names)}),
        "codes": np.arange(rows) % CLASSES,
        "labels": tuple(f"label {c}" for c in range(CLASSES)),
        "groups": np.arange(rows),
        "validation": np.arange(rows) >= 0.5 * rows,
        "weights": np.ones(rows),
        "metric": "accuracy",
        "seed": 0,
        "seconds": 200.0,
    }
    return Task(**{**values, **changed})


def words(count: int, folder: Path) -> tuple[Task, Backbone]:
    """Texts that say which class they are of, and a tiny encoder."""
    rng = np.random.default_rng(0)
    codes: NDArray[np.int64] = np.arange(count) % 2
    texts = [" ".join([("good", "bad")[c], *rng.choice(tiny.WORDS, 3)]) for c in codes]
    rows = Rows([f"text {i}" for i in range(count)], {"text": Texts(texts)})
    none = np.zeros(count, dtype=bool)
    task = replace(a_task(count, seconds=3.0), rows=rows, codes=codes, labels=("yes", "no"), validation=none)
    return task, open_backbone(find(str(tiny.bert(folder / "bert"))), None)


def auto(world: World, task: Task, interim: Callable[[Any], None] | None = None) -> Any:
    search = Search(task, ToyBackbone(), silent, interim, world.clock)
    search.start()
    if not search.validation.folds:
        return untried(search)
    search.go()
    return finished(search)


def seconds_of(world: World, task: Task) -> float:
    start = world.clock.now
    auto(world, task)
    return world.clock.now - start


def by_strategy(model: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in model.settings["trials"]:
        found.setdefault(one["strategy"], []).append(one)
    return found


def test_the_best_strategy_is_found_and_every_trial_is_recorded(world: World) -> None:
    world.strategies |= {"partial": (0.9, 60, 8), "full": (0.8, 90, 8)}
    model = auto(world, a_task())
    assert model.settings["chosen"] == "partial" and model.settings["name"] == "partial"
    assert [one["strategy"] for one in model.settings["trials"] if one["outcome"] == "chosen"] == ["partial"]
    for one in json.loads(json.dumps(model.settings["trials"])):
        assert Trial(**one).reason
    assert {"probe", "mlp", "classical", "partial", "full"} == set(by_strategy(model))
    assert model.settings["chosen_by"] == {"rows": 200, "origin": "given", "metric": "accuracy"}


def test_a_strategy_that_leads_by_luck_only_is_left_for_the_probe(world: World) -> None:
    world.strategies |= {"mlp": (0.7, 1, 0), "full": (0.7, 30, 5), "partial": (0.7, 20, 5)}
    assert auto(world, a_task()).settings["chosen"] == "probe"


@pytest.mark.parametrize("seconds", [1, 5, 12, 30, 60, 100, 180, 400, 2_000])
@pytest.mark.parametrize("costs", [(30, 60, 20), (300, 500, 20), (5, 900, 100)])
def test_the_time_is_kept_whatever_strategies_cost(
    world: World, seconds: float, costs: tuple[float, float, float]
) -> None:
    world.strategies |= {
        "partial": (0.8, costs[0], 10), "full": (0.9, costs[1], 10), "scratch": (0.5, costs[2], 4),
        "layers": (0.75, 4, 0),
    }  # fmt: skip
    spent = seconds_of(world, a_task(seconds=float(seconds)))
    assert spent <= max(1.05 * seconds, 1.2)


@pytest.mark.parametrize("seconds", [1, 5, 12, 30, 60, 180, 1_000])
def test_the_answer_never_scores_below_the_probe_on_the_rows_asked(world: World, seconds: float) -> None:
    world.strategies |= {"partial": (0.5, 30, 5), "full": (0.3, 80, 5), "scratch": (0.2, 20, 2)}
    model = auto(world, a_task(seconds=float(seconds)))
    chosen = [one for one in model.settings["trials"] if one["outcome"] == "chosen"]
    assert chosen[0]["score"] >= by_strategy(model)["probe"][0]["score"]


@pytest.mark.parametrize(
    "error", [RequestError("no attention here; try full"), ValueError("odd\nmany lines"), MemoryError()]
)
def test_a_failing_candidate_is_said_and_the_search_goes_on(world: World, error: Exception) -> None:
    world.strategies |= {"full": (0.9, 40, 5)}
    world.failing = {"partial": error, "layers": error, "lora": error}
    model = auto(world, a_task())
    assert model.settings["chosen"] == "full"
    for name in ("partial", "layers", "lora"):
        (one, *_) = by_strategy(model)[name]
        assert one["outcome"] == "failed" and one["score"] is None and "\n" not in one["reason"]
        assert one["reason"]


def test_what_the_probe_raises_is_raised(world: World) -> None:
    world.failing = {"probe": RequestError("this row cannot be read")}
    with pytest.raises(RequestError, match="cannot be read"):
        auto(world, a_task())


def test_the_same_rows_and_costs_give_the_same_search(world: World) -> None:
    world.strategies |= {"partial": (0.85, 60, 8), "full": (0.86, 90, 8), "scratch": (0.6, 20, 2)}
    first, second = (auto(world, a_task()).settings for _ in range(2))
    assert [one["reason"] for one in first["trials"]] == [one["reason"] for one in second["trials"]]
    assert first["chosen"] == second["chosen"]


def test_too_little_time_gives_the_probe_and_a_sentence(world: World) -> None:
    model = auto(world, a_task(seconds=1.2))
    assert model.settings["chosen"] == "probe"
    assert "1.2 s" in model.settings["remark"] and "probe" in model.settings["remark"]


@pytest.mark.parametrize(("seconds", "rows_asked"), [(400, 400), (60, 240), (20, 80)])
def test_a_slow_probe_is_asked_on_fewer_folds(world: World, seconds: int, rows_asked: int) -> None:
    world.strategies["probe"] = (0.7, 5, 0)
    task = a_task(seconds=float(seconds), validation=np.zeros(ROWS, dtype=bool))
    assert auto(world, task).settings["chosen_by"]["rows"] == rows_asked
    assert seconds_of(world, task) <= 1.03 * seconds


def test_a_probe_that_takes_most_of_the_time_is_the_answer(world: World) -> None:
    world.strategies["probe"] = (0.7, 5, 0)
    start = world.clock.now
    assert "8 s allowed" in auto(world, a_task(seconds=8.0)).settings["remark"]
    assert world.clock.now == start + 5


def test_one_label_a_class_gives_the_probe_and_a_sentence(world: World) -> None:
    task = a_task(4, validation=np.zeros(4, dtype=bool))
    search = Search(task, ToyBackbone(), silent, None, world.clock)
    assert not search.validation.folds
    assert "held out" in Auto().fit(task, ToyBackbone(), silent).settings["remark"]


def test_a_cheap_winner_learns_from_every_row_in_the_end(world: World) -> None:
    world.strategies |= {"mlp": (0.95, 2, 0)}
    model = auto(world, a_task(validation=np.zeros(ROWS, dtype=bool)))
    assert model.settings["chosen"] == "mlp" and model.settings["learnt_rows"] == ROWS
    assert len(model.learnt) == ROWS


def test_a_tuned_winner_of_folds_is_fitted_on_every_row_where_there_is_time(world: World) -> None:
    world.strategies |= {"partial": (0.95, 10, 2)}
    none = np.zeros(ROWS, dtype=bool)
    model = auto(world, a_task(validation=none))
    assert model.settings["chosen"] == "partial" and len(model.learnt) == ROWS
    (trial,) = (one for one in by_strategy(model)["partial"] if one["outcome"] == "chosen")
    assert trial["score"] == pytest.approx(0.95, abs=0.04)
    world.strategies["partial"] = (0.95, 60, 2)
    short = auto(world, a_task(validation=none, seconds=100.0))
    assert short.settings["chosen"] == "partial" and len(short.learnt) == 0.8 * ROWS


def test_every_better_answer_is_told_as_soon_as_it_is_there(world: World) -> None:
    world.strategies |= {"partial": (0.9, 60, 8)}
    told: list[Any] = []
    auto(world, a_task(), told.append)
    assert told[0].settings["name"] == "probe"
    assert told[-1].settings["name"] == "partial"


def test_without_transfer_may_win(world: World) -> None:
    world.strategies |= {"classical": (0.9, 3, 0), "full": (0.7, 30, 5), "scratch": (0.7, 20, 2)}
    assert auto(world, a_task()).settings["chosen"] == "classical"


def test_a_resumed_search_repeats_no_trial(world: World, tmp_path: Path) -> None:
    world.strategies |= {"partial": (0.9, 60, 8), "full": (0.95, 50, 8)}
    task = a_task(checkpoints=Checkpoints(tmp_path))
    whole = auto(world, task)
    world.fitted.clear()
    again = auto(world, task)
    # the chosen model alone is made anew, from the state of its training where there is one
    assert sorted(world.fitted) == sorted(["probe", whole.settings["chosen"]])
    assert again.settings["trials"] == whole.settings["trials"]
    assert again.quality == whole.quality


def test_a_search_that_was_killed_goes_on_with_the_trial_under_way(world: World, tmp_path: Path) -> None:
    world.strategies |= {"partial": (0.75, 60, 8)}
    world.failing = {"full": KeyboardInterrupt()}  # type: ignore[dict-item]
    task = a_task(checkpoints=Checkpoints(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        auto(world, task)
    world.fitted.clear()
    world.failing = {}
    world.strategies |= {"full": (0.95, 50, 8)}
    model = auto(world, task)
    assert world.fitted[:2] == ["probe", "full"] and "mlp" not in world.fitted
    assert model.settings["chosen"] == "full"


@pytest.mark.parametrize("left", [60.0, 12.0, 3.0])
def test_a_search_resumed_with_little_time_left_knows_what_was_found(
    world: World, tmp_path: Path, left: float
) -> None:
    world.strategies |= {"probe": (0.7, 2, 0), "partial": (0.95, 30, 4)}
    task = a_task(validation=np.zeros(ROWS, dtype=bool), checkpoints=Checkpoints(tmp_path))
    whole = auto(world, task)
    assert whole.settings["chosen"] == "partial" and whole.settings["chosen_by"]["rows"] == ROWS
    again = auto(world, replace(task, seconds=left)).settings
    assert again["chosen"] == "partial"
    assert again["chosen_by"]["rows"] == ROWS
    assert [one["strategy"] for one in again["trials"]][:3] == ["probe", "classical", "mlp"]


def test_variants_that_were_tried_are_not_tried_again(world: World, tmp_path: Path) -> None:
    world.strategies |= {"full": (0.95, 20, 2)}
    world.tuned = {"options": {"rate": 1e-4}}
    task = a_task(checkpoints=Checkpoints(tmp_path))
    whole = auto(world, task)
    assert {one["settings"].get("rate") for one in by_strategy(whole)["full"]} == {None, 4e-5, 2.5e-4}
    world.fitted.clear()
    again = auto(world, replace(task, seconds=6.0))
    assert again.settings["trials"] == whole.settings["trials"]
    assert sorted(world.fitted) == ["full", "probe"]


@pytest.mark.parametrize("name", ["partial", "full", "lora", "scratch"])
def test_no_training_learns_from_the_rows_it_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the end either, where a strategy by itself would take them in at last."""
    if name == "lora":
        pytest.importorskip("peft")
    held: list[NDArray[np.bool_] | None] = []
    real = loop.train

    def train(*given: Any, **named: Any) -> Any:
        held.append(named.get("held"))
        return real(*given, **named)

    for module in (tuning, scratch):
        monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(tuning, "refitted", lambda *_: pytest.fail("the rows asked were taken in"))
    task, backbone = words(40, tmp_path)
    fold = validation_of(task).folds[0]
    part = trial_task(task, fold, name, 0.1)
    watch = Watch(lambda: 0.0, silent, name, None)
    # one that is only looked at is never refitted; the others are quicker to make so
    part = replace(part, look=name != "partial")
    attempt(Candidate(name), task, part, fold[1], backbone, watch)
    assert held
    for one in held:
        assert one is not None and one[fold[1]].all()


def test_auto_needs_a_source() -> None:
    with pytest.raises(RequestError, match="--source"):
        Auto().fit(a_task(), None, silent)


def test_auto_in_earnest(tmp_path: Path) -> None:
    """Real strategies on a tiny text encoder: the record is whole and the model answers."""
    task, backbone = words(60, tmp_path)
    model = Auto().fit(task, backbone, silent)
    assert model.answer(task.rows).probabilities.shape == (60, 2)
    assert model.settings["chosen"] in {one["strategy"] for one in model.settings["trials"]}
    json.dumps(model.settings)
