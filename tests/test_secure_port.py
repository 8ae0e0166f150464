"""The port that other machines reach: TLS only, and no peer can hold it up for the others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest

from mistudiod import own_address, secure_port, tls
from mistudiod.secure_port import SecurePort, is_near
from mistudiod.settings import Settings

OWN = next((one for one in own_address.all_of_them() if "." in one), None)
needs_address = pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Greeting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(b"hello")  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()  # Python 3.10 warns of one that its protocol has not closed


class Port:
    def __init__(self, number: int, context: ssl.SSLContext) -> None:
        self.number, self._context = number, context
        self._opened: list[asyncio.StreamWriter] = []

    async def plain(self, host: str = "127.0.0.1") -> Ends:
        reader, writer = await asyncio.open_connection(host, self.number)
        self._opened.append(writer)
        return reader, writer

    async def greeting(self, host: str = "127.0.0.1") -> bytes:
        reader, writer = await asyncio.open_connection(host, self.number, ssl=self._context, server_hostname=host)
        self._opened.append(writer)
        return await asyncio.wait_for(reader.readexactly(5), 10)

    async def asked(self, request: bytes) -> bytes:
        reader, writer = await self.plain()
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)

    async def close(self) -> None:
        for writer in self._opened:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tls.Pair:
    made = tls.pair(Settings(data=tmp_path_factory.mktemp("tls")))
    made.renew()
    return made


@pytest.fixture
async def port(pair: tls.Pair) -> AsyncIterator[Port]:
    listener = socket.create_server(("0.0.0.0", 0))
    served = SecurePort([listener], Greeting, pair.context(), allow_public=False)
    opened = Port(listener.getsockname()[1], ssl.create_default_context(cafile=str(pair.certificate)))
    yield opened
    await opened.close()
    await served.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether it was closed on, with nothing said."""
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionError:
        return True


async def test_tls_gets_through(port: Port) -> None:
    assert await port.greeting() == b"hello"


async def test_plain_http_is_sent_to_https(port: Port) -> None:
    answer = await port.asked(b"GET /api/jobs?limit=1 HTTP/1.1\r\nUser-Agent: x\r\nHost: jetson:6478\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 307 ")
    assert b"\r\nLocation: https://jetson:6478/api/jobs?limit=1\r\n" in answer and b"speaks HTTPS only" in answer
    assert b"speaks" not in await port.asked(b"HEAD / HTTP/1.1\r\nHost: jetson\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /api/jobs HTTP/1.1\r\nHost: jetson\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: jetson\r\n\r\n",
        b'GET / HTTP/1.1\r\nHost: "><script>\r\n\r\n',
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"x" * 20_000,
    ],
)
async def test_what_cannot_be_sent_on_is_told_why(port: Port, request_: bytes) -> None:
    answer = await port.asked(request_)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"Location" not in answer
    assert b"begin the address with https://" in answer


async def test_who_says_nothing_or_half_of_it_is_closed_on(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_port, "HANDSHAKE_S", 0.3)
    said = (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HT", b"\x16\x03\x01\x00\x05hello")
    readers = []
    for bytes_ in said:
        reader, writer = await port.plain()
        writer.write(bytes_)
        readers.append(reader)
    for reader in readers:
        rest = await asyncio.wait_for(reader.read(), 10)
        assert b"hello" not in rest
    assert await port.greeting() == b"hello"


@pytest.mark.parametrize("turns", range(1, 6))  # of the loop, between a connection's coming and the end
async def test_the_end_closes_a_connection_wherever_it_is(pair: tls.Pair, turns: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    served = SecurePort([listener], Greeting, pair.context(), allow_public=False)
    await asyncio.sleep(0)
    with socket.create_connection(listener.getsockname()) as one:
        for _ in range(turns):
            await asyncio.sleep(0)
        await served.close()
        gc.collect()  # says of a socket that nobody has closed
        one.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert one.recv(1) == b""


async def test_a_daemon_that_may_open_no_more_takes_connections_again_once_it_may(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secure_port, "_REST_S", 0.1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what tests before have left is closed now, and makes no room below the limit
    with socket.socket() as one:
        one.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (one.fileno() + 1, limits[1]))
        try:
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port.number))
            for _ in range(1200):
                if "no connection can be taken: Too many open files" in caplog.text:
                    break
                await asyncio.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert "no connection can be taken: Too many open files" in caplog.text
        assert await port.greeting() == b"hello"


@needs_address
async def test_one_peer_takes_a_few_connections_and_leaves_the_port_to_others(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert OWN
    monkeypatch.setattr(secure_port, "PER_NETWORK", 3)
    held = [await port.plain(OWN) for _ in range(2)]
    assert await port.greeting(OWN) == b"hello"  # one that got through counts as well
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await ended((await port.plain(OWN))[0])
    assert [one.getMessage() for one in caplog.records] == [
        f"{OWN} was refused: it has 3 connections open, of 3 in all"
    ]
    assert await port.greeting() == b"hello"  # this machine's own are not counted
    held[0][1].transport.abort()
    await until(lambda: port.greeting(OWN))


@needs_address
async def test_all_together_take_no_more_than_there_may_be(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OWN
    monkeypatch.setattr(secure_port, "OPEN_AT_ONCE", 1)
    await port.plain(OWN)
    assert await ended((await port.plain(OWN))[0])
    assert await port.greeting() == b"hello"


@needs_address
async def test_an_address_of_the_internet_is_closed_on_and_the_log_says_why(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert OWN
    monkeypatch.setattr(secure_port, "is_near", lambda *_: False)  # nobody here comes from there
    assert await ended((await port.plain(OWN))[0])
    assert "is an address of the internet: refused (see the setting allow_public)" in caplog.text
    assert await port.greeting() == b"hello"


@pytest.mark.parametrize(
    ("peer", "own", "near"),
    [
        ("192.168.1.7", "192.168.1.2", True),
        ("10.9.8.7", "192.168.1.2", True),
        ("100.64.3.4", "192.168.1.2", True),  # a network of Tailscale's, or of a provider
        ("169.254.1.1", "169.254.1.2", True),
        ("fe80::1", "fe80::2", True),
        ("fd00::1", "2a00:1::2", True),
        ("8.8.8.8", "192.168.1.2", False),
        ("8.8.8.8", "8.8.8.9", True),  # a campus whose machines have addresses of the internet
        ("8.8.9.8", "8.8.8.9", False),
        ("2a00:1:2:3::9", "2a00:1:2:3::2", True),
        ("2a00:1:2:4::9", "2a00:1:2:3::2", False),
    ],
)
def test_who_is_near(peer: str, own: str, near: bool) -> None:
    assert is_near(ipaddress.ip_address(peer), ipaddress.ip_address(own)) is near


async def until(ask: Callable[[], object], limit_s: float = 60.0) -> None:
    """Until it raises no OSError, nor ends early, any more."""
    for _ in range(int(limit_s / 0.05)):
        try:
            await ask()  # type: ignore[misc]
            return
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
    raise AssertionError("never")
