"""Who comes in: keys, one-time links, sessions, their cookies and tokens."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from sqlalchemy import select, update

from graftwork.service import middleware, security
from graftwork.service.context import Service
from graftwork.service.database import Database
from graftwork.service.database.tables import OPERATOR, Key, Owner, Ticket
from graftwork.service.strict import router as strict_router
from tiny_service import client_of, key_of, make_service, problem_in

pages = strict_router("pages", prefix="")


@pages.post("/form")
async def post_form(request: Request) -> dict[str, Any]:
    return {"body": (await request.body()).decode()}


def _sign_in(browser: Any, secret: str, **more: Any) -> Any:
    return browser.post("/sign-in", data={"key": secret}, **more)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path)


@pytest.fixture
def browser(service: Service) -> Iterator[Any]:
    with client_of(service, also=pages) as client:
        yield client


def _signed_in(service: Service, browser: Any, scope: Any = "write") -> str:
    """Signs `browser` in with a key of ann's; the session's CSRF token."""
    assert _sign_in(browser, key_of(service, scope=scope)).status_code == 303
    with service.database.read() as session:
        return str(session.scalars(select(Ticket.csrf).order_by(Ticket.created.desc())).first())


def test_only_the_hash_of_a_key_is_kept(service: Service) -> None:
    key = key_of(service)
    assert key.startswith("gw_") and len(key) == 46
    content = (service.settings.home / "service.db").read_bytes()
    assert key.encode() not in content and key[9:].encode() not in content
    assert security.digest(key).encode() in content


def test_first_start_makes_the_operator_and_a_link_until_it_was_used(service: Service) -> None:
    first = security.first_link(service.database)
    second = security.first_link(service.database)  # it died before anybody came
    assert first and second and first != second
    assert security.open_session(service.database, first) is None
    assert security.open_session(service.database, second) is not None
    assert security.first_link(service.database) is None
    with service.database.read() as session:
        assert session.get_one(Owner, OPERATOR).name == OPERATOR


@pytest.mark.parametrize(
    ("change", "comes_again"),
    [
        ({}, False),
        ({"revoked": 1.0}, True),
        ({"expires": 1.0}, True),
        ({"scope": "predict"}, True),
        ({"owner_id": "other"}, True),
    ],
)
def test_the_link_comes_again_where_no_key_lets_an_admin_in(
    service: Service, change: dict[str, Any], comes_again: bool
) -> None:
    with service.database.write() as session:
        if "owner_id" in change:
            change = {"owner_id": security.new_owner(session, "other").id}
    key_of(service, OPERATOR, "admin")
    with service.database.write() as session:
        session.execute(update(Key).values(name="only", **change))
    assert (security.first_link(service.database) is not None) == comes_again


def test_the_link_comes_again_where_the_session_is_over(service: Service) -> None:
    link = security.first_link(service.database)
    assert link is not None and security.open_session(service.database, link) is not None
    assert security.first_link(service.database) is None
    with service.database.write() as session:
        session.execute(update(Ticket).values(expires=time.time() - 1))
    assert security.first_link(service.database) is not None


def test_a_link_opens_one_session_and_a_new_one_voids_it(service: Service) -> None:
    one, two = security.new_link(service.database), security.new_link(service.database)
    assert security.open_session(service.database, one) is None
    token = security.open_session(service.database, two)
    assert token is not None and security.open_session(service.database, two) is None
    found = service.passes.find(security.digest(token))
    assert found is not None and (found.caller.scope, found.caller.owner_id) == ("admin", OPERATOR)


def test_a_link_opens_one_session_though_two_follow_it_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, make, inside = security.new_link(database), security._ticket, threading.Event()

    def slowly(*said: Any) -> str:
        inside.set()
        time.sleep(0.3)  # long enough for the other to look at the link as well
        return make(*said)

    monkeypatch.setattr(security, "_ticket", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(security.open_session, database, link)
        assert inside.wait(60)
        second = pool.submit(security.open_session, database, link)
        assert first.result() is not None and second.result() is None


def test_a_link_that_is_over_opens_nothing(service: Service) -> None:
    link = security.new_link(service.database)
    with service.database.write() as session:
        session.execute(update(Ticket).values(expires=time.time() - 1))
    assert security.open_session(service.database, link) is None


def test_a_link_is_no_session_and_a_session_no_key(service: Service) -> None:
    link = security.new_link(service.database)
    assert service.passes.find(security.digest(link)) is None
    token = security.open_session(service.database, link)
    assert token is not None and security.open_session(service.database, token) is None
    with client_of(service, token) as client:
        problem_in(client.get("/v1/usage"), 401)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic gw_x", "Bearer gw_", "Bearer " + "x" * 46, "Bearer \xff", "gw_"],
)
def test_what_is_no_key_is_401(browser: Any, header: str) -> None:
    answer = browser.get("/v1/usage", headers={"Authorization": header.encode("latin-1")})
    problem_in(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_wrong_key_does_not_fall_back_to_the_session(service: Service, browser: Any) -> None:
    _signed_in(service, browser)
    assert browser.get("/v1/usage").status_code == 200
    problem_in(browser.get("/v1/usage", headers={"Authorization": "Bearer gw_" + "x" * 43}), 401)


def test_a_revoked_key_opens_nothing_from_then_on_nor_do_its_sessions(service: Service, browser: Any) -> None:
    key, admin = key_of(service), key_of(service, scope="admin")
    assert _sign_in(browser, key).status_code == 303
    with client_of(service, key) as bearer, client_of(service, admin) as other:
        assert bearer.get("/v1/usage").status_code == browser.get("/v1/usage").status_code == 200
        (id,) = [one["id"] for one in other.get("/v1/keys").json()["items"] if key.startswith(one["prefix"])]
        assert other.delete(f"/v1/keys/{id}").status_code == 204
        problem_in(bearer.get("/v1/usage"), 401)
        problem_in(browser.get("/v1/usage"), 401)
        assert other.get("/v1/usage").status_code == 200


def test_a_key_ends_at_its_time_even_when_it_is_remembered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(service)
    with service.database.write() as session:
        session.execute(update(Key).values(expires=time.time() + 100))
    assert service.passes.find(security.digest(key)) and service.passes.held(security.digest(key))
    later = time.time() + 101
    monkeypatch.setattr("graftwork.service.passes.time.time", lambda: later)
    assert not service.passes.held(security.digest(key)) and not service.passes.find(security.digest(key))


def test_what_is_revoked_while_it_is_looked_up_is_not_remembered(service: Service) -> None:
    key = security.digest(key_of(service))
    look = service.passes._look

    def revoked_meanwhile(hash: str) -> Any:
        found = look(hash)
        service.passes.forget(hash=hash)
        return found

    service.passes._look = revoked_meanwhile  # type: ignore[method-assign]
    assert service.passes.find(key) is not None and service.passes.held(key) is None


def test_a_known_key_costs_no_database(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(service, key_of(service), pages) as client:
        client.post("/form")
        monkeypatch.setattr(service.database, "read", None)
        monkeypatch.setattr(service.database, "write", None)
        assert client.post("/form").status_code == 200


def test_wrong_keys_are_bounded_by_address_and_right_ones_are_not(
    service: Service, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, now = key_of(service), time.monotonic()
    monkeypatch.setattr("graftwork.service.usage.time.monotonic", lambda: now)
    wrong = [
        browser.get("/v1/usage", headers={"Authorization": f"Bearer gw_{number:043}"})
        for number in range(middleware.WRONG_KEYS + 2)
    ]
    assert {one.status_code for one in wrong[: middleware.WRONG_KEYS]} == {401}
    problem_in(wrong[-1], 429, "rate-limited")
    assert _sign_in(browser, "gw_wrong").status_code == 429
    assert browser.get("/v1/usage", headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_sessions_cookie_is_out_of_reach_of_scripts_and_other_sites(
    service: Service, scheme: str
) -> None:
    with client_of(service, also=pages, base=f"{scheme}://localhost") as browser:
        cookie = _sign_in(browser, key_of(service)).headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
        assert cookie.startswith("__Host-") == ("Secure" in cookie) == (scheme == "https")
        assert "Domain" not in cookie
        assert browser.get("/v1/usage").status_code == 200


def test_a_page_without_session_leads_to_sign_in_and_the_api_says_so(browser: Any) -> None:
    for path in ("/", "/datasets/x", "/nothing", "/v1x", "/sign-inn", "/staticx"):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")
    for path in ("/v1", "/v1/", "/v1/nothing", "/metrics", "/openapi.json"):
        problem_in(browser.get(path), 401)


def test_a_session_needs_its_token_for_whatever_changes_something(service: Service, browser: Any) -> None:
    csrf = _signed_in(service, browser)
    new = {"name": "k"}
    problem_in(browser.post("/v1/keys", json=new), 403, "forbidden")
    problem_in(browser.post("/v1/keys", json=new, headers={"X-CSRF-Token": csrf + "x"}), 403)
    assert browser.post("/v1/keys", json=new, headers={"X-CSRF-Token": csrf}).status_code == 201
    assert browser.get("/v1/keys").status_code == 200


def test_a_form_may_carry_the_token_and_its_route_reads_it_whole(service: Service, browser: Any) -> None:
    csrf = _signed_in(service, browser)
    assert browser.post("/form", data={"csrf": csrf, "name": "字"}).json()["body"].startswith(f"csrf={csrf}&")
    problem_in(browser.post("/form", data={"name": "x"}), 403)
    problem_in(browser.post("/form", data={"csrf": ""}), 403)
    problem_in(browser.post("/form", data={"csrf": csrf, "more": "x" * 1_000_000}), 413)
    pieces = iter([b"csrf=" + csrf.encode() + b"&x=", *[b"x" * 100_000] * 11])
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    problem_in(browser.post("/form", content=pieces, headers=form), 413)


def test_another_sites_forms_are_refused_even_at_sign_in(service: Service, browser: Any) -> None:
    evil = {"Origin": "https://evil.example"}
    problem_in(_sign_in(browser, key_of(service), headers=evil), 403)
    csrf = _signed_in(service, browser)
    problem_in(browser.post("/form", headers={"X-CSRF-Token": csrf, **evil}), 403)
    problem_in(browser.post("/form", headers={"X-CSRF-Token": csrf, "Origin": "null"}), 403)
    ours = {"X-CSRF-Token": csrf, "Origin": "http://localhost"}
    assert browser.post("/form", headers=ours).status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "http://\u00a8", "localhost", "://", ""])
def test_an_origin_that_is_no_address_is_another_sites(browser: Any, origin: str) -> None:
    problem_in(_sign_in(browser, "x", headers={"Origin": origin.encode("latin-1")}), 403)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "utf-7", "a\0b"])
def test_a_sign_in_form_in_a_strange_charset_is_a_wrong_key(browser: Any, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\n+2AA-\\\r\n--x--\r\n'
    said = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    assert browser.post("/sign-in", content=body, headers=said).status_code == 403


def test_signing_out_ends_the_session(service: Service, browser: Any) -> None:
    csrf = _signed_in(service, browser)
    assert browser.get("/v1/usage").status_code == 200
    token = browser.cookies[security.COOKIE]
    assert browser.post("/sign-out", data={"csrf": csrf}).status_code == 303
    assert security.COOKIE not in browser.cookies
    browser.cookies[security.COOKIE] = token
    problem_in(browser.get("/v1/usage"), 401)


def test_a_session_may_no_more_than_the_key_it_was_opened_with(service: Service, browser: Any) -> None:
    csrf = _signed_in(service, browser, scope="predict")
    problem_in(browser.post("/v1/keys", json={"name": "k"}, headers={"X-CSRF-Token": csrf}), 403)
    assert browser.get("/v1/usage").status_code == 200
