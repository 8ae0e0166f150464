"""Trainings that make several SAEs, and what is told of each of them on its way; with the fake worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, train
from test_jobs import worker_of
from test_reindex import lose_database
from test_stream import Reader, opened

WIDTHS = {"width": [64, 128, 256], "k": 8}


@pytest.fixture
async def studio(open_studio: OpenStudio, tmp_path: Path) -> Studio:
    put_artifact(tmp_path / "data", "tokens", "t", "tokenization.json")
    return await open_studio()


def named(name: str) -> list[str]:
    return [f"{name}-w{width}" for width in WIDTHS["width"]]


async def begun(studio: Studio, name: str = "train", **fields: Any) -> int:
    """A training that has measured, left a checkpoint and goes on until it is told otherwise."""
    job = int((await studio.submit(train(name, **{**WIDTHS, **fields})))["id"])
    for _ in range(1000):
        found = await studio.get(f"/api/jobs/{job}")
        if (found["progress"] or {}).get("stage") == "train":
            return job
        assert found["state"] in ("queued", "running"), found
        await asyncio.sleep(0.02)
    raise AssertionError("it did not begin")


# -- names -----------------------------------------------------------------------------------------------------------


async def test_a_job_makes_every_sae_of_its_grid(studio: Studio) -> None:
    job = await studio.submit(train("a", **WIDTHS))
    assert job["makes"] == {"noun": "sae", "name": "a-w64", "names": named("a")}
    done = await studio.until(job["id"], "done")
    assert done["makes"] == job["makes"]
    found = (await studio.get("/api/saes"))["saes"]
    assert [(one["name"], one["job"]) for one in found] == [(name, job["id"]) for name in named("a")]
    single = await studio.submit(train("b"))
    assert single["makes"] == {"noun": "sae", "name": "b", "names": ["b"]}


async def test_every_name_of_a_grid_is_claimed_and_a_refusal_says_which(studio: Studio) -> None:
    first = await begun(studio)
    for spec in (train("TRAIN-w128"), train("train", width=[128, 512], k=8)):
        status, body = await studio.call("POST", "/api/jobs", json={"spec": spec})
        assert status == 409
        assert f"job {first} is making an SAE named" in body["error"]["message"]
        assert "train-w128" in body["error"]["message"].lower()
    waits = await studio.submit({"kind": "extract", "sae": "train-w256"})
    assert waits["after"] == [first], "what a job will make may be used by the next"
    await studio.act(first, "stop")
    await studio.until(first, "stopped")
    status, body = await studio.call("POST", "/api/jobs", json={"spec": train("train-w64")})
    assert (status, body["error"]["fields"]) == (409, {"name": "is taken"})


async def test_a_job_whose_names_were_taken_meanwhile_is_not_queued_again(studio: Studio) -> None:
    job = await studio.submit(train("fail", **WIDTHS))
    assert (await studio.until(job["id"]))["state"] == "failed"
    await studio.until((await studio.submit(train("fail-w256")))["id"])
    assert (await studio.get("/api/jobs"))["jobs"][0]["state"] == "failed"
    put = await studio.submit(train("other", **WIDTHS))
    await studio.until(put["id"], "done")
    (studio.data / "saes" / "fail-w128").mkdir()
    (studio.data / "saes" / "fail-w128" / "recipe.json").write_text("{}")
    from mistudiod.api.keys import INDEX

    await studio.app[INDEX].rebuild()
    status, body = await studio.call("POST", f"/api/jobs/{job['id']}/retry")
    assert status == 409 and "fail-w128" in body["error"]["message"]


async def test_two_saes_of_one_job_do_not_have_one_name(studio: Studio) -> None:
    hooks = ["blocks.0.hook_resid_post", "blocks.0.resid-post"]
    status, body = await studio.call("POST", "/api/jobs", json={"spec": train("x", hook=hooks)})
    assert status == 409 and "same name" in body["error"]["message"]


async def test_an_sae_that_is_trained_on_is_in_use(studio: Studio) -> None:
    await studio.until((await studio.submit(train("a")))["id"], "done")
    status, body = await studio.call("POST", "/api/jobs", json={"spec": train("b", extends="none")})
    assert (status, body["error"]["fields"]) == (400, {"extends": "there is no sae named 'none'"})
    job = await studio.submit(train("slow", extends="a"))
    assert (await studio.call("DELETE", "/api/saes/a"))[0] == 409
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])
    assert (await studio.call("DELETE", "/api/saes/a"))[0] == 204


async def test_a_grid_comes_back_when_the_database_is_lost(open_studio: OpenStudio, studio: Studio) -> None:
    job = await begun(studio)
    await studio.act(job, "pause")
    paused = await studio.until(job, "paused")
    metrics = await studio.get(f"/api/jobs/{job}/metrics")
    done = await studio.until((await studio.submit(train("a", **WIDTHS)))["id"], "done")
    await studio.server.close()
    lose_database(studio.data)
    (studio.data / "runs" / str(done["id"]) / "job.json").unlink()
    again = await open_studio()
    assert await again.get(f"/api/jobs/{job}") == paused
    assert await again.get(f"/api/jobs/{job}/metrics") == metrics
    assert (await again.get(f"/api/jobs/{done['id']}"))["makes"] == done["makes"], "by its spec alone"
    assert [one["job"] for one in (await again.get("/api/saes"))["saes"]] == [done["id"]] * 3


# -- measures --------------------------------------------------------------------------------------------------------


async def test_metrics_are_kept_of_each_sae_and_paged_by_whole_steps(studio: Studio) -> None:
    job = await begun(studio)
    everything = (await studio.get(f"/api/jobs/{job}/metrics"))["metrics"]
    assert [(one["step"], one["sae"]) for one in everything] == [
        (step, sae) for step in range(1, 6) for sae in (None, *sorted(named("train")))
    ], "those of a job that is not this one are dropped"
    paged: list[Any] = []
    after: int | None = -1
    sizes = []
    while after is not None:
        page = await studio.get(f"/api/jobs/{job}/metrics?limit=6&after_step={after}")
        paged += page["metrics"]
        sizes.append(len(page["metrics"]))
        after = page["next"]
    assert paged == everything
    assert sizes == [4] * 5, "a page of 6 would cut the second step in two"
    page = await studio.get(f"/api/jobs/{job}/metrics?limit=1")
    assert (len(page["metrics"]), page["next"]) == (4, 1), "a step that is larger than a page comes whole"
    one = await studio.get(f"/api/jobs/{job}/metrics?sae=train-w128&limit=3&after_step=1")
    assert [(row["step"], row["sae"]) for row in one["metrics"]] == [(step, "train-w128") for step in (2, 3, 4)]
    assert one["next"] == 4
    assert (await studio.call("GET", f"/api/jobs/{job}/metrics?sae=other"))[0] == 404


async def test_a_single_sae_is_named_though_its_worker_does_not(studio: Studio) -> None:
    job = await studio.until((await studio.submit(train("flood")))["id"], "done")
    page = await studio.get(f"/api/jobs/{job['id']}/metrics?limit=2")
    assert [one["sae"] for one in page["metrics"]] == ["flood", "flood"]


async def test_what_each_sae_is_learning_is_told_and_the_newest_is_kept(studio: Studio) -> None:
    async with opened(studio, "?topics=live,metric") as response:
        reader = Reader(response)
        job = await begun(studio)
        told = await reader.until("live", job=job, sae="train-w256", step=5)
        told += await reader.until("metric", job=job, sae="train-w256", step=5)
    for topic in ("live", "metric"):
        heard = {one["data"]["sae"] for one in told if one.get("event") == topic}
        assert {*named("train")} <= heard, "none hides another"
    saes = (await studio.get(f"/api/jobs/{job}/live"))["saes"]
    assert [(one["sae"], one["step"]) for one in saes] == [(name, 5) for name in named("train")]
    assert saes[0]["features"][0]["windows"][0] == {"value": 3.5, "before": "import", "token": " os", "after": "\nsys."}
    assert (await studio.get(f"/api/jobs/{(await studio.submit(dataset('ok')))['id']}/live"))["saes"] == []
    assert (await studio.call("GET", "/api/jobs/999/live"))[0] == 404


# -- how trainings end -----------------------------------------------------------------------------------------------


async def test_checkpoints_are_listed_with_what_their_manifests_say(studio: Studio) -> None:
    job = await begun(studio)
    folder = studio.data / "runs" / str(job) / "checkpoints"
    others = {"3": "{", "4": '{"about": {"held_out_fvu": NaN, "saes": 7}}', "x": "{}", "9": "[]", "8": '{"about": 1}'}
    others |= {str(step): json.dumps({"about": {"saes": named("train"), "held_out_fvu": step}}) for step in (1, 2)}
    for step, manifest in others.items():
        (folder / step).mkdir()
        (folder / step / "manifest.json").write_text(manifest)
    (folder / "7").mkdir()
    found = (await studio.get(f"/api/jobs/{job}/checkpoints"))["checkpoints"]
    assert [(one["step"], one["fvu"], one["best"]) for one in found] == [
        (5, 0.25, True), (4, None, False), (2, 2, False), (1, 1, False),
    ]  # fmt: skip
    assert found[0]["saes"] == named("train") and found[1]["saes"] is None
    assert found[0]["bytes"] == 1000 + (folder / "5" / "manifest.json").stat().st_size
    assert found[0]["at"].endswith("Z")


async def test_a_running_training_is_told_to_finalize_and_is_done(studio: Studio) -> None:
    job = await begun(studio)
    assert (await studio.act(job, "finalize"))["finalize"] is True
    done = await studio.until(job)
    assert (done["state"], done["attempts"]) == ("done", 1)
    assert (await studio.call("POST", f"/api/jobs/{job}/finalize"))[0] == 409


@pytest.mark.parametrize("end", ["pause", "stop"])
async def test_a_training_that_rests_with_a_checkpoint_is_finalized_by_another_attempt(
    studio: Studio, end: str
) -> None:
    job = await begun(studio)
    await studio.act(job, end)
    await studio.until(job, {"paused", "stopped"})
    await studio.act(job, "finalize")
    done = await studio.until(job, "done")
    order = json.loads((studio.data / "runs" / str(job) / "spec.json").read_text())
    assert (done["attempts"], order["finalize"]) == (2, True)


async def test_a_training_that_failed_after_a_checkpoint_is_finalized(studio: Studio) -> None:
    job = (await studio.submit(train("fail", **WIDTHS)))["id"]
    await studio.until(job, "failed")
    status, body = await studio.call("POST", f"/api/jobs/{job}/finalize")
    assert status == 409 and "has trained nothing yet" in body["error"]["message"]
    (studio.data / "runs" / str(job) / "checkpoints" / "4").mkdir(parents=True)
    await studio.act(job, "finalize")
    assert (await studio.until(job))["state"] == "done"


async def test_what_cannot_be_finalized_is_refused_with_a_sentence(studio: Studio) -> None:
    data = await studio.submit(dataset("slow"))
    waits = await studio.submit(train("a"), after=[data["id"]])
    for job, sentence in ((data["id"], "is no training"), (waits["id"], "is queued; it can be finalized while")):
        status, body = await studio.call("POST", f"/api/jobs/{job}/finalize")
        assert status == 409 and sentence in body["error"]["message"]
    young = await studio.submit(train("slow"))
    await worker_of(studio, young["id"])
    status, body = await studio.call("POST", f"/api/jobs/{young['id']}/finalize")
    assert status == 409 and "has trained nothing yet" in body["error"]["message"]


async def test_a_retry_or_resume_takes_back_the_wish_to_finalize(studio: Studio) -> None:
    job = await begun(studio)
    await studio.act(job, "pause")
    await studio.until(job, "paused")
    from mistudiod.api.keys import DATABASE

    await studio.app[DATABASE].write(lambda db: db.execute("update jobs set finalize = 1"))
    assert (await studio.act(job, "resume"))["finalize"] is False
    await worker_of(studio, job, attempt=2)


async def test_a_wish_to_finalize_outlives_the_daemon(open_studio: OpenStudio, studio: Studio) -> None:
    job = await begun(studio, "train-slow")  # it hears, and is then busy with something else
    from mistudiod.api.keys import DATABASE

    await studio.app[DATABASE].write(lambda db: db.execute("update jobs set finalize = 1"))
    await studio.session.close()
    await studio.server.close()
    again = await open_studio()
    done = await again.until(job, "done")
    assert done["attempts"] == 2


async def test_a_stopped_training_keeps_what_it_has_saved(studio: Studio) -> None:
    job = await begun(studio)
    await studio.act(job, "stop")
    stopped = await studio.until(job)
    assert (stopped["state"], stopped["error"]) == ("stopped", None)
    assert stopped["result"]["spec"]["name"] == "train"
    assert [one["name"] for one in (await studio.get("/api/saes"))["saes"]] == named("train")


async def test_a_full_disk_at_a_checkpoint_pauses_the_job_with_the_reason(studio: Studio) -> None:
    (studio.data / "full").touch()
    job = (await studio.submit(train("full")))["id"]
    paused = await studio.until(job)
    assert (paused["state"], paused["attempts"]) == ("paused", 1)
    assert paused["error"] == {"code": "disk_full", "message": "the disk is full: free some space"}
    (studio.data / "full").unlink()
    assert (await studio.act(job, "resume"))["error"] is None
    assert (await studio.until(job))["state"] == "done"


async def test_a_full_disk_is_never_given_up_on(studio: Studio) -> None:
    (studio.data / "full").touch()
    job = (await studio.submit(train("full")))["id"]
    for attempt in range(1, 6):
        assert (await studio.until(job, "paused"))["attempts"] == attempt
        await studio.act(job, "resume")
        await studio.until(job, {"running", "paused"})
    await studio.until(job, "paused")


async def test_a_grid_of_which_a_part_failed_is_partial_and_says_what(studio: Studio) -> None:
    job = await studio.until((await studio.submit(train("half", **WIDTHS)))["id"])
    assert job["state"] == "partial"
    assert job["error"] == {"code": "partial", "message": "1 of 3 SAEs failed: half-w128 (it diverged)"}
    assert [one["name"] for one in (await studio.get("/api/saes"))["saes"]] == ["half-w64", "half-w256"]
    assert (await studio.act(job["id"], "retry"))["error"] is None
