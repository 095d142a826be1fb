"""Runs a network fast: compiled by OpenVINO where that agrees with torch, torch itself elsewhere.

A network takes batches of integer arrays (pixels, token numbers) and gives one float32 vector a row;
normalisation and pooling are inside it. Nothing here knows what a row was, or any label.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones import converted
from graftwork.errors import RequestError
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray

Runtime = Literal["openvino", "torch", "cuda"]
Precision = Literal["bf16", "f32"]
Arrays = tuple[NDArray[Any], ...]
Batch = tuple[IntArray, Arrays]
"""The positions of some rows, and the network's inputs for them (their first axis is those rows)."""

MEAN_COSINE = 0.998
MINIMUM_COSINE = 0.99
SAMPLE = 64
"""Rows on which a cheaper path must agree with float32 torch."""
CUDA_ROWS = 64
HELD, HELD_PASSING = 4, 2
"""Networks held ready in memory at most, and those among them that pass; those used longest ago go."""
PASSING_FACTS = 256
"""Decisions kept about networks that pass; older ones are forgotten."""
_NOTIFY_S = 0.1


@dataclass(frozen=True)
class Recipe:
    """A network that need not be loaded yet.

    key: plain JSON of all that shapes its numbers, apart from runtime and precision. build: gives the
    torch module in eval mode. example: inputs of one small batch. lengths: whether rows differ in length.
    passing: whether it is one of many that a task makes of a source, so that little of it is kept.
    shared: how many of its inputs, the last ones, belong to no row. settled_by: what decides on its path
    besides, such as the numbers that go in there; plain JSON.
    """

    key: Mapping[str, Any]
    build: Callable[[], Any] = field(compare=False)
    example: Callable[[], Arrays] = field(compare=False)
    lengths: bool = False
    passing: bool = False
    shared: int = 0
    settled_by: str = ""


@dataclass(frozen=True)
class Decision:
    """Which path a network takes on this machine, its width, and how well it agreed with float32 torch."""

    runtime: Runtime
    precision: Precision
    width: int
    parity: Mapping[str, float]


class Runner(Protocol):
    """A network ready to run. One run at a time, which may be fed for as long as batches come."""

    @property
    def slots(self) -> int:
        """Batches that it takes at once; a batch beyond them only waits."""
        ...

    def run(self, batches: Iterable[Batch], sink: Callable[[IntArray, NDArray[np.float32]], None]) -> None:
        """Feed every batch through; `sink` gets each one's positions and features as soon as they are there.

        In any order and on any thread, perhaps on two at once.
        """
        ...


class Shared(Runner, Protocol):
    """A runner of a network that others in this process may run too."""

    def beside(self, ahead: int = 1) -> Runner:
        """The same network for another caller, who then need not wait for this one's run to end.

        ahead: batches that it takes for each that it can work on, where its runtime has a queue: the next
        one then begins without waiting for Python's turn.
        """
        ...


