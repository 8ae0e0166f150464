"""A backup is made while the studio works, holds one moment, and no secret; each night one is made by itself."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import sqlite3
import tarfile
import threading
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError
from conftest import OpenStudio, Studio, dataset, put_artifact
from kept_saes import put_sae, say_all

from mistudiod import backups, kept_backups, snapshot
from mistudiod.api import keys
from mistudiod.backup_file import ABOUT, SUMS, unpack
from mistudiod.backups import Backups
from mistudiod.doctor import examine
from mistudiod.errors import Conflict, StoreError
from mistudiod.paths import PARTIAL, Paths
from mistudiod.settings import Settings

CANARY = "hf_canary0123456789abcdef"


@pytest.fixture
async def full(open_studio: OpenStudio, tmp_path: Path) -> Studio:
    """With an SAE of which a person has said much, a job, and something large of each noun."""
    data = tmp_path / "data"
    put_sae(data, "pico", (1, 2))
    put_artifact(data, "models", "m", "model.json", json.dumps({"path": str(tmp_path), "source": "a/b"}))
    for noun, name, marker in (("datasets", "d", "dataset.json"), ("tokens", "t", "tokenization.json")):
        (put_artifact(data, noun, name, marker) / "large.bin").write_bytes(os.urandom(2 << 20))
    studio = await open_studio()
    await say_all(studio, "pico", "commas")
    await studio.until((await studio.submit(dataset("ok")))["id"])
    await studio.app[keys.RECORDS].flush()  # what is in their folders then stays as it is
    return studio


async def made(studio: Studio, **which: Any) -> bytes:
    async with studio.session.post(studio.server.make_url("/api/backup"), json=which) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/x-tar"
        return await response.read()


def names_in(whole: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        return set(tar.getnames())


def left_behind(data: Path) -> list[str]:
    """Looked for in a way that a folder which is deleted meanwhile is no error."""
    return [name for _, folders, files in os.walk(data) for name in (*folders, *files) if PARTIAL in name]


async def test_it_has_the_database_records_and_what_is_small_and_says_what_it_lacks(full: Studio) -> None:
    about = await full.get("/api/backup")
    whole = await made(full)
    known = unpack(io.BytesIO(whole), None)
    found = names_in(whole)
    assert {"mistudio.db", "runs/1/job.json", "runs/1/log.txt", "runs/1/spec.json"} < found
    assert {"saes/pico/recipe.json", "saes/pico/sae_weights.safetensors", "features/pico/2/pages.bin"} < found
    assert {"models/m/model.json", "datasets/d/dataset.json", "tokens/t/tokenization.json"} < found
    assert not any(name.startswith(("exports/", "activations/", "trash/", "uploads/", "steering/")) for name in found)
    assert known["left_out"] == about["left_out"] == [
        {"what": "datasets/d", "bytes": 2 << 20}, {"what": "tokens/t", "bytes": 2 << 20},
    ]  # fmt: skip
    assert about["files"] == known["files"] == len(found - {ABOUT, SUMS})
    assert abs(about["bytes"] - known["bytes"]) < 5 << 20 and about["name"].endswith(".tar")
    assert left_behind(full.data) == []


async def test_saes_that_are_large_come_whole_when_asked_for(full: Studio) -> None:
    (full.data / "saes" / "pico" / "sae_weights.safetensors").write_bytes(os.urandom(3 << 20))
    (full.data / "features" / "pico" / "2" / "more.bin").write_bytes(os.urandom(3 << 20))
    without, whole = names_in(await made(full)), names_in(await made(full, saes=True))
    only = {"saes/pico/sae_weights.safetensors", "features/pico/2/more.bin", "features/pico/2/pages.bin"}
    assert not only & without and only < whole
    assert {"saes/pico/recipe.json", "features/pico/2/manifest.json"} < without
    left = [one["what"] for one in (await full.get("/api/backup?saes=true"))["left_out"]]
    assert left == ["datasets/d", "tokens/t"]


async def test_what_a_person_has_linked_to_is_in_it_whole_or_said_to_be_left_out(full: Studio, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("a prompt that is longer than the name of its place " * 9)
    templates = full.data / "templates"
    (templates / "a-folder.txt").mkdir(parents=True)
    (templates / "linked.txt").symlink_to(elsewhere / "mine.txt")
    (templates / "beside.txt").symlink_to(Path("linked.txt"))
    (templates / "gone.txt").symlink_to(elsewhere / "gone.txt")
    weights = full.data / "saes" / "pico" / "more.safetensors"
    weights.symlink_to(elsewhere / "mine.txt")
    whole = await made(full, saes=True)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        for name in ("linked", "beside"):
            assert tar.extractfile(f"templates/{name}.txt").read() == (elsewhere / "mine.txt").read_bytes()
        assert not [name for name in tar.getnames() if "gone" in name or "a-folder" in name or "more" in name]
        left = [one["what"] for one in json.load(tar.extractfile(ABOUT))["left_out"]]
    assert "saes/pico" in left


async def test_no_secret_is_in_it(full: Studio) -> None:
    status, _ = await full.call("PUT", "/api/secrets/hf", json={"value": CANARY})
    assert status == 204
    (full.data / "tls").mkdir()
    (full.data / "tls" / "key.pem").write_text(CANARY)
    whole = await made(full, saes=True)
    assert CANARY.encode() not in whole and b"key.pem" not in whole
    assert CANARY in (full.data / "secrets.json").read_text()


async def test_only_an_admin_may_have_one(open_studio: OpenStudio, full: Studio) -> None:
    tokens = full.app[keys.TOKENS]
    from mistudiod.tokens import Scope

    for scope, expected in ((Scope.WRITE, 403), (Scope.ADMIN, 200)):
        _, text = await tokens.create(scope.value, scope)
        for method in ("GET", "POST"):
            options = {"json": {}} if method == "POST" else {}
            url = full.server.make_url("/api/backup")
            headers = {"Authorization": f"Bearer {text}"}
            async with full.session.request(method, url, headers=headers, **options) as response:
                await response.read()
                assert response.status == expected


async def test_it_is_of_one_moment_while_everything_goes_on_and_nobody_waits_for_it(
    full: Studio, tmp_path: Path
) -> None:
    """A row of each of two tables is written together, all the while: a copy has as many of the one as of the other."""
    database = full.app[keys.DATABASE]
    await database.write(lambda db: db.execute("create table pairs (n integer primary key, filled text)"))
    await database.write(lambda db: db.execute("create table others (n integer primary key)"))
    waits: list[float] = []
    ended = False

    def both(db: sqlite3.Connection) -> None:
        db.execute("insert into pairs (filled) values (?)", ("x" * 20_000,))
        db.execute("insert into others default values")

    async def write() -> None:
        while not ended:
            began = time.monotonic()
            await database.write(both)
            waits.append(time.monotonic() - began)

    for _ in range(300):
        await database.write(both)
    writing = asyncio.create_task(write())
    counts = []
    for number in range(3):
        whole = await made(full)
        out = tmp_path / f"out{number}"
        out.mkdir()
        unpack(io.BytesIO(whole), out)
        with contextlib.closing(sqlite3.connect(out / "mistudio.db")) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            pairs, others = (db.execute(f"select count(*) from {name}").fetchone()[0] for name in ("pairs", "others"))
        assert pairs == others
        counts.append(pairs)
    ended = True
    await writing
    assert counts == sorted(counts) and counts[-1] > counts[0] >= 300, "what was written meanwhile is in the next one"
    assert max(waits) < 5.0 and len(waits) > 10


async def test_a_job_that_ends_meanwhile_and_a_log_that_grows_spoil_nothing(full: Studio) -> None:
    log = (full.data / "runs" / "1" / "log.txt").open("ab")
    with log:
        for _ in range(3):
            job = await full.submit(dataset("ok2"))
            log.write(b"more\n" * 1000)
            log.flush()
            unpack(io.BytesIO(await made(full)), None)
            await full.until(job["id"])
            await full.call("DELETE", "/api/datasets/ok2")


async def test_sae_and_labels_agree_however_often_it_is_renamed_meanwhile(
    full: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_WAIT_S", 0.02)
    ended, pause_s = False, 0.1

    async def rename() -> None:
        name = "pico"
        while not ended:
            new = "other" if name == "pico" else "pico"
            await full.call("POST", f"/api/saes/{name}/rename", json={"name": new})
            name = new
            await asyncio.sleep(pause_s)

    renaming = asyncio.create_task(rename())
    taken = 0
    try:
        for number in range(5):
            async with full.session.post(full.server.make_url("/api/backup"), json={}) as response:
                whole = await response.read()
            if response.status == 409:  # it says so rather than give one whose halves do not belong together
                assert "renamed or removed all the while" in whole.decode()
                pause_s *= 4  # where a backup takes longer than that
                continue
            assert response.status == 200, whole
            taken += 1
            out = tmp_path / f"out{number}"
            out.mkdir()
            unpack(io.BytesIO(whole), out)
            with contextlib.closing(sqlite3.connect(out / "mistudio.db")) as db:
                (labelled,) = {row[0] for row in db.execute("select sae from labels")}
            assert [path.name for path in (out / "saes").iterdir()] == [labelled]
            assert not (out / "moving.json").exists()
    finally:
        ended = True
        await renaming
    assert taken


async def test_two_are_not_made_at_once_and_one_who_leaves_frees_it(full: Studio) -> None:
    async with full.app[keys.BACKUPS].taking(saes=False) as found:
        assert found.folder.is_dir()
        status, body = await full.call("POST", "/api/backup", json={})
        assert (status, body["error"]["message"]) == (409, "another backup is being made: wait for its end")
    assert left_behind(full.data) == []
    (full.data / "saes" / "pico" / "sae_weights.safetensors").write_bytes(os.urandom(40 << 20))
    async with full.session.post(full.server.make_url("/api/backup"), json={"saes": True}) as response:
        await response.content.readexactly(100_000)
        response.close()
    for _ in range(500):
        if not left_behind(full.data):
            break
        await asyncio.sleep(0.02)
    unpack(io.BytesIO(await made(full)), None)
    assert left_behind(full.data) == []


async def test_one_who_leaves_when_everything_is_copied_leaves_no_copy(
    full: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshot.take

    def late(paths: Paths, saes: bool, stop: threading.Event) -> snapshot.Snapshot:
        assert stop.wait(30)
        return taken(paths, saes, threading.Event())

    monkeypatch.setattr(snapshot, "take", late)
    making = asyncio.create_task(full.app[keys.BACKUPS].make())
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert left_behind(full.data) == []


async def test_one_whose_files_are_cut_short_meanwhile_ends_too_early_and_the_next_is_whole(full: Studio) -> None:
    large = full.data / "saes" / "pico" / "sae_weights.safetensors"
    large.write_bytes(bytes(60 << 20))
    with pytest.raises((ClientError, ConnectionError)):
        async with full.session.post(full.server.make_url("/api/backup"), json={"saes": True}) as response:
            await response.content.readexactly(100_000)
            os.truncate(large, 40 << 20)
            while await response.content.readany():
                pass
    assert await full.get("/api/backup?saes=true")
    unpack(io.BytesIO(await made(full, saes=True)), None)


async def test_what_a_killed_daemon_leaves_of_one_is_gone_at_the_next_start(
    full: Studio, open_studio: OpenStudio
) -> None:
    taking = full.app[keys.BACKUPS].taking(saes=False)
    found = await taking.__aenter__()
    (full.data / "backups" / f"{PARTIAL}mistudio-vm-20261130-0330.tar").write_bytes(b"half")
    await full.server.close()
    assert found.folder.is_dir()
    studio = await open_studio()
    assert list((studio.data / "backups").iterdir()) == []
    await taking.__aexit__(None, None, None)


async def test_a_damaged_database_gives_no_backup(full: Studio, caplog: pytest.LogCaptureFixture) -> None:
    """Seven nights of it would otherwise take the good ones away."""
    path = full.data / "mistudio.db"
    query = "insert into tokens (name, scope, hash, created_at) values (?, 'read', 'x', '')"
    await full.app[keys.DATABASE].write(lambda db: db.execute(query, ("y" * 200_000,)))
    await full.server.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 40_000)
    at = datetime(2026, 11, 30, 12, 0, tzinfo=timezone.utc)
    nightly = Backups(full_paths(full), "03:30", 7, lambda: at)
    with pytest.raises(StoreError, match="cannot be copied"):
        await nightly.make()
    assert list((full.data / "backups").iterdir()) == []


def full_paths(studio: Studio) -> Any:
    return studio.app[keys.PATHS]


# -- each night --------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).astimezone()

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def nightly(studio: Studio) -> AsyncIterator[tuple[Backups, Clock, Path]]:
    clock = Clock("2026-11-30T12:00:00")
    yield Backups(full_paths(studio), "03:30", 3, clock), clock, studio.data / "backups"


Nightly = tuple[Backups, Clock, Path]


async def test_one_is_made_each_night_and_the_newest_stay(nightly: Nightly) -> None:
    one, clock, folder = nightly
    for _ in range(5 * 24):  # five days, looked at each hour
        assert await one.look()
        clock.now += timedelta(hours=1)
    found = kept_backups.backups_in(folder)
    assert len(found) == 3 and {path.name for path in folder.iterdir()} == {path.name for path in found}
    made_at = [kept_backups.made_at(path) for path in found]
    assert [at.astimezone().strftime("%d %H") for at in made_at if at] == ["03 04", "04 04", "05 04"]
    for path in found:
        with path.open("rb") as file:
            unpack(file, None)
        assert path.stat().st_mode & 0o777 == 0o600


async def test_one_that_was_missed_in_sleep_is_made_at_the_next_look_and_only_once(nightly: Nightly) -> None:
    one, clock, folder = nightly
    await one.look()
    clock.now += timedelta(days=9, hours=3)
    for _ in range(3):
        await one.look()
    assert len(kept_backups.backups_in(folder)) == 2


async def test_a_clock_that_jumps_makes_neither_many_nor_none(nightly: Nightly) -> None:
    one, clock, folder = nightly
    await one.look()
    clock.now += timedelta(days=4000)  # wrong, for four days
    for _ in range(4):
        await one.look()
        clock.now += timedelta(days=1)
    clock.now = Clock("2026-12-01T12:00:00").now  # mended
    for _ in range(3):
        await one.look()
        await one.look()
        clock.now += timedelta(days=1)
    years = [at.year for path in kept_backups.backups_in(folder) if (at := kept_backups.made_at(path))]
    assert years == [2026, 2026, 2026], "those that say they are of the future were the first to go"


async def test_without_room_none_is_made_and_log_and_doctor_say_so_until_one_is(
    nightly: Nightly, studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, clock, folder = nightly
    await one.look()
    before = kept_backups.backups_in(folder)
    clock.now += timedelta(days=1)
    monkeypatch.setattr(backups, "SHORT_BYTES", 1 << 60)
    with caplog.at_level(logging.WARNING):
        assert not await one.look()
    assert "the nightly backup failed, and is tried again in an hour: the disk is nearly full" in caplog.text
    assert kept_backups.backups_in(folder) == before and left_behind(studio.data) == []
    assert "the disk is nearly full" in (await studio.get("/api/backup"))["nightly"]["failed"]
    found = {finding.name: finding for finding in await examine(Settings(data=studio.data))}["backups"]
    assert found.level == "warning" and "the nightly backup failed: the disk is nearly full" in found.message
    monkeypatch.setattr(backups, "SHORT_BYTES", 0)
    assert await one.look()
    assert (await studio.get("/api/backup"))["nightly"]["failed"] is None
    found = {finding.name: finding for finding in await examine(Settings(data=studio.data))}["backups"]
    assert "each night at 03:30; the newest is of 2026-12-01" in found.message


async def test_it_can_be_switched_off(studio: Studio) -> None:
    one = Backups(full_paths(studio), "off", 3)
    await asyncio.wait_for(one.run(), 5)
    assert await one.look()
    assert not (studio.data / "backups").exists()


@pytest.mark.parametrize("text", ["3", "25:00", "03:60", "", "night", "03:30:00"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time of day, as 03:30, or off"):
        kept_backups.parse_time(text)


async def test_what_is_removed_while_it_is_looked_at_is_no_error(full: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = snapshot.contents, []

    def once_gone(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise FileNotFoundError
        return real(*args)

    monkeypatch.setattr(snapshot, "contents", once_gone)
    unpack(io.BytesIO(await made(full)), None)
    assert len(calls) == 2
    monkeypatch.setattr(snapshot, "_places", lambda _: {("saes/pico", time.monotonic_ns())})
    monkeypatch.setattr(snapshot, "_WAIT_S", 0.01)
    with pytest.raises(Conflict, match="make the backup once that is over"):
        async with full.app[keys.BACKUPS].taking(saes=False):
            pass
    assert left_behind(full.data) == []
