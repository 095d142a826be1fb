"""Word vectors from a file: read once through gensim, checked, and kept as an array that is memory-mapped.

What is kept lies under GRAFT_HOME by the file's SHA-256, so a file is read once a machine, and later
runs need no gensim. gensim holds the whole array while it reads; where that much memory is not free,
the file is refused before anything is allocated.
"""

import gzip
import json
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.errors import ArtefactError, MissingExtra, RequestError
from graftwork.records import Notify, Progress, silent
from graftwork.sources import Source

BYTES_A_WORD = 500
"""What a word takes beside its vector while gensim reads: the string, its places in tables, its count."""
FOREIGN = 0.01
"""Share of words that are not UTF-8 beyond which the file is in another encoding, not cut in places."""
_BLOCK = 100_000


@dataclass(frozen=True, eq=False)
class Vectors:
    """words: in the file's order, each once. matrix: (words, width) float32, finite, may be a memory map.

    notes: what was unusual about the file, a sentence each.
    """

    words: Sequence[str]
    matrix: NDArray[np.float32]
    notes: tuple[str, ...]


_loaded: dict[str, Vectors] = {}


def load(source: Source, notify: Notify = silent) -> Vectors:
    """The vectors of a source, once a process.

    Raises MissingExtra where gensim is needed and absent; ArtefactError, with the line where there are
    lines, for a damaged file; RequestError where it does not fit into memory.
    """
    (digest,) = source.files.values()
    if digest not in _loaded:
        folder = paths.home() / "vectors" / digest
        _loaded[digest] = _kept(folder) or _converted(source, folder, notify)
    return _loaded[digest]


def _converted(source: Source, folder: Path, notify: Notify) -> Vectors:
    notify(Progress("reading word vectors, once for this source", 0, None, "words"))
    source.verify()
    (file,) = source.files
    vectors = _read(source.folder / file, source.options)
    try:
        _keep(vectors, folder)
    except OSError:
        return vectors  # a full or read-only disk costs time in later runs, not rightness in this one
    return _kept(folder) or vectors


