"""The session over real HTTP, with the fake worker in the place of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact, train

from mistudiod.api.keys import INDEX, SESSION
from mistudiod.errors import Conflict, GpuBusy, Invalid, NotFound, OutOfMemory, SessionBusy, SessionFailed, TooMany
from mistudiod.specs import Complete, Load, Steer

SAES = {"s": "m", "s2": "m", "o": "other", "w": "slow-m", "broken": "fail-m", "big": "greedy-m", "mute": "hang-m"}


async def prepared(studio: Studio) -> Studio:
    for model in sorted(set(SAES.values())):
        put_artifact(studio.data, "models", model, "model.json")
    for sae, model in SAES.items():
        about = {"model": {"name": model}, "resolved": {"precision": "fp32"}}
        put_artifact(studio.data, "saes", sae, "recipe.json", json.dumps(about))
    put_artifact(studio.data, "tokens", "t", "tokenization.json")
    await studio.app[INDEX].rebuild()
    return studio


@pytest.fixture
async def studio(studio: Studio) -> Studio:
    return await prepared(studio)


def steer(sae: str = "s", prompt: str = "hello", **fields: Any) -> Steer:
    return Steer.model_validate({"sae": sae, "prompt": prompt, "steering": [{"feature": 1}], "max_tokens": 3, **fields})


async def ask(studio: Studio, spec: Any, **options: Any) -> list[Any]:
    return [event async for event in studio.app[SESSION].ask(spec, **options)]


async def show(studio: Studio) -> Any:
    return (await studio.get("/api/session"))["session"]


async def start(studio: Studio, **body: Any) -> tuple[int, Any]:
    return await studio.call("POST", "/api/session", json=body)


async def gone(studio: Studio, limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while (shown := studio.app[SESSION].shown()) is not None:
        assert time.monotonic() < end, shown
        await asyncio.sleep(0.01)


def leases(studio: Studio) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(studio.data / "mistudio.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("select * from leases order by id")]


async def test_a_request_loads_the_model_and_is_answered_token_by_token(studio: Studio) -> None:
    events = await ask(studio, steer())
    assert [event.event for event in events] == ["progress", "wrote", "wrote", "wrote", "replied"]
    assert [text.text for text in events[1].texts] == ["t0 ", "t0 "]
    shown = await show(studio)
    assert (shown["state"], shown["model"], shown["saes"], shown["precision"]) == ("ready", "m", ["s"], "fp32")
    assert shown["memory_bytes"] > 0 and shown["keep_alive_s"] == 300 and shown["expires_at"] and shown["pid"]


async def test_a_second_request_is_answered_by_the_same_process_without_loading(studio: Studio) -> None:
    first, second = [await ask(studio, steer(sae)) for sae in ("s", "s2")]
    assert first[-1].result["pid"] == second[-1].result["pid"]
    assert [event.event for event in second] == ["wrote", "wrote", "wrote", "replied"]
    assert (await show(studio))["saes"] == ["s", "s2"]
