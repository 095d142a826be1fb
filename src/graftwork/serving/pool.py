"""Networks in memory, each with its line; under a limit of bytes those asked longest ago go."""

import threading
import time
from concurrent.futures import Future

from graftwork.backbones.base import Backbone
from graftwork.backbones.served import Kept, added_of, network_of
from graftwork.rows import Kind
from graftwork.serving.batching import Line
from graftwork.serving.reading import Readers
from graftwork.serving.records import Held
from graftwork.serving.tasks import Tasks
from graftwork.serving.ways import Way, way_of


class Loaded:
    """One network with its line, and one of the backbones that share it. bytes: of its weights."""

    def __init__(self, backbone: Backbone, size: int, readers: Readers) -> None:
        self.backbone, self.bytes = backbone, size
        self.way: Way = way_of(backbone)
        self.line = Line(self.way, backbone.width, readers, f"line-{network_of(backbone)[:8]}")

    @property
    def kind(self) -> Kind:
        return self.backbone.kind

    def close(self) -> None:
        self.line.close()
        if isinstance(self.backbone, Kept):
            self.backbone.release()


class Pool:
    """Every method may be called from any thread; loading one holds up nobody who asks for another."""

    def __init__(self, memory: int, tasks: Tasks, readers: Readers) -> None:
        self._memory, self._tasks, self._readers = memory, tasks, readers
        self._held: dict[str, Loaded] = {}
        self._loading: dict[str, Future[Loaded]] = {}
        self._lock = threading.Lock()

    def held(self, network: str) -> Loaded | None:
        """The network of that name (see `served.network_of`) where it is in memory."""
        with self._lock:
            found = self._held.pop(network, None)
            if found is not None:
                self._held[network] = found  # asked last
            return found

    def load(self, network: str) -> Loaded:
        """The network of a task that is open, loaded where it is not in memory; may take seconds."""
        with self._lock:
            if network in self._held:
                return self._held[network]
            loading = self._loading.get(network)
            if mine := loading is None:
                loading = self._loading[network] = Future()
        if mine:
            try:
                loading.set_result(self._load(network))
            except BaseException as error:
                loading.set_exception(error)
            with self._lock:
                del self._loading[network]
        return loading.result()

    def backbones(self) -> list[Held]:
        """The one asked last at the end."""
        with self._lock:
            held = dict(self._held)
        now, tasks, adapters = time.monotonic(), self._tasks.counted(), self._tasks.adapters()
        return [
            Held(
                network,
                source.name if (source := one.backbone.state().source) is not None else None,
                one.kind,
                one.way.runtime,
                one.way.precision,
                one.backbone.width,
                one.bytes,
                tasks.get(network, 0),
                adapters.get(network, 0),
                one.line.rows,
                now - one.line.last,
            )
            for network, one in held.items()
        ]

    def figures(self) -> dict[str, float]:
        """Since each was loaded: rows and batches through the networks held."""
        with self._lock:
            lines = [one.line for one in self._held.values()]
            size = sum(one.bytes for one in self._held.values())
        rows, batches = sum(line.rows for line in lines), sum(line.batches for line in lines)
        return {
            "backbones": len(lines),
            "backbone_bytes": size,
            "rows": rows,
            "batches": batches,
            "mean_batch": rows / batches if batches else 0.0,
        }

    def close(self) -> None:
        with self._lock:
            held, self._held = list(self._held.values()), {}
        for one in held:
            one.close()

    def _load(self, network: str) -> Loaded:
        backbone = self._tasks.backbone(network)
        size = weigh(backbone, self._readers.count)
        self._make_room(size)
        loaded = Loaded(backbone, size, self._readers)
        with self._lock:
            self._held[network] = loaded
        return loaded

    def _make_room(self, size: int) -> None:
        """Let go of idle ones until `size` more bytes fit; one that is at work stays, whatever the limit."""
        gone = list[tuple[str, Loaded]]()
        with self._lock:
            for network, one in list(self._held.items()):
                if size + sum(held.bytes for held in self._held.values()) <= self._memory:
                    break
                if one.line.retire():
                    gone.append((network, self._held.pop(network)))
        for network, one in gone:
            one.close()
            self._tasks.drop(network)


def weigh(backbone: Backbone, readers: int) -> int:
    """Bytes of its network's weights, once for each process that holds them; what tasks add is theirs."""
    state = backbone.state()
    own = {} if added_of(backbone).key else state.arrays
    size = sum(array.nbytes for array in own.values())
    if state.source is not None:
        size += sum((state.source.folder / name).stat().st_size for name in state.source.weights)
    # a network of onnxruntime's runs where pictures and recordings are read, and here for the replay
    apart = state.family == "onnx" and backbone.kind != "text"
    return size * (readers + 1) if apart else size
