"""Whatever is sent, the service does not fail: a few hundred requests here, 10,000 in tests/benchmarks/fuzz.py."""

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.limits import Limits
from tests.factories import champions
from tests.mutants import requests
from tests.unit.serve.kitchen import Kitchen, client

pytestmark = pytest.mark.slow

ANY = list(hypothesis.HealthCheck)
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    return Kitchen(champions(tmp_path_factory.mktemp("fuzz")), limits=Limits(request_mb=1, images=3))


def test_images_and_forms_that_are_nearly_right_are_answered_or_refused_with_a_reason(kitchen: Kitchen) -> None:
    statuses = []
    with client(kitchen) as api:
        for path, headers, body in requests(400):
            response = api.post(path, content=body, headers=headers)
            statuses.append(response.status_code)
            assert response.status_code in (200, 413, 422), (path, headers, body[:200], response.text)
            if response.status_code != 200:
                assert response.headers["content-type"] == "application/problem+json" and response.json()["detail"]
    assert statuses.count(200) > 50 and statuses.count(422) > 50


def test_every_route_answers_as_its_description_says(kitchen: Kitchen) -> None:
    seen = set()
    for found in schemathesis.openapi.from_asgi("/openapi.json", kitchen.api).get_all_operations():
        operation = found.ok()

        @hypothesis.given(operation.as_strategy())
        @hypothesis.settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=ANY)
        def ask(case: "schemathesis.Case") -> None:
            case.call_and_validate(checks=CHECKS)

        ask()
        seen.add(f"{operation.method.upper()} {operation.path}")
    assert {"POST /v1/predict", "GET /v1/models", "GET /readyz", "GET /metrics"} < seen
