"""Rows 2 and 3 of the incident table: names of other hosts (DNS rebinding), other sites' pages (CSRF).

What every route of the OpenAPI document answers beyond loopback without a token is in test_doors, and over TLS in
test_lan.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from conftest import FAKE_WORKER, Studio, put_artifact
from test_doors import OPERATIONS, body_type, url

from mistudiod.app import make_app
from mistudiod.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one studio for all
NAME = socket.gethostname().lower()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Studio]:
    data = tmp_path_factory.mktemp("doors") / "data"
    put_artifact(data, "saes", "x", "recipe.json")
    server = TestServer(make_app(Settings(data=data, allowed_hosts="lab.example, Other.Example"), FAKE_WORKER))
    await server.start_server()
    async with ClientSession() as session:
        yield Studio(server, session, data)
    await server.close()


async def answered(studio: Studio, request: str, host: str = "127.0.0.1") -> str:
    """The first line of the answer to what is sent as it is; "" when the line is cut without one."""
    reader, writer = await asyncio.open_connection(host, studio.server.port)
    writer.write(request.encode("latin-1"))
    try:
        return (await asyncio.wait_for(reader.readline(), 10)).decode("latin-1").strip()
    except ConnectionError:
        return ""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):  # a reset is told of here once more
            await writer.wait_closed()


def ask(host_lines: str, target: str = "/api/status", version: str = "1.1") -> str:
    return f"GET {target} HTTP/{version}\r\n{host_lines}Connection: close\r\n\r\n"


# -- whose name it is called by ------------------------------------------------------------------------------------

OURS = [
    "127.0.0.1", "127.0.0.1:6478", "127.9.9.9", "localhost", "LOCALHOST", "localhost:1", "localhost:", "localhost.",
    "localhost.:80", "[::1]", "[::1]:6478", "[0:0:0:0:0:0:0:1]", NAME, f"{NAME}.local", NAME.upper(), "lab.example",
    "lab.example:443", "LAB.EXAMPLE.", "other.example",
]  # fmt: skip
NOT_OURS = [
    "evil.example", "evil.example:6478", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io",
    "lab.example.evil.example", "evil-lab.example", "sub.lab.example", "sub.localhost", "evil.local", f"x{NAME}",
    f"{NAME}.evil.example", "0.0.0.0", "0", "2130706433.evil", "192.0.2.1", "[2001:db8::1]", "[::ffff:192.0.2.1]",
    "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1%25lo]:80:80", "[::1", "::1]", "[]", "[localhost]", "a:b",
    "localhost:6478:80", "localhost:99999", "localhost:-1", "localhost:0x50", "localhost:８０",
    "localhost, evil.example", "localhost evil.example", "localhost\tevil", "evil@localhost", "localhost@evil.example",
    "localhost#.evil", "localhost?evil", "localhost/evil", "localhost\\evil", "..localhost", "", " ", ".",
    "%6cocalhost", "xn--localhost-x", "169.254.169.254", "metadata.google.internal", "*", "null", "file:", "_",
    "a" * 300,
]  # fmt: skip


@pytest.mark.parametrize("host", OURS)
async def test_a_name_of_ours_is_answered(studio: Studio, host: str) -> None:
    assert "200" in await answered(studio, ask(f"Host: {host}\r\n"))


async def test_no_other_name_is_answered_however_it_is_spelt(studio: Studio) -> None:
    for host in NOT_OURS:
        host = host.encode().decode("latin-1")
        for target in ("/api/status", "/", "/main.js", "/api/nothing", "/v1/models"):
            line = await answered(studio, ask(f"Host: {host}\r\n", target))
            assert " 421 " in line or " 400 " in line, (host, target, line)


async def test_a_name_that_is_missing_doubled_or_beside_another_is_not_answered(studio: Studio) -> None:
    ours, evil = "Host: localhost\r\n", "Host: evil.example\r\n"
    for lines, target, version in (
        ("", "/api/status", "1.1"),
        ("", "/api/status", "1.0"),
        (ours + evil, "/api/status", "1.1"),
        (evil + ours, "/api/status", "1.1"),
        (ours + ours, "/api/status", "1.1"),
        (ours, "http://evil.example/api/status", "1.1"),
        (ours, "http://localhost/api/status", "1.1"),  # the same name twice, of which proxies heed one or the other
        (evil, "http://localhost/api/status", "1.1"),
        (ours, "//evil.example/api/status", "1.1"),
        (ours, "*", "1.1"),
        ("X-Forwarded-Host: localhost\r\n" + evil, "/api/status", "1.1"),
        ("X-Host: localhost\r\nForwarded: host=localhost\r\n" + evil, "/api/status", "1.1"),
        ("Host : localhost\r\n", "/api/status", "1.1"),
        ("Host: evil.example\r\n localhost\r\n", "/api/status", "1.1"),
    ):
        line = await answered(studio, ask(lines, target, version))
        assert line == "" or line.split()[1] in ("400", "404", "421"), (lines, target, line)


async def test_of_the_machines_addresses_only_the_one_that_was_reached_is_a_name(studio: Studio) -> None:
    assert "200" in await answered(studio, ask("Host: 127.0.0.1\r\n"))
    assert " 421 " in await answered(studio, ask("Host: 10.0.0.1\r\n"))


# -- whose page it is that asks ------------------------------------------------------------------------------------

SITES = (None, "same-origin", "none", "same-site", "cross-site", "", "SAME-ORIGIN", "evil")
ORIGINS = (None, "OURS", "null", "http://evil.example", "OURS.evil.example", "https://OURS", "http://localhost:1", "")
TYPES = ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None)
UNSAFE = [(method, path, operation) for method, path, operation in OPERATIONS if method != "GET"]


def is_foreign(site: str | None, origin: str | None) -> bool:
    """As browsers mean it: Sec-Fetch-Site decides where it is sent; else an origin must be the one that is asked."""
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin not in ("OURS", "https://OURS")


async def test_another_sites_page_changes_nothing_by_any_method_origin_or_content_type(studio: Studio) -> None:
    """Every unsafe route of the document with every mix of the headers; what is not foreign gets by this door."""
    refused = passed = 0
    own = f"http://127.0.0.1:{studio.server.port}"
    cases = list(itertools.product(SITES, ORIGINS, TYPES))
    for number, (method, path, operation) in enumerate(UNSAFE):
        # All mixes of headers with some of the routes each, and each route with each pair of site and origin.
        for site, origin, kind in (case for n, case in enumerate(cases) if n % 5 == number % 5 or number < 2):
            headers = {"Content-Type": kind} if kind else {}
            if site is not None:
                headers["Sec-Fetch-Site"] = site
            if origin is not None:
                headers["Origin"] = origin.replace("https://OURS", own.replace("http:", "https:")).replace("OURS", own)
            target = studio.server.make_url(url(path.replace("{id}", "999"), operation))
            async with studio.session.request(method, target, headers=headers, data=b"!") as answer:
                code = (await answer.json())["error"]["code"]
            if is_foreign(site, origin):
                assert (answer.status, code) == (403, "forbidden"), (method, path, headers)
                refused += 1
            else:
                right = kind == (body_type(operation) or "application/json")
                assert answer.status != 403, (method, path, headers)
                assert right or answer.status == 415, (method, path, headers)
                passed += 1
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert refused > 2000 and passed > 500


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "QUERY", "post"])
async def test_every_method_that_is_not_known_to_be_safe_is_taken_for_unsafe(studio: Studio, method: str) -> None:
    for target in ("/api/jobs", "/", "/nothing"):
        line = await answered(studio, f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n")
        assert " 403 " in line or " 400 " in line, line


async def test_a_preflight_is_granted_nothing(studio: Studio) -> None:
    asked = {"Method": "DELETE", "Headers": "content-type", "Private-Network": "true"}
    headers = {"Origin": "http://evil.example", **{f"Access-Control-Request-{name}": asked[name] for name in asked}}
    async with studio.session.options(studio.server.make_url("/api/jobs/1"), headers=headers) as answer:
        assert answer.status in (403, 405)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_a_method_override_is_not_heeded(studio: Studio) -> None:
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        async with studio.session.get(studio.server.make_url("/api/saes/x"), headers={name: "DELETE"}) as answer:
            assert answer.status == 200
    async with studio.session.get(studio.server.make_url("/api/saes/x?_method=DELETE")) as answer:
        assert answer.status in (200, 400)
    assert (studio.data / "saes" / "x").is_dir()


# -- requests that two readers would read differently --------------------------------------------------------------

BODY = "POST /api/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        f"{BODY}Content-Length: 2\r\nContent-Length: 0\r\n\r\n{{}}",
        f"{BODY}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        f"{BODY}Content-Length: +2\r\n\r\n{{}}",
        f"{BODY}Content-Length: 2_0\r\n\r\n{{}}",
        f"{BODY}Content-Length: 0x2\r\n\r\n{{}}",
        f"{BODY}Content-Length: -1\r\n\r\n{SMUGGLED}",
        f"{BODY}Transfer-Encoding: chunked, identity\r\n\r\n{SMUGGLED}",
        f"{BODY}Transfer-Encoding: xchunked\r\n\r\n{SMUGGLED}",
        f"{BODY}Transfer-Encoding: chunked\r\n\r\n-1\r\n{SMUGGLED}",
        f"{BODY}Transfer-Encoding: chunked\r\n\r\n0x2\r\n{{}}\r\n0\r\n\r\n",
        "GET /api/status HTTP/1.1\nHost: localhost\n\n",
        "GET /api/status HTTP/1.1\r\nHost: localhost\r\nX\x00: y\r\n\r\n",
        "GET /api/status HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        "SSH-2.0-OpenSSH_9.6\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_plain_http_is_refused_and_nothing_is_made_of_it(studio: Studio, request_text: str) -> None:
    line = await answered(studio, request_text)
    assert line == "" or line.split()[1] in ("400", "405", "421", "505"), line
    assert json.dumps((await studio.get("/api/tokens"))["tokens"]) == "[]"


async def test_a_request_for_another_protocol_is_answered_as_http(studio: Studio) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    line = await answered(studio, f"GET /api/events HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n")
    assert " 101 " not in line
