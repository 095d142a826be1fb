"""A service without its front: uploads, datasets and jobs, done in this very process."""

import hashlib
import time
from pathlib import Path
from typing import Any, TypeVar

from graftwork.errors import GraftworkError
from graftwork.service import ids, work
from graftwork.service.database import Database
from graftwork.service.database.tables import (
    Base,
    Correction,
    Dataset,
    Event,
    File,
    Job,
    JobKind,
    Model,
    Owner,
)
from graftwork.service.jobs import queue
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import Problem
from graftwork.service.settings import Settings

Row = TypeVar("Row", bound=Base)


class Shop:
    """What is Ann's; Bob is another owner."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.settings = Settings(root / "served", offline=True, **changes)
        self.settings.home.mkdir(parents=True)
        self.database = Database(f"sqlite:///{root / 'shop.db'}")
        Base.metadata.create_all(self.database.engine)
        with self.database.write() as session:
            for name, secret in (("ann", "ab" * 32), ("bob", "cd" * 32)):
                session.add(Owner(id=name, name=name, secret=secret, quotas={}, created=time.time()))

    def upload(self, name: str, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        place = self.settings.uploads("ann") / sha256
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        file = File(
            id=ids.new("file"), owner_id="ann", name=name, media_type="", bytes=len(content), sha256=sha256,
            created=time.time(),
        )  # fmt: skip
        with self.database.write() as session:
            session.add(file)
        return file.id

    def dataset(
        self, *files: tuple[str, bytes] | tuple[str, bytes, str | None], name: str = "mine", **options: str
    ) -> Dataset:
        """Made and inspected."""
        listed = [{"file": self.upload(*one[:2]), "label": one[2] if len(one) > 2 else None} for one in files]
        row = Dataset(
            id=ids.new("data"), owner_id="ann", name=name, state="inspecting", files=listed, options=options,
            bytes=0, created=time.time(),
        )  # fmt: skip
        with self.database.write() as session:
            session.add(row)
        self.job("inspect", row.id)
        return self.get(Dataset, row.id)

    def correct(
        self, dataset: Dataset, label: str, *, text: str | None = None, content: bytes | None = None
    ) -> None:
        sha256 = None
        if content is not None:
            sha256 = hashlib.sha256(content).hexdigest()
            place = self.settings.dataset(dataset.id) / "corrections" / sha256
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        one = Correction(
            id=ids.new("row"), dataset_id=dataset.id, owner_id="ann", label=label, text=text, sha256=sha256,
            created=time.time(),
        )  # fmt: skip
        with self.database.write() as session:
            session.add(one)

    def ask(self, kind: JobKind, dataset_id: str | None = None, **request: Any) -> str:
        """A job in the queue."""
        with self.database.write() as session:
            return queue.enqueue(session, "ann", kind, request, dataset_id=dataset_id).id

    def job(self, kind: JobKind, dataset_id: str | None = None, **request: Any) -> Job:
        """A job, done as a worker's child does it."""
        self.ask(kind, dataset_id, **request)
        return self.do()

    def do(self) -> Job:
        """The oldest job that waits."""
        job = queue.claim(self.database, "worker", 1000.0)
        assert job is not None
        desk = Desk(self.settings, self.database, job)
        try:
            work.run(job, desk)
        except Problem as problem:
            desk.fail(problem.code, problem.detail)
        except GraftworkError as error:
            desk.fail("invalid-data", str(error))
        return self.get(Job, job.id)

    def get(self, table: type[Row], key: str) -> Row:
        with self.database.read() as session:
            found = session.get(table, key)
            assert found is not None
            return found

    def events(self, job: Job, kind: str) -> list[dict[str, Any]]:
        with self.database.read() as session:
            told: list[Event] = list(queue.events(session, job.id, 0, 10_000))
        return [one.data for one in told if one.kind == kind]

    def model(self, job: Job) -> tuple[Model, Path]:
        """The model that a job made, and its artefact's folder."""
        assert job.model_id is not None, job.problem
        found = self.get(Model, job.model_id)
        return found, self.settings.artefacts / found.digest
