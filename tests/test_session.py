"""The session over real HTTP, with the fake worker in the place of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from conftest import OpenStudio, Studio
from sessions import alive, ask, gone, joined, leases, prepared, show, start, steer, until_state

from mistudiod.api import answers
from mistudiod.api.keys import SESSION
from mistudiod.errors import Conflict, Invalid, NotFound, OutOfMemory, SessionBusy, SessionFailed, TooMany
from mistudiod.specs import Complete, Edit, Load


@pytest.fixture
async def studio(studio: Studio) -> Studio:
    return await prepared(studio)


async def test_a_request_loads_the_model_and_is_answered_token_by_token(studio: Studio) -> None:
    events = await ask(studio, steer())
    assert [event.event for event in events] == ["progress", "wrote", "wrote", "wrote", "replied"]
    assert [text.text for text in events[1].texts] == ["t0 ", "t0 "]
    shown = await show(studio)
    assert (shown["state"], shown["model"], shown["saes"], shown["precision"]) == ("ready", "m", ["s"], "fp32")
    assert shown["memory_bytes"] > 0 and shown["keep_alive_s"] == 300 and shown["expires_at"] and shown["pid"]


async def test_a_second_request_is_answered_by_the_same_process_without_loading(studio: Studio) -> None:
    first, second = [await ask(studio, steer(sae)) for sae in ("s", "s2")]
    assert first[-1].result["pid"] == second[-1].result["pid"]
    assert [event.event for event in second] == ["wrote", "wrote", "wrote", "replied"]
    assert (await show(studio))["saes"] == ["s", "s2"]


async def test_without_a_session_there_is_none_to_show_or_stop(studio: Studio) -> None:
    assert await show(studio) is None
    assert (await studio.get("/api/ps"))["session"] is None
    assert (await studio.call("DELETE", "/api/session"))[0] == 204


async def test_start_answers_when_it_is_loaded_and_again_is_free(studio: Studio) -> None:
    status, first = await start(studio, saes=["s", "s2"])
    assert (status, first["state"], first["saes"], first["model"]) == (200, "ready", ["s", "s2"], "m")
    assert first["memory_bytes"] > 0
    assert (await start(studio, saes=["s2"]))[1]["pid"] == first["pid"]
    assert (await start(studio, model="m"))[1]["pid"] == first["pid"]
    assert len(leases(studio)) == 1
    assert (await studio.get("/api/ps"))["session"]["pid"] == first["pid"]


async def test_another_sae_of_the_model_comes_into_the_same_process(studio: Studio) -> None:
    _, first = await start(studio, saes=["s"])
    _, second = await start(studio, saes=["s2"])
    assert second["pid"] == first["pid"] and second["saes"] == ["s", "s2"]


async def test_another_model_while_nobody_asks_is_another_process_and_another_lease(studio: Studio) -> None:
    _, first = await start(studio, saes=["s"])
    _, second = await start(studio, saes=["o"])
    assert second["model"] == "other" and second["pid"] != first["pid"] and not alive(first["pid"])
    old, new = leases(studio)
    assert (old["model"], old["reason"], new["model"], new["released_at"]) == ("m", "replaced", "other", None)
    assert old["released_at"] <= new["taken_at"]


async def test_another_model_while_it_writes_is_refused_with_both_names(studio: Studio) -> None:
    busy = asyncio.create_task(ask(studio, steer("s", "slow", max_tokens=4000)))
    await until_state(studio, "busy")
    with pytest.raises(SessionBusy, match=r"with m in fp32 .*ask for other in fp32"):
        await ask(studio, steer("o"))
    assert (await start(studio, saes=["o"]))[1]["error"]["code"] == "session_busy"
    busy.cancel()


async def test_another_precision_of_the_model_is_another_process(studio: Studio) -> None:
    _, first = await start(studio, saes=["s"])
    _, second = await start(studio, saes=["s"], precision="bf16")
    assert (second["precision"], second["pid"] != first["pid"]) == ("bf16", True)
    assert (await start(studio, model="m"))[1]["pid"] == second["pid"]  # of whatever precision


async def test_requests_wait_in_line_in_their_order(studio: Studio) -> None:
    ended: list[int] = []

    async def one(n: int) -> None:
        await ask(studio, steer(prompt=f"slow-{n}"))
        ended.append(n)

    tasks = []
    for n in range(5):
        tasks.append(asyncio.create_task(one(n)))
        await joined(studio, n + 1)
    await asyncio.gather(*tasks)
    assert ended == [0, 1, 2, 3, 4]
    assert len(leases(studio)) == 1


async def test_the_seventeenth_that_would_wait_is_refused(studio: Studio) -> None:
    first = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=4000)))
    await until_state(studio, "busy")
    waiting = [asyncio.create_task(ask(studio, steer())) for _ in range(16)]
    await joined(studio, 1 + len(waiting))
    with pytest.raises(TooMany, match="16 requests wait"):
        await ask(studio, steer())
    for task in (first, *waiting):
        task.cancel()
    await until_state(studio, "ready")


async def test_leaving_early_cancels_the_request_and_the_next_one_comes_at_once(studio: Studio) -> None:
    async with contextlib.aclosing(studio.app[SESSION].ask(steer(prompt="slow", max_tokens=4000, samples=2))) as events:
        async for event in events:
            if event.event == "wrote":
                break
    began = time.monotonic()
    assert (await ask(studio, steer()))[-1].event == "replied"
    assert time.monotonic() - began < 40, "what was left has 80 s of writing"


async def test_who_leaves_the_line_is_never_asked_for(studio: Studio) -> None:
    first = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=25)))
    await until_state(studio, "busy")
    second = asyncio.create_task(ask(studio, steer(prompt="die")))
    await joined(studio, 2)
    second.cancel()
    assert (await first)[-1].event == "replied"
    assert (await ask(studio, steer()))[-1].event == "replied"
    assert len(leases(studio)) == 1


async def test_the_first_token_is_heard_before_the_second_is_written(studio: Studio) -> None:
    await start(studio, saes=["s"])
    began, at = time.monotonic(), []
    async for event in studio.app[SESSION].ask(steer(prompt="slow", max_tokens=50)):
        if event.event == "wrote":
            at.append(time.monotonic() - began)
    assert at[-1] > 0.9 and at[0] < at[-1] / 2


async def test_what_the_worker_denies_is_said_with_its_field_and_the_session_stays(studio: Studio) -> None:
    with pytest.raises(Invalid, match="the prompt is too long") as refused:
        await ask(studio, steer(prompt="fail"))
    assert refused.value.fields == {"prompt": "the prompt is too long"}
    with pytest.raises(SessionFailed):
        await ask(studio, steer(prompt="deny"))
    assert (await ask(studio, steer()))[-1].event == "replied" and len(leases(studio)) == 1


@pytest.mark.parametrize(("prompt", "how"), [("die", "signal 9"), ("silent", "exit code 70.*last words: last words")])
async def test_a_worker_that_dies_fails_its_request_and_the_next_one_has_a_new_worker(
    studio: Studio, prompt: str, how: str
) -> None:
    with pytest.raises(SessionFailed, match=how):
        await ask(studio, steer(prompt=prompt))
    await gone(studio)
    assert (await ask(studio, steer()))[-1].event == "replied"
    assert [bool(row["released_at"]) for row in leases(studio)] == [True, False]


async def test_a_worker_that_is_killed_while_nobody_asks_leaves_no_session(studio: Studio) -> None:
    _, shown = await start(studio, saes=["s"])
    os.killpg(shown["pid"], signal.SIGKILL)
    await gone(studio)
    assert leases(studio)[0]["released_at"]
    assert (await ask(studio, steer()))[-1].event == "replied"


async def test_a_model_that_cannot_be_loaded_is_said_to_who_asked(studio: Studio) -> None:
    with pytest.raises(Invalid, match="the model is damaged"):
        await ask(studio, steer("broken"))
    assert (await start(studio, saes=["broken"]))[1]["error"]["message"] == "the model is damaged"
    assert (await start(studio, saes=["big"]))[1]["error"]["code"] == "out_of_memory"
    assert await show(studio) is None and all(row["released_at"] for row in leases(studio))


async def test_too_little_memory_starts_it_again_with_half_the_texts_at_once(studio: Studio) -> None:
    events = await ask(studio, steer(prompt="oom"))
    assert events[-1].result["rows_at_once"] == 1
    texts = {
        row: "".join(t.text for e in events if e.event == "wrote" for t in e.texts if t.row == row) for row in (0, 1)
    }
    assert texts == {0: "t0 t1 t2 ", 1: "t0 t1 t2 "}  # nothing is told twice
    assert len(leases(studio)) == 1
    assert (await ask(studio, steer(prompt="oom")))[-1].result["pid"] == events[-1].result["pid"]


async def test_too_little_memory_even_so_is_said_with_the_workers_sentence(studio: Studio) -> None:
    for prompt in ("greedy", "oom"):
        with pytest.raises(OutOfMemory, match="texts at once do not fit"):
            await ask(studio, steer(prompt=prompt, sweep=[1, 2, 3]))
    await gone(studio)
    assert (await ask(studio, steer()))[-1].event == "replied"


async def test_who_waits_behind_one_that_does_not_fit_is_answered_by_the_next_process(studio: Studio) -> None:
    greedy = asyncio.create_task(ask(studio, steer("w", "greedy")))  # which takes half a second to load
    await until_state(studio, "loading")
    others = [asyncio.create_task(ask(studio, steer("w", prompt, samples=8))) for prompt in ("oom", "hello")]
    found = await asyncio.gather(greedy, *others, return_exceptions=True)
    assert isinstance(found[0], OutOfMemory)
    assert [one[-1].event for one in found[1:]] == ["replied", "replied"]
    assert len(leases(studio)) == 1


async def test_a_silent_worker_is_ended_while_it_is_asked_and_not_while_it_rests(open_studio: OpenStudio) -> None:
    studio = await prepared(await open_studio(progress_limit_s=2.0))  # a worker's first sign may take a second
    _, shown = await start(studio, saes=["s"])
    await asyncio.sleep(2.6)
    assert (await show(studio))["pid"] == shown["pid"]
    with pytest.raises(SessionFailed, match="no sign of life"):
        await ask(studio, steer(prompt="hang"))
    with pytest.raises(SessionFailed, match="no sign of life"):
        await ask(studio, steer("mute"))


# -- how long it stays ------------------------------------------------------------------------------------------------


async def test_it_ends_when_nobody_has_used_it_for_its_keep_alive_and_every_request_counts_anew(studio: Studio) -> None:
    await ask(studio, steer(), keep_alive="3s")
    for _ in range(4):
        await asyncio.sleep(0.9)
        asked = time.monotonic()
        await ask(studio, steer())
    used = time.monotonic()
    assert (await show(studio))["keep_alive_s"] == 3
    await gone(studio)
    ended = time.monotonic()
    assert ended - asked > 3 and ended - used < 30
    assert "nobody has used" in leases(studio)[0]["reason"]


async def test_keep_alive_0_ends_it_after_the_request_and_minus_1_never(studio: Studio) -> None:
    assert (await ask(studio, steer(), keep_alive="0"))[-1].event == "replied"
    await gone(studio)
    await ask(studio, steer(), keep_alive=-1)
    shown = await show(studio)
    assert (shown["keep_alive_s"], shown["expires_at"]) == (None, None)
    await ask(studio, steer(), keep_alive=0)
    await gone(studio)


async def test_the_setting_is_what_holds_when_nobody_says_otherwise(open_studio: OpenStudio) -> None:
    studio = await prepared(await open_studio(session_keep_alive="1h30m"))
    _, shown = await start(studio, saes=["s"])
    left = datetime.fromisoformat(shown["expires_at"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
    assert shown["keep_alive_s"] == 5400 and 5390 < left.total_seconds() < 5402


async def test_a_setting_of_0_is_refused_where_a_session_is_to_stay(open_studio: OpenStudio) -> None:
    studio = await prepared(await open_studio(session_keep_alive="0"))
    status, body = await start(studio, saes=["s"])
    assert (status, list(body["error"]["fields"])) == (400, ["keep_alive"])
    assert (await start(studio, saes=["s"], keep_alive="1m"))[0] == 200
    assert (await start(studio, saes=["s2"]))[1]["keep_alive_s"] == 60


async def test_a_session_ends_with_its_model(studio: Studio) -> None:
    _, shown = await start(studio, model="m", saes=[])
    for path in ("saes/s", "saes/s2", "models/m"):
        assert await show(studio) is not None
        assert (await studio.call("DELETE", f"/api/{path}"))[0] == 204
    await gone(studio)
    assert not alive(shown["pid"]) and "model m was removed" in leases(studio)[0]["reason"]


async def test_nothing_begins_for_who_has_gone_before_being_let_in(studio: Studio) -> None:
    await start(studio, saes=["s"])
    async with studio.app[SESSION]._admitting:  # as while another one's session ends
        waiting = asyncio.create_task(ask(studio, steer("o"), if_busy="pause"))
        await asyncio.sleep(0.1)
        waiting.cancel()
    await asyncio.sleep(0.3)
    assert (await show(studio))["model"] == "m" and len(leases(studio)) == 1


async def test_stop_ends_it_and_who_asks_is_told(studio: Studio) -> None:
    busy = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=4000, samples=2)))
    pid = (await until_state(studio, "busy"))["pid"]
    waiting = asyncio.create_task(ask(studio, steer()))
    await joined(studio, 2)
    assert (await studio.call("DELETE", "/api/session"))[0] == 204
    assert await show(studio) is None and not alive(pid)
    for task in (busy, waiting):
        with pytest.raises(Conflict, match="the session was stopped"):
            await task


async def test_the_daemons_end_is_the_sessions_end(studio: Studio) -> None:
    busy = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=4000, samples=2)))
    pid = (await until_state(studio, "busy"))["pid"]
    await studio.server.close()
    with pytest.raises(Conflict, match="the studio is stopping"):
        await busy
    assert not alive(pid) and leases(studio)[0]["released_at"]


async def test_nobody_is_let_in_while_the_daemon_ends(studio: Studio) -> None:
    studio.app[SESSION].shut()
    with pytest.raises(Conflict, match="the studio is stopping"):
        await ask(studio, steer())
    assert leases(studio) == []


async def test_what_it_does_is_told_to_those_who_follow(studio: Studio) -> None:
    async with studio.session.get(studio.server.make_url("/api/events?topics=session")) as stream:
        asked = asyncio.create_task(ask(studio, steer("w"), keep_alive=0))
        states = []
        while not states or states[-1] is not None:
            line = (await asyncio.wait_for(stream.content.readline(), 20)).decode()
            if line.startswith("data: "):
                told = json.loads(line[6:])
                answers.SessionShown.model_validate(told)
                states.append(told["session"] and told["session"]["state"])
        await asked
    assert states[0] == "loading"


# -- what is asked for ------------------------------------------------------------------------------------------------


async def test_an_sae_of_another_model_is_refused_with_both_models(studio: Studio) -> None:
    edits = [{"feature": 1}, {"feature": 2, "sae": "o"}]
    with pytest.raises(Invalid, match="o is of the model other, not of m") as refused:
        await ask(studio, steer(steering=edits))
    assert refused.value.fields is not None and "steering" in refused.value.fields
    with pytest.raises(Invalid, match="s is of the model m, not of other"):
        await ask(studio, Load(model="other", saes=["s"]))
    with pytest.raises(Invalid, match="every edit must name its SAE"):
        await ask(studio, Complete(model="m", prompt="x", steering=[Edit(feature=1)]))
    assert leases(studio) == []


async def test_what_is_not_there_is_not_found(studio: Studio) -> None:
    with pytest.raises(NotFound, match="no sae 'nobody'"):
        await ask(studio, steer("nobody"))
    assert (await start(studio, model="nobody"))[0] == 404
    assert (await start(studio))[0] == 400


@pytest.mark.parametrize(
    "body",
    [{"keep_alive": "soon"}, {"keep_alive": "0"}, {"hold": "2h"}, {"hold": 0}, {"hold": -1}, {"if_busy": "kill"},
     {"keep_alive": "x" * 50}, {"precision": "fp8"}],
)  # fmt: skip
async def test_bad_input_starts_nothing(studio: Studio, body: dict[str, Any]) -> None:
    status, refused = await start(studio, saes=["s"], **body)
    assert status == 400 and next(iter(body)) in str(refused["error"]["fields"])
    assert leases(studio) == []


async def test_the_session_folder_holds_the_order_and_the_log_of_this_start_alone(studio: Studio) -> None:
    await start(studio, saes=["s"])
    await start(studio, saes=["o"])
    folder = studio.data / "session"
    assert json.loads((folder / "spec.json").read_text())["spec"]["model"] == "other"
    assert (folder / "log.txt").read_text().count("fake session") == 1


async def test_a_worker_that_is_told_to_end_from_outside_does_not_say_that_nobody_waited(studio: Studio) -> None:
    writing = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=4000, samples=2)))
    shown = await until_state(studio, "busy")
    os.kill(shown["pid"], signal.SIGTERM)
    with pytest.raises(SessionFailed, match="has died"):
        await writing
