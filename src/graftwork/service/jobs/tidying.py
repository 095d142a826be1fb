"""What a crash left behind is removed: folders of runs that are over, artefacts that no model names."""

import shutil
import time
from pathlib import Path

from sqlalchemy import select

from graftwork.service.artefacts import Artefacts
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Job, Model
from graftwork.service.settings import Settings

OLD_S = 24 * 3600.0
"""Younger ones may belong to a job that is about to end."""


def tidy(settings: Settings, database: Database) -> None:
    """Remove what nobody can need any more."""
    runs = settings.run("any").parent
    for folder in _within(runs):
        with database.read() as session:
            job = session.get(Job, folder.name)
        if job is None or job.state in TERMINAL:
            shutil.rmtree(folder, ignore_errors=True)
    artefacts = Artefacts(settings.artefacts)
    for digest in artefacts.digests():
        if _is_old(artefacts.folder(digest)):
            with database.read() as session:
                named = session.scalar(select(Model.id).where(Model.digest == digest).limit(1))
            if named is None:
                artefacts.remove(digest)
    for folder in _within(settings.artefacts):
        if folder.name.startswith(".") and _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _within(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _is_old(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > OLD_S
    except FileNotFoundError:
        return False
