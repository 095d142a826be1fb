"""The text network that `scratch` trains, as a backbone: hashed n-grams in, pooled features out.

A word is known by itself and by its runs of three and four characters; a sign of a script written
without spaces (Chinese, Japanese, Thai, ...) by itself and by the pair it makes with the next one.
"""

import hashlib
import json
import re
import time
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.backbones.base import BackboneState
from graftwork.backbones.compact import load
from graftwork.errors import ArtefactError, Unreadable
from graftwork.networks import SubwordConfig, SubwordNet
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import IntArray, Kind, Rows

VERSION = 1
"""Of the tokens below; part of the fingerprint."""
LONGEST = 256
"""Tokens read of a text; a longer one is judged by its beginning."""
GRAMS = 16
"""N-grams kept of a token; further ones are left out."""

_CHARACTERS = 8 * LONGEST
_BATCH = 32
_CHUNK = 4_096
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(f"[{_SPACELESS}]|[^\\W{_SPACELESS}]+|[^\\w\\s]")
_SIGN = re.compile(f"[{_SPACELESS}]")

Tokens = NDArray[np.int32]
"""A text as (tokens, GRAMS): rows of the n-gram table, 0 for none."""


def tokens(text: str, buckets: int) -> Tokens:
    """The hashed n-grams of each token of `text`, at least one token (of zeros for an empty text)."""
    found = _TOKEN.findall(unicodedata.normalize("NFKC", text[:_CHARACTERS]).lower())[:LONGEST]
    table = np.zeros((max(len(found), 1), GRAMS), dtype=np.int32)
    for place, token in enumerate(found):
        grams = _grams(token, found[place + 1] if place + 1 < len(found) else "")[:GRAMS]
        # bucket 0 stands for nothing
        table[place, : len(grams)] = [
            1 + zlib.crc32(gram.encode("utf-8", "replace")) % (buckets - 1) for gram in grams
        ]
    return table


def _grams(token: str, following: str) -> list[str]:
    if _SIGN.match(token):
        return [token, token + following]
    marked = f"<{token}>"
    return [marked, *(marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1))]


def padded(texts: Sequence[Tokens], length: int) -> torch.Tensor:
    """(texts, length, GRAMS) int64, filled up with zeros."""
    table = np.zeros((len(texts), length, GRAMS), dtype=np.int64)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(table)


def read_tokens(rows: Rows, i: int, buckets: int) -> Tokens:
    """Row i as tokens; raises Unreadable."""
    return tokens(rows.column.read(i).decode("utf-8", "replace"), buckets)


@dataclass(frozen=True)
class Subwords:
    """A trained subword network without its classifier: texts -> features (2 x its width)."""

    config: SubwordConfig
    arrays: Mapping[str, NDArray[np.float32]]

    @property
    def kind(self) -> Kind:
        return "text"

    @property
    def width(self) -> int:
        return 2 * self.config.width

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.state().config, sort_keys=True).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features (rows, width); a text that cannot be read is named and holds NaN."""
        begun = time.perf_counter()
        values = np.full((len(rows), self.width), np.nan, dtype=np.float32)
        unreadable: dict[int, str] = {}
        for start in range(0, len(rows), _CHUNK):
            stop = min(start + _CHUNK, len(rows))
            texts: dict[int, Tokens] = {}
            for i in range(start, stop):
                try:
                    texts[i] = read_tokens(rows, i, self.config.buckets)
                except Unreadable as reason:
                    unreadable[i] = str(reason)
            if texts:
                values[list(texts)] = self.run(list(texts.values()))
            notify(Progress("features", stop, len(rows)))
        seconds = time.perf_counter() - begun
        record = Extraction(len(rows), len(rows), 0, seconds, runtime="torch", precision="float32")
        return Features({"pooled": values}, unreadable, record)

    def run(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Tokens -> features (texts, width).

        A text is filled up to a length that follows from itself alone, and a batch to a fixed number
        of texts: an answer must not depend on what else was asked.
        """
        out = np.empty((len(texts), self.width), dtype=np.float32)
        lengths = np.array([_room(len(text)) for text in texts])
        with torch.inference_mode():
            for length in np.unique(lengths):
                alike = np.flatnonzero(lengths == length)
                for start in range(0, len(alike), _BATCH):
                    part = alike[start : start + _BATCH]
                    batch = [texts[i] for i in part] + [_NOTHING] * (_BATCH - len(part))
                    out[part] = self.network.features(padded(batch, int(length))).numpy()[: len(part)]
        return out

    def state(self) -> BackboneState:
        config = {"version": VERSION, "network": self.config.to_json(), "longest": LONGEST, "grams": GRAMS}
        return BackboneState("subwords", config, self.arrays)

    @cached_property
    def network(self) -> SubwordNet:
        """In eval mode; raises ArtefactError where weights and config do not belong together."""
        network = SubwordNet(self.config, classes=1)
        load(network, self.arrays)
        return network.eval()


_NOTHING: Tokens = np.zeros((1, GRAMS), dtype=np.int32)


def _room(length: int) -> int:
    """The smallest power of two, at least 16, that holds `length` tokens."""
    return max(16, 1 << (length - 1).bit_length())


def restore(state: BackboneState) -> Subwords:
    """The backbone that gave `state`; raises ArtefactError for a state of another version."""
    config = state.config
    seen = (config.get("version"), config.get("longest"), config.get("grams"))
    if seen != (VERSION, LONGEST, GRAMS):
        raise ArtefactError(
            f"this model cuts texts by version {seen}, this graftwork by {(VERSION, LONGEST, GRAMS)}; "
            "fit it again, or install the graftwork that saved it"
        )
    network = SubwordConfig.from_json(config["network"])
    load(SubwordNet(network, classes=1), state.arrays)  # what does not fit is refused now, not when asked
    return Subwords(network, state.arrays)


def batches(texts: Sequence[Tokens], index: IntArray) -> torch.Tensor:
    """The texts at `index`, filled up to the longest of them: what a training takes."""
    chosen = [texts[i] for i in index]
    return padded(chosen, max(len(text) for text in chosen))