def _keep(vectors: Vectors, folder: Path) -> None:
    """Write whole or not at all; another process may have been first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        np.save(work / "vectors.npy", vectors.matrix, allow_pickle=False)
        (work / "words.json").write_text(json.dumps(vectors.words), "utf-8")
        digests = {name: paths.file_digest(work / name) for name in ("vectors.npy", "words.json")}
        (work / "about.json").write_text(json.dumps({"files": digests, "notes": vectors.notes}), "utf-8")
        if not folder.exists():
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _kept(folder: Path) -> Vectors | None:
    """What was kept, verified; None where there is nothing, or (removed then) where it is damaged."""
    if not folder.is_dir():
        return None
    try:
        about = json.loads((folder / "about.json").read_text("utf-8"))
        for name, digest in about["files"].items():
            if paths.file_digest(folder / name) != digest:
                raise ValueError(f"{name} is damaged")
        words = json.loads((folder / "words.json").read_text("utf-8"))
        return Vectors(words, np.load(folder / "vectors.npy", mmap_mode="r"), tuple(about["notes"]))
    except (OSError, ValueError, KeyError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _read(path: Path, options: Any) -> Vectors:
    """The file through gensim, after a look at its shape and before one at its numbers."""
    form, width = options["form"], int(options["width"])
    text = form != "word2vec binary"
    with _readable(path):
        count, notes = _lines(path, options) if text else (_binary_words(path, options), [])
        _require_memory(path, count, width)
        found = _through_gensim(path, form, count)
    matrix: NDArray[np.float32] = found.vectors
    words = list(found.key_to_index)  # index_to_key keeps an empty place for each duplicate
    for start in range(0, len(matrix), _BLOCK):
        good = np.isfinite(matrix[start : start + _BLOCK]).all(axis=1)
        if not good.all():
            raise _bad_number(path, text, words[start + int(np.argmin(good))])
    if len(words) < count:
        notes.append(f"lines that repeat an earlier word, whose first vector counts: {count - len(words):,}")
    foreign = sum(map(_foreign, words))
    if foreign > FOREIGN * len(words):
        raise ArtefactError(
            f"{path} is not UTF-8: {foreign:,} of its {len(words):,} words cannot be decoded; convert it, as "
            "with: iconv -f gb18030 -t utf-8"
        )
    if foreign:
        notes.append(f"words that are no valid UTF-8 and match nothing: {foreign:,}")
    return Vectors(words, matrix, tuple(notes))


def _through_gensim(path: Path, form: str, count: int) -> Any:
    try:
        from gensim.models import KeyedVectors
    except ImportError as error:
        raise MissingExtra(f"reading word vectors ({path.name})", "words") from error
    try:
        # a number beyond float32 becomes infinite, which is refused later; of a file without a first line
        # that says its size, gensim leaves one handle to the collector
        with np.errstate(over="ignore"), warnings.catch_warnings(category=ResourceWarning, action="ignore"):
            return KeyedVectors.load_word2vec_format(
                str(path),
                binary=form == "word2vec binary",
                no_header=form == "glove",
                limit=count,
                unicode_errors="surrogateescape",
            )
    except ValueError as error:
        raise _bad_number(path, form != "word2vec binary", str(error)) from error


def _lines(path: Path, options: Any) -> tuple[int, list[str]]:
    """(number of words to read, what is unusual); every line to be read has the right number of fields."""
    header, width = options["form"] != "glove", int(options["width"])
    promised: int | None = options["words"]
    count, blank, beyond = 0, 0, 0
    with _opened(path) as file:
        for number, line in enumerate(islice(file, int(header), None), 1 + header):
            if promised is not None and count == promised:
                beyond += bool(line.strip())
                continue
            fields = line.rstrip().count(b" ")
            if not line.strip():
                blank = blank or number
                continue
            if blank:
                raise ArtefactError(f"{path}: line {blank} is empty; remove it")
            if fields < width and not line.endswith(b"\n"):
                raise ArtefactError(f"{path} is truncated: it ends within line {number:,}; fetch it again")
            if fields != width:
                others = "{{$1=$1}} NF=={}{}".format(width + 1, " || NR==1" * header)
                raise ArtefactError(
                    f"{path}: line {number} has {fields:,} numbers after its word, expected {width:,} with "
                    f"single spaces between; mend or remove it, as with: awk '{others}'"
                )
            count += 1
    if promised is not None and count < promised:
        raise ArtefactError(
            f"{path} is truncated: its first line promises {promised:,} words, it holds {count:,}; fetch it "
            "again, or correct its first line"
        )
    notes = [f"lines after the promised {promised:,}, which are not read: {beyond:,}"] if beyond else []
    return count, notes


def _binary_words(path: Path, options: Any) -> int:
    """The promised number of words; refused where the file cannot hold so many."""
    words, width = int(options["words"]), int(options["width"])
    least = words * (4 * width + 2)
    if path.suffix != ".gz" and path.stat().st_size < least:
        raise ArtefactError(
            f"{path} is truncated: {words:,} vectors of width {width:,} take at least {least:,} bytes, it "
            f"has {path.stat().st_size:,}; fetch it again"
        )
    return words


def _require_memory(path: Path, words: int, width: int) -> None:
    import psutil

    needed, free = words * (4 * width + BYTES_A_WORD), int(psutil.virtual_memory().available)
    if needed > free:
        raise RequestError(
            f"reading {path} once takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; close "
            "other programs, or name a file of its first words (the most frequent come first)"
        )


def _bad_number(path: Path, text: bool, said: str) -> ArtefactError:
    """The first vector that holds something else than finite numbers, by its line where there are lines."""
    if text:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                bad = next((part for part in line.rstrip().split(b" ")[1:] if not _finite(part)), None)
                if bad is not None:
                    shown = bad.decode("utf-8", "replace")[:40]
                    return ArtefactError(
                        f"{path}: line {number} holds {shown!r} where a finite number was expected; mend or "
                        "remove it"
                    )
    return ArtefactError(f"{path} holds a vector that is not all finite numbers ({said!r}); fetch it again")


def _foreign(word: str) -> bool:
    """Whether it was not UTF-8: such bytes were read as lone surrogates, which no text has."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return True
    return False


def _finite(part: bytes) -> bool:
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float32(part)))
    except ValueError:
        return False


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What fails on the way through a file, as one line."""
    try:
        yield
    except EOFError as error:
        raise ArtefactError(f"{path} is truncated (its end came too early); fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ArtefactError(f"{path} is damaged ({error}); fetch it again") from error
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error})") from error


def _opened(path: Path) -> BufferedIOBase:
    return cast(BufferedIOBase, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))
