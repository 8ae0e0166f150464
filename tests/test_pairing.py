"""Pairing codes: good once, for five minutes, and not to be guessed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import Studio

from mistudiod import pairing
from mistudiod.database import Database
from mistudiod.errors import Forbidden, StoreError
from mistudiod.pairing import LIFE_S, OPEN_AT_ONCE, WRONG_IN_ALL, Pairings
from mistudiod.throttle import Throttle
from mistudiod.tokens import Scope, Tokens


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[Tokens]:
    database = Database(tmp_path / "mistudio.db", tmp_path / "backups")
    await database.open()
    tokens = Tokens(database)
    yield tokens
    await tokens.close()
    await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pairings(tokens: Tokens, clock: Clock) -> Pairings:
    return Pairings(tokens, clock)


def others(code: str, count: int) -> list[str]:
    return [f"{(int(code) + 1 + i) % 10**8:08d}" for i in range(count)]


async def refused(pairings: Pairings, code: str) -> None:
    with pytest.raises(Forbidden, match="this code is not open"):
        await pairings.pair(code, "laptop", "10.0.0.9")


async def test_a_code_of_8_digits_gives_one_token_of_its_scope(pairings: Pairings, tokens: Tokens) -> None:
    code = pairings.open(Scope.READ, expires_in_s=60)
    assert len(code) == 8 and code.isdigit()
    token, text = await pairings.pair(code, "laptop", "10.0.0.9")
    assert (token.name, token.scope) == ("laptop", Scope.READ) and token.expires_at is not None
    assert await tokens.check(text) is not None
    await refused(pairings, code)
    assert len(await tokens.all()) == 1


async def test_two_devices_with_one_code_get_one_token(pairings: Pairings, tokens: Tokens) -> None:
    code = pairings.open(Scope.WRITE)
    tries = await asyncio.gather(*(pairings.pair(code, "a", "x") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, Forbidden) for one in tries) == 9
    assert len(await tokens.all()) == 1


async def test_a_code_is_over_after_five_minutes(pairings: Pairings, clock: Clock) -> None:
    code = pairings.open(Scope.WRITE)
    clock.now += LIFE_S - 1
    other = pairings.open(Scope.WRITE)
    clock.now += 1
    await refused(pairings, code)
    await pairings.pair(other, "laptop", "x")


async def test_a_name_that_is_taken_gets_a_number_and_one_that_was_given_goes_before(pairings: Pairings) -> None:
    names = [(await pairings.pair(pairings.open(Scope.READ), "x" * 64, "x"))[0].name for _ in range(3)]
    assert names == ["x" * 64, "x" * 62 + "-2", "x" * 62 + "-3"]
    assert (await pairings.pair(pairings.open(Scope.READ, "tablet"), "Firefox", "x"))[0].name == "tablet"


async def test_ten_wrong_codes_end_all_that_are_open_and_the_log_says_so(
    pairings: Pairings, caplog: pytest.LogCaptureFixture
) -> None:
    codes = [pairings.open(Scope.WRITE) for _ in range(2)]
    wrong = [one for one in others(codes[0], WRONG_IN_ALL + 2) if one not in codes][:WRONG_IN_ALL]
    with caplog.at_level(logging.WARNING):
        for code in wrong[:-1]:
            await refused(pairings, code)
        assert not caplog.records
        await refused(pairings, wrong[-1])
    assert "10 wrong pairing codes, the last from 10.0.0.9" in caplog.text
    for code in codes:
        await refused(pairings, code)
    assert not any(code in caplog.text for code in codes)
    await pairings.pair(pairings.open(Scope.WRITE), "laptop", "x")  # a person makes another


async def test_new_codes_bring_a_guesser_no_new_tries(pairings: Pairings) -> None:
    first = pairings.open(Scope.WRITE)
    for code in others(first, WRONG_IN_ALL - 1):
        await refused(pairings, code)
    codes = [pairings.open(Scope.WRITE) for _ in range(3)]
    await refused(pairings, next(one for one in others(first, 20)[WRONG_IN_ALL:] if one not in codes))
    for code in codes:
        await refused(pairings, code)


async def test_the_oldest_of_too_many_codes_gives_way(pairings: Pairings) -> None:
    codes = [pairings.open(Scope.WRITE) for _ in range(OPEN_AT_ONCE + 1)]
    await refused(pairings, codes[0])
    for code in codes[1:]:
        await pairings.pair(code, "laptop", "x")


async def test_a_code_is_spent_only_when_its_token_is_written(
    pairings: Pairings, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = pairings.open(Scope.WRITE)
    with monkeypatch.context() as full:

        async def write(_function: object) -> None:
            raise StoreError("the disk is full")

        full.setattr(tokens._database, "write", write)
        with pytest.raises(StoreError):
            await pairings.pair(code, "laptop", "x")
    await pairings.pair(code, "laptop", "x")


async def test_no_code_is_kept_as_it_is(pairings: Pairings) -> None:
    code = pairings.open(Scope.WRITE)
    assert code not in repr(vars(pairings)) and code.encode() not in b"".join(pairings._open)


def test_who_is_wrong_too_often_waits_and_then_may_try_again() -> None:
    clock = Clock()
    throttle = Throttle(10, 60.0, clock)
    for _ in range(10):
        assert throttle.wait_s("a") == 0
        throttle.failed("a")
    assert 0 < throttle.wait_s("a") <= 6 and throttle.wait_s("b") == 0
    clock.now += 6
    assert throttle.wait_s("a") == 0
    throttle.failed("a")
    assert throttle.wait_s("a") > 5
    clock.now += 60
    assert throttle.wait_s("a") == 0


def test_a_flood_of_addresses_takes_no_memory_without_end() -> None:
    throttle = Throttle(10, 60.0)
    for number in range(20_000):
        throttle.failed(str(number))
    assert len(throttle._failures) == 4096


async def test_a_device_pairs_over_the_api_without_a_token(studio: Studio) -> None:
    status, made = await studio.call("POST", "/api/pairings", json={"scope": "read", "expires_in_s": 3600})
    assert status == 201 and made["ends_in_s"] == pairing.LIFE_S
    bad = {"Authorization": "Bearer mis_of_another_time"}  # what an old token of the browser says does not matter
    request = {"code": made["code"], "name": "laptop"}
    status, token = await studio.call("POST", "/api/pair", json=request, headers=bad)
    assert status == 201 and (token["name"], token["scope"]) == ("laptop", "read")
    bearer = {"Authorization": f"Bearer {token['token']}"}
    assert (await studio.call("GET", "/api/jobs", headers=bearer))[0] == 200
    assert (await studio.call("POST", "/api/pairings", json={}, headers=bearer))[0] == 403
    status, error = await studio.call("POST", "/api/pair", json=request)
    assert status == 403 and "mistudio token pair" in error["error"]["message"]


async def test_guesses_are_slowed_down_and_then_refused_for_a_while(studio: Studio) -> None:
    code = (await studio.call("POST", "/api/pairings", json={}))[1]["code"]
    for wrong in others(code, 5):
        assert (await studio.call("POST", "/api/pair", json={"code": wrong, "name": "x"}))[0] == 403
    async with studio.session.post(studio.server.make_url("/api/pair"), json={"code": code, "name": "x"}) as answer:
        assert answer.status == 429 and 1 <= int(answer.headers["Retry-After"]) <= 12
        assert (await answer.json())["error"]["code"] == "too_often"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"code": "1234567", "name": "x"}, "code"),
        ({"code": "123456789", "name": "x"}, "code"),
        ({"code": "12345678\n", "name": "x"}, "code"),
        ({"code": "１２３４５６７８", "name": "x"}, "code"),
        ({"code": 12345678, "name": "x"}, "code"),
        ({"code": "12345678", "name": "../x"}, "name"),
    ],
)
async def test_a_wrong_request_to_pair_names_its_field_and_costs_no_try(
    studio: Studio, body: object, field: str
) -> None:
    status, answer = await studio.call("POST", "/api/pair", json=body)
    assert status == 400 and set(answer["error"]["fields"]) == {field}
