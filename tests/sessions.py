"""Sessions with the fake worker: models and SAEs for one, and what tests ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from conftest import Studio, put_artifact

from mistudiod.api.keys import INDEX, SESSION
from mistudiod.specs import Steer

# Of each SAE its model, whose name is what the fake worker does while it loads.
SAES = {"s": "m", "s2": "m", "o": "other", "w": "slow-m", "broken": "fail-m", "big": "greedy-m", "mute": "hang-m"}


def put_saes(data: Path) -> None:
    for model in sorted(set(SAES.values())):
        put_artifact(data, "models", model, "model.json")
    for sae, model in SAES.items():
        about = {"model": {"name": model}, "resolved": {"precision": "fp32"}}
        put_artifact(data, "saes", sae, "recipe.json", json.dumps(about))
    put_artifact(data, "tokens", "t", "tokenization.json")


async def prepared(studio: Studio) -> Studio:
    put_saes(studio.data)
    await studio.app[INDEX].rebuild()
    return studio


def steer(sae: str = "s", prompt: str = "hello", **fields: Any) -> Steer:
    about = {"sae": sae, "prompt": prompt, "steering": [{"feature": 1}], "max_tokens": 3}
    return Steer.model_validate({**about, **fields})


async def ask(studio: Studio, spec: Any, **options: Any) -> list[Any]:
    async with contextlib.aclosing(studio.app[SESSION].ask(spec, **options)) as events:
        return [event async for event in events]


async def show(studio: Studio) -> Any:
    return (await studio.get("/api/session"))["session"]


async def start(studio: Studio, **body: Any) -> tuple[int, Any]:
    return await studio.call("POST", "/api/session", json=body)


async def until_state(studio: Studio, state: str, limit_s: float = 60.0) -> Any:
    end = time.monotonic() + limit_s
    while (shown := await show(studio)) is None or shown["state"] != state:
        assert time.monotonic() < end, shown
        await asyncio.sleep(0.01)
    return shown


async def joined(studio: Studio, requests: int, limit_s: float = 60.0) -> None:
    """Until so many have come to the session, whether they wait in its line or not."""
    end = time.monotonic() + limit_s
    while (session := studio.app[SESSION]._session) is None or session._number < requests:
        assert time.monotonic() < end, studio.app[SESSION].shown()
        await asyncio.sleep(0.005)


async def gone(studio: Studio, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while (shown := studio.app[SESSION].shown()) is not None:
        assert time.monotonic() < end, shown
        await asyncio.sleep(0.01)


def leases(data: Studio | Path) -> list[dict[str, Any]]:
    folder = data if isinstance(data, Path) else data.data
    with contextlib.closing(sqlite3.connect(folder / "mistudio.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("select * from leases order by id")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
