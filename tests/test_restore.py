"""A studio out of a backup: what it knew is there, nothing goes on by itself, nothing half is taken for whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, train
from kept_saes import put_sae, say_all
from test_backup_file import tar_of
from test_daemon import Daemon, start  # noqa: F401 - a fixture
from test_reindex import everything, lose_database

from mistudiod import put_back, schema
from mistudiod.api import keys
from mistudiod.app import claim
from mistudiod.backups import write
from mistudiod.errors import StoreError
from mistudiod.paths import Paths
from mistudiod.tokens import Scope

STARS = ("/api/steerings", "/api/profiles", "/api/saes/pico/features/0/label", "/api/saes/pico/features/2",
         "/api/saes/pico/ranges", "/api/saes/pico", "/api/tokens", "/api/settings")  # fmt: skip


async def all_said(studio: Studio) -> dict[str, Any]:
    found = await everything(studio)
    return found | {path: await studio.get(path) for path in STARS}


async def backed_up(studio: Studio, place: Path, saes: bool = False) -> Path:
    async with studio.app[keys.BACKUPS].taking(saes) as found:
        await asyncio.to_thread(write, found, place, 0, threading.Event())
    return place


@pytest.fixture
async def full(open_studio: OpenStudio, tmp_path: Path) -> Studio:
    data = tmp_path / "data"
    put_sae(data, "pico")
    put_artifact(data, "models", "m", "model.json", json.dumps({"path": str(tmp_path), "source": "a/b"}))
    put_artifact(data, "tokens", "t", "tokenization.json", "{}")
    studio = await open_studio()
    await say_all(studio, "pico", "commas")
    await studio.app[keys.TOKENS].create("laptop", Scope.READ)
    await studio.call("PATCH", "/api/settings", json={"session_keep_alive": "1h"})
    for spec in (dataset("ok"), dataset("fail"), train("ok")):
        await studio.until((await studio.submit(spec))["id"])
    return studio


def restore(file: Path, data: Path) -> put_back.Restored:
    data.mkdir(exist_ok=True)
    return put_back.restore(file, Paths(data), lambda *_: None)


async def anew(
    studio: Studio, open_studio: OpenStudio, file: Path, then: Callable[[Path], Any] = lambda _: None
) -> Studio:
    """The studio's folder is lost, and made again of a backup."""
    await studio.server.close()
    studio.data.rename(studio.data.with_name("lost"))
    restore(file, studio.data)
    then(studio.data)
    return await open_studio()


async def test_all_that_was_known_is_known_again(full: Studio, open_studio: OpenStudio, tmp_path: Path) -> None:
    before = await all_said(full)
    assert before["/api/saes/pico/features/0/label"] and before["/api/steerings"]["steerings"]
    studio = await anew(full, open_studio, await backed_up(full, tmp_path / "b.tar"))
    assert await all_said(studio) == before
    assert (await studio.submit(dataset("ok2")))["id"] == before["jobs"][0]["id"] + 1
    assert sorted(path.name for path in studio.data.glob(".partial*")) == []


async def test_what_had_not_ended_is_stopped_and_says_why(
    full: Studio, open_studio: OpenStudio, tmp_path: Path
) -> None:
    running = await full.submit(train("slow"))
    await full.until(running["id"], "running")
    waiting = await full.submit(dataset("slow"), after=[running["id"]])
    file = await backed_up(full, tmp_path / "b.tar")
    for job in (running, waiting):
        await full.act(job["id"], "stop")
    await full.until(running["id"], "stopped")
    studio = await anew(full, open_studio, file)
    for job in (running, waiting):
        found = await studio.get(f"/api/jobs/{job['id']}")
        assert found["state"] == "stopped"
        assert re.fullmatch(
            r"the studio was restored from a backup of 20\S+, and with it how this job went; retry to do it again",
            found["error"]["message"],
        )
    assert (await studio.get("/api/ps"))["running"] == []
    await studio.act(running["id"], "retry")
    await studio.until(running["id"], "running")
    await studio.act(running["id"], "stop")


