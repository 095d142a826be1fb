"""The compact network as a backbone: a source made by `graft pretrain`, or one that `scratch` trained.

How a picture becomes its input is told in preparation.py; it is part of the config and the fingerprint.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftwork.backbones import cutting, engine
from graftwork.backbones.ahead import in_order
from graftwork.backbones.base import BackboneState, Cut, Examples, Keep, Options, View
from graftwork.backbones.examples import Pictures
from graftwork.backbones.learnt import check_learnt, digest_of_learnt
from graftwork.backbones.parted import cut
from graftwork.backbones.pooling import CompactFeatures
from graftwork.backbones.preparation import Look
from graftwork.backbones.preparation import Preparation as Preparation
from graftwork.backbones.preparation import ink as ink
from graftwork.backbones.preparation import prepare as prepare
from graftwork.backbones.preparation import read_picture as read_picture
from graftwork.backbones.pretrained import room
from graftwork.backbones.served import Reading
from graftwork.errors import ArtefactError, RequestError, Unreadable
from graftwork.networks import CompactConfig, CompactNet, channels_last, folded
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import IntArray, Kind, Rows
from graftwork.sources import COMPACT, Source

VERSION = 1
"""Of the preparation below; part of the fingerprint."""

_BATCH = 16
_CHUNK = 512


@dataclass(frozen=True)
class Compact:
    """A compact network without its classifier: pictures, or recordings as pictures -> pooled features.

    arrays: the network's weights by name, float32. source: where they come from, None where they
    were trained here and belong to the model. learnt: those that were tuned since.
    """

    config: CompactConfig
    preparation: Preparation
    arrays: Mapping[str, NDArray[np.float32]]
    source: Source | None = None
    learnt: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def kind(self) -> Kind:
        return "audio" if self.preparation.frame == "sound" else "image"

    @property
    def width(self) -> int:
        return self.config.features

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self._described(), sort_keys=True).encode())
        if self.source is not None:
            digest.update(self.source.weights_sha256.encode())
        else:
            for name in sorted(self.arrays):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        if self.learnt:
            digest.update(digest_of_learnt(self.learnt).encode())
        return digest.hexdigest()

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features (rows, width); a picture that cannot be read is named and holds NaN."""
        begun = time.perf_counter()
        values = np.full((len(rows), self.width), np.nan, dtype=np.float32)
        unreadable: dict[int, str] = {}
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for start in range(0, len(rows), _CHUNK):
                index = range(start, min(start + _CHUNK, len(rows)))
                found = list(pool.map(partial(self._read, rows), index))
                unreadable |= {i: said for i, said in zip(index, found, strict=True) if isinstance(said, str)}
                readable = [i for i in index if i not in unreadable]
                if readable:
                    pictures = [picture for picture in found if not isinstance(picture, str)]
                    values[readable] = self.run(np.stack(pictures))
                notify(Progress("features", index.stop, len(rows)))
        seconds = time.perf_counter() - begun
        record = Extraction(len(rows), len(rows), 0, seconds, runtime="torch", precision="float32")
        return Features({"pooled": values}, unreadable, record)

    def run(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Prepared pictures (n, channels, size, size) -> features (n, width).

        Every batch has the same shape, filled up with black: an answer must not depend on how many
        pictures were asked about together.
        """
        out = np.empty((len(pictures), self.width), dtype=np.float32)
        batch = torch.zeros(_BATCH, *pictures.shape[1:]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                part = pictures[start : start + _BATCH]
                batch.zero_()
                batch[: len(part)] = torch.from_numpy(part) / 255
                out[start : start + len(part)] = self._folded.features(batch).numpy()[: len(part)]
        return out

    def reading(self) -> Reading:
        """See `ReadApart`."""
        return Look(self.config.size, self.config.channels, self.preparation)

    def runner(self) -> engine.Runner:
        """See `Served.runner`."""
        return _Runner(self)

    def together(self, inputs: engine.Arrays) -> int:
        return _BATCH

    def joined(self, features: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.asarray(features[0])

    def state(self) -> BackboneState:
        if self.source is None:
            return BackboneState("compact", {"version": VERSION, **self._described()}, self._weights)
        config = {"version": VERSION, **({"learnt": digest_of_learnt(self.learnt)} if self.learnt else {})}
        return BackboneState("compact", config, dict(self.learnt), self.source)

    @property
    def _weights(self) -> Mapping[str, NDArray[np.float32]]:
        return {**self.arrays, **self.learnt}

    @property
    def frame(self) -> str:
        return self.preparation.frame

    def network(self) -> nn.Module:
        """See `Tunable.network`; not folded."""
        network = CompactNet(self.config, classes=1)
        load(network, self._weights)
        channels_last(network)
        return CompactFeatures(network).eval()

    def blocks(self) -> tuple[str, ...]:
        """See `Tunable.blocks`."""
        return cutting.blocks(CompactFeatures(CompactNet(self.config, classes=1)))

    def examples(self, rows: Rows, notify: Notify = silent) -> Examples:
        """See `Tunable.examples`."""
        size = self.config.size
        pixels = room((len(rows), size, size, self.config.channels), np.uint8)
        for i, found in enumerate(in_order(len(rows), partial(self._read, rows))):
            if isinstance(found, str):
                raise Unreadable(f"{rows.names[i]} {found}; remove or replace it, then run again")
            pixels[i] = found.transpose(1, 2, 0)
            if i % _CHUNK == 0:
                notify(Progress("reading", i, len(rows)))
        return Pictures(pixels)

    def cut(
        self,
        block: str | None,
        rows: Rows,
        views: Sequence[View | None],
        keep: Keep,
        notify: Notify = silent,
    ) -> Cut:
        """See `Tunable.cut`."""
        if block is not None:
            return cut(self, block, rows, views, keep, notify)
        network = self.network()
        names = frozenset(name for name, _ in network.named_parameters())
        return Cut(None, network, self.examples(rows, notify), names)

    def tuned(
        self, learnt: Mapping[str, NDArray[np.float32]], sample: Rows | None, settle: bool = True
    ) -> "Compact":
        """See `Tunable.tuned`; counts of batches, which only training asks for, are left out."""
        return replace(self, learnt={name: learnt[name] for name in learnt if name in self.arrays})

    @property
    def recipe(self) -> engine.Recipe:
        return engine.Recipe({"family": "compact", "network": self.fingerprint}, self.network, self._noise)

    @property
    def runtime(self) -> engine.Runtime:
        return "openvino"  # of the part that is frozen: it runs as other networks do

    def parted(self, block: str) -> cutting.Parted:
        """See `Whole.parted`."""
        name = "this network" if self.source is None else self.source.name
        example = torch.from_numpy(self._noise()[0])
        return cutting.part(self.network(), block, [example], [torch.zeros_like(example)], None, name)

    def before(self, block: str) -> nn.Module:
        """See `Whole.before`."""
        return cutting.Prefix(self.network(), block)

    def one_a_row(self, rows: Rows, unreadable: dict[int, str]) -> Iterator[engine.Batch]:
        """See `Whole.one_a_row`."""
        for i, found in enumerate(in_order(len(rows), partial(self._read, rows))):
            if isinstance(found, str):
                unreadable[i] = found
            else:
                yield np.array([i]), (np.ascontiguousarray(found.transpose(1, 2, 0)[None]),)

    def sample_inputs(self, rows: Rows | None) -> Sequence[engine.Arrays]:
        """See `Whole.sample_inputs`."""
        assert rows is not None, "what a compact network looks at, only rows can tell"
        spread = np.unique(np.linspace(0, len(rows) - 1, engine.SAMPLE).astype(np.int64))
        return [arrays for _, arrays in self.one_a_row(rows.take(spread), {})]

    def _noise(self) -> engine.Arrays:
        size, channels = self.config.size, self.config.channels
        return (np.random.default_rng(0).integers(0, 256, (1, size, size, channels), dtype=np.uint8),)

    def _described(self) -> dict[str, Any]:
        network, preparation = self.config.to_json(), asdict(self.preparation)
        return {"version": VERSION, "network": network, "preparation": preparation}

    def _read(self, rows: Rows, i: int) -> NDArray[np.uint8] | str:
        try:
            return read_picture(rows, self.config, self.preparation, i)
        except Unreadable as reason:
            return str(reason)

    @cached_property
    def _folded(self) -> CompactNet:
        """In eval mode, folded; raises ArtefactError where weights and config do not belong together."""
        network = CompactNet(self.config, classes=1)
        load(network, self._weights)
        network.trunk = folded(network.trunk)
        channels_last(network)
        return network.eval()


@dataclass(frozen=True)
class _Runner:
    """The network as the engine's others are run."""

    compact: Compact
    slots: int = 1

    def run(
        self, batches: Iterable[engine.Batch], sink: Callable[[IntArray, NDArray[np.float32]], None]
    ) -> None:
        for positions, (pictures,) in batches:
            sink(positions, self.compact.run(pictures))


def weights(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """What a network learnt below its classifier, by name."""
    return {
        name: value.detach().contiguous().numpy().copy()
        for name, value in network.state_dict().items()
        if not name.startswith("classifier.") and value.is_floating_point()
    }


def load(network: nn.Module, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Put such weights back; raises ArtefactError where they are not of this network."""
    wanted = weights(network)
    wrong = sorted(
        name for name in wanted.keys() | arrays.keys()
        if name not in wanted or name not in arrays or wanted[name].shape != arrays[name].shape
    )  # fmt: skip
    if wrong:
        raise ArtefactError(
            f"weights and config do not belong together: {len(wrong)} arrays differ, {wrong[0]!r} first; "
            "restore both files from one place"
        )
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    network.load_state_dict(tensors, strict=False)


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> Compact:
    """Its own size, framing and cut are fixed, and torch runs it; raises RequestError for other options."""
    if options.pooling not in (None, "auto") or options.resize is not None:
        raise RequestError(f"source {source.name!r} is taken as it is; leave --pooling and --resize out")
    return open_compact(source)


def open_compact(source: Source) -> Compact:
    """The backbone in a source folder that `graft pretrain` wrote.

    Raises ArtefactError where its files are damaged, altered or of a newer version.
    """
    from safetensors.numpy import load_file

    source.verify()
    described = source.json("config.json")
    if described.get("model_type") != COMPACT or described.get("version") != VERSION:
        raise ArtefactError(
            f"{source.folder / 'config.json'} describes {described.get('model_type')!r} of version "
            f"{described.get('version')}; this graftwork opens {COMPACT!r} of version {VERSION}"
        )
    arrays = load_file(source.folder / "model.safetensors")
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return _built(described, arrays, source)


def restore(state: BackboneState) -> Compact:
    """The backbone that gave `state`; raises ArtefactError for a state of another version."""
    if state.config.get("version") != VERSION:
        raise ArtefactError(
            f"this model prepares pictures by version {state.config.get('version')}, this graftwork by "
            f"{VERSION}; fit it again, or install the graftwork that saved it"
        )
    if state.source is not None:
        check_learnt(state.arrays, state.config, state.source.name)
        saved = replace(open_compact(state.source), learnt=dict(state.arrays))
        load(CompactNet(saved.config, classes=1), saved._weights)
        return saved
    return _built(state.config, state.arrays, None)


def _built(
    described: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]], source: Source | None
) -> Compact:
    for part in ("network", "preparation"):
        if not isinstance(described.get(part), Mapping):
            raise ArtefactError(f"the config of a compact network lacks {part!r}; make the source again")
    config = CompactConfig.from_json(described["network"])
    load(CompactNet(config, classes=1), arrays)  # what does not fit is refused now, not when asked
    return Compact(config, Preparation.from_json(described["preparation"]), arrays, source)
