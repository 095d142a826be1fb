"""Uploads: whole or not at all, under their digest, refused unopened where they could run code."""

import base64
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from graftwork.service import uploads
from graftwork.service.context import Service
from graftwork.service.database.tables import Key, Owner
from graftwork.service.settings import Quotas
from tiny_models import caller_of
from tiny_service import client_of, key_of, make_service, problem_in

TABLE = b"text,label\nhello,x\n" * 500
SHA = hashlib.sha256(TABLE).hexdigest()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path)


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service)) as client:
        yield client


def kept(service: Service, owner: str = "ann") -> list[str]:
    folder = service.settings.uploads(caller_of(service, owner).owner_id)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_an_upload_lies_under_its_digest_and_is_complete_at_once(service: Service, ann: Any) -> None:
    answer = ann.post(
        "/v1/files", params={"name": "a.csv"}, content=TABLE, headers={"content-type": "text/csv"}
    )
    assert answer.status_code == 201
    said = answer.json()
    assert said["sha256"] == SHA and said["bytes"] == len(TABLE) and said["media_type"] == "text/csv"
    assert ann.get(answer.headers["location"]).json() == said
    assert kept(service) == [SHA]
    place = service.settings.uploads(caller_of(service).owner_id) / SHA
    assert place.read_bytes() == TABLE


def test_the_three_ways_to_send_a_file_give_the_same(ann: Any) -> None:
    plain = ann.post("/v1/files?name=a.csv", content=TABLE).json()
    header = ann.post("/v1/files", content=TABLE, headers={"X-File-Name": "a.csv"}).json()
    form = ann.post("/v1/files", files={"file": ("a.csv", TABLE)}).json()
    assert {(one["name"], one["sha256"], one["bytes"]) for one in (plain, header, form)} == {
        ("a.csv", SHA, len(TABLE))
    }


def test_a_form_passes_over_plain_fields_before_its_file_and_refuses_a_second_file(
    service: Service, ann: Any
) -> None:
    answer = ann.post("/v1/files", data={"csrf": "x"}, files={"file": ("数据.csv", TABLE)})
    assert answer.status_code == 201 and answer.json()["name"] == "数据.csv"
    two = [("file", ("a.csv", TABLE)), ("file", ("b.csv", b"b"))]
    problem_in(ann.post("/v1/files", files=two), 422)
    problem_in(ann.post("/v1/files", files={"file": (None, b"no file")}), 422)
    assert kept(service) == [SHA]


@pytest.mark.parametrize("boundary", ["", "x" * 5000])
def test_a_form_without_a_sensible_boundary_is_refused(ann: Any, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    problem_in(ann.post("/v1/files", content=b"--x\r\n\r\n", headers=headers), 422)


def test_a_form_cut_short_leaves_nothing(service: Service, ann: Any) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nhel'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    problem_in(ann.post("/v1/files", content=body, headers=headers), 422)
    assert kept(service) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Content-SHA256": SHA.upper()},
        {"Repr-Digest": f"sha-512=:AA==:, sha-256=:{base64.b64encode(bytes.fromhex(SHA)).decode()}:"},
    ],
)
def test_a_digest_that_the_client_says_is_checked(
    service: Service, ann: Any, headers: dict[str, str]
) -> None:
    assert ann.post("/v1/files", content=TABLE, headers=headers).status_code == 201
    problem_in(ann.post("/v1/files", content=TABLE + b"x", headers=headers), 422, "digest-mismatch")
    assert kept(service) == [SHA]


@pytest.mark.parametrize("said", ["", "zz", "sha-256=:AAAA:", "sha-256=AAAA"])
def test_a_digest_that_cannot_be_read_is_refused(ann: Any, said: str) -> None:
    name = "Repr-Digest" if "=" in said else "X-Content-SHA256"
    problem_in(ann.post("/v1/files", content=TABLE, headers={name: said}), 422)


def test_files_that_may_run_code_are_refused_by_name_and_by_content(service: Service, ann: Any) -> None:
    problem_in(ann.post("/v1/files?name=model.pt", content=b"anything"), 415, "unsupported-type")
    content = pickle.dumps({"a": 1}, protocol=4)
    problem_in(ann.post("/v1/files?name=photo.jpg", content=content), 415, "unsupported-type")
    problem_in(ann.post("/v1/files", files={"file": ("photo.jpg", content)}), 415, "unsupported-type")
    assert kept(service) == []


def test_a_name_is_a_label_without_unseen_characters(service: Service, ann: Any) -> None:
    name = "../../etc/\u202epass\x07wd\n.csv"
    assert (
        ann.post("/v1/files", params={"name": name}, content=TABLE).json()["name"] == "../../etc/passwd .csv"
    )
    assert ann.post("/v1/files", params={"name": "x" * 900}, content=TABLE).json()["name"] == "x" * 255
    assert kept(service) == [SHA]


def test_an_upload_beyond_the_quota_ends_while_it_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(tmp_path, quotas=Quotas(bytes=2_500_000))
    with client_of(service, key_of(service)) as ann:

        def pieces() -> Iterator[bytes]:
            for _ in range(10):
                yield bytes(1_000_000)

        assert ann.post("/v1/files", content=bytes(1_000_000)).status_code == 201
        problem_in(ann.post("/v1/files", content=bytes(2_000_000)), 429, "quota-exceeded")
        monkeypatch.setattr("graftwork.service.usage.require", lambda *said: None)  # what is asked at the end
        answer = ann.post("/v1/files", content=pieces())
        problem_in(answer, 429, "quota-exceeded")
        assert "retry-after" in answer.headers
    assert kept(service) == [hashlib.sha256(bytes(1_000_000)).hexdigest()]


