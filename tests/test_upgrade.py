"""What older versions wrote is opened by the present one: nothing is lost, and old work goes on.

Each folder or zip file of tests/data was made by the release it is named after (``make_old_data.py``) and is never made
anew.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from make_old_data import NOUNS, RealDaemon, wait_for

from mistudiod import schema

OLD = sorted((Path(__file__).parent / "data").glob("v*"))


def test_there_is_data_of_an_older_version() -> None:
    assert OLD, "tests/data is empty: make it with tests/make_old_data.py when the version is about to be released"


@pytest.fixture(params=OLD, ids=lambda made: made.name.removesuffix(".zip"))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, whose model is where the copy is."""
    folder = tmp_path / "old"
    if request.param.suffix == ".zip":
        shutil.unpack_archive(request.param, folder)
    else:
        shutil.copytree(request.param, folder)
    for marker in folder.glob("data/models/*/model.json"):
        model = json.loads(marker.read_text())
        marker.write_text(json.dumps({**model, "path": str(folder / "model")}))
    return folder


# What the database alone knows: without it, it is lost.
ALONE = ("/api/steerings", "/api/profiles", "/api/saes/s/features/", "/api/saes/s/ranges", "/api/saes/s/lists")
ELSEWHERE = frozenset({"path", "folder", "created_at", "next"})  # a folder that was copied lies elsewhere


def is_before_labels(old: Path) -> bool:
    """Before version 0.5 an extraction was of a few features, in another format."""
    return bool(list(old.glob("data/features/*/*/features.jsonl")))


def by_name(answer: Any) -> Any:
    """A list of artifacts in the order of their names, anything else as it is."""
    for noun in NOUNS:
        if isinstance(answer, dict) and isinstance(found := answer.get(f"{noun}s"), list):
            return {**answer, f"{noun}s": sorted(found, key=lambda one: str(one["name"]))}
    return answer


def still_said(then: Any, now: Any, where: str, ignored: frozenset[str] = ELSEWHERE) -> None:
    """Later versions may say more, of an object or of a list of objects, but nothing else and nothing less."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key, value in then.items():
            if key not in ignored:
                assert key in now, f"{where}: {key} is gone"
                still_said(value, now[key], f"{where}.{key}", ignored)
    elif isinstance(then, list) and isinstance(now, list):
        assert len(then) == len(now), where
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            still_said(one, other, f"{where}[{number}]", ignored)
    else:
        assert now == then, where


@pytest.mark.parametrize("database", ["kept", "lost", "reindexed"])
def test_all_that_was_told_then_is_told_now(old: Path, database: str) -> None:
    told = json.loads((old / "told.json").read_text())
    assert {"/api/jobs?limit=1000", "/api/models", "/api/datasets", "/api/tokenizations", "/api/saes"} <= set(told)
    assert all(told[f"/api/{noun}s"][f"{noun}s"] for noun in ("model", "dataset", "tokenization", "sae"))
    ignored = ELSEWHERE
    if database != "kept":
        (old / "data" / "mistudio.db").unlink()
        if not list(old.glob("data/runs/*/job.json")):  # version 0.1 left no records of its jobs
            told = {path: answer for path, answer in told.items() if not path.startswith("/api/jobs")}
            ignored |= {"id", "job"}
        if not is_before_labels(old):
            told = {path: answer for path, answer in told.items() if not path.startswith(ALONE)}
            ignored |= {
                "id",
                "label",
                "score",
                "starred",
                "note",
            }  # artifacts are numbered anew, in the order of their names
    if database == "reindexed":
        subprocess.run([sys.executable, "-m", "mistudiod", "reindex", "--data", str(old / "data")], check=True)
    daemon = RealDaemon(old / "data").ready()
    try:
        for path, then in told.items():
            if "/features" not in path or not is_before_labels(old):
                still_said(by_name(then), by_name(daemon.call(path)), path, ignored)
                continue
            with pytest.raises(urllib.error.HTTPError, match="409") as refused:
                daemon.call(path)
            with refused.value:
                assert b"made by an older version: extract the features again" in refused.value.read()
    finally:
        assert daemon.end() == 0


def test_a_database_is_copied_before_it_is_changed(old: Path) -> None:
    path = old / "data" / "mistudio.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        behind = schema.known() - schema.applied(db)
    assert RealDaemon(old / "data").ready().end() == 0
    assert len(list((old / "data" / "backups").glob("*.db"))) == bool(behind)


def test_old_work_goes_on(old: Path) -> None:
    """The worker reads old artifacts, and a training that was stopped goes on; one of before version 0.5, whose text
    came in another order, begins anew.
    """
    pytest.importorskip("torch")
    daemon = RealDaemon(old / "data").ready()
    try:
        for spec in (
            {"kind": "extract", "sae": "s", "tokens": 2000, "examples": 2},
            {
                "kind": "steer",
                "sae": "s",
                "prompt": "def",
                "max_tokens": 20,
                "steering": [{"feature": 1, "strength": 5}],
            },
            {"kind": "tokenize", "dataset": "d", "model": "m", "name": "again", "context": 16},
        ):
            daemon.until(daemon.call("/api/jobs", {"spec": spec})["id"], "done", 120)
        (stopped,) = [one for one in daemon.call("/api/jobs")["jobs"] if one["spec"].get("name") == "half"]
        half, run = stopped["id"], old / "data" / "runs" / str(stopped["id"])
        reached = max(int(path.name) for path in (run / "checkpoints").glob("[0-9]*"))
        daemon.call(f"/api/jobs/{half}/retry", {})
        wait_for(lambda: daemon.call(f"/api/jobs/{half}/metrics?after_step={reached}")["metrics"], 180)
        daemon.call(f"/api/jobs/{half}/stop", {})
        daemon.until(half, "stopped", 60)
        assert ("training begins anew" in daemon.call(f"/api/jobs/{half}/log")["log"]) == is_before_labels(old)
    finally:
        assert daemon.end() == 0
