"""The endpoint with a real model behind it that has a chat template, asked by OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI
from resident import CONTEXT, DEAD, TEMPLATE, put_all, put_model
from test_openai_endpoint import connected

from mistudiod.api.keys import PROFILES, SESSION
from mistudiod.app import make_app
from mistudiod.settings import Settings
from mistudiod.specs import Edit

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one session for all
USER = {"role": "user", "content": "for name in names:"}
ASK: dict[str, Any] = {"model": "tiny", "messages": [USER], "max_tokens": 12, "seed": 3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    data = put_all(tmp_path_factory.mktemp("chat") / "data")
    (data / "hf-tiny" / "chat_template.jinja").write_text(TEMPLATE)
    put_model(data, "mute")
    server = TestServer(make_app(Settings(data=data)))
    await server.start_server()
    await server.app[PROFILES].put("strong+2", "tiny", [Edit(feature=3, strength=2, sae="s")], None, False)
    yield server
    await server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: TestServer) -> AsyncIterator[AsyncOpenAI]:
    async with connected(str(server.make_url("/v1"))) as client:
        yield client


async def answered(client: AsyncOpenAI, **fields: Any) -> str:
    made = await client.chat.completions.create(**{**ASK, **fields})
    return made.choices[0].message.content or ""


async def test_the_same_seed_answers_alike_whole_or_in_chunks(client: AsyncOpenAI) -> None:
    made = await client.chat.completions.create(**ASK, n=3)
    texts = [one.message.content for one in made.choices]
    assert len(set(texts)) > 1, "each text has a seed of its own"
    streamed = [""] * 3
    async for chunk in await client.chat.completions.create(**ASK, n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert made.usage and made.usage.prompt_tokens > 5
    assert made.usage.completion_tokens <= 36 and {one.finish_reason for one in made.choices} <= {"stop", "length"}


async def test_an_answer_whose_seed_nobody_gave_can_be_had_again(client: AsyncOpenAI) -> None:
    first = await client.completions.create(model="tiny", prompt="import os")
    assert first.model_extra and first.usage and first.usage.completion_tokens <= 16
    seed = first.model_extra["seed"]
    again = await client.completions.create(model="tiny", prompt="import os", seed=seed)
    assert again.choices[0].text == first.choices[0].text


async def test_a_profile_steers_as_the_same_edit_in_the_request_does(client: AsyncOpenAI) -> None:
    plain = await answered(client)
    edit = {"sae": "s", "feature": 3, "strength": 2}
    steered = await answered(client, model="tiny:strong+2")
    assert steered == await answered(client, extra_body={"steering": [edit]}) != plain
    assert await answered(client, extra_body={"steering": [{**edit, "strength": 0}]}) == plain
    away = {"steering": [{**edit, "strength": -2}]}
    assert await answered(client, model="tiny:strong+2", extra_body=away) == plain, (
        "+2 of the profile, -2 of the request"
    )


async def test_an_edit_of_a_dead_feature_is_said_to_be_without_effect(client: AsyncOpenAI) -> None:
    edits = {"steering": [{"sae": "s", "feature": 3}, {"sae": "s", "feature": DEAD}]}
    made = await client.chat.completions.create(**ASK, extra_body=edits)
    assert made.model_extra
    (said,) = made.model_extra["steering"]["no_effect"]
    assert (said["sae"], said["feature"], said["reason"]) == ("s", DEAD, "dead")


async def test_writing_ends_before_a_stop(client: AsyncOpenAI) -> None:
    whole = await answered(client, temperature=0)
    stop = whole[3:5]
    ask: dict[str, Any] = {**ASK, "temperature": 0, "stop": [stop, "never"]}
    made = await client.chat.completions.create(**ask)
    assert made.choices[0].message.content == whole[: whole.index(stop)]
    assert made.choices[0].finish_reason == "stop"
    pieces = [
        one.choices[0].delta.content or "" async for one in await client.chat.completions.create(**ask, stream=True)
    ]
    assert "".join(pieces) == whole[: whole.index(stop)]


async def test_a_chat_with_a_model_without_a_template_is_refused_by_name(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="mute") as error:
        await answered(client, model="mute")
    assert error.value.param == "messages"
    assert (await client.completions.create(model="mute", prompt="import")).choices[0].text


async def test_more_tokens_than_the_context_has_room_for_are_refused_only_when_asked_for(client: AsyncOpenAI) -> None:
    long = "import os, sys\n" * 190
    made = await client.completions.create(model="tiny", prompt=long, max_tokens=1)
    assert made.usage
    prompt = made.usage.prompt_tokens
    assert CONTEXT - 1024 < prompt < CONTEXT
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model="tiny", prompt=long, max_tokens=CONTEXT)
    assert error.value.param == "max_tokens"
    chat = await client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": long}])
    assert chat.usage and chat.usage.total_tokens <= CONTEXT


async def test_one_process_has_answered_all_that_one_model_was_asked(client: AsyncOpenAI, server: TestServer) -> None:
    await answered(client)
    pid = server.app[SESSION].shown()["pid"]
    await answered(client, extra_body={"steering": [{"sae": "later", "feature": 1}]})
    assert server.app[SESSION].shown()["pid"] == pid
