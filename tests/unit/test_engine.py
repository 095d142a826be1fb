"""The engine takes a cheaper path only where it agrees, decides once, and never changes a bit by batching."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork import paths
from graftwork.backbones import converted, engine
from graftwork.errors import RequestError
from graftwork.records import Progress

WIDTH = 6


def module(scale: float = 1.0) -> Any:
    import torch

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.weight = torch.nn.Parameter(torch.rand(12, WIDTH, generator=generator) * scale)

        def forward(self, pixels: Any) -> Any:
            return torch.relu(pixels.float().flatten(1) @ self.weight)

    return Toy().eval()


def recipe(name: str = "toy", build: Callable[[], Any] = module) -> engine.Recipe:
    return engine.Recipe({"name": name}, build, lambda: (np.zeros((1, 2, 2, 3), np.uint8),))


def sample(count: int = 20) -> Sequence[engine.Arrays]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (1, 2, 2, 3), dtype=np.uint8),) for _ in range(count)]


def test_the_cheapest_path_that_agrees_is_taken_and_its_figures_recorded() -> None:
    found = engine.decide(recipe(), sample, None)
    assert found.runtime == "openvino" and found.width == WIDTH
    assert found.precision == ("bf16" if converted.has_bf16() else "f32")
    assert found.parity["mean_cosine"] >= engine.MEAN_COSINE
    assert found.parity["minimum_cosine"] >= engine.MINIMUM_COSINE
    assert found.parity["rows"] == 20


def test_a_path_that_disagrees_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    load = engine._load

    def spoilt(recipe: Any, runtime: Any, precision: Any, build: Any = None) -> engine.Runner:
        runner = load(recipe, runtime, precision, build)
        if precision != "bf16":
            return runner

        class Turned:
            def run(self, batches: Any, sink: Any) -> None:
                runner.run(batches, lambda positions, values: sink(positions, -values))

        return Turned()

    monkeypatch.setattr(engine, "_load", spoilt)
    monkeypatch.setattr(converted, "has_bf16", lambda: True)
    found = engine.decide(recipe(), sample, None)
    assert (found.runtime, found.precision) == ("openvino", "f32")


def test_torch_is_what_remains_where_a_network_does_not_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(converted, "_convert", fails)
    found = engine.decide(recipe(), sample, None)
    assert (found.runtime, found.precision) == ("torch", "f32")
    assert found.parity["minimum_cosine"] == 1.0


def test_a_decision_is_made_once_and_never_flips(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = engine.decide(recipe(), sample, None)
    monkeypatch.setattr(engine, "_compare", lambda *_: pytest.fail("decided again"))
    assert engine.decide(recipe(), lambda: pytest.fail("rows were read"), None) == first


def test_what_made_up_rows_decide_does_not_stand_for_real_ones() -> None:
    read: list[str] = []

    def noted(name: str) -> Sequence[engine.Arrays]:
        read.append(name)
        return sample()

    for _ in range(2):
        engine.decide(recipe(), lambda: noted("made up"), None, made_up=True)
        engine.decide(recipe(), lambda: noted("real"), None)
    assert read == ["made up", "real"]


def test_of_two_who_decide_at_once_the_first_wins(home: Path) -> None:
    def second_is_late() -> dict[str, Any]:
        assert paths.kept("parity", "key", lambda: {"who": "first"}) == {"who": "first"}
        return {"who": "second"}

    assert paths.kept("parity", "key", second_is_late) == {"who": "first"}
    assert paths.kept("parity", "key", second_is_late) == {"who": "first"}


def test_a_damaged_fact_is_made_again(home: Path) -> None:
    paths.kept("parity", "key", lambda: {"who": "first"})
    (file,) = (home / "parity").glob("*.json")
    file.write_text("{")
    assert paths.kept("parity", "key", lambda: {"who": "second"}) == {"who": "second"}
    assert json.loads(file.read_text())["fact"] == {"who": "second"}


def test_a_home_that_cannot_be_written_costs_time_not_rightness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("GRAFT_HOME", str(file / "below"))
    assert paths.kept("parity", "key", lambda: {"who": "me"}) == {"who": "me"}
    assert engine.decide(recipe(), sample, None).width == WIDTH


@pytest.mark.parametrize(("runtime", "precision"), [("openvino", "f32"), ("torch", "f32")])
def test_results_are_those_of_torch(runtime: engine.Runtime, precision: engine.Precision) -> None:
    import torch

    rows = sample()
    values = engine._over(engine.runner(recipe(), runtime, precision), rows)
    with torch.inference_mode():
        expected = module()(torch.from_numpy(np.concatenate([row[0] for row in rows]))).numpy()
    assert np.allclose(values, expected, rtol=1e-4)


def test_a_kept_conversion_needs_no_torch_module(home: Path) -> None:
    first = engine._over(engine._load(recipe(), "openvino", "f32"), sample())
    again = recipe(build=lambda: pytest.fail("the network was loaded"))
    assert np.array_equal(engine._over(engine._load(again, "openvino", "f32"), sample()), first)


@pytest.mark.parametrize("name", ["network.xml", "network.bin", "digests.json"])
def test_a_damaged_conversion_is_made_again(home: Path, name: str) -> None:
    first = engine._over(engine._load(recipe(), "openvino", "f32"), sample())
    (file,) = (home / "converted").glob(f"*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.unlink()
    file.write_bytes(content)
    built = []
    again = recipe(build=lambda: built.append(1) or module())
    assert np.array_equal(engine._over(engine._load(again, "openvino", "f32"), sample()), first)
    assert built == [1]


def test_conversions_used_longest_ago_are_dropped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in ("one", "two", "three"):
        engine._load(recipe(name), "openvino", "f32")
        if name == "two":
            first, second = (home / "converted").iterdir()
            os.utime(first, (10, 10))
            os.utime(second, (20, 20))
            monkeypatch.setattr(converted, "KEPT_BYTES", 6_000)
    left = set((home / "converted").iterdir())
    assert first not in left and len(left) < 3


def test_an_error_of_whoever_takes_the_results_is_not_lost() -> None:
    def refuses(*_: object) -> None:
        raise OSError("disk full")

    runner = engine.runner(recipe("refused"), "openvino", "f32")
    with pytest.raises(OSError, match="disk full"):
        runner.run(((np.array([i]), row) for i, row in enumerate(sample())), refuses)
    assert len(engine._over(runner, sample())) == 20  # and the next run works


def test_an_interrupted_run_leaves_the_network_usable() -> None:
    def interrupted() -> Any:
        yield np.array([0]), sample()[0]
        raise KeyboardInterrupt

    runner = engine.runner(recipe("stopped"), "openvino", "f32")
    with pytest.raises(KeyboardInterrupt):
        runner.run(interrupted(), lambda *_: None)
    assert len(engine._over(runner, sample())) == 20


def test_progress_ends_with_all_rows() -> None:
    heard: list[Progress] = []
    out = np.empty((20, WIDTH), np.float32)
    batches = ((np.array([i]), row) for i, row in enumerate(sample()))
    engine.collect(engine.runner(recipe(), "torch", "f32"), batches, out, heard.append, "features")
    assert (heard[-1].stage, heard[-1].done, heard[-1].total) == ("features", 20, 20)
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)


def test_cosines_count_what_is_not_finite_as_disagreement() -> None:
    a = np.array([[1, 0], [1, 0], [0, 0], [1, 1], [0, 0]], np.float32)
    b = np.array([[1, 0], [0, 1], [0, 0], [np.nan, 1], [1, 0]], np.float32)
    assert engine.cosines(a, b).tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(RequestError, match=r"no runtime 'tpu'.*openvino, torch"):
        engine.check_runtime("tpu")


def test_openvino_is_used_without_its_telemetry() -> None:
    engine._load(recipe(), "openvino", "f32")
    assert sys.modules["openvino"] and sys.modules["openvino_telemetry"] is None


def test_omp_num_threads_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert engine.cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert engine.cores() < 100000


def test_a_compiled_network_is_freed_when_nobody_uses_it_any_more() -> None:
    import gc
    import weakref

    runner = engine._load(recipe("freed"), "openvino", "f32")
    assert len(engine._over(runner, sample())) == 20
    queue = weakref.ref(runner._queue)  # type: ignore[attr-defined]
    del runner
    gc.collect()
    assert queue() is None


def test_networks_held_ready_are_bounded_and_those_used_last_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_runners", {})
    built: list[str] = []

    def ready(name: str, passing: bool = False) -> engine.Runner:
        def build() -> object:
            built.append(name)
            return module()

        return engine.runner(replace(recipe(name, build=build), passing=passing), "torch", "f32")

    own = ready("own")
    for number in range(6):
        ready(f"tuned {number}", passing=True)
        assert ready("own") is own
    assert len(engine._runners) == 1 + engine.HELD_PASSING
    for number in range(6):
        ready(f"source {number}")
    assert len(engine._runners) == engine.HELD
    ready("source 5")
    assert built.count("source 5") == built.count("own") == 1
