"""The page: its words, what it escapes, who may see it, and that no record of a stranger breaks it."""

import ast
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from graftwork.datasets.columns import ColumnsUnclear, likely
from graftwork.errors import LabelsUnfit, OneClass, RowsUnreadable, TooFewRows
from graftwork.service import ids
from graftwork.service.context import Service
from graftwork.service.database import tables
from graftwork.service.database.tables import Scope
from graftwork.service.models import Models
from graftwork.service.pages import telling
from graftwork.service.pages.wording import LANGUAGES, Words, read
from graftwork.service.security import COOKIE, first_link, open_session
from tiny_service import NoServing, client_of, key_of, make_service

PAGES = Path(telling.__file__).parent
HOSTILE = "<script>alert(1)</script>\u202egnp.\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
SCORE = {"value": 0.9, "low": 0.8, "high": 0.95}
FIT: dict[str, Any] = {
    "strategy": "probe",
    "metric": "accuracy",
    "dataset": {"splits": {"train": 80, "test": 20}},
    "scores": {"test": {"accuracy": SCORE}},
    "baselines": {"classical": {"accuracy": {"value": 0.7, "low": None, "high": None}}},
    "verdict": {
        "outcome": "helped",
        "difference": 0.2,
        "low": 0.1,
        "high": 0.3,
        "baseline": "classical",
        "metric": "accuracy",
        "about": "this model",
        "level": 0.95,
        "rows": 20,
        "caution": HOSTILE,
    },
}
MANIFEST: dict[str, Any] = {
    "schema_version": 3,
    "task": "classification",
    "kind": "image",
    "labels": ["a", "b"],
    "source": None,
    "backbone": {"name": "images", "config": {}},
    "fingerprint": "f" * 64,
    "head": {"name": "linear", "config": {}},
    "strategy": "probe",
    "settings": {},
    "result": {},
    "machine": "",
    "versions": {},
    "examples": False,
    "created": "2026-11-22T00:00:00Z",
    "files": {},
}
INSPECTION: dict[str, Any] = {
    "rows": 40,
    "kind": "image",
    "classes": [HOSTILE, "pear"],
    "counts": {"train": {HOSTILE: 1, "pear": 30}, "test": {HOSTILE: 0, "pear": 9}},
    "split_origin": "given",
    "unlabelled": 2,
    "unreadable": {HOSTILE: HOSTILE},
    "imbalance": 4.2,
    "exact": {"within": 1, "leaks": [{"part": "test", "seen_in": "train", "rows": 3, "examples": []}]},
    "near": {"within": 2, "leaks": []},
    "oversized": [12],
    "conflicts": [[[HOSTILE, "pear"], ["b.png", HOSTILE]]],
    "absent": [["test", HOSTILE]],
    "elongated": 0.4,
    "recordings": {"silent": [HOSTILE], "rates": {"16000": 3, "44100": 2}, "long": 1},
    "clashes": [["Pear", "pear"]],
}


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        else:
            self.text += data


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Service]:
    """A service with hostile records of every kind, owned by ann."""
    service = make_service(tmp_path)
    service.models = Models(service.settings, service.database, NoServing())  # type: ignore[arg-type]  # as in tests
    key_of(service, "ann")
    yield service
    service.models.close()
    service.database.close()


@contextmanager
def visitor(
    service: Service, owner: str = "ann", scope: Scope = "admin", language: str = "en"
) -> Iterator[TestClient]:
    """A browser that is signed in."""
    token = open_session(service.database, key_of(service, owner, scope))
    with client_of(service) as client:
        client.headers |= {"Cookie": f"{COOKIE}={token}", "Accept": "text/html", "Accept-Language": language}
        yield client


def owner_of(service: Service, name: str = "ann") -> str:
    with service.database.read() as session:
        return next(one.id for one in session.query(tables.Owner) if one.name == name)


def add(service: Service, *rows: Any) -> None:
    with service.database.write() as session:
        session.add_all(rows)


