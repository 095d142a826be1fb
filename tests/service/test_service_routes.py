"""Laws that hold for every route there is; what is tested follows from the application's own table."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount

from graftwork.service import ids
from graftwork.service.app import create_app
from graftwork.service.context import Service
from graftwork.service.database.tables import Correction, Dataset, File, Job, Model
from graftwork.service.middleware import API, PUBLIC, PUBLIC_UNDER
from graftwork.service.security import digest
from graftwork.service.strict import StrictRoute
from tiny_service import client_of, key_of, make_service, problem_in


class Way(NamedTuple):
    """One method of one path, as `/v1/datasets/{dataset}`."""

    method: str
    path: str

    def at(self, **values: str) -> str:
        """The path with its parameters filled in; those not given are of a form that nothing has."""
        return re.sub(r"{(\w+)(:\w+)?}", lambda found: values.get(found[1], "none"), self.path)

    @property
    def is_api(self) -> bool:
        return self.path.startswith(API)


@cache
def ways() -> tuple[Way, ...]:
    """Every route and method of the application."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(make_service(Path(folder)))
    found = []
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, Mount):
            assert route.path == "/static"
            continue
        assert route.path and route.methods, "a route of another kind: say here how it is guarded"
        found += [Way(method, route.path) for method in sorted(route.methods - {"HEAD"})]
    return tuple(found)


def _public(way: Way) -> bool:
    return way.path in PUBLIC or way.path.startswith(PUBLIC_UNDER)


GUARDED = [way for way in ways() if not _public(way)]
WITH_IDS = [way for way in GUARDED if "{" in way.path]
IN_PATH = {
    "file": "file",
    "dataset": "data",
    "row": "row",
    "job": "job",
    "model": "model",
    "id": "",
}
"""Parameters of paths, and what they name; `id` is a key's or an owner's."""
TRAVERSALS = (
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "%00",
    "a%00b",
    "%ff%fe",
    "%ed%a0%80",
    "file:%2f%2f%2fetc%2fpasswd",
    "~",
    "-",
    "%20",
    "%e2%80%ae",
    "x" * 5_000,
)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path)


@pytest.fixture
def stranger(service: Service) -> Iterator[Any]:
    with client_of(service) as client:
        yield client


@pytest.fixture
def asker(service: Service) -> Iterator[Any]:
    """Asks with a key that may do everything with what is its own."""
    with client_of(service, key_of(service, "ann")) as client:
        yield client


def test_there_are_routes_and_every_parameter_is_known() -> None:
    assert len(GUARDED) > 30 and len(WITH_IDS) > 10
    assert {name for way in WITH_IDS for name in re.findall(r"{(\w+)", way.path)} == set(IN_PATH)


@pytest.mark.parametrize("way", GUARDED, ids=" ".join)
def test_no_route_answers_without_an_identity(stranger: Any, way: Way) -> None:
    for headers in ({}, {"Authorization": "Bearer gw_" + "x" * 43}, {"Cookie": "graftwork=gs_x"}):
        answer = stranger.request(way.method, way.at(), headers=headers)
        if way.is_api:
            problem_in(answer, 401, "unauthorized")
        else:
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")


def test_what_is_public_is_health_signing_in_and_the_static_files(stranger: Any) -> None:
    found = sorted({way.path for way in ways() if _public(way)})
    assert found == ["/healthz", "/readyz", "/sign-in", "/sign-in/{link}"]
    for path in ("/healthz", "/readyz", "/sign-in", "/sign-in/x", "/static/page.css"):
        assert stranger.get(path).status_code == 200
    for path in (
        "/static/../secret",
        "/static/%2e%2e/routes.py",
        "/static/..%2froutes.py",
        "/static/%00",
        "/static/",
    ):
        assert stranger.get(path).status_code in (303, 404)


READS = {"GET", "HEAD"}
PREDICTS = {Way("POST", "/v1/predict"), Way("POST", "/sign-out")}
"""What changes nothing of an owner's but its method might say so."""


@pytest.mark.parametrize(
    "way", [way for way in GUARDED if way.method not in READS and way not in PREDICTS], ids=" ".join
)
def test_a_key_that_predicts_changes_nothing(service: Service, way: Way) -> None:
    with client_of(service, key_of(service, scope="predict")) as client:
        problem_in(client.request(way.method, way.at(), json={}), 403, "forbidden")


def _everything(service: Service, owner: str) -> dict[str, dict[str, str]]:
    """One of all that an owner may have: for each parameter its id. Keys and owners under their own."""
    now = time.time()
    new: dict[str, str] = {name: ids.new(what) for name, what in IN_PATH.items() if what}  # type: ignore[misc]
    found = service.passes.find(digest(key_of(service, owner)))
    assert found is not None
    of, key = found.caller.owner_id, str(found.caller.key_id)
    with service.database.write() as session:
        rows: list[Any] = [
            File(id=new["file"], name="a", media_type="text/csv", bytes=1, sha256="a" * 64, created=now),
            Dataset(
                id=new["dataset"], name="d", state="ready", files=[], options={}, bytes=1, rows=1, created=now
            ),
            Job(id=new["job"], kind="fit", state="succeeded", request={}, created=now),
            Model(
                id=new["model"],
                name="m",
                digest="1" * 64,
                kind="text",
                labels=["a", "b"],
                strategy="probe",
                fingerprint="f",
                summary={},
                created=now,
            ),
        ]
        for row in rows:
            row.owner_id = of
        session.add_all(rows)
        session.flush()
        row = Correction(
            id=new["row"], dataset_id=new["dataset"], owner_id=of, label="a", text="t", created=now
        )
        session.add(row)
    return {"/v1/keys": {"id": key}, "/v1/owners": {"id": of}, "": new}


