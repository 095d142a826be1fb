"""One ONNX network ready to run: opened by onnxruntime on one thread, its errors said in one line."""

import re
import threading
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import ArtefactError, MissingExtra, RequestError, WorkError
from graftwork.sources import Source
from graftwork.sources.onnx_graph import Graph, read_graph

Feeds = Mapping[str, NDArray[Any]]
_KEPT = 4
_PLACE = re.compile(r"Load model from .*? failed: ?|\S*/onnxruntime_src/\S+ .*?\) ")
_sessions: dict[tuple[str, ...], "Network"] = {}
_lock = threading.Lock()


class Network:
    """The session of a file and what the file says of itself. Several threads may run it at once."""

    def __init__(self, path: str, session: Any, graph: Graph) -> None:
        self.path, self.graph = path, graph
        self._session = session
        # what the caller gives is one row; a graph with another fixed number of rows gets copies of it
        axes = [one.shape[0] for one in graph.inputs if len(one.shape) > 1]
        self._rows = max([1, *(axis for axis in axes if axis is not None)])

    @property
    def outputs(self) -> list[str]:
        return [one.name for one in self._session.get_outputs()]

    def run(self, feeds: Feeds, outputs: list[str]) -> list[NDArray[Any]]:
        """The named outputs for one row (or for as many as an open first axis is given)."""
        if self._rows > 1:
            feeds = {name: np.repeat(array, self._rows, axis=0) for name, array in feeds.items()}
        try:
            return [np.asarray(one) for one in self._session.run(outputs, dict(feeds))]
        except MemoryError as error:
            raise WorkError(f"{self.path} does not fit into memory; choose a smaller source") from error
        except Exception as error:  # onnxruntime's own errors have no base of their own
            seen = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in feeds.items())
            raise RequestError(
                f"{self.path} cannot take {seen} ({_reason(error)}); export it with open axes, or put beside "
                "it what prepares its input"
            ) from error


def runtime_version() -> str:
    """major.minor of onnxruntime: another one may give other numbers; raises MissingExtra."""
    try:
        return f"onnxruntime {'.'.join(version('onnxruntime').split('.')[:2])}"
    except PackageNotFoundError:
        raise MissingExtra("a source in an ONNX file", "onnx") from None


def network(source: Source, model: str, inner: str | None = None) -> Network:
    """The network in file `model` of the source, its files verified, shared by the whole process.

    inner: a tensor within the graph that becomes one more output. Raises ArtefactError for damaged
    files, RequestError for a graph that this onnxruntime cannot run, MissingExtra.
    """
    key = (source.weights_sha256, model, inner or "")
    with _lock:
        if key not in _sessions:
            opened = _opened(source, model, inner)
            while len(_sessions) >= _KEPT:  # memory holds no more networks than a task needs
                del _sessions[next(iter(_sessions))]
            _sessions[key] = opened
        return _sessions[key]


def release(source: Source, model: str, inner: str | None = None) -> None:
    """Keep the network no longer; whoever still has it keeps it."""
    with _lock:
        _sessions.pop((source.weights_sha256, model, inner or ""), None)


def _opened(source: Source, model: str, inner: str | None) -> Network:
    runtime_version()
    import onnxruntime

    source.verify()
    path = source.folder / model
    options = onnxruntime.SessionOptions()
    # one thread a row, as many rows at once as there are cores: no number of cores changes a bit
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    given: Any = str(path)
    if inner is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent)
        )
        given = path.read_bytes() + _one_more_output(inner)
    try:
        session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except MemoryError as error:
        raise WorkError(f"{path} does not fit into memory; choose a smaller source") from error
    except Exception as error:  # onnxruntime's own errors have no base of their own
        raise _refusal(str(path), error) from error
    return Network(str(path), session, read_graph(path))


def _one_more_output(name: str) -> bytes:
    """Bytes that, behind a model, give its graph one more output.

    Protobuf joins repeated messages of one field: ModelProto.graph (7) with GraphProto.output (12) with
    ValueInfoProto.name (1); the runtime infers the type.
    """
    value = _field(1, name.encode())
    return _field(7, _field(12, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _refusal(path: str, error: Exception) -> RequestError:
    said = _reason(error)
    if "opset" in said.lower() or "IR version" in said:
        return RequestError(
            f"{path} is of a newer ONNX than {runtime_version()} knows ({said}); try: pip install -U "
            "onnxruntime, or export it with a lower opset_version"
        )
    if type(error).__name__ == "InvalidProtobuf":
        return ArtefactError(f"{path} is damaged ({said}); fetch or export it again")
    return RequestError(f"{path} cannot be run by {runtime_version()} ({said}); export it again")


def _reason(error: Exception) -> str:
    """The runtime's message without its own code's places, cut to a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    for noise in ("[ONNXRuntimeError] : ", "Status Message: "):
        said = said.partition(noise)[2] or said
    said = _PLACE.sub("", said).rpartition(" was false. ")[2]
    parts = [part for part in said.split(" : ") if not part.isdigit() and not part.isupper()]
    return " : ".join(parts)[:300].strip(" .:")
