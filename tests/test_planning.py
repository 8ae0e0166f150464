"""A plan before every training: what the daemon feeds the planner with, tells the worker, and learns from a run."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact, train

import mistudiod
from mistudiod.api.keys import MONITOR
from mistudiod.facts import read_facts
from mistudiod.monitor import Monitor
from mistudiod.planning import Job, Planning, told

PICO = Path(mistudiod.__file__).parent / "demo" / "pico"
TOKENIZATION = {"model": "pico", "context": 128, "train_windows": 1000, "held_out_windows": 20, "tokens": 130_000}


@pytest.fixture
async def studio(open_studio: OpenStudio, tmp_path: Path) -> Studio:
    data = tmp_path / "data"
    model = {"name": "pico", "source": "builtin:pico", "path": str(PICO), **asdict(read_facts(PICO))}
    put_artifact(data, "models", "pico", "model.json", json.dumps(model))
    put_artifact(data, "tokens", "t", "tokenization.json", json.dumps(TOKENIZATION))
    return await open_studio()


async def planned(studio: Studio, **fields: Any) -> Any:
    status, body = await studio.call("POST", "/api/plan", json={"spec": train("s", **fields)})
    assert status == 200, body
    return body


def order(studio: Studio, job: int) -> Any:
    return json.loads((studio.data / "runs" / str(job) / "spec.json").read_text())


async def be_short_of_memory(studio: Studio, monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """From now on the monitor reads that no more is free."""
    read = Monitor.read

    def short(self: Monitor) -> Any:
        found = read(self)
        found["memory"]["available_bytes"] = free_bytes
        return found

    monkeypatch.setattr(Monitor, "read", short)
    history = studio.app[MONITOR].history
    while not (history and history[-1]["memory"]["available_bytes"] == free_bytes):
        await asyncio.sleep(0.02)


async def test_a_plan_says_what_a_training_would_take_and_how_it_would_be_run(studio: Studio) -> None:
    found = await planned(studio)
    assert found["fits"] is True and found["verdict"].startswith("it fits: ")
    assert found["total_bytes"] == found["peak_bytes"] + found["budget"]["reserve_bytes"]
    assert found["choices"]["precision"] == {"value": "fp32", "automatic": True}
    assert (found["layers"], found["measured"], found["seconds"]) == (1, False, None)


async def test_what_a_person_set_is_planned_with_and_is_not_automatic(studio: Studio) -> None:
    found = await planned(studio, precision="nf4", micro_tokens=512)
    assert found["choices"]["precision"] == {"value": "nf4", "automatic": False}
    assert found["choices"]["micro_tokens"] == {"value": 512, "automatic": False}


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"hook": "blocks.99.hook_resid_post"}, "hook"), ({"tokenization": "missing"}, None), ({"k": 0}, "spec.train.k")],
)
async def test_a_plan_of_what_cannot_be_trained_names_the_field(studio: Studio, fields: Any, field: str | None) -> None:
    status, body = await studio.call("POST", "/api/plan", json={"spec": train("s") | fields})
    assert status == (400 if field else 404)
    if field:
        assert any(name.endswith(field.split(".")[-1]) for name in body["error"]["fields"])


async def test_the_machine_is_asked_once_what_it_can_do_and_again_after_a_new_version(
    studio: Studio, open_studio: OpenStudio
) -> None:
    await planned(studio)
    await planned(studio)
    assert len(list(studio.data.glob("probed-*"))) == 1
    await studio.server.close()
    again = await open_studio()
    await planned(again)
    assert len(list(studio.data.glob("probed-*"))) == 1
    await again.server.close()
    kept = json.loads((studio.data / "abilities.json").read_text())
    kept["asked_of"]["libraries"]["torch"] = "0.1"
    (studio.data / "abilities.json").write_text(json.dumps(kept))
    await planned(await open_studio())
    assert len(list(studio.data.glob("probed-*"))) == 2


async def test_a_precision_that_does_not_work_here_is_never_chosen(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await be_short_of_memory(studio, monkeypatch, 400_000_000)
    found = await planned(studio, width=256, batch_tokens=256)
    assert found["fits"] is False
    assert "int8" not in found["verdict"], "the fake worker says that it does not work"


async def test_a_precision_that_does_not_work_here_is_refused_with_the_reason(studio: Studio) -> None:
    status, body = await studio.call("POST", "/api/plan", json={"spec": train("s", precision="int8")})
    assert (status, body["error"]["fields"]) == (400, {"precision": "it does not work"})


async def test_a_job_keeps_its_plan_and_its_worker_is_told_the_choices(studio: Studio) -> None:
    job = await studio.submit(train("ok"))
    done = await studio.until(job["id"])
    assert done["state"] == "done"
    assert done["plan"]["peak_bytes"] > 0 and done["plan"]["restarts"] == 0
    assert done["result"]["peak_bytes"] == 600_000_000
    values = {name: choice["value"] for name, choice in done["plan"]["choices"].items()}
    assert order(studio, job["id"])["choices"] == values


async def test_what_runs_shows_what_it_was_expected_to_take(studio: Studio) -> None:
    job = await studio.submit(train("slow"))
    running = await studio.until(job["id"], "running")
    while not (found := await studio.get("/api/ps"))["running"][0]["pid"]:
        pass
    assert found["running"][0]["predicted_bytes"] == (await studio.get(f"/api/jobs/{job['id']}"))["plan"]["peak_bytes"]
    assert running["kind"] == "train"
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])


async def test_a_job_whose_plan_is_still_made_is_shown_without_a_worker(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, seen = Planning.for_job, asyncio.Event()

    async def late(self: Planning, job: Job, goes_on: bool) -> Any:
        await seen.wait()
        return await planned(self, job, goes_on)

    monkeypatch.setattr(Planning, "for_job", late)
    job = await studio.submit(train("slow"))
    await studio.until(job["id"], "running")
    [found] = (await studio.get("/api/ps"))["running"]
    assert (found["job"], found["kind"], found["state"]) == (job["id"], "train", "running")
    assert found["pid"] is found["measured_bytes"] is found["predicted_bytes"] is None
    seen.set()
    while not (await studio.get("/api/ps"))["running"][0]["pid"]:
        pass
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])


async def test_a_job_that_does_not_fit_is_refused_with_numbers_before_a_worker_is_started(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await be_short_of_memory(studio, monkeypatch, 700_000_000)
    job = await studio.submit(train("ok", width=65536))
    failed = await studio.until(job["id"])
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "out_of_memory"
    assert failed["error"]["message"].startswith("it does not fit: it takes ")
    assert not list((studio.data / "runs" / str(job["id"])).glob("attempt-*"))


async def test_a_worker_that_runs_out_of_memory_is_started_again_with_half_as_much_at_a_time(studio: Studio) -> None:
    job = await studio.submit(train("hungry"))
    done = await studio.until(job["id"])
    assert (done["state"], done["attempts"], done["plan"]["restarts"]) == ("done", 3, 2)
    assert order(studio, job["id"])["choices"]["micro_tokens"] == 1024, "4096, 2048, 1024"
    assert done["spec"]["batch_tokens"] == 4096, "the step stays what it was"


async def test_after_three_restarts_it_fails_and_says_so_and_a_retry_has_three_again(studio: Studio) -> None:
    job = await studio.submit(train("greedy"))
    failed = await studio.until(job["id"])
    assert (failed["state"], failed["attempts"]) == ("failed", 4)
    assert failed["error"]["code"] == "out_of_memory"
    await studio.act(job["id"], "retry")
    assert (await studio.until(job["id"], "failed"))["attempts"] == 8


async def test_what_a_person_set_is_not_halved(studio: Studio) -> None:
    job = await studio.submit(train("greedy", micro_tokens=4096, forward_tokens=4096))
    failed = await studio.until(job["id"])
    assert (failed["state"], failed["attempts"]) == ("failed", 1)


async def test_a_run_that_was_measured_takes_the_formulas_place_and_tells_the_time(studio: Studio) -> None:
    before = await planned(studio)
    job = await studio.submit(train("ok"))
    assert (await studio.until(job["id"]))["state"] == "done"
    for _ in range(100):
        after = await planned(studio)
        if after["measured"]:
            break
    assert after["measured"] and after["peak_bytes"] == 600_000_000 != before["peak_bytes"]
    assert after["formula_bytes"] == before["formula_bytes"]
    assert after["seconds"] == pytest.approx(2_002_944 / 1000, abs=60)
    other = await planned(studio, precision="bf16")
    assert not other["measured"], "another precision is another run"


GPU_PLAN = {
    "choices": {
        "precision": {"value": "bf16", "automatic": True},
        "forward_tokens": {"value": 16384, "automatic": True},
    },
    "budget": {"device": "unified", "free_bytes": 6_000_000_000},
    "parts": [{"part": "weights", "bytes": 2 * 10**9}, {"part": "forward", "bytes": 10**9},
              {"part": "optimizer", "bytes": 10**9}, {"part": "reserve", "bytes": 5 * 10**8}],
    "measured": False,
}  # fmt: skip


def test_on_a_gpu_a_worker_is_told_to_measure_how_much_goes_through_the_model_unless_that_is_known() -> None:
    choices = {"precision": "bf16", "forward_tokens": 16384}
    assert told(GPU_PLAN) == {**choices, "size": {"budget_bytes": 4_500_000_000, "unified": True}}
    assert told(GPU_PLAN | {"measured": True}) == choices
    assert told(GPU_PLAN | {"budget": {"device": "cpu", "free_bytes": 1}}) == choices


async def test_a_model_of_an_older_version_is_trained_on_without_a_plan(
    open_studio: OpenStudio, tmp_path: Path
) -> None:
    put_artifact(tmp_path / "data", "models", "pico", "model.json", '{"name": "pico", "family": "llama"}')
    put_artifact(tmp_path / "data", "tokens", "t", "tokenization.json", json.dumps(TOKENIZATION))
    studio = await open_studio()
    status, body = await studio.call("POST", "/api/plan", json={"spec": train("s")})
    assert status == 400 and "add it again" in body["error"]["message"]
    job = await studio.submit(train("ok"))
    done = await studio.until(job["id"])
    assert (done["state"], done["plan"]) == ("done", None)
