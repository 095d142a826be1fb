"""Word vectors as a backbone: a text is the pooled vectors of its words, or of its characters.

Nothing is learnt from the rows at hand. How rare a word is, and which direction all words share, is
taken from the vectors' file alone, so every feature is a property of the source and of one text:
- p(w), a word's frequency, from its rank in the file, which the usual tools sort by frequency: Zipf's
  law, p(w) = 1 / (rank H_N); 1 / N where the file is not sorted so.
- the common direction, the first principal direction of the words' second moment, each as often as it
  occurs. Arora, Liang and Ma (2017) take it from the sentences at hand; Mu and Viswanath (2018,
  "All-but-the-top") from the vocabulary, as here.
"""

import time
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from graftwork import paths
from graftwork.backbones.base import BackboneState, Options
from graftwork.backbones.tfidf import chunks
from graftwork.backbones.vectors import Vectors, load
from graftwork.backbones.vocabulary import UNKNOWN, Vocabulary
from graftwork.errors import ArtefactError, RequestError, UnknownName
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import IntArray, Kind, Rows
from graftwork.sources import Source

Pooling = Literal["spread", "mean", "idf", "sif"]
"""spread: mean, standard deviation, largest and smallest of each number, four times as wide (SWEM-concat
of Shen and others 2018 has mean and largest; the others lowered the log-loss on training rows further).
mean: the mean. idf: the mean weighted by ln(1 / p(w)). sif: the mean weighted by A / (A + p(w)),
without its part along the common direction."""
DEFAULT: Pooling = "spread"
VERSION = 1
"""Raised whenever the same file and pooling begin to give other numbers."""
A = 1e-3
FREQUENT = 50_000
"""Words that the common direction is taken from; the others hardly occur."""
LONGEST = 100_000
"""Characters read of a text; a longer one is judged by its beginning."""
_CHUNK_TOKENS = 30_000

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Words:
    """Frozen word vectors: texts -> (width,) float32; a text without any known word is all zeros."""

    source: Source
    pooling: Pooling
    vectors: Vectors = field(repr=False)

    @property
    def kind(self) -> Kind:
        return "text"

    @property
    def width(self) -> int:
        return int(self.vectors.matrix.shape[1]) * (4 if self.pooling == "spread" else 1)

    @cached_property
    def fingerprint(self) -> str:
        weights = self.source.weights_sha256
        return paths.digest_of({"family": "words", "version": VERSION, "weights": weights, **self._config})

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.vectors.words)

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """p(w) of each word, (words,), summing to one."""
        count = len(self.vectors.words)
        ranks = np.arange(1, count + 1, dtype=np.float64) if self.vocabulary.by_frequency else np.ones(count)
        return np.asarray(1 / (ranks * (1 / ranks).sum()), dtype=np.float64)

    @cached_property
    def weights(self) -> Float32:
        """What each word's vector is multiplied by before the sum, (words,)."""
        p = self.frequencies
        weights = {"idf": -np.log(p), "sif": A / (A + p)}.get(self.pooling, np.ones(len(p)))
        # a table of one word has p = 1: no word is rarer than another
        return np.asarray(weights if weights.any() else np.ones(len(p)), dtype=np.float32)

    @cached_property
    def common(self) -> Float32:
        """Unit vector (vectors' width,): the direction that weighted words share."""
        frequent = np.asarray(self.vectors.matrix[:FREQUENT], dtype=np.float64)
        scale = np.sqrt(self.frequencies[: len(frequent)]) * self.weights[: len(frequent)]
        moment = np.asarray((frequent * scale[:, None]).T @ (frequent * scale[:, None]))
        # rounded: the last bits of a product depend on how many threads computed it
        return np.asarray(np.linalg.eigh(moment)[1][:, -1], dtype=np.float32)

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features (rows, width); a text that cannot be read is named and holds NaN."""
        begun = time.perf_counter()
        values = np.zeros((len(rows), self.width), dtype=np.float32)
        unreadable: dict[int, str] = {}
        for start, texts in chunks(rows, unreadable, LONGEST):
            self._fill(values[start : start + len(texts)], self.vocabulary.places(texts))
            notify(Progress("features", start + len(texts), len(rows)))
        values[list(unreadable)] = np.nan
        record = Extraction(
            len(rows), len(rows) - len(unreadable), 0, time.perf_counter() - begun, "numpy", "float32"
        )
        return Features({"pooled": values}, unreadable, record)

    def remarks(self, rows: Rows) -> tuple[str, ...]:
        """What of these rows the vectors do not know, and what was unusual about their file."""
        tokens = unknown = without = 0
        for _, texts in chunks(rows, {}, LONGEST):
            for places in self.vocabulary.places(texts):
                missing = places.count(UNKNOWN)
                tokens, unknown = tokens + len(places), unknown + missing
                without += missing == len(places)
        unit = "characters" if self.vocabulary.characters else "words"
        said = (
            f"{unknown / max(tokens, 1):.2%} of the {tokens:,} {unit} in these rows have no vector; "
            f"{without:,} of {len(rows):,} rows have no known one and become zeros"
        )
        notes = list(self.vectors.notes)
        if self.pooling in ("idf", "sif") and not self.vocabulary.by_frequency:
            notes.append("the vectors' file is not sorted by frequency: all words count as equally frequent")
        return (said, *notes)

    def state(self) -> BackboneState:
        return BackboneState("words", {"version": VERSION, **self._config}, {}, self.source)

    @property
    def _config(self) -> dict[str, Any]:
        return {"pooling": self.pooling}

    def _fill(self, out: Float32, places: list[list[int]]) -> None:
        """Pool each row's known words into `out`, which is zero; a few rows' vectors at a time."""
        known = [[place for place in row if place != UNKNOWN] for row in places]
        start = 0
        while start < len(known):
            stop, tokens = start, 0
            while stop < len(known) and (stop == start or tokens + len(known[stop]) <= _CHUNK_TOKENS):
                tokens += len(known[stop])
                stop += 1
            filled = [i for i in range(start, stop) if known[i]]
            if filled:
                out[filled] = self._pooled([known[i] for i in filled])
            start = stop

    def _pooled(self, places: list[list[int]]) -> Float32:
        """(rows, width) of rows with at least one word each; a row's bits do not depend on the others."""
        flat = np.array([place for row in places for place in row])
        parts = _Parts(np.array([len(row) for row in places]))
        vectors = self.vectors.matrix[flat]
        if self.pooling == "spread":
            mean = parts.sums(vectors) / parts.size
            deviation = np.sqrt(
                parts.sums((vectors - np.repeat(mean, parts.counts, axis=0)) ** 2) / parts.size
            )
            return np.concatenate([mean, deviation, *parts.ends(vectors)], axis=1)
        weights = self.weights[flat][:, None]
        total = parts.sums(vectors * weights)
        if self.pooling != "sif":
            return total / parts.sums(weights)
        mean = total / parts.size
        # not a matrix product, whose rounding depends on how many rows there are
        return np.asarray(mean - (mean * self.common).sum(axis=1, keepdims=True) * self.common)


