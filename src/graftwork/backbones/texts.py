"""Text encoders of transformers: tokenised in bulk, batched by length, pooled, run by the engine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftwork.backbones import engine
from graftwork.backbones.base import BackboneState, Examples, Options
from graftwork.backbones.loading import load_encoder
from graftwork.backbones.pretrained import Pretrained, on_this_machine
from graftwork.backbones.served import Prepared
from graftwork.errors import ArtefactError, RequestError, Unreadable
from graftwork.records import Notify, silent
from graftwork.rows import Column, IntArray, Kind, Rows, Texts
from graftwork.sources import Source

POOLINGS = ("auto", "mean", "cls", "max")
TOKENS_A_BATCH = 512
ADDED_A_BATCH = 500_000_000
"""Bytes of low-rank pairs, which each row takes along."""
"""Enough for the processor's matrix units to be busy, little enough for the batch to stay in its cache."""
STEP = 8
"""Texts are padded to a multiple of this, which depends on the text alone: no neighbour changes a bit."""
CHUNK = 4096
CHARACTERS_A_TOKEN = 32
LONGEST_WORD = 200


class TextEncoder(Pretrained):
    """Frozen text encoder."""

    family: ClassVar[str] = "texts"
    kind: ClassVar[Kind] = "text"
    version: ClassVar[int] = 1

    def _key(self) -> Mapping[str, Any]:
        return {
            "weights": self.source.weights_sha256,
            "config": self.source.files["config.json"],
            "pooling": self.config["pooling"],
            "normalise": self.config["normalise"],
        }

    @property
    def _lengths(self) -> bool:
        return True

    @property
    def limit(self) -> int:
        """Tokens that a text is cut to, special ones included."""
        return int(self.config["preprocessing"]["tokens"])

    @cached_property
    def tokenizer(self) -> Any:
        return _tokenizer(
            self.source.folder / "tokenizer.json", self.source.files["tokenizer.json"], self.limit
        )

    def batches(self, rows: Rows, unreadable: dict[int, str]) -> Iterator[engine.Batch]:
        column = rows.column
        for start in range(0, len(rows), CHUNK):
            stop = min(start + CHUNK, len(rows))
            positions, tokens = self.tokenised(column, range(start, stop), unreadable)
            padded = self._padded(tokens)
            for length in np.unique(padded):
                members = np.flatnonzero(padded == length)
                size = max(1, TOKENS_A_BATCH // int(length))
                for first in range(0, len(members), size):
                    chosen = members[first : first + size]
                    yield positions[chosen], _stack([tokens[i] for i in chosen], int(length))

    def prepared(self, texts: Sequence[str]) -> Sequence[Prepared]:
        """See `ReadHere.prepared`."""
        _, tokens = self.tokenised(Texts(texts), range(len(texts)), {})
        lengths = self._padded(tokens).tolist()
        return [Prepared.single(*_stack([ids], length)) for ids, length in zip(tokens, lengths, strict=True)]

    def together(self, inputs: engine.Arrays) -> int:
        """See `Served.together`."""
        rows = TOKENS_A_BATCH // int(inputs[0].shape[1])
        return max(1, min(rows, ADDED_A_BATCH // max(self.added.nbytes, 1)))

    def _padded(self, tokens: list[list[int]]) -> IntArray:
        """(texts,) the length that each is padded to."""
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        # at least one step: a text may have no token at all
        padded: IntArray = np.minimum(np.maximum(-(-lengths // STEP), 1) * STEP, max(self.limit, 1))
        return padded

    def examples(self, rows: Rows, notify: Notify = silent) -> Examples:
        """See `Tunable.examples`."""
        from graftwork.backbones.examples import Tokens

        unreadable: dict[int, str] = {}
        _, tokens = self.tokenised(rows.column, range(len(rows)), unreadable)
        for i, reason in unreadable.items():
            raise Unreadable(f"{rows.names[i]} {reason}; remove or replace it, then run again")
        return Tokens(tokens, self._padded(tokens))

    def synthetic(self) -> Rows:
        """Sentences of many lengths and scripts."""
        parts = ["a small example of a text", "Größe, Farbe und Preis", "这是一个例子", "12 items for $3.50!"]
        texts = [" ".join(parts[i % 4] for _ in range(1 + i // 2)) for i in range(16)]
        return Rows([f"made-up {i}" for i in range(16)], {"text": Texts(texts)})

    def tokenised(
        self, column: Column, index: range, unreadable: dict[int, str]
    ) -> tuple[IntArray, list[list[int]]]:
        """The readable ones of these rows, and the token numbers of each; the others go into `unreadable`."""
        positions, texts = [], []
        for i in index:
            try:
                text = column.read(i).decode("utf-8", "replace")
            except Unreadable as error:
                unreadable[i] = str(error)
                continue
            positions.append(i)
            texts.append(text)
        found = self.tokenizer.encode_batch([self._head(text) for text in texts])
        tokens = [list(encoding.ids) for encoding in found]
        for i, ids in enumerate(tokens):
            if len(ids) < self.limit and len(texts[i]) > self._characters:
                tokens[i] = list(self.tokenizer.encode(texts[i]).ids)  # long words or blanks: all of it
        return np.array(positions, dtype=np.int64), tokens

    @property
    def _characters(self) -> int:
        return CHARACTERS_A_TOKEN * self.limit

    def _head(self, text: str) -> str:
        """The part of a long text that can matter, so that a million characters cost as much as a page."""
        if len(text) <= self._characters:
            return text
        head = text[: self._characters]
        words = head.rsplit(None, 1)
        # the last word may be cut in two; one without any blank before it is split by signs anyway
        return words[0] if len(words) == 2 and len(words[1]) <= LONGEST_WORD else head

    def _example(self) -> engine.Arrays:
        ids = np.ones((2, 2 * STEP), np.int64)
        return ids, np.ones_like(ids)

    def _build(self) -> Any:
        from graftwork.backbones.pooling import TextNetwork

        encoder = load_encoder(self.source, lambda name: "pooler" not in name)
        if getattr(encoder.config, "is_encoder_decoder", False):
            raise RequestError(
                f"source {self.source.name!r} is an encoder with a decoder; expected an encoder alone"
            )
        return TextNetwork(encoder, self.config["pooling"], self.config["normalise"])


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> TextEncoder:
    if options.resize is not None:
        raise RequestError(f"source {source.name!r} takes texts, which have no size; leave --resize out")
    runtime = engine.check_runtime(options.runtime)
    return open_texts(source, sample, pooling=options.pooling, runtime=runtime, notify=notify)


def open_texts(
    source: Source,
    sample: Rows | None = None,
    *,
    pooling: str | None = None,
    runtime: engine.Runtime | None = None,
    notify: Notify = silent,
) -> TextEncoder:
    """The backbone of a text source; `sample` rows decide which path this machine takes, once."""
    pooling = "auto" if pooling is None else pooling
    if pooling not in POOLINGS:
        raise RequestError(f"no pooling {pooling!r} for texts; expected one of {', '.join(POOLINGS)}")
    stated, normalise = pooling_of(source)
    config = {
        "pooling": stated if pooling == "auto" else pooling,
        "normalise": normalise,
        "preprocessing": {
            "tokenizer": source.files["tokenizer.json"],
            "tokens": limit_of(source),
            "step": STEP,
        },
    }
    bare = TextEncoder(source, config)
    return TextEncoder(source, bare.settled(sample, runtime, notify))


def restore(state: BackboneState) -> TextEncoder:
    """A saved text backbone, with the path it was saved with where this machine can take it."""
    if state.source is None:
        raise ArtefactError("this text backbone names no source; restore the artefact from a copy")
    saved = TextEncoder(state.source, state.config, state.arrays)
    return replace(saved, config=on_this_machine(saved))


@lru_cache(maxsize=8)
def _tokenizer(path: Path, digest: str, limit: int) -> Any:
    """Shared by all that are tuned from one source; digest: of the file, which may be replaced."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise ArtefactError(f"{path} cannot be read ({error}); fetch it again") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return tokenizer


def _stack(tokens: list[list[int]], length: int) -> engine.Arrays:
    ids = np.zeros((len(tokens), length), np.int64)
    mask = np.zeros((len(tokens), length), np.int64)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1
    return ids, mask


def pooling_of(source: Source) -> tuple[str, bool]:
    """(pooling, whether features are scaled to unit length), as sentence-transformers wrote it, else mean."""
    stated: Mapping[str, Any] = source.json("1_Pooling/config.json")
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
    chosen = [name for key, name in names.items() if stated.get(key)]
    modules = [str(module.get("type", "")) for module in source.json("modules.json").get("items", [])]
    return (chosen[0] if chosen else "mean"), any(module.endswith("Normalize") for module in modules)


def limit_of(source: Source) -> int:
    """Tokens that the source takes: what sentence-transformers says, the tokenizer, the position table."""
    config = source.json("config.json")
    said = source.json("sentence_bert_config.json").get("max_seq_length")
    tokenizer = source.json("tokenizer_config.json").get("model_max_length")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _OFFSET:
        positions -= int(config.get("pad_token_id") or 0) + 1
    limits = [int(limit) for limit in (said, tokenizer, positions) if isinstance(limit, int | float)]
    return max(1, min([512, *(limit for limit in limits if 0 < limit < 1_000_000)]))


_OFFSET = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl", "data2vec-text"}
"""Families whose first position number comes after the padding token's."""
