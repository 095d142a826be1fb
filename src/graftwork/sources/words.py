"""Word vectors: word2vec text and binary, and GloVe text, each also as .gz.

word2vec's files begin with the number of words and the width, GloVe's with the first word. Text has a
line a word: the word, then its numbers, between single spaces. What is in the file is read, checked
and kept by `backbones.vectors`; here only its beginning is looked at.
"""

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Literal

from graftwork.errors import ArtefactError
from graftwork.sources.source import Origin, Source, file_digest

FAMILY = "words"
Form = Literal["word2vec text", "word2vec binary", "glove"]
LEAST_WIDTH = 10
"""Numbers after a word that make a first line one of vectors rather than of anything else."""
_SUFFIXES = (".txt", ".vec", ".bin")
_PICKLES = (".model", ".kv")
_BEGINNING = 1 << 17
"""Bytes that hold any first two lines: 128 kB are 10,000 numbers a line."""


def recognises(path: Path) -> bool:
    """By the suffix and the first two lines; also an empty .txt, .vec or .bin, for `read` to say so."""
    if not path.is_file():
        return False
    if path.suffix in _PICKLES:
        return _beginning(path)[:1] == b"\x80"  # SentencePiece has a .model as well, which is no pickle
    if Path(_plain_name(path)).suffix not in _SUFFIXES:
        return False
    return path.stat().st_size == 0 or _plain_name(path).endswith(".vec") or _look(path) is not None


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in a file of vectors, by its beginning; see `sources.find`."""
    if path.suffix in _PICKLES:
        raise ArtefactError(
            f"{path} is a pickle of gensim's, a format that can run code when it is read; expected "
            "word2vec's: where you trust the file, model.wv.save_word2vec_format('NAME.txt') writes it"
        )
    if path.stat().st_size == 0:
        raise ArtefactError(f"{path} is empty (0 bytes); expected word vectors: fetch it again")
    if _beginning(path).startswith(BOM_UTF8):
        raise ArtefactError(
            f"{path} begins with a byte-order mark, which would be part of its first word; remove it, as "
            "with: sed -i '1s/^\\xEF\\xBB\\xBF//'"
        )
    found = _look(path)
    if found is None:
        raise ArtefactError(
            f"{path} does not begin like word vectors; expected the number of words and the width, or a word "
            f"and at least {LEAST_WIDTH} numbers"
        )
    form, words, width = found
    options = {"form": form, "words": words, "width": width}
    digest = {path.name: file_digest(path)}
    return Source(name, "text", FAMILY, path.parent, digest, (path.name,), origin, revision, licence, options)


def _look(path: Path) -> tuple[Form, int | None, int] | None:
    """(form, number of words where it is promised, width); None where it begins otherwise."""
    first, _, rest = _beginning(path).removeprefix(BOM_UTF8).partition(b"\n")
    second = rest.partition(b"\n")[0]
    header = first.split()
    if len(header) == 2 and all(part.isdigit() and int(part) > 0 for part in header):
        words, width = map(int, header)
        if _plain_name(path).endswith(".vec") or _numbers(second) >= min(width, LEAST_WIDTH):
            return "word2vec text", words, width
        return ("word2vec binary", words, width) if _plain_name(path).endswith(".bin") else None
    width = _numbers(first)
    return ("glove", None, width) if width >= LEAST_WIDTH else None


def _numbers(line: bytes) -> int:
    """How many numbers follow the first word of a line; 0 where anything else does."""
    parts: Sequence[bytes] = line.split()[1:]
    try:
        return len([float(part) for part in parts])
    except ValueError:
        return 0


def _beginning(path: Path) -> bytes:
    """The first bytes, as many as can be unpacked; the backbone says what is wrong with the rest."""
    content = b""
    with suppress(gzip.BadGzipFile, EOFError, zlib.error), _opened(path) as file:
        while len(content) < _BEGINNING and (piece := file.read1(_BEGINNING)):
            content += piece
    return content


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _plain_name(path: Path) -> str:
    return path.name.removesuffix(".gz")