async def test_what_is_not_whole_is_named_and_not_listed(full: Studio, open_studio: OpenStudio, tmp_path: Path) -> None:
    (full.data / "saes" / "pico" / "sae_weights.safetensors").write_bytes(os.urandom(3 << 20))
    put_artifact(full.data, "datasets", "big", "dataset.json", '{"source": "own/er"}')
    (full.data / "datasets" / "big" / "data.parquet").write_bytes(os.urandom(2 << 20))
    (full.data / "tokens" / "t" / "tokenization.json").write_text('{"dataset": "big", "model": "m", "context": 64}')
    (full.data / "tokens" / "t" / "tokens.bin").write_bytes(os.urandom(2 << 20))
    put_artifact(full.data, "models", "gone", "model.json", '{"source": "x/y", "revision": "abc", "path": "/no/where"}')
    (full.data / "runs" / "1" / "checkpoints" / "5").mkdir(parents=True)
    (full.data / "runs" / "1" / "checkpoints" / "5" / "state.safetensors").write_bytes(b"x")
    file = await backed_up(full, tmp_path / "b.tar")
    missing: list[str] = []
    await full.server.close()
    full.data.rename(tmp_path / "lost")
    missing = restore(file, full.data).missing
    assert missing == [
        "model gone: mistudio model add x/y --revision abc --name gone",
        "dataset big: mistudio dataset add own/er --name big",
        "tokenization t: mistudio dataset tokenize big --model m --context 64 --name t",
        "SAE pico: its weights; its labels wait for its folder in saes/, and its recipe is in incomplete/",
        "features of pico: mistudio feature extract pico",
        "checkpoints of 1 job: a training that goes on begins anew",
    ]
    studio = await open_studio()
    names = [
        one["name"] for noun in ("model", "dataset", "sae") for one in (await studio.get(f"/api/{noun}s"))[f"{noun}s"]
    ]
    assert sorted(names) == ["m", "ok", "ok"]
    assert (studio.data / "incomplete" / "saes" / "pico" / "recipe.json").is_file()
    await studio.server.close()
    for place in ("saes/pico", "features/pico"):
        (studio.data / place).parent.mkdir(exist_ok=True)
        (tmp_path / "lost" / place).rename(studio.data / place)
    studio = await open_studio()
    assert (await studio.get("/api/saes/pico/features/0/label"))["text"] == "commas 0", "its labels have waited"


async def test_a_backup_with_saes_has_them_whole(full: Studio, open_studio: OpenStudio, tmp_path: Path) -> None:
    weights = os.urandom(3 << 20)
    (full.data / "saes" / "pico" / "sae_weights.safetensors").write_bytes(weights)
    studio = await anew(full, open_studio, await backed_up(full, tmp_path / "b.tar", saes=True))
    assert (studio.data / "saes" / "pico" / "sae_weights.safetensors").read_bytes() == weights
    assert (await studio.get("/api/saes/pico/features/0"))["label"]["text"] == "commas 0"


async def test_a_folder_that_is_not_empty_is_refused_and_left_alone(full: Studio, tmp_path: Path) -> None:
    file = await backed_up(full, tmp_path / "b.tar")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(
        StoreError, match=r"is not empty \(it has notes\.txt\): move it away first, or name another one"
    ):
        restore(file, other)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


