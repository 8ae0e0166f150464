"""Under which names the daemon answers, and to whom on this machine."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from conftest import FAKE_WORKER, Studio

from mistudiod import listen, own_address
from mistudiod.app import make_app
from mistudiod.settings import Settings


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


OWN = next((one for one in own_address.all_of_them() if "." in one), None)


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")
async def test_a_socket_of_both_families_is_called_by_the_ipv4_address_at_which_it_was_reached(tmp_path: Path) -> None:
    """As systemd opens one for ListenStream=6478: an IPv4 connection has addresses of IPv6 there."""
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    settings, _ = listen.on(Settings(data=tmp_path / "data"), [both])
    runner = web.AppRunner(make_app(settings, FAKE_WORKER))
    await runner.setup()
    try:
        await web.SockSite(runner, both).start()
        async with ClientSession() as session:
            port = both.getsockname()[1]
            for host, status in ((OWN, 401), ("127.0.0.1", 401), ("10.255.255.1", 421)):
                async with session.get(f"http://{OWN}:{port}/api/status", headers={"Host": f"{host}:{port}"}) as answer:
                    assert answer.status == status, host
    finally:
        await runner.cleanup()
