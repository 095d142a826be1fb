"""Networks compiled by OpenVINO, and their converted form kept on disk so that a later run starts quickly."""

import json
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones.quiet import quiet
from graftwork.rows import IntArray

KEPT_BYTES, KEPT_PASSING_BYTES = 4_000_000_000, 1_000_000_000
"""Converted networks kept on disk, sources' and tuned ones; beyond it those used longest ago go."""


class OpenVino:
    """A compiled network behind asynchronous requests, one stream a core.

    With one stream a core every request runs on one thread, so a row's numbers depend on its own
    shape alone, never on how many rows wait beside it.
    """

    def __init__(self, compiled: Any, requests: int = 0) -> None:
        """requests: held at once, 0 for as many as there are streams."""
        self._compiled = compiled
        self._queue = openvino().AsyncInferQueue(compiled, requests)
        self._arriving = _Arriving()
        self._lock = threading.Lock()
        self._queue.set_callback(self._arriving.finished)

    @property
    def slots(self) -> int:
        """See `engine.Runner.slots`."""
        return len(self._queue)

    def beside(self, ahead: int = 1) -> "OpenVino":
        """See `engine.Runner.beside`."""
        return OpenVino(self._compiled, ahead * len(self._queue))

    def run(
        self,
        batches: Iterable[tuple[IntArray, tuple[NDArray[Any], ...]]],
        sink: Callable[[IntArray, NDArray[np.float32]], None],
    ) -> None:
        failures = self._arriving.failures
        with self._lock:
            self._arriving.sink = sink
            failures.clear()
            try:
                for positions, arrays in batches:
                    self._queue.start_async(dict(enumerate(arrays)), positions)
                    if failures:
                        break
            finally:
                self._queue.wait_all()  # also when interrupted: requests still write to the caller's array
                self._arriving.sink = None
            if failures:
                raise failures[0]


class _Arriving:
    """Where results go. It knows no queue: a queue whose callback led back to it would never be freed."""

    def __init__(self) -> None:
        self.sink: Callable[[IntArray, NDArray[np.float32]], None] | None = None
        self.failures: list[BaseException] = []

    def finished(self, request: Any, positions: IntArray) -> None:
        """Called on OpenVINO's thread, where an exception would be lost."""
        assert self.sink is not None
        try:
            self.sink(positions, request.get_output_tensor(0).data)
        except BaseException as error:
            self.failures.append(error)


def compile_network(
    key: dict[str, Any],
    build: Callable[[], Any],
    example: Callable[[], tuple[NDArray[Any], ...]],
    lengths: bool,
    precision: str,
    streams: int,
    passing: bool = False,
    shared: int = 0,
) -> Any:
    """The compiled network of `key`: from its kept conversion, else converted from the torch module.

    passing, shared: see `engine.Recipe`; a passing conversion never displaces a source's.
    """
    core, place = _core(), _place(key, passing)
    model = _kept_model(core, place)
    if model is None:
        model = _convert(build(), example(), lengths, shared)
        model = _keep(core, place, model, KEPT_PASSING_BYTES if passing else KEPT_BYTES) or model
    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # explicit: its default depends on the processor
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": streams,
        "ENABLE_CPU_PINNING": False,  # decoding threads share the same cores
    }
    return core.compile_model(model, "CPU", settings)


@cache
def has_bf16() -> bool:
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def processor() -> str:
    """The processor's name."""
    return str(_core().get_property("CPU", "FULL_DEVICE_NAME")).strip() or platform.processor()


@cache
def _core() -> Any:
    return openvino().Core()


def openvino() -> Any:
    """The library, without its telemetry: merely importing it would otherwise report over the net.

    With that package absent it falls back to a stub of its own, which sends nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as library

    return library


def _convert(module: Any, example: tuple[NDArray[Any], ...], lengths: bool, shared: int) -> Any:
    """Trace and convert, by the frontend itself: a second trace for checking would double the time."""
    library = openvino()
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    tensors = tuple(torch.from_numpy(array) for array in example)
    with quiet(), torch.inference_mode():
        traced = torch.jit.trace(module, tensors, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # a name: the frontend does not keep it alive
        model = frontend.convert(frontend.load(decoder))
    for i, array in enumerate(example):
        shape = [-1] * array.ndim if lengths else list(array.shape)
        if i >= len(example) - shared:  # however many there are of them, each is as long as it is
            shape = [shape[0], *array.shape[1:]]
        model.inputs[i].get_node().set_partial_shape(library.PartialShape(shape))
        model.inputs[i].get_node().set_element_type(library.Type(array.dtype))
    model.validate_nodes_and_infer_types()
    return model


def _place(key: dict[str, Any], passing: bool) -> Path:
    libraries = {name: version(name) for name in ("openvino", "torch", "transformers")}
    folder = "converted-tuned" if passing else "converted"
    return paths.home() / folder / paths.digest_of({"network": key, "libraries": libraries})


def _kept_model(core: Any, place: Path) -> Any | None:
    """The kept conversion, checked against its digests; None where there is none or it is damaged."""
    try:
        digests = json.loads((place / "digests.json").read_text("utf-8"))
        whole = all(paths.file_digest(place / name) == digest for name, digest in digests.items())
        if not whole or set(digests) != {"network.xml", "network.bin"}:
            return None
        os.utime(place)  # least recently used goes first
    except (OSError, ValueError):
        return None
    return core.read_model(place / "network.xml")


def _keep(core: Any, place: Path, model: Any, most: int) -> Any | None:
    """Write the conversion and read it back, which frees the torch weights; None where it cannot be kept."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
        try:
            openvino().save_model(model, work / "network.xml", compress_to_fp16=False)
            digests = {name: paths.file_digest(work / name) for name in ("network.xml", "network.bin")}
            (work / "digests.json").write_text(json.dumps(digests), "utf-8")
            if place.exists():
                shutil.rmtree(place)  # it was there and damaged
            work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _prune(place.parent, most)
    except (OSError, RuntimeError):
        return None  # a full or read-only disk: convert again next time
    return _kept_model(core, place)


def _prune(folder: Path, most: int) -> None:
    used = sorted(folder.iterdir(), key=lambda place: place.stat().st_mtime, reverse=True)
    total = 0
    for place in used:
        total += sum(file.stat().st_size for file in place.iterdir())
        if total > most and place != used[0]:
            shutil.rmtree(place, ignore_errors=True)