def dataset(service: Service, **changes: Any) -> tables.Dataset:
    made: dict[str, Any] = {
        "id": ids.new("data"),
        "owner_id": owner_of(service),
        "name": HOSTILE[:100],
        "state": "ready",
        "files": [{"file": ids.new("file"), "label": None}],
        "options": {},
        "kind": "image",
        "rows": 40,
        "bytes": 1234,
        "inspection": INSPECTION,
        "created": time.time(),
    }
    row = tables.Dataset(**{**made, **changes})
    add(service, row)
    return row


def job(service: Service, **changes: Any) -> tables.Job:
    made: dict[str, Any] = {
        "id": ids.new("job"),
        "owner_id": owner_of(service),
        "kind": "fit",
        "state": "succeeded",
        "request": {"kind": "fit", "name": HOSTILE[:80]},
        "result": FIT,
        "created": time.time(),
        "started": time.time(),
        "finished": time.time() + 3,
    }
    row = tables.Job(**{**made, **changes})
    add(service, row)
    return row


def model(service: Service, result: Any = FIT, **changes: Any) -> tables.Model:
    digest = f"{time.time_ns():064x}"
    folder = service.settings.artefacts / digest
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({**MANIFEST, "result": result}))
    (folder / "report.html").write_text("<h1>report</h1>")
    summary = {name: result.get(name) for name in ("scores", "metric", "verdict")} if result else {}
    made: dict[str, Any] = {
        "id": ids.new("model"),
        "owner_id": owner_of(service),
        "name": HOSTILE[:80],
        "digest": digest,
        "kind": "image",
        "labels": [HOSTILE, "pear"],
        "strategy": "probe",
        "source": HOSTILE,
        "fingerprint": "f" * 64,
        "summary": {**summary, "bytes": 1000},
        "created": time.time(),
    }
    row = tables.Model(**{**made, **changes})
    add(service, row)
    return row


