"""Run one job of the worker's in this process, and start one in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mistudiod.paths import Paths
from mistudiod.specs import KINDS, PREVIEWS
from mistudiod.worker.link import Link


def run_job(data: Path, kind: str, **fields: Any) -> dict[str, Any]:
    """The job's result. What the job raises comes through."""
    return next(event["result"] for event in events(data, kind, **fields) if event["event"] == "result")


def events(data: Path, kind: str, **fields: Any) -> list[dict[str, Any]]:
    """Every event that the job sends: a link without a pipe writes them to stderr."""
    spec = {**KINDS, **PREVIEWS}[kind].model_validate(fields)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        importlib.import_module(f"mistudiod.worker.{kind}").run(spec, Link(data, Paths(data)))
    return [json.loads(line) for line in said.getvalue().split("\n")[:-1]]


def start_job(data: Path, kind: str, **fields: Any) -> subprocess.Popen[bytes]:
    """A worker process at this job; it lives until it is done or its stdin ends."""
    run = data / "runs" / "1"
    run.mkdir(parents=True, exist_ok=True)
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": {"kind": kind, **fields}}))
    command = [sys.executable, "-m", "mistudiod.worker", str(run)]
    with open(run / "log.txt", "wb") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)


def folders(data: Path, noun_folder: str) -> list[str]:
    """Names of what lies in a folder of artifacts, half-written ones too."""
    return sorted(path.name for path in (data / noun_folder).glob("*"))
