"""Row 12 of the incident table: whatever fits the OpenAPI document, and whatever does not, is answered as
the document says, and never with a 500.

``FUZZ_EXAMPLES=2000 pytest tests/test_incidents_fuzz.py`` looks for longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import put_artifact
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plain_store import example, feature, write_store
from studio import running

from mistudiod.api.openapi import document
from mistudiod.api.table import ROUTES

schemathesis = pytest.importorskip("schemathesis")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))  # of each operation
DOCUMENT = json.loads(json.dumps(document(ROUTES)))
LONGEST_URL = 8000
FOR_EVER = {"events"}  # a stream of events ends when whoever reads it does
OPERATIONS = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if operation["operationId"] not in FOR_EVER
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """With something of each noun, so that a number or a name sometimes finds what it asks for."""
    data = tmp_path_factory.mktemp("fuzzed") / "data"
    about = {"model": {"name": "0"}, "resolved": {"precision": "fp32"}, "width": 3, "sae_sha256": "a" * 64}
    put_artifact(data, "saes", "s", "recipe.json", json.dumps(about))
    one = feature(9, 2.0, examples=[example([0, 1, 2], [0.5, 1.0, 0.0], 0)])
    write_store(data / "features" / "s" / "1", [one] * 3, sae="s", id="1")
    put_artifact(data, "models", "m", "model.json", json.dumps({"name": "m"}))
    put_artifact(data, "datasets", "d", "dataset.json")
    put_artifact(data, "tokens", "t", "tokenization.json")
    with running(data, "fake_worker.py", preview_limit_s=1.0) as url:
        yield url


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
def test_whatever_is_asked_is_answered_as_the_document_says(studio: str, schema: Any, method: str, path: str) -> None:
    operation = schema[path][method]

    @schemathesis_given(operation)
    def ask(case: Any) -> None:
        answer = case.call(base_url=studio, timeout=30)
        if answer.status_code == 400 and len(answer.request.url) > LONGEST_URL:
            return  # not read any further, and answered without the studio
        assert answer.status_code < 500 or is_said(answer), (case.as_curl_command(), answer.text[:500])
        documented = DOCUMENT["paths"][path][method.lower()]["responses"]
        assert str(answer.status_code) in documented, (case.as_curl_command(), answer.status_code, answer.text[:500])
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error"} and answer.json()["error"]["message"]

    ask()


def is_said(answer: Any) -> bool:
    """A 5xx that the document has: a session that failed, memory that did not suffice, a preview of a worker."""
    return answer.json()["error"]["code"] != "internal"


def has_parts(operation: Any) -> bool:
    """Whether there is something in which a request can be wrong."""
    found = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return "requestBody" in found or any(one["in"] != "header" for one in found["parameters"])


def schemathesis_given(operation: Any) -> Any:
    from schemathesis import GenerationMode

    def wrapped(test: Any) -> Any:
        modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if has_parts(operation) else [])]
        cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes)
        quiet = list(HealthCheck)
        return settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=quiet, derandomize=True, database=None,
            phases=[Phase.generate],
        )(given(cases)(test))  # fmt: skip

    return wrapped