def test_an_upload_of_an_owner_who_is_deleted_meanwhile_is_401(service: Service, ann: Any) -> None:
    assert ann.get("/v1/files").status_code == 200  # so that the key is remembered
    with service.database.write() as session:
        session.execute(delete(Key))
        session.execute(delete(Owner))
    problem_in(ann.post("/v1/files", content=TABLE), 401)


def test_uploads_under_way_count_together(service: Service, ann: Any) -> None:
    owner = caller_of(service).owner_id
    with service.database.write() as session:
        session.get_one(Owner, owner).quotas = {"bytes": 1_000_000}
    service.arriving[owner] = 999_990  # another one, which is not yet whole
    problem_in(ann.post("/v1/files", content=b"x" * 11), 429, "quota-exceeded")
    problem_in(ann.post("/v1/files", content=iter([b"x" * 6, b"x" * 5])), 429, "quota-exceeded")
    assert ann.post("/v1/files", content=b"x" * 10).status_code == 201
    assert service.arriving[owner] == 999_990


def test_two_uploads_at_once_do_not_both_fit_where_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(tmp_path, quotas=Quotas(bytes=1_500_000))
    with client_of(service, key_of(service)) as ann:
        # as it is for the second of two that began together: there was room when it began
        monkeypatch.setattr("graftwork.service.routes.files._free", lambda *said: (1_500_000, 1_500_000))
        assert ann.post("/v1/files", content=bytes(1_000_000)).status_code == 201
        problem_in(ann.post("/v1/files", content=b"x" * 1_000_000), 429, "quota-exceeded")
    assert kept(service) == [hashlib.sha256(bytes(1_000_000)).hexdigest()]


def test_the_same_key_uploads_once_and_refuses_another_content(service: Service, ann: Any) -> None:
    key = {"Idempotency-Key": "one"}
    first = ann.post("/v1/files?name=a", content=TABLE, headers=key)
    again = ann.post("/v1/files?name=a", content=TABLE, headers=key)
    assert first.json() == again.json() and again.headers["idempotency-replayed"] == "true"
    problem_in(ann.post("/v1/files?name=a", content=b"other", headers=key), 422, "idempotency-key-reused")
    assert len(ann.get("/v1/files").json()["items"]) == 1
    assert kept(service) == [SHA]


def test_bytes_stay_until_the_last_file_of_that_content_is_deleted(service: Service, ann: Any) -> None:
    one, two = (ann.post("/v1/files", content=TABLE).json()["id"] for _ in range(2))
    assert ann.delete(f"/v1/files/{one}").status_code == 204
    assert kept(service) == [SHA]
    assert ann.delete(f"/v1/files/{two}").status_code == 204
    assert kept(service) == []
    problem_in(ann.delete(f"/v1/files/{two}"), 404)


def test_a_file_that_a_job_still_reads_stays(ann: Any) -> None:
    file = ann.post("/v1/files?name=a.csv", content=TABLE).json()["id"]
    dataset = ann.post("/v1/datasets", json={"files": [{"file": file}]}).json()
    assert dataset["job"] in problem_in(ann.delete(f"/v1/files/{file}"), 409, "in-use")["detail"]
    ann.post(f"/v1/jobs/{dataset['job']}/cancel")
    assert ann.delete(f"/v1/files/{file}").status_code == 204


def test_another_owners_file_is_as_if_it_were_not(service: Service, ann: Any) -> None:
    file = ann.post("/v1/files", content=TABLE).json()["id"]
    with client_of(service, key_of(service, "bob")) as bob:
        theirs, none = bob.get(f"/v1/files/{file}"), bob.get("/v1/files/file_000000000000_0000000000000000")
        assert problem_in(theirs, 404)["code"] == problem_in(none, 404)["code"]
        problem_in(bob.delete(f"/v1/files/{file}"), 404)
        assert bob.get("/v1/files").json()["items"] == []
        bob.post("/v1/files", content=TABLE)
    assert kept(service, "bob") == [SHA]  # a copy of their own: neither learns that the other has it


def test_a_list_goes_on_where_its_page_ended(ann: Any) -> None:
    made = [ann.post(f"/v1/files?name={i}", content=TABLE).json()["id"] for i in range(5)]
    seen, cursor = [], None
    while True:
        found = ann.get("/v1/files", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [one["id"] for one in found["items"]]
        cursor = found["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)


def test_a_key_of_scope_predict_uploads_nothing(service: Service) -> None:
    with client_of(service, key_of(service, scope="predict")) as reader:
        problem_in(reader.post("/v1/files", content=TABLE), 403)


def test_what_a_crash_left_half_written_is_swept_and_what_rows_name_stays(service: Service, ann: Any) -> None:
    ann.post("/v1/files", content=TABLE)
    folder = service.settings.uploads(caller_of(service).owner_id)
    (folder / ".upload-1").write_bytes(b"half")
    (folder / hashlib.sha256(b"orphan").hexdigest()).write_bytes(b"orphan")
    uploads.sweep(service.settings, service.database)
    assert kept(service) == [SHA]
