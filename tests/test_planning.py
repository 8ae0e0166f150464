"""A plan before every training: what the daemon feeds the planner with, tells the worker, and learns from a run."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact, train

import mistudiod
from mistudiod import monitor
from mistudiod.api.keys import INDEX, MONITOR, PLANNING
from mistudiod.database import Database
from mistudiod.facts import read_facts
from mistudiod.kept_activations import BITS, MANIFEST, VALUES, Kept, model_key, tokenization_key
from mistudiod.measurements import Measurements
from mistudiod.monitor import Monitor
from mistudiod.plan_measured import Measured
from mistudiod.planning import Job, Planning, halved, told
from mistudiod.specs import Train

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


async def measured(studio: Studio, limit_s: float = 60.0, **fields: Any) -> Any:
    """The plan once it goes by what a run took, which is kept after that run is done."""
    end = time.monotonic() + limit_s
    while not (found := await planned(studio, **fields))["measured"]:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)
    return found


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
    assert found["choices"]["whole_model"] == {"value": True, "automatic": True}
    assert (found["layers"], found["measured"], found["seconds"]) == (6, False, None), "the whole model is small"
    assert (found["saes"], found["passes"]) == (1, 1)


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
        assert any(field.split(".")[-1] in name.split(".") for name in body["error"]["fields"])


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
    job = await studio.submit(train("greedy", micro_tokens=4096, forward_tokens=4096, whole_model=True))
    failed = await studio.until(job["id"])
    assert (failed["state"], failed["attempts"]) == ("failed", 1)


async def test_a_run_that_was_measured_takes_the_formulas_place_and_tells_the_time(studio: Studio) -> None:
    before = await planned(studio)
    job = await studio.submit(train("ok"))
    assert (await studio.until(job["id"]))["state"] == "done"
    after = await measured(studio)
    assert after["peak_bytes"] == 600_000_000 != before["peak_bytes"]
    assert after["formula_bytes"] == before["formula_bytes"]
    assert after["seconds"] == pytest.approx(2_002_944 / 1000, abs=60)
    other = await planned(studio, precision="bf16")
    assert not other["measured"], "another precision is another run"


async def test_a_grid_is_planned_in_passes_and_the_worker_is_told_so(studio: Studio) -> None:
    fields = {"width": [2048, 4096], "seed": [0, 1, 2], "saes_at_once": 2, "whole_model": False}
    found = await planned(studio, **fields)
    assert (found["saes"], found["passes"]) == (6, 3)
    assert found["choices"]["saes_at_once"] == {"value": 2, "automatic": False}
    assert found["verdict"].endswith(" free, in 3 passes of 2 SAEs")
    job = await studio.submit(train("ok", **fields))
    await studio.until(job["id"])
    told_of = order(studio, job["id"])["choices"]
    assert (told_of["saes_at_once"], told_of["whole_model"], told_of["forward_tokens"]) == (2, False, 4096)


async def test_what_would_make_a_grid_fit_is_said_in_lists_and_switches(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await be_short_of_memory(studio, monkeypatch, 1_500_000_000)
    found = await planned(studio, width=[2048, 4096, 65536], saes_at_once=3, whole_model=True)
    ways = {way["field"]: way["value"] for way in found["ways"]}
    assert found["fits"] is False and ways["width"] == [2048, 4096] and ways["whole_model"] is False
    assert "width 2048,4096 (" in found["verdict"]


async def test_activations_that_lie_there_already_are_not_counted_again(studio: Studio) -> None:
    without = (await planned(studio))["disk_bytes"]
    before = (await planned(studio, keep_activations="int8"))["disk_bytes"]
    tokens = studio.data / "tokens" / "t"
    (tokens / "tokens.bin").write_bytes(b"")
    names = model_key(PICO), tokenization_key(tokens)
    kept = Kept(names[0], "fp32", names[1], "blocks.0.hook_resid_post", "int8", 1020, 128, 192)
    folder = kept.folder(studio.data / "activations")
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"belongs_to": kept.belongs_to}))
    (folder / VALUES).touch()
    os.truncate(folder / VALUES, kept.bytes)
    (folder / BITS).write_bytes(b"\xff" * 64 + bytes(64))
    after = (await planned(studio, keep_activations="int8"))["disk_bytes"]
    assert before - after == 512 * kept.window_bytes and before - without == kept.bytes
    assert (await planned(studio, keep_activations="bf16"))["disk_bytes"] - without == 2 * 1020 * 128 * 192


async def test_a_training_that_goes_on_from_an_sae_keeps_what_it_was_trained_with(studio: Studio) -> None:
    resolved = {"precision": "bf16", "buffer_tokens": 16_384, "forward_tokens": 1024, "micro_tokens": 512}
    recipe = {"name": "before", "spec": train("before"), "resolved": resolved | {"lr": 0.1}, "tokens": 1_000_000}
    put_artifact(studio.data, "saes", "before", "recipe.json", json.dumps(recipe))
    await studio.app[INDEX].rebuild()
    found = await planned(studio, extends="before")
    values = {name: choice["value"] for name, choice in found["choices"].items()}
    assert {name: values[name] for name in resolved} == resolved
    assert (await planned(studio, extends="before", micro_tokens=1024))["choices"]["micro_tokens"]["value"] == 1024
    status, body = await studio.call("POST", "/api/plan", json={"spec": train("s", extends="nothing")})
    assert status == 400 and "extends" in body["error"]["fields"]


async def test_what_a_grid_took_is_remembered_like_what_a_single_one_took(studio: Studio) -> None:
    fields = {"width": [256, 512], "seed": [0, 1], "saes_at_once": 2}
    job = await studio.submit(train("ok", **fields))
    assert (await studio.until(job["id"]))["state"] == "done"
    after = await measured(studio, **fields)
    assert after["peak_bytes"] == 600_000_000
    assert after["seconds"] == pytest.approx(2 * 2_002_944 / 1000, abs=60), "two passes over the text"
    assert (await planned(studio, **fields | {"saes_at_once": 1}))["seconds"] is None


def test_what_an_older_version_measured_is_passed_over(tmp_path: Path) -> None:
    async def read() -> None:
        database = Database(tmp_path / "mistudio.db", tmp_path / "backups")
        await database.open()
        measurements = Measurements(database)
        took = Measured(1_000, 32, 4096, 10, 9)
        await measurements.add("key", took)
        old = json.dumps({"width": 2048, "k": 32, "batch_tokens": 4096, "peak_bytes": 10, "formula_bytes": 9})
        query = "insert into measurements (key, at, took) values ('key', 'then', ?)"
        await database.write(lambda db: db.execute(query, (old,)))
        found = await measurements.of(["key"])
        await database.close()
        assert found["key"] == [took]

    asyncio.run(read())


def test_out_of_memory_the_whole_model_goes_first_and_what_a_checkpoint_hangs_on_never() -> None:
    values = {
        "precision": "bf16", "forward_tokens": 4096, "buffer_tokens": 524_288, "micro_tokens": 4096, "saes_at_once": 4,
        "whole_model": True,
    }  # fmt: skip
    plan = {"choices": {name: {"value": value, "automatic": True} for name, value in values.items()}, "restarts": 0}
    seen = []
    while found := halved(plan):
        plan = dict(found)
        seen.append({name: choice["value"] for name, choice in plan["choices"].items()})
    halves = [{"forward_tokens": n, "micro_tokens": n, "whole_model": False} for n in (2048, 1024, 512)]
    assert seen == [values | half for half in halves]
    plan = {"choices": {name: {"value": value, "automatic": False} for name, value in values.items()}, "restarts": 0}
    assert halved(plan) is None


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


async def test_a_reading_that_had_begun_when_a_worker_ended_is_not_planned_with(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the machine the memory is read first, and the GPUs, which may take seconds, after it."""
    memory, gpus = monitor.meminfo, studio.app[MONITOR]._gpus.read
    read, halfway, goes_on = threading.Event(), threading.Event(), threading.Event()

    def short(root: Path) -> dict[str, int]:
        read.set()
        return memory(root) | ({} if goes_on.is_set() else {"MemAvailable": 1 << 20})

    def late() -> Any:
        if read.is_set():
            halfway.set()
            assert goes_on.wait(20)
        return gpus()

    monkeypatch.setattr(monitor, "meminfo", short)
    monkeypatch.setattr(studio.app[MONITOR]._gpus, "read", late)
    assert await asyncio.to_thread(halfway.wait, 20)
    studio.app[PLANNING].freed()
    await asyncio.sleep(0.05)
    goes_on.set()
    assert (await planned(studio))["budget"]["free_bytes"] > 1 << 20


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


async def test_what_can_be_asked_of_a_training_is_told_with_what_the_presets_set(studio: Studio) -> None:
    status, body = await studio.call("GET", "/api/specs/train")
    assert status == 200
    assert set(body["fields"]) == set(Train.model_fields)
    assert body["fields"]["tokens"]["default"] == Train.model_fields["tokens"].default
    for name, values in body["presets"].items():
        spec = Train.model_validate(train("s", preset=name)).model_dump()
        assert {field: spec[field] for field in values} == values


async def test_a_plan_names_every_sae_that_is_made(studio: Studio) -> None:
    made = await planned(studio, width=[512, 1024], seed=[0, 1])
    assert made["names"] == ["s-w512-s0", "s-w512-s1", "s-w1024-s0", "s-w1024-s1"]
    assert (await planned(studio))["names"] == ["s"]
