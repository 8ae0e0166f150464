"""The doors of every route, generated from the OpenAPI document: a new route cannot miss them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from conftest import FAKE_WORKER, Studio

from mistudiod.api import keys
from mistudiod.api.openapi import document
from mistudiod.api.table import ROUTES
from mistudiod.app import make_app
from mistudiod.bus import PING
from mistudiod.database import Database
from mistudiod.paths import Paths
from mistudiod.settings import Settings
from mistudiod.tokens import Scope, Tokens, allows

DOCUMENT = json.loads(json.dumps(document(ROUTES)))
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
GUARDED = [one for one in OPERATIONS if one[2]["x-scope"] != "none"]
NAMES = [operation["operationId"] for _, _, operation in OPERATIONS]
FILLED = {"id": "1", "ref": "x", "index": "1", "row": "1", "name": "hf", "file": "cfg.json"}
ONLY_ASK = (
    "make_plan",
    "preview_tokens",
    "preview_filters",
    "estimate_labels",
)  # they change nothing; what they ask about is too large for a URL
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one studio for all
every_operation = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
every_guarded_operation = pytest.mark.parametrize(
    ("method", "path", "operation"), GUARDED, ids=[operation["operationId"] for _, _, operation in GUARDED]
)


def url(path: str, operation: dict[str, Any]) -> str:
    for name in FILLED:
        value = "0" * 32 if "upload" in path else FILLED[name]
        path = path.replace(f"{{{name}}}", value)
    needed = [one for one in operation["parameters"] if one["in"] == "query" and one["required"]]
    query = "&".join(f"{one['name']}=0" for one in needed)
    return f"{path}?{query}" if query else path


def body_type(operation: dict[str, Any]) -> str | None:
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    return next(iter(content), None)


class Lan(Studio):
    """A studio that listens beyond loopback, with a token of each scope."""

    tokens: dict[str, str]

    async def ask(self, method: str, path: str, token: str | None, **options: Any) -> tuple[int, Any]:
        headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        if "data" in options and "Content-Type" not in headers:
            headers["Content-Type"] = "application/json"
        return await self.call(method, path, headers=headers, **options)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lan(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lan]:
    data = tmp_path_factory.mktemp("lan") / "data"
    tokens = await make_tokens(data)
    server = TestServer(make_app(Settings(data=data, listen="0.0.0.0"), FAKE_WORKER))
    await server.start_server()
    async with ClientSession() as session:
        studio = Lan(server, session, data)
        studio.tokens = tokens
        yield studio
    await server.close()


async def make_tokens(data: Path) -> dict[str, str]:
    data.mkdir()
    database = Database(Paths(data).database, Paths(data).backups)
    await database.open()
    try:
        tokens = Tokens(database)
        made = {scope.value: (await tokens.create(scope.value, scope))[1] for scope in Scope}
        gone, made["revoked"] = await tokens.create("gone", Scope.ADMIN)
        await tokens.revoke(gone.id)
        old, made["expired"] = await tokens.create("old", Scope.ADMIN, 1)
        await database.write(
            lambda db: db.execute("update tokens set expires_at = '2000-01-01' where id = ?", (old.id,))
        )
        await tokens.close()
    finally:
        await database.close()
    return made


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    return status, body["error"]["code"]


@every_guarded_operation
async def test_without_a_good_token_nothing_is_answered(lan: Lan, method: str, path: str, operation: Any) -> None:
    made_up = f"mis_1_{'A' * 43}"
    for token in (None, "", "x", made_up, lan.tokens["revoked"], lan.tokens["expired"], lan.tokens["admin"][:-1]):
        assert code(await lan.ask(method, url(path, operation), token)) == (401, "unauthorized"), token
    for header in ("Basic eA==", "Bearer", f"Token {lan.tokens['admin']}"):
        answer = await lan.call(method, url(path, operation), headers={"Authorization": header})
        assert code(answer) == (401, "unauthorized"), header


@every_guarded_operation
async def test_a_token_of_too_small_a_scope_is_refused(lan: Lan, method: str, path: str, operation: Any) -> None:
    needed = Scope(operation["x-scope"])
    asks = method == "GET" or operation["operationId"] in ONLY_ASK
    assert needed is not Scope.READ or asks, "a change needs more than the scope read"
    for scope in Scope:
        if not allows(scope, needed):
            answer = await lan.ask(method, url(path, operation), lan.tokens[scope.value])
            assert code(answer) == (403, "forbidden"), scope


@every_operation
async def test_a_foreign_host_is_refused_before_anything_else(lan: Lan, method: str, path: str, operation: Any) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "localhost/x", "localhost:x", ""):
        for token in (None, lan.tokens["admin"]):
            answer = await lan.ask(method, url(path, operation), token, headers={"Host": host})
            assert code(answer) == (421, "wrong_host"), host


@every_operation
async def test_a_foreign_page_changes_nothing(lan: Lan, method: str, path: str, operation: Any) -> None:
    if method == "GET":
        return
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://[::1"},
                    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):  # fmt: skip
        for token in (None, lan.tokens["admin"]):
            answer = await lan.ask(method, url(path, operation), token, headers=headers)
            assert code(answer) == (403, "forbidden"), headers


@every_operation
async def test_a_body_of_another_kind_is_refused(lan: Lan, method: str, path: str, operation: Any) -> None:
    admin = lan.tokens["admin"]
    zipped = {"Content-Type": body_type(operation) or "application/json", "Content-Encoding": "gzip"}
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data; boundary=x"}, zipped):
        answer = await lan.ask(method, url(path, operation), admin, headers=headers, data=b"{}", compress=None)
        assert code(answer) == (415, "content_type"), headers


@every_operation
async def test_a_body_that_is_too_large_is_refused(lan: Lan, method: str, path: str, operation: Any) -> None:
    kind = body_type(operation) or "application/json"
    text = f"{method} {url(path, operation)} HTTP/1.1\r\nHost: localhost\r\n"
    text += (
        f"Authorization: Bearer {lan.tokens['admin']}\r\nContent-Type: {kind}\r\nContent-Length: 1000000000000\r\n\r\n"
    )
    assert b" 413 " in (await raw(lan, text.encode())).split(b"\r\n")[0]


@every_operation
async def test_a_malformed_body_is_the_senders_error(lan: Lan, method: str, path: str, operation: Any) -> None:
    if body_type(operation) == "application/octet-stream":
        return
    for data in (b"{", b"\xff", b"[" * 50_000, b'{"x": NaN}', b'{"x": 1e999, "y": 2}', b'"\\ud800"', b"[1]",
                 b'{"no_such_field": 1}'):  # fmt: skip
        answer = await lan.ask(method, url(path, operation), lan.tokens["admin"], data=data)
        assert code(answer) == (400, "invalid"), (data[:20], answer)


@every_operation
async def test_an_unknown_parameter_is_the_senders_error(lan: Lan, method: str, path: str, operation: Any) -> None:
    address = url(path, operation)
    address += ("&" if "?" in address else "?") + "no_such_parameter=1"
    kind = body_type(operation)
    headers = {"Content-Type": kind} if kind else {}
    answer = await lan.ask(method, address, lan.tokens["admin"], headers=headers, **({"data": b"{}"} if kind else {}))
    assert code(answer) == (400, "invalid")


@every_operation
async def test_a_path_that_leads_elsewhere_finds_nothing(lan: Lan, method: str, path: str, operation: Any) -> None:
    kind = body_type(operation)
    options: dict[str, Any] = {"headers": {"Content-Type": kind}, "data": b"{}"} if kind else {}
    for name, value in itertools.product(
        FILLED,
        ("..%2f..%2fetc", "%2e%2e", "%00", "%ff", "a%5cb", "x" * 300, "%C2%B2", "-1", "9" * 40, "%EF%BC%8E%EF%BC%8E"),
    ):
        if f"{{{name}}}" in path:
            address = url(path.replace(f"{{{name}}}", "@@@"), operation).replace("@@@", value)
            text = f"{method} {address} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {lan.tokens['admin']}\r\n"
            if kind:
                text += f"Content-Type: {kind}\r\nContent-Length: 2\r\n"
            answer = await raw(lan, f"{text}Connection: close\r\n\r\n{'{}' if kind else ''}".encode())
            status = int(answer.split()[1])
            assert status == 404 or (kind and status == 400), (address, answer[:200])
    assert options is not None


@every_operation
async def test_the_safe_headers_are_on_every_answer(lan: Lan, method: str, path: str, operation: Any) -> None:
    for token in (None, lan.tokens["read"]):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with lan.session.request(method, lan.server.make_url(url(path, operation)), headers=headers) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"] or answer.status == 200
            assert not [name for name in answer.headers if name.lower().startswith("access-control")], "no CORS"
            assert (answer.status == 401) == (answer.headers.get("WWW-Authenticate") == "Bearer")


async def test_only_what_lets_somebody_in_or_out_needs_no_token() -> None:
    free = {(method, path) for method, path, operation in OPERATIONS if operation["x-scope"] == "none"}
    assert free == {("POST", "/api/pair"), ("POST", "/api/login"), ("POST", "/api/logout")}


async def test_what_is_no_route_is_behind_the_same_doors(lan: Lan) -> None:
    for method, path in (("GET", "/nothing"), ("OPTIONS", "/"), ("OPTIONS", "/api/jobs"), ("PUT", "/api/jobs"),
                         ("GET", "/api/"), ("HEAD", "/api/status"), ("POST", "/main.js")):  # fmt: skip
        async with lan.session.request(method, lan.server.make_url(path)) as answer:
            assert answer.status == 401, (method, path)
    assert code(await lan.ask("PUT", "/api/jobs", lan.tokens["admin"])) == (405, "method")
    assert code(await lan.ask("GET", "/nothing", lan.tokens["read"])) == (404, "not_found")


async def test_a_route_that_declares_no_scope_is_closed_to_everybody(tmp_path: Path) -> None:
    from aiohttp import web

    async def forgotten(_request: web.Request) -> web.Response:
        return web.Response(text="open")

    app = make_app(Settings(data=tmp_path), FAKE_WORKER)
    app.router.add_get("/api/forgotten", forgotten)
    server = TestServer(app)
    await server.start_server()
    async with ClientSession() as session, session.get(server.make_url("/api/forgotten")) as answer:
        assert answer.status == 403
    await server.close()


async def test_a_token_opens_what_its_scope_allows_and_its_use_is_noted(lan: Lan) -> None:
    for scope in Scope:
        assert (await lan.ask("GET", "/api/status", lan.tokens[scope.value]))[0] == 200
    status, found = await lan.ask("GET", "/api/tokens", lan.tokens["admin"])
    assert status == 200 and {one["name"] for one in found["tokens"]} == {"read", "write", "admin", "old"}
    assert not any("hash" in one or "token" in one for one in found["tokens"])
    for _ in range(3000):
        found = (await lan.ask("GET", "/api/tokens", lan.tokens["admin"]))[1]
        if all(one["last_used_at"] for one in found["tokens"] if one["name"] != "old"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(found)


async def test_a_stream_ends_when_its_token_is_revoked(lan: Lan) -> None:
    status, made = await lan.ask("POST", "/api/tokens", lan.tokens["admin"], json={"name": "page", "scope": "read"})
    assert status == 201
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with lan.session.get(lan.server.make_url("/api/events?topics=job"), headers=headers) as stream:
        assert await stream.content.readline() == b"retry: 2000\n"
        assert (await lan.ask("DELETE", f"/api/tokens/{made['id']}", lan.tokens["admin"]))[0] == 204
        lan.app[keys.BUS]._fan_out(PING)
        rest = await asyncio.wait_for(stream.content.read(), 10)
    assert b"event:" not in rest


async def test_the_files_of_the_page_are_everybodys_and_say_nothing_of_the_studio(lan: Lan) -> None:
    for path in ("/", "/main.js"):
        async with lan.session.get(lan.server.make_url(path)) as answer:
            assert answer.status == 200 and str(lan.data) not in await answer.text()


async def test_beyond_loopback_a_studio_without_a_token_lets_nobody_in(tmp_path: Path) -> None:
    server = TestServer(make_app(Settings(data=tmp_path, listen="0.0.0.0"), FAKE_WORKER))
    await server.start_server()
    async with ClientSession() as session:
        for path in ("/api/status", "/api/tokens", "/api/events"):
            async with session.get(server.make_url(path)) as answer:
                assert answer.status == 401, path
    await server.close()


async def raw(studio: Studio, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", studio.server.port)
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(4000), 10)
    finally:
        writer.close()
        await writer.wait_closed()
