"""Who steers again and again, and has jobs make room each time, does not keep them from getting ahead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact, train
from sessions import ask, gone, leases, prepared, show, start, steer, until_state

from mistudiod.api.keys import INDEX, LEASES, SCHEDULER, SESSION
from mistudiod.errors import Conflict, GpuBusy, SessionBusy
from mistudiod.turn import Turn

TURN_S = 3.0


@pytest.fixture
async def studio(open_studio: OpenStudio) -> Studio:
    return await prepared(await open_studio(session_grace_s=TURN_S))


async def given_back(studio: Studio, name: str = "slow-a") -> int:
    """A training that has made room once, and goes on."""
    job = int((await studio.submit(train(name)))["id"])
    await studio.until(job, "running")
    assert (await ask(studio, steer(), if_busy="pause", keep_alive=0))[-1].event == "replied"
    return job


async def waiting(studio: Studio, job: int, **options: Any) -> tuple[asyncio.Task[Any], Any]:
    """Somebody who asks during the job's turn, and what is shown of their session."""
    asked = asyncio.create_task(ask(studio, steer(), if_busy="pause", keep_alive=0, **options))
    while (shown := await show(studio)) is None or (shown["progress"] or {}).get("stage") != ahead(job):
        assert not asked.done()
        await asyncio.sleep(0.01)
    return asked, shown


def ahead(job: int) -> str:
    return f"let job {job} get ahead first"


async def test_a_training_is_at_work_for_its_turn_between_texts_that_are_asked_for_without_a_rest(
    studio: Studio,
) -> None:
    job = await given_back(studio)
    began = time.monotonic()
    for _ in range(3):
        assert (await ask(studio, steer(), if_busy="pause", keep_alive=0))[-1].event == "replied"
    assert time.monotonic() - began >= 3 * TURN_S
    assert (await studio.until(job, "running"))["attempts"] == 5
    order = [row["job"] for row in leases(studio)]
    assert order == [job, None] * 4 + [job]  # one after the other, however quickly the next text is asked for


async def test_the_first_time_a_job_makes_room_at_once(studio: Studio) -> None:
    job = int((await studio.submit(train("slow-a")))["id"])
    await studio.until(job, "running")
    events = await ask(studio, steer(), if_busy="pause")
    assert ahead(job) not in [event.stage for event in events if event.event == "progress"]


async def test_after_its_turn_it_makes_room_at_once_again(studio: Studio) -> None:
    job = await given_back(studio)
    await studio.until(job, "running")
    while studio.app[LEASES].turn.left_s:
        await asyncio.sleep(0.05)
    events = await ask(studio, steer(), if_busy="pause")
    assert ahead(job) not in [event.stage for event in events if event.event == "progress"]


async def test_who_waits_for_the_end_of_its_turn_is_told_so(studio: Studio) -> None:
    job = await given_back(studio)
    asked, shown = await waiting(studio, job)
    assert (shown["state"], shown["paused_jobs"]) == ("loading", [])
    told = [event for event in await asked if event.event == "progress" and event.stage == ahead(job)]
    assert told and all(event.eta_s is None or event.eta_s <= TURN_S for event in told)


async def test_who_gives_up_meanwhile_leaves_the_job_at_work(studio: Studio) -> None:
    job = await given_back(studio)
    asked, _ = await waiting(studio, job)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    await gone(studio)
    await asyncio.sleep(TURN_S)
    found = await studio.get(f"/api/jobs/{job}")
    assert (found["state"], found["attempts"]) == ("running", 2) and not studio.app[LEASES].reserved


async def test_a_session_that_is_stopped_meanwhile_ends_at_once(open_studio: OpenStudio) -> None:
    studio = await prepared(await open_studio(session_grace_s=60.0))
    job = await given_back(studio)
    asked, _ = await waiting(studio, job)
    began = time.monotonic()
    assert (await studio.call("DELETE", "/api/session"))[0] == 204
    with pytest.raises(Conflict, match="the session was stopped"):
        await asked
    assert time.monotonic() - began < 30
    assert (await studio.get(f"/api/jobs/{job}"))["attempts"] == 2


async def test_the_daemons_end_is_not_held_up_by_who_waits(studio: Studio) -> None:
    job = await given_back(studio)
    asked, _ = await waiting(studio, job)
    studio.app[SESSION].shut()
    with pytest.raises(Conflict, match="the studio is stopping"):
        await asked


async def test_what_is_only_to_be_held_does_not_take_the_turn_either(studio: Studio) -> None:
    await given_back(studio)
    await gone(studio)
    status, body = await start(studio, saes=["s"], hold=60)
    assert (status, body["error"]["code"]) == (409, "gpu_busy")


async def test_a_turn_that_no_job_is_left_to_take_lets_the_session_in(studio: Studio) -> None:
    job = await given_back(studio)
    asked, _ = await waiting(studio, job)
    await studio.act(job, "stop")
    assert (await asked)[-1].event == "replied"
    assert studio.app[LEASES].turn.left_s == 0


