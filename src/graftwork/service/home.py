"""The folder in which a service keeps all it knows: made, and held by one server at a time."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import select

from graftwork.errors import RequestError
from graftwork.service.database import Database
from graftwork.service.database.tables import Owner
from graftwork.service.settings import Settings


def prepare(settings: Settings) -> None:
    """Make the folder; raises RequestError where ROOT is none, or cannot be written."""
    if not settings.root.is_dir():
        raise RequestError(f"{settings.root} is no folder; expected the folder that holds artefacts to serve")
    try:
        settings.home.mkdir(exist_ok=True)
        with suppress(PermissionError):  # it is another user's, who opened it to us
            settings.home.chmod(0o700)  # one that was restored may be open to everybody
        _lock(settings).open("a").close()
    except OSError as error:
        raise RequestError(
            f"{settings.home} cannot be written ({error.strerror}); the service keeps all it knows there"
        ) from error


@contextmanager
def only_one(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Hold the lock of ROOT: a POSIX lock, which is this process's own and no child's that outlives it.

    Gives what notes the database, as it may be shown, beside the lock, so that others ask the same one. It is
    for when that was opened: one that cannot be may be mistyped, and must not be taken for the right one.
    """
    require_same(settings)  # before: a process that closes the file anywhere loses its lock
    before = _noted(settings)[1]
    with _lock(settings).open("a+") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            process, _ = _noted(settings)
            raise RequestError(
                f"{settings.root} is served already (process {process or 'unknown'}); "
                "end that server first, or serve another folder"
            ) from error

        def note(database: str) -> None:
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n{database}\n")
            handle.flush()

        note(before)
        yield note


def require_same(settings: Settings) -> None:
    """Raise RequestError where --database was forgotten: all would seem lost, and begin anew in SQLite."""
    _, noted = _noted(settings)
    # SQLite's lies under ROOT, which may have been moved
    if settings.database is None and noted and not noted.startswith("sqlite"):
        raise RequestError(
            f"the service of {settings.root} keeps its records in {noted}; give it as --database, "
            f"or delete {_lock(settings)} to begin anew"
        )


def require_records(settings: Settings, database: Database) -> None:
    """Raise RequestError where files lie here and the database has no records at all: they would be deleted
    as what nobody owns. It is mistyped, or new, or its backup is not back yet."""
    with database.read() as session:
        if session.scalar(select(Owner.id).limit(1)) is not None:
            return
    for folder in (settings.home / "uploads", settings.home / "datasets", settings.artefacts):
        if folder.is_dir() and any(folder.iterdir()):
            raise RequestError(
                f"the database {database.shown} is empty, where {folder} holds what a service has kept; give "
                f"the database that has its records, or move {folder} elsewhere to begin anew"
            )


def _noted(settings: Settings) -> tuple[str, str]:
    """The process that has served last, and its database; each empty where that is not known."""
    process, _, database = _lock(settings).read_text("utf-8").partition("\n")
    return process.strip(), database.strip()


def _lock(settings: Settings) -> Path:
    return settings.home / "lock"
