"""A text read with an SAE over HTTP: at once when the GPU lane is free, and otherwise a refusal that says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import Studio, put_artifact, train

from mistudiod.api import inspect
from mistudiod.api.keys import INDEX, SETTINGS


@pytest.fixture
async def studio(studio: Studio) -> Studio:
    for name in ("ok", "slow", "fail", "silent", "hang"):
        put_artifact(studio.data, "saes", name, "recipe.json")
    put_artifact(studio.data, "tokens", "t", "tokenization.json")
    await studio.app[INDEX].rebuild()
    return studio


async def ask(studio: Studio, sae: str, **body: Any) -> tuple[int, Any]:
    return await studio.call("POST", f"/api/saes/{sae}/inspect", json={"text": "def f(x):", **body})


async def only_job(studio: Studio) -> Any:
    (job,) = [one for one in (await studio.get("/api/jobs"))["jobs"] if one["kind"] == "inspect"]
    return job


async def test_the_answer_is_the_result_of_a_job_that_goes_before_the_others(studio: Studio) -> None:
    status, found = await ask(studio, "ok", top=3, ignore_denser=0.1)
    assert status == 200
    assert found["tokens"][0]["text"] == "def f(x):" and found["top"] == 3
    job = await only_job(studio)
    assert (job["state"], job["priority"], job["lane"], job["result"]) == ("done", 100, "gpu", found)
    assert job["spec"]["ignore_denser"] == 0.1


async def test_while_the_lane_is_busy_it_says_which_job_has_it_and_leaves_none_behind(studio: Studio) -> None:
    running = await studio.submit(train("slow-one"))
    while not (await studio.until(running["id"], "running"))["progress"]:
        await asyncio.sleep(0.02)
    status, body = await ask(studio, "ok")
    assert status == 409
    assert f"job {running['id']} (train slow-one: work, 50 %" in body["error"]["message"]
    assert "mistudio feature inspect ok" in body["error"]["message"]
    assert [one["id"] for one in (await studio.get("/api/jobs"))["jobs"]] == [running["id"]]


async def test_a_job_that_was_faster_to_the_lane_stops_ours(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await studio.submit(train("slow-one"))
    await studio.until(running["id"], "running")
    refuse, calls = inspect._refuse_when_busy, iter([True])

    async def not_at_first(*args: Any, **options: Any) -> None:
        if not next(calls, False):  # the first look came before the other job had begun
            await refuse(*args, **options)

    monkeypatch.setattr(inspect, "_refuse_when_busy", not_at_first)
    status, body = await ask(studio, "ok")
    assert (status, body["error"]["code"]) == (409, "conflict")
    assert (await only_job(studio))["state"] == "stopped"


async def test_whoever_goes_away_takes_the_job_along(studio: Studio) -> None:
    asked = asyncio.create_task(ask(studio, "slow"))
    while not (await studio.get("/api/jobs"))["jobs"]:
        await asyncio.sleep(0.02)
    id = (await only_job(studio))["id"]
    await studio.until(id, "running")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (await studio.until(id))["state"] == "stopped"


async def test_it_does_not_wait_for_ever_and_names_the_job_that_goes_on(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "LEAST_LIMIT_S", 0.0)
    object.__setattr__(studio.app[SETTINGS], "preview_limit_s", 0.5)
    status, body = await ask(studio, "slow")
    job = await only_job(studio)
    assert (status, body["error"]["code"]) == (504, "still_running")
    await studio.until(job["id"], "running")
    assert f"mistudio job show {job['id']}" in body["error"]["message"]


async def test_what_the_job_refuses_is_refused_with_its_sentence(studio: Studio) -> None:
    status, body = await ask(studio, "fail")
    assert (status, body["error"]["message"]) == (400, "there is no such file")
    status, body = await ask(studio, "silent")
    assert (status, body["error"]["code"]) == (500, "inspect_failed")


async def test_one_that_a_person_stops_says_so(studio: Studio) -> None:
    asked = asyncio.create_task(ask(studio, "slow"))
    while not (await studio.get("/api/jobs"))["jobs"]:
        await asyncio.sleep(0.02)
    id = (await only_job(studio))["id"]
    await studio.until(id, "running")
    await studio.act(id, "stop")
    status, body = await asked
    assert status == 409 and "was stopped" in body["error"]["message"]


@pytest.mark.parametrize(
    ("sae", "body", "status"),
    [
        ("nobody", {}, 404),
        ("ok", {"text": ""}, 400),
        ("ok", {"text": "x" * 20_001}, 400),
        ("ok", {"top": 0}, 400),
        ("ok", {"ignore_denser": 2}, 400),
        ("ok", {"kind": "inspect"}, 400),
    ],
)
async def test_bad_input_makes_no_job(studio: Studio, sae: str, body: dict[str, Any], status: int) -> None:
    assert (await ask(studio, sae, **body))[0] == status
    assert (await studio.get("/api/jobs"))["jobs"] == []
