"""Jobs from submission to end, with the fake worker in the place of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, train

from mistudiod import runner


async def test_a_job_runs_and_leaves_its_artifact_result_and_log(studio: Studio) -> None:
    job = await studio.submit(dataset("ok"))
    done = await studio.until(job["id"])
    assert done["state"] == "done"
    assert done["result"]["spec"]["name"] == "ok"
    assert done["progress"]["stage"] == "work"
    assert (await studio.get("/api/datasets/ok"))["rows"] == 3
    assert "fake worker, attempt 1" in (await studio.get(f"/api/jobs/{job['id']}/log"))["log"]


async def test_a_failure_keeps_the_workers_sentence_and_field(studio: Studio) -> None:
    job = await studio.submit(dataset("fail"))
    failed = await studio.until(job["id"])
    assert failed["state"] == "failed"
    assert failed["error"] == {"code": "invalid", "message": "there is no such file", "field": "source"}


async def test_a_worker_that_dies_without_a_word_fails_with_its_last_output(studio: Studio) -> None:
    failed = await studio.until((await studio.submit(dataset("silent")))["id"])
    assert failed["state"] == "failed"
    assert "exit code 70" in failed["error"]["message"]
    assert "last words" in failed["error"]["log"]


async def test_a_killed_worker_is_started_again(studio: Studio) -> None:
    done = await studio.until((await studio.submit(dataset("once")))["id"])
    assert (done["state"], done["attempts"]) == ("done", 2)


@pytest.mark.parametrize("death", ["die", "crash"])
async def test_a_worker_that_keeps_dying_is_given_up_after_three_times(studio: Studio, death: str) -> None:
    failed = await studio.until((await studio.submit(dataset(death)))["id"])
    assert (failed["state"], failed["attempts"]) == ("failed", 3)
    assert "3 times" in failed["error"]["message"]


async def test_what_a_dead_worker_left_half_written_is_removed_at_once(studio: Studio) -> None:
    await studio.until((await studio.submit(dataset("partial-die")))["id"])
    assert [p.name for p in (studio.data / "datasets").iterdir()] == []


async def test_a_worker_leads_its_own_group_and_is_the_first_to_go_when_memory_runs_out(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    pid = await worker_of(studio, job["id"])
    assert os.getpgid(pid) == pid
    own, its = (int(Path(f"/proc/{who}/oom_score_adj").read_text()) for who in ("self", pid))
    assert its >= max(own, 1)
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])


async def test_stop_ends_a_worker_that_listens(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    await studio.until(job["id"], "running")
    await studio.act(job["id"], "stop")
    assert (await studio.until(job["id"]))["state"] == "stopped"


@pytest.mark.parametrize("name", ["deaf", "hang"])
async def test_stop_ends_a_worker_that_does_not_listen(studio: Studio, name: str) -> None:
    job = await studio.submit(dataset(name))
    pid = await worker_of(studio, job["id"])
    await studio.act(job["id"], "stop")
    assert (await studio.until(job["id"]))["state"] == "stopped"
    assert not alive(pid)


async def test_pause_and_resume_is_a_second_attempt_of_the_same_job(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    await worker_of(studio, job["id"])
    await studio.act(job["id"], "pause")
    assert (await studio.until(job["id"]))["state"] == "paused"
    await studio.act(job["id"], "resume")
    await worker_of(studio, job["id"], attempt=2)
    await studio.act(job["id"], "stop")
    stopped = await studio.until(job["id"], "stopped")
    assert stopped["attempts"] == 2


async def test_a_silent_worker_is_ended_by_the_watchdog(open_studio: OpenStudio) -> None:
    studio = await open_studio(progress_limit_s=1.0)
    failed = await studio.until((await studio.submit(dataset("hang")))["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "hung")
    assert "no sign of life" in failed["error"]["message"]


async def test_garbage_on_the_pipe_is_dropped_and_the_job_goes_on(studio: Studio) -> None:
    done = await studio.until((await studio.submit(dataset("garbage")))["id"])
    assert done["state"] == "done"
    assert (await studio.get(f"/api/jobs/{done['id']}/metrics"))["metrics"] == []


async def test_a_flood_of_metrics_is_kept_whole_and_the_daemon_answers_meanwhile(studio: Studio) -> None:
    job = await studio.submit(dataset("flood"))
    while (found := await asyncio.wait_for(studio.get(f"/api/jobs/{job['id']}"), 5))["state"] != "done":
        await asyncio.sleep(0.05)
    page = await studio.get(f"/api/jobs/{found['id']}/metrics?limit=50000")
    assert [row["step"] for row in page["metrics"]] == list(range(20_000))
    rest = await studio.get(f"/api/jobs/{found['id']}/metrics?after_step=19990")
    assert [row["step"] for row in rest["metrics"]] == list(range(19_991, 20_000))


async def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_job(studio: Studio) -> None:
    assert (await studio.until((await studio.submit(dataset("child")))["id"]))["state"] == "done"


# Once it is told to go on, it says more than a reader holds for who is slow, and leaves the rest in the pipe.
LEAVES_MUCH = """
import json, os, sys
with os.fdopen(int(os.environ["MISTUDIO_EVENTS_FD"]), "wb", buffering=0) as pipe:
    for step in range(2800):
        pipe.write(json.dumps({"event": "metric", "step": step, "values": {"loss": 0.123456}}).encode() + b"\\n")
        if step == 0:
            sys.stdin.readline()