def every_page(service: Service) -> list[str]:
    """The addresses of pages of every kind and state."""
    ready = dataset(service)
    unclear = {"code": "columns-unclear", "detail": HOSTILE, "columns": [HOSTILE, "b"]}
    file = tables.File(
        id=ids.new("file"),
        owner_id=owner_of(service),
        name="t.csv",
        media_type="text/csv",
        bytes=1,
        sha256="0" * 64,
        created=0.0,
    )
    add(service, file)
    refused = dataset(
        service,
        state="refused",
        inspection=None,
        problem=unclear,
        options={"label": "x"},
        files=[{"file": file.id, "label": None}],
    )
    inspecting = dataset(service, state="inspecting", inspection=None, kind=None, rows=None)
    problem = {"code": "work-failed", "detail": HOSTILE}
    rank = {
        "sentence": HOSTILE,
        "choice": "a",
        "sources": [{"name": "a", "expected_accuracy": SCORE}, {"name": HOSTILE, "expected_accuracy": SCORE}],
    }
    done = job(service, dataset_id=ready.id)
    jobs = [
        done,
        job(service, state="queued", result=None, finished=None, started=None),
        job(service, state="running", result=None, finished=None),
        job(service, state="cancelling", result=None, finished=None),
        job(service, state="failed", result=None, problem=problem, dataset_id=ready.id),
        job(service, state="cancelled", result=None),
        job(service, kind="rank", result=rank, request={}),
        job(service, kind="inspect", result={}, request={}, dataset_id=ready.id),
        job(service, kind="import", result={}, request={}),
    ]
    models = [
        model(service, dataset_id=ready.id, job_id=done.id, kind=kind) for kind in ("image", "text", "audio")
    ]
    return [
        *("/", "/datasets", "/models", "/jobs", "/settings", "/sign-in", "/sign-in/gl_some"),
        *(f"/datasets/{one.id}" for one in (ready, refused, inspecting)),
        *(f"/jobs/{one.id}" for one in jobs),
        *(f"/models/{one.id}" for one in models),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_show_hostile_names_as_text_and_run_nothing_inline(here: Service, language: str) -> None:
    addresses = every_page(here)
    with visitor(here, language=language) as client:
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 200, (address, answer.text[-300:])
            page = Page(answer.text)
            policy = answer.headers["Content-Security-Policy"]
            assert "script-src 'self'" in policy and "unsafe" not in policy
            assert "\u202e" not in page.text, address
            for tag, attributes in page.elements:
                assert not {name for name in attributes if name.startswith("on") or name == "style"}, (
                    address,
                    tag,
                )
                assert tag != "style" and attributes.get("src") != "x", address
                assert not str(attributes.get("href") or "").startswith("javascript:"), address
            for attributes, text in page.scripts:
                assert attributes.get("src") or attributes.get("type") == "application/json", address
                assert "<" not in text, address
            assert dict(page.elements)["html"]["lang"].startswith(language)  # type: ignore[union-attr]


def test_hidden_characters_in_names_are_written_out(here: Service) -> None:
    row = dataset(here)
    with visitor(here) as client:
        page = Page(client.get(f"/datasets/{row.id}").text)
    assert "<script>alert(1)</script>‹U+202E›gnp" in page.text
    assert "{{ 7*7 }}" in page.text


REFUSALS = [OneClass.code, TooFewRows.code, RowsUnreadable.code, LabelsUnfit.code, ColumnsUnclear.code]
REFUSALS += ["unreadable-archive", "unreadable-workbook", "unsupported-type", "quota-exceeded"]


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_commonest_refusals_are_said_in_the_reader_s_language(
    here: Service, language: str, code: str
) -> None:
    words = Words(language)
    row = dataset(here, state="refused", inspection=None, problem={"code": code, "detail": "one thing seen"})
    with visitor(here, language=language) as client:
        said = Page(client.get(f"/datasets/{row.id}").text).text
    for expected in (words(f"problem.{code}"), words(f"problem.{code}.help"), "one thing seen"):
        assert expected in said


def codes() -> set[str]:
    """Every code of a problem that the service or what it asks raises, as the sources spell it."""
    package = PAGES.parents[1]
    paths = [*package.glob("service/**/*.py"), package / "errors.py", package / "datasets" / "columns.py"]
    said: set[str] = {*("failed", "cancelled")}  # a dataset whose inspection ended without a word
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said |= {
                one.value
                for part in _codes(node)
                for one in ast.walk(part)
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
    return {one for one in said if re.fullmatch(r"[a-z]+(-[a-z]+)*", one)}


def _codes(node: ast.AST) -> Iterator[ast.expr]:
    """The parts of an expression in which a code is spelt."""
    match node:
        case ast.Call(func=ast.Name(id="Problem"), args=[_, code, *_]):
            yield code
        case ast.Call(func=ast.Name(id="too_many") | ast.Attribute(attr="fail"), args=[code, *_]):
            if not isinstance(code, ast.Subscript):
                yield code
        case ast.Assign(targets=[ast.Name(id="code")], value=code):
            yield code
        case ast.Dict(keys=keys, values=values):
            named = zip(keys, values, strict=True)
            yield from (
                value
                for key, value in named
                if isinstance(key, ast.Constant) and key.value == "code" and not isinstance(value, ast.Dict)
            )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_of_a_problem_has_words(language: str) -> None:
    found = codes() | {"method-not-allowed"}  # the framework's, by the name of its status
    assert {"too-long", "name-taken", "killed-its-worker", "columns-unclear", "quota-exceeded"} < found
    assert [one for one in sorted(found) if f"problem.{one}" not in read(language)] == []


@pytest.mark.parametrize("code", ["in-use", "too-much-memory", "invalid-request"])
def test_a_refusal_s_english_stands_beside_chinese_words(here: Service, code: str) -> None:
    row = job(here, state="failed", result=None, problem={"code": code, "detail": "one thing seen"})
    with visitor(here, language="zh") as client:
        said = client.get(f"/jobs/{row.id}").text
    assert read("zh")[f"problem.{code}.help"] in said
    assert '<p lang="en" class="small quiet"><bdi>one thing seen</bdi></p>' in said


RANKED: dict[str, Any] = {
    "choice": "a",
    "metric": "accuracy",
    "rows": 40,
    "sentence": "in English",
    "baseline": {"value": 0.6, "low": 0.5, "high": 0.7},
    "ahead": {"value": 0.3, "low": 0.2, "high": 0.4},
    "sources": [
        {"name": "a", "expected_accuracy": SCORE, "probability_best": 0.7},
        {"name": HOSTILE, "expected_accuracy": {"value": None, "low": None, "high": None}},
        {"name": "b", "expected_accuracy": SCORE, "probability_best": 0.3},
    ],
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("rank.choice", "rank.ahead")),
        ({"ahead": {"value": 0.1, "low": -0.1, "high": 0.3}}, ("rank.choice", "rank.perhaps")),
        ({"ahead": {"value": -0.1, "low": -0.2, "high": 0.0}}, ("rank.choice", "rank.behind")),
        ({"ahead": None, "sources": RANKED["sources"][:1]}, ("rank.only",)),
        ({"choice": None}, ("rank.none",)),
    ],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_ranking_is_told_in_the_reader_s_language(
    here: Service, language: str, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    data = dataset(here)
    row = job(here, kind="rank", result={**RANKED, **changes}, request={}, dataset_id=data.id)
    with visitor(here, language=language) as client:
        html = client.get(f"/jobs/{row.id}").text
        learn = client.get(f"/datasets/{data.id}?source=b").text
    said = Page(html).text
    for key in expected:
        fixed = re.split(r"\{\w+\}", read(language)[key])
        assert all(part in said for part in fixed), key
    assert "in English" not in said and "gnp" not in Page(html.partition("<h1")[2].partition("</h1>")[2]).text
    assert f'href="/datasets/{data.id}?source=a#learn"' in html
    assert 'value="b"' in learn and '<details id="advanced" open>' in learn


ERRING = {
    **FIT,
    "classes": [
        {"label": HOSTILE, "rows": 10, "precision": SCORE, "recall": {"value": 0.4}, "f1": 0.5},
        {"label": "pear", "rows": 30, "precision": SCORE, "recall": {"value": 0.9}, "f1": 0.9},
        {"label": "plum", "rows": 30, "precision": SCORE, "recall": {"value": 1.0}, "f1": 0.9},
        {"label": "fig", "rows": 0, "precision": SCORE, "recall": {"value": None}, "f1": None},
    ],
    "confusions": [{"label": HOSTILE, "answer": "pear", "rows": 6}],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_model_says_where_it_errs_and_what_to_do_now(here: Service, language: str) -> None:
    words = Words(language)
    row = model(here, ERRING, dataset_id=dataset(here).id)
    with visitor(here, language=language) as client:
        html = client.get(f"/models/{row.id}").text
    said = Page(html).text
    assert str(words("errors.title")) in said and str(words("verdict.helped.advice")) in said
    assert said.index("40%") < said.index("90%")
    advised = str(words("errors.advice", label="LABEL", share="40%", n=10)).split("LABEL")
    assert all(part in said for part in advised)
    assert "plum" not in said and "fig" not in said
    assert str(words("model.warnings")) in said and str(words("warn.unlabelled", n=2)) in said
    assert "<script>alert(1)" not in html.partition("</head>")[2]


@pytest.mark.parametrize(
    "changes", [{"classes": 3}, {"classes": [{"label": 4}]}, {"confusions": ["x"]}, {"confusions": None}]
)
def test_nonsense_about_errors_takes_nothing_else_from_the_page(here: Service, changes: Any) -> None:
    row = model(here, {**ERRING, **changes})
    with visitor(here) as client:
        said = client.get(f"/models/{row.id}").text
    assert read("en")["verdict.helped.title"] in said and read("en")["errors.title"] not in said


@pytest.mark.parametrize(("strategy", "advised"), [("probe", True), ("classical", False)])
def test_what_was_compared_with_nothing_is_to_be_compared(
    here: Service, strategy: str, advised: bool
) -> None:
    row = model(here, {**FIT, "verdict": None, "strategy": strategy})
    with visitor(here) as client:
        assert (read("en")["verdict.none.advice"] in client.get(f"/models/{row.id}").text) == advised
        late = model(here, {**FIT, "verdict": None, "strategy": strategy, "budget": 300.0})
        assert (read("en")["verdict.none.late"] in client.get(f"/models/{late.id}").text) == advised


def test_an_imported_model_s_job_shows_what_its_fit_said(here: Service) -> None:
    row = job(here, kind="import", request={"name": "m"}, model_id=model(here).id)
    with visitor(here) as client:
        said = client.get(f"/jobs/{row.id}").text
    assert read("en")["verdict.helped.title"] in said and read("en")["job.try"] in said


def test_owners_are_listed_to_admins_alone(here: Service) -> None:
    key_of(here, HOSTILE[:80])
    with visitor(here) as client:
        html = client.get("/settings").text
    assert "&lt;script&gt;alert(1)" in html and 'id="new-owner"' in html
    assert f'data-removes="{owner_of(here)}"' not in html  # nobody removes themselves here
    with visitor(here, scope="write") as client:
        html = client.get("/settings").text
    assert "new-owner" not in html and "alert(1)" not in html


def test_a_table_that_waits_for_its_columns_is_not_called_unusable(here: Service) -> None:
    dataset(here, state="refused", inspection=None, problem={"code": "columns-unclear", "detail": "which?"})
    with visitor(here) as client:
        said = client.get("/datasets").text
    assert (
        read("en")["state.asks"] in said and read("en")["state.refused"] not in said.partition("</head>")[2]
    )


def test_a_table_s_columns_are_proposed_by_their_names(here: Service) -> None:
    columns = ["工单号", "工单内容", "问题类别"]
    assert likely(columns) == {"label": "问题类别", "text": "工单内容"}
    assert likely(["工单号", "问题描述", "问题分类"]) == {"label": "问题分类", "text": "问题描述"}
    assert likely(["Description", "Review text"])["text"] == "Review text"
    assert likely(["a", "b"]) == {}
    assert likely(["label text"]) == {"label": "label text"}


@pytest.mark.parametrize("compared", [["classical"], ["classical", "scratch"], []])
def test_a_result_says_that_it_was_compared_with_classical_models_alone(
    here: Service, compared: list[str]
) -> None:
    baselines = {name: FIT["baselines"]["classical"] for name in compared}
    row = model(here, {**FIT, "baselines": baselines})
    with visitor(here) as client:
        said = client.get(f"/models/{row.id}").text
    assert (read("en")["result.no_scratch"] in said) == (compared == ["classical"])


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"scores": 3},
        {**FIT, "scores": {}},
        {**FIT, "metric": HOSTILE},
        {**FIT, "scores": {"test": {"accuracy": {"value": "much"}}}},
        {**FIT, "verdict": {"outcome": HOSTILE}},
        {**FIT, "verdict": {**FIT["verdict"], "difference": "much"}},
        {**FIT, "dataset": {"splits": [HOSTILE]}},
        {**FIT, "baselines": {HOSTILE: {"accuracy": {"value": None}}}},
    ],
)
def test_a_model_that_says_nonsense_of_itself_has_a_page(here: Service, result: Any) -> None:
    row = model(here, result)
    with visitor(here) as client:
        for address in (f"/models/{row.id}", "/", "/models"):
            assert client.get(address).status_code == 200


