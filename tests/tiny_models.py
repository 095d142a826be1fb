"""Toy artefacts for a service, and a stand-in for serving that answers without weights."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import toys
from graftwork import artefact, manifest
from graftwork.errors import Busy
from graftwork.examples import probe_rows
from graftwork.model import Model
from graftwork.service import ids
from graftwork.service.artefacts import Artefacts
from graftwork.service.callers import Caller
from graftwork.service.context import Service
from graftwork.service.database import tables
from graftwork.service.models import Models
from graftwork.serving.records import Item, Replies
from tiny_service import NoServing, make_service

LABELS = ("billing", "delivery", "其他")
REPORT = "<!doctype html><script>alert(1)</script><p>report</p>"


class Echo(NoServing):
    """Answers by an input's length; `broken` cannot be read. Remembers what it was asked and told."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Path], list[Item]]] = []
        self.forgotten: list[Path] = []
        self.busy = False

    async def answer(self, folders: Sequence[Path], items: Sequence[Item]) -> list[Replies]:
        self.asked.append((list(folders), list(items)))
        if self.busy:
            raise Busy("1,024 inputs wait; ask again", 3.0)
        unreadable = {i: "is no picture" for i, one in enumerate(items) if one in ("broken", b"broken")}
        probabilities = np.array([_row(one) for one in items])
        probabilities[list(unreadable)] = np.nan
        unknown = np.array([len(one) > 100 for one in items])
        return [Replies(LABELS, probabilities, unknown, unreadable) for _ in folders]

    def forget(self, folder: Path) -> None:
        self.forgotten.append(folder)


def _row(one: Item) -> list[float]:
    first = (1 + len(one) % 7) / 10
    return [first, (1 - first) / 4, 3 * (1 - first) / 4]


def service_with_models(root: Path, **changes: Any) -> Service:
    """A service whose models are real, with `Echo` to answer for them."""
    made = make_service(root, serving=Echo(), **changes)
    made.artefacts = Artefacts(made.settings.artefacts)
    made.models = Models(made.settings, made.database, made.serving)
    return made


def toy_artefact(folder: Path, seed: int = 0, report: str = REPORT) -> Path:
    """A saved artefact of the kind text; loads where `toys.register` was called."""
    weights = np.random.default_rng(seed).normal(size=(toys.WIDTH, 3)) / 50
    return artefact.save(
        Model(toys.ToyBackbone(), toys.ToyHead(LABELS, weights)),
        folder,
        strategy="probe",
        result={"scores": {"test": {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}}},
        versions={"graftwork": "0"},
        created="2026-01-01T00:00:00+00:00",
        report=report,
        probe=probe_rows("text", [b"where is my parcel", "例子".encode()]),
    )


def add_model(
    service: Service, owner_id: str, name: str, *, kind: str = "text", seed: int = 0, tmp: Path | None = None
) -> str:
    """A model as a job of a worker adds it, behind the back of the process; its id."""
    finished = toy_artefact((tmp or service.settings.home) / "made" / f"{name}.graft", seed)
    fingerprint = manifest.inspect(finished).fingerprint
    digest = service.artefacts.put(finished)
    row = tables.Model(
        id=ids.new("model"),
        owner_id=owner_id,
        name=name,
        digest=digest,
        kind=kind,
        labels=list(LABELS),
        strategy="probe",
        source=None,
        fingerprint=fingerprint,
        summary={"bytes": 1},
        created=time.time(),
    )
    with service.database.write() as session:
        session.add(row)
    return row.id


def caller_of(service: Service, owner: str = "ann", scope: tables.Scope = "write") -> Caller:
    """The owner of that name, as a route sees it."""
    from sqlalchemy import select

    with service.database.read() as session:
        found = session.scalars(select(tables.Owner).where(tables.Owner.name == owner)).one()
    return Caller(found.id, found.name, scope, None)
