"""The doors of the API: hosts, origins, bodies, one error shape, the event stream."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact

JOB = {"spec": dataset("ok")}


async def test_another_host_name_is_refused(studio: Studio) -> None:
    for host in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[::1"):
        status, body = await studio.call("GET", "/api/status", headers={"Host": host})
        assert (status, body["error"]["code"]) == (421, "wrong_host"), host


async def test_loopback_names_and_configured_names_are_answered(open_studio: OpenStudio) -> None:
    studio = await open_studio(allowed_hosts="shelf.lan, other")
    for host in ("localhost:99", "127.0.0.1", "127.8.8.8:1", "[::1]:6478", "SHELF.lan", "other.", "LOCALHOST"):
        assert (await studio.call("GET", "/api/status", headers={"Host": host}))[0] == 200, host


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, True),
    ],
)
async def test_only_our_own_page_may_change_things(studio: Studio, headers: dict[str, str], allowed: bool) -> None:
    status, _ = await studio.call("POST", "/api/jobs", json=JOB, headers=headers)
    assert status == (201 if allowed else 403)
    assert (await studio.call("DELETE", "/api/jobs/99", headers=headers))[0] == (404 if allowed else 403)
    said_foreign = headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    assert (await studio.call("GET", "/api/status", headers=headers))[0] == (403 if said_foreign else 200)


async def test_our_own_origin_is_allowed(studio: Studio) -> None:
    origin = str(studio.server.make_url("/")).rstrip("/")
    assert (await studio.call("POST", "/api/jobs", json=JOB, headers={"Origin": origin}))[0] == 201


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b"not json", "application/json", 400),
        (b'{"spec": NaN}', "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[]", "application/json", 400),
        (b" " * (2 << 20), "application/json", 413),
    ],
)
async def test_a_bad_body_is_the_senders_error(studio: Studio, body: bytes, kind: str | None, status: int) -> None:
    headers = {"Content-Type": kind} if kind else {}
    got, answer = await studio.call("POST", "/api/jobs", data=io.BytesIO(body), headers=headers)
    assert got == status, answer
    assert set(answer["error"]) <= {"code", "message", "fields"}


async def test_every_wrong_field_is_named_at_once(studio: Studio) -> None:
    spec = {"kind": "train", "name": "../x", "tokenization": "t", "hook": "h", "width": 0, "steps": -1, "colour": 1}
    status, body = await studio.call("POST", "/api/jobs", json={"spec": spec, "priority": 1000})
    assert status == 400
    assert set(body["error"]["fields"]) == {"name", "width", "steps", "colour", "priority"}
    assert "../x" not in json.dumps(body), "what was sent is not echoed"


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", ".hidden", "..", "a..b", "12", "x" * 65, "a\x00b", "é", "a\n", "-x"]
)
async def test_a_name_that_is_no_folder_name_is_refused(studio: Studio, name: str) -> None:
    status, body = await studio.call("POST", "/api/jobs", json={"spec": dataset(name)})
    assert status == 400 and list(body["error"]["fields"]) == ["name"]
    assert list((studio.data / "datasets").iterdir()) == []


async def test_an_unknown_kind_of_job_is_named(studio: Studio) -> None:
    for spec in ({"kind": "zap"}, {}):
        status, body = await studio.call("POST", "/api/jobs", json={"spec": spec})
        assert status == 400 and list(body["error"]["fields"]) == ["kind"]
        assert "add_dataset" in body["error"]["message"]


async def test_every_error_has_one_shape(studio: Studio) -> None:
    asked: list[tuple[str, str, int]] = [
        ("GET", "/api/nothing", 404),
        ("GET", "/nothing.js", 404),
        ("GET", "/api/jobs?colour=1", 400),
        ("GET", "/api/jobs?limit=1&limit=2", 400),
        ("GET", "/api/status?x=1", 400),
        ("GET", "/api/jobs/%C2%B2", 404),
        ("GET", "/api/models/a%00b", 404),
        ("PUT", "/api/jobs", 405),
        ("GET", "/api/jobs/7", 404),
        ("GET", "/api/jobs/seven", 404),
        ("GET", "/api/jobs/" + "9" * 40, 404),
        ("GET", "/api/jobs?limit=0", 400),
        ("GET", "/api/jobs/7/metrics?after_step=x", 400),
        ("GET", "/api/events?topics=weather", 400),
        ("POST", "/api/jobs/7/stop", 404),
        ("GET", "/api/models/none", 404),
        ("GET", "/api/models/..%2f..%2fetc", 404),
        ("GET", "/api/saes/none/features", 404),
    ]
    for method, path, status in asked:
        got, body = await studio.call(method, path)
        assert got == status, (method, path, body)
        assert isinstance(body["error"]["code"], str) and isinstance(body["error"]["message"], str)


async def test_answers_carry_the_safe_headers(studio: Studio) -> None:
    async with studio.session.get(studio.server.make_url("/api/status")) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]


async def test_lists_have_one_shape_and_things_are_found_by_name_and_id(studio: Studio) -> None:
    await studio.until((await studio.submit(dataset("ok")))["id"])
    page = await studio.get("/api/datasets")
    assert [d["name"] for d in page["datasets"]] == ["ok"] and page["next"] is None
    assert await studio.get("/api/datasets/ok") == await studio.get(f"/api/datasets/{page['datasets'][0]['id']}")
    for noun in ("model", "dataset", "tokenization", "sae"):
        assert set(await studio.get(f"/api/{noun}s")) == {f"{noun}s", "next"}


async def test_jobs_are_listed_newest_first_a_page_at_a_time(studio: Studio) -> None:
    ids = [(await studio.submit(dataset(f"ok{i}")))["id"] for i in range(5)]
    first = await studio.get("/api/jobs?limit=2")
    rest = await studio.get(f"/api/jobs?limit=10&cursor={first['next']}")
    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["next"] is None


async def test_a_preview_answers_without_becoming_a_job(open_studio: OpenStudio, tmp_path: Any) -> None:
    put_artifact(tmp_path / "data", "datasets", "d", "dataset.json")
    studio = await open_studio()
    assert await studio.get("/api/datasets/d/sample") == {"rows": []}
    assert (await studio.get("/api/jobs"))["jobs"] == []
    assert list((studio.data / "runs").iterdir()) == []


async def test_the_stream_tells_of_a_job_from_queued_to_done(studio: Studio) -> None:
    async with studio.session.get(studio.server.make_url("/api/events?topics=job,progress,artifact")) as stream:
        assert stream.content_type == "text/event-stream"
        job = await studio.submit(dataset("ok"))
        told = await asyncio.wait_for(_read_until_done(stream), 60)
    states = [data["state"] for topic, data in told if topic == "job"]
    assert states == ["queued", "running", "done"]
    assert ("dataset", "ok") in [(data["noun"], data["name"]) for topic, data in told if topic == "artifact"]
    assert all(data["job"] == job["id"] for topic, data in told if topic == "progress")


async def test_a_quiet_stream_is_pinged_though_other_topics_are_lively(
    open_studio: OpenStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistudiod.bus.PING_S", 1.5)  # readings come every second
    studio = await open_studio()
    async with studio.session.get(studio.server.make_url("/api/events?topics=job")) as response:
        await asyncio.wait_for(response.content.readuntil(b": ping"), 10)


async def test_a_stream_that_is_closed_is_forgotten(studio: Studio) -> None:
    from mistudiod.api.keys import BUS

    for _ in range(20):
        async with studio.session.get(studio.server.make_url("/api/events")):
            pass
    for _ in range(3000):
        if len(studio.app[BUS]) == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(studio.app[BUS])} subscriptions are left")


async def test_the_monitor_gives_a_sample_and_its_history(studio: Studio) -> None:
    for _ in range(1200):
        if sample := await studio.get("/api/system"):
            break
        await asyncio.sleep(0.05)
    assert sample["memory"]["available_bytes"] > 0
    assert (await studio.get("/api/system/history"))["samples"][0]["at"] <= sample["at"]


async def _read_until_done(stream: Any) -> list[tuple[str, Any]]:
    told, topic = [], ""
    async for raw in stream.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            topic = line[7:]
        elif line.startswith("data: "):
            told.append((topic, json.loads(line[6:])))
            if topic == "job" and told[-1][1]["state"] == "done":
                return told
    raise AssertionError("the stream ended")
