"""Who is at the other end: real sockets, real processes of other users."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector, UnixConnector, web

from mistudiod import peer

OTHER = pwd.getpwnam("nobody").pw_uid
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
# A request by another user: argv is "uid address port" or "uid socket".
ASK = """
import os, socket, sys
"x".encode("idna")  # loaded now: the other user may not be able to read Python's own files
os.setuid(int(sys.argv[1]))
if len(sys.argv) == 3:
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2])
else:
    s = socket.create_connection((sys.argv[2], int(sys.argv[3])))
s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n" )
print(s.makefile("rb").read().decode().splitlines()[-1])
"""


async def tell(request: web.Request) -> web.Response:
    return web.Response(text=f"same_user={peer.same_user(request)} unix={peer.is_unix(request)}")


class House:
    """A server on IPv4 and IPv6 loopback, on every address, and on a UNIX socket."""

    def __init__(self, sockets: dict[str, tuple[str, int]], unix: Path) -> None:
        self.sockets, self.unix = sockets, unix


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    app = web.Application()
    app.add_routes([web.get("/", tell)])
    runner = web.AppRunner(app)
    await runner.setup()
    sockets = {}
    for name, family, host in (
        ("4", socket.AF_INET, "127.0.0.1"),
        ("6", socket.AF_INET6, "::1"),
        ("every", socket.AF_INET, "0.0.0.0"),
    ):
        listener = socket.create_server((host, 0), family=family)
        await web.SockSite(runner, listener).start()
        sockets[name] = (host, listener.getsockname()[1])
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    await web.SockSite(runner, both).start()
    sockets["both"] = ("::", both.getsockname()[1])
    unix = Path(f"/tmp/mistudio-peer-{os.getpid()}.sock")
    await web.UnixSite(runner, str(unix)).start()
    unix.chmod(0o666)
    yield House(sockets, unix)
    await runner.cleanup()
    unix.unlink(missing_ok=True)


async def ask(*words: object) -> str:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ASK, *map(str, words), stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode().strip()


async def get(url: str, **headers: str) -> str:
    async with (
        ClientSession(connector=TCPConnector(force_close=True)) as session,
        session.get(url, headers=headers) as response,
    ):
        return await response.text()


async def test_a_loopback_connection_of_this_user_is_the_same_user(house: House) -> None:
    port4, port6, both = (house.sockets[name][1] for name in ("4", "6", "both"))
    for url in (f"http://127.0.0.1:{port4}/", f"http://[::1]:{port6}/", f"http://127.0.0.1:{both}/"):
        assert await get(url) == "same_user=True unix=False", url


async def test_an_ipv4_address_in_an_ipv6_socket_is_found_in_the_other_table(house: House) -> None:
    _, port = house.sockets["4"]
    assert await ask(os.geteuid(), "::ffff:127.0.0.1", port) == "same_user=True unix=False"


async def test_the_unix_socket_knows_this_user(house: House) -> None:
    async with (
        ClientSession(connector=UnixConnector(str(house.unix))) as session,
        session.get("http://localhost/") as response,
    ):
        assert await response.text() == "same_user=True unix=True"


async def test_a_connection_by_another_of_the_machines_addresses_is_not_trusted(house: House) -> None:
    _, port = house.sockets["every"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no other address")
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no other address")
    assert await get(f"http://{own}:{port}/") == "same_user=False unix=False"


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"])
async def test_what_a_proxy_passes_on_is_not_of_the_same_user(house: House, header: str) -> None:
    _, port = house.sockets["4"]
    assert await get(f"http://127.0.0.1:{port}/", **{header: "10.0.0.9"}) == "same_user=False unix=False"


@needs_root
@pytest.mark.parametrize(("name", "address"), [("4", "127.0.0.1"), ("6", "::1"), ("both", "127.0.0.1"), ("both", "::1"),
                                               ("4", "::ffff:127.0.0.1")])  # fmt: skip
async def test_another_user_on_loopback_is_somebody_else(house: House, name: str, address: str) -> None:
    assert await ask(OTHER, address, house.sockets[name][1]) == "same_user=False unix=False"


@needs_root
async def test_another_user_on_the_unix_socket_is_somebody_else(house: House) -> None:
    assert await ask(OTHER, house.unix) == "same_user=False unix=True"


@needs_root
def test_a_connection_that_was_closed_meanwhile_is_nobodys() -> None:
    """The kernel lists it with uid 0, which is the daemon's own here."""
    program = """
import os, socket, sys
"x".encode("idna")
os.setuid(int(sys.argv[1]))
s = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
sys.stdin.read(1)
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, "-c", program, str(OTHER), str(listener.getsockname()[1])]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
            connection, address = listener.accept()
            with connection:
                assert peer._tcp_peer(address, connection.getsockname()) == OTHER
                process.communicate(b"x")
                assert f":{address[1]:04X} " in Path("/proc/net/tcp").read_text(), "still listed"
                assert peer._is_ours(connection) is False


@needs_root
async def test_root_is_let_in_by_the_socket_and_not_by_loopback() -> None:
    """A daemon of another user, asked by root."""
    program = """
import asyncio, encodings.idna, os, sys
from aiohttp import web
from mistudiod import peer
os.setuid(int(sys.argv[1]))
async def tell(request):
    return web.Response(text=str(peer.same_user(request)))
async def main():
    app = web.Application(); app.add_routes([web.get("/", tell)])
    runner = web.AppRunner(app); await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await web.UnixSite(runner, sys.argv[2]).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    unix = Path(f"/tmp/mistudio-peer-{os.getpid()}-other.sock")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(OTHER), str(unix), stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        port = int(await process.stdout.readline())
        assert await get(f"http://127.0.0.1:{port}/") == "False"
        async with (
            ClientSession(connector=UnixConnector(str(unix))) as session,
            session.get("http://localhost/") as response,
        ):
            assert await response.text() == "True"
    finally:
        process.kill()
        await process.wait()
        unix.unlink(missing_ok=True)
