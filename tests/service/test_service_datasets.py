"""Datasets: made of one's own files, inspected by a job, corrected row by row, deleted with what follows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graftwork.service.context import Service
from graftwork.service.database import Database
from graftwork.service.database.tables import Dataset
from graftwork.service.jobs import queue
from graftwork.service.settings import Quotas
from graftwork.service.shapes import Dataset as Shape
from graftwork.service.shapes import Row
from tiny_models import caller_of
from tiny_service import client_of, key_of, make_service, problem_in


@pytest.fixture
def service(tmp_path: Path, database: Database) -> Service:
    return make_service(tmp_path, database=database)


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service)) as client:
        yield client


def upload(client: Any, name: str = "tickets.csv", content: bytes = b"text,label\na,x\n") -> str:
    return str(client.post("/v1/files", params={"name": name}, content=content).json()["id"])


def create(client: Any, **said: Any) -> Any:
    said.setdefault("files", [{"file": upload(client)}])
    return client.post("/v1/datasets", json=said)


def inspected(service: Service, dataset: str, kind: str = "text", rows: int = 10) -> None:
    """Do what the inspecting job does when all is well."""
    job = queue.claim(service.database, "worker", 60)
    assert job is not None and job.dataset_id == dataset

    def also(session: Any) -> None:
        row = session.get(Dataset, dataset)
        row.state, row.kind, row.rows, row.inspection = "ready", kind, rows, {"rows": rows}

    queue.finish(service.database, job.id, job.attempt, also=also)


def test_a_dataset_is_inspected_by_a_job_of_its_own(service: Service, ann: Any) -> None:
    answer = create(ann, options={"label": "label"})
    assert answer.status_code == 202
    said = ann.get(answer.headers["location"]).json()
    Shape.model_validate(said)
    assert said == answer.json()
    assert (
        said["state"] == "inspecting" and said["name"] == "tickets" and said["options"] == {"label": "label"}
    )
    job = ann.get(f"/v1/jobs/{said['job']}").json()
    assert job["kind"] == "inspect" and job["state"] == "queued" and job["dataset"] == said["id"]
    inspected(service, said["id"])
    assert ann.get(f"/v1/datasets/{said['id']}").json()["inspection"] == {"rows": 10}
    (listed,) = ann.get("/v1/datasets").json()["items"]
    Shape.model_validate(listed)
    assert listed["id"] == said["id"] and listed["inspection"] is None and listed["files"] == []
    assert ann.get(f"/v1/jobs/{said['job']}").json()["is_terminal"] is True


def test_a_create_that_is_repeated_under_its_key_makes_one(ann: Any) -> None:
    body = {"files": [{"file": upload(ann)}]}
    key = {"Idempotency-Key": "again"}
    first, second = (ann.post("/v1/datasets", json=body, headers=key) for _ in range(2))
    assert first.json() == second.json() and first.headers["location"] == second.headers["location"]
    assert len(ann.get("/v1/datasets").json()["items"]) == 1
    assert len(ann.get("/v1/jobs").json()["items"]) == 1


def test_files_that_are_not_ones_own_are_pointed_at(service: Service, ann: Any) -> None:
    with client_of(service, key_of(service, "bob")) as bob:
        theirs = upload(bob)
    files = [{"file": upload(ann)}, {"file": theirs}, {"file": "file_1"}]
    found = problem_in(create(ann, files=files), 422)
    assert [one["pointer"] for one in found["errors"]] == ["/files/1/file", "/files/2/file"]
    assert ann.get("/v1/jobs").json()["items"] == []


def test_labels_are_given_to_all_files_or_to_none(ann: Any) -> None:
    one, two = upload(ann, "a.jpg"), upload(ann, "b.jpg")
    found = problem_in(create(ann, files=[{"file": one, "label": "x"}, {"file": two}]), 422)
    assert found["errors"][0]["pointer"] == "/files/1/label"
    said = create(ann, files=[{"file": one, "label": "x"}, {"file": two, "label": "y"}], name="pets").json()
    assert said["files"] == [{"file": one, "label": "x"}, {"file": two, "label": "y"}]


@pytest.mark.parametrize(
    "said",
    [
        {"files": []},
        {"files": [{}]},
        {"files": [{"file": "file_1", "extra": 1}]},
        {"name": "\u202e"},
        {"options": {"labels": "x"}},
        {"more": 1},
    ],
)
def test_a_request_of_another_form_is_refused(ann: Any, said: dict[str, Any]) -> None:
    problem_in(create(ann, **said), 422, "invalid-request")


def test_more_jobs_than_the_quota_allows_are_refused(tmp_path: Path) -> None:
    service = make_service(tmp_path, quotas=Quotas(jobs=2))
    with client_of(service, key_of(service)) as ann:
        assert [create(ann).status_code for _ in range(2)] == [202, 202]
        answer = create(ann)
        problem_in(answer, 429, "quota-exceeded")
        assert int(answer.headers["retry-after"]) > 0
        assert len(ann.get("/v1/datasets").json()["items"]) == 2
        ann.post(f"/v1/jobs/{ann.get('/v1/jobs').json()['items'][0]['id']}/cancel")
        assert create(ann).status_code == 202


def test_a_full_queue_is_said_with_when_to_ask_again(ann: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftwork.service.holdings.QUEUE", 1)
    create(ann)
    answer = create(ann)
    problem_in(answer, 429, "queue-full")
    assert int(answer.headers["retry-after"]) > 0


def test_a_deleted_dataset_takes_its_rows_and_the_owners_features_along(service: Service, ann: Any) -> None:
    dataset = create(ann).json()["id"]
    problem_in(ann.delete(f"/v1/datasets/{dataset}"), 409, "in-use")
    inspected(service, dataset)
    ann.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "text": "hello"})
    folders = [service.settings.dataset(dataset), service.settings.private(caller_of(service).owner_id)]
    for folder in folders:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "content").write_bytes(b"x")
    assert ann.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert not any(folder.exists() for folder in folders)
    assert not list(service.settings.home.glob("gone-*"))
    problem_in(ann.get(f"/v1/datasets/{dataset}"), 404)
    problem_in(ann.get(f"/v1/datasets/{dataset}/rows"), 404)


def test_a_correction_becomes_a_row(service: Service, ann: Any) -> None:
    dataset = create(ann).json()["id"]
    problem_in(
        ann.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "text": "a"}), 409, "dataset-not-ready"
    )
    inspected(service, dataset)
    answer = ann.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "text": "hello"})
    assert answer.status_code == 201
    Row.model_validate(answer.json())
    assert ann.get(f"/v1/datasets/{dataset}/rows").json()["items"] == [answer.json()]
    assert ann.get(f"/v1/datasets/{dataset}").json()["corrections"] == 1
    assert ann.get("/v1/datasets").json()["items"][0]["corrections"] == 1
    assert ann.delete(answer.headers["location"]).status_code == 204
    assert ann.get(f"/v1/datasets/{dataset}").json()["corrections"] == 0
    problem_in(ann.delete(answer.headers["location"]), 404)


def test_a_corrected_picture_lies_with_the_dataset_even_when_its_upload_goes(
    service: Service, ann: Any
) -> None:
    dataset = create(ann).json()["id"]
    inspected(service, dataset, "image")
    file = ann.post("/v1/files?name=a.jpg", content=b"\xff\xd8\xffpicture").json()
    problem_in(ann.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "text": "a"}), 422)
    for _ in range(2):
        said = ann.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "file": file["id"]}).json()
        assert said["sha256"] == file["sha256"]
    ann.delete(f"/v1/files/{file['id']}")
    place = service.settings.dataset(dataset) / "corrections" / file["sha256"]
    assert place.read_bytes() == b"\xff\xd8\xffpicture"


@pytest.mark.parametrize(
    "said", [{"label": "x"}, {"label": "x", "text": "a", "file": "file_1"}, {"text": "a"}]
)
def test_a_correction_has_a_label_and_either_text_or_file(service: Service, ann: Any, said: Any) -> None:
    dataset = create(ann).json()["id"]
    inspected(service, dataset)
    problem_in(ann.post(f"/v1/datasets/{dataset}/rows", json=said), 422)


def test_corrections_count_as_rows_of_the_quota(tmp_path: Path) -> None:
    service = make_service(tmp_path, quotas=Quotas(rows=11))
    with client_of(service, key_of(service)) as ann:
        dataset = create(ann).json()["id"]
        inspected(service, dataset, rows=10)
        said = {"label": "x", "text": "a"}
        assert ann.post(f"/v1/datasets/{dataset}/rows", json=said).status_code == 201
        problem_in(ann.post(f"/v1/datasets/{dataset}/rows", json=said), 429, "quota-exceeded")


def test_another_owners_dataset_is_as_if_it_were_not(service: Service, ann: Any) -> None:
    dataset = create(ann).json()["id"]
    inspected(service, dataset)
    row = ann.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "text": "a"}).headers["location"]
    with client_of(service, key_of(service, "bob")) as bob:
        problem_in(bob.get(f"/v1/datasets/{dataset}"), 404)
        problem_in(bob.get(f"/v1/datasets/{dataset}/rows"), 404)
        problem_in(bob.post(f"/v1/datasets/{dataset}/rows", json={"label": "x", "text": "a"}), 404)
        problem_in(bob.delete(row), 404)
        problem_in(bob.delete(f"/v1/datasets/{dataset}"), 404)
        problem_in(bob.post("/v1/jobs", json={"kind": "fit", "dataset": dataset}), 404)
        assert bob.get("/v1/datasets").json()["items"] == []
