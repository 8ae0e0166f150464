"""Errors as OpenAI's clients know them: ours, with the ``type`` and the ``param`` that theirs have."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mistudiod.errors import GpuBusy, OutOfMemory, SessionFailed, StudioError

PREFIX = "/v1/"  # below which OpenAI's manners hold
_TYPES = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}


def is_openai(request: web.Request) -> bool:
    return request.path.startswith(PREFIX)


def openai_body(error: StudioError) -> dict[str, Any]:
    """``param``: the first field that is wrong; the others are in ``fields``."""
    body: dict[str, Any] = error.body()
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {**body["error"], "type": kind, "param": next(iter(error.fields or ()), None)}}


def openai_headers(error: StudioError) -> dict[str, str]:
    """OpenAI's clients ask again after a 409 or a 5xx, at once; the job, or what went wrong, would still be there."""
    return {"x-should-retry": "false"} if isinstance(error, GpuBusy | OutOfMemory | SessionFailed) else {}
