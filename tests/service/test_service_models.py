"""Models: listed, described, downloaded as what can be loaded, renamed and deleted for good."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graftwork
import toys
from graftwork.service.context import Service
from graftwork.service.database.tables import OPERATOR
from graftwork.service.shapes import Model, ModelInFull
from tiny_models import REPORT, add_model, caller_of, service_with_models, toy_artefact
from tiny_service import client_of, key_of, problem_in


@pytest.fixture
def service(tmp_path: Path) -> Service:
    made = service_with_models(tmp_path)
    key_of(made, "ann")
    return made


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service)) as client:
        yield client


@pytest.fixture
def tickets(service: Service) -> str:
    return add_model(service, caller_of(service).owner_id, "tickets 票")


def test_a_model_is_described_with_its_manifest(ann: Any, tickets: str) -> None:
    said = ann.get(f"/v1/models/{tickets}").json()
    ModelInFull.model_validate(said)
    assert said["place"] == "service" and said["result"]["scores"]["test"]["accuracy"]["value"] == 0.9
    assert ann.get("/v1/models/tickets 票").json() == said
    (listed,) = ann.get("/v1/models").json()["items"]
    Model.model_validate(listed)
    assert listed.items() <= said.items()


def test_a_list_has_what_another_process_added_since_the_last_one(service: Service, ann: Any) -> None:
    assert ann.get("/v1/models").json()["items"] == []
    made = add_model(service, caller_of(service).owner_id, "new")
    assert [one["id"] for one in ann.get("/v1/models").json()["items"]] == [made]


def test_a_report_runs_nothing_and_asks_for_nothing(ann: Any, tickets: str) -> None:
    answer = ann.get(f"/v1/models/{tickets}/report")
    assert answer.text == REPORT and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'") and "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_downloaded_artefact_unzips_to_what_can_be_loaded(
    ann: Any, tickets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.register(monkeypatch)
    answer = ann.get(f"/v1/models/{tickets}/artefact")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert "tickets%20%E7%A5%A8.graft.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == "tickets 票.graft"
    assert graftwork.Model.load(folder).predict(["where is my parcel"])[0] in ("billing", "delivery", "其他")


def test_a_damaged_artefact_is_not_sent(service: Service, ann: Any, tickets: str) -> None:
    folder = service.models.find(caller_of(service), tickets).folder
    (folder / "head.safetensors").write_bytes(b"other")
    found = problem_in(ann.get(f"/v1/models/{tickets}/artefact"), 409, "artefact-damaged")
    assert str(service.settings.root) not in found["detail"]


def test_a_damaged_artefact_under_root_is_told_once_to_whoever_runs_the_server(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (toy_artefact(tmp_path / "torn.graft") / "manifest.json").write_text("{")
    with client_of(service, key_of(service, OPERATOR)) as operator:
        for _ in range(2):
            assert operator.get("/v1/models").json()["items"] == []
            service.models._put_shelved()
    assert len([one for one in caplog.messages if "torn.graft" in one]) == 1


def test_a_name_that_is_no_utf_8_is_shown_and_can_be_asked(service: Service, tmp_path: Path) -> None:
    toy_artefact(tmp_path / "b.graft").rename(tmp_path / os.fsdecode(b"\xff.graft"))
    with client_of(service, key_of(service, OPERATOR)) as operator:
        (found,) = operator.get("/v1/models").json()["items"]
        assert found["name"] == "\ufffd"
        assert operator.get(f"/v1/models/{found['id']}/artefact").status_code == 200
        assert operator.post("/v1/predict", json={"model": found["id"], "inputs": ["x"]}).status_code == 200


def test_a_manifest_that_json_cannot_say_is_damaged(service: Service, ann: Any, tickets: str) -> None:
    folder = service.models.find(caller_of(service), tickets).folder
    said = json.loads((folder / "manifest.json").read_text())
    for result in ({"half": "\ud800"}, {"number": float("nan")}, []):
        (folder / "manifest.json").write_text(json.dumps({**said, "result": result}))
        problem_in(ann.get(f"/v1/models/{tickets}"), 409, "artefact-damaged")
    whole = json.dumps({**said, "result": {"number": 0.125}})
    (folder / "manifest.json").write_text(whole.replace("0.125", "1e999"))
    problem_in(ann.get(f"/v1/models/{tickets}"), 409, "artefact-damaged")


def test_nothing_outside_an_artefact_is_sent(service: Service, tmp_path: Path) -> None:
    folder = toy_artefact(tmp_path / "leaky.graft")
    secret = tmp_path / "secret"
    secret.write_bytes((folder / "head.safetensors").read_bytes())
    (folder / "head.safetensors").unlink()
    (folder / "head.safetensors").symlink_to(secret)
    with client_of(service, key_of(service, OPERATOR)) as operator:
        problem_in(operator.get("/v1/models/leaky/artefact"), 409, "artefact-damaged")


def test_models_of_equal_content_share_an_artefact_until_the_last_is_deleted(
    service: Service, ann: Any, tickets: str
) -> None:
    twin = add_model(service, caller_of(service).owner_id, "twin")
    folder = service.models.find(caller_of(service), tickets).folder
    assert service.models.find(caller_of(service), twin).folder == folder
    assert ann.delete(f"/v1/models/{tickets}").status_code == 204
    assert folder.exists() and ann.get(f"/v1/models/{twin}").status_code == 200
    problem_in(ann.get(f"/v1/models/{tickets}"), 404)
    assert ann.delete(f"/v1/models/{twin}").status_code == 204
    assert not folder.exists()
    assert service.serving.forgotten == [folder]  # type: ignore[attr-defined]  # an Echo


def test_a_renamed_model_answers_to_its_new_name(service: Service, ann: Any, tickets: str) -> None:
    assert ann.patch(f"/v1/models/{tickets}", json={"name": "mail"}).json()["name"] == "mail"
    assert ann.get("/v1/models/mail").json()["id"] == tickets
    problem_in(ann.get("/v1/models/tickets 票"), 404)
    for name in ("a,b", "a/b", "", "\u202e"):
        problem_in(ann.patch(f"/v1/models/{tickets}", json={"name": name}), 422)


def test_the_older_of_two_names_answers_again_when_the_newer_is_gone(service: Service, ann: Any) -> None:
    owner = caller_of(service).owner_id
    first, second = (add_model(service, owner, "same", seed=seed) for seed in (1, 2))
    assert ann.get("/v1/models/same").json()["id"] == second
    ann.delete(f"/v1/models/{second}")
    assert ann.get("/v1/models/same").json()["id"] == first


def test_what_lies_under_root_is_listed_first_and_left_alone(service: Service, tmp_path: Path) -> None:
    for name in ("b", "team/a", "c"):
        toy_artefact(tmp_path / f"{name}.graft")
    with client_of(service, key_of(service, OPERATOR)) as operator:
        made = [add_model(service, caller_of(service, OPERATOR).owner_id, f"m{i}", seed=i) for i in range(3)]
        seen, cursor = [], None
        while True:
            page = operator.get(
                "/v1/models", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
            ).json()
            seen += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert [one["name"] for one in seen] == ["b", "c", "team/a", "m2", "m1", "m0"]
        assert [one["id"] for one in seen[3:]] == made[::-1]
        under_root = seen[2]["id"]
        assert operator.get(f"/v1/models/{under_root}/report").text == REPORT
        problem_in(operator.delete(f"/v1/models/{under_root}"), 409, "lies-in-root")
        problem_in(operator.patch(f"/v1/models/{under_root}", json={"name": "x"}), 409, "lies-in-root")
    assert (tmp_path / "team" / "a.graft" / "manifest.json").exists()


def test_an_artefact_replaced_under_root_is_opened_anew(service: Service, tmp_path: Path) -> None:
    folder = toy_artefact(tmp_path / "a.graft", seed=1)
    key_of(service, OPERATOR)
    operator = caller_of(service, OPERATOR)
    before = service.models.find(operator, "a").digest
    service.models._looker.submit(int).result()  # the look behind that one is over
    toy_artefact(folder, seed=2)
    service.models._shelf._looked = float("-inf")  # a second has passed
    service.models.look()
    assert service.models.find(operator, "a").digest != before
    assert service.serving.forgotten == [folder.resolve()]  # type: ignore[attr-defined]  # an Echo


def test_a_damaged_artefact_under_root_is_said_to_be_so(service: Service, tmp_path: Path) -> None:
    folder = toy_artefact(tmp_path / "a.graft")
    (folder / "manifest.json").write_text("{")
    with client_of(service, key_of(service, OPERATOR)) as operator:
        found = problem_in(operator.get("/v1/models/a"), 409, "artefact-damaged")
        assert str(tmp_path) not in found["detail"]
        toy_artefact(tmp_path / "b.graft")
        service.models._shelf._took = 0.0  # however slow this machine is
        assert operator.get("/v1/models/b").json()["place"] == "root"  # seen at once


def test_another_owners_model_is_as_if_it_were_not(service: Service, tickets: str) -> None:
    with client_of(service, key_of(service, "bob")) as bob:
        for path in ("", "/report", "/artefact"):
            problem_in(bob.get(f"/v1/models/{tickets}{path}"), 404)
        problem_in(bob.delete(f"/v1/models/{tickets}"), 404)
        problem_in(bob.patch(f"/v1/models/{tickets}", json={"name": "mine"}), 404)
        assert bob.get("/v1/models").json() == {"items": [], "next_cursor": None}


def test_a_key_of_scope_predict_changes_nothing(service: Service, tickets: str) -> None:
    with client_of(service, key_of(service, scope="predict")) as reader:
        assert reader.get(f"/v1/models/{tickets}").status_code == 200
        problem_in(reader.delete(f"/v1/models/{tickets}"), 403)
        problem_in(reader.patch(f"/v1/models/{tickets}", json={"name": "x"}), 403)
        problem_in(reader.get("/v1/backbones"), 403)


def test_backbones_are_listed_with_their_memory(service: Service) -> None:
    with client_of(service, key_of(service, OPERATOR, "admin")) as admin:
        assert admin.get("/v1/backbones").json() == {"items": [], "bytes": 0}
