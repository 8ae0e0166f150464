"""A queued job of steering: the same texts as a session writes, and the same refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resident import D_SAE, Resident, put_all, put_sae
from run_job import events, run_job

from mistudiod.worker.link import Refused

ASKED: dict[str, Any] = {
    "sae": "s", "prompt": "def f(", "steering": [{"feature": 3, "strength": 2}, {"sae": "later", "feature": 5}],
    "sweep": [-1, 1], "samples": 2, "max_tokens": 8, "seed": 9,
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return put_all(tmp_path)


def test_a_job_gives_the_result_that_a_session_gives(data: Path) -> None:
    session = Resident(data)
    try:
        session.until("loaded")
        expected = session.result("steer", **ASKED)
    finally:
        session.close()
    result = run_job(data, "steer", **ASKED)
    assert result.keys() == expected.keys()
    for name in result.keys() - {"seconds", "tokens_per_s", "made"}:
        assert result[name] == expected[name], name
    assert result["made"] | {"threads": 0} == expected["made"] | {"threads": 0}


def test_a_job_tells_how_far_it_is(data: Path) -> None:
    stages = [event["stage"] for event in events(data, "steer", **ASKED) if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["load model", "largest activations", "write", "measure"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"sae": "nope"}, "sae", "no SAE called nope"),
        ({"sae": "astray"}, "model", "no model called gone"),
        ({"steering": [{"feature": D_SAE}]}, "steering.0.feature", f"0 to {D_SAE - 1}"),
        ({"max_tokens": 4000, "samples": 1, "sweep": None}, "max_tokens", "2048"),
    ],
)
def test_a_job_is_refused_with_the_field_at_fault(data: Path, fields: dict[str, Any], field: str, words: str) -> None:
    put_sae(data, "astray", model="gone")
    with pytest.raises(Refused, match=words) as refused:
        run_job(data, "steer", **{**ASKED, **fields})
    assert refused.value.field == field
