"""Uploaded bytes: streamed to disk under their SHA-256, whole or not at all."""

import base64
import binascii
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from graftwork.service.database import Database
from graftwork.service.database.tables import File
from graftwork.service.problems import Problem, bad_request
from graftwork.service.settings import Settings

PIECE = 1_000_000
"""Bytes that are hashed and written at once, in a thread."""
HEAD = 4_096
"""First bytes, by which a kind of file is known."""
_BEGUN = ".upload-"
_GONE = "gone-"

keeping = threading.Lock()
"""Held while bytes get their name and row, or lose them: else the last row of some bytes could be deleted
while another is made."""


@dataclass(frozen=True)
class Received:
    """Bytes on disk under a temporary name; `keep` or `drop` ends that."""

    path: Path
    sha256: str
    bytes: int

    def keep(self) -> Path:
        """Give them their lasting name. Call it, and insert the row, while holding `keeping`."""
        place = self.path.with_name(self.sha256)
        self.path.replace(place)
        flush(place.parent)
        return place

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)


async def receive(
    pieces: AsyncIterable[bytes], folder: Path, look: Callable[[bytes], None], grow: Callable[[int], None]
) -> Received:
    """Write what arrives beside its later place, flushed to the disk.

    look: is given the first bytes, and raises where such a file is not wanted.
    grow: is given the number of bytes so far, again and again, and raises where they are too many.
    """
    await run_in_threadpool(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{_BEGUN}{secrets.token_hex(16)}"
    digest, total, held = hashlib.sha256(), 0, bytearray()
    looked = False
    try:
        with path.open("xb", buffering=0) as file:

            def write(piece: bytes) -> None:
                digest.update(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]

            async for piece in pieces:
                total += len(piece)
                grow(total)
                held += piece
                if not looked and len(held) >= HEAD:
                    look(bytes(held[:HEAD]))
                    looked = True
                if len(held) >= PIECE:
                    await run_in_threadpool(write, bytes(held))
                    held.clear()
            if not looked:
                look(bytes(held[:HEAD]))
            await run_in_threadpool(write, bytes(held))
            await run_in_threadpool(os.fsync, file.fileno())
        return Received(path, digest.hexdigest(), total)
    except BaseException:  # the client going away among them
        path.unlink(missing_ok=True)
        raise


def digest_said(headers: Mapping[str, str]) -> str | None:
    """The SHA-256 (hex) that the client says its file has: Repr-Digest (RFC 9530) or X-Content-SHA256.

    Raises a Problem (422) where a header cannot be read.
    """
    plain = headers.get("x-content-sha256")
    if plain is not None:
        if len(plain) != 64 or set(plain.lower()) - set("0123456789abcdef"):
            raise bad_request("X-Content-SHA256 is no SHA-256; expected 64 hexadecimal digits")
        return plain.lower()
    listed = headers.get("repr-digest") or headers.get("content-digest")
    if listed is None:
        return None
    for entry in listed.split(","):
        name, _, value = entry.strip().partition("=")
        if name.lower() == "sha-256" and len(value) > 2 and value[0] == value[-1] == ":":
            try:
                raw = base64.b64decode(value[1:-1], validate=True)
            except binascii.Error:
                raw = b""
            if len(raw) == 32:
                return raw.hex()
    raise bad_request("Repr-Digest names no SHA-256; expected sha-256=:BASE64: of 32 bytes")


def check_digest(received: Received, said: str | None) -> None:
    if said is not None and said != received.sha256:
        raise Problem(
            422,
            "digest-mismatch",
            f"{received.bytes} bytes with the SHA-256 {received.sha256} arrived, {said} was said; send again",
        )


def remove_tree(settings: Settings, folder: Path) -> None:
    """Remove a folder that others may still be writing to: in one step for them, and then piece by piece."""
    aside = settings.home / f"{_GONE}{secrets.token_hex(8)}"
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside)


def sweep(settings: Settings, database: Database) -> None:
    """Remove what a crash left: uploads cut short, and what no row names. Call it before any request."""
    for folder in settings.home.glob(f"{_GONE}*"):
        shutil.rmtree(folder)
    folders = settings.home / "uploads"
    for folder in folders.iterdir() if folders.is_dir() else ():
        with database.read() as session:
            known = set(session.scalars(select(File.sha256).where(File.owner_id == folder.name)))
        for path in folder.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)


def flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
