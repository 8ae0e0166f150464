"""Tokens of the API: what is kept of them, whom they let in, for how long, and at what cost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import Studio
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.database import Database
from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.tokens import Scope, Tokens, allows


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "mistudio.db", tmp_path / "backups")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def tokens(database: Database) -> AsyncIterator[Tokens]:
    tokens = Tokens(database)
    yield tokens
    await tokens.close()


def test_each_scope_allows_itself_and_the_lesser_ones() -> None:
    table = [[allows(scope, needed) for needed in Scope] for scope in Scope]
    assert table == [[True, False, False], [True, True, False], [True, True, True]]


async def test_a_token_lets_in_who_shows_it(tokens: Tokens) -> None:
    token, text = await tokens.create("laptop", Scope.WRITE)
    assert text.startswith(f"mis_{token.id}_") and len(text.split("_", 2)[2]) == 43
    found = await tokens.check(text)
    assert found is not None and (found.name, found.scope, found.expires_at) == ("laptop", Scope.WRITE, None)


async def test_no_two_tokens_are_alike_and_only_their_hashes_are_kept(tokens: Tokens, tmp_path: Path) -> None:
    texts = [(await tokens.create(f"t{i}", Scope.READ))[1] for i in range(20)]
    assert len({text.split("_", 2)[2] for text in texts}) == 20
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("mistudio.db*"))
    assert not [text for text in texts if text.split("_", 2)[2].encode() in kept]


@pytest.mark.parametrize("end", [1, -1])
async def test_a_token_with_one_wrong_character_lets_nobody_in(tokens: Tokens, end: int) -> None:
    _, text = await tokens.create("laptop", Scope.ADMIN)
    head, secret = text[:6], text[6:]
    wrong = "B" if secret[::end][0] != "B" else "C"
    changed = wrong + secret[1:] if end == 1 else secret[:-1] + wrong
    assert await tokens.check(head + changed) is None
    assert await tokens.check(text) is not None


async def test_what_is_no_token_lets_nobody_in(tokens: Tokens) -> None:
    token, text = await tokens.create("laptop", Scope.ADMIN)
    secret = text.split("_", 2)[2]
    for malformed in (
        "", "mis_", f"mis_{token.id}_", f"mis_{token.id}", secret, f"mis_{token.id + 1}_{secret}", f"mis_0_{secret}",
        f"mis_0{token.id}_{secret}", f"mis_-1_{secret}", f" {text}", f"{text} ", f"{text}\n", f"{text}A", text.upper(),
        f"mis_{'9' * 40}_{secret}", f"mis_{token.id}_{secret[:-1]}é", f"mis_١_{secret}", f"Bearer {text}", text * 9999,
    ):  # fmt: skip
        assert await tokens.check(malformed) is None, malformed[:80]


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_text_makes_the_check_fail(text: str) -> None:
    async def check() -> None:
        tokens = Tokens(None)  # type: ignore[arg-type]
        tokens._copy = {}
        assert await tokens.check(text) is None

    asyncio.run(check())


async def test_a_token_expires_by_itself(tokens: Tokens) -> None:
    token, text = await tokens.create("guest", Scope.READ, expires_in_s=2)
    assert token.expires_at is not None and token.expires_at > token.created_at
    found = await tokens.check(text)
    assert found is not None or token.expired, "before its time is over"
    while not token.expired:
        await asyncio.sleep(0.05)
    assert await tokens.check(text) is None
    assert [one.name for one in await tokens.all()] == ["guest"]


async def test_a_revoked_token_is_refused_at_once_and_after_a_restart(tokens: Tokens, database: Database) -> None:
    token, text = await tokens.create("laptop", Scope.ADMIN)
    assert await tokens.check(text) is not None
    await tokens.revoke(token.id)
    assert await tokens.check(text) is None
    assert await Tokens(database).check(text) is None
    with pytest.raises(NotFound, match=f"no token {token.id}"):
        await tokens.revoke(token.id)


async def test_a_revocation_that_nobody_waits_for_counts_nevertheless(tokens: Tokens, database: Database) -> None:
    token, text = await tokens.create("laptop", Scope.ADMIN)
    asking = asyncio.create_task(tokens.revoke(token.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await tokens.create("after", Scope.READ)  # behind the write that is under way
    assert (await tokens.check(text) is None) == (await Tokens(database).check(text) is None)


async def test_the_number_of_a_revoked_token_is_not_given_again(tokens: Tokens) -> None:
    first, _ = await tokens.create("one", Scope.READ)
    await tokens.revoke(first.id)
    second, _ = await tokens.create("one", Scope.READ)
    assert second.id > first.id


async def test_a_token_that_one_run_made_lets_in_at_the_next(tokens: Tokens, database: Database) -> None:
    _, text = await tokens.create("laptop", Scope.READ)
    again = Tokens(database)
    assert await again.check(text) is not None
    await again.close()


async def test_two_tokens_cannot_have_one_name(tokens: Tokens) -> None:
    await tokens.create("laptop", Scope.READ)
    with pytest.raises(Conflict, match="named 'laptop' already"):
        await tokens.create("laptop", Scope.ADMIN)
    assert len(await tokens.all()) == 1


@pytest.mark.parametrize("name", ["", "7", "a b", "../x", "-x", "x" * 65, "é"])
async def test_a_token_has_a_name_as_artifacts_have(tokens: Tokens, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        await tokens.create(name, Scope.READ)
    assert refused.value.fields is not None and set(refused.value.fields) == {"name"}


@pytest.mark.parametrize("expires_in_s", [0, -1, 10**12])
async def test_a_token_cannot_expire_in_the_past_or_in_another_age(tokens: Tokens, expires_in_s: int) -> None:
    with pytest.raises(Invalid, match="expires_in_s"):
        await tokens.create("laptop", Scope.READ, expires_in_s)


async def test_use_is_noted_once_a_minute_and_costs_no_reading(tokens: Tokens, database: Database) -> None:
    token, text = await tokens.create("laptop", Scope.READ)
    assert token.last_used_at is None
    await asyncio.sleep(0.002)  # of two times in the same millisecond neither is the later one
    reads, writes = _counted(database)
    for _ in range(50):
        assert await tokens.check(text) is not None
    await tokens.close()
    assert (len(reads), len(writes)) == (1, 1)  # one reading of them all, one note
    used = (await tokens.all())[0].last_used_at
    assert used is not None and used > token.created_at


async def test_the_note_of_a_use_delays_no_answer(tokens: Tokens, database: Database, tmp_path: Path) -> None:
    _, text = await tokens.create("laptop", Scope.READ)
    await tokens.all()
    with sqlite3.connect(tmp_path / "mistudio.db", isolation_level=None) as other:
        other.execute("begin immediate")
        assert await tokens.check(text) is not None
        assert tokens._noting, "which cannot be written yet"
        other.execute("rollback")
    other.close()


async def test_a_token_is_made_shown_once_used_and_revoked_over_the_api(studio: Studio) -> None:
    status, made = await studio.call("POST", "/api/tokens", json={"name": "laptop", "scope": "read"})
    assert status == 201 and made["expires_at"] is None
    admin = (await studio.call("POST", "/api/tokens", json={"name": "desk", "scope": "admin", "expires_in_s": 60}))[1]
    listed = (await studio.get("/api/tokens"))["tokens"]
    assert [one["name"] for one in listed] == ["laptop", "desk"] and "mis_" not in str(listed)
    assert listed[1]["expires_at"] == admin["expires_at"] > admin["created_at"]
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert (await studio.call("GET", "/api/jobs", headers=bearer))[0] == 200
    assert (await studio.call("GET", "/api/tokens", headers=bearer))[0] == 403
    assert (await studio.call("DELETE", f"/api/tokens/{made['id']}"))[0] == 204
    assert (await studio.call("GET", "/api/jobs", headers=bearer))[0] == 401
    assert (await studio.call("DELETE", f"/api/tokens/{made['id']}"))[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "read"}, "name"),
        ({"name": "../x", "scope": "read"}, "name"),
        ({"name": "x", "scope": "root"}, "scope"),
        ({"name": "x", "scope": "read", "expires_in_s": 0}, "expires_in_s"),
        ({"name": "x", "scope": "read", "expires_in_s": 1e300}, "expires_in_s"),
        ({"name": "x", "scope": "read", "token": "mine"}, "token"),
    ],
)
async def test_a_wrong_request_for_a_token_names_its_field(studio: Studio, body: object, field: str) -> None:
    status, answer = await studio.call("POST", "/api/tokens", json=body)
    assert status == 400 and set(answer["error"]["fields"]) == {field}


async def test_a_name_is_taken_until_its_token_is_revoked(studio: Studio) -> None:
    made = (await studio.call("POST", "/api/tokens", json={"name": "laptop", "scope": "admin"}))[1]
    status, answer = await studio.call("POST", "/api/tokens", json={"name": "laptop", "scope": "read"})
    assert status == 409 and "revoke it" in answer["error"]["message"]
    assert (await studio.call("DELETE", f"/api/tokens/{made['id']}"))[0] == 204  # the last admin token
    assert (await studio.call("POST", "/api/tokens", json={"name": "laptop", "scope": "read"}))[0] == 201


def _counted(database: Database) -> tuple[list[object], list[object]]:
    reads: list[object] = []
    writes: list[object] = []
    for name, seen in (("read", reads), ("write", writes)):
        real = getattr(database, name)

        async def counted(function: object, real=real, seen=seen) -> object:  # type: ignore[no-untyped-def]
            seen.append(function)
            return await real(function)

        setattr(database, name, counted)
    return reads, writes
