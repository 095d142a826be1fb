"""Deleting for good: rows first, in one transaction, then the files that no row names any more."""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from graftwork.service import idempotency
from graftwork.service.context import Service
from graftwork.service.database.tables import (
    TERMINAL,
    Answered,
    Correction,
    Dataset,
    Event,
    File,
    Job,
    Key,
    Model,
    Owner,
    Ticket,
    Usage,
)
from graftwork.service.intake.arrange import clear
from graftwork.service.jobs import queue
from graftwork.service.security import new_secret
from graftwork.service.uploads import keeping

CANCEL_S = 6.0
"""How long running jobs get to end; those that do not lose their right to write anyway."""
FRESH_S = 3600.0
"""What is younger may belong to a row that is about to be written."""


@dataclass(frozen=True)
class _Left:
    """What rows named that are gone now."""

    folders: list[Path]
    digests: set[str]


def erase(here: Service, owner_id: str, *, owner_too: bool) -> None:
    """Delete all that an owner has brought and made, and with `owner_too` its keys and itself.

    What lies in ROOT itself was not brought to the service, and stays.
    """
    _end_jobs(here, owner_id)
    with here.database.write() as session:
        left = _delete_rows(here, session, owner_id)
        if owner_too:
            for table in (Key, Ticket, Usage):
                session.execute(delete(table).where(table.owner_id == owner_id))
            session.execute(delete(Owner).where(Owner.id == owner_id))
        else:
            # whatever is left of stored features anywhere can no longer be found, nor guessed at
            session.get_one(Owner, owner_id).secret = new_secret()
    if owner_too:
        here.passes.forget(owner=owner_id)
    here.models.forget_owner(owner_id)
    for folder in left.folders:
        shutil.rmtree(folder, ignore_errors=True)
    _drop_uploads(here, owner_id)
    for digest in left.digests:
        drop_artefact(here, digest)


def _drop_uploads(here: Service, owner_id: str) -> None:
    """Bytes that no row names; what is being uploaded meanwhile stays whole."""
    folder = here.settings.uploads(owner_id)
    with keeping:
        with here.database.read() as session:
            known = set(session.scalars(select(File.sha256).where(File.owner_id == owner_id)))
        _remove(one for one in folder.glob("[0-9a-f]*") if one.name not in known)


def drop_artefact(here: Service, digest: str) -> bool:
    """Remove the artefact if no model is made of it any more; whether it went."""
    with here.database.write() as session:  # on SQLite nobody names it meanwhile
        if not here.database.is_sqlite:  # nor here: who adds a model waits, and then sees that it is gone
            session.execute(text("LOCK TABLE models IN SHARE MODE"))
        if session.scalar(select(Model.id).where(Model.digest == digest).limit(1)) is not None:
            return False
        folder = here.artefacts.folder(digest)
        if folder.exists():
            here.artefacts.remove(digest)
    here.serving.forget(folder)
    return True


def sweep(here: Service) -> None:
    """Forget what is over, and remove what a deletion or a crash has left behind; for now and then."""
    idempotency.sweep(here.database)
    with here.database.write() as session:
        session.execute(delete(Ticket).where(Ticket.expires < time.time()))
    settings = here.settings
    with here.database.read() as session:
        owners, datasets = (set(session.scalars(select(table.id))) for table in (Owner, Dataset))
        jobs = set(session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL))))
        refused = list(session.scalars(select(Dataset.id).where(Dataset.state == "refused")))
        made = set(session.scalars(select(Model.digest)))
    for parent, named in (
        (settings.uploads("."), owners),
        (settings.private("."), owners),
        (settings.dataset("."), datasets),
        (settings.run("."), jobs),
    ):
        _remove(one for one in _old(parent) if one.name not in named)
    for dataset in refused:
        clear(settings.dataset(dataset))
    artefacts = [one for one in _old(settings.artefacts) if one.name not in made]
    _remove(one for one in artefacts if one.name.startswith("."))  # never finished
    for one in artefacts:
        if not one.name.startswith("."):
            drop_artefact(here, one.name)


def _old(parent: Path) -> Iterator[Path]:
    before = time.time() - FRESH_S
    for one in parent.iterdir() if parent.is_dir() else ():
        try:
            if one.lstat().st_ctime < before:
                yield one
        except FileNotFoundError:  # gone since it was listed
            continue


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _end_jobs(here: Service, owner_id: str) -> None:
    unfinished = select(Job.id).where(Job.owner_id == owner_id, Job.state.not_in(TERMINAL))
    with here.database.read() as session:
        jobs = list(session.scalars(unfinished))
    for job in jobs:
        try:
            queue.cancel(here.database, job)
        except queue.Lost:
            continue  # deleted meanwhile
    until = time.monotonic() + CANCEL_S
    while jobs and time.monotonic() < until:
        with here.database.read() as session:
            if session.scalar(unfinished.limit(1)) is None:
                return
        time.sleep(0.1)


def _delete_rows(here: Service, session: Session, owner_id: str) -> _Left:
    settings = here.settings
    jobs = list(session.scalars(select(Job.id).where(Job.owner_id == owner_id)))
    datasets = list(session.scalars(select(Dataset.id).where(Dataset.owner_id == owner_id)))
    digests = set(session.scalars(select(Model.digest).where(Model.owner_id == owner_id)))
    session.execute(delete(Event).where(Event.job_id.in_(select(Job.id).where(Job.owner_id == owner_id))))
    for table in (Job, Correction, Dataset, Model, File, Answered):
        session.execute(delete(table).where(table.owner_id == owner_id))
    folders = [
        *(settings.run(job) for job in jobs),
        *(settings.dataset(dataset) for dataset in datasets),
        settings.private(owner_id),
    ]
    return _Left(folders, digests)
