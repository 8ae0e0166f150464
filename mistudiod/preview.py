"""A short worker run that answers a question about an artifact: never queued, never stored, limited in time."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mistudiod.errors import Invalid, StudioError, TooMany
from mistudiod.paths import PARTIAL, Paths
from mistudiod.runner import Grace, Worker
from mistudiod.specs import Spec


class PreviewFailed(StudioError):
    status, code = 500, "preview_failed"


_AT_ONCE = 4  # each is a process of some 100 MB
_under_way = 0


async def preview(
    spec: Spec, paths: Paths, limit_s: float, command: Sequence[str], secrets: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The worker's result. Raises Invalid with its sentence, TooMany when others are under way, or PreviewFailed."""
    global _under_way
    if _under_way >= _AT_ONCE:
        raise TooMany(f"{_AT_ONCE} previews are under way already; try again in a moment")
    _under_way += 1
    try:
        return await _preview(spec, paths, limit_s, command, secrets)
    finally:
        _under_way -= 1


async def _preview(
    spec: Spec, paths: Paths, limit_s: float, command: Sequence[str], secrets: Mapping[str, str] | None
) -> dict[str, Any]:
    (paths.data / "runs").mkdir(exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}preview-", dir=paths.data / "runs"))
    try:
        (run / "spec.json").write_text(json.dumps({"job": 0, "data": str(paths.data), "spec": spec.model_dump()}))
        worker = await Worker.start(run, Grace(limit_s, 0.5, limit_s), command, secrets)
        try:
            return await asyncio.wait_for(_answer(worker), limit_s)
        except asyncio.TimeoutError:
            raise PreviewFailed(f"the preview took longer than {limit_s:.0f} s and was ended") from None
        finally:
            worker.kill()
            await worker.ended()
    finally:
        shutil.rmtree(run, ignore_errors=True)


async def _answer(worker: Worker) -> dict[str, Any]:
    result, failure = None, None
    async for event in worker.events():
        if event.event == "result":
            result = event.result
        elif event.event == "failure":
            failure = event
    if failure is not None and failure.code == "invalid":
        raise Invalid(failure.message, {failure.field: failure.message} if failure.field else None)
    if result is None:
        raise PreviewFailed(failure.message if failure else "the preview's worker ended without an answer")
    return result
