"""A browser's log-in by HTTP: who gets which cookie, what it opens, for how long, and to whose page."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from http.cookies import Morsel, SimpleCookie
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, DummyCookieJar
from aiohttp.test_utils import TestServer
from conftest import FAKE_WORKER, Studio
from test_doors import Lan, make_tokens

from mistudiod.api.cookies import _LONGEST_S
from mistudiod.app import make_app
from mistudiod.page import PAGE
from mistudiod.settings import Settings
from mistudiod.tokens import Scope

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROXY = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "studio.example", "X-Forwarded-Proto": "https"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lan(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lan]:
    """Everybody needs a token here, and 127.0.0.1 may be a proxy."""
    data = tmp_path_factory.mktemp("lan") / "data"
    tokens = await make_tokens(data)
    settings = Settings(data=data, listen="0.0.0.0", trusted_proxies="127.0.0.1", allowed_hosts="studio.example")
    server = TestServer(make_app(settings, FAKE_WORKER))
    await server.start_server()
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        studio = Lan(server, session, data)
        studio.tokens = tokens
        yield studio
    await server.close()


async def log_in(studio: Studio, headers: dict[str, str] | None = None, **given: str) -> tuple[int, Any, Morsel[str]]:
    """The status, the answer, and the one cookie that is set."""
    url = studio.server.make_url("/api/login")
    async with studio.session.post(url, json=given, headers=headers) as answer:
        body = await answer.json()
        cookies: SimpleCookie = SimpleCookie()
        for line in answer.headers.getall("Set-Cookie", []):
            cookies.load(line)
        assert len(cookies) == (answer.status == 200)
        return answer.status, body, next(iter(cookies.values()), Morsel())


def sent(cookie: Morsel[str]) -> dict[str, str]:
    return {"Cookie": f"{cookie.key}={cookie.value}"}


async def code_of(studio: Lan, scope: str, **more: Any) -> str:
    status, made = await studio.ask("POST", "/api/pairings", studio.tokens["admin"], json={"scope": scope, **more})
    assert status == 201
    return str(made["code"])


async def names(studio: Lan) -> set[str]:
    return {one["name"] for one in (await studio.ask("GET", "/api/tokens", studio.tokens["admin"]))[1]["tokens"]}


async def test_a_code_lets_a_browser_in_once(lan: Lan) -> None:
    code = await code_of(lan, "write")
    status, login, cookie = await log_in(lan, code=code, name="firefox-linux")
    assert status == 200 and (login["scope"], login["token"]["name"]) == ("write", "firefox-linux")
    assert (await lan.call("GET", "/api/login", headers=sent(cookie)))[1] == login
    assert "mis_" not in str(login), "scripts cannot read it"
    assert (await log_in(lan, code=code))[0] == 403
    assert (await lan.call("GET", "/api/jobs", headers=sent(cookie)))[0] == 200
    assert (await lan.call("GET", "/api/tokens", headers=sent(cookie)))[0] == 403


@pytest.mark.parametrize("scope", [scope.value for scope in Scope])
async def test_a_token_lets_a_browser_do_what_it_allows(lan: Lan, scope: str) -> None:
    status, login, cookie = await log_in(lan, token=f" {lan.tokens[scope]}\n")
    assert status == 200 and login["scope"] == scope
    for method, path, expected in (("GET", "/api/jobs", "read"), ("POST", "/api/jobs/9/stop", "write"),
                                   ("GET", "/api/tokens", "admin")):  # fmt: skip
        found, _ = await lan.call(method, path, headers=sent(cookie))
        allowed = [one.value for one in Scope].index(scope) >= [one.value for one in Scope].index(expected)
        assert (found != 403) == allowed, path


async def test_the_cookie_is_for_this_studio_and_no_script_and_no_other_site(lan: Lan) -> None:
    for headers, port, secure in (({}, lan.server.port, ""), (PROXY, 443, True),
                                  (PROXY | {"X-Forwarded-Proto": "http"}, 80, ""),
                                  (PROXY | {"X-Forwarded-Host": "studio.example:8443"}, 8443, True)):  # fmt: skip
        _, _, cookie = await log_in(lan, headers, token=lan.tokens["read"])
        assert cookie.key == f"mistudio-{port}"
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        assert cookie["secure"] == secure and cookie["domain"] == "" and int(cookie["max-age"]) == _LONGEST_S


async def test_the_cookie_lasts_as_long_as_its_token(lan: Lan) -> None:
    _, login, cookie = await log_in(lan, code=await code_of(lan, "read", expires_in_s=600))
    assert login["token"]["expires_at"] is not None and 590 <= int(cookie["max-age"]) <= 600


async def test_the_log_in_of_another_studio_on_this_machine_is_left_alone(lan: Lan) -> None:
    _, _, cookie = await log_in(lan, token=lan.tokens["read"])
    other = f"mistudio-1=own.mis_1_{'A' * 43}"
    assert (await lan.call("GET", "/api/login", headers={"Cookie": f"{other}; {sent(cookie)['Cookie']}"}))[0] == 200
    assert (await lan.call("GET", "/api/login", headers={"Cookie": other}))[0] == 401


@pytest.mark.parametrize("wrong", ["", "x", "revoked", "expired", f"mis_1_{'A' * 43}"])
async def test_a_wrong_cookie_opens_nothing_and_says_what_to_do(lan: Lan, wrong: str) -> None:
    for prefix in ("", "own.", "own.own."):
        cookie = {"Cookie": f"mistudio-{lan.server.port}={prefix}{lan.tokens.get(wrong, wrong)}"}
        status, body = await lan.call("GET", "/api/status", headers=cookie)
        assert status == 401 and ("/login" in body["error"]["message"] or not wrong)


async def test_a_token_that_is_sent_as_such_goes_before_the_cookie(lan: Lan) -> None:
    _, _, cookie = await log_in(lan, token=lan.tokens["admin"])
    assert (await lan.ask("GET", "/api/login", lan.tokens["read"], headers=sent(cookie)))[1]["scope"] == "read"
    assert (await lan.ask("GET", "/api/login", lan.tokens["revoked"], headers=sent(cookie)))[0] == 401


@pytest.mark.parametrize(
    "given", [{}, {"code": "12345678", "token": "x"}, {"code": "1234567"}, {"code": "1234567x"}, {"token": "x" * 201},
              {"code": "12345678", "name": "../x"}]
)  # fmt: skip
async def test_a_log_in_with_neither_or_both_is_the_senders_error(lan: Lan, given: dict[str, str]) -> None:
    assert (await log_in(lan, **given))[0] == 400


async def test_a_wrong_token_logs_nobody_in(lan: Lan) -> None:
    for wrong in ("", "x", lan.tokens["revoked"], lan.tokens["expired"], lan.tokens["admin"][:-1]):
        status, body, _ = await log_in(lan, token=wrong)
        assert (status, set(body["error"]["fields"])) == (403, {"token"})


async def test_wrong_codes_of_a_browser_are_slowed_down_as_a_devices_are(lan: Lan) -> None:
    """By the address that the proxy names, not by the proxy's own."""
    guesser = PROXY | {"X-Forwarded-For": "198.51.100.9"}
    found = [(await log_in(lan, guesser, code=f"{n:08d}"))[0] for n in range(7)]
    assert found[0] == 403 and found[-1] == 429
    async with lan.session.post(
        lan.server.make_url("/api/pair"), json={"code": "00000000", "name": "x"}, headers=guesser
    ) as answer:
        assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0
    assert (await log_in(lan, PROXY, code=await code_of(lan, "read")))[0] == 200, "others are let in"


