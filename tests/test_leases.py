"""Who has the GPU: jobs and sessions, one at a time, whatever comes between."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, train
from sessions import alive, ask, gone, leases, prepared, show, start, steer, until_state

from mistudiod import host
from mistudiod.api.keys import BUS, DATABASE, INDEX, JOBS, LEASES, SCHEDULER, SESSION
from mistudiod.bus import Subscription
from mistudiod.database import Database
from mistudiod.errors import GpuBusy, OutOfMemory
from mistudiod.jobs import State
from mistudiod.keep_alive import FOREVER, Stay, held_s, seconds_of
from mistudiod.leases import Leases
from mistudiod.specs import JobRequest
from mistudiod.store import Jobs
from mistudiod.turn import Turn

SLOW = {"prompt": "slow", "max_tokens": 4000, "samples": 2}  # 80 s of writing


@pytest.fixture
async def studio(open_studio: OpenStudio) -> Studio:
    return await prepared(await open_studio(session_grace_s=0.5))


async def job_of(studio: Studio, name: str, state: str = "running") -> int:
    job = await studio.submit(train(name))
    await studio.until(job["id"], state)
    return int(job["id"])


async def queued(studio: Studio, name: str) -> int:
    return int((await studio.submit(train(name)))["id"])


async def seen(studio: Studio, job: int) -> None:
    """Until the session knows of the job that waits for the GPU."""
    session = studio.app[SESSION]._session
    while session._job is None or session._job["id"] != job:
        await asyncio.sleep(0.01)


async def pausing(studio: Studio, job: int, told: Subscription) -> None:
    """Until the job has been asked to make room: heard here and now, for it may soon have gone."""
    words = (f'"id":{job},'.encode(), b'"state":"pausing"')
    while not any(all(word in one.record for word in words) for one in await told.take()):
        pass


def seconds(text: str) -> float:
    """Since 1970, of what the API says."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


