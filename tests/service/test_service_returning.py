"""Signing in leads back to where one was, on this site alone."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from graftwork.service.returning import place
from tiny_service import client_of, key_of, make_service

ELSEWHERE = [
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/ /evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "@evil.example",
    "/models/\r\nSet-Cookie: a=b",
    "/models/\u202e",
    "/sign-in/gl_x",
    "/sign-out",
    "/v1/models",
    "/" + "x" * 2_000,
    "",
]


@pytest.mark.parametrize("said", [*ELSEWHERE, None])
def test_what_leads_elsewhere_becomes_the_start_page(said: str | None) -> None:
    assert place(said) == "/"


@pytest.mark.parametrize(
    "said", ["/", "/models/model_1", "/models?cursor=a%20b", "/datasets/data_1?source=a&x=/y"]
)
def test_a_page_of_this_site_stays(said: str) -> None:
    assert place(said) == said


@pytest.fixture
def browser(tmp_path: Path) -> Any:
    service = make_service(tmp_path)
    with client_of(service) as client:
        yield client, key_of(service)


def test_signing_in_leads_back_to_the_page_that_asked_for_it(browser: tuple[TestClient, str]) -> None:
    client, key = browser
    asked = client.get("/models/team%2Fa b?cursor=1%262").headers["location"]
    assert asked.startswith("/sign-in?to=/models/team/a%2520b%3Fcursor%3D1%25262")
    form = client.get(asked)
    assert 'name="to" value="/models/team/a%20b?cursor=1%262"' in form.text
    to = "/models/team/a%20b?cursor=1%262"
    wrong = client.post("/sign-in", data={"key": "gw_wrong", "to": to})
    assert wrong.status_code == 403 and f'value="{to}"' in wrong.text
    assert client.post("/sign-in", data={"key": key, "to": to}).headers["location"] == to
    assert client.post("/sign-in", data={"key": key}).headers["location"] == "/"


def test_what_was_no_reading_of_a_page_leads_to_the_start_page(browser: tuple[TestClient, str]) -> None:
    client, _ = browser
    assert client.get("/").headers["location"] == "/sign-in"
    assert client.post("/sign-out").headers["location"] == "/sign-in"
    assert client.post("/models/x").headers["location"] == "/sign-in"


@pytest.mark.parametrize("said", ELSEWHERE)
def test_no_address_of_another_site_is_led_to(browser: tuple[TestClient, str], said: str) -> None:
    client, key = browser
    shown = client.get("/sign-in", params={"to": said})
    assert 'name="to"' not in shown.text
    assert client.post("/sign-in", data={"key": key, "to": said}).headers["location"] == "/"


def test_a_path_that_looks_like_another_host_is_not_led_back_to(browser: tuple[TestClient, str]) -> None:
    client, _ = browser
    for path in ("//evil.example", "/%5Cevil.example", "/%09/evil.example"):
        answer = client.get(f"http://localhost{path}")
        assert answer.status_code == 303
        to = answer.headers["location"].partition("?to=")[2]
        assert not to.startswith(("//", "%2F%2F", "/%2F", "/%5C", "%5C"))
