"""Models, datasets, tokenizations and SAEs: list, show, remove; a dataset's sample; an SAE's features."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from mistudiod.api.body import answer, check, query_int
from mistudiod.api.keys import BUS, COMMAND, INDEX, JOBS, PATHS, SETTINGS
from mistudiod.errors import Conflict, NotFound
from mistudiod.preview import preview
from mistudiod.specs import USES, SampleDataset

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def lister(noun: str) -> Handler:
    async def list_all(request: web.Request) -> web.Response:
        return answer({f"{noun}s": await request.app[INDEX].all(noun), "next": None})

    return list_all


def shower(noun: str) -> Handler:
    async def show(request: web.Request) -> web.Response:
        return answer(await request.app[INDEX].get(noun, request.match_info["ref"]))

    return show


def remover(noun: str) -> Handler:
    async def remove(request: web.Request) -> web.Response:
        artifact = await request.app[INDEX].get(noun, request.match_info["ref"])
        name = artifact["name"]
        if users := await request.app[JOBS].users_of(noun, name, USES):
            raise Conflict(f"job {users[0]} uses the {noun} {name!r}; stop it first or wait for its end")
        await request.app[INDEX].remove(noun, name)
        request.app[BUS].publish("artifact", {"noun": noun, "name": name, "id": artifact["id"], "removed": True})
        return web.Response(status=204)

    return remove


async def sample(request: web.Request) -> web.Response:
    dataset = await request.app[INDEX].get("dataset", request.match_info["ref"])
    rows = query_int(request, "rows", 5, 1, 20)
    spec = check({"dataset": dataset["name"], "rows": rows}, SampleDataset)
    limit_s = request.app[SETTINGS].preview_limit_s
    return answer(await preview(spec, request.app[PATHS], limit_s, request.app[COMMAND]))


async def features(request: web.Request) -> web.Response:
    """The features of the newest extraction, each with its best example only."""
    sae, found = await _newest_features(request)
    brief = [{**feature, "examples": feature["examples"][:1]} for feature in found]
    return answer({"sae": sae, "features": brief, "next": None})


async def feature(request: web.Request) -> web.Response:
    sae, found = await _newest_features(request)
    index = request.match_info["index"]
    for one in found:
        if str(one["index"]) == index:
            return answer({"sae": sae, **one})
    raise NotFound(f"feature {index} of {sae} has no examples yet; the extraction kept {len(found)} features")


async def _newest_features(request: web.Request) -> tuple[str, list[dict[str, Any]]]:
    sae = await request.app[INDEX].get("sae", request.match_info["ref"])
    every = await request.app[INDEX].all("features")
    mine = [one for one in every if one["name"].rpartition("/")[0] == sae["name"]]
    if not mine:
        raise NotFound(
            f"no features of {sae['name']} have been extracted yet; run: mistudio feature extract {sae['name']}"
        )
    return sae["name"], await asyncio.to_thread(_read, Path(mine[-1]["folder"]) / "features.jsonl")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