async def test_a_job_that_takes_longer_to_be_at_work_is_waited_for(studio: Studio) -> None:
    job = await given_back(studio, "late-slow-a")
    asked, shown = await waiting(studio, job)
    assert shown["progress"]["eta_s"] is None
    assert (await asked)[-1].event == "replied"
    held = [row for row in leases(studio) if row["job"] == job][1]
    assert seconds(held["released_at"]) - seconds(held["taken_at"]) > 1.9 + TURN_S  # it loads for 2 s


async def test_without_a_wish_for_room_it_is_refused_as_ever(studio: Studio) -> None:
    job = await given_back(studio)
    await studio.until(job, "running")
    with pytest.raises(GpuBusy):
        await ask(studio, steer())
    assert await show(studio) is None


async def test_who_wants_to_be_refused_is_refused_while_another_waits(studio: Studio) -> None:
    job = await given_back(studio, "late-slow-a")
    asked, _ = await waiting(studio, job)
    await studio.until(job, "running")
    with pytest.raises(GpuBusy, match=f"job {job} "):
        await ask(studio, steer())
    with pytest.raises(SessionBusy, match=r"the session waits for the GPU with m .*ask for other"):
        await ask(studio, steer("o"), if_busy="pause")
    assert (await asked)[-1].event == "replied"


async def test_loading_a_model_is_no_work(studio: Studio) -> None:
    job = await given_back(studio, "late-slow-a")
    for _ in range(2):
        assert (await ask(studio, steer(), if_busy="pause", keep_alive=0))[-1].event == "replied"
    for held in [row for row in leases(studio) if row["job"] == job][1:-1]:
        assert seconds(held["released_at"]) - seconds(held["taken_at"]) > 2 + TURN_S - 0.1


def seconds(at: str) -> float:
    return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()


@pytest.mark.parametrize("keep_alive", [0, 60])
async def test_a_training_that_never_had_the_gpu_is_let_in_as_well(studio: Studio, keep_alive: int) -> None:
    asked = asyncio.create_task(
        ask(studio, steer(prompt="slow", max_tokens=50), if_busy="pause", keep_alive=keep_alive)
    )
    await until_state(studio, "busy")
    job = int((await studio.submit(train("slow-a")))["id"])
    await asked
    for _ in range(3):
        await ask(studio, steer(), if_busy="pause", keep_alive=keep_alive)
    assert (await studio.get(f"/api/jobs/{job}"))["attempts"] >= 1


async def test_the_gpu_is_held_from_when_the_session_has_it(studio: Studio) -> None:
    await given_back(studio, "late-slow-a")
    await gone(studio)
    status, shown = await start(studio, saes=["s"], keep_alive=60, hold=4, if_busy="pause")  # it waits for longer
    assert status == 200 and shown["held_until"] is not None


async def test_who_joins_one_that_waits_holds_it_no_longer_than_wanted(studio: Studio) -> None:
    await given_back(studio, "late-slow-a")
    await gone(studio)
    first = asyncio.create_task(start(studio, saes=["s"], keep_alive=60, if_busy="pause"))
    await asyncio.sleep(1)
    wanted = datetime.now(timezone.utc).timestamp() + 60
    joined = await start(studio, saes=["s"], keep_alive=60, hold=60, if_busy="pause")
    assert (await first)[0] == joined[0] == 200
    assert seconds(joined[1]["held_until"]) <= wanted + 1


async def test_once_the_turn_is_over_nobody_is_told_to_wait_for_it(studio: Studio) -> None:
    job = await given_back(studio)
    asked, _ = await waiting(studio, job)
    seen = []
    while not asked.done():
        if (shown := await show(studio)) and shown["paused_jobs"] == [job]:
            seen.append((shown["progress"] or {}).get("stage"))
        await asyncio.sleep(0.005)
    assert seen and ahead(job) not in seen


@pytest.mark.parametrize(("does", "state"), [("stop", "stopped"), ("pause", "paused")])
async def test_a_turn_ends_with_its_job_and_is_no_other_jobs(studio: Studio, does: str, state: str) -> None:
    job = await given_back(studio, "late-slow-a")
    await studio.until(job, "running")
    await studio.act(job, does)
    await studio.until(job, state)
    assert studio.app[LEASES].turn.left_s == 0


@pytest.mark.parametrize("does", ["stop", "pause"])
async def test_a_job_that_came_later_does_not_get_in_before_who_waits(studio: Studio, does: str) -> None:
    put_artifact(studio.data, "saes", "slow", "recipe.json", json.dumps({"model": {"name": "m"}}))
    await studio.app[INDEX].rebuild()
    job = await given_back(studio, "late-slow-a")
    asked, _ = await waiting(studio, job)
    await studio.submit({"kind": "inspect", "sae": "slow", "text": "x"})
    await studio.act(job, does)
    assert (await asked)[-1].event == "replied"


async def test_a_job_that_will_not_make_room_is_said_at_once(studio: Studio) -> None:
    put_artifact(studio.data, "saes", "slow", "recipe.json", json.dumps({"model": {"name": "m"}}))
    await studio.app[INDEX].rebuild()
    asked = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=50), keep_alive=0))
    await until_state(studio, "busy")
    await studio.submit({"kind": "inspect", "sae": "slow", "text": "x"})
    await asked
    with pytest.raises(GpuBusy, match="inspect cannot be paused"):
        await ask(studio, steer(), if_busy="pause")