def _ids_for(way: Way, everything: dict[str, dict[str, str]]) -> dict[str, str]:
    return next(values for prefix, values in everything.items() if way.path.startswith(prefix))


@pytest.mark.parametrize("way", WITH_IDS, ids=" ".join)
def test_anothers_ids_are_404_and_as_if_there_were_none(service: Service, asker: Any, way: Way) -> None:
    values = _ids_for(way, _everything(service, "bob"))
    if way.path.startswith("/v1/owners") and way.method != "GET":
        problem_in(asker.request(way.method, way.at(**values), json={}), 403)  # for admins, whoever is named
        return
    body = _body_of(way)
    theirs = asker.request(way.method, way.at(**values), json=body)
    assert theirs.status_code == 404, theirs.text
    none = {name: re.sub("[0-9a-f]{16}$", "0" * 16, value) for name, value in values.items()}
    missing = asker.request(way.method, way.at(**none), json=body)
    assert missing.status_code == 404
    if way.is_api:
        said, other = (problem_in(one, 404, "not-found")["detail"] for one in (theirs, missing))
        for name in values:
            said, other = said.replace(values[name], "ID"), other.replace(none[name], "ID")
        assert said == other


def _body_of(way: Way) -> dict[str, Any] | None:
    """A body that would do, so that nothing but the id is at fault."""
    known: dict[Way, dict[str, Any]] = {
        Way("POST", "/v1/datasets/{dataset}/rows"): {"label": "a", "text": "b"},
        Way("PATCH", "/v1/models/{model}"): {"name": "other"},
        Way("PATCH", "/v1/owners/{id}"): {},
    }
    assert way in known or way.method in ("GET", "DELETE") or way.path.endswith(("/cancel", "/links")), way
    return known.get(way)


def test_anothers_ids_in_bodies_and_queries_are_as_if_there_were_none(service: Service, asker: Any) -> None:
    theirs = _everything(service, "bob")[""]
    none = {name: re.sub("[0-9a-f]{16}$", "0" * 16, value) for name, value in theirs.items()}
    for path, body in (
        ("/v1/datasets", {"name": "d", "files": [{"file": "{file}"}]}),
        ("/v1/jobs", {"kind": "fit", "dataset": "{dataset}", "name": "m"}),
        ("/v1/jobs", {"kind": "rank", "dataset": "{dataset}"}),
        ("/v1/jobs", {"kind": "import", "file": "{file}", "name": "m"}),
        ("/v1/predict", {"model": "{model}", "inputs": ["x"]}),
    ):
        said = []
        for of in (theirs, none):
            text = json.dumps(body)
            for name, value in of.items():
                text = text.replace("{" + name + "}", value)
            answer = asker.post(path, content=text, headers={"Content-Type": "application/json"})
            found = problem_in(answer, answer.status_code)
            assert answer.status_code in (404, 422), answer.text
            for name, value in of.items():
                found["detail"] = found["detail"].replace(value, name)
            said.append((answer.status_code, found["detail"]))
        assert said[0] == said[1]
    assert asker.get("/v1/jobs", params={"dataset": theirs["dataset"]}).json()["items"] == []


def test_lists_show_ones_own_alone(service: Service, asker: Any) -> None:
    mine, theirs = (_everything(service, owner)[""] for owner in ("ann", "bob"))
    service.models.look()
    for path, name in (("files", "file"), ("datasets", "dataset"), ("jobs", "job"), ("models", "model")):
        shown = [one["id"] for one in asker.get(f"/v1/{path}").json()["items"]]
        assert shown == [mine[name]] and theirs[name] not in shown


@pytest.mark.parametrize("way", WITH_IDS, ids=" ".join)
def test_a_path_that_leads_elsewhere_is_404(service: Service, way: Way) -> None:
    with client_of(service, key_of(service, "root", "admin")) as admin:
        for said in TRAVERSALS:
            for name in re.findall(r"{(\w+)", way.path):
                answer = admin.request(way.method, way.at(**{name: said}), json=_body_of(way))
                assert answer.status_code in (404, 422), (said, answer.status_code)


def test_a_query_that_is_odd_is_refused_or_of_no_effect(service: Service) -> None:
    app: FastAPI = create_app(service)
    document = app.openapi()
    tried = 0
    with client_of(service, key_of(service, "root", "admin")) as admin:
        for path, routes in document["paths"].items():
            for one in routes.get("get", {}).get("parameters", []):
                if one["in"] == "query":
                    for said in TRAVERSALS:
                        answer = admin.get(f"{Way('GET', path).at()}?{one['name']}={said}")
                        assert answer.status_code < 500, (path, one["name"], said, answer.text[:300])
                        tried += 1
    assert tried > 100


def test_every_create_takes_an_idempotency_key(service: Service) -> None:
    for path, routes in create_app(service).openapi()["paths"].items():
        creates = "post" in routes and {"201", "202"} & set(routes["post"]["responses"])
        if creates and not path.endswith("/cancel"):
            names = {one["name"] for one in routes["post"].get("parameters", [])}
            assert "Idempotency-Key" in names, path


def test_every_route_that_takes_json_reads_it_strictly(service: Service) -> None:
    for route in iter_route_contexts(create_app(service).routes):
        original = route.original_route
        if isinstance(original, APIRoute) and original.body_field is not None:
            assert isinstance(original, StrictRoute), route.path