"""


async def test_what_a_dead_worker_has_said_is_heard_to_its_end_by_who_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_DRAIN_S", 0.1)
    worker = await runner.Worker.start(tmp_path, runner.Grace(1, 1, 60), (sys.executable, "-c", LEAVES_MUCH))
    steps = []
    async for event in worker.events():
        steps.append(event.step)
        if event.step == 0:
            worker.say("go on")
            await worker.process.wait()
            await asyncio.sleep(1)  # the database is busy, say
    assert (await worker.ended()).code == 0
    assert steps == list(range(2800))


async def test_three_io_jobs_run_at_once_and_the_rest_wait(studio: Studio) -> None:
    for i in range(5):
        await studio.submit(dataset(f"slow-{i}"))
    await running(studio, 3)
    await asyncio.sleep(0.2)
    states = [job["state"] for job in (await studio.get("/api/jobs"))["jobs"]]
    assert (states.count("running"), states.count("queued")) == (3, 2)


async def test_the_gpu_lane_is_one_wide_and_goes_by_priority_then_arrival(
    open_studio: OpenStudio, tmp_path: Path
) -> None:
    put_artifact(tmp_path / "data", "tokens", "t", "tokenization.json")
    studio = await open_studio()
    first = await studio.submit(train("slow"))
    await worker_of(studio, first["id"])
    ids = [(await studio.submit(train(f"a{i}"), priority=p))["id"] for i, p in enumerate([0, 0, 5])]
    await asyncio.sleep(0.2)
    assert [(await studio.get(f"/api/jobs/{i}"))["state"] for i in ids] == ["queued"] * 3
    await studio.act(first["id"], "stop")
    ended = [await studio.until(i) for i in ids]
    assert [job["id"] for job in sorted(ended, key=lambda job: job["started_at"])] == [ids[2], ids[0], ids[1]]


async def test_only_one_tokenization_runs_at_a_time(open_studio: OpenStudio, tmp_path: Path) -> None:
    put_artifact(tmp_path / "data", "datasets", "d", "dataset.json")
    put_artifact(tmp_path / "data", "models", "m", "model.json")
    studio = await open_studio()
    spec = {"kind": "tokenize", "dataset": "d", "model": "m"}
    ids = [(await studio.submit({**spec, "name": f"slow-{i}"}))["id"] for i in range(2)]
    await studio.submit(dataset("slow"))
    await running(studio, 2)
    await asyncio.sleep(0.2)
    assert [(await studio.get(f"/api/jobs/{i}"))["state"] for i in ids] == ["running", "queued"]


async def test_a_pipeline_waits_for_what_it_reads(studio: Studio) -> None:
    model = await studio.submit({"kind": "add_model", "source": "builtin:pico", "name": "m"})
    data = await studio.submit(dataset("slow"))
    tokens = await studio.submit({"kind": "tokenize", "dataset": "slow", "model": "m", "name": "t"})
    sae = await studio.submit(train("ok"))
    assert tokens["after"] in ([model["id"], data["id"]], [data["id"]])
    assert sae["after"] == [tokens["id"]]
    await worker_of(studio, data["id"])
    assert (await studio.get(f"/api/jobs/{sae['id']}"))["state"] == "queued"
    await studio.act(data["id"], "stop")
    for job in (tokens, sae):
        stopped = await studio.until(job["id"], "stopped")
        assert stopped["error"]["code"] == "dependency"
        assert "retry job" in stopped["error"]["message"]


async def test_retrying_the_failed_job_queues_those_that_waited_for_it(studio: Studio) -> None:
    bad = await studio.submit(dataset("fail"))
    good = await studio.submit(dataset("ok"), after=[bad["id"]])
    await studio.until(good["id"], "stopped")
    await studio.act(bad["id"], "retry")
    assert (await studio.until(bad["id"]))["attempts"] == 2
    assert (await studio.until(good["id"], "stopped"))["error"]["job"] == bad["id"]


async def test_a_name_is_made_once(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    status, body = await studio.call("POST", "/api/jobs", json={"spec": dataset("slow")})
    assert status == 409 and "name" in body["error"]["fields"]
    await studio.act(job["id"], "stop")
    await studio.until((await studio.submit(dataset("ok")))["id"])
    status, body = await studio.call("POST", "/api/jobs", json={"spec": dataset("OK")})
    assert status == 409, "names are folders, and some file systems ignore case"


async def test_an_unknown_input_is_refused_with_its_field_and_nothing_is_queued(studio: Studio) -> None:
    status, body = await studio.call("POST", "/api/jobs", json={"spec": train("x")})
    assert status == 400
    assert body["error"]["fields"] == {"tokenization": "there is no tokenization named 't'"}
    assert (await studio.get("/api/jobs"))["jobs"] == []


async def test_an_artifact_in_use_is_not_removed_and_an_unused_one_is(studio: Studio) -> None:
    put = await studio.until((await studio.submit(dataset("ok")))["id"])
    await studio.until((await studio.submit({"kind": "add_model", "source": "x", "name": "m"}))["id"])
    spec = {"kind": "tokenize", "dataset": "ok", "model": "m", "name": "slow"}
    job = await studio.submit(spec)
    status, body = await studio.call("DELETE", "/api/datasets/ok")
    assert status == 409 and f"job {job['id']}" in body["error"]["message"]
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])
    assert (await studio.call("DELETE", "/api/datasets/ok"))[0] == 204
    assert not (studio.data / "datasets" / "ok").exists()
    assert put["result"] is not None


async def test_a_finished_job_can_be_removed_and_a_live_one_not(studio: Studio) -> None:
    job = await studio.submit(dataset("slow"))
    await worker_of(studio, job["id"])
    assert (await studio.call("DELETE", f"/api/jobs/{job['id']}"))[0] == 409
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])
    assert (await studio.call("DELETE", f"/api/jobs/{job['id']}"))[0] == 204
    assert (await studio.call("GET", f"/api/jobs/{job['id']}"))[0] == 404
    assert not (studio.data / "runs" / str(job["id"])).exists()


async def test_a_stopping_daemon_lets_jobs_go_on_at_the_next_start(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    job = await studio.submit(dataset("slow"))
    pid = await worker_of(studio, job["id"])
    await studio.session.close()
    await studio.server.close()
    assert not alive(pid)
    again = await open_studio()
    await worker_of(again, job["id"], attempt=2)
    found = await again.get(f"/api/jobs/{job['id']}")
    assert (found["state"], found["attempts"]) == ("running", 2)


async def worker_of(studio: Studio, job: int, attempt: int = 1) -> int:
    """The process id that the fake worker of an attempt has written down."""
    note = studio.data / "runs" / str(job) / f"attempt-{attempt}"
    for _ in range(1000):
        with contextlib.suppress(OSError):
            if text := note.read_text():
                await studio.until(job, "running")
                return int(text)
        await asyncio.sleep(0.02)
    raise AssertionError(f"attempt {attempt} of job {job} did not start")


async def running(studio: Studio, count: int) -> None:
    for _ in range(500):
        states = [job["state"] for job in (await studio.get("/api/jobs"))["jobs"]]
        if states.count("running") == count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(states)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # it may also go while its file is read
        return False