async def test_a_job_on_the_gpu_has_a_lease_from_its_claim_to_the_end_of_its_process(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    while not (held := leases(studio)[0])["pid"]:
        await asyncio.sleep(0.02)
    assert (held["job"], held["lane"], held["released_at"], alive(held["pid"])) == (job, "gpu", None, True)
    await studio.act(job, "stop")
    await studio.until(job)
    held = leases(studio)[0]
    assert held["reason"] == "stopped" and not alive(held["pid"])


async def test_a_job_beside_the_gpu_has_none(studio: Studio) -> None:
    await studio.until((await studio.submit(dataset("ok")))["id"])
    assert leases(studio) == []


async def test_of_those_that_were_given_back_the_last_thousand_are_known(studio: Studio) -> None:
    many = "insert into leases (lane, taken_at, released_at) values ('gpu', 'then', 'then')"
    await studio.app[DATABASE].write(lambda db: [db.execute(many) for _ in range(1500)])
    await start(studio, saes=["s"])
    kept = [row["id"] for row in leases(studio)]
    assert kept == list(range(502, 1502)) and leases(studio)[-1]["released_at"] is None


async def test_the_table_refuses_a_second_holder(studio: Studio) -> None:
    await start(studio, saes=["s"])
    with pytest.raises(sqlite3.IntegrityError):
        await studio.app[DATABASE].write(
            lambda db: db.execute("insert into leases (lane, taken_at) values ('gpu', 'now')")
        )


async def test_a_queued_job_takes_the_gpu_from_an_idle_session_at_once_whatever_its_keep_alive(studio: Studio) -> None:
    _, shown = await start(studio, saes=["s"], keep_alive=-1)
    job = await studio.submit(train("ok"))
    assert (await studio.until(job["id"]))["state"] == "done"
    assert not alive(shown["pid"]) and await show(studio) is None
    session, its = leases(studio)
    assert seconds(its["taken_at"]) - seconds(job["created_at"]) < 3
    assert session["released_at"] <= its["taken_at"] and f"job {job['id']} (train ok)" in session["reason"]


async def test_inspecting_a_text_takes_it_too_and_not_from_one_that_holds_it(studio: Studio) -> None:
    await start(studio, saes=["s"])
    status, found = await studio.call("POST", "/api/saes/s/inspect", json={"text": "x"})
    assert status == 200 and found["sae"] == "s" and await show(studio) is None
    await start(studio, saes=["s"], hold="1m")
    status, body = await studio.call("POST", "/api/saes/s/inspect", json={"text": "x"})
    assert status == 409 and "holds the GPU until" in body["error"]["message"]
    assert (await show(studio))["state"] == "ready"


async def test_a_queued_job_takes_it_from_a_busy_one_after_the_grace_and_all_who_ask_are_told(studio: Studio) -> None:
    writing = asyncio.create_task(ask(studio, steer(**SLOW)))
    await until_state(studio, "busy")
    waiting = asyncio.create_task(ask(studio, steer()))
    while not studio.app[SESSION]._session._line:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    job = await queued(studio, "slow-a")
    for asked in (writing, waiting):
        with pytest.raises(GpuBusy, match="takes the GPU") as refused:
            await asked
        assert refused.value.about["job"]["id"] == job  # type: ignore[index]
    assert 0.4 < time.monotonic() - began < 40
    await studio.until(job, "running")


async def test_a_request_that_ends_within_the_grace_is_answered_before_the_job_begins(open_studio: OpenStudio) -> None:
    studio = await prepared(await open_studio(session_grace_s=20.0))
    asked = asyncio.create_task(ask(studio, steer(prompt="slow", max_tokens=100)))  # 2 s of writing
    await until_state(studio, "busy")
    job = await queued(studio, "ok")
    await seen(studio, job)
    with pytest.raises(GpuBusy, match=f"job {job} .* is next on the GPU"):
        await ask(studio, steer())
    assert (await asked)[-1].event == "replied"
    assert (await studio.until(job))["state"] == "done"


async def test_nothing_is_written_for_one_who_goes_the_moment_he_is_let_in(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(studio, saes=["s"])
    sessions, admit = studio.app[SESSION], studio.app[SESSION]._admit

    async def admitted(*args: Any) -> Any:
        session = await admit(*args)
        while session.resident.active is None:  # the session is faster than the word to whoever asks
            await asyncio.sleep(0)
        asked.cancel()
        return session

    monkeypatch.setattr(sessions, "_admit", admitted)
    asked = asyncio.create_task(ask(studio, steer(**SLOW)))
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until_state(studio, "ready")


async def test_hold_keeps_queued_jobs_waiting_for_as_long_as_that(studio: Studio) -> None:
    await start(studio, saes=["s"])  # so that nothing of the time goes into loading
    began = time.monotonic()
    _, shown = await start(studio, saes=["s"], hold="1500ms")
    held_until = studio.app[SESSION]._session.stay.held_until
    assert shown["held_until"] and held_until >= began + 1.5
    job = await queued(studio, "ok")
    await seen(studio, job)
    assert (await ask(studio, steer()))[-1].event == "replied"
    found = await studio.get(f"/api/jobs/{job}")
    assert found["state"] == "queued" or time.monotonic() > held_until
    await studio.until(job, "done")
    taken_s = seconds(leases(studio)[-1]["taken_at"]) - time.time()
    assert taken_s >= held_until - time.monotonic() - 0.1


async def test_a_job_that_waits_for_another_does_not_disturb_a_session(studio: Studio) -> None:
    slow = await studio.submit(dataset("slow"))
    await start(studio, saes=["s"])
    job = await studio.submit(train("ok"), after=[slow["id"]])
    await asyncio.sleep(0.5)
    assert (await show(studio))["state"] == "ready"
    await studio.act(slow["id"], "stop")
    await studio.until(job["id"], "stopped")
    done = await studio.submit(dataset("ok"))
    job = await studio.submit(train("ok"), after=[done["id"]])
    assert (await studio.until(job["id"]))["state"] == "done"  # runnable only once the other was done


# -- a session that is asked for while a job has the GPU -------------------------------------------------------------


async def test_while_a_job_runs_a_session_is_refused_with_the_job_and_the_choices(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    while not (await studio.get(f"/api/jobs/{job}"))["progress"]:
        await asyncio.sleep(0.02)
    status, body = await start(studio, saes=["s"])
    error = body["error"]
    assert (status, error["code"], error["choices"]) == (409, "gpu_busy", ["queue", "pause"])
    assert error["job"]["id"] == job and error["job"]["progress"]["stage"] == "work" and "eta_s" in error["job"]
    assert f"job {job} (train slow-a: work" in error["message"]
    with pytest.raises(GpuBusy):
        await ask(studio, steer())


async def test_a_job_that_cannot_go_on_is_never_paused(studio: Studio) -> None:
    steering = {"kind": "steer", "sae": "slow", "prompt": "x", "steering": [{"feature": 1}]}
    job = await studio.app[JOBS].add(JobRequest.model_validate({"spec": steering}), [])
    await studio.until(job[0]["id"], "running")
    _, body = await start(studio, saes=["s"], if_busy="pause")
    assert body["error"]["choices"] == ["queue"] and "cannot be paused" in body["error"]["message"]
    assert (await studio.get(f"/api/jobs/{job[0]['id']}"))["state"] == "running"
    waiting = await queued(studio, "ok")
    await studio.act(job[0]["id"], "stop")
    assert (await studio.until(waiting))["state"] == "done"  # nothing is reserved any more


async def test_a_paused_job_goes_on_by_itself_when_the_session_ends(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    status, shown = await start(studio, saes=["s"], if_busy="pause")
    assert (status, shown["state"], shown["paused_jobs"]) == (200, "ready", [job])
    paused = await studio.get(f"/api/jobs/{job}")
    assert (paused["state"], paused["yielded"]) == ("paused", True)
    assert (await ask(studio, steer(), keep_alive=0))[-1].event == "replied"
    again = await studio.until(job, "running")
    assert (again["yielded"], again["attempts"]) == (False, 2)
    first, session, second = leases(studio)
    assert first["released_at"] <= session["taken_at"] and session["released_at"] <= second["taken_at"]


async def test_the_next_lease_is_the_sessions_however_many_jobs_wait(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    others = [(await studio.submit(train(f"ok-{n}"), priority=5))["id"] for n in range(2)]
    events = await ask(studio, steer(), if_busy="pause")
    assert events[-1].event == "replied"
    for other in others:
        await studio.until(other, "done")
    await studio.until(job, "running")
    order = [(row["job"], row["model"]) for row in leases(studio)]
    assert order[:2] == [(job, None), (None, "m")] and len(order) >= 4


async def test_a_job_that_ends_instead_of_pausing_makes_room_as_well(studio: Studio) -> None:
    job = await job_of(studio, "deaf")  # it is killed for not pausing, and counts as paused
    _, shown = await start(studio, saes=["s"], if_busy="pause")
    assert shown["paused_jobs"] == [job]
    await studio.act(job, "stop")
    assert (await show(studio))["state"] == "ready"
    await studio.call("DELETE", "/api/session")
    assert (await studio.get(f"/api/jobs/{job}"))["state"] == "stopped"


@pytest.mark.parametrize("ends", ["damaged", "stop", "kill", "replaced"])
async def test_the_jobs_are_given_back_whatever_ends_the_session(studio: Studio, ends: str) -> None:
    job = await job_of(studio, "slow-a")
    if ends == "damaged":
        assert (await start(studio, saes=["broken"], if_busy="pause"))[0] == 400
    else:
        _, shown = await start(studio, saes=["s"], if_busy="pause")
        if ends == "replaced":
            _, other = await start(studio, saes=["o"])
            assert other["paused_jobs"] == [job]
            assert (await start(studio, saes=["broken"]))[0] == 400
        elif ends == "stop":
            await studio.call("DELETE", "/api/session")
        else:
            os.killpg(shown["pid"], signal.SIGKILL)
    await studio.until(job, "running")
    assert await show(studio) is None and studio.app[LEASES].reserved is False


async def test_a_person_who_lets_a_paused_job_go_on_takes_the_gpu_from_the_session(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    await start(studio, saes=["s"], if_busy="pause")
    await studio.act(job, "resume")
    await studio.until(job, "running")
    assert await show(studio) is None


async def test_a_person_who_stops_a_paused_job_is_heeded(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    await start(studio, saes=["s"], if_busy="pause")
    stopped = await studio.act(job, "stop")
    assert (stopped["state"], stopped["yielded"]) == ("stopped", False)
    while (await show(studio))["paused_jobs"]:
        await asyncio.sleep(0.02)
    await studio.call("DELETE", "/api/session")
    await asyncio.sleep(0.3)
    assert (await studio.get(f"/api/jobs/{job}"))["state"] == "stopped"


async def test_a_job_that_a_person_paused_stays_paused(studio: Studio) -> None:
    job = await job_of(studio, "slow-a")
    await studio.act(job, "pause")
    await studio.until(job, "paused")
    await ask(studio, steer(), if_busy="pause", keep_alive=0)
    await gone(studio)
    await asyncio.sleep(0.3)
    assert (await studio.get(f"/api/jobs/{job}"))["state"] == "paused"


async def test_one_that_stopped_for_a_full_disk_waits_for_a_person(tmp_path: Path) -> None:
    database = Database(tmp_path / "mistudio.db", tmp_path)
    await database.open()
    turn = Turn(0)
    store, table = Jobs(database, turn), Leases(database, turn)
    job, _ = await store.add(JobRequest.model_validate({"spec": train("a")}), [])
    await store.claim("gpu", [])
    asked = await table.take("m", insist=True, pause=True)
    assert asked.leaves and await table.paused() == [job["id"]]
    full = {"code": "disk_full", "message": "the disk is full"}
    await store.end_attempt(job["id"], [State.PAUSING, State.PAUSED], 75, "held", None, error=full)
    await table.release((await table.take("m", insist=True, pause=True)).lease, "ended")
    assert (await store.get(job["id"]))["state"] == "paused"
    await database.close()


async def test_who_gives_up_while_the_job_pauses_gives_it_back(studio: Studio) -> None:
    job = await job_of(studio, "deaf")
    with studio.app[BUS].subscribe(frozenset({"job"})) as told:
        asked = asyncio.create_task(ask(studio, steer(), if_busy="pause", keep_alive=0))
        await pausing(studio, job, told)
    asked.cancel()
    await studio.call("DELETE", "/api/session")
    found = await studio.until(job, "running")
    assert found["attempts"] == 2 and await show(studio) is None


async def test_no_session_begins_in_a_paused_jobs_place_when_nobody_waits_for_it_any_more(studio: Studio) -> None:
    job = await job_of(studio, "deaf")
    with studio.app[BUS].subscribe(frozenset({"job"})) as told:
        asked = asyncio.create_task(ask(studio, steer(), if_busy="pause"))
        await pausing(studio, job, told)
    asked.cancel()
    assert (await studio.until(job, "running"))["attempts"] == 2
    assert await show(studio) is None and leases(studio)[1]["reason"] == "nobody waits for the session any more"


async def test_a_database_that_refuses_a_reading_leaves_no_job_paused(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, real, locked = await job_of(studio, "slow-a"), studio.app[DATABASE].read, [True]

    async def read(function: Any) -> Any:
        if function.__module__ == "mistudiod.leases" and locked and locked.pop():
            raise sqlite3.OperationalError("database is locked")
        return await real(function)

    monkeypatch.setattr(studio.app[DATABASE], "read", read)
    assert (await ask(studio, steer(), if_busy="pause", keep_alive=0))[-1].event == "replied"
    assert (await studio.until(job, "running"))["attempts"] == 2


async def test_a_restart_ends_the_orphan_of_a_session_closes_its_lease_and_gives_the_jobs_back(
    open_studio: OpenStudio,
) -> None:
    studio = await prepared(await open_studio())
    job = await job_of(studio, "slow-a")
    _, shown = await start(studio, saes=["s"], if_busy="pause")
    held = leases(studio)[-1]
    await studio.server.close()
    # As a daemon that was killed leaves it: the lease is open, its process runs, the job is paused.
    orphan = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    left = (orphan.pid, Path(f"/proc/{orphan.pid}/stat").read_text().rpartition(")")[2].split()[19], held["id"])
    with sqlite3.connect(studio.data / "mistudio.db") as db:
        db.execute("update leases set released_at = null, reason = null, pid = ?, pid_starttime = ? where id = ?", left)
        db.execute("update jobs set state = 'paused', yielded = 1 where id = ?", (job,))
    db.close()
    studio = await open_studio()
    assert await orphan.wait() == -9
    assert leases(studio)[held["id"] - 1]["reason"] == "the daemon ended"
    assert (await studio.until(job, "running"))["yielded"] is False
    assert shown["pid"] != orphan.pid


async def test_a_lost_database_gives_back_what_was_paused_for_a_session(open_studio: OpenStudio) -> None:
    studio = await prepared(await open_studio())
    job = await job_of(studio, "slow-a")
    await start(studio, saes=["s"], if_busy="pause")
    record = studio.data / "runs" / str(job) / "job.json"
    while not record.exists():
        await asyncio.sleep(0.02)
    kept = record.read_text()
    assert '"yielded": true' in kept
    await studio.server.close()
    (studio.data / "mistudio.db").unlink()
    record.write_text(kept)
    studio = await open_studio()
    await studio.until(job, "running")


# -- how long, pure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("90", 90), (90, 90), ("1.5h", 5400), ("250ms", 0.25), ("0", 0), (0, 0), ("0s", 0),
     (-1, FOREVER), ("-1", FOREVER), ("-5m", FOREVER), (" 10s ", 10)],
)  # fmt: skip
def test_durations_are_read_as_ollama_reads_them(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "5 m", "5x", "nan", "inf", "1e3", float("nan"), "9999h", "5m5", "--5m", "٥m"]
)
def test_what_is_no_duration_is_said_in_a_sentence(text: Any) -> None:
    with pytest.raises(ValueError, match=r"is no duration|longer than a year"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["0", "-1", "61m", "nonsense"])
def test_a_hold_is_a_second_to_an_hour(text: str) -> None:
    with pytest.raises(ValueError):
        held_s(text)
    assert held_s("1h") == 3600


def test_when_a_session_makes_room() -> None:
    stay = Stay(300, used_at=10)
    assert stay.expires_at() == 310 and Stay(FOREVER, 10).expires_at() is None
    assert (stay.yields_at(50, False, 30), stay.yields_at(50, True, 30)) == (50, 80)
    held = Stay(300, 10, held_until=70)
    assert (held.yields_at(50, False, 30), held.yields_at(50, True, 30), held.yields_at(90, False, 30)) == (70, 100, 90)
    insisted = Stay(300, 10, insisted=True)
    assert insisted.yields_at(50, True, 30) is None
    insisted.loaded_at = 60
    assert (insisted.yields_at(50, True, 30), insisted.yields_at(50, False, 30)) == (90, 60)


async def test_what_a_job_of_steering_has_written_is_kept_before_it_is_done(studio: Studio) -> None:
    kept = []

    async def keep(spec: Any, result: Any, job: int) -> None:
        kept.append((spec["prompt"], result["spec"]["prompt"], job, (await studio.app[JOBS].get(job))["state"]))

    studio.app[SCHEDULER]._keep = keep
    put_artifact(studio.data, "saes", "ok", "recipe.json")
    await studio.app[INDEX].rebuild()
    job = await studio.submit({"kind": "steer", "sae": "ok", "prompt": "x", "steering": [{"feature": 1}]})
    await studio.until(job["id"], "done")
    assert kept == [("x", "x", job["id"], "running")]


async def test_the_kernels_kill_for_memory_counts_as_too_little_of_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter(range(100))
    monkeypatch.setattr(host, "oom_kills", lambda: next(kills))
    events = await ask(studio, steer(prompt="hello"))
    assert events[-1].event == "replied"
    with pytest.raises(OutOfMemory):
        await ask(studio, steer(prompt="die"))
    assert studio.app[SESSION].shown() is None