async def test_one_that_cannot_be_used_leaves_the_folder_empty(full: Studio, tmp_path: Path) -> None:
    file = await backed_up(full, tmp_path / "b.tar")
    whole = file.read_bytes()
    odd = {
        "cut off": whole[: len(whole) // 2],
        "damaged": whole.replace(b"SQLite format 3", b"SQLite format 4", 1),
        "no backup": b"x" * 10_000,
        "newer miStudio": whole.replace(b"m006_leases_and_steering", b"m999_leases_and_steering", 1),
    }
    for reason, content in odd.items():
        (tmp_path / "odd.tar").write_bytes(content)
        with pytest.raises(StoreError, match=reason):
            restore(tmp_path / "odd.tar", tmp_path / "new")
        assert list((tmp_path / "new").iterdir()) == [], reason
    with pytest.raises(StoreError, match="No such file"):
        restore(tmp_path / "none.tar", tmp_path / "new")


def test_what_a_hostile_backup_says_of_itself_is_neither_followed_nor_a_command(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as db:
        schema.migrate(db)
    source = json.dumps({"source": "a; rm -rf ~\x1b[2J", "revision": "$(id)"})
    lacking = [{"what": what, "bytes": 1} for what in ("saes/../../out", "models//x", "saes/", "models/`id`")]
    whole = tar_of(
        ("mistudio.db", (tmp_path / "a.db").read_bytes()),
        ("models/`id`/model.json", source.encode()),
        ("runs/1/job.json", b"[" * 100_000),
        ("models/deep/model.json", b"[" * 100_000),
        left_out=lacking,
        migrations=[],
    )
    (tmp_path / "b.tar").write_bytes(whole)
    (tmp_path / "out").mkdir()
    assert restore(tmp_path / "b.tar", tmp_path / "new").missing == [
        "model '`id`': mistudio model add 'a; rm -rf ~?[2J' --revision '$(id)' --name '`id`'",
        "model deep: mistudio model add None --name deep",
    ]
    assert (tmp_path / "out").is_dir() and (tmp_path / "new" / "incomplete" / "models" / "`id`").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
@pytest.mark.parametrize(
    "words", ["restore b.tar", "restore --database", "reindex", "migrate", "token x", "certificate"]
)
def test_root_leaves_nothing_of_its_own_among_the_files_of_a_services_user(tmp_path: Path, words: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 12345, 12345)
    command = [sys.executable, "-m", "mistudiod", *words.split(), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 78 and f"{data} belongs to #12345: say this as that user, with sudo -u" in done.stderr
    assert list(data.iterdir()) == []


# Killed before one of its steps on the disk, then before a later one: says what the folder is for whoever looks then.
KILLED = """
import os, sys
from pathlib import Path
from mistudiod import app, put_back
from mistudiod.errors import StoreError
from mistudiod.paths import Paths
from mistudiod.tokens import Scope
file, paths = Path(sys.argv[1]), Paths(Path(sys.argv[2]))

def dies(at):
    steps = 0
    def count(event, args):
        nonlocal steps
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event in {"os.rename", "os.mkdir", "os.utime", "os.rmdir", "os.remove", "sqlite3.connect"} or writes:
            if steps == at:
                os._exit(9)
            steps += 1
    sys.addaudithook(count)
    put_back.restore(file, paths, lambda *_: None)
    os._exit(0)

code, step = None, 0
while code != 0 and not paths.database.exists():
    if (child := os.fork()) == 0:
        dies(step)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    step += 13
    try:
        if any(paths.data.iterdir()) and not paths.database.exists():
            with app.claim(paths):
                print("started")
        else:
            print("whole" if paths.database.exists() else "empty")
    except StoreError as error:
        print("refused" if "was cut short: run mistudiod restore FILE --data" in str(error) else error)
    (paths.data / "mistudiod.lock").unlink(missing_ok=True)
"""


async def test_one_that_is_killed_anywhere_is_begun_anew_and_nothing_half_is_ever_started(
    full: Studio, open_studio: OpenStudio, tmp_path: Path
) -> None:
    before = await all_said(full)
    file = await backed_up(full, tmp_path / "b.tar")
    await full.server.close()
    full.data.rename(tmp_path / "lost")
    data = full.data
    data.mkdir()
    command = [sys.executable, "-c", KILLED, str(file), str(data)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    seen = Counter(done.stdout.split("\n")[:-1])
    assert done.returncode == 0 and seen["refused"] > 5 and seen["whole"] == 1, done
    assert set(seen) <= {"refused", "empty", "whole"}
    if (data / ".partial-restoring").exists():
        restore(file, data)
    studio = await open_studio()
    assert await all_said(studio) == before


async def test_a_lost_database_is_put_back_with_its_labels_and_what_came_since(
    full: Studio, open_studio: OpenStudio, caplog: pytest.LogCaptureFixture
) -> None:
    slow = await full.submit(train("slow"))
    await full.until(slow["id"], "running")
    nightly = await full.app[keys.BACKUPS].make()
    before = await all_said(full)
    await full.act(slow["id"], "stop")
    ended = await full.until(slow["id"])
    since = await full.until((await full.submit(dataset("ok2")))["id"])
    await full.server.close()
    lose_database(full.data)
    studio = await open_studio()
    assert "was gone: jobs and artifacts are read from their folders; labels, marks" in caplog.text
    assert f"the newest copy is {nightly}: stop the studio and run mistudiod restore --database --data" in caplog.text
    assert (await studio.get("/api/steerings"))["steerings"] == []
    await studio.server.close()
    source, aside = put_back.restore_database(None, Paths(full.data), lambda *_: None)
    assert source == nightly and aside[0].name.startswith("mistudio.db.until-20")
    studio = await open_studio()
    after = await all_said(studio)
    assert {path: after[path] for path in STARS} == {path: before[path] for path in STARS}
    jobs = {job["id"]: job for job in after["jobs"]}
    assert jobs[slow["id"]] == ended, "of a job that went on after the backup its folder knows better"
    assert jobs[since["id"]]["state"] == "done" and len(jobs) == len(before["jobs"]) + 1
    assert "ok2" in [one["name"] for one in after["dataset"]]


# Killed before each of its steps on the disk that concern the data folder's database, one after the other.
REPLACED = """
import os, sys
from pathlib import Path
from mistudiod import put_back
from mistudiod.paths import Paths
file, paths, at = Path(sys.argv[1]), Paths(Path(sys.argv[2])), int(sys.argv[3])
steps = 0
def count(event, args):
    global steps
    if event == "os.rename" or event == "os.remove" or event == "os.rmdir":
        if steps == at:
            os._exit(9)
        steps += 1
sys.addaudithook(count)
put_back.restore_database(file, paths, lambda *_: None)
"""


def test_a_database_that_is_replaced_is_the_old_or_the_new_one_wherever_that_is_killed(tmp_path: Path) -> None:
    def database(path: Path, name: str) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("pragma journal_mode = wal")
        schema.migrate(db)
        db.execute("insert into profiles values (?, 'm', '', '{}')", (name,))
        return db

    def names(path: Path) -> list[str]:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return [name for (name,) in db.execute("select name from profiles")]

    database(tmp_path / "backups" / "copy.db", "new").close()
    data, seen, step, code = tmp_path / "data", [], 0, 9
    while code == 9:
        shutil.rmtree(data, ignore_errors=True)
        with contextlib.closing(database(data / "mistudio.db", "old")):  # what is in its log only must not be lost
            command = [sys.executable, "-c", REPLACED, str(tmp_path / "backups" / "copy.db"), str(data), str(step)]
            code = subprocess.run(command).returncode
            assert code in (0, 9)
            found = {path.name: path.read_bytes() for path in data.glob("mistudio.db*")}
        for path in data.glob("mistudio.db*"):
            path.unlink()
        for name, content in found.items():  # as the kill left them: the connection's end has tidied them up
            (data / name).write_bytes(content)
        with claim(Paths(data)):
            (seen_now,) = names(data / "mistudio.db")
        aside = sorted(path.name for path in data.glob("*.until-*"))
        if seen_now == "new":
            assert names(data / aside[0]) == ["old"], aside
        seen.append((seen_now, len(aside)))
        step += 1
    assert [name for name, _ in seen] == sorted((name for name, _ in seen), reverse=True), seen
    assert seen[0] == ("old", 0) and seen[-1][0] == "new" and sum(name == "new" for name, _ in seen) > 4, seen


async def test_a_damaged_database_names_the_newest_copy_and_the_command(full: Studio, open_studio: OpenStudio) -> None:
    nightly = await full.app[keys.BACKUPS].make()
    await full.server.close()
    path = full.data / "mistudio.db"
    path.write_bytes(b"\xff" * 50_000)
    with pytest.raises(StoreError) as refused:
        await open_studio()
    assert f"the newest copy is {nightly}: stop the studio and run mistudiod restore --database" in str(refused.value)
    nightly.write_bytes(nightly.read_bytes()[:-2000])
    with pytest.raises(StoreError, match=r"the database of .* cannot be restored: the backup is cut off"):
        put_back.restore_database(None, Paths(full.data), lambda *_: None)
    assert path.read_bytes() == b"\xff" * 50_000, "nothing was changed"
    nightly.unlink()
    with pytest.raises(StoreError, match="there is no copy in"):
        put_back.restore_database(None, Paths(full.data), lambda *_: None)


def test_as_a_command_it_says_what_it_did_and_refuses_while_the_studio_is_up(start: Any, tmp_path: Path) -> None:  # noqa: F811
    put_sae(tmp_path / "data", "pico")
    daemon: Daemon = start("--backups-kept", "2").ready()
    command = [sys.executable, "-m", "mistudio.cli", "-H", daemon.url, "backup", "--to", str(tmp_path / "b.tar")]
    subprocess.run(command, check=True, capture_output=True)

    def mistudiod(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "mistudiod", *words], capture_output=True, text=True)

    busy = mistudiod("restore", "--database", str(tmp_path / "b.tar"), "--data", str(tmp_path / "data"))
    assert busy.returncode == 78 and "another daemon uses the data folder" in busy.stderr
    unnamed = mistudiod("restore", "--data", str(tmp_path / "new"))
    assert unnamed.returncode == 78 and "name the backup: mistudiod restore FILE" in unnamed.stderr
    done = mistudiod("restore", str(tmp_path / "b.tar"), "--data", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"/new has the \d+ files of the backup of \S+, made on 20", done.stderr)
    assert "secrets are never in a backup" in done.stderr
    assert daemon.end() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / "mistudio.db")) as db:
        assert schema.applied(db) == schema.known()
        assert db.execute("select name from artifacts where noun = 'sae'").fetchone() == ("pico",)
    replaced = mistudiod("restore", "--database", str(tmp_path / "b.tar"), "--data", str(tmp_path / "data"))
    assert replaced.returncode == 0 and "what was there: " in replaced.stderr