def test_a_job_does_not_lead_to_what_was_deleted(here: Service) -> None:
    row, kept = dataset(here), model(here)
    gone = job(here, dataset_id=ids.new("data"), model_id=ids.new("model"))
    there = job(here, dataset_id=row.id, model_id=kept.id)
    with visitor(here) as client:
        assert "/datasets/data_" not in client.get(f"/jobs/{gone.id}").text
        assert "/models/model_" not in client.get(f"/jobs/{gone.id}").text
        shown = client.get(f"/jobs/{there.id}").text
    assert f'href="/datasets/{row.id}"' in shown and f'href="/models/{kept.id}"' in shown


def test_pages_ask_to_sign_in(here: Service) -> None:
    with client_of(here) as client:
        for address in every_page(here):
            answer = client.get(address)
            if address.startswith("/sign-in"):
                assert answer.status_code == 200
            else:
                to = "" if address == "/" else f"?to={address}"
                assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in{to}")
        assert client.get("/static/page.css").status_code == 200
        assert client.get("/static/..%2Froutes.py").status_code == 404


def test_a_key_signs_in_and_out(here: Service) -> None:
    with client_of(here) as client:
        answer = client.post("/sign-in", data={"key": f" {key_of(here)} "})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        assert "HttpOnly" in answer.headers["Set-Cookie"]
        signed = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], "Accept": "text/html"}
        page = Page(client.get("/settings", headers=signed).text)
        [csrf] = [one["value"] for tag, one in page.elements if tag == "input" and one.get("name") == "csrf"]
        assert client.post("/sign-out", headers=signed).status_code == 403
        assert client.post("/sign-out", headers=signed, data={"csrf": csrf}).headers["Location"] == "/sign-in"
        assert client.get("/", headers=signed).headers["Location"] == "/sign-in"


