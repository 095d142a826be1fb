"""Keys and owners over HTTP, and deleting all that belongs to one."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from graftwork.service import erasing, ids
from graftwork.service.artefacts import Artefacts
from graftwork.service.context import Service
from graftwork.service.database import Database
from graftwork.service.database.tables import (
    OPERATOR,
    Answered,
    Base,
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
from graftwork.service.jobs import queue
from graftwork.service.security import digest, new_link, open_session
from tiny_service import Nothing, client_of, key_of, make_service, problem_in

NAME = "a" * 64
"""Of the file that each folder of `_fill` holds."""


class Noted(Nothing):
    """Notes what it was told to forget."""

    def __init__(self) -> None:
        self.forgotten: list[Any] = []

    def forget(self, folder: Path) -> None:
        self.forgotten.append(folder)

    def forget_owner(self, owner_id: str) -> None:
        self.forgotten.append(owner_id)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path, models=Noted(), artefacts=Artefacts(tmp_path / ".graftwork" / "artefacts"))


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service)) as client:
        yield client


@pytest.fixture
def admin(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service, OPERATOR, "admin")) as client:
        yield client


def test_a_key_is_shown_once_and_opens_what_its_scope_allows(service: Service, ann: Any) -> None:
    made = ann.post("/v1/keys", json={"name": "phone", "scope": "predict"})
    assert made.status_code == 201 and made.json()["key"].startswith(made.json()["prefix"])
    shown = ann.get(made.headers["location"]).json()
    assert shown == {name: value for name, value in made.json().items() if name != "key"}
    with client_of(service, made.json()["key"]) as phone:
        assert phone.get("/v1/usage").status_code == 200
        problem_in(phone.get("/v1/keys"), 403)


def test_an_idempotent_key_is_made_once_and_never_shown_again(service: Service, ann: Any) -> None:
    once = {"Idempotency-Key": "a"}
    first, second = (ann.post("/v1/keys", json={"name": "k"}, headers=once).json() for _ in range(2))
    assert first["id"] == second["id"] and "key" not in second
    assert first["key"].encode() not in (service.settings.home / "service.db").read_bytes()


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "\u202e"}, "/name"),
        ({"name": "k", "scope": "root"}, "/scope"),
        ({"name": "k", "expires": "2020-01-01T00:00:00Z"}, "/expires"),
        ({"name": "k", "expires": "2030-01-01T00:00:00"}, "/expires"),
        ({"name": "k", "expires": "9999-12-31T23:59:59-12:00"}, "/expires"),
        ({"name": "k", "hash": "x"}, "/hash"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_its_field(ann: Any, asked: Any, pointer: str) -> None:
    found = problem_in(ann.post("/v1/keys", json=asked), 422)
    assert [one["pointer"] for one in found["errors"]] == [pointer]


def test_nobody_makes_a_key_of_more_than_his_own_or_for_another(service: Service, ann: Any) -> None:
    bob = service.passes.find(digest(key_of(service, "bob")))
    assert bob is not None
    problem_in(ann.post("/v1/keys", json={"name": "k", "scope": "admin"}), 403)
    problem_in(ann.post("/v1/keys", json={"name": "k", "owner": bob.caller.owner_id}), 403)
    problem_in(ann.get("/v1/keys", params={"owner": bob.caller.owner_id}), 403)
    for method in ("get", "delete"):
        problem_in(getattr(ann, method)(f"/v1/keys/{bob.caller.key_id}"), 404)


def test_an_expired_key_is_refused(service: Service, ann: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"name": "k", "expires": "2101-01-01T00:00:00+01:00"}
    made = ann.post("/v1/keys", json=asked).json()
    assert made["expires"] == "2100-12-31T23:00:00.000Z"
    with client_of(service, made["key"]) as short:
        assert short.get("/v1/usage").status_code == 200
        monkeypatch.setattr("graftwork.service.passes.time.time", lambda: 4.2e9)
        problem_in(short.get("/v1/usage"), 401)


def test_lists_come_in_pages_that_newer_rows_do_not_shift(ann: Any) -> None:
    names = [ann.post("/v1/keys", json={"name": f"k{n}"}).json()["name"] for n in range(5)]
    one = ann.get("/v1/keys", params={"limit": 2}).json()
    ann.post("/v1/keys", json={"name": "later"})
    seen, cursor = [row["name"] for row in one["items"]], one["next_cursor"]
    while cursor:
        page = ann.get("/v1/keys", params={"limit": 2, "cursor": cursor}).json()
        seen, cursor = [*seen, *(row["name"] for row in page["items"])], page["next_cursor"]
    assert seen[-1] == "test" and sorted(seen[:-1]) == sorted(names)


@pytest.mark.parametrize(
    "asked",
    [{"cursor": "x"}, {"cursor": "Li4vLi4"}, {"cursor": "字"}, {"limit": 0}, {"limit": 201}, {"limit": "x"}],
)
def test_a_cursor_or_limit_that_is_none_is_422(ann: Any, asked: Any) -> None:
    found = problem_in(ann.get("/v1/keys", params=asked), 422)
    assert found["errors"][0]["pointer"] == "?" + next(iter(asked))


def test_an_admin_makes_owners_and_their_keys(service: Service, admin: Any) -> None:
    made = admin.post("/v1/owners", json={"name": "lab", "quotas": {"jobs": 2, "bytes": None}}).json()
    assert made["quotas"]["jobs"] == 2 and made["quotas"]["bytes"] is None
    assert made["quotas"]["models"] == service.settings.quotas.models
    problem_in(admin.post("/v1/owners", json={"name": "lab"}), 409, "name-taken")
    key = admin.post("/v1/keys", json={"name": "first", "owner": made["id"]}).json()["key"]
    with client_of(service, key) as lab:
        assert lab.get("/v1/owners/me").json() == admin.get(f"/v1/owners/{made['id']}").json() == made
        problem_in(lab.get("/v1/owners"), 403)
        problem_in(lab.get(f"/v1/owners/{OPERATOR}"), 404)
    first = admin.get("/v1/owners", params={"limit": 1}).json()
    second = admin.get("/v1/owners", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [one["name"] for page in (first, second) for one in page["items"]] == ["lab", OPERATOR]


def test_a_one_time_link_signs_in_as_its_owner(service: Service, admin: Any, ann: Any) -> None:
    owner = admin.post("/v1/owners", json={"name": "lab"}).json()
    older, newer = (admin.post(f"/v1/owners/{owner['id']}/links").json() for _ in range(2))
    with client_of(service) as browser:
        assert browser.post(f"/sign-in/{older['link']}").status_code == 403  # void since there is a newer one
        assert browser.post(f"/sign-in/{newer['link']}").headers["location"] == "/"
        assert browser.get("/v1/owners/me").json()["name"] == "lab"
        problem_in(browser.get("/v1/owners"), 403)
        assert browser.post(f"/sign-in/{newer['link']}").status_code == 403
    problem_in(ann.post(f"/v1/owners/{owner['id']}/links"), 403)
    problem_in(admin.post("/v1/owners/own_none/links"), 404)
    again = {"Idempotency-Key": "once"}
    said = [admin.post(f"/v1/owners/{owner['id']}/links", headers=again).json() for _ in range(2)]
    assert said[0]["link"].startswith("gl_") and "link" not in said[1]


def test_bounds_change_at_once_and_one_by_one(service: Service, admin: Any, ann: Any) -> None:
    id = ann.get("/v1/owners/me").json()["id"]
    admin.patch(f"/v1/owners/{id}", json={"quotas": {"jobs": 7}})
    answer = admin.patch(f"/v1/owners/{id}", json={"quotas": {"requests": 0}})
    assert answer.json()["quotas"]["jobs"] == 7
    problem_in(ann.get("/v1/usage"), 429, "rate-limited")
    assert admin.patch(f"/v1/owners/{id}", json={"default": True}).json()["quotas"]["jobs"] == 20
    problem_in(admin.patch(f"/v1/owners/{id}", json={"quotas": {"jobs": -1}}), 422)
    problem_in(admin.patch("/v1/owners/own_none", json={}), 404)


def test_the_operator_cannot_be_deleted(admin: Any) -> None:
    problem_in(admin.delete(f"/v1/owners/{OPERATOR}"), 409)


def _fill(service: Service, owner: str, digest: str) -> None:
    """One row of everything that an owner may have, and the files that they name."""
    now, settings = time.time(), service.settings
    data, job = ids.new("data"), ids.new("job")
    with service.database.write() as session:
        id = session.scalars(select(Owner.id).where(Owner.name == owner)).one()
        ended: Any = {"state": "succeeded", "request": {}, "kind": "fit", "created": now}
        rows = [
            File(id=ids.new("file"), name="a", media_type="text/csv", bytes=1, sha256=NAME, created=now),
            Dataset(id=data, name="d", state="ready", files=[], options={}, bytes=1, created=now),
            Job(id=job, **ended),
            Model(
                id=ids.new("model"),
                name="m",
                digest=digest,
                kind="text",
                labels=["a"],
                strategy="probe",
                fingerprint="f",
                summary={},
                created=now,
            ),
            Answered(key="k", payload="p", status=201, headers={}, body={}, created=now),
            Usage(day="2026-01-01"),
        ]
        for row in rows:
            row.owner_id = id
        session.add_all(rows)
        session.flush()
        session.add(Event(job_id=job, seq=1, at=now, kind="state", data={}))
        session.add(Correction(id=ids.new("row"), dataset_id=data, owner_id=id, label="a", created=now))
    for folder in (
        settings.uploads(id),
        settings.dataset(data),
        settings.run(job),
        settings.private(id),
        settings.artefacts / digest,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(owner)


def _files_of(service: Service, owner: str) -> list[Path]:
    return [one for one in service.settings.home.rglob(NAME) if one.read_text() == owner]


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Any:
    """Two owners with everything, one artefact of each and one that both have; on each kind of database."""
    artefacts = Artefacts(tmp_path / "s" / ".graftwork" / "artefacts")
    service = make_service(
        tmp_path / "s", database=database, models=Noted(), artefacts=artefacts, serving=Noted()
    )
    keys = {name: key_of(service, name) for name in ("ann", "bob")}
    for owner in keys:
        _fill(service, owner, {"ann": "1", "bob": "2"}[owner] * 64)
        _fill_model(service, owner, "3" * 64)
    (service.settings.artefacts / ("3" * 64)).mkdir()
    return service, keys


def _fill_model(service: Service, owner: str, digest: str) -> None:
    with service.database.write() as session:
        (of,) = session.scalars(
            select(Model).join(Owner, Owner.id == Model.owner_id).where(Owner.name == owner)
        )
        copied = {column.name: getattr(of, column.name) for column in Model.__table__.columns}
        session.add(Model(**{**copied, "id": ids.new("model"), "digest": digest}))


def _left(service: Service, owner_id: str) -> set[str]:
    """Names of tables that still have rows of an owner."""
    found = set()
    with service.database.read() as session:
        for table in Base.metadata.sorted_tables:
            column = table.c.get("owner_id")
            column = table.c.id if table.name == "owners" else column
            if column is not None and session.scalar(select(func.count()).where(column == owner_id)):
                found.add(table.name)
        if session.scalar(select(Event.seq).join(Job).where(Job.owner_id == owner_id).limit(1)):
            found.add("events")
    return found


def test_deleting_ones_data_leaves_keys_and_nothing_of_the_data(filled: Any) -> None:
    service, keys = filled
    with client_of(service, keys["ann"]) as ann:
        id = ann.get("/v1/owners/me").json()["id"]
        with service.database.read() as session:
            before = session.get_one(Owner, id).secret
        assert ann.delete("/v1/owners/me/data").status_code == 204
        assert ann.get("/v1/usage").status_code == 200
    assert _left(service, id) == {"owners", "keys", "usage"}
    assert _files_of(service, "ann") == [] and len(_files_of(service, "bob")) == 5
    assert service.artefacts.digests() == {"2" * 64, "3" * 64}  # bob has the third as well
    assert service.models.forgotten == [id]
    assert service.serving.forgotten == [service.artefacts.folder("1" * 64)]
    with service.database.read() as session:
        assert session.get_one(Owner, id).secret != before


def test_an_upload_that_ends_while_ones_data_is_deleted_is_whole(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, keys = filled
    with client_of(service, keys["ann"]) as ann:

        def upload(_: str) -> None:
            assert ann.post("/v1/files?name=a.csv", content=b"text,label\n").status_code == 201

        monkeypatch.setattr(service.models, "forget_owner", upload)
        assert ann.delete("/v1/owners/me/data").status_code == 204
        (file,) = ann.get("/v1/files").json()["items"]
        kept = list(service.settings.uploads(ann.get("/v1/owners/me").json()["id"]).iterdir())
    assert [one.name for one in kept] == [file["sha256"]]


def test_deleting_an_owner_leaves_nothing_and_others_alone(filled: Any) -> None:
    service, keys = filled
    with client_of(service, keys["ann"]) as ann, client_of(service, keys["bob"]) as bob:
        id, other = (one.get("/v1/owners/me").json()["id"] for one in (ann, bob))
        open_session(service.database, keys["ann"])
        whole = _left(service, other)
        with client_of(service, key_of(service, OPERATOR, "admin")) as admin:
            assert admin.delete(f"/v1/owners/{id}").status_code == 204
            problem_in(admin.delete(f"/v1/owners/{id}"), 404)
        problem_in(ann.get("/v1/usage"), 401)
        assert bob.get("/v1/usage").status_code == 200
    service.meter.flush()  # what was counted of the deleted owner is left out
    assert _left(service, id) == set() and _files_of(service, "ann") == []
    assert _left(service, other) >= whole and len(_files_of(service, "bob")) == 5


def test_running_jobs_are_told_to_end_before_their_data_is_deleted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(tmp_path / "s", database=database)
    with client_of(service, key_of(service)) as ann:
        id = ann.get("/v1/owners/me").json()["id"]
        with service.database.write() as session:
            queue.enqueue(session, id, "fit", {})
        job = queue.claim(service.database, "worker", 60.0)
        assert job is not None
        ended = []

        def worker(_: float) -> None:
            ended.append(queue.finish(service.database, job.id, job.attempt, result={}))

        monkeypatch.setattr("graftwork.service.erasing.time.sleep", worker)
        assert ann.delete("/v1/owners/me/data").status_code == 204
    assert ended == ["cancelled"]


def test_a_job_that_does_not_end_may_not_write_any_more(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "CANCEL_S", 0.2)
    service = make_service(tmp_path / "s", database=database)
    with client_of(service, key_of(service)) as ann:
        id = ann.get("/v1/owners/me").json()["id"]
        with service.database.write() as session:
            queue.enqueue(session, id, "fit", {})
        job = queue.claim(service.database, "worker", 60.0)
        assert job is not None
        assert ann.delete("/v1/owners/me/data").status_code == 204
    with pytest.raises(queue.Lost):
        queue.finish(service.database, job.id, job.attempt, result={})


def test_sweeping_removes_what_no_row_names_and_is_not_new(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = filled
    settings = service.settings
    orphans = [
        settings.uploads(ids.new("own")),
        settings.private(ids.new("own")),
        settings.dataset(ids.new("data")),
        settings.run(ids.new("job")),
        settings.artefacts / ("9" * 64),
    ]
    for folder in orphans:
        folder.mkdir(parents=True)
    orphans.append(settings.artefacts / ".begun")
    orphans[-1].touch()
    with service.database.write() as session:
        dataset = session.scalars(select(Dataset)).first()
        assert dataset is not None
        dataset.state = "refused"  # by an inspection that was killed
        left = settings.dataset(dataset.id) / "contents/pictures"
    left.mkdir(parents=True)
    new_link(service.database)
    erasing.sweep(service)
    assert not left.parent.exists() and left.parent.parent.exists()
    assert all(folder.exists() for folder in orphans)
    later = time.time() + 3 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    erasing.sweep(service)
    assert not any(folder.exists() for folder in orphans)
    # the run folders went: those jobs have ended
    assert len(_files_of(service, "ann")) == len(_files_of(service, "bob")) == 4
    assert service.artefacts.digests() == {"1" * 64, "2" * 64, "3" * 64}
    with service.database.read() as session:
        assert session.scalar(select(func.count(Ticket.hash))) == 0
        assert session.scalar(select(func.count(Answered.key))) == 0
        assert session.scalar(select(func.count(Key.id)))
