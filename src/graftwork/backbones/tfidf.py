"""Texts as weighted n-grams, read through a learnt linear map: a backbone without pretrained weights.

A text becomes counts of words and word pairs, and of runs of 2 to 5 characters inside words. A sign
of a script written without spaces (Chinese, Japanese, Thai, ...) is a word by itself, so one rule
serves every language. Counts are damped (1 + log tf), weighted by inverse document frequency and
scaled to length one in each view. That vector is as wide as the vocabulary and almost empty, so it
stays sparse in here; what leaves is its product with `weights`, one column a class.

An n-gram is known by a 31-bit hash of its characters: two of 100,000 n-grams share one with a
chance of 5 in 100,000 each, and no string has to be kept.
"""

import hashlib
import json
import re
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from graftwork.backbones.base import BackboneState
from graftwork.errors import ArtefactError, Unreadable
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Kind, Rows

View = Literal["words", "characters"]
VERSION = 1
LONGEST = 5_000
"""Characters read of a text; a longer one is judged by its beginning."""

_CHUNK = 2_000
_BUCKETS = 2**31 - 1
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_WORD = re.compile(f"[{SPACELESS}]|[^\\W{SPACELESS}]+|[^\\w\\s]")
_RUNS = (2, 3, 4, 5)
# an odd multiplier has an inverse modulo 2^64, so the hash of any span is one difference of prefix sums
_MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)


def counts(texts: Sequence[str], view: View) -> sparse.csr_array:
    """How often each n-gram of `view` occurs: (rows, 2^31) float32, a column an n-gram's hash."""
    parts = [_chunk_counts(texts[start : start + _CHUNK], view) for start in range(0, len(texts), _CHUNK)]
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def _chunk_counts(texts: Sequence[str], view: View) -> sparse.csr_array:
    lines = [f" {' '.join(_tokens(text, view))} " for text in texts]
    signs = np.frombuffer("".join(lines).encode("utf-32-le"), dtype=np.uint32)
    row_of = np.repeat(np.arange(len(lines), dtype=np.int64), [len(line) for line in lines])
    starts, ends = _word_spans(signs) if view == "words" else _run_spans(signs)
    keys, seen = np.unique((row_of[starts] << 31) | _hashes(signs, starts, ends), return_counts=True)
    rows = keys >> 31
    pointers = np.searchsorted(rows, np.arange(len(lines) + 1)).astype(np.int32)
    columns = (keys & 0x7FFFFFFF).astype(np.int32)
    return sparse.csr_array((seen.astype(np.float32), columns, pointers), shape=(len(lines), _BUCKETS))


def _tokens(text: str, view: View) -> list[str]:
    plain = unicodedata.normalize("NFKC", text[:LONGEST]).lower()
    return _WORD.findall(plain) if view == "words" else plain.split()


Spans = tuple[NDArray[np.int64], NDArray[np.int64]]


def _word_spans(signs: NDArray[np.uint32]) -> Spans:
    """Every word and every pair of neighbouring words (which includes the space between them)."""
    spaces = np.flatnonzero(signs == 32)
    starts, ends = spaces[:-1] + 1, spaces[1:]
    filled = ends > starts  # two spaces in a row stand between two texts
    pairs = filled[:-1] & filled[1:]
    return (
        np.concatenate([starts[filled], starts[:-1][pairs]]),
        np.concatenate([ends[filled], ends[1:][pairs]]),
    )


def _run_spans(signs: NDArray[np.uint32]) -> Spans:
    """Every run of 2 to 5 characters that holds no space except at its ends."""
    space = signs == 32
    before = np.concatenate([[0], np.cumsum(space)])
    starts, ends = [], []
    for length in _RUNS:
        first = np.arange(max(len(signs) - length + 1, 0))
        inside = before[first + length - 1] - before[first + 1]
        between_texts = space[first] & space[first + 1]
        kept = first[(inside == 0) & ~between_texts]
        starts.append(kept)
        ends.append(kept + length)
    return np.concatenate(starts), np.concatenate(ends)


def _hashes(
    signs: NDArray[np.uint32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """31-bit hash of each span: a polynomial in the characters modulo 2^64, then mixed (splitmix64)."""
    powers = _powers(_MULTIPLIER, len(signs))
    prefix = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum((signs.astype(np.uint64) + np.uint64(1)) * powers)]
    )
    value = (prefix[ends] - prefix[starts]) * _powers(_INVERSE, len(signs))[starts]
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value >> np.uint64(33), dtype=np.int64)


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


