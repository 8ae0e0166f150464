"""An OpenAI-compatible server of our own that answers as a test tells it: well, badly, late, or not at all.

Facts of the API: https://platform.openai.com/docs/api-reference/chat and what the real client asks for.

    from openai_server import OpenAIServer, error, label, served_openai  # noqa: F401, the fixture openai_server

    def test_something(openai_server: OpenAIServer) -> None:
        openai_server.replies = [error(429, headers={"Retry-After": "1"}), label("closes a bracket")]
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: Any = None  # JSON, or a text that is sent as it is
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False  # until the client goes away
    breaks: bool = False  # the connection, in the middle


@dataclass(frozen=True)
class Seen:
    path: str
    authorization: str | None
    headers: dict[str, str]
    body: Any
    at: float


def content(text: str | None, usage: tuple[int, int] | None = (100, 20), finish: str = "stop", **message: Any) -> Reply:
    """A completion whose message is ``text``."""
    said = {"role": "assistant", "content": text, **message}
    body: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Reply(body=body)


def label(text: str = "closes a bracket", confidence: int = 80, **options: Any) -> Reply:
    answer = {"explanation": f"It {text}.", "label": text, "confidence": confidence, "unclear": False}
    return content(json.dumps(answer), **options)


def error(status: int, message: str = "no", code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "error", "param": None, "code": code}}, headers or {})


def html(status: int = 200) -> Reply:
    return Reply(status, "<!DOCTYPE html><html><body>Open WebUI</body></html>", {"Content-Type": "text/html"})


HANGS = Reply(hangs=True)
BREAKS = Reply(breaks=True)


class OpenAIServer:
    """On a free port of the loopback, in a thread. ``replies`` are given one after the other, then ``always``'s."""

    def __init__(self) -> None:
        self.url = ""  # as a base URL
        self.replies: list[Reply] = []
        self.always: Callable[[Any], Reply] = lambda _body: label()
        self.models: list[str] | None = ["m"]  # None: it lists none
        self.seen: list[Seen] = []  # what was asked, the list of models left out
        self.hanging = 0
        self._loop = asyncio.new_event_loop()

    def given(self, **more: Any) -> dict[str, Any]:
        """As a job's given.json has it."""
        return {"name": "ours", "url": self.url, "on_this_machine": True, **more}

    def __enter__(self) -> OpenAIServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="openai", daemon=True)
        self._thread.start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.close()

    def close(self) -> None:
        """From now on nobody listens."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._end = asyncio.Event()
        runner = web.ServerRunner(
            web.Server(self._answer, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/v1".format(*runner.addresses[0])
        ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.path == "/v1/models":
            if self.models is None:
                return web.json_response({"detail": "Not Found"}, status=404)
            return web.json_response({"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]})
        body = await request.json()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path, headers.get("authorization"), headers, body, time.monotonic()))
        reply = self.replies.pop(0) if self.replies else self.always(body)
        return await self._send(request, reply)

    async def _send(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        if reply.hangs:
            self.hanging += 1
            try:
                await asyncio.sleep(3600)
            finally:
                self.hanging -= 1
        if reply.breaks and request.transport:
            request.transport.abort()
        if isinstance(reply.body, str):
            return web.Response(status=reply.status, body=reply.body.encode(), headers=reply.headers)
        return web.json_response(reply.body, status=reply.status, headers=reply.headers)


@pytest.fixture(name="openai_server")
def served_openai() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server
