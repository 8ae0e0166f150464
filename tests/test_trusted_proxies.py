"""Proxies in front of the studio: whose word counts, for what, and that nobody comes through one without a token."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from conftest import OpenStudio, Studio
from hypothesis import given
from hypothesis import strategies as st

from mistudiod.proxies import asker, parse
from mistudiod.settings import SettingsError, load

PROXY = ipaddress.ip_address("10.0.0.1")


def who(said: list[str], trusted: str = "10.0.0.0/24") -> str:
    return str(asker(PROXY, said, parse(trusted)))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([], "10.0.0.1"),
        (["192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7:50123"], "192.0.2.7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["fe80::1%eth0"], "fe80::1"),
        (["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        (["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
        (["198.51.100.1, 192.0.2.7, 10.0.0.2, 10.0.0.3"], "192.0.2.7"),
        (["10.0.0.9, 192.0.2.7"], "192.0.2.7"),  # who is not trusted says that somebody trusted has asked
        (["<script>, 192.0.2.7"], "192.0.2.7"),  # what is not believed is not read either
        (["10.0.0.8, 10.0.0.2"], "10.0.0.8"),  # all of them are trusted: it began at the outermost
    ],
)
def test_who_asks_is_the_first_that_nobody_trusts(said: list[str], found: str) -> None:
    assert who(said) == found


@pytest.mark.parametrize("said", ["", "unknown", "192.0.2", "192.0.2.7:x", "192.0.2.7,", "[2001:db8::7", "1.2.3.4:5:6"])
def test_what_a_trusted_proxy_says_must_be_an_address(said: str) -> None:
    with pytest.raises(ValueError):
        who([said])


@given(st.lists(st.text(max_size=60), max_size=4))
def test_no_header_makes_it_fail_otherwise(said: list[str]) -> None:
    with contextlib.suppress(ValueError):
        who(said)


def test_what_one_that_is_not_trusted_says_is_not_read() -> None:
    assert who(["192.0.2.7"], trusted="") == "10.0.0.1"
    assert asker(None, ["192.0.2.7"], parse("127.0.0.1")) is None
    assert str(asker(None, ["192.0.2.7"], parse("unix"))) == "192.0.2.7"


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.5/24", "0.0.0.0/0", "::/0", "10.0.0.1;10.0.0.2", "UNIX"])
def test_a_setting_that_names_no_proxy_is_one_sentence(wrong: str) -> None:
    with pytest.raises(SettingsError, match="MISTUDIO_TRUSTED_PROXIES"):
        load({}, {"MISTUDIO_TRUSTED_PROXIES": wrong})


# -- the doors behind one ---------------------------------------------------------------------------------------------

THROUGH = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "studio.example", "X-Forwarded-Proto": "https"}


async def token_of(studio: Studio) -> dict[str, str]:
    status, made = await studio.call("POST", "/api/tokens", json={"name": "laptop", "scope": "write"})
    assert status == 201
    return {"Authorization": f"Bearer {made['token']}"}


async def status_of(studio: Studio, headers: Mapping[str, str]) -> tuple[int, Any]:
    status, body = await studio.call("GET", "/api/status", headers=headers)
    return status, body.get("error", {}).get("message", "")


async def test_whoever_comes_through_a_proxy_needs_a_token(open_studio: OpenStudio) -> None:
    studio = await open_studio(trusted_proxies="127.0.0.1", allowed_hosts="studio.example")
    token = await token_of(studio)
    assert (await status_of(studio, THROUGH))[0] == 401
    assert (await status_of(studio, THROUGH | token))[0] == 200
    assert (await status_of(studio, THROUGH | {"X-Forwarded-For": "127.0.0.1"}))[0] == 401, "said to be from here"
    assert (await status_of(studio, {}))[0] == 200, "the studio's own user, on its own machine"


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
async def test_beside_a_proxy_the_kernel_says_who_asks_from_whatever_address(
    open_studio: OpenStudio, monkeypatch: pytest.MonkeyPatch, address: str, ours: bool
) -> None:
    studio = await open_studio(trusted_proxies="127.0.0.1")
    monkeypatch.setattr("mistudiod.api.caller.same_user", lambda _: ours)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(address, 0))) as session,
        session.get(studio.server.make_url("/api/status")) as answer,
    ):
        assert answer.status == (200 if ours else 401)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded",
                                  "Via"])  # fmt: skip
@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
async def test_one_word_of_a_proxy_is_enough_to_need_a_token(open_studio: OpenStudio, name: str, trusted: str) -> None:
    """Also of one that nobody has told the studio of: such a studio was open to all that the proxy lets in."""
    studio = await open_studio(trusted_proxies=trusted)
    said = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "localhost", "X-Forwarded-Proto": "http"}
    assert (await status_of(studio, {name: said.get(name, "x")}))[0] == 401


async def test_a_trusted_proxy_says_by_which_name_it_was_asked(open_studio: OpenStudio) -> None:
    studio = await open_studio(trusted_proxies="127.0.0.1", allowed_hosts="studio.example")
    token = await token_of(studio)
    for host, expected in (("studio.example", 200), ("STUDIO.example:8443", 200), ("evil.example", 421), ("", 421)):
        assert (await status_of(studio, THROUGH | token | {"X-Forwarded-Host": host}))[0] == expected, host
    of_upstream = {"Host": "upstream", "X-Forwarded-For": "192.0.2.7"} | token
    assert (await status_of(studio, of_upstream | {"X-Forwarded-Host": "studio.example"}))[0] == 200
    assert (await status_of(studio, of_upstream))[0] == 421


async def test_a_page_behind_a_proxy_is_our_own_by_the_name_that_the_browser_knows(open_studio: OpenStudio) -> None:
    studio = await open_studio(trusted_proxies="127.0.0.1", allowed_hosts="studio.example")
    headers = THROUGH | await token_of(studio)
    for origin, expected in (("https://studio.example", 404), ("https://evil.example", 403)):
        status, _ = await studio.call("POST", "/api/jobs/1/stop", headers=headers | {"Origin": origin})
        assert status == expected, origin


async def test_the_word_of_a_proxy_that_is_not_trusted_counts_for_nothing(open_studio: OpenStudio) -> None:
    studio = await open_studio(trusted_proxies="10.0.0.1", allowed_hosts="studio.example")
    token = await token_of(studio)
    assert (await status_of(studio, token | {"X-Forwarded-Host": "evil.example"}))[0] == 200
    assert (await status_of(studio, token | {"Host": "evil.example", "X-Forwarded-Host": "studio.example"}))[0] == 421
    assert (await status_of(studio, token | {"X-Forwarded-For": "no address", "X-Forwarded-Proto": "x"}))[0] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"X-Forwarded-For": "unknown"},
        {"X-Forwarded-For": ""},
        {"X-Forwarded-Host": "studio.example, evil.example"},
        {"X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-Proto": "https, http"},
    ],
)
async def test_what_a_trusted_proxy_says_wrongly_is_one_sentence(
    open_studio: OpenStudio, wrong: dict[str, str]
) -> None:
    studio = await open_studio(trusted_proxies="127.0.0.1", allowed_hosts="studio.example")
    status, message = await status_of(studio, THROUGH | await token_of(studio) | wrong)
    assert status == 400 and message.startswith(next(iter(wrong))) and "proxy" in message
