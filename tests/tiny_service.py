"""A service without weights or workers, and clients of it: for tests of the routes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.testclient import TestClient
from sqlalchemy import select

from graftwork.service.app import create_app
from graftwork.service.artefacts import Artefacts
from graftwork.service.context import Service
from graftwork.service.database import Database
from graftwork.service.database.tables import Base, Owner, Scope
from graftwork.service.models import Models
from graftwork.service.security import new_key, new_owner
from graftwork.service.settings import Settings
from graftwork.service.usage import Meter


class NoServing:
    """Holds nothing and answers nothing."""

    def figures(self) -> Mapping[str, float]:
        return {"inputs": 0.0, "backbone_bytes": 0.0, "refused": 2.0}

    def backbones(self) -> list[Any]:
        return []

    def forget(self, folder: Path) -> None:
        pass


class Nothing:
    """Stands in for what a test does not touch: any method, without effect."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def make_service(root: Path, **changes: Any) -> Service:
    """changes: of Settings, or a part of Service (serving, models, artefacts, or a migrated database)."""
    names = ("serving", "models", "artefacts", "database")
    parts = {name: changes.pop(name) for name in names if name in changes}
    settings = replace(Settings(root), **changes)
    settings.home.mkdir(parents=True, exist_ok=True)
    database = parts.pop("database", None)
    if database is None:
        database = Database(settings.url)
        Base.metadata.create_all(database.engine)
    made: dict[str, Any] = {"serving": NoServing(), "artefacts": Artefacts(settings.artefacts), **parts}
    made.setdefault("models", Models(settings, database, made["serving"]))
    return Service(settings=settings, database=database, meter=Meter(database, settings), **made)


def key_of(service: Service, owner: str = "ann", scope: Scope = "write") -> str:
    """A new key of the owner of that name, who is made where there is none."""
    with service.database.write() as session:
        found = session.scalar(select(Owner).where(Owner.name == owner)) or new_owner(session, owner)
        return new_key(session, found.id, "test", scope, None)[1]


@contextmanager
def client_of(
    service: Service, key: str | None = None, also: APIRouter | None = None, base: str = "http://localhost"
) -> Iterator[TestClient]:
    """Asks `service` in this process, as the bearer of `key`. also: routes of the test's own."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    app = create_app(service)
    if also is not None:
        app.include_router(also)
    with TestClient(app, base, headers=headers, follow_redirects=False) as client:
        yield client


def problem_in(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem that `answer` is; asserts that it has the form of one."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert set(found) - {"errors"} == {"type", "title", "status", "detail", "code", "request_id"}
    assert found["status"] == status and found["request_id"] == answer.headers["x-request-id"]
    assert found["type"].endswith(found["code"]) and "\n" not in found["detail"]
    assert code is None or found["code"] == code, found
    return found
