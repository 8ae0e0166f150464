"""Jobs of labelling and scoring: their lane, what they are given, and what becomes of what their worker says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact

from mistudiod.api.keys import BUS, GIVING, JOBS
from mistudiod.api.stream import LabelsOfJob
from mistudiod.events import Labelled, NewLabel
from mistudiod.jobs import State, may_move
from mistudiod.said import Said

SAE = "ok"
D_SAE, DEAD = 12, (3, 11)
# 192.0.2.1 is of nobody: RFC 5737
ENDPOINTS = "here=http://127.0.0.1:1/v1,away=https://192.0.2.1:8000/v1,openai=https://api.openai.com/v1"


class Shop:
    """A feature store by hand: the features that fire, from the largest to the smallest index."""

    manifest = {"dead": len(DEAD)}
    d_sae = D_SAE

    def __init__(self, _folder: Path | None = None) -> None:
        pass

    def order(self, key: str) -> list[int]:
        assert key == "typical"
        return [*(n for n in reversed(range(D_SAE)) if n not in DEAD), *DEAD]

    def page(self, index: int) -> dict[str, Any]:
        numbers = {"fired": 9, "density": 0.1, "max": 2.0, "mean": 1.0, "std": 0.5, "typical": 1.5, "dead": False}
        example = {"kind": "top", "band": None, "row": 0, "window": 7, "first": 0, "peak": 0, "max": 2.0}
        shown = {"held_out": False, "ids": [1], "texts": ["import"], "activations": [2.0]}
        none = {"logits": None, "tokens": [], "neighbours": {"decoder": [], "cofiring": []}}
        none["for_labels"] = {"fired": 9, "tokens": []}
        return {"index": index, **numbers, **none, "examples": [{**example, **shown}]}


@pytest.fixture
async def studio(open_studio: OpenStudio) -> Studio:
    return await opened(open_studio)


async def opened(open_studio: OpenStudio, **settings: Any) -> Studio:
    studio = await open_studio(**{"endpoints": ENDPOINTS, **settings})
    studio.app[GIVING].open_store = Shop
    return studio


@pytest.fixture(autouse=True)
def extracted(tmp_path: Path) -> Path:
    """An SAE, the features of it, and prompts whose names are what the fake worker does."""
    data = tmp_path / "data"
    put_artifact(data, "saes", SAE, "recipe.json", json.dumps({"width": D_SAE, "job": 1}))
    put_artifact(data, "features", f"{SAE}/3", "manifest.json", json.dumps({"d_sae": D_SAE, "dead": len(DEAD)}))
    (data / "templates").mkdir()
    for name in ("label", "third", "slow", "label-slow", "strange", "third-once"):
        (data / "templates" / f"{name}.txt").write_text(f"--- user\nprompt {name} {{strong}}\n")
    return data


def label(template: str = "label", endpoint: str = "away", **about: Any) -> dict[str, Any]:
    which = {} if {"features", "top", "unlabeled"} & set(about) else {"unlabeled": True}
    return {"kind": "label", "sae": SAE, "endpoint": endpoint, "model": "m", "template": template, **which, **about}


def score(**about: Any) -> dict[str, Any]:
    return {"kind": "score", "sae": SAE, **about}


def given(studio: Studio, job: int) -> Any:
    return json.loads((studio.data / "runs" / str(job) / "given.json").read_text())


def asked(studio: Studio, job: int) -> list[int]:
    return [one["index"] for one in given(studio, job)["features"]]


async def refused(studio: Studio, spec: dict[str, Any], status: int = 400) -> dict[str, Any]:
    found, body = await studio.call("POST", "/api/jobs", json={"spec": spec})
    assert found == status, body
    error: dict[str, Any] = body["error"]
    return error


async def test_a_labelling_asks_about_every_feature_that_fires_and_has_no_label(studio: Studio) -> None:
    job = await studio.submit(label())
    done = await studio.until(job["id"])
    assert (done["state"], done["lane"]) == ("done", "io")
    told = given(studio, job["id"])
    assert told["extraction"] == "3"
    away = {"name": "away", "url": "https://192.0.2.1:8000/v1", "on_this_machine": False}
    assert told["endpoint"] == {**away, "secret": "192.0.2.1:8000"}
    assert told["template"]["name"] == "label" and told["template"]["text"].startswith("--- user\nprompt label")
    assert told["features"][0] == {"index": 10, "label": None}
    assert asked(studio, job["id"]) == [10, 9, 8, 7, 6, 5, 4, 2, 1, 0]
    found = await studio.get(f"/api/saes/{SAE}/features/7/label")
    about = {"text": "what it is", "provider": "away", "model": "m", "template": "label", "status": "proposed"}
    assert about.items() <= found.items()
    assert (found["job"], found["extraction"], found["evidence"]) == (job["id"], "3", {"n": 1})
    assert found["template_sha256"] == told["template"]["sha256"]
    again = await studio.submit(label())
    await studio.until(again["id"])
    assert asked(studio, again["id"]) == []
    once_more = await studio.submit(label(again=True))
    await studio.until(once_more["id"])
    assert len(asked(studio, once_more["id"])) == 10
    assert (await studio.get(f"/api/saes/{SAE}/labels/summary"))["history"] == 20


async def test_features_are_chosen_by_name_or_by_how_strongly_they_fire(studio: Studio) -> None:
    for which, features in (({"features": [7, 3, 7, 0]}, [7, 3, 0]), ({"top": 3}, [10, 9, 8]), ({"top": 99}, None)):
        job = await studio.submit(label("third", again=True, **which))
        await studio.until(job["id"])
        assert asked(studio, job["id"]) == (features or [n for n in reversed(range(D_SAE)) if n not in DEAD])


async def test_a_retry_of_a_partial_job_asks_only_about_what_failed(studio: Studio) -> None:
    job = await studio.submit(label("third"))
    partial = await studio.until(job["id"])
    assert partial["state"] == "partial"
    assert partial["error"]["message"] == "6 of 10 features failed: the answer was prose"
    summary = await studio.get(f"/api/saes/{SAE}/labels/summary")
    assert (summary["labelled"], summary["failures"]) == (4, [{"reason": "the answer was prose", "features": 6}])
    history = await studio.get(f"/api/saes/{SAE}/features/9/labels")
    assert history["labels"] == [] and history["failure"]["reason"] == "the answer was prose"
    await studio.act(job["id"], "retry")
    await studio.until(job["id"])
    assert asked(studio, job["id"]) == [9, 8, 6, 5, 2, 1]
    assert (await studio.get(f"/api/saes/{SAE}/labels/summary"))["labelled"] == 6


async def test_a_labelling_that_was_paused_goes_on_with_the_rest_and_again_does_nothing_twice(studio: Studio) -> None:
    job = await studio.submit(label("label-slow", again=True, features=[1, 2]))
    while (await studio.get(f"/api/saes/{SAE}/labels/summary"))["history"] < 2:
        await asyncio.sleep(0.02)
    await studio.act(job["id"], "pause")
    await studio.until(job["id"], "paused")
    await studio.act(job["id"], "resume")
    await studio.until(job["id"], "running")
    while asked(studio, job["id"]):
        await asyncio.sleep(0.02)
    await studio.act(job["id"], "stop")
    assert (await studio.until(job["id"]))["state"] == "stopped"


async def test_what_earlier_workers_of_a_job_have_used_is_given_to_the_next(studio: Studio) -> None:
    nothing, kept = {"prompt_tokens": 0, "answer_tokens": 0}, {"prompt_tokens": 500, "answer_tokens": 70}
    said = (json.dumps(kept), kept), ('{"prompt_tokens": -1, "answer_tokens": 0}', nothing), ("{", nothing)
    for text, used in said:
        job = await studio.submit(label("third", again=True))
        await studio.until(job["id"])
        assert given(studio, job["id"])["used"] == nothing
        (studio.data / "runs" / str(job["id"]) / "used.json").write_text(text)
        await studio.act(job["id"], "retry")
        await studio.until(job["id"])
        assert given(studio, job["id"])["used"] == used


async def test_a_description_by_tokens_asks_nobody_and_only_for_want_of_any_label(studio: Studio) -> None:
    assert (await studio.call("PUT", f"/api/saes/{SAE}/features/5/label", json={"text": "mine"}))[0] == 200
    job = await studio.submit({"kind": "label", "sae": SAE})
    assert (await studio.until(job["id"]))["lane"] == "io"
    told = given(studio, job["id"])
    assert (told["endpoint"], told["template"]) == (None, None)
    assert 5 not in asked(studio, job["id"]) and len(asked(studio, job["id"])) == 9
    rest = await studio.submit(label())
    await studio.until(rest["id"])
    assert len(asked(studio, rest["id"])) == 9  # an LLM's is better than that


async def test_a_scoring_is_given_labels_and_not_again_those_that_have_been_scored(studio: Studio) -> None:
    await studio.until((await studio.submit(label(features=[1, 2])))["id"])
    job = await studio.submit(score())
    assert (await studio.until(job["id"]))["state"] == "done"
    one = (await studio.get(f"/api/saes/{SAE}/features/2/label"))["id"]
    assert given(studio, job["id"])["features"][0] == {
        "index": 2,
        "label": {"id": one, "text": "what it is", "explanation": "what it is, because"},
        "methods": ["tokens"],
    }
    (scored,) = (await studio.get(f"/api/saes/{SAE}/features/2/labels"))["labels"]
    assert [(s["method"], s["balanced_accuracy"], s["job"]) for s in scored["scores"]] == [("tokens", 0.75, job["id"])]
    judged = score(methods=["tokens", "detection"], endpoint="away", model="score")
    for spec, features in ((score(), []), (score(again=True), [2, 1]), (judged, [2, 1]), (judged, [])):
        again = await studio.submit(spec)
        await studio.until(again["id"])
        assert asked(studio, again["id"]) == features
    (worth,) = [
        one for one in (await studio.get(f"/api/saes/{SAE}/labels/summary"))["scores"] if one["method"] == "detection"
    ]
    assert (worth["judge"], worth["features"], worth["mean"]) == ("score", 2, 0.75)


@pytest.mark.parametrize(
    ("spec", "lane"),
    [
        (label("slow", "here"), "gpu"),
        (label("slow", "here", share_gpu=True), "io"),
        (label("slow", "away"), "io"),
        ({"kind": "label", "sae": SAE}, "io"),
        (score(methods=["fuzzing"], endpoint="here", model="slow"), "gpu"),
        (score(methods=["fuzzing"], endpoint="here", model="slow", share_gpu=True), "io"),
        (score(methods=["tokens"], endpoint="here", model="score"), "io"),
    ],
)
async def test_who_asks_an_endpoint_on_this_machine_takes_the_lane_of_the_gpu(
    studio: Studio, spec: dict[str, Any], lane: str
) -> None:
    assert (await studio.submit(spec))["lane"] == lane


async def test_a_labelling_on_this_machine_and_another_job_of_the_gpu_never_run_at_once(studio: Studio) -> None:
    first, second = [await studio.submit(label("slow", "here")) for _ in range(2)]
    third = await studio.submit(label("slow", "away"))
    await studio.until(first["id"], "running")
    await studio.until(third["id"], "running")
    assert (await studio.get(f"/api/jobs/{second['id']}"))["state"] == "queued"


@pytest.mark.parametrize("database", ["kept", "lost"])
async def test_a_job_is_in_the_right_lane_when_the_daemon_starts_again(
    open_studio: OpenStudio, database: str, extracted: Path
) -> None:
    studio = await opened(open_studio)
    jobs = [await studio.submit(label("slow", "here")), await studio.submit(label("slow", "away"))]
    for job in jobs:
        await studio.until(job["id"], "running")
        await studio.act(job["id"], "stop")
        await studio.until(job["id"])
    await studio.server.close()
    if database == "lost":
        for path in extracted.glob("mistudio.db*"):
            path.unlink()
        lanes = ["gpu", "io"]
        studio = await opened(open_studio)
    else:
        lanes = ["io", "gpu"]
        studio = await opened(open_studio, endpoints="here=https://192.0.2.1/v1,away=http://127.0.0.1:1")
    assert [(await studio.get(f"/api/jobs/{job['id']}"))["lane"] for job in jobs] == lanes


async def test_what_cannot_be_asked_is_refused_at_once_with_the_field(studio: Studio) -> None:
    error = await refused(studio, label("label", "nobody"))
    assert error["message"] == (
        "there is no endpoint 'nobody': there are away, here, openai; an admin adds others to the setting endpoints"
    )
    assert list(error["fields"]) == ["endpoint"]
    assert list((await refused(studio, score(methods=["detection"], endpoint="nobody", model="m")))["fields"]) == [
        "endpoint"
    ]
    error = await refused(studio, label("nowhere"))
    assert "there is no template 'nowhere': there are" in error["message"] and list(error["fields"]) == ["template"]
    error = await refused(studio, label(features=[1, D_SAE]))
    assert error["message"] == "ok has features 0 to 11: there is no feature 12"
    assert list(error["fields"]) == ["features"]
    assert list((await refused(studio, {**label(), "sae": "none"}))["fields"]) == ["sae"]


async def test_without_an_extraction_there_is_nothing_to_label_unless_one_is_on_its_way(
    studio: Studio, extracted: Path
) -> None:
    put_artifact(extracted, "saes", "slow", "recipe.json", "{}")
    put_artifact(extracted, "tokens", "t", "tokenization.json", "{}")
    for noun in ("sae", "tokenization"):
        await studio.app[JOBS]._database.write(
            lambda db, noun=noun: db.execute(
                "insert into artifacts (noun, name, created_at, info) values (?, ?, '', '{}')",
                (noun, {"sae": "slow", "tokenization": "t"}[noun]),
            )
        )
    spec = {**label(), "sae": "slow"}
    error = await refused(studio, spec, 409)
    assert error["message"] == "no features of slow have been extracted yet; run: mistudio feature extract slow"
    extraction = await studio.submit({"kind": "extract", "sae": "slow", "tokenization": "t"})
    assert (await studio.submit(spec))["after"] == [extraction["id"]]


async def test_an_endpoint_or_template_that_went_while_a_job_waited_fails_it_with_the_reason(
    open_studio: OpenStudio, extracted: Path
) -> None:
    studio = await opened(open_studio)
    job = await studio.submit(label("slow"))
    await studio.until(job["id"], "running")
    await studio.act(job["id"], "pause")
    await studio.until(job["id"], "paused")
    (extracted / "templates" / "slow.txt").unlink()
    await studio.act(job["id"], "resume")
    failed = await studio.until(job["id"], {"failed"})
    assert "there is no template 'slow'" in failed["error"]["message"]
    await studio.server.close()
    studio = await opened(open_studio, endpoints="")
    await studio.act(job["id"], "retry")
    failed = await studio.until(job["id"], {"failed"})
    assert failed["error"]["message"] == (
        "there is no endpoint 'away': there is none; an admin adds others to the setting endpoints"
    )


async def test_features_of_an_sae_that_is_another_by_now_are_not_labelled(studio: Studio, extracted: Path) -> None:
    (extracted / "saes" / SAE / "recipe.json").write_text(json.dumps({"width": 64}))
    await studio.app[JOBS]._database.write(
        lambda db: db.execute("update artifacts set info = '{\"width\": 64}' where noun = 'sae'")
    )
    failed = await studio.until((await studio.submit(label()))["id"])
    assert "has 12 features, the SAE 64: extract them again" in failed["error"]["message"]


async def test_a_store_that_cannot_be_read_fails_the_job_with_the_reason(studio: Studio) -> None:
    def damaged(folder: Path) -> Shop:
        raise ValueError(f"{folder.name} is damaged")

    studio.app[GIVING].open_store = damaged
    failed = await studio.until((await studio.submit(label()))["id"])
    assert failed["error"]["message"] == "the features of ok cannot be read: 3 is damaged; extract them again"


async def test_labels_outlive_extractions_and_jobs_and_go_with_their_sae(studio: Studio, extracted: Path) -> None:
    job = await studio.submit(label(features=[1]))
    await studio.until(job["id"])
    assert (await studio.call("DELETE", f"/api/jobs/{job['id']}"))[0] == 204
    put_artifact(extracted, "features", f"{SAE}/9", "manifest.json", json.dumps({"d_sae": D_SAE}))
    await studio.server.close()
    shutil.rmtree(extracted / "features" / SAE / "3")
    assert (await label_of(studio, extracted))[:2] == ("what it is", job["id"])


async def label_of(_studio: Studio, data: Path) -> Any:
    with contextlib.closing(sqlite3.connect(data / "mistudio.db", isolation_level=None)) as db:
        return db.execute("select text, job from labels where feature = 1 and current").fetchone()


async def test_a_hostile_label_comes_out_as_it_went_in(studio: Studio) -> None:
    await studio.until((await studio.submit(label("strange", features=[1])))["id"])
    found = await studio.get(f"/api/saes/{SAE}/features/1/label")
    assert found["text"] == "\x1b]0;owned\x07 \u202egnp <script>alert(1)</script>\x00"
    exported = (await studio.call("GET", f"/api/saes/{SAE}/labels/export"))[1]
    assert json.loads(exported)["text"] == found["text"] and exported.count("\n") == 1


async def test_who_listens_hears_that_labels_and_scores_have_come(studio: Studio) -> None:
    with studio.app[BUS].subscribe(frozenset({"labels"})) as hearing:
        job = await studio.submit(label("third", features=[1, 2, 4, 5]))
        await studio.until(job["id"])
        (message,) = await hearing.take()
        assert (message.topic, message.id) == ("labels", None)
        assert message.data == {"job": job["id"], "sae": SAE, "labels": 2, "scores": 0}  # and two failures
        scoring = await studio.submit(score())
        await studio.until(scoring["id"])
        (message,) = await hearing.take()
        assert message.data == {"job": scoring["id"], "sae": SAE, "labels": 0, "scores": 2}
    LabelsOfJob.model_validate(message.data)


def test_a_job_that_is_not_about_labels_has_none_to_say() -> None:
    event = Labelled(provider="x", labels=[NewLabel(feature=1, text="x")])
    said = Said(["a"])
    said.take(event)
    assert not said.collect()
    said = Said((), of_labels=True)
    said.take(event)
    gathered = said.collect()
    said.put_back(gathered)
    assert said.collect().labels == [event]


def test_a_partial_job_may_end_while_it_is_being_stopped_or_paused() -> None:
    assert all(may_move(state, State.PARTIAL) for state in (State.RUNNING, State.STOPPING, State.PAUSING))


async def test_an_estimate_is_of_what_is_left_to_do_and_names_the_lane(studio: Studio) -> None:
    await studio.until((await studio.submit(label(features=[1, 2])))["id"])
    for spec, features, lane in (
        (label(), 8, "io"),
        (label(endpoint="here"), 8, "gpu"),
        (label(endpoint="here", share_gpu=True, top=3), 3, "io"),
        ({"kind": "label", "sae": SAE}, 8, "io"),
        (score(), 2, "io"),
    ):
        status, found = await studio.call("POST", f"/api/saes/{SAE}/labels/estimate", json={"spec": spec})
        assert (status, found["features"], found["lane"]) == (200, features, lane), found
    assert found["calls"] == 0 and found["cost_usd"] == 0
    body = {"spec": label(endpoint="nobody")}
    status, found = await studio.call("POST", f"/api/saes/{SAE}/labels/estimate", json=body)
    assert status == 400 and "there is no endpoint 'nobody'" in found["error"]["message"]
