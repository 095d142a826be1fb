"""Predictions: three forms of one question, errors in their places, nothing on the way that need not be."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from graftwork.service.asking import require_few
from graftwork.service.context import Service
from graftwork.service.database.tables import OPERATOR
from graftwork.service.models import Known
from graftwork.service.problems import Problem
from graftwork.service.settings import Limits
from tiny_models import LABELS, Echo, add_model, caller_of, service_with_models, toy_artefact
from tiny_service import client_of, key_of, problem_in

PHOTO = b"\xff\xd8\xff" + bytes(50)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    made = service_with_models(tmp_path)
    key_of(made, "ann")
    ann = caller_of(made, "ann").owner_id
    add_model(made, ann, "tickets")
    add_model(made, ann, "flowers", kind="image", seed=1)
    return made


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service, "ann", "predict")) as client:
        yield client


def asked(service: Service) -> list[Any]:
    echo: Any = service.serving
    assert isinstance(echo, Echo)
    return echo.asked[-1][1]


def ask(client: Any, **said: Any) -> Any:
    return client.post("/v1/predict", json=said)


def test_an_answer_has_the_form_of_graft_predict(ann: Any) -> None:
    answer = ask(ann, model="tickets", inputs=["hello"])
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert said["name"] == "tickets" and said["model"].startswith("model_")
    (one,) = said["answers"]
    assert list(one) == ["input", "label", "probability", "unknown", "probabilities"]
    assert one["input"] == "hello" and one["label"] == "billing" and one["unknown"] is False
    assert list(one["probabilities"]) == list(LABELS)
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    assert "其他".encode() in answer.content  # as people read it


def test_a_text_gives_the_same_answer_in_each_form(ann: Any, service: Service) -> None:
    forms = [
        ask(ann, model="tickets", inputs=["hello"]),
        ask(ann, model="tickets", inputs=[{"text": "hello"}]),
        ann.post("/v1/predict?model=tickets", content="hello", headers={"content-type": "text/plain"}),
        ann.post("/v1/predict", files={"model": (None, "tickets"), "input": (None, "hello")}),
        ann.post("/v1/predict?model=tickets", files={"input": ("a.txt", b"hello", "text/plain")}),
    ]
    assert {json.dumps(one.json()["answers"][0]["probabilities"]) for one in forms} == {
        json.dumps(forms[0].json()["answers"][0]["probabilities"])
    }
    assert asked(service) == ["hello"]


@pytest.mark.parametrize(
    "media", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_a_picture_as_the_body_reaches_its_model_as_it_is(ann: Any, service: Service, media: str) -> None:
    answer = ann.post("/v1/predict?model=flowers", content=PHOTO, headers={"content-type": media})
    assert answer.status_code == 200 and asked(service) == [PHOTO]


def test_a_picture_in_json_or_a_form_keeps_its_name(ann: Any, service: Service) -> None:
    data = base64.b64encode(PHOTO).decode()
    said = ask(ann, model="flowers", inputs=[{"data": data, "name": "a.jpg"}, {"data": data}]).json()
    assert [one["input"] for one in said["answers"]] == ["a.jpg", "input 2"]
    files = [("model", (None, "flowers")), ("input", ("花.jpg", PHOTO)), ("input", ("b.jpg", PHOTO))]
    said = ann.post("/v1/predict", files=files).json()
    assert [one["input"] for one in said["answers"]] == ["花.jpg", "b.jpg"]
    assert asked(service) == [PHOTO, PHOTO]


def test_several_models_are_asked_at_once(ann: Any, service: Service) -> None:
    add_model(service, caller_of(service).owner_id, "more", seed=2)
    said = ask(ann, models=["tickets", "more"], inputs=["hello", "you"]).json()
    assert [one["name"] for one in said["answers"]] == ["tickets", "more"]
    assert all(len(one["answers"]) == 2 for one in said["answers"])
    echo: Any = service.serving
    assert len(echo.asked) == 1 and len(echo.asked[0][0]) == 2
    in_query = ann.post(
        "/v1/predict?models=tickets,more", content="x", headers={"content-type": "text/plain"}
    )
    assert [one["name"] for one in in_query.json()["answers"]] == ["tickets", "more"]


def test_models_of_several_kinds_are_not_asked_the_same(ann: Any) -> None:
    problem_in(ask(ann, models=["tickets", "flowers"], inputs=["hello"]), 422)


def test_top_gives_the_most_probable_first(ann: Any) -> None:
    (one,) = ask(ann, model="tickets", inputs=["hello"], top=2).json()["answers"]
    assert list(one["probabilities"]) == ["billing", "其他"]
    (one,) = ask(ann, model="tickets", inputs=["hello"], top=99).json()["answers"]
    assert len(one["probabilities"]) == 3
    for top in (0, -1, "x", 1.5, True):
        problem_in(ask(ann, model="tickets", inputs=["hello"], top=top), 422)


def test_an_unreadable_input_has_its_error_in_its_place(ann: Any) -> None:
    said = ask(ann, model="tickets", inputs=["hello", "broken"]).json()["answers"]
    assert said[0]["label"] and said[1] == {"input": "broken", "error": "is no picture"}


def test_the_only_input_being_unreadable_is_a_problem(ann: Any) -> None:
    found = problem_in(ask(ann, model="tickets", inputs=["broken"]), 422, "unreadable-input")
    assert "is no picture" in found["detail"]


def test_inputs_of_another_kind_are_refused_with_their_place(ann: Any, service: Service) -> None:
    found = problem_in(ask(ann, model="flowers", inputs=["hello"]), 422)
    assert found["errors"][0]["pointer"] == "/inputs/0" and "'flowers'" in found["detail"]
    photo = {"content-type": "image/png"}
    problem_in(ann.post("/v1/predict?model=tickets", content=PHOTO, headers=photo), 422)
    sound = {"content-type": "audio/wav"}
    problem_in(ann.post("/v1/predict?model=flowers", content=PHOTO, headers=sound), 422)
    problem_in(ann.post("/v1/predict?model=tickets", content=b"\xff\xfe\xfa"), 422)
    assert service.serving.asked == []  # type: ignore[attr-defined]  # an Echo


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        "text",
        {"inputs": ["a"]},
        {"model": "tickets"},
        {"model": "tickets", "inputs": []},
        {"model": "tickets", "inputs": "hello"},
        {"model": "tickets", "inputs": [1]},
        {"model": "tickets", "inputs": [{"data": "%%"}]},
        {"model": "tickets", "inputs": [{"data": "aGk=", "text": "hi"}]},
        {"model": "tickets", "inputs": [{"data": "aGk=", "name": 1}]},
        {"model": "tickets", "inputs": ["a"], "modle": 1},
        {"model": "tickets", "models": ["tickets"], "inputs": ["a"]},
        {"models": [], "inputs": ["a"]},
        {"models": [1], "inputs": ["a"]},
        {"model": "", "inputs": ["a"]},
        {"model": 7, "inputs": ["a"]},
    ],
)
def test_a_question_that_is_none_is_refused_in_one_line(ann: Any, said: Any) -> None:
    problem_in(ann.post("/v1/predict", json=said), 422)


@pytest.mark.parametrize(
    ("said", "pointer", "words"),
    [
        ({"model": ["tickets", "urgency"], "inputs": ["a"]}, "/model", "several are asked as models"),
        ({"model": 7, "inputs": ["a"]}, "/model", "named by a text"),
        ({"models": [1], "inputs": ["a"]}, "/models", "named by a text"),
    ],
)
def test_a_model_that_is_no_name_is_pointed_at(ann: Any, said: Any, pointer: str, words: str) -> None:
    found = problem_in(ann.post("/v1/predict", json=said), 422)
    assert [one["pointer"] for one in found["errors"]] == [pointer] and words in found["detail"]


def test_json_sent_as_a_form_is_told_how_to_be_json(ann: Any) -> None:
    said = {"content-type": "application/x-www-form-urlencoded"}
    answer = ann.post("/v1/predict", content=b'{"model": "tickets", "inputs": ["a"]}', headers=said)
    assert "Content-Type: application/json" in problem_in(answer, 422)["detail"]


def test_other_bodies_are_refused(ann: Any) -> None:
    problem_in(ann.post("/v1/predict?model=tickets", content=b""), 422)
    pdf = {"content-type": "application/pdf"}
    problem_in(ann.post("/v1/predict?model=flowers", content=b"%PDF", headers=pdf), 415)
    problem_in(ann.post("/v1/predict", content=b"{", headers={"content-type": "application/json"}), 400)
    problem_in(ann.post("/v1/predict", files={"model": (None, "tickets"), "inptu": (None, "a")}), 422)
    problem_in(ann.post("/v1/predict", files={"model": (None, b"\xff"), "input": (None, "a")}), 422)


def test_more_than_one_answer_can_hold_is_refused(tmp_path: Path) -> None:
    service = service_with_models(tmp_path, limits=Limits(items=3, models=2))
    with client_of(service, key_of(service)) as ann:
        add_model(service, caller_of(service).owner_id, "tickets")
        problem_in(ask(ann, model="tickets", inputs=["a"] * 4), 422)
        problem_in(ask(ann, models=["tickets"] * 3, inputs=["a"]), 422)
        files = [("model", (None, "tickets"))] + [("input", (None, "a"))] * 6
        problem_in(ann.post("/v1/predict", files=files), 422)
        assert ask(ann, model="tickets", inputs=["a"] * 3).status_code == 200


def test_an_answer_whose_labels_would_fill_the_memory_is_refused() -> None:
    wordy = cast(Known, SimpleNamespace(labels=[f"{i:04}{'x' * 900}" for i in range(1_000)]))
    with pytest.raises(Problem, match="top=5"):
        require_few([wordy] * 4, 50, None)
    require_few([wordy] * 4, 50, 5)
    plain = cast(Known, SimpleNamespace(labels=[f"{i:04}" for i in range(1_000)]))
    require_few([plain] * 4, 200, None)


def test_a_large_question_is_the_same_question(ann: Any) -> None:
    asked = {"model": "tickets", "inputs": ["a", "b" * 200_000]}
    assert [one["unknown"] for one in ask(ann, **asked).json()["answers"]] == [False, True]
    problem_in(ask(ann, **asked, modle=1), 422)


def test_a_model_answers_by_its_id_and_by_its_newest_name(ann: Any, service: Service) -> None:
    first = ask(ann, model="tickets", inputs=["a"]).json()["model"]
    second = add_model(service, caller_of(service).owner_id, "tickets", seed=3)
    service.models.look()
    assert ask(ann, model="tickets", inputs=["a"]).json()["model"] == second
    assert ask(ann, model=first, inputs=["a"]).json()["model"] == first


def test_a_model_that_another_process_added_answers_at_once(ann: Any, service: Service) -> None:
    assert ask(ann, model="tickets", inputs=["a"]).status_code == 200
    add_model(service, caller_of(service).owner_id, "fresh", seed=4)
    assert ask(ann, model="fresh", inputs=["a"]).status_code == 200


def test_a_deleted_model_answers_no_more(service: Service, ann: Any) -> None:
    model = ask(ann, model="tickets", inputs=["a"]).json()["model"]
    with client_of(service, key_of(service)) as writer:
        assert writer.delete(f"/v1/models/{model}").status_code == 204
    problem_in(ask(ann, model=model, inputs=["a"]), 404)
    problem_in(ask(ann, model="tickets", inputs=["a"]), 404)
    assert not list(service.settings.artefacts.glob("*/manifest.json"))[1:]  # that of flowers is left


def test_another_owners_model_is_as_if_it_were_not(service: Service, ann: Any) -> None:
    model = ask(ann, model="tickets", inputs=["a"]).json()["model"]
    with client_of(service, key_of(service, "bob")) as bob:
        theirs = problem_in(ask(bob, model=model, inputs=["a"]), 404)
        none = problem_in(ask(bob, model="model_000000000000_0000000000000000", inputs=["a"]), 404)
        assert theirs["code"] == none["code"]
        problem_in(ask(bob, model="tickets", inputs=["a"]), 404)


def test_artefacts_under_root_answer_the_operator_alone(service: Service, tmp_path: Path, ann: Any) -> None:
    folder = toy_artefact(tmp_path / "team" / "tickets.graft")
    with client_of(service, key_of(service, OPERATOR)) as operator:
        said = ask(operator, model="team/tickets", inputs=["a"])
        assert said.status_code == 200
        assert ask(operator, model=said.json()["model"], inputs=["a"]).json() == said.json()
        problem_in(ask(ann, model="team/tickets", inputs=["a"]), 404)
        problem_in(ask(ann, model=said.json()["model"], inputs=["a"]), 404)
        problem_in(ask(operator, model="../team/tickets", inputs=["a"]), 404)
        folder.rename(tmp_path / "team" / "gone")
        service.models._looked = service.models._shelf._looked = float("-inf")  # a second has passed
        problem_in(ask(operator, model="team/tickets", inputs=["a"]), 404)


def test_too_much_waiting_is_said_with_when_to_ask_again(service: Service, ann: Any) -> None:
    echo: Any = service.serving
    echo.busy = True
    answer = ask(ann, model="tickets", inputs=["a"])
    problem_in(answer, 429, "queue-full")
    assert answer.headers["retry-after"] == "3"


def test_predictions_are_counted_once_for_each_model(service: Service, ann: Any) -> None:
    add_model(service, caller_of(service).owner_id, "more", seed=2)
    ask(ann, models=["tickets", "more"], inputs=["a", "b", "c"])
    service.meter.flush()
    assert ann.get("/v1/usage").json()["days"][0]["predictions"] == 6


def test_a_known_model_is_asked_without_the_database(service: Service, ann: Any) -> None:
    ask(ann, model="tickets", inputs=["a"])
    service.models._looker.submit(int).result()  # the look behind the first answer is over
    service.models._looked = float("inf")  # and no other begins
    service.database.engine.dispose()
    opened: list[Any] = []
    from sqlalchemy import event

    event.listen(service.database.engine, "checkout", lambda *said: opened.append(said))
    assert ask(ann, model="tickets", inputs=["a"]).status_code == 200
    assert opened == []