@pytest.mark.parametrize("key", ["", "gw_wrong", "gl_" + "a" * 43, "x" * 5000])
def test_a_wrong_key_is_told_beside_its_field(here: Service, key: str) -> None:
    with client_of(here) as client:
        answer = client.post("/sign-in", data={"key": key})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers
    assert str(Words("en")("sign_in.wrong")) in answer.text


def test_a_link_is_spent_by_its_button_alone(here: Service) -> None:
    link = f"/sign-in/{first_link(here.database)}"
    with client_of(here) as client:
        assert client.get(link).status_code == 200
        assert client.get(link).status_code == 200
        elsewhere = client.post(link, headers={"Origin": "http://evil.example"})
        assert elsewhere.status_code == 403
        assert client.post(link).status_code == 303
        assert client.post(link).status_code == 403


def test_what_is_anothers_is_not_found(here: Service) -> None:
    addresses = [one for one in every_page(here) if one.count("/") == 2 and not one.startswith("/sign-in")]
    with visitor(here, owner="bob") as client:
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 404
            assert answer.headers["Content-Type"].startswith("text/html")
            assert "gnp" not in answer.text


def test_who_may_only_ask_sees_no_forms_that_would_be_refused(here: Service) -> None:
    addresses = every_page(here)
    with visitor(here, scope="predict") as client:
        for address in addresses:
            page = Page(client.get(address).text)
            seen = {attributes.get("id") for _, attributes in page.elements}
            assert not seen & {
                "bringing",
                "fit",
                "columns",
                "cancel",
                "correct",
                "delete",
                "wipe",
                "new-key",
                "new-owner",
                "model-file",
                "compare",
            }, address


