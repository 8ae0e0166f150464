"""Under which names the daemon answers, and to whom on this machine."""

from __future__ import annotations

import asyncio

import pytest
from conftest import Studio


async def test_on_loopback_no_token_is_needed_but_a_wrong_one_is_refused(studio: Studio) -> None:
    assert (await studio.call("GET", "/api/tokens"))[0] == 200
    assert (await studio.call("GET", "/api/status", headers={"Authorization": "Bearer mis_1_x"}))[0] == 401


async def test_on_this_machine_a_cookie_is_not_read(studio: Studio) -> None:
    """Nobody is shut out by a log-in that has ended where none is needed."""
    cookie = {"Cookie": f"mistudio-{studio.server.port}=mis_1_{'A' * 43}"}
    status, login = await studio.call("GET", "/api/login", headers=cookie)
    assert status == 200 and login == {"scope": "admin", "token": None, "browser": False}


async def raw(studio: Studio, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", studio.server.port)
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(4000), 10)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "request_lines",
    [
        "GET http://evil.example/api/status HTTP/1.1\r\nHost: localhost",
        "GET /api/status HTTP/1.1\r\nHost: evil@localhost",
        "GET /api/status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        "GET /api/status HTTP/1.1\r\nHost: localhost?.evil.example",
        "GET /api/status HTTP/1.1\r\nHost: 127.0.0.1#.evil",
        "GET /api/status HTTP/1.1\r\nHost: localhost:evil",
        "GET /api/status HTTP/1.1\r\nHost: [::1",
        "GET /api/status HTTP/1.0",
    ],
)
async def test_a_host_that_only_looks_like_ours_is_refused(studio: Studio, request_lines: str) -> None:
    answer = await raw(studio, f"{request_lines}\r\nConnection: close\r\n\r\n".encode())
    assert b" 421 " in answer.split(b"\r\n")[0] or b" 400 " in answer.split(b"\r\n")[0], answer[:200]
