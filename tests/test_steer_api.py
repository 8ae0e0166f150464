"""Steered texts and ranges over real HTTP, with the fake worker in the place of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse
from conftest import Studio, put_artifact, train
from sessions import joined
from steered_runs import SHA, found

from mistudiod.api import asking, steer_answers
from mistudiod.api.answers import Error
from mistudiod.api.keys import INDEX, SESSION, STEERINGS

MODELS = {"m": "s", "slow-m": "w", "other": "o", "hang-m": "mute"}
EVENTS = {"result": steer_answers.Steered, "error": Error}
Event = tuple[str, Any]


@pytest.fixture
async def studio(studio: Studio) -> Studio:
    for model, sae in MODELS.items():
        put_artifact(studio.data, "models", model, "model.json")
        about = {"model": {"name": model}, "resolved": {"precision": "fp32"}, "width": 12, "sae_sha256": SHA}
        put_artifact(studio.data, "saes", sae, "recipe.json", json.dumps(about))
    put_artifact(studio.data, "tokens", "t", "tokenization.json")
    await studio.app[INDEX].rebuild()
    return studio


def request(prompt: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"sae": "s", "prompt": prompt, "steering": [{"feature": 1}], "max_tokens": 3, **fields}


@contextlib.asynccontextmanager
async def streamed(studio: Studio, body: dict[str, Any], path: str = "/api/steer") -> AsyncIterator[ClientResponse]:
    async with studio.session.post(studio.server.make_url(path), json=body) as response:
        yield response


async def events(response: ClientResponse) -> AsyncIterator[Event]:
    assert response.status == 200, await response.text()
    assert response.content_type == "text/event-stream"
    name = ""
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text.startswith(":"):
            yield "ping", None
        elif text.startswith("event: "):
            name = text.removeprefix("event: ")
        elif text.startswith("data: "):
            data = json.loads(text.removeprefix("data: "))
            if name == "error" or (name == "result" and "baseline" in data):
                EVENTS[name].model_validate(data)
            yield name, data


async def heard(studio: Studio, body: dict[str, Any], path: str = "/api/steer") -> list[Event]:
    async with streamed(studio, body, path) as response:
        return [event async for event in events(response)]


async def kept(studio: Studio) -> list[Any]:
    return (await studio.get("/api/steerings"))["steerings"]


async def until(studio: Studio, state: str, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while (shown := studio.app[SESSION].shown()) is None or shown["state"] != state:
        assert time.monotonic() < end, shown
        await asyncio.sleep(0.01)


async def test_a_run_comes_token_by_token_and_is_kept(studio: Studio) -> None:
    got = await heard(studio, request(seed=5))
    assert [name for name, _ in got] == ["progress", "text", "text", "text", "result"]
    assert got[0][1] == {"stage": "load model", "done": 0, "total": 1, "unit": "", "eta_s": None}
    assert got[1][1] == {"tokens": 1, "texts": [{"row": 0, "text": "t0 "}, {"row": 1, "text": "t0 "}]}
    result = got[-1][1]
    steering = await studio.get(f"/api/steerings/{result.pop('id')}")
    assert (steering["result"], steering["job"]) == (result, None)
    assert result["baseline"]["text"] == "t0 t1 t2"
    assert (steering["spec"]["seed"], steering["spec"]["kind"]) == (5, "steer")
    assert not {"stream", "keep_alive", "if_busy"} & set(steering["spec"])


async def test_what_was_run_is_run_again_by_its_spec(studio: Studio) -> None:
    first = (await heard(studio, request(sweep=[-1, 0, 1], samples=2)))[-1][1]
    spec = (await studio.get(f"/api/steerings/{first['id']}"))["spec"]
    status, again = await studio.call("POST", "/api/steer", json={**spec, "stream": False})
    assert status == 200 and again["id"] == first["id"] + 1
    assert [again[part] for part in ("baselines", "steered")] == [first[part] for part in ("baselines", "steered")]
    assert (await studio.get(f"/api/steerings/{again['id']}"))["spec"] == spec


async def test_without_a_stream_the_result_is_the_answer(studio: Studio) -> None:
    status, body = await studio.call("POST", "/api/steer", json=request(stream=False, keep_alive="1m"))
    assert (status, body["steered"][0]["text"]) == (200, "t0 t1 t2")
    assert [one["id"] for one in await kept(studio)] == [body["id"]]
    assert (await studio.get("/api/session"))["session"]["keep_alive_s"] == 60


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "status", "field", "says"),
    [
        ({"sae": "none"}, 404, None, "there is no sae 'none'"),
        ({"steering": [{"feature": 1}, {"feature": 12}]}, 400, "steering.1.feature", "s has features 0 to 11"),
        ({"steering": [{"feature": 1, "sae": "o"}]}, 400, "steering", "the model other, not of m"),
        ({"steering": []}, 400, "steering", "at least 1"),
        ({"prompt": None}, 400, None, "give either a prompt or messages"),
        ({"keep_alive": "soon"}, 400, "keep_alive", "'soon' is no duration"),
        ({"if_busy": "wait"}, 400, "if_busy", "if_busy"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"strengths": []}, 400, "strengths", "there is no such field"),
        ({"prompt": "fail"}, 400, "prompt", "the prompt is too long"),
    ],
)
async def test_what_is_refused_before_anything_was_written_is_an_ordinary_refusal(
    studio: Studio, stream: bool, fields: dict[str, Any], status: int, field: str | None, says: str
) -> None:
    await studio.call("POST", "/api/session", json={"saes": ["s"]})  # warm: no progress comes first
    found, body = await studio.call("POST", "/api/steer", json={**request(), **fields, "stream": stream})
    assert found == status and says in body["error"]["message"], body
    assert list(body["error"].get("fields", [None])) == [field]
    assert await kept(studio) == []


async def test_while_a_job_has_the_gpu_a_run_is_refused_with_the_job_and_the_choices(studio: Studio) -> None:
    job = await studio.submit(train("slow"))
    await studio.until(job["id"], "running")
    status, body = await studio.call("POST", "/api/steer", json=request())
    assert (status, body["error"]["code"]) == (409, "gpu_busy")
    assert (body["error"]["job"]["id"], body["error"]["choices"]) == (job["id"], ["queue", "pause"])
    got = await heard(studio, request(if_busy="pause", keep_alive=0))
    assert got[-1][0] == "result"
    await studio.until(job["id"], "running")  # it goes on by itself
    await studio.act(job["id"], "stop")


async def test_what_goes_wrong_once_texts_have_come_is_an_error_event(studio: Studio) -> None:
    got = await heard(studio, request("greedy"))
    assert got[-1][0] == "error" and got[-1][1]["error"]["code"] == "out_of_memory"
    assert [name for name, _ in got].count("text") > 0
    got = await heard(studio, request("die"))
    assert got[-1][0] == "error" and got[-1][1]["error"]["code"] == "session_failed"
    assert await kept(studio) == []


async def test_a_failure_that_nobody_expected_is_an_error_event_with_a_mark_of_the_log(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> int:
        raise RuntimeError("a secret of the daemon")

    monkeypatch.setattr(studio.app[STEERINGS], "keep", broken)
    name, data = (await heard(studio, request()))[-1]
    assert (name, data["error"]["code"]) == ("error", "internal")
    mark = data["error"]["message"].rpartition(" ")[2]
    assert mark in caplog.text and "a secret of the daemon" not in data["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_hanging_up_stops_the_writing_at_the_next_token_and_keeps_nothing(studio: Studio, stream: bool) -> None:
    await studio.call("POST", "/api/session", json={"saes": ["s"]})
    pid = studio.app[SESSION].shown()["pid"]
    body = request("slow", max_tokens=1000, stream=stream)
    asking_for = asyncio.create_task(heard(studio, body))
    await until(studio, "busy")
    await asyncio.sleep(0.2)
    asking_for.cancel()  # the connection is closed
    with contextlib.suppress(asyncio.CancelledError):
        await asking_for
    await until(studio, "ready", 2.0)  # 1,000 tokens would take 20 s
    assert studio.app[SESSION].shown()["pid"] == pid
    assert await kept(studio) == []
    assert (await heard(studio, request()))[-1][0] == "result"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_token_that_is_revoked_ends_what_is_written_for_it(studio: Studio, stream: bool) -> None:
    await studio.call("POST", "/api/session", json={"saes": ["s"]})
    _, made = await studio.call("POST", "/api/tokens", json={"name": "guest", "scope": "write"})
    url, headers = studio.server.make_url("/api/steer"), {"Authorization": f"Bearer {made['token']}"}

    async def guest() -> None:
        body = request("slow", max_tokens=1000, stream=stream)
        async with studio.session.post(url, json=body, headers=headers) as response:
            await response.read()

    asking_for = asyncio.create_task(guest())
    await until(studio, "busy")
    await asyncio.sleep(0.1)
    assert (await studio.call("DELETE", f"/api/tokens/{made['id']}"))[0] == 204
    with pytest.raises(ClientError):
        await asyncio.wait_for(asking_for, 10)  # 1,000 tokens would take 20 s
    await until(studio, "ready", 2.0)
    assert await kept(studio) == []


async def test_hanging_up_in_the_line_costs_the_others_nothing(studio: Studio) -> None:
    await studio.call("POST", "/api/session", json={"saes": ["s"]})
    first = asyncio.create_task(heard(studio, request("slow", max_tokens=50)))
    await joined(studio, 2)  # the first was what started it
    second = asyncio.create_task(heard(studio, request("slow", max_tokens=1000)))
    await joined(studio, 3)
    third = asyncio.create_task(heard(studio, request()))
    await joined(studio, 4)
    second.cancel()
    assert (await first)[-1][0] == (await third)[-1][0] == "result"
    assert len(await kept(studio)) == 2


async def test_a_reader_hears_that_the_stream_lives_while_nothing_is_said(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PING_S", 0.05)
    got = await heard(studio, request(sae="w"))  # half a second of loading, told of at its beginning
    assert [name for name, _ in got].count("ping") >= 3 and got[-1][0] == "result"
    first = asyncio.create_task(heard(studio, request("slow", sae="w", max_tokens=50)))
    await until(studio, "busy")
    got = await heard(studio, request(sae="w"))  # in the line
    assert got[0][0] == "ping" and got[-1][0] == "result"
    assert (await first)[-1][0] == "result"


async def test_ranges_are_found_kept_and_shown(studio: Studio) -> None:
    got = await heard(studio, {"features": [3, 7], "keep_alive": "1m"}, "/api/saes/s/ranges")
    name, made = got[-1]
    assert name == "result" and set(made) == {"sae", "ranges"}
    assert [one["feature"] for one in made["ranges"]] == [3, 7]
    assert {**found(3), "created_at": made["ranges"][0]["created_at"]} == made["ranges"][0]
    id = (await studio.get("/api/saes/s"))["id"]
    assert await studio.get(f"/api/saes/{id}/ranges") == made
    assert (await studio.get("/api/saes/s/ranges?features=7,1"))["ranges"] == made["ranges"][1:]
    status, more = await studio.call("POST", f"/api/saes/{id}/ranges", json={"features": [1], "stream": False})
    assert status == 200 and [one["feature"] for one in more["ranges"]] == [1]
    assert [one["feature"] for one in (await studio.get("/api/saes/s/ranges"))["ranges"]] == [1, 3, 7]
    for features in ("x", "1,,2", "-1", "9" * 11, ""):
        assert (await studio.call("GET", f"/api/saes/s/ranges?features={features}"))[0] == 400, features
    for body, field in (({"features": []}, "features"), ({"features": [12]}, "features.0"), ({}, "features")):
        status, refused = await studio.call("POST", "/api/saes/s/ranges", json=body)
        assert status == 400 and list(refused["error"]["fields"]) == [field]


async def test_what_a_queued_job_of_steering_has_written_is_kept_with_its_number(studio: Studio) -> None:
    job = await studio.submit({"kind": "steer", **request(seed=9)})
    ended = await studio.until(job["id"])
    (one,) = await kept(studio)
    assert (ended["state"], one["job"], one["seed"]) == ("done", job["id"], 9)
    steering = await studio.get(f"/api/steerings/{one['id']}")
    assert steering["result"] == ended["result"]
    again = await studio.call("POST", "/api/steer", json={**steering["spec"], "stream": False})
    assert again[0] == 200 and again[1]["baselines"] == steering["result"]["baselines"]
    assert (await studio.call("DELETE", f"/api/jobs/{job['id']}"))[0] == 204
    assert len(await kept(studio)) == 2  # a run outlives its job
