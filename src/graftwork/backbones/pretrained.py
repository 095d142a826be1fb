"""What encoders of transformers have in common: loading, the choice of a path, the run, the fingerprint."""

import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones import engine
from graftwork.backbones.base import BackboneState, Cut, Examples, Keep, View
from graftwork.backbones.learnt import (
    ADAPTED,
    KEY,
    PAIRS,
    Pair,
    apply_learnt,
    check_learnt,
    digest_of_learnt,
    pairs_of,
    strung,
)
from graftwork.backbones.served import NOTHING, Added, beside
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Kind, Rows
from graftwork.sources import Source

if TYPE_CHECKING:  # torch takes seconds, which runs on stored features need not spend
    from graftwork.backbones.cutting import Parted

MAPPED_BYTES = 64_000_000
"""Larger results lie in an unlinked temporary file: the system may write them out under pressure."""
AHEAD = 3
"""Rows that a network which serves holds for each of its streams."""
Number = TypeVar("Number", np.float32, np.uint8)
_MEASURED = ("runtime", "precision", "width", "parity")
_SETTLED = (*_MEASURED, KEY, PAIRS)


@dataclass(frozen=True)
class Pretrained(ABC):
    """A frozen encoder of transformers. `config` is plain JSON and holds all that shapes its numbers.

    Nothing is loaded until features are asked for.
    """

    source: Source
    config: Mapping[str, Any]
    learnt: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False, compare=False)
    """Tensors of the network that were tuned, by name (see learnt.py); `config` has their digest."""

    family: ClassVar[str]
    kind: ClassVar[Kind]
    version: ClassVar[int]
    """Raised whenever the same config begins to give other numbers."""

    @property
    def recipe(self) -> engine.Recipe:
        """How the engine gets the network with what was tuned in place, which is part of its key."""
        key = self._keyed(KEY, PAIRS, "layers")
        return engine.Recipe(key, self.network, self._example, self._lengths, passing=bool(self.learnt))

    @cached_property
    def running(self) -> engine.Recipe:
        """How the engine gets the network that gives the features: where pairs are its inputs it knows the
        layers beside which they stand, and none of their numbers.
        """
        if PAIRS not in self.config:
            return self.recipe
        key, settled = self._keyed(PAIRS), str(self.config[KEY])
        return engine.Recipe(
            key, self._adapted, self._added_example, self._lengths, shared=1, settled_by=settled
        )

    def _keyed(self, *names: str) -> dict[str, Any]:
        changed = {name: self.config[name] for name in names if name in self.config}
        if PAIRS in changed:
            changed["pairs version"] = ADAPTED
        return {"family": self.family, "version": self.version, **self._key(), **changed}

    def _adapted(self) -> Any:
        from graftwork.backbones.adapters import Adapted

        return Adapted(self._build(), self.config[PAIRS], self.source.name).eval()

    def _added_example(self) -> engine.Arrays:
        example = self._example()
        return beside(example, [self.added] * len(example[0]))

    @cached_property
    def added(self) -> Added:
        """See `Sharing.added`."""
        return Added(str(self.config[KEY]), strung(self.learnt)) if PAIRS in self.config else NOTHING

    @abstractmethod
    def _key(self) -> Mapping[str, Any]:
        """Plain JSON of all that shapes the source's own network."""

    @abstractmethod
    def _build(self) -> Any:
        """The source's own network: a torch module in eval mode."""

    @abstractmethod
    def _example(self) -> engine.Arrays:
        """Inputs of one small batch."""

    frame: ClassVar[str] = "whole"

    def blocks(self) -> tuple[str, ...]:
        """See `Tunable.blocks`."""
        return self._blocks

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        from graftwork.backbones.cutting import blocks

        return blocks(self.network())

    def cut(
        self,
        block: str | None,
        rows: Rows,
        views: Sequence[View | None],
        keep: Keep,
        notify: Notify = silent,
    ) -> Cut:
        """See `Tunable.cut`."""
        from graftwork.backbones.examples import Tokens
        from graftwork.backbones.parted import cut

        if block is not None:
            return cut(self, block, rows, views, keep, notify)
        network = self.network()
        names = frozenset(name for name, one in network.named_parameters() if one.requires_grad)
        examples = self.examples(rows, notify)
        if isinstance(examples, Tokens):
            examples = examples.tight()  # an eighth of all tokens would be padding
        return Cut(None, network, examples, names)

    def parted(self, block: str) -> "Parted":
        """See `Whole.parted`."""
        import torch

        from graftwork.backbones import cutting

        inputs = self.sample_inputs(None)[0]
        example = tuple(torch.from_numpy(array) for array in inputs)
        blanks = [torch.from_numpy(array) for array in self.blanks()]
        steps = self.steps(inputs) if self._lengths else None
        return cutting.part(self.network(), block, example, blanks, steps, self.source.name)

    def steps(self, inputs: engine.Arrays) -> int:
        """How long a row's inputs are, of backbones whose rows differ in that."""
        return int(inputs[0].shape[1])

    def before(self, block: str) -> Any:
        """See `Whole.before`."""
        from graftwork.backbones.cutting import Prefix

        return Prefix(self.network(), block)

    def blanks(self) -> list[NDArray[Any]]:
        """What may stand for the first input where only its stem's run matters; small ones first."""
        return []

    def one_a_row(self, rows: Rows, unreadable: dict[int, str]) -> Iterable[engine.Batch]:
        """See `Whole.one_a_row`."""
        return self.batches(rows, unreadable)

    @property
    def runtime(self) -> engine.Runtime:
        runtime: engine.Runtime = self.config["runtime"]
        return runtime

    @abstractmethod
    def examples(self, rows: Rows, notify: Notify = silent) -> Examples:
        """See `Tunable.examples`."""

    @property
    def _lengths(self) -> bool:
        """Whether rows differ in length."""
        return False

    def network(self) -> Any:
        """A torch module of the caller's own, float32, eval mode, with what was tuned in place."""
        module = self._build()
        if self.learnt:
            apply_learnt(module, self.learnt, self.source.name)
        module = self._with_layers(module) if "layers" in self.config else module
        return module.eval()

    def _with_layers(self, module: Any) -> Any:
        """The network whose features are those of the config's layers, then its own."""
        from graftwork.backbones.pooling import LayersNetwork

        return LayersNetwork(module, [name for name, _ in self.config["layers"]])

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """See `Layered.parts`."""
        layers = [(name, width) for name, width in self.config.get("layers", [])]
        return (*layers, ("features", self.width - sum(width for _, width in layers)))

    def layered(self, blocks: Sequence[str], sample: Rows | None, notify: Notify = silent) -> Self:
        """See `Layered.layered`."""
        from graftwork.backbones.cutting import known_block

        names = tuple(known_block(self.blocks(), block, self.source.name) for block in blocks)
        if names not in self._variations:
            config = {name: said for name, said in self.config.items() if name not in (*_MEASURED, PAIRS)}
            widths = self._widths(names)
            bare = replace(
                self, config={**config, "layers": [list(pair) for pair in zip(names, widths, strict=True)]}
            )
            wanted: engine.Runtime | None = "torch" if self.config["runtime"] == "torch" else None
            self._variations[names] = replace(bare, config=bare.settled(sample, wanted, notify))
        return self._variations[names]

    @cached_property
    def _variations(self) -> dict[tuple[str, ...], Self]:
        return {}

    def _widths(self, names: Sequence[str]) -> list[int]:
        """How many features each of these blocks gives."""
        import torch

        layers = replace(self, config={**self.config, "layers": [[name, 0] for name in names]})
        module = layers.network()
        with torch.inference_mode():
            inputs = (torch.from_numpy(array) for array in self.sample_inputs(None)[0])
            widths: list[int] = module.widths(*inputs)
            return widths

    def tuned(
        self, learnt: Mapping[str, NDArray[np.float32]], sample: Rows | None, settle: bool = True
    ) -> Self:
        """See `Tunable.tuned`."""
        bare = {key: value for key, value in self.config.items() if key not in _SETTLED}
        config = {**bare, KEY: digest_of_learnt(learnt)} if learnt else bare
        changed = replace(self, config=config, learnt=dict(learnt))
        if learnt and not settle:
            return replace(changed, config={**config, **self._unsettled()})
        if self._beside(pairs := pairs_of(learnt)):
            changed = replace(changed, config={**config, PAIRS: pairs})
        # where torch was asked for, or all that agreed, nothing else is tried
        settled = self.runtime == "torch" and self.config["parity"]["rows"]
        return replace(changed, config=changed.settled(sample, "torch" if settled else None))

    def _beside(self, pairs: Sequence[Pair]) -> bool:
        """Whether the network can take these pairs as inputs; tried once for each set of layers and ranks."""
        if not pairs or "layers" in self.config:
            return False
        from graftwork.backbones.adapters import fits

        def tried() -> dict[str, Any]:
            row = [array[:1] for array in self.sample_inputs(None)[0]]
            return {"fits": fits(self._build(), pairs, row, self.source.name)}

        key = {"network": self._keyed(), "pairs": pairs, "by": engine.runtime_version("torch")}
        return bool(paths.kept("pairs", key, tried)["fits"])

    def _unsettled(self) -> dict[str, Any]:
        """The path that needs no conversion: torch in float32 instead of OpenVINO, agreed on no row."""
        same = {name: self.config[name] for name in _MEASURED}
        exact = {"mean_cosine": 1.0, "minimum_cosine": 1.0, "rows": 0.0}
        plain = {"runtime": "torch", "precision": "f32", "parity": exact}
        return {**same, **plain} if self.runtime == "openvino" else same

    @abstractmethod
    def batches(self, rows: Rows, unreadable: dict[int, str]) -> Iterable[engine.Batch]:
        """Network inputs of every readable row; the reasons of the others go into `unreadable`."""

    reader: ClassVar[str] = ""
    """What turns contents into inputs, where that is a library whose versions may differ."""

    @property
    def width(self) -> int:
        return int(self.config["width"])

    @cached_property
    def fingerprint(self) -> str:
        return self._digest(self.recipe)

    @cached_property
    def shared(self) -> str:
        """See `Sharing.shared`."""
        return self._digest(self.running)

    def _digest(self, recipe: engine.Recipe) -> str:
        runtime: engine.Runtime = self.config["runtime"]
        return paths.digest_of(
            {
                "network": dict(recipe.key),
                "preprocessing": self.config["preprocessing"],
                "reader": self.reader,
                "runtime": [runtime, engine.runtime_version(runtime)],
                "precision": self.config["precision"],
                "dtype": "float32",
            }
        )

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """See `Backbone.features`. A result beyond 64 MB is mapped from a temporary file."""
        started = time.perf_counter()
        out = blank(len(rows), self.width)
        unreadable: dict[int, str] = {}
        if len(rows):
            runner = engine.runner(self.running, self.config["runtime"], self.config["precision"])
            self._run(runner, rows, out, unreadable, notify)
        for i in unreadable:
            out[i] = np.nan
        seconds = time.perf_counter() - started
        extraction = Extraction(
            len(rows),
            len(rows) - len(unreadable),
            0,
            seconds,
            self.config["runtime"],
            self.config["precision"],
            self.config["parity"],
        )
        return Features({"pooled": out}, dict(sorted(unreadable.items())), extraction)

    def _run(
        self,
        runner: engine.Runner,
        rows: Rows,
        out: NDArray[np.float32],
        unreadable: dict[int, str],
        notify: Notify,
    ) -> None:
        """Fill `out` (rows, width), but for the rows that go into `unreadable`."""
        engine.collect(runner, self._with_added(self.batches(rows, unreadable)), out, notify, "features")

    def _with_added(self, batches: Iterable[engine.Batch]) -> Iterable[engine.Batch]:
        return ((places, beside(arrays, [self.added] * len(places))) for places, arrays in batches)

    def runner(self) -> engine.Runner:
        """See `Served.runner`."""
        ready = engine.runner(self.running, self.config["runtime"], self.config["precision"])
        # texts gather while the network works, and go together: the less it holds, the more they are
        return ready.beside(1 if self.kind == "text" else AHEAD)

    def release(self) -> None:
        """See `Kept.release`."""
        engine.release(self.running, self.config["runtime"], self.config["precision"])

    def together(self, inputs: engine.Arrays) -> int:
        """See `Served.together`."""
        return engine.CUDA_ROWS if self.config["runtime"] == "cuda" else 1

    def joined(self, features: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[Any]:
        """See `Served.joined`."""
        return np.asarray(features[0])

    def state(self) -> BackboneState:
        return BackboneState(self.family, dict(self.config), dict(self.learnt), self.source)

    def settled(
        self, sample: Rows | None, wanted: engine.Runtime | None, notify: Notify = silent
    ) -> dict[str, Any]:
        """The config completed by the path this machine takes (see engine.decide)."""

        def chosen() -> Sequence[engine.Arrays]:
            notify(Progress("comparing runtimes, once for this source", 0, None, "rows"))
            return [beside(inputs, [self.added]) for inputs in self.sample_inputs(sample)]

        decision = engine.decide(self.running, chosen, wanted, made_up=sample is None)
        return {
            **self.config,
            "runtime": decision.runtime,
            "precision": decision.precision,
            "width": decision.width,
            "parity": dict(decision.parity),
        }

    @abstractmethod
    def synthetic(self) -> Rows:
        """A few made-up rows, for deciding on a path where there are no real ones."""

    def sample_inputs(self, rows: Rows | None) -> Sequence[engine.Arrays]:
        """Inputs of up to 64 readable rows spread over `rows`, made-up ones where there are few."""
        found: list[engine.Arrays] = []
        if rows is not None and len(rows):
            spread = np.unique(np.linspace(0, len(rows) - 1, engine.SAMPLE).astype(np.int64))
            found = self._inputs(rows.take(spread))
        return found if len(found) >= engine.SAMPLE // 4 else [*found, *self._inputs(self.synthetic())]

    def _inputs(self, rows: Rows) -> list[engine.Arrays]:
        return [
            tuple(array[i : i + 1] for array in arrays)
            for positions, arrays in self.batches(rows, {})
            for i in range(len(positions))
        ]


def on_this_machine(backbone: Pretrained) -> dict[str, Any]:
    """A saved backbone's config, with the path it was saved with where this machine can take it.

    Raises ArtefactError where what was tuned is damaged or missing.
    """
    check_learnt(backbone.learnt, backbone.config, backbone.source.name)
    if engine.usable(backbone.config["runtime"], backbone.config["precision"]):
        return dict(backbone.config)
    return backbone.settled(None, None)


def blank(rows: int, width: int) -> NDArray[np.float32]:
    """Room for (rows, width) float32; see `room`."""
    return room((rows, width), np.float32)


def room(shape: tuple[int, ...], dtype: type[Number]) -> NDArray[Number]:
    """An array to fill; beyond MAPPED_BYTES in a temporary file that has no name any more."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= MAPPED_BYTES:
        return np.empty(shape, dtype)
    # beside the store rather than in /tmp, which may itself lie in memory
    place = paths.home() if os.access(paths.home(), os.W_OK) else None
    with tempfile.TemporaryFile(dir=place) as file:
        try:
            # reserved now: on a full disk a write to the map would end the process
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r+", shape=shape)
