"""A preview: what this machine computes with, and which precisions work on it, found out by kernels that are run.

They run in a process of their own (``try_precisions``): native code that was built for another GPU or processor may end
its process. Then it was the precision under way that does not work, and the others are tried in another process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from mistudiod.facts import PRECISIONS
from mistudiod.oom import classify
from mistudiod.specs import ProbeDevice
from mistudiod.worker.link import Link

TRY = (sys.executable, "-m", "mistudiod.worker.try_precisions")
_LIBRARIES = ("torch", "transformers", "bitsandbytes")
_SAID_CHARS = 200


def run(_spec: ProbeDevice, link: Link) -> None:
    """The result is {device: cpu or cuda, name, memory_bytes or null, precisions: {name: null or why not}, versions}.

    Raises MemoryError when there was too little memory to find out, which says nothing about the precisions.
    """
    device: dict[str, Any] = {}
    reasons: dict[str, str | None] = {}
    while left := [precision for precision in PRECISIONS if precision not in reasons]:
        link.check()
        device, tried = _try(left)
        reasons |= tried
    precisions = {precision: reasons[precision] for precision in PRECISIONS}
    link.result({**device, "precisions": precisions, "versions": {name: _version(name) for name in _LIBRARIES}})


def _try(precisions: list[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What one process finds: the device, and of at least the first of ``precisions`` why it does not work."""
    command = [*TRY, str(os.getpid()), *precisions]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines(keepends=True) if line.endswith("\n")]
    for line in lines:
        if "missing" in line:
            raise ModuleNotFoundError(name=line["missing"])
    if done.returncode == -signal.SIGKILL or (done.returncode and classify(done.stderr)):
        raise MemoryError(_last(done.stderr, classify) or "the process that tried the precisions was killed")
    if not lines:
        raise RuntimeError(f"torch cannot be used on this machine: {_end(done)}")
    device, tried = lines[0], {line["precision"]: line["reason"] for line in lines[1:]}
    culprit = next((precision for precision in precisions if precision not in tried), None)
    if done.returncode and culprit:
        tried[culprit] = f"{culprit} does not work on {device['device']}: {_end(done)}"
    return device, tried


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process ended: by which signal, or what it printed last."""
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    return _last(done.stderr) or f"its process ended with the exit code {done.returncode}"


def _last(text: str, wanted: Callable[[str], object] = bool) -> str:
    """The last line that is wanted of what a process printed; of all those that are not empty when nothing is said."""
    return next((line.strip()[:_SAID_CHARS] for line in reversed(text.splitlines()) if wanted(line.strip())), "")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
