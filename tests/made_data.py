"""A data folder with the real thing in it, made once for a run of the tests: from model and text to labels."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

from filelock import FileLock
from studio import running

SAE = "pico-small"
HOOK = "blocks.3.hook_resid_post"
STAGES: tuple[dict[str, Any], ...] = (
    {"kind": "add_model", "source": "builtin:pico", "name": "pico"},
    {"kind": "add_dataset", "source": "builtin:python", "name": "python", "rows": 300},
    {"kind": "tokenize", "dataset": "python", "model": "pico", "name": "python-pico", "context": 128,
     "tokens": 500_000},
    {"kind": "train", "tokenization": "python-pico", "name": SAE, "hook": HOOK, "width": 512, "k": 16,
     "tokens": 200_000, "batch_tokens": 2048},
    {"kind": "extract", "sae": SAE, "tokens": 60_000},
    {"kind": "label", "sae": SAE, "endpoint": "tokens"},
)  # fmt: skip


def made_once(shared: Path) -> Path:
    """The folder, below what all processes of this run of the tests share. Copy it: nobody may write to it."""
    folder = shared / "made" / "data"
    with FileLock(shared / "made.lock"):
        if not folder.is_dir():
            unfinished = shared / "made" / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _make(unfinished)
            unfinished.rename(folder)
    return folder


def _make(data: Path) -> None:
    with running(data, "real_worker.py") as url:
        jobs = [_ask(url, "/api/jobs", {"spec": spec})["id"] for spec in STAGES]
        for job in jobs:
            while (found := _ask(url, f"/api/jobs/{job}"))["state"] not in ("done", "failed", "partial"):
                time.sleep(0.2)
            assert found["state"] == "done", found


def _ask(url: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
