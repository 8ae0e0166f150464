"""The fake worker for those who look on: a training of four seconds, step by step, that goes on where it was cut off.

What it says is the step's alone, so that all who followed a training must end with the same numbers. A dataset called
``markup`` fails with a message that a browser must not take for HTML.

While the file ``hold`` in the data folder says its kind, a job does not come to its end, a training not past its half:
so that whoever looks on sees it in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import fake_worker
import telling_worker
from telling_worker import told, write

STEPS, EVERY_S = 100, 0.04
MARKUP = "no text in <img src=x onerror=\"document.title='owned'\"> & <b>nothing</b> else"
_EXITS = {"stop": 76, "pause": 75}


def finish(order: dict[str, Any], say: Any) -> None:
    spec, job, data = order["spec"], order["job"], Path(order["data"])
    if spec["name"] == "markup":
        say(event="failure", code="invalid", message=MARKUP)
        os._exit(64)
    if spec["kind"] != "train":
        wait_while_held(data, spec["kind"])
        fake_finish(order, say)
        return
    if len(fake_worker.saes_of(order)) > 1:
        telling_worker.finish(order, say)
        return
    train(spec, data / "runs" / str(job) / "step", say)
    result = {**told(spec, job, data), **measures(STEPS), "model": {"name": "pico"}}
    write(data / "saes" / spec["name"], "recipe.json", json.dumps(result))
    say(event="artifact", noun="sae", name=spec["name"])
    say(event="result", result=result)


def train(spec: dict[str, Any], at: Path, say: Any) -> None:
    total = STEPS * spec["batch_tokens"]
    for step in range(int(at.read_text()) if at.exists() else 1, STEPS + 1):
        at.write_text(str(step))
        say(event="metric", step=step, values={**measures(step), "tokens_per_s": 25_000.0})
        left_s = (STEPS - step) * EVERY_S
        say(event="progress", stage="train", done=step * spec["batch_tokens"], total=total, unit="tokens", eta_s=left_s)
        time.sleep(EVERY_S)
        end_when_asked()
        if step == STEPS // 2:
            wait_while_held(at.parents[2], "train")


def wait_while_held(data: Path, kind: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        while (data / "hold").read_text() == kind:
            time.sleep(0.02)
            end_when_asked()


def end_when_asked() -> None:
    if fake_worker.asked and fake_worker.asked[-1] in _EXITS:
        os._exit(_EXITS[fake_worker.asked[-1]])


def measures(step: int) -> dict[str, float]:
    return {"fvu": round(1 / (1 + step / 7), 6), "l0": 32.0 - step / 100}


if __name__ == "__main__":
    fake_finish, fake_worker.finish = fake_worker.finish, finish
    sys.exit(fake_worker.main())
