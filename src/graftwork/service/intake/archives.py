"""Zip archives of strangers, unpacked: every entry is checked before the first is written.

Nothing of an archive is believed. Its directory is walked in pieces and counted before Python's zipfile
reads it; names, kinds and sizes are checked before anything is written; what is written is counted again.
"""

import errno
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from graftwork.errors import WorkError
from graftwork.service.intake.names import inside, is_silent, shown
from graftwork.service.problems import Problem, bad_request, too_many
from graftwork.service.settings import Limits

PIECE = 1 << 20
SPARE = 100_000_000
"""Bytes that a disk keeps free."""
SMALL = 10_000_000
"""Bytes up to which an entry may be packed as tightly as it likes: blank pictures are."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END, _END64, _LOCATOR, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
_ENTRY_BYTES, _MOST_ENTRY_BYTES = 46, 400
# the second: of a directory a name of 200 bytes and what packers add; beyond it nothing is even counted


@dataclass(frozen=True)
class Unpacked:
    """files, bytes: that were written. silent: entries that systems leave behind, left out."""

    files: int
    bytes: int
    silent: int


@dataclass(frozen=True)
class _Entry:
    info: zipfile.ZipInfo
    path: PurePosixPath


def unpack(archive: Path, target: Path, limits: Limits, room: int | None = None) -> Unpacked:
    """The archive's files under `target`, which appears whole or not at all.

    room: bytes that its owner may still fill; None for no bound. Raises a Problem, in one line, where the
    archive is damaged, dangerous or too large; WorkError where the disk is full.
    """
    work = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with archive.open("rb") as file:
            _count(file, limits.entries)
            with zipfile.ZipFile(file) as opened:
                entries, silent = _checked(opened, limits, room)
                work.mkdir(parents=True)
                _require_disk(work, sum(entry.info.file_size for entry in entries))
                written = sum(_write(opened, entry, work) for entry in entries)
        work.rename(target)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        struct.error,
        UnicodeDecodeError,
    ) as error:
        raise _damaged(str(error)) from error
    except OSError as error:
        raise _disk(error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Unpacked(len(entries), written, silent)


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive (an empty one too)."""
    return head.startswith((b"PK\x03\x04", _END))


# Counting


def _count(file: BinaryIO, most: int) -> None:
    """Refuse an archive of more than `most` entries from its directory, a piece at a time."""
    start, length = _directory(file)
    if length > most * _MOST_ENTRY_BYTES:
        raise _too_many(f"a directory of {length:,} bytes", most)
    file.seek(start)
    directory = file.read(length)
    at = count = 0
    while at + _ENTRY_BYTES <= len(directory) and directory.startswith(_ENTRY, at):
        name, extra, comment = struct.unpack_from("<3H", directory, at + 28)
        at, count = at + _ENTRY_BYTES + name + extra + comment, count + 1
        if count > most:
            raise _too_many(f"more than {most:,} entries", most)
    file.seek(0)


def _directory(file: BinaryIO) -> tuple[int, int]:
    """(start, bytes) of the directory, as the record at the archive's end says, found as zipfile finds it."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - (1 << 16) - 22)
    file.seek(tail_at)
    tail = file.read()
    plain = len(tail) >= 22 and tail[-22:-18] == _END and tail[-2:] == b"\0\0"
    at = len(tail) - 22 if plain else tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        raise _damaged("its end is missing")
    length = struct.unpack_from("<L", tail, at + 12)[0]
    end = tail_at + at
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR:
        end -= 20 + 56
        file.seek(max(end, 0))
        record = file.read(56)
        if len(record) == 56 and record.startswith(_END64):
            length = struct.unpack_from("<Q", record, 40)[0]
        else:
            end += 20 + 56
    if length > end:
        raise _damaged("its directory would begin before the file does")
    return end - length, length


# Checking


def _checked(opened: zipfile.ZipFile, limits: Limits, room: int | None) -> tuple[list[_Entry], int]:
    """The entries to write, and how many are left out as nobody's."""
    infos = opened.infolist()
    if len(infos) > limits.entries:
        raise _too_many(f"{len(infos):,} entries", limits.entries)
    entries, silent = [], 0
    for info, name in zip(infos, _names(infos), strict=True):
        _require_plain(info, name, limits)
        path = inside(name)
        if is_silent(path):
            silent += 1
        elif not name.endswith("/"):
            entries.append(_Entry(info, path))
    if not entries:
        raise bad_request("the archive holds no files; expected class folders with pictures, or a table")
    _refuse_clashes([entry.path for entry in entries])
    _refuse_overlaps(infos, opened.start_dir)
    total = sum(entry.info.file_size for entry in entries)
    if total > limits.unpacked:
        raise bad_request(
            f"the archive would unpack to {_size(total)}; expected {_size(limits.unpacked)} at most: send it "
            "in parts"
        )
    if room is not None and total > room:
        raise too_many(
            "quota-exceeded",
            f"the archive would unpack to {_size(total)} and {_size(max(room, 0))} of your quota are free; "
            "delete datasets or files first",
            3600,
        )
    return entries, silent