def test_the_language_is_as_preferred_until_chosen(here: Service) -> None:
    with client_of(here) as client:
        for preferred, expected in (("zh-CN,en;q=0.5", "zh"), ("fr,en;q=0.2,zh;q=0.9", "zh"), ("fr", "en")):
            said = client.get("/sign-in", headers={"Accept-Language": preferred})
            assert f'<html lang="{expected}' in said.text
        client.get("/sign-in?language=zh")
        assert '<html lang="zh' in client.get("/sign-in").text
        assert '<html lang="zh' in client.get("/sign-in?language=<b>").text


def test_all_languages_have_the_same_words() -> None:
    english = read("en")
    for language in LANGUAGES:
        words = read(language)
        assert list(words) == list(english)
        for key, word in words.items():
            assert word.strip(), key
            if not key.endswith(".one"):
                assert places(word) == places(english[key]), (language, key)
    assert not [key for key, word in read("zh").items() if word == english[key] and word.count(" ") > 1]


def places(word: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", word))


def sources() -> Iterator[tuple[str, str]]:
    for path in [*PAGES.glob("templates/*.html"), *PAGES.glob("static/*.js"), *PAGES.glob("*.py")]:
        yield path.name, path.read_text(encoding="utf-8")


def test_each_word_is_used_and_each_that_is_used_is_there() -> None:
    known = set(read("en"))
    spoken = Words("en").spoken()
    everything = "".join(text for _, text in sources())
    begun = tuple(  # such as 'state.' ~ one, `stage.${one}`
        re.findall(r"""["'`]([a-z_.]+\.)(?=["'] ~|\$?\{)""", everything)
    )
    for name, text in sources():
        literal = set(re.findall(r"""\bt\(\s*['"]([\w.]+)['"]\s*[,)]""", text))
        missing = literal - (spoken.keys() if name.endswith(".js") else known)
        assert not missing, (name, missing)
    for key in known:
        said = key.removeprefix("js.").removesuffix(".one")
        assert said.startswith(begun) or f'"{said}"' in everything or f"'{said}'" in everything, key


def test_templates_hold_no_words_of_their_own() -> None:
    for path in PAGES.glob("templates/*.html"):
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", path.read_text(encoding="utf-8"), flags=re.S)
        page = Page(text)
        shown = page.text.replace("Graftwork", "")
        assert not re.search(r"[^\W\d_]", shown), (path.name, re.findall(r"[^\W\d_]+", shown))
        for tag, attributes in page.elements:
            for name in ("title", "alt", "placeholder", "aria-label"):
                assert not (attributes.get(name) or "").strip(), (path.name, tag, name)


def test_scripts_hold_no_words_of_their_own() -> None:
    for path in PAGES.glob("static/*.js"):
        text = re.sub(r"//.*|/\*.*?\*/", "", path.read_text(encoding="utf-8"))
        for said in re.findall(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`', text):
            plain = re.sub(r"\$\{.*?\}", "", said[0] or said[1])
            assert not re.search(
                r"[A-Z][a-z]+ [a-z]+|[\u4e00-\u9fff]|[a-z]{3,} [a-z]+ [a-z]+ [a-z]+", plain
            ), plain


def test_pages_need_nothing_of_other_sites() -> None:
    for path in [*PAGES.glob("templates/*.html"), *PAGES.glob("static/*")]:
        found = re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org/2000/svg"}, path.name


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_finding_is_told(language: str) -> None:
    told = telling.warnings(Words(language), INSPECTION)
    assert len(told) == 15
    assert not [one for one in told if "<script" in one]
    assert telling.warnings(Words(language), {}) == []


@pytest.mark.parametrize(
    ("difference", "said"), [(0.2, "20.0 points more"), (-0.2, "20.0 points less"), (0.0001, "As much")]
)
def test_the_verdict_is_told_with_its_interval(difference: float, said: str) -> None:
    told = telling.read({**FIT, "verdict": {**FIT["verdict"], "difference": difference}})
    assert told is not None
    sentence = str(telling.sentence(Words("en"), told.verdict))
    assert said in sentence and "+10.0 to +30.0" in sentence and "20 test rows" in sentence
    assert [one["name"] for one in told.compared] == ["probe", "classical"]


def test_classes_are_shown_largest_first_with_their_parts() -> None:
    shown = telling.balance(INSPECTION)
    assert [(one["label"], one["rows"]) for one in shown["balance"]] == [("pear", 39), (HOSTILE, 1)]
    assert shown["balance"][0]["parts"] == [("train", 30), ("test", 9)]
    assert shown["largest"] == 39
