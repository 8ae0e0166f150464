"""The fake worker for those who measure: a training that says ten metrics a second for as many steps as are asked for.

training(url)'s spec with steps=600 takes a minute.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import fake_worker
from telling_worker import told, write

EVERY_S = 0.1
_EXITS = {"stop": 76, "pause": 75}


def finish(order: dict[str, Any], say: Any) -> None:
    spec, job, data = order["spec"], order["job"], Path(order["data"])
    if spec["kind"] != "train":
        fake_finish(order, say)
        return
    steps = spec["steps"]
    begun = time.monotonic()
    for step in range(1, steps + 1):
        say(event="metric", sae=spec["name"], step=step, values=measures(step))
        if step % 10 == 0:
            left_s = (steps - step) * EVERY_S
            done, total = (n * spec["batch_tokens"] for n in (step, steps))
            say(event="progress", stage="train", done=done, total=total, unit="tokens", eta_s=left_s)
        if fake_worker.asked:
            os._exit(_EXITS[fake_worker.asked[-1]])
        time.sleep(max(begun + step * EVERY_S - time.monotonic(), 0.0))
    result = {**told(spec, job, data), **measures(steps), "model": {"name": "pico"}}
    write(data / "saes" / spec["name"], "recipe.json", json.dumps(result))
    say(event="artifact", noun="sae", name=spec["name"])
    say(event="result", result=result)


def measures(step: int) -> dict[str, float]:
    """All that is drawn, with a little that shakes."""
    shaken = 1 + 0.05 * math.sin(step * 1.7)
    fvu = shaken * (0.1 + 0.9 / (1 + step / 50))
    return {
        "fvu": fvu, "loss": 10 * fvu, "l0": 32 * shaken, "dead": 0.3 / (1 + step / 200),
        "ce_delta": 0.5 * fvu, "tokens_per_s": 25_000 * shaken,
    }  # fmt: skip


if __name__ == "__main__":
    fake_finish, fake_worker.finish = fake_worker.finish, finish
    sys.exit(fake_worker.main())