class _Parts:
    """Consecutive parts of an array's first axis, `counts` long, none of them empty."""

    def __init__(self, counts: IntArray) -> None:
        self.counts = counts
        self.size = counts[:, None].astype(np.float32)
        self.bounds = np.concatenate([[0], np.cumsum(counts)])
        self.adding = sparse.csr_array(
            (np.ones(counts.sum(), np.float32), np.arange(counts.sum()), self.bounds)
        )

    def sums(self, values: Float32) -> Float32:
        """In order within each part; ten times as fast as np.add.reduceat."""
        return np.asarray(self.adding @ values, dtype=np.float32)

    def ends(self, values: Float32) -> tuple[Float32, Float32]:
        """(largest, smallest) of each part."""
        parts = [values[start:stop] for start, stop in pairwise(self.bounds)]
        return np.stack([part.max(axis=0) for part in parts]), np.stack([part.min(axis=0) for part in parts])


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> Words:
    """The vectors, read and checked.

    Raises RequestError for an option that word vectors do not know, and where none of the sample's
    words has a vector; for others see `vectors.load`.
    """
    for name in ("resize", "runtime"):
        if getattr(options, name) is not None:
            raise RequestError(f"{name} does not apply to word vectors; they know pooling alone")
    backbone = Words(source, _pooling(options.pooling), load(source, notify))
    if sample is not None and len(sample):
        _require_known(backbone, sample)
    return backbone


def restore(state: BackboneState) -> Words:
    """The backbone that gave `state`; raises ArtefactError for a state of another version."""
    if state.config.get("version") != VERSION or state.source is None:
        raise ArtefactError(
            f"this model pools word vectors by version {state.config.get('version')}, this graftwork by "
            f"{VERSION}; fit it again, or install the graftwork that saved it"
        )
    return Words(state.source, state.config["pooling"], load(state.source))


def _pooling(asked: str | None) -> Pooling:
    if asked in (None, "auto"):
        return DEFAULT
    for known in get_args(Pooling):
        if asked == known:
            return known  # type: ignore[no-any-return]  # one of Pooling's own names
    raise UnknownName("pooling of word vectors", str(asked), ("auto", *get_args(Pooling)))


def _require_known(backbone: Words, sample: Rows) -> None:
    for _, texts in chunks(sample, {}, LONGEST):
        if any(place != UNKNOWN for places in backbone.vocabulary.places(texts) for place in places):
            return
    first = ", ".join(map(repr, backbone.vectors.words[:3]))
    raise RequestError(
        f"source {backbone.source.name!r} has no vector for any word of these {len(sample):,} texts (its "
        f"words begin {first}); choose vectors of their language"
    )
