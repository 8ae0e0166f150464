"""Below /v1: the same doors as everywhere, OpenAI's errors at all of them, and the keys that its clients send."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact

from mistudiod.api.keys import INDEX, PROFILES, TOKENS
from mistudiod.api.openai_errors import openai_body, openai_headers
from mistudiod.errors import (
    Forbidden,
    GpuBusy,
    Invalid,
    ModelNotFound,
    NotFound,
    OutOfMemory,
    SessionBusy,
    SessionFailed,
    StoreError,
    StudioError,
    TooMany,
    Unauthorized,
)
from mistudiod.specs import Edit
from mistudiod.tokens import Scope


@pytest.fixture
async def studio(studio: Studio) -> Studio:
    return await prepared(studio)


async def prepared(studio: Studio) -> Studio:
    """Two models, a profile of each, and SAEs: one of ``one``, two of ``two``."""
    for model in ("one", "two"):
        put_artifact(studio.data, "models", model, "model.json")
    for sae, model in {"s1": "one", "s2": "two", "s3": "two"}.items():
        about = {"model": {"name": model}, "resolved": {"precision": "fp32"}, "width": 48}
        put_artifact(studio.data, "saes", sae, "recipe.json", json.dumps(about))
    await studio.app[INDEX].rebuild()
    profiles = studio.app[PROFILES]
    await profiles.put("code+2", "one", [Edit(feature=5, strength=2, sae="s1")], None, False)
    await profiles.put("law", "two", [Edit(feature=6, op="ablate", sae="s2")], None, False)
    await profiles.put("lost", "gone", [Edit(feature=6, sae="s9")], None, False)
    return studio


async def models(studio: Studio, authorization: str | None = None, **options: Any) -> tuple[int, Any]:
    headers = {} if authorization is None else {"Authorization": authorization}
    return await studio.call("GET", "/v1/models", headers=headers, **options)


async def test_every_model_is_listed_and_each_with_its_profiles(studio: Studio) -> None:
    status, body = await models(studio)
    assert status == 200
    assert [one["id"] for one in body["data"]] == ["one", "one:code+2", "two", "two:law"]
    for one in body["data"]:
        assert await studio.get(f"/v1/models/{one['id']}") == one
        assert one["created"] > 1_600_000_000


@pytest.mark.parametrize("id", ["three", "1", "one:", "one:law", "one:nothing", ":code+2", "gone:lost", "one:code 2"])
async def test_what_is_not_listed_is_not_found_in_openais_words(studio: Studio, id: str) -> None:
    status, body = await studio.call("GET", f"/v1/models/{id}")
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "model_not_found", "model")
    assert body["error"]["type"] == "invalid_request_error"


async def test_a_profile_of_another_model_is_not_found_and_it_is_said_whose_it_is(studio: Studio) -> None:
    _, body = await studio.call("GET", "/v1/models/one:law")
    assert body["error"]["message"] == "the profile 'law' is of the model 'two', not of 'one': ask for two:law"


async def test_on_loopback_any_key_that_is_none_of_ours_is_as_good_as_none(studio: Studio) -> None:
    for key in ("Bearer none", "Bearer x", "Bearer sk-proj-0123456789abcdefghij", "bearer none", "Bearer ", "Bearer"):
        assert (await models(studio, key))[0] == 200, key
        status, body = await studio.call("GET", "/api/status", headers={"Authorization": key})
        assert (status, body["error"]["code"]) == (401, "unauthorized"), "elsewhere nobody has to send one"


async def test_on_loopback_a_token_of_ours_that_is_no_longer_good_stays_refused(studio: Studio) -> None:
    tokens = studio.app[TOKENS]
    read, text = await tokens.create("reader", Scope.READ)
    assert (await models(studio, f"Bearer {text}"))[0] == 200
    status, body = await studio.call("POST", "/v1/completions", headers={"Authorization": f"Bearer {text}"}, json={})
    assert (status, body["error"]["type"]) == (403, "permission_error"), "who brings a token has its scope and no more"
    await tokens.revoke(read.id)
    for bad in (text, text[:-1], "mis_1_x", "mis_", f"mis_9_{'A' * 43}"):
        status, body = await models(studio, f"Bearer {bad}")
        assert (status, body["error"]["code"], body["error"]["type"]) == (401, "unauthorized", "authentication_error")
    for other in ("Basic eDp5", "Token none", "none"):
        assert (await models(studio, other))[0] == 401, other


async def test_beyond_loopback_any_key_opens_nothing(open_studio: OpenStudio) -> None:
    first = await open_studio()
    _, text = await first.app[TOKENS].create("all", Scope.ADMIN)
    await first.server.close()
    lan = await open_studio(listen="0.0.0.0")
    for key in ("Bearer none", "Bearer x", "Bearer ", None):
        status, body = await models(lan, key)
        assert (status, body["error"]["type"]) == (401, "authentication_error"), key
    assert (await models(lan, f"Bearer {text}"))[0] == 200


async def test_whatever_is_refused_below_v1_is_refused_in_openais_shape(studio: Studio) -> None:
    json_type = {"headers": {"Content-Type": "application/json"}}
    cases: list[tuple[str, str, dict[str, Any], int, str]] = [
        ("GET", "/v1/nothing", {}, 404, "not_found"),
        ("PUT", "/v1/models", {}, 405, "method"),
        ("GET", "/v1/models?limit=1", {}, 400, "invalid"),
        ("GET", "/v1/models", {"headers": {"Host": "evil.example"}}, 421, "wrong_host"),
        ("GET", "/v1/models", {"headers": {"Sec-Fetch-Site": "cross-site"}}, 403, "forbidden"),
        ("POST", "/v1/completions", {"data": b"{", **json_type}, 400, "invalid"),
        ("POST", "/v1/completions", {"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "content_type"),
        ("POST", "/v1/completions", {"data": io.BytesIO(b" " * 2_000_000), **json_type}, 413, "too_large"),
        ("POST", "/v1/chat/completions", {"json": {}}, 400, "invalid"),
    ]
    for method, path, options, status, code in cases:
        found, body = await studio.call(method, path, **options)
        assert (found, body["error"]["code"]) == (status, code), (path, body)
        assert set(body["error"]) >= {"code", "message", "type", "param"}, path
        assert body["error"]["type"] in ("invalid_request_error", "permission_error")
    _, body = await studio.call("POST", "/v1/chat/completions", json={"messages": "x", "model": "one"})
    assert body["error"]["param"] == "messages"
    _, body = await studio.call("GET", "/api/nothing")
    assert set(body["error"]) == {"code", "message"}, "elsewhere errors are as they were"


@pytest.mark.parametrize(
    ("error", "kind", "param"),
    [
        (Invalid("x", {"top_p": "y", "n": "z"}), "invalid_request_error", "top_p"),
        (Unauthorized("x"), "authentication_error", None),
        (Forbidden("x"), "permission_error", None),
        (NotFound("x"), "invalid_request_error", None),
        (ModelNotFound("x"), "invalid_request_error", "model"),
        (GpuBusy("x", about={"job": {"id": 1}, "choices": ["queue"]}), "conflict_error", None),
        (SessionBusy("x"), "conflict_error", None),
        (TooMany("x"), "rate_limit_error", None),
        (StudioError("x"), "server_error", None),
        (SessionFailed("x"), "server_error", None),
        (StoreError("x"), "server_error", None),
        (OutOfMemory("x"), "server_error", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, StudioError) else "",
)
def test_an_error_is_ours_and_openais_in_one(error: StudioError, kind: str, param: str | None) -> None:
    said: Any = openai_body(error)["error"]
    assert (said["type"], said["param"]) == (kind, param)
    assert said.items() >= error.body()["error"].items()  # type: ignore[attr-defined]
    once = isinstance(error, GpuBusy | OutOfMemory | SessionFailed)
    assert (openai_headers(error) == {"x-should-retry": "false"}) == once, "clients ask twice more when not told"
