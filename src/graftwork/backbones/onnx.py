"""ONNX files as frozen backbones: pictures, texts and recordings, run by onnxruntime on the processor.

Each row is prepared and run alone, on one thread, as many rows at once as there are cores: no neighbour,
batch or number of cores changes a bit.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones import onnx_output, speech_embedding
from graftwork.backbones.ahead import in_order
from graftwork.backbones.base import BackboneState, Options
from graftwork.backbones.onnx_inputs import Inputs, inputs_of, settings_of
from graftwork.backbones.onnx_output import Output
from graftwork.backbones.onnx_session import Network, network, release, runtime_version
from graftwork.backbones.pretrained import blank
from graftwork.backbones.texts import pooling_of
from graftwork.errors import ArtefactError, RequestError, Unreadable
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Kind, Rows
from graftwork.sounds import DECODERS
from graftwork.sources import Source
from graftwork.sources.onnx import entry_of
from graftwork.sources.onnx_graph import read_graph

VERSION = 1
"""Raised whenever the same file and config begin to give other numbers."""
_NOTIFY_S = 0.1


@dataclass(frozen=True)
class Onnx:
    """A frozen network in an ONNX file. `config` is plain JSON and holds all that shapes its numbers:

    input (how a row is prepared), output (the tensor that is taken), inner (whether it lies within the
    graph), pooling, normalise, width, notes (what was taken for granted).
    """

    source: Source
    config: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        return self.source.kind

    @property
    def width(self) -> int:
        return int(self.config["width"])

    @cached_property
    def fingerprint(self) -> str:
        readers = {"image": f"pillow {PIL.__version__}", "audio": DECODERS, "text": ""}
        shaping = {name: value for name, value in self.config.items() if name != "notes"}
        return paths.digest_of(
            {
                "family": "onnx",
                "version": VERSION,
                "files": dict(self.source.files),
                "config": shaping,
                "reader": readers[self.kind],
                "runtime": runtime_version(),
            }
        )

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """See `Backbone.features`; (rows, width) float32."""
        started = said = time.perf_counter()
        out = blank(len(rows), self.width)
        unreadable: dict[int, str] = {}
        column = rows.column

        def one(i: int) -> NDArray[np.float32] | str:
            try:
                return self._vector(column, i)
            except Unreadable as error:
                return str(error)

        if len(rows):
            self._ready()
        for i, found in enumerate(in_order(len(rows), one)):
            if isinstance(found, str):
                unreadable[i] = found
                out[i] = np.nan
            else:
                out[i] = found
            if time.perf_counter() - said > _NOTIFY_S:
                said = time.perf_counter()
                notify(Progress("features", i + 1, len(rows)))
        notify(Progress("features", len(rows), len(rows)))
        seconds = time.perf_counter() - started
        made = Extraction(len(rows), len(rows) - len(unreadable), 0, seconds, "onnxruntime", "f32")
        return Features({"pooled": out}, unreadable, made)

    def remarks(self, rows: Rows) -> tuple[str, ...]:
        """What was taken for granted of a file that does not say."""
        return tuple(self.config["notes"])

    def state(self) -> BackboneState:
        return BackboneState("onnx", dict(self.config), {}, self.source)

    def _vector(self, column: Any, i: int) -> NDArray[np.float32]:
        steps = [self.steps(given) for given in self._inputs.of(column, i)]
        vector = onnx_output.pooled(np.concatenate(steps), self.config["pooling"], self.config["normalise"])
        if vector.shape != (self.width,):
            raise RequestError(
                f"source {self.source.name!r} gave {len(vector):,} numbers for a row, {self.width:,} for "
                "another; try pooling mean"
            )
        if not np.isfinite(vector).all():
            raise Unreadable("has features that are no numbers (the network overflows on it)")
        return vector

    def steps(self, given: Any) -> NDArray[np.float32]:
        (array,) = self._network.run(given.feeds, [self.config["output"]])
        return onnx_output.frames(array, self.config["input"]["form"], given.keep)

    def _ready(self) -> None:
        """Open everything before threads ask for it at once."""
        self.steps(self._inputs.example())

    def release(self) -> None:
        """See `Kept.release`."""
        release(self.source, self.source.options["model"], self._inner)

    @property
    def _inner(self) -> str | None:
        return self.config["output"] if self.config["inner"] else None

    @cached_property
    def _network(self) -> Network:
        return network(self.source, self.source.options["model"], self._inner)

    @cached_property
    def _inputs(self) -> Inputs:
        return _prepared(self.source, self.config["input"])


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> Onnx:
    """The source, run once on a made-up row to see what it gives; see `open_backbone` for errors.

    Poolings: onnx_output.POOLINGS. resize: crop or fit, for pictures.
    """
    pooling = "auto" if options.pooling is None else options.pooling
    if pooling not in onnx_output.POOLINGS:
        known = ", ".join(onnx_output.POOLINGS)
        raise RequestError(f"no pooling {pooling!r} for an ONNX file; expected one of {known}")
    if options.runtime is not None:
        raise RequestError(f"source {source.name!r} is run by onnxruntime; leave --runtime out")
    if options.resize not in (None, "crop", "fit"):
        raise RequestError(f"no resize {options.resize!r}; expected crop or fit")
    if options.resize is not None and source.kind != "image":
        raise RequestError(f"source {source.name!r} takes no pictures; leave --resize out")
    settings, notes = _settings(source, fit=options.resize == "fit")
    model = source.options["model"]
    opened = network(source, model)
    example = _prepared(source, settings).example()
    found = dict(zip(opened.outputs, opened.run(example.feeds, opened.outputs), strict=True))
    output = Output(opened.outputs[0])
    if settings["form"] != "windows":
        output = onnx_output.choose(opened.graph, found, source.kind, pooling)
    if output.inner:
        notes.append(
            f"the features of {source.name} are what its classifier takes ({output.name!r}); "
            "--pooling output takes its class scores"
        )
    stated, normalise = pooling_of(source) if source.kind == "text" else ("mean", False)
    config: dict[str, Any] = {
        "input": settings,
        "output": output.name,
        "inner": output.inner,
        "pooling": "flatten",
        "normalise": normalise,
        "width": 0,
        "notes": notes,
    }
    steps = Onnx(source, config).steps(example)
    config["pooling"] = onnx_output.settled(pooling, stated, source.kind, steps, settings["form"])
    config["width"] = len(onnx_output.pooled(steps, config["pooling"], normalise))
    return Onnx(source, config)


def restore(state: BackboneState) -> Onnx:
    """A saved backbone; raises ArtefactError without its source, MissingExtra without onnxruntime."""
    if state.source is None:
        raise ArtefactError("this ONNX backbone names no source; restore the artefact from a copy")
    return Onnx(state.source, state.config)


def _settings(source: Source, *, fit: bool) -> tuple[dict[str, Any], list[str]]:
    if "front" in source.options:
        return dict(speech_embedding.SETTINGS), []
    path = source.folder / source.options["model"]
    graph = read_graph(path)
    return settings_of(source, graph, entry_of(source.folder, path, graph), fit=fit)


def _prepared(source: Source, settings: Mapping[str, Any]) -> Inputs:
    path = source.folder / source.options["model"]
    graph = read_graph(path)
    if "front" not in source.options:
        return inputs_of(source, graph, entry_of(source.folder, path, graph), settings)
    front = network(source, source.options["front"])
    (heard,) = front.graph.inputs

    def mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return front.run({heard.name: samples}, front.outputs[:1])[0]

    return speech_embedding.SpeechEmbedding(graph.inputs[0].name, mel, settings)
