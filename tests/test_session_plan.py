"""What a session is expected to take, and that one which has no room is never started."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact, train
from sessions import leases, show, start
from test_planning import PICO, be_short_of_memory

from mistudiod.api.keys import ABILITIES
from mistudiod.facts import read_facts

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
async def studio(open_studio: OpenStudio, tmp_path: Path) -> Studio:
    data = tmp_path / "data"
    model = {"name": "pico", "source": "builtin:pico", "path": str(PICO), **asdict(read_facts(PICO))}
    put_artifact(data, "models", "pico", "model.json", json.dumps(model))
    for name, spec in (("s", {"hook": HOOK}), ("old", {}), ("elsewhere", {"hook": "blocks.99.hook_resid_post"})):
        about = {"model": {"name": "pico"}, "spec": spec, "width": 2048, "resolved": {"precision": "fp32"}}
        put_artifact(data, "saes", name, "recipe.json", json.dumps(about))
    put_artifact(data, "tokens", "t", "tokenization.json")
    return await open_studio()


async def test_a_session_is_shown_with_what_it_was_expected_to_take(studio: Studio) -> None:
    _, alone = await start(studio, model="pico")
    await studio.call("DELETE", "/api/session")
    _, shown = await start(studio, saes=["s"])
    weights = 4 * 2048 * (2 * read_facts(PICO).d_model)
    assert shown["predicted_bytes"] > alone["predicted_bytes"] + weights > 100e6


async def test_a_session_without_room_is_refused_with_what_would_fit_and_the_job_goes_on(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await studio.submit(train("slow-a"))
    await studio.until(job["id"], "running")
    await be_short_of_memory(studio, monkeypatch, 200 << 20)
    status, body = await start(studio, saes=["s"], if_busy="pause")
    assert (status, body["error"]["code"]) == (507, "out_of_memory")
    assert "does not fit: it takes" in body["error"]["message"]
    assert await show(studio) is None and not (studio.data / "session").exists()
    again = await studio.until(job["id"], "running")
    assert again["attempts"] == 2 and leases(studio)[1]["pid"] is None


@pytest.mark.parametrize("sae", ["old", "elsewhere"])
async def test_an_sae_that_cannot_be_planned_with_is_left_to_the_worker(studio: Studio, sae: str) -> None:
    status, shown = await start(studio, saes=[sae])
    assert (status, shown["predicted_bytes"]) == (200, None)


async def test_a_precision_that_does_not_work_here_is_refused_before_anything_is_loaded(studio: Studio) -> None:
    found: Any = await studio.app[ABILITIES].found([])
    why = found["precisions"]["int8"]
    status, body = await start(studio, saes=["s"], precision="int8")
    assert (status, body["error"]["fields"]) == (400, {"precision": why})
