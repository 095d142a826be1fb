"""The API asked whatever its own document allows, and what it does not: it keeps to the document."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from graftwork.service.app import create_app
from graftwork.service.context import Service
from tiny_service import key_of, make_service

EXAMPLES = 15
"""Of each operation."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
    ignored_auth,
]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = make_service(tmp_path)
    yield made
    made.models.close()
    made.database.close()


def test_every_operation_keeps_to_the_document(
    service: Service, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftwork.service.middleware.WRONG_KEYS", 1_000_000)  # one check sends many
    headers = {"Authorization": f"Bearer {key_of(service, 'ann', 'admin')}", "Host": "localhost"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service), headers=headers)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 30
    for operation in operations:
        with subtests.test(operation=operation.label):
            ask(operation, headers)


def ask(operation: schemathesis.APIOperation, headers: dict[str, str]) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def asked(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(headers=headers, checks=CHECKS)
        if answer.status_code >= 400:
            said = answer.json()
            assert answer.headers["content-type"] == ["application/problem+json"]
            assert said["status"] == answer.status_code
            assert said["request_id"] == answer.headers["x-request-id"][0]

    asked()
