"""Audio encoders of transformers: recordings heard in windows, each pooled by the engine, then joined."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BufferedIOBase, BytesIO
from itertools import groupby
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graftwork import sounds
from graftwork.backbones import engine
from graftwork.backbones.ahead import in_order
from graftwork.backbones.base import BackboneState, Examples, Options
from graftwork.backbones.hearing import Ear, Filterbank, LogMel, Waves, ear, heard_by
from graftwork.backbones.loading import load_encoder
from graftwork.backbones.pretrained import Pretrained, on_this_machine
from graftwork.backbones.served import Prepared, Reading
from graftwork.errors import ArtefactError, RequestError, Unreadable
from graftwork.records import Notify, Progress, silent
from graftwork.rows import Column, Contents, IntArray, Kind, Rows
from graftwork.sources import Source

POOLINGS = ("auto", "mean", "meanstd", "cls")
PARITY_SECONDS = 120.0
"""So much is heard to compare runtimes, padding included, though never fewer than 16 windows."""
MIXING = frozenset({"wav2vec2-conformer", "data2vec-audio"})
"""Encoders of samples whose convolutions over time take no mask."""
_NOTIFY_S = 0.1
Lengths = NDArray[np.float64]


@dataclass(frozen=True)
class Listening:
    """Recordings -> windows as the network takes them. steps: whether it asks how long the sound was."""

    ear: Ear
    steps: bool

    def __call__(self, content: bytes) -> Prepared:
        return self.windows(BytesIO(content), self.ear.most)

    def windows(self, file: BufferedIOBase, most: int) -> Prepared:
        """At most so many windows; each counts by its samples. Raises Unreadable."""
        heard = sounds.windows(file, self.ear.rate, self.ear.seconds, most)
        return Prepared(
            [self.used(self.ear.hear(window)) for window in heard], np.array([float(len(w)) for w in heard])
        )

    def used(self, arrays: engine.Arrays) -> engine.Arrays:
        return arrays if self.steps else arrays[:1]


class Audio(Pretrained):
    """Frozen audio encoder.

    A recording is cut into windows that the encoder takes (see `hearing`), and its features are the
    mean of theirs, weighted by their lengths; of "meanstd" the deviation is that over all windows. A
    window runs without neighbours and is padded by a rule that knows its own length alone.
    """

    family: ClassVar[str] = "audio"
    kind: ClassVar[Kind] = "audio"
    version: ClassVar[int] = 1
    reader: ClassVar[str] = sounds.DECODERS

    @cached_property
    def ear(self) -> Ear:
        return ear(self.config["preprocessing"])

    def _key(self) -> Mapping[str, Any]:
        return {
            "weights": self.source.weights_sha256,
            "config": self.source.files["config.json"],
            "pooling": self.config["pooling"],
        }

    @property
    def _lengths(self) -> bool:
        return isinstance(self.ear, Waves)

    def batches(
        self, rows: Rows, unreadable: dict[int, str], expect: Callable[[int, Lengths], None] | None = None
    ) -> Iterator[engine.Batch]:
        """Each window by itself; its position is its row * `ear.most` + its number.

        expect: hears of each row's windows before the first of them comes.
        """
        for row, heard in self._all_heard(rows.column, unreadable):
            if expect is not None:
                expect(row, heard.lengths)
            for number, window in enumerate(heard.windows):
                yield np.array([row * self.ear.most + number]), window

    def layered(self, blocks: Sequence[str], sample: Rows | None, notify: Notify = silent) -> Self:
        """See `Layered.layered`; the windows of a recording are then joined by their means alone."""
        if self.config["pooling"] != "meanstd":
            return super().layered(blocks, sample, notify)
        meant = replace(self, config={**self.config, "pooling": "mean"})
        return replace(meant, config=meant.settled(sample, None, notify)).layered(blocks, sample, notify)

    def one_a_row(self, rows: Rows, unreadable: dict[int, str]) -> Iterator[engine.Batch]:
        """The first window of each recording."""
        for row, heard in self._all_heard(rows.column, unreadable, most=1):
            yield np.array([row]), heard.windows[0]

    def examples(self, rows: Rows, notify: Notify = silent) -> Examples:
        """See `Tunable.examples`; of a long recording the first window, all of them lie in memory."""
        from graftwork.backbones.examples import Sounds

        unreadable: dict[int, str] = {}
        arrays: list[engine.Arrays] = []
        for position, window in self.one_a_row(rows, unreadable):
            arrays.append(window)
            if position[0] % 64 == 0:
                notify(Progress("reading", int(position[0]), len(rows)))
        for i, reason in sorted(unreadable.items()):
            raise Unreadable(f"{rows.names[i]} {reason}; remove or replace it, then run again")
        if not isinstance(self.ear, Waves):
            return Sounds(arrays)
        lengths = np.array([self.steps(window) for window in arrays], dtype=np.int64)
        if self._mixes_padding and len(np.unique(lengths)) > 1:
            raise RequestError(
                f"source {self.source.name!r} hears the padding after a sound as well, so recordings of "
                "different lengths cannot be learnt from together; take strategy probe, or another source"
            )
        return Sounds(arrays, lengths)

    @property
    def _mixes_padding(self) -> bool:
        config = self.source.json("config.json")
        return config["model_type"] in MIXING or bool(config.get("add_adapter"))

    def steps(self, inputs: engine.Arrays) -> int:
        assert isinstance(self.ear, Waves)
        return 1 + (int(inputs[0].shape[1]) - self.ear.least) // self.ear.step

    def blanks(self) -> list[NDArray[Any]]:
        # of samples the mask is worked out from the sound itself
        return [] if isinstance(self.ear, Waves) else [np.zeros_like(self._example()[0])]

    def synthetic(self) -> Rows:
        """Coloured noise that swells and fades, of many lengths, as WAV."""
        rng = np.random.default_rng(0)
        contents = []
        for i in range(engine.SAMPLE // 4):
            noise = rng.normal(size=3000 * (i + 1)).astype(np.float32)
            tone = np.convolve(noise, np.hanning(3 + i), "same") * np.sin(np.linspace(0, 20, len(noise)))
            contents.append(sounds.encode(tone / np.abs(tone).max(), 16_000))
        return Rows([f"made-up {i}" for i in range(len(contents))], {"audio": Contents("audio", contents)})

    def _run(
        self,
        runner: engine.Runner,
        rows: Rows,
        out: NDArray[np.float32],
        unreadable: dict[int, str],
        notify: Notify,
    ) -> None:
        joined = _Joined(out, self.config["pooling"], self.ear.most, notify)
        batches = self.batches(rows, unreadable, joined.expect)
        cuda = self.config["runtime"] == "cuda"
        batches = _stacked(batches, engine.CUDA_ROWS) if cuda else batches
        runner.run(self._with_added(batches), joined.put)
        notify(Progress("features", len(rows), len(rows)))

    def _inputs(self, rows: Rows) -> list[engine.Arrays]:
        """The first window of each row, until there is sound enough to judge a runtime by."""
        found: list[engine.Arrays] = []
        seconds, ear = 0.0, self.ear
        for _, heard in self._all_heard(rows.column, {}, most=1):
            found.append(heard.windows[0])
            seconds += heard.lengths[0] / ear.rate if isinstance(ear, Waves) else ear.seconds
            if seconds > PARITY_SECONDS and len(found) >= engine.SAMPLE // 4:
                break
        return found

    def _all_heard(
        self, column: Column, unreadable: dict[int, str], most: int | None = None
    ) -> Iterator[tuple[int, Prepared]]:
        """(position, what is heard) of every readable row, in order, decoded in threads."""
        most = self.ear.most if most is None else most
        # two a core: a long recording's windows take tens of megabytes
        for i, heard in enumerate(in_order(len(column), lambda i: self._heard(column, i, most), 2)):
            if isinstance(heard, str):
                unreadable[i] = heard
            else:
                yield i, heard

    def _heard(self, column: Column, i: int, most: int) -> Prepared | str:
        try:
            with column.open(i) as file:
                return self._listening.windows(file, most)
        except Unreadable as error:
            return str(error)

    @cached_property
    def _listening(self) -> Listening:
        # class tokens are pooled by nothing that asks how long the sound was
        return Listening(self.ear, self.config["pooling"] != "cls")

    def reading(self) -> Reading:
        """See `ReadApart`."""
        return self._listening

    def joined(self, features: NDArray[np.float32], lengths: Lengths) -> NDArray[Any]:
        """See `Served.joined`."""
        return joined(features, lengths, self.config["pooling"])

    def _example(self) -> engine.Arrays:
        return self._listening.used(self.ear.example())

    def _build(self) -> Any:
        from graftwork.backbones.pooling import AudioNetwork, with_held_norms

        pooling, ear = self.config["pooling"], self.ear
        if isinstance(ear, LogMel):
            # the class whose encoder stands alone: half of a Whisper model writes text
            module = load_encoder(self.source, _of_encoder, "AutoModelForAudioClassification")
            return AudioNetwork(_without_chance(module.encoder), pooling)
        # the vector that hides frames in pretraining is not used afterwards
        encoder = _without_chance(load_encoder(self.source, lambda name: name != "masked_spec_embed"))
        if isinstance(ear, Filterbank):
            positions = encoder.embeddings.position_embeddings.shape[1] - 2
            return AudioNetwork(encoder, pooling, bands=positions // ear.steps, tokens=2)
        return AudioNetwork(with_held_norms(encoder), pooling, samples=(ear.least, ear.step))


def _without_chance(encoder: Any) -> Any:
    """The encoder without what transformers does to it in training by chance.

    Masks come from numpy's own random numbers, which no seed of a training reaches, and are refused for
    short sounds; a layer that is left out is one that a parted network cannot begin at.
    """
    for settings in (*encoder.modules(), encoder.config):
        for name, still in (("layerdrop", 0.0), ("encoder_layerdrop", 0.0), ("apply_spec_augment", False)):
            if hasattr(settings, name):
                setattr(settings, name, still)
    return encoder


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> Audio:
    """The backbone of an audio source.

    pooling: auto (the class tokens where there are any, else the mean), mean over time, meanstd (mean
    and standard deviation over time), cls. `sample` rows decide which path this machine takes, once.
    """
    if options.resize is not None:
        raise RequestError(f"source {source.name!r} takes recordings, which have no size; leave --resize out")
    pooling = "auto" if options.pooling is None else options.pooling
    if pooling not in POOLINGS:
        raise RequestError(f"no pooling {pooling!r} for recordings; expected one of {', '.join(POOLINGS)}")
    preprocessing = heard_by(source)
    tokens = preprocessing["ear"] == "filterbank"
    if pooling == "cls" and not tokens:
        raise RequestError(f"source {source.name!r} has no class token; try pooling auto, mean or meanstd")
    if pooling == "auto":
        pooling = "cls" if tokens else "mean"
    bare = Audio(source, {"pooling": pooling, "preprocessing": preprocessing})
    return replace(bare, config=bare.settled(sample, engine.check_runtime(options.runtime), notify))


def restore(state: BackboneState) -> Audio:
    """A saved audio backbone, with the path it was saved with where this machine can take it."""
    if state.source is None:
        raise ArtefactError("this audio backbone names no source; restore the artefact from a copy")
    saved = Audio(state.source, state.config, state.arrays)
    return replace(saved, config=on_this_machine(saved))


def _of_encoder(name: str) -> bool:
    return name.startswith("encoder.")


class _Joined:
    """Rows put together from their windows as these come in, in any order and on any thread.

    A window's position is row * most + its number. A row's windows are joined in their order once all
    are there, so the bits do not depend on which came first.
    """

    def __init__(self, out: NDArray[np.float32], pooling: str, most: int, notify: Notify) -> None:
        self._out, self._pooling, self._most, self._notify = out, pooling, most, notify
        self._lock = threading.Lock()
        self._lengths: dict[int, Lengths] = {}
        self._parts: dict[int, dict[int, NDArray[np.float32]]] = {}
        self._done, self._said = 0, time.monotonic()

    def expect(self, row: int, lengths: Lengths) -> None:
        self._lengths[row], self._parts[row] = lengths, {}
        now = time.monotonic()
        if now - self._said >= _NOTIFY_S:
            self._said = now
            self._notify(Progress("features", self._done, len(self._out)))

    def put(self, positions: IntArray, values: NDArray[np.float32]) -> None:
        with self._lock:
            for position, value in zip(positions.tolist(), values, strict=True):
                row, number = divmod(position, self._most)
                parts = self._parts[row]
                parts[number] = np.array(value)  # a copy: the engine uses its memory again
                if len(parts) == len(self._lengths[row]):
                    whole = np.stack([parts[i] for i in range(len(parts))])
                    self._out[row] = joined(whole, self._lengths.pop(row), self._pooling)
                    del self._parts[row]
                    self._done += 1


def joined(features: NDArray[np.float32], lengths: Lengths, pooling: str) -> NDArray[np.float64]:
    """(windows, width) features of the windows of one recording -> (width,) of the whole.

    The mean weighted by the windows' lengths; of "meanstd" the mean and deviation over all of it:
    sd^2 = sum_w share_w (sd_w^2 + (mean_w - mean)^2).
    """
    share = lengths / lengths.sum()
    if pooling != "meanstd":
        return np.asarray(share @ features.astype(np.float64))
    means, deviations = np.split(features.astype(np.float64), 2, axis=1)
    mean = share @ means
    return np.concatenate([mean, np.sqrt(share @ (deviations**2 + (means - mean) ** 2))])


def _stacked(batches: Iterator[engine.Batch], rows: int) -> Iterator[engine.Batch]:
    """Neighbouring windows of one shape together, up to `rows`: what a GPU needs to be busy."""
    for _, alike in groupby(batches, lambda batch: [array.shape for array in batch[1]]):
        while several := [batch for _, batch in zip(range(rows), alike, strict=False)]:
            positions = np.concatenate([position for position, _ in several])
            arrays = zip(*(inputs for _, inputs in several), strict=True)
            yield positions, tuple(np.concatenate(array) for array in arrays)