def _names(infos: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """Names as they were meant: UTF-8 where an entry says so, else what all the others can be read as.

    Archives made in China hold names in GBK, those of macOS UTF-8, without saying so.
    """
    raw = [b"" if info.flag_bits & 0x800 else info.orig_filename.encode("cp437", "replace") for info in infos]
    whole = b"\n".join(raw)
    encoding = next(name for name in ("utf-8", "gb18030", "cp437") if _decodes(whole, name))
    for info, name in zip(infos, raw, strict=True):
        yield info.orig_filename if info.flag_bits & 0x800 else name.decode(encoding)


def _decodes(content: bytes, encoding: str) -> bool:
    with suppress(UnicodeDecodeError):
        content.decode(encoding)
        return True
    return False


def _require_plain(info: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    """Refuse what is no plain, openly packed file or folder of a believable size."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "no plain file"
        raise bad_request(f"the archive holds {shown(name)}, which is {what}; pack the files themselves")
    if info.flag_bits & 0x1:
        raise _unreadable(f"the archive's entry {shown(name)} is encrypted; pack again without a password")
    if info.compress_type not in _METHODS:
        raise _unreadable(
            f"the archive's entry {shown(name)} is packed by method {info.compress_type}; expected the usual "
            "one (deflate): pack again as a plain .zip"
        )
    if info.file_size > SMALL and info.file_size > limits.ratio * max(info.compress_size, 1):
        raise bad_request(
            f"the archive's entry {shown(name)} would grow from {_size(info.compress_size)} to "
            f"{_size(info.file_size)}; expected {limits.ratio} times at most: no picture or table does so"
        )


def _refuse_clashes(paths: Sequence[PurePosixPath]) -> None:
    seen: set[PurePosixPath] = set()
    for path in paths:
        if path in seen:
            raise bad_request(f"the archive holds {shown(str(path))} twice; expected each name once")
        seen.add(path)
    folders = {parent for path in paths for parent in path.parents}
    both = next(iter(sorted(seen & folders)), None)
    if both is not None:
        raise bad_request(f"the archive holds {shown(str(both))} as a file and as a folder; pack it again")


def _refuse_overlaps(infos: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Entries that share bytes: a small file unpacked a thousand times."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, after in zip(ordered, [*(one.header_offset for one in ordered[1:]), end], strict=True):
        if info.header_offset < 0 or info.header_offset + 30 + info.compress_size > after:
            raise _damaged("its entries overlap")


# Writing


def _write(opened: zipfile.ZipFile, entry: _Entry, work: Path) -> int:
    """Bytes written; exactly what the directory promised, or a Problem."""
    place = work.joinpath(*entry.path.parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    promised = entry.info.file_size
    asked = copy(entry.info)
    asked.file_size += 1  # zipfile stops at what it is told: one more byte shows whether there is more
    done = 0
    with opened.open(asked) as source, place.open("xb") as target:
        while piece := source.read(PIECE):
            done += len(piece)
            if done > promised:
                break
            target.write(piece)
    if done != promised:
        raise _damaged(f"{shown(str(entry.path))} has another size than it says")
    return done


def _require_disk(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + SPARE > free:
        raise WorkError(f"the archive would unpack to {_size(wanted)} and the disk has {_size(free)} free")


def _disk(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkError("the disk of the service is full; nothing was kept of the archive")
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL):
        return _damaged(f"two of its names are one on this disk, or one is too long ({error.strerror})")
    return WorkError(f"the archive could not be unpacked ({error.strerror or type(error).__name__})")


def _damaged(reason: str) -> Problem:
    said = " ".join(reason.split())[:200]
    return _unreadable(f"the archive cannot be unpacked ({said}); pack it again as a plain .zip")


def _unreadable(detail: str) -> Problem:
    return Problem(422, "unreadable-archive", detail)


def _too_many(seen: str, most: int) -> Problem:
    return bad_request(f"the archive has {seen}; expected {most:,} entries at most: send it in parts")


def _size(count: int) -> str:
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.1f} MB"
        if count >= 1e5
        else f"{count:,} bytes"
    )