async def test_no_job_makes_room_for_nobody_when_the_turn_ends(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    job, room = await given_back(studio), studio.app[LEASES]
    take, taking = room.take, 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal taking
        taking += 1
        try:
            return await take(*args, **options)
        finally:
            taking -= 1

    monkeypatch.setattr(room, "take", counted)
    asked, _ = await waiting(studio, job)
    await studio.until(job, "running")
    while taking:  # else room may have been asked for before that moment
        await asyncio.sleep(0)
    room.turn.end()  # in the moment in which the only one who waits leaves
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    await gone(studio)
    await asyncio.sleep(0.3)
    assert (await studio.get(f"/api/jobs/{job}"))["attempts"] == 2


async def test_who_gives_up_does_not_make_the_turn_longer(studio: Studio) -> None:
    job = await given_back(studio)
    await studio.until(job, "running")
    await studio.submit(train("slow-b"))  # waits too
    while studio.app[LEASES].turn.left_s == math.inf:
        await asyncio.sleep(0.02)
    asked, _ = await waiting(studio, job)
    asked.cancel()
    await gone(studio)
    assert studio.app[LEASES].turn.left_s < TURN_S


async def test_a_job_that_dies_before_it_works_does_not_keep_the_turn_for_ever(studio: Studio) -> None:
    job = await given_back(studio)
    asked = asyncio.create_task(ask(studio, steer(), if_busy="pause", keep_alive=0))
    while not asked.done():
        for pid in studio.app[SCHEDULER].pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
    assert (await asked)[-1].event == "replied"
    assert (await studio.get(f"/api/jobs/{job}"))["state"] == "failed"


def test_a_turn_begins_when_a_job_comes_further_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr("mistudiod.turn.time.monotonic", lambda: at[0])
    turn = Turn(30)
    assert turn.left_s == 0
    turn.sees(7, "train", 1, 100)  # nobody has waited
    turn.sees(7, "train", 2, 100)
    assert turn.left_s == 0
    turn.begin()
    at[0] += 400
    for stage, done in (("load model", 0), ("load model", 1), ("train", 2)):
        turn.sees(7, stage, done, 100)
    assert turn.left_s == math.inf
    turn.sees(7, "train", 3, 100)
    at[0] += 10
    turn.sees(7, "train", 4, 100)
    assert turn.left_s == 20
    at[0] += 21
    assert turn.left_s == 0
    turn.begin()
    turn.end()
    assert turn.left_s == 0
    turn.begin()
    at[0] += 481  # it never comes to work
    assert turn.left_s == 0


Attempt = list[tuple[str, list[float], float]]  # of each stage what it tells of how much


def turns_of(monkeypatch: pytest.MonkeyPatch, *attempts: tuple[int, Attempt]) -> list[float]:
    """How long each turn is at work; of each its job, and what that tells."""
    monkeypatch.setattr("mistudiod.turn.time.monotonic", lambda: 100.0)
    turn, turns = Turn(30), []
    for job, stages in attempts:
        turn.begin()
        turn.sees(job, "load model", 0, 1)
        turn.sees(job, "load model", 1, 1)
        for stage, told, total in stages:
            for done in told:
                turn.sees(job, stage, done, total)
        turns.append(turn.left_s)
    return turns


def test_a_job_that_keeps_nothing_of_its_turn_has_a_longer_one_next(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring: Attempt = [("train", [100], 100), ("measure", [0, 10, 20], 50)]
    told = [[("train", [90, 95], 100)], *[measuring] * 7, [("train", [0, 5], 100)]]
    assert turns_of(monkeypatch, *((7, one) for one in told)) == [30, 30, 60, 120, 240, 480, 480, 480, 30]


def test_an_extraction_that_writes_all_anew_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Attempt] = [
        [("read text", [900], 900), ("neighbours", [0, 30], 90)],
        [("read text", [900], 900), ("neighbours", [0, 90], 90), ("write", [0, 5], 90)],
        [("read text", [900], 900), ("neighbours", [0, 90], 90), ("write", [0, 90], 90), ("sort", [0], 9)],
    ]
    assert turns_of(monkeypatch, *((7, one) for one in ends)) == [30, 60, 120]


def test_a_job_that_keeps_only_a_part_of_its_turn_gets_ahead_and_has_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = [(7, [("read text", [float(n * 20), n * 20 + 30.0], 900.0)]) for n in range(5)]
    assert turns_of(monkeypatch, *shards) == [30] * 5


def test_labels_that_are_fewer_each_time_are_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [(7, [("label", [0.0, 1.0, 9.0], 100.0 - 9 * n)]) for n in range(5)]
    assert turns_of(monkeypatch, *labels) == [30] * 5


def test_what_one_job_has_lost_is_not_told_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: Attempt = [("measure", [0, 10], 50)]
    jobs = [(7, lost), (7, lost), (7, lost), (8, lost), (8, lost)]
    assert turns_of(monkeypatch, *jobs) == [30, 60, 120, 30, 60]