def cores() -> int:
    """Processor cores this process may use; OMP_NUM_THREADS can only lower it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(allowed, int(limit))) if limit.isdigit() else allowed


def decide(
    recipe: Recipe, sample: Callable[[], Sequence[Arrays]], wanted: Runtime | None, *, made_up: bool = False
) -> Decision:
    """The cheapest path that agrees with float32 torch, decided once per network and machine, and kept.

    sample: gives the inputs of some rows, one row each; called only where nothing was decided before.
    wanted: restrict the choice to one runtime (float32 torch stays the last resort). made_up: the rows
    are no real ones; what is decided on them is kept apart and never stands for real ones.
    """
    key: dict[str, Any] = {"network": dict(recipe.key), "wanted": wanted, "machine": _machine()}
    if made_up:
        key["rows"] = "made up"
    if recipe.settled_by:
        key["settled by"] = recipe.settled_by
    passing = recipe.passing or recipe.settled_by
    topic, most = ("parity-tuned", PASSING_FACTS) if passing else ("parity", None)
    found = paths.kept(topic, key, lambda: _compare(recipe, sample(), wanted), most)
    return Decision(found["runtime"], found["precision"], int(found["width"]), found["parity"])


def check_runtime(name: str | None) -> Runtime | None:
    """`name` where this machine has such a runtime; raises RequestError otherwise."""
    if name is None:
        return None
    known: dict[str, Runtime] = {"openvino": "openvino", "torch": "torch"}
    if has_gpu():
        known["cuda"] = "cuda"
    if name not in known:
        raise RequestError(f"no runtime {name!r} on this machine; expected one of {', '.join(known)}")
    return known[name]


def usable(runtime: str, precision: str) -> bool:
    """Whether this machine can take the path at all."""
    return (runtime, precision) in candidates(None)


def runtime_version(runtime: Runtime) -> str:
    """major.minor of the library that computes: another one may give other numbers."""
    library = "openvino" if runtime == "openvino" else "torch"
    return f"{library} {'.'.join(version(library).split('.')[:2])}"


_runners: dict[str, tuple[Shared, bool]] = {}
"""Those ready to run, the one used last at the end, and whether it passes."""
_lock = threading.Lock()


def runner(recipe: Recipe, runtime: Runtime, precision: Precision) -> Shared:
    """The network, loaded on first use and shared by everything in this process that needs the same one."""
    key = _runner_key(recipe, runtime, precision)
    with _lock:
        if key not in _runners:
            _make_room(recipe.passing)  # first: memory holds no more networks than a task needs
            _runners[key] = _load(recipe, runtime, precision), recipe.passing
        _runners[key] = _runners.pop(key)
        return _runners[key][0]


def release(recipe: Recipe, runtime: Runtime, precision: Precision) -> None:
    """Hold the network no longer; whoever still has its runner keeps it."""
    with _lock:
        _runners.pop(_runner_key(recipe, runtime, precision), None)


def _ready(recipe: Recipe, runtime: Runtime, precision: Precision) -> Shared | None:
    """The network where it is held already."""
    with _lock:
        found = _runners.get(_runner_key(recipe, runtime, precision))
        return None if found is None else found[0]


def _hold(recipe: Recipe, runtime: Runtime, precision: Precision, ready: Shared) -> None:
    """Keep a network that is loaded already for `runner` to give."""
    key = _runner_key(recipe, runtime, precision)
    with _lock:
        _runners.pop(key, None)
        _make_room(recipe.passing)
        _runners[key] = ready, recipe.passing


def _runner_key(recipe: Recipe, runtime: Runtime, precision: Precision) -> str:
    return paths.digest_of([dict(recipe.key), runtime, precision])


def _make_room(passing: bool) -> None:
    fleeting = [key for key, (_, passes) in _runners.items() if passes]
    if passing and len(fleeting) >= HELD_PASSING:
        del _runners[fleeting[0]]
    while len(_runners) >= HELD:
        del _runners[next(iter(_runners))]


class Table(Protocol):
    """What takes features at the positions of their rows: an array (rows, width), or what looks like one."""

    def __len__(self) -> int: ...

    def __setitem__(self, positions: IntArray, values: NDArray[np.float32], /) -> None: ...


def collect(runner: Runner, batches: Iterable[Batch], out: Table, notify: Notify, stage: str) -> None:
    """Run every batch into `out`, saying how far it is a few times a second."""
    done, said = 0, 0.0

    def sink(positions: IntArray, values: NDArray[np.float32]) -> None:
        nonlocal done
        out[positions] = values
        done += len(positions)

    def watched() -> Iterable[Batch]:
        nonlocal said
        for batch in batches:
            now = time.monotonic()
            if now - said >= _NOTIFY_S:
                said = now
                notify(Progress(stage, done, len(out)))
            yield batch

    runner.run(watched(), sink)
    notify(Progress(stage, len(out), len(out)))


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row-wise cosine of two matrices; 1 where both rows are zero, 0 where one is, or is not finite."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(1) & ~right.any(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.where(both_zero, 1.0, (left * right).sum(1) / norms)
    return np.asarray(np.nan_to_num(cosine, nan=0.0, posinf=0.0, neginf=0.0), dtype=np.float64)


def _compare(recipe: Recipe, sample: Sequence[Arrays], wanted: Runtime | None) -> dict[str, Any]:
    module = recipe.build()
    reference = _over(_Torch(module, "cpu", "f32", recipe.shared), sample)
    tried: dict[str, Any] = {}
    for runtime, precision in candidates(wanted):
        if (runtime, precision) == ("torch", "f32"):
            break
        try:
            # what others have settled already is not loaded twice
            known = _ready(recipe, runtime, precision) if recipe.settled_by else None
            ready = known or _load(recipe, runtime, precision, lambda: module)
            values = _over(ready, sample)
        except Exception as error:  # converters and drivers raise anything; torch is what remains
            tried[f"{runtime} {precision}"] = f"{type(error).__name__}: {error}"[:300]
            continue
        cosine = cosines(reference, values)
        parity = {
            "mean_cosine": float(cosine.mean()),
            "minimum_cosine": float(cosine.min()),
            "rows": float(len(cosine)),
        }
        tried[f"{runtime} {precision}"] = parity
        if parity["mean_cosine"] >= MEAN_COSINE and parity["minimum_cosine"] >= MINIMUM_COSINE:
            _hold(recipe, runtime, precision, ready)
            return _fact(runtime, precision, reference.shape[1], parity, tried)
    same = {"mean_cosine": 1.0, "minimum_cosine": 1.0, "rows": float(len(sample))}
    return _fact("torch", "f32", reference.shape[1], same, tried)


def _fact(
    runtime: Runtime, precision: Precision, width: int, parity: dict[str, float], tried: dict[str, Any]
) -> dict[str, Any]:
    return {"runtime": runtime, "precision": precision, "width": width, "parity": parity, "tried": tried}


def _over(runner: Runner, sample: Sequence[Arrays]) -> NDArray[np.float32]:
    found: dict[int, NDArray[np.float32]] = {}

    def sink(positions: IntArray, values: NDArray[np.float32]) -> None:
        found[int(positions[0])] = np.array(values[0], dtype=np.float32)

    runner.run(((np.array([i]), arrays) for i, arrays in enumerate(sample)), sink)
    return np.stack([found[i] for i in range(len(sample))])


def _load(
    recipe: Recipe, runtime: Runtime, precision: Precision, build: Callable[[], Any] | None = None
) -> Shared:
    build = recipe.build if build is None else build
    if runtime == "openvino":
        compiled = converted.compile_network(
            dict(recipe.key), build, recipe.example, recipe.lengths, precision, cores(), recipe.passing,
            recipe.shared,
        )  # fmt: skip
        return converted.OpenVino(compiled)
    return _Torch(build(), "cuda" if runtime == "cuda" else "cpu", precision, recipe.shared)


def candidates(wanted: Runtime | None) -> list[tuple[Runtime, Precision]]:
    """Paths this machine can take, cheapest first; float32 torch always ends the list."""
    found: list[tuple[Runtime, Precision]] = []
    if wanted != "torch" and wanted != "openvino" and has_gpu():
        found += [("cuda", "bf16"), ("cuda", "f32")]
    if wanted in (None, "openvino"):
        if converted.has_bf16():
            found.append(("openvino", "bf16"))
        found.append(("openvino", "f32"))
    return [*found, ("torch", "f32")]


@cache
def has_gpu() -> bool:
    """Whether torch can use a GPU here."""
    if not _nvidia():
        return False  # asked without importing torch: a warm run on a processor never needs it
    import torch

    return torch.cuda.is_available()


def _nvidia() -> bool:
    from pathlib import Path

    return Path("/dev/nvidiactl").exists() or os.name == "nt"


@cache
def _machine() -> dict[str, Any]:
    """What decides how numbers come out here, in plain JSON."""
    return {
        "processor": converted.processor(),
        "bf16": converted.has_bf16(),
        "gpu": has_gpu(),
        "openvino": version("openvino"),
        "torch": version("torch"),
    }


class _Torch:
    """The torch module itself.

    On a processor each row runs alone and on one thread, as many rows at once as there are cores: no
    neighbour and no number of cores changes a bit, and threads never wait for each other inside a row.
    """

    def __init__(
        self, module: Any, device: Literal["cpu", "cuda"], precision: Precision, shared: int = 0
    ) -> None:
        """shared: see `Recipe`."""
        import torch

        self._shared = shared
        self._torch, self._device, self._precision = torch, device, precision
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._lock = threading.Lock()
        if device == "cuda":
            # channels-last: the layout in which tensor cores take convolutions
            module = module.to(device="cuda", memory_format=torch.channels_last)
        self._module = module

    @property
    def slots(self) -> int:
        return 1 if self._device == "cuda" else cores()

    def beside(self, ahead: int = 1) -> "_Torch":
        return _Torch(self._module, self._device, self._precision, self._shared)

    def run(self, batches: Iterable[Batch], sink: Callable[[IntArray, NDArray[np.float32]], None]) -> None:
        with self._lock:
            if self._device == "cuda":
                for positions, arrays in batches:
                    sink(positions, self._values(arrays))
                return
            self._run_rows(batches, sink)

    def _run_rows(
        self, batches: Iterable[Batch], sink: Callable[[IntArray, NDArray[np.float32]], None]
    ) -> None:
        threads, workers = self._torch.get_num_threads(), cores()
        ahead: deque[Future[None]] = deque()
        self._torch.set_num_threads(1)

        def one(place: IntArray, row: Arrays) -> None:
            sink(place, self._values(row))

        try:
            with ThreadPoolExecutor(workers, thread_name_prefix="torch") as pool:
                for positions, arrays in batches:
                    own = len(arrays) - self._shared
                    for i in range(len(positions)):
                        row = (*(array[i : i + 1] for array in arrays[:own]), *arrays[own:])
                        ahead.append(pool.submit(one, positions[i : i + 1], row))
                    while len(ahead) > 4 * workers or (ahead and ahead[0].done()):
                        ahead.popleft().result()
                for place in ahead:
                    place.result()
        finally:
            self._torch.set_num_threads(threads)

    def _values(self, arrays: Arrays) -> NDArray[np.float32]:
        torch = self._torch
        mixed = self._dtype is not torch.float32
        with torch.inference_mode(), torch.autocast(self._device, self._dtype, enabled=mixed):
            values = self._module(*(torch.from_numpy(array).to(self._device) for array in arrays))
            return np.asarray(values.float().cpu().numpy(), dtype=np.float32)
