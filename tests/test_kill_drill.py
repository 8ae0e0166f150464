"""The kill drill, by its own command (``./run-tests.sh drill``): a real training of two SAEs, killed twenty times.

Worker, daemon and both are killed in turn. In most rounds the worker is frozen (SIGSTOP) first, while a checkpoint
has been written but not renamed, so that the kill certainly falls between the two. At the end both SAEs must be those
that an undisturbed run makes, bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_daemon import Daemon, _wait_gone
from tiny_models import LINES, tiny_model

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]
ROUNDS = 20
WHO = ("worker", "daemon", "both")
STEPS = 6000


class RealDaemon(Daemon):
    def __init__(self, data: Path) -> None:
        self.data, self.said, self.url = data, [], ""
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def worker(self) -> int | None:
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if children := (thread / "children").read_text().split():
                    return int(children[0])
        return None


def train_spec(name: str) -> dict[str, Any]:
    return {
        "kind": "train", "name": name, "tokenization": "t", "hook": "blocks.0.hook_resid_post",
        "width": [2048, 4096], "k": 8, "steps": STEPS, "batch_tokens": 64, "checkpoint_every_s": 0.2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a tiny model, text and tokens, made by the studio's own jobs."""
    home = tmp_path_factory.mktemp("drill")
    tiny_model("llama", home / "model")
    (home / "text.txt").write_text("".join(LINES) * 100)
    daemon = RealDaemon(home / "data").ready()
    for spec in (
        {"kind": "add_model", "source": str(home / "model"), "name": "m"},
        {"kind": "add_dataset", "source": str(home / "text.txt"), "name": "d"},
        {"kind": "tokenize", "dataset": "d", "model": "m", "name": "t", "context": 32},
    ):
        job = daemon.call("/api/jobs", {"spec": spec})["id"]
        daemon.until(job, "done", 120)
    assert daemon.end() == 0
    return home / "data"


def test_twenty_kills_lose_nothing(data: Path) -> None:
    daemon = RealDaemon(data).ready()
    job = daemon.call("/api/jobs", {"spec": train_spec("killed")})["id"]
    checkpoints = data / "runs" / str(job) / "checkpoints"
    between = 0
    for number in range(ROUNDS):
        worker = _trained_further(daemon, job, checkpoints)
        if number % 3 != 2:
            between += _freeze_between_write_and_rename(worker, checkpoints)
        daemon = _kill(WHO[(number // 2) % 3], daemon, worker)
        _nothing_half_made(daemon, data)
    assert between >= 10, f"only {between} kills fell between a checkpoint's writing and its rename"
    done = daemon.until(job, "done", 600)
    print(f"{ROUNDS} kills, {between} between writing and rename, {done['attempts']} attempts")
    assert done["attempts"] == ROUNDS + 1
    plain = daemon.call("/api/jobs", {"spec": train_spec("plain")})["id"]
    daemon.until(plain, "done", 600)
    assert daemon.end() == 0
    for width in (2048, 4096):
        assert _digest(data / "saes" / f"killed-w{width}") == _digest(data / "saes" / f"plain-w{width}")


def _trained_further(daemon: RealDaemon, job: int, checkpoints: Path) -> int:
    """Wait for a worker that has written a checkpoint of its own; returns its process id."""
    before = _newest(checkpoints)
    end = time.monotonic() + 120
    while _newest(checkpoints) <= before:
        found = daemon.call(f"/api/jobs/{job}")
        assert found["state"] in ("queued", "running"), found
        assert time.monotonic() < end, found
        time.sleep(0.01)
    worker = daemon.worker()
    assert worker is not None
    return worker


def _newest(checkpoints: Path) -> int:
    return max((int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()), default=-1)


def _freeze_between_write_and_rename(worker: int, checkpoints: Path) -> bool:
    """Stop the worker while a checkpoint's state has been written under its partial name; False when that failed."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if any(checkpoints.glob(".partial-*/*")):
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.01)
            if any(checkpoints.glob(".partial-*/*")):
                return True
            os.kill(worker, signal.SIGCONT)
    return False


def _kill(who: str, daemon: RealDaemon, worker: int) -> RealDaemon:
    if who in ("worker", "both"):
        os.kill(worker, signal.SIGKILL)
    if who in ("daemon", "both"):
        daemon.end(signal.SIGKILL)
    _wait_gone(worker, 1.0)
    return daemon if who == "worker" else RealDaemon(daemon.data).ready()


def _nothing_half_made(daemon: RealDaemon, data: Path) -> None:
    for noun in ("model", "dataset", "tokenization"):
        assert len(daemon.call(f"/api/{noun}s")[f"{noun}s"]) == 1
    assert daemon.call("/api/saes")["saes"] == []
    with contextlib.closing(sqlite3.connect(f"file:{data}/mistudio.db?mode=ro", uri=True)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


def _digest(sae: Path) -> str:
    return hashlib.sha256((sae / "sae_weights.safetensors").read_bytes()).hexdigest()
