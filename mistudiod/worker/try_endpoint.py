"""A preview: whether an endpoint answers, and which models it has."""

from __future__ import annotations

import asyncio
import json

from mistudiod.events import MAX_LINE_BYTES
from mistudiod.specs import TryEndpoint
from mistudiod.specs.label import Asking
from mistudiod.worker.endpoint import Endpoint
from mistudiod.worker.link import Link

_ROOM_BYTES = MAX_LINE_BYTES // 2


def run(spec: TryEndpoint, link: Link) -> None:
    """The result is {models, left_out}: their names, and how many the answer had no room for."""
    found = asyncio.run(_models(spec, link.secret("endpoint")))
    models, left = [], _ROOM_BYTES
    for name in sorted(set(found)):
        left -= len(json.dumps(name)) + 2
        if left < 0:
            break
        models.append(name)
    link.result({"models": models, "left_out": len(set(found)) - len(models)})


async def _models(spec: TryEndpoint, key: str | None) -> list[str]:
    about = {"name": spec.endpoint, "url": spec.url, "on_this_machine": False, "secret": spec.secret}
    async with Endpoint(about, Asking(sae="none", model="none"), key) as endpoint:
        return await endpoint.models()
