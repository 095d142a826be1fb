"""Jobs over HTTP: queued once, told as they go, cancelled, and read to their end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graftwork.service import ids
from graftwork.service.context import Service
from graftwork.service.database.tables import OPERATOR, Dataset
from graftwork.service.jobs import queue
from graftwork.service.settings import Quotas
from graftwork.service.shapes import Job as Shape
from tiny_models import add_model, caller_of, service_with_models, toy_artefact
from tiny_service import client_of, key_of, make_service, problem_in


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path)


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service)) as client:
        yield client


@pytest.fixture
def dataset(service: Service, ann: Any) -> str:
    return ready_dataset(service)


def ready_dataset(service: Service, state: str = "ready", owner: str = "ann") -> str:
    row = Dataset(
        id=ids.new("data"),
        owner_id=caller_of(service, owner).owner_id,
        name="tickets/2026, all",
        state=state,
        files=[],
        options={},
        kind="text",
        rows=10,
        bytes=0,
        problem={"code": "invalid-data", "detail": "one class"} if state == "refused" else None,
        created=1.0,
    )
    with service.database.write() as session:
        session.add(row)
    return row.id


def test_a_fit_is_queued_with_every_setting_said(ann: Any, dataset: str) -> None:
    answer = ann.post("/v1/jobs", json={"kind": "fit", "dataset": dataset})
    assert answer.status_code == 202
    said = answer.json()
    Shape.model_validate(said)
    assert ann.get(answer.headers["location"]).json() == said
    assert said["state"] == "queued" and said["is_terminal"] is False and said["dataset"] == dataset
    assert said["request"] == {
        "dataset": dataset,
        "name": "tickets-2026- all",
        "source": "auto",
        "strategy": "probe",
        "budget": None,
        "metric": None,
        "baselines": "all",
        "seed": 0,
        "settings": {},
    }


def test_a_ranking_and_an_import_are_queued(ann: Any, dataset: str) -> None:
    said = ann.post("/v1/jobs", json={"kind": "rank", "dataset": dataset, "sources": ["minilm"]}).json()
    assert said["kind"] == "rank" and said["request"]["sources"] == ["minilm"]
    file = ann.post("/v1/files?name=flowers.graft.zip", content=b"PK\x03\x04").json()["id"]
    said = ann.post("/v1/jobs", json={"kind": "import", "file": file}).json()
    assert said["kind"] == "import" and said["dataset"] is None
    assert said["request"] == {"file": file, "name": "flowers"}
    problem_in(ann.delete(f"/v1/files/{file}"), 409, "in-use")


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "fit"},
        {"kind": "inspect"},
        {"dataset": "data_1"},
        {"strategy": "porbe"},
        {"strategy": "../x"},
        {"source": "/etc/passwd"},
        {"source": "../model"},
        {"source": "a/b/c"},
        {"budget": "soon"},
        {"budget": "0m"},
        {"seed": -1},
        {"settings": {"blocks": [1]}},
        {"settings": {"x" * 101: 1}},
        {"settings": {"x": "y" * 1_001}},
        {"settings": {"x": 10**400}},
        {"name": "a,b"},
        {"baselines": "some"},
        {"unknown": 1},
    ],
)
def test_a_request_of_another_form_is_refused(ann: Any, dataset: str, said: dict[str, Any]) -> None:
    whole = said if said.keys() & {"kind", "dataset"} else {"kind": "fit", "dataset": dataset, **said}
    problem_in(ann.post("/v1/jobs", json=whole), 422)
    assert ann.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("more", "pointer", "words"),
    [
        ({"name": "team/x"}, "/name", "the name 'team/x' seen"),
        ({"budget": "2 parsecs"}, "/budget", "String should match"),
        ({"sauce": "minilm"}, "/sauce", "Extra inputs"),
        ({"kind": "fot"}, "", "the body: "),
    ],
)
def test_a_fault_is_pointed_at_where_it_was_sent(
    ann: Any, dataset: str, more: dict[str, str], pointer: str, words: str
) -> None:
    body = {"kind": "fit", "dataset": dataset, **more}
    found = problem_in(ann.post("/v1/jobs", json=body), 422, "invalid-request")
    assert [one["pointer"] for one in found["errors"]] == [pointer]
    assert words in found["detail"] and "Value error" not in found["detail"]


@pytest.mark.parametrize(
    ("state", "code"), [("inspecting", "dataset-not-ready"), ("refused", "dataset-refused")]
)
def test_a_dataset_that_is_not_ready_is_not_fitted(service: Service, ann: Any, state: str, code: str) -> None:
    dataset = ready_dataset(service, state)
    for kind in ("fit", "rank"):
        problem_in(ann.post("/v1/jobs", json={"kind": kind, "dataset": dataset}), 409, code)


def test_a_create_that_is_repeated_under_its_key_makes_one(ann: Any, dataset: str) -> None:
    key = {"Idempotency-Key": "again"}
    body = {"kind": "fit", "dataset": dataset}
    assert (
        ann.post("/v1/jobs", json=body, headers=key).json()
        == ann.post("/v1/jobs", json=body, headers=key).json()
    )
    other = ann.post("/v1/jobs", json={**body, "seed": 1}, headers=key)
    problem_in(other, 422, "idempotency-key-reused")
    assert len(ann.get("/v1/jobs").json()["items"]) == 1


def test_quotas_on_jobs_and_models_hold(tmp_path: Path) -> None:
    service = make_service(tmp_path, quotas=Quotas(jobs=1, models=0))
    with client_of(service, key_of(service)) as ann:
        dataset = ready_dataset(service)
        problem_in(ann.post("/v1/jobs", json={"kind": "fit", "dataset": dataset}), 429, "quota-exceeded")
        assert ann.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}).status_code == 202
        problem_in(ann.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}), 429, "quota-exceeded")


def test_nothing_made_here_takes_the_name_of_what_lies_under_root(tmp_path: Path) -> None:
    service = service_with_models(tmp_path)
    toy_artefact(tmp_path / "tickets.graft")
    (tmp_path / "broken.graft").mkdir()
    (tmp_path / "broken.graft" / "manifest.json").write_text("{}")
    with client_of(service, key_of(service, OPERATOR)) as operator:
        data, model = ready_dataset(service, owner=OPERATOR), add_model(service, OPERATOR, "other")
        for name in ("tickets", "broken"):
            asked = {"kind": "fit", "dataset": data, "name": name}
            said = problem_in(operator.post("/v1/jobs", json=asked), 409, "name-taken")
            assert said["errors"][0]["pointer"] == "/name"
            problem_in(operator.patch(f"/v1/models/{model}", json={"name": name}), 409, "name-taken")
        assert operator.post("/v1/jobs", json={**asked, "name": "new"}).status_code == 202
        assert operator.post("/v1/jobs", json={"kind": "rank", "dataset": data}).status_code == 202
    with client_of(service, key_of(service, "ben")) as other:  # who does not see what lies there
        asked = {"kind": "fit", "dataset": ready_dataset(service, owner="ben"), "name": "tickets"}
        assert other.post("/v1/jobs", json=asked).status_code == 202


def test_a_cancel_ends_what_waits_and_asks_what_runs(service: Service, ann: Any, dataset: str) -> None:
    waiting, running = (
        ann.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}).json()["id"] for _ in range(2)
    )
    assert ann.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    job = queue.claim(service.database, "worker", 60)
    assert job is not None and job.id == running
    assert ann.post(f"/v1/jobs/{running}/cancel").json()["state"] == "cancelling"
    queue.finish(service.database, job.id, job.attempt)
    again = ann.post(f"/v1/jobs/{running}/cancel")
    assert again.status_code == 202 and again.json()["state"] == "cancelled"


def test_a_cancel_of_a_job_that_is_deleted_meanwhile_is_404(
    service: Service, ann: Any, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ann.post("/v1/jobs", json={"kind": "fit", "dataset": dataset}).json()["id"]

    def gone(*said: Any) -> Any:
        raise queue.Lost("gone")

    monkeypatch.setattr(queue, "cancel", gone)
    problem_in(ann.post(f"/v1/jobs/{job}/cancel"), 404)


def test_jobs_are_listed_by_dataset_and_state(service: Service, ann: Any, dataset: str) -> None:
    first, second = (
        ann.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}).json()["id"] for _ in range(2)
    )
    ann.post(f"/v1/jobs/{first}/cancel")

    def listed(**said: str) -> list[str]:
        return [one["id"] for one in ann.get("/v1/jobs", params=said).json()["items"]]

    assert listed() == [second, first]
    assert listed(state="queued") == [second] and listed(state="cancelled") == [first]
    assert listed(dataset=dataset) == [second, first] and listed(dataset="data_1") == []
    problem_in(ann.get("/v1/jobs?state=sleeping"), 422)


def test_a_model_that_a_job_gave_can_be_asked_once_the_job_says_so(
    service: Service, ann: Any, dataset: str
) -> None:
    known: list[str | None] = []

    class Known:
        def know(self, model: str | None) -> None:
            known.append(model)

        def require_free(self, *_: Any) -> None:
            pass

    service.models = Known()  # type: ignore[assignment]  # a stand-in
    job = ann.post("/v1/jobs", json={"kind": "fit", "dataset": dataset}).json()["id"]
    claimed = queue.claim(service.database, "worker", 60)
    assert claimed is not None

    def also(session: Any) -> None:
        from graftwork.service.database.tables import Job

        session.get(Job, job).model_id = "model_1"

    queue.finish(service.database, job, claimed.attempt, result={"scores": {}}, also=also)
    said = ann.get(f"/v1/jobs/{job}").json()
    assert said["model"] == "model_1" and said["result"] == {"scores": {}} and known[-1] == "model_1"


def test_another_owners_job_is_as_if_it_were_not(service: Service, ann: Any, dataset: str) -> None:
    job = ann.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}).json()["id"]
    with client_of(service, key_of(service, "bob")) as bob:
        problem_in(bob.get(f"/v1/jobs/{job}"), 404)
        problem_in(bob.post(f"/v1/jobs/{job}/cancel"), 404)
        problem_in(bob.get(f"/v1/jobs/{job}/events"), 404)
        problem_in(bob.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}), 404)
        assert bob.get("/v1/jobs").json()["items"] == []
        assert bob.get("/v1/jobs", params={"dataset": dataset}).json()["items"] == []
    assert ann.get(f"/v1/jobs/{job}").json()["state"] == "queued"
