"""What takes the disk, counted as du counts it; what can be deleted, and that nothing else is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, standstill, train
from kept_saes import done, known, put_sae, say_all

from mistudiod.api import keys
from mistudiod.cleaning import Cleaning
from mistudiod.disk import PLACES, bytes_of, survey
from mistudiod.paths import Paths


def du(*paths: Path) -> int:
    """Bytes that du counts, without what the folders themselves take."""
    there = [path for path in paths if path.exists()]
    if not there:
        return 0
    command = f"find {' '.join(map(str, there))} -type f -print0 | du --files0-from=- -c -B1 | tail -1"
    counted = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return int(counted.stdout.split()[0]) if counted.stdout else 0


def checkpoint(data: Path, job: int, number: int, saes: list[str] | None = None, whole: bool = True) -> Path:
    folder = data / "runs" / str(job) / "checkpoints" / str(number)
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(b"x" * 10_000)
    about = {"step": number, "saes": saes or ["a"], "held_out_fvu": 1 / number}
    (folder / "manifest.json").write_text(json.dumps({"bytes": 10_000 + (not whole), "about": about}))
    return folder


async def full(open_studio: OpenStudio) -> Studio:
    """Two SAEs, of which job 1 has made one, with all that can be cleaned."""
    studio = await open_studio()
    put_artifact(studio.data, "tokens", "t", "tokenization.json", '{"dataset": "d", "model": "m"}')
    await studio.server.close()
    studio = await open_studio()
    job = await studio.submit(train("train"))
    while not (await studio.get(f"/api/jobs/{job['id']}/checkpoints"))["checkpoints"]:
        await asyncio.sleep(0.02)
    await studio.act(job["id"], "stop")
    await studio.until(job["id"])
    await studio.server.close()
    data = studio.data
    put_sae(data, "a", (1, 2, 10), job=job["id"])
    put_sae(data, "b", (3,))
    put_sae(data, "gone", ())
    (data / "steering").mkdir()
    (data / "steering" / f"{'ab' * 32}.json").write_text("{}")
    put_artifact(
        data, "activations", "k1", "manifest.json", json.dumps({"belongs_to": {"hook": "blocks.0.hook_resid_post"}})
    )
    with (data / "activations" / "k1" / "values.bin").open("wb") as sparse:
        sparse.truncate(1 << 30)
    put_artifact(
        data, "activations", "k2", "manifest.json", json.dumps({"belongs_to": {"hook": "blocks.9.hook_resid_post"}})
    )
    (data / "backups").mkdir()
    for day in (1, 2, 3):
        (data / "backups" / f"mistudio-2026-01-0{day}.db").write_text("x" * 5000)
    for name in ("20260101-000000", "20260101-000000-wal", "20260102-000000"):
        (data / f"mistudio.db.until-{name}").write_text("x" * 5000)
    studio = await open_studio()
    await say_all(studio, "gone", "gone")
    await done(studio, "DELETE", "/api/saes/gone")
    return studio


def groups(found: dict[str, Any], name: str = "groups") -> dict[str, int]:
    return {one["what"]: one["things"] for one in found[name]}


async def test_sizes_are_those_of_du_and_links_are_not_followed(open_studio: OpenStudio, tmp_path_factory: Any) -> None:
    studio = await full(open_studio)
    big = tmp_path_factory.mktemp("big")
    (big / "weights").write_bytes(b"x" * 5_000_000)
    (studio.data / "saes" / "a" / "link").symlink_to(big / "weights")
    (studio.data / "models" / "linked").symlink_to(big)
    os.link(studio.data / "saes" / "a" / "sae_weights.safetensors", studio.data / "saes" / "b" / "same")
    found, data = await studio.get("/api/disk"), studio.data
    for name in PLACES:
        paths = [data / name]
        if name == "runs":
            paths = [one for one in data.glob("runs/*/*") if one.name != "checkpoints"]
        assert found["places"][name] == du(*paths), name
    assert found["places"]["checkpoints"] == du(*data.glob("runs/*/checkpoints"))
    assert found["bytes"] == sum(found["places"].values()) < 5_000_000
    a = next(one for one in found["saes"] if one["name"] == "a")
    assert a["features"] == du(data / "features" / "a") and a["exports"] == du(*data.glob("exports/a-*"))
    assert a["checkpoints"] == du(data / "runs" / str(a["job"]) / "checkpoints")
    assert a["maxima"] == du(data / "steering")
    parts = ("weights", "features", "exports", "checkpoints", "maxima")
    assert all(one["bytes"] == sum(one[part] for part in parts) for one in found["saes"])


async def test_a_dry_run_and_the_read_say_the_same_and_delete_nothing(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    before = sorted(str(path) for path in studio.data.rglob("*"))
    found = await studio.get("/api/disk")
    dry = await done(studio, "POST", "/api/clean", {})
    assert dry["dry_run"] is True and dry["groups"] == found["clean"]
    assert groups(dry) == {
        "trash": 1, "checkpoints": 0, "extractions": 2, "exports": 4, "activations": 2, "maxima": 1, "logs": 0,
        "backups": 4,
    }  # fmt: skip
    assert dry["bytes"] == sum(one["bytes"] for one in dry["groups"])
    assert sorted(str(path) for path in studio.data.rglob("*")) == before


async def test_only_what_was_named_is_deleted_and_every_sae_stays_as_it_is(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    await say_all(studio, "a", "alpha")
    before = await known(studio, "a")
    dry = {one["what"]: one for one in (await done(studio, "POST", "/api/clean", {}))["groups"]}
    for what in ("extractions", "maxima", "activations", "backups", "trash"):
        found = await done(studio, "POST", "/api/clean", {"what": [what], "dry_run": False})
        assert found["groups"] == [dry[what]] and found["bytes"] == dry[what]["bytes"], what
    assert await known(studio, "a") == before
    assert sorted(path.name for path in studio.data.glob("features/*/*")) == ["10", "3"]
    assert [path.name for path in (studio.data / "backups").iterdir()] == ["mistudio-2026-01-03.db"]
    assert [path.name for path in studio.data.glob("*until*")] == ["mistudio.db.until-20260102-000000"]
    assert list((studio.data / "trash").iterdir()) == list((studio.data / "activations").iterdir()) == []
    assert len(list((studio.data / "exports").iterdir())) == 4
    rest = await done(studio, "POST", "/api/clean", {})
    assert groups(rest) == dict.fromkeys(dry, 0) | {"exports": 4}
    assert not list(studio.data.rglob(".partial-*"))


@pytest.mark.parametrize("body", [{"dry_run": False}, {"what": ["saes"]}, {"what": ["../saes"]}, {"what": "trash"}])
async def test_what_is_to_be_deleted_must_be_said(open_studio: OpenStudio, body: Any) -> None:
    studio = await open_studio()
    assert (await studio.call("POST", "/api/clean", json=body))[0] == 400


async def test_of_checkpoints_the_newest_whole_one_of_each_group_stays(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    job, data = (await studio.get("/api/saes/a"))["job"], studio.data
    first = {path.name for path in data.glob(f"runs/{job}/checkpoints/*")}
    for number in (100, 200, 300):
        checkpoint(data, job, number)
    checkpoint(data, job, 400, whole=False)
    for number in (500, 600):
        checkpoint(data, job, number, ["c", "d"])
    await done(studio, "POST", "/api/clean", {"what": ["checkpoints"], "dry_run": False})
    left = {path.name for path in data.glob(f"runs/{job}/checkpoints/*")} - first
    assert left == {"300", "400", "600"}, "of a damaged one nobody knows what it stands for"


async def test_checkpoints_of_a_training_that_is_done_and_whose_saes_are_gone_all_go(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    put_artifact(studio.data, "tokens", "t", "tokenization.json", '{"dataset": "d", "model": "m"}')
    await studio.server.close()
    studio = await open_studio()
    job = (await studio.until((await studio.submit(train("ok")))["id"], "done"))["id"]
    for number in (1, 2):
        checkpoint(studio.data, job, number, ["ok"])

    async def left() -> list[str]:
        await done(studio, "POST", "/api/clean", {"what": ["checkpoints"], "dry_run": False})
        return [path.name for path in studio.data.glob(f"runs/{job}/checkpoints/*")]

    assert await left() == ["2"]
    await done(studio, "DELETE", "/api/saes/ok")
    assert await left() == ["2"], "it can be restored, and trained on"
    await done(studio, "DELETE", "/api/trash")
    assert await left() == []


async def test_what_an_unfinished_job_reads_stays(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    slow = await studio.submit(dataset("slow"))
    await studio.submit({"kind": "export", "sae": "a"}, after=[slow["id"]])
    await studio.submit(train("more"), after=[slow["id"]])
    found = groups(await done(studio, "POST", "/api/clean", {}))
    assert (found["extractions"], found["exports"], found["activations"]) == (0, 2, 1)
    status, said = await studio.call("DELETE", "/api/exports/a-saelens")
    assert (status, "writes an export of a" in said["error"]["message"]) == (409, True)
    await done(studio, "POST", "/api/clean", {"what": ["activations"], "dry_run": False})
    assert [path.name for path in (studio.data / "activations").iterdir()] == ["k1"]


async def test_earlier_extractions_stay_where_the_newest_is_of_other_weights(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    manifest = studio.data / "features" / "a" / "10" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sae_sha256": "cd" * 32}))
    await studio.server.close()
    studio = await open_studio()
    assert groups(await done(studio, "POST", "/api/clean", {}))["extractions"] == 0


async def test_a_backup_that_goes_meanwhile_does_not_keep_the_others(
    open_studio: OpenStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = await full(open_studio)

    def gone(path: Path) -> int:
        path.unlink(missing_ok=True)  # as the nightly backup's own tidying does
        return 0

    monkeypatch.setattr("mistudiod.cleaning.bytes_of", gone)
    await done(studio, "POST", "/api/clean", {"what": ["backups"], "dry_run": False})
    monkeypatch.undo()
    assert groups(await done(studio, "POST", "/api/clean", {}))["backups"] == 0


async def test_logs_go_30_days_after_their_job_and_records_stay(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    job, app = (await studio.get("/api/saes/a"))["job"], studio.app
    ended = datetime.fromisoformat((await studio.get(f"/api/jobs/{job}"))["ended_at"].replace("Z", "+00:00"))
    (studio.data / "runs" / str(job) / "log.txt").write_text("words")

    async def cleaned(days: float) -> int:
        at = ended + timedelta(days=days)
        cleaning = Cleaning(app[keys.DATABASE], app[keys.PATHS], app[keys.INDEX], app[keys.TRASH], lambda: at)
        return int((await cleaning.clean(["logs"]))[0]["things"])

    assert await cleaned(29.9) == 0 and await cleaned(30.1) == 1
    assert (await studio.get(f"/api/jobs/{job}/log"))["log"] == ""
    assert (studio.data / "runs" / str(job) / "job.json").exists()


async def test_only_exports_that_can_be_written_again_are_offered(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    for name in ("somebodys", "nobody-zip", "x" * 240):
        (studio.data / "exports" / name).mkdir()
    assert (await done(studio, "POST", "/api/clean", {"what": ["exports"], "dry_run": False}))["groups"][0][
        "things"
    ] == 4
    assert {path.name for path in (studio.data / "exports").iterdir()} == {"somebodys", "nobody-zip", "x" * 240}


async def test_checkpoints_stay_while_a_job_may_read_them(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    job, data = (await studio.get("/api/saes/a"))["job"], studio.data
    for number in (100, 200):
        checkpoint(data, job, number)
    slow = await studio.submit(dataset("slow"))
    await studio.submit({"kind": "compare", "saes": ["a@100", "b"]}, after=[slow["id"]])
    assert groups(await done(studio, "POST", "/api/clean", {}))["checkpoints"] == 0


async def test_exports_are_listed_and_deleted_one_by_one(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    (studio.data / "exports" / "somebodys").mkdir()
    found = (await studio.get("/api/exports"))["exports"]
    named = [(one["name"], one["sae"], one["format"]) for one in found]
    assert named == [
        *((f"{sae}-{format}", sae, format) for sae in "ab" for format in ("saelens", "zip")), ("somebodys", None, None)
    ]  # fmt: skip
    await done(studio, "DELETE", "/api/exports/a-zip")
    assert len((await studio.get("/api/exports"))["exports"]) == 4
    for name in ("a-zip", "..", "%2e%2e", ".partial-x"):
        assert (await studio.call("DELETE", f"/api/exports/{name}"))[0] in (404, 405)


async def test_a_folder_of_many_files_does_not_hold_up_the_loop(open_studio: OpenStudio) -> None:
    studio = await full(open_studio)
    for number in range(40):
        folder = studio.data / "incoming" / str(number)
        folder.mkdir()
        for file in range(250):
            (folder / str(file)).touch()
    began = time.monotonic()
    await asyncio.to_thread(bytes_of, studio.data)
    limit_s = max(time.monotonic() - began, 0.2)
    assert await standstill(lambda: studio.get("/api/disk"), limit_s) < limit_s


def test_what_vanishes_while_it_is_counted_is_not_there(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert bytes_of(tmp_path / "none") == 0
    found = survey(paths, [{"name": "none", "job": 5, "sae_sha256": "../../x"}])
    assert found["saes"] == [
        {
            "name": "none",
            "job": 5,
            **dict.fromkeys(("weights", "features", "exports", "checkpoints", "maxima", "bytes"), 0),
        }
    ]
