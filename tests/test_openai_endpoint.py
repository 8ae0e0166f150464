"""The endpoint as OpenAI's own client sees it, over HTTP: what it is answered, told in chunks, and raises."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Studio, train
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from studio import running
from test_openai_doors import prepared

from mistudiod.api.keys import INDEX, SESSION
from mistudiod.api.openai_asks import ChatRequest, CompletionRequest

USER = {"role": "user", "content": "hello"}


@pytest.fixture
async def studio(studio: Studio) -> Studio:
    return await prepared(studio)


@pytest.fixture
async def client(studio: Studio) -> AsyncIterator[AsyncOpenAI]:
    async with connected(str(studio.server.make_url("/v1"))) as client:
        yield client


def connected(url: str, key: str = "none") -> AsyncOpenAI:
    # No proxy of whoever runs the tests.
    return AsyncOpenAI(base_url=url, api_key=key, http_client=DefaultAsyncHttpxClient(trust_env=False))


async def told(client: AsyncOpenAI, model: str = "one", **extra: Any) -> dict[str, Any]:
    """What the worker was asked for."""
    made = await client.completions.create(model=model, prompt="tell", extra_body=extra)
    found: dict[str, Any] = json.loads(made.choices[0].text)
    return found


async def until_ready(studio: Studio, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while (shown := studio.app[SESSION].shown()) is None or shown["state"] != "ready":
        assert time.monotonic() < end, shown
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (completion_create_params.CompletionCreateParamsBase, CompletionRequest),
        (chat_create_params.CompletionCreateParamsBase, ChatRequest),
    ],
)
def test_every_field_that_the_client_can_send_is_known_by_name(theirs: Any, ours: Any) -> None:
    assert theirs.__annotations__.keys() - ours.model_fields.keys() == set()


async def test_the_client_lists_the_models_and_finds_one(client: AsyncOpenAI) -> None:
    assert [one.id async for one in client.models.list()] == ["one", "one:code+2", "two", "two:law"]
    assert (await client.models.retrieve("one:code+2")).owned_by == "mistudio"
    with pytest.raises(openai.NotFoundError) as error:
        await client.models.retrieve("three")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


async def test_a_completion_is_read_by_the_client(client: AsyncOpenAI) -> None:
    made = await client.completions.create(model="one", prompt=["hello"], max_tokens=3, n=2, seed=7, user="me")
    assert (made.object, made.model, made.id[:5], len(made.choices)) == ("text_completion", "one", "cmpl-", 2)
    assert [(one.index, one.text, one.finish_reason) for one in made.choices] == [
        (0, "t0 t1 t2 ", "length"),
        (1, "t0 t1 t2 ", "length"),
    ]
    assert made.usage and (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (1, 6, 7)
    assert made.model_extra == {"seed": 7}
    assert abs(made.created - time.time()) < 60


async def test_an_answer_of_a_chat_is_read_by_the_client(client: AsyncOpenAI) -> None:
    made = await client.chat.completions.create(model="one", messages=[USER], max_completion_tokens=2, tools=[])
    assert (made.object, made.id[:9]) == ("chat.completion", "chatcmpl-")
    assert (made.choices[0].message.role, made.choices[0].message.content) == ("assistant", "t0 t1 ")
    again = made.choices[0].message.model_dump()
    await client.chat.completions.create(model="one", messages=[USER, again, USER], max_tokens=1)


async def test_a_chat_is_streamed_text_by_text(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="one", messages=[USER], max_tokens=3, n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"} and len({one.id for one in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk.choices]
    for index in (0, 1):
        mine = [choice for choice in choices if choice.index == index]
        assert mine[0].delta.role == "assistant" and mine[-1].finish_reason == "length"
        assert [one.delta.content for one in mine] == ["", "t0 ", "t1 ", "t2 ", None]
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 6 and chunks[-1].choices == []


async def test_a_completion_is_streamed_text_by_text(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(model="one", prompt="hello", max_tokens=3, stream=True)
    chunks = [chunk async for chunk in stream]
    assert [one.choices[0].text for one in chunks] == ["t0 ", "t1 ", "t2 ", ""]
    assert [one.choices[0].finish_reason for one in chunks] == [None, None, None, "length"]
    assert len({chunk.model_extra["seed"] for chunk in chunks if chunk.model_extra}) == 1


async def test_chunks_come_as_they_are_written(client: AsyncOpenAI, studio: Studio) -> None:
    stream = await client.completions.create(model="one", prompt="slow", max_tokens=4000, stream=True)
    texts: list[str] = []
    async for chunk in stream:
        texts.append(chunk.choices[0].text)
        assert studio.app[SESSION].shown()["state"] == "busy", "it goes on writing for more than a minute"
        if len(texts) == 5:
            break
    await stream.close()
    assert "".join(texts).startswith("t0 t1 ")


async def test_the_profiles_edits_are_done_and_then_the_requests(client: AsyncOpenAI) -> None:
    spec = await told(client, "one:code+2", steering=[{"sae": "s1", "feature": 9, "op": "clamp", "strength": -1}])
    assert [(one["sae"], one["feature"], one["op"], one["strength"]) for one in spec["steering"]] == [
        ("s1", 5, "add", 2.0),
        ("s1", 9, "clamp", -1.0),
    ]
    assert spec["model"] == "one"
    assert (await told(client, "one"))["steering"] == []


async def test_the_only_sae_of_a_model_need_not_be_named(client: AsyncOpenAI) -> None:
    assert (await told(client, "one", steering=[{"feature": 9}]))["steering"][0]["sae"] == "s1"
    with pytest.raises(openai.BadRequestError, match="two has s2, s3") as error:
        await told(client, "two", steering=[{"feature": 9}])
    assert error.value.param == "steering.0.sae"


async def test_what_cannot_be_steered_is_refused_before_it_is_loaded(client: AsyncOpenAI, studio: Studio) -> None:
    with pytest.raises(openai.BadRequestError, match="of the model two, not of one") as error:
        await told(client, "one", steering=[{"sae": "s2", "feature": 9}])
    assert error.value.param == "steering"
    with pytest.raises(openai.NotFoundError, match="s9"):
        await told(client, "one", steering=[{"sae": "s9", "feature": 9}])
    with pytest.raises(openai.BadRequestError, match="no feature 48") as error:
        await told(client, "one", steering=[{"sae": "s1", "feature": 1}, {"sae": "s1", "feature": 48}])
    assert error.value.param == "steering.1.feature"
    with pytest.raises(openai.NotFoundError, match="ask for two:law"):
        await told(client, "one:law")
    assert studio.app[SESSION].shown() is None


async def test_an_edit_without_effect_is_said(client: AsyncOpenAI) -> None:
    ask: dict[str, Any] = {"model": "one:code+2", "prompt": "dull", "max_tokens": 2}
    made = await client.completions.create(**ask)
    assert made.model_extra and made.model_extra["steering"]["no_effect"][0]["feature"] == 5
    chunks = [chunk async for chunk in await client.completions.create(**ask, stream=True)]
    assert chunks[-1].model_extra and chunks[-1].model_extra["steering"]["no_effect"][0]["reason"] == "dead"
    assert not any("steering" in (chunk.model_extra or {}) for chunk in chunks[:-1])


async def test_what_is_not_supported_is_a_bad_request_that_names_it(client: AsyncOpenAI) -> None:
    for fields in ({"logprobs": True}, {"response_format": {"type": "json_object"}}, {"presence_penalty": 1.0},
                   {"tools": [{"type": "function", "function": {"name": "f"}}]}):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(model="one", messages=[USER], **fields)  # type: ignore[call-overload]
        assert (error.value.param, error.value.type) == (next(iter(fields)), "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_worker_refuses_is_an_error_and_no_stream(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="too long") as error:
        await client.completions.create(model="one", prompt="fail", stream=stream)
    assert error.value.param == "prompt"
    with pytest.raises(openai.InternalServerError) as failure:
        await client.with_options(max_retries=0).completions.create(model="one", prompt="die", stream=stream)
    assert failure.value.type == "server_error"


async def test_a_failure_after_the_first_chunk_is_raised_by_the_client(client: AsyncOpenAI, studio: Studio) -> None:
    stream = await client.chat.completions.create(
        model="one", messages=[{"role": "user", "content": "slow"}], max_tokens=1000, stream=True
    )
    killed = False
    with pytest.raises(openai.APIError) as error:
        async for chunk in stream:
            if chunk.choices[0].delta.content and not killed:  # others may be on their way
                os.kill(studio.app[SESSION].shown()["pid"], signal.SIGKILL)  # type: ignore[index]
                killed = True
    assert error.value.code == "session_failed" and error.value.type == "server_error"
    assert not isinstance(error.value, openai.APIConnectionError)


async def test_a_job_that_has_the_gpu_is_told_at_once_and_can_be_paused(client: AsyncOpenAI, studio: Studio) -> None:
    asked: list[Any] = []

    async def count(request: Any) -> None:
        asked.append(request)

    client._client.event_hooks["request"].append(count)
    (studio.data / "tokens" / "t").mkdir()
    (studio.data / "tokens" / "t" / "tokenization.json").write_text("{}")
    await studio.app[INDEX].rebuild()
    job = await studio.submit(train("slow"))
    await studio.until(job["id"], "running")
    with pytest.raises(openai.ConflictError) as error:
        await client.completions.create(model="one", prompt="hello")
    body: Any = error.value.body
    assert (error.value.code, error.value.type, len(asked)) == ("gpu_busy", "conflict_error", 1)
    assert body["job"]["id"] == job["id"] and body["choices"] == ["queue", "pause"]
    made = await client.completions.create(
        model="one", prompt="hello", max_tokens=1, extra_body={"if_busy": "pause", "keep_alive": 0}
    )
    assert made.choices[0].text == "t0 "
    await studio.until(job["id"], "running")
    await studio.act(job["id"], "stop")


async def test_whoever_stops_reading_ends_the_writing(client: AsyncOpenAI, studio: Studio) -> None:
    stream = await client.completions.create(model="one", prompt="slow", max_tokens=4000, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await until_ready(studio)


async def test_whoever_does_not_wait_for_the_whole_ends_the_writing(tmp_path: Path) -> None:
    put = tmp_path / "data" / "models" / "one"
    put.mkdir(parents=True)
    (put / "model.json").write_text("{}")
    with running(tmp_path / "data") as url:
        async with connected(f"{url}/v1") as client, DefaultAsyncHttpxClient(trust_env=False) as http:
            await client.completions.create(model="one", prompt="one", max_tokens=1)  # it is in memory from here on
            with pytest.raises(openai.APITimeoutError):
                await client.with_options(max_retries=0, timeout=1.5).completions.create(
                    model="one", prompt="slow", max_tokens=4000
                )
            for _ in range(1500):
                if (shown := (await http.get(f"{url}/api/session")).json()["session"])["state"] == "ready":
                    break
                await asyncio.sleep(0.02)
            assert shown["state"] == "ready"


async def test_keep_alive_is_as_everywhere(client: AsyncOpenAI, studio: Studio) -> None:
    await told(client, keep_alive="10m")
    shown = studio.app[SESSION].shown()
    assert shown and shown["keep_alive_s"] == 600
    with pytest.raises(openai.BadRequestError, match="duration") as error:
        await told(client, keep_alive="soon")
    assert error.value.param == "keep_alive"