async def test_to_log_out_ends_what_the_log_in_has_made(lan: Lan) -> None:
    _, _, cookie = await log_in(lan, code=await code_of(lan, "write"), name="leaves")
    assert "leaves" in await names(lan)
    async with lan.session.post(lan.server.make_url("/api/logout"), headers=sent(cookie)) as answer:
        assert answer.status == 204
        gone = SimpleCookie(answer.headers["Set-Cookie"])[cookie.key]
    assert (gone.value, gone["max-age"], gone["path"]) == ("", "0", "/")
    assert (await lan.call("GET", "/api/status", headers=sent(cookie)))[0] == 401
    assert "leaves" not in await names(lan)
    for headers in (sent(cookie), {}):  # again, and by somebody who was never there
        assert (await lan.call("POST", "/api/logout", headers=headers))[0] == 204


async def test_to_log_out_leaves_a_token_that_others_may_use(lan: Lan) -> None:
    _, _, cookie = await log_in(lan, token=lan.tokens["write"])
    assert (await lan.call("POST", "/api/logout", headers=sent(cookie)))[0] == 204
    assert (await lan.ask("GET", "/api/status", lan.tokens["write"]))[0] == 200


FOREIGN = ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
           {"Sec-Fetch-Site": "same-site"})  # fmt: skip
UNSAFE = (("POST", "/api/login"), ("POST", "/api/logout"), ("POST", "/api/jobs/9/stop"), ("DELETE", "/api/jobs/9"),
          ("PATCH", "/api/jobs/9"), ("PUT", "/api/secrets/hf"), ("POST", "/api/pairings"))  # fmt: skip


async def test_another_sites_page_does_nothing_with_our_cookie(lan: Lan) -> None:
    _, _, cookie = await log_in(lan, token=lan.tokens["admin"])
    for (method, path), foreign in itertools.product(UNSAFE, FOREIGN):
        status, body = await lan.call(method, path, headers=sent(cookie) | foreign, json={})
        assert status == 403 and "another site" in body["error"]["message"], (method, path, foreign)
    for foreign in FOREIGN[2:]:  # what it asks for costs something too
        assert (await lan.call("GET", "/api/doctor", headers=sent(cookie) | foreign))[0] == 403
    own = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{lan.server.port}"}
    assert (await lan.call("POST", "/api/jobs/9/stop", headers=sent(cookie) | own))[0] == 404


async def test_a_form_cannot_log_anybody_in(lan: Lan) -> None:
    url = lan.server.make_url("/api/login")
    async with lan.session.post(url, data={"token": lan.tokens["admin"]}) as answer:
        assert answer.status == 415 and "Set-Cookie" not in answer.headers


async def test_the_page_itself_is_anybodys(lan: Lan) -> None:
    for path in lan.app[PAGE].paths:
        async with lan.session.get(lan.server.make_url(path)) as answer:
            assert answer.status == 200, path


@pytest.mark.parametrize("how", ["revoked", "expires", "logged out"])
async def test_an_open_stream_ends_with_its_log_in(lan: Lan, how: str) -> None:
    more = {"expires_in_s": 2} if how == "expires" else {}
    _, login, cookie = await log_in(lan, code=await code_of(lan, "read", **more))
    async with lan.session.get(lan.server.make_url("/api/events?topics=job"), headers=sent(cookie)) as stream:
        assert await stream.content.readline() == b"retry: 2000\n"
        if how == "revoked":
            await lan.ask("DELETE", f"/api/tokens/{login['token']['id']}", lan.tokens["admin"])
        elif how == "logged out":
            await lan.call("POST", "/api/logout", headers=sent(cookie))
        await asyncio.wait_for(stream.content.read(), 15)  # well before anything is next sent
    assert (await lan.call("GET", "/api/status", headers=sent(cookie)))[0] == 401