@dataclass(frozen=True)
class Weighting:
    """What is learnt of the n-grams of one view, without labels.

    columns: (n-grams,) int32, ascending hashes. idf: (n-grams,) float32, ln((1+N)/(1+df)) + 1.
    """

    view: View
    columns: NDArray[np.int32]
    idf: NDArray[np.float32]

    @classmethod
    def of(cls, counted: sparse.csr_array, view: View, least: int, most: int) -> "Weighting":
        """Keep the n-grams in at least `least` rows; of these the `most` that occur in most rows."""
        columns, rows = np.unique(counted.indices, return_counts=True)
        kept = np.flatnonzero(rows >= least)
        if len(kept) > most:
            kept = np.sort(kept[np.argsort(-rows[kept], kind="stable")[:most]])
        idf = np.log((1 + counted.shape[0]) / (1 + rows[kept])) + 1
        return cls(view, columns[kept].astype(np.int32), idf.astype(np.float32))

    def weigh(self, counted: sparse.csr_array) -> sparse.csr_array:
        """Counts (rows, 2^31) -> (rows, n-grams) float32, each row of length one (or zero)."""
        place = np.searchsorted(self.columns, counted.indices).clip(max=max(len(self.columns) - 1, 0))
        known = self.columns[place] == counted.indices if len(self.columns) else np.zeros(len(place), bool)
        before = np.concatenate([[0], np.cumsum(known)])
        pointers = before[counted.indptr]
        column = place[known].astype(np.int32)
        values = (1 + np.log(counted.data[known])) * self.idf[column]
        row_of = np.repeat(np.arange(counted.shape[0]), np.diff(pointers))
        length = np.sqrt(
            np.bincount(row_of, weights=values.astype(np.float64) ** 2, minlength=counted.shape[0])
        )
        values = (values / length[row_of]).astype(np.float32)
        shape = (counted.shape[0], len(self.columns))
        return sparse.csr_array((values, column, pointers.astype(np.int32)), shape=shape)


def matrix(texts: Sequence[str], weightings: Sequence[Weighting]) -> sparse.csr_array:
    """The views side by side: (rows, n-grams of all views) float32, each row of length at most one."""
    parts = [weighting.weigh(counts(texts, weighting.view)) for weighting in weightings]
    return side_by_side(parts)


def side_by_side(parts: Sequence[sparse.csr_array]) -> sparse.csr_array:
    joined = sparse.csr_array(sparse.hstack(parts, format="csr", dtype=np.float32))
    joined.data *= np.float32(len(parts) ** -0.5)
    return joined


@dataclass(frozen=True)
class Tfidf:
    """n-grams, weighted and projected: features = tfidf(text) weights + intercept.

    weights: (n-grams of all views, width) float32. intercept: (width,) float32.
    """

    weightings: tuple[Weighting, ...]
    weights: NDArray[np.float32]
    intercept: NDArray[np.float32]

    @property
    def kind(self) -> Kind:
        return "text"

    @property
    def width(self) -> int:
        return int(self.weights.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        state = self.state()
        digest = hashlib.sha256(json.dumps(state.config, sort_keys=True).encode())
        for name in sorted(state.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(state.arrays[name]).tobytes())
        return digest.hexdigest()

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features (rows, width); a text that cannot be read is named and holds NaN."""
        begun = time.perf_counter()
        values = np.empty((len(rows), self.width), dtype=np.float32)
        unreadable: dict[int, str] = {}
        for start, texts in chunks(rows, unreadable, LONGEST):
            stop = start + len(texts)
            values[start:stop] = matrix(texts, self.weightings) @ self.weights + self.intercept
            notify(Progress("features", stop, len(rows)))
        values[list(unreadable)] = np.nan
        seconds = time.perf_counter() - begun
        record = Extraction(len(rows), len(rows), 0, seconds, runtime="numpy", precision="float32")
        return Features({"tfidf": values}, unreadable, record)

    def state(self) -> BackboneState:
        arrays: dict[str, NDArray[np.generic]] = {"weights": self.weights, "intercept": self.intercept}
        for weighting in self.weightings:
            arrays[f"{weighting.view}.columns"] = weighting.columns
            arrays[f"{weighting.view}.idf"] = weighting.idf
        views = [weighting.view for weighting in self.weightings]
        return BackboneState("tfidf", {"version": VERSION, "views": views, "longest": LONGEST}, arrays)


def restore(state: BackboneState) -> Tfidf:
    """The backbone that gave `state`; raises ArtefactError for a state of another version."""
    if state.config.get("version") != VERSION or state.config.get("longest") != LONGEST:
        raise ArtefactError(
            f"this model weighs n-grams by version {state.config.get('version')}, this graftwork by "
            f"{VERSION}; fit it again, or install the graftwork that saved it"
        )
    arrays = state.arrays
    weightings = tuple(
        Weighting(view, arrays[f"{view}.columns"], arrays[f"{view}.idf"]) for view in state.config["views"]
    )
    return Tfidf(weightings, arrays["weights"], arrays["intercept"])


def read_texts(rows: Rows) -> list[str]:
    """All texts; raises Unreadable, naming the row, where one cannot be read."""
    unreadable: dict[int, str] = {}
    texts = [text for _, chunk in chunks(rows, unreadable, LONGEST) for text in chunk]
    for i, reason in unreadable.items():
        raise Unreadable(f"{rows.names[i]} {reason}; remove or replace it, then run again")
    return texts


def chunks(rows: Rows, unreadable: dict[int, str], longest: int) -> Iterator[tuple[int, list[str]]]:
    """(first position, texts cut to `longest` signs) of some rows at a time; one that cannot be read is "".

    Reasons go into `unreadable`.
    """
    column = rows.column
    for start in range(0, len(rows), _CHUNK):
        texts = []
        for i in range(start, min(start + _CHUNK, len(rows))):
            try:
                texts.append(column.read(i).decode("utf-8", "replace")[:longest])
            except Unreadable as reason:
                unreadable[i] = str(reason)
                texts.append("")
        yield start, texts
