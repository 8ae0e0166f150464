"""The fake worker for long looks: a training that measures each of its SAEs ten times a second, as much as a real one,
for as many seconds as its name says last: ``long-600``.
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
from telling_worker import MEASURES, told, write

A_SECOND = 10
_EXITS = {"stop": 76, "pause": 75}


def finish(order: dict[str, Any], say: Any) -> None:
    spec, data = order["spec"], Path(order["data"])
    if spec["kind"] != "train":
        fake_finish(order, say)
        return
    saes = fake_worker.saes_of(order)
    if not order.get("finalize"):
        train(spec, saes, say)
    found = [{**MEASURES, "sae": sae, "fvu": measures(n, 1.0)["fvu"]} for n, sae in enumerate(saes)]
    for one in found:
        made = {**told({**spec, "name": one["sae"]}, order["job"], data), **one}
        write(data / "saes" / one["sae"], "recipe.json", json.dumps(made))
        say(event="artifact", noun="sae", name=one["sae"])
    say(event="result", result={**found[0], "saes": found, "peak_bytes": 1_200_000_000})


def train(spec: dict[str, Any], saes: list[str], say: Any) -> None:
    seconds = float(spec["name"].rpartition("-")[2])
    steps = math.ceil(seconds * A_SECOND)
    began = time.monotonic()
    for step in range(1, steps + 1):
        for n, sae in enumerate(saes):
            say(event="metric", sae=sae, step=step, values=measures(n, step / steps, step % 100 == 0))
        done = step * spec["batch_tokens"]
        left_s = seconds - step / A_SECOND
        total = steps * spec["batch_tokens"]
        say(event="progress", stage="train", done=done, total=total, unit="tokens", eta_s=left_s)
        time.sleep(max(0.0, began + step / A_SECOND - time.monotonic()))
        if fake_worker.asked and fake_worker.asked[-1] in _EXITS:
            os._exit(_EXITS[fake_worker.asked[-1]])


def measures(n: int, done: float, thorough: bool = False) -> dict[str, float]:
    """Of the SAE number ``n`` at a share of its training; the same whenever it is asked for."""
    fvu = 0.1 + 0.02 * n + 0.9 * math.exp(-8 * done) + 0.01 * math.sin(997 * done)
    held_out = {"eval_fvu": fvu + 0.01, "ce_delta": fvu / 2} if thorough else {}
    return {
        "loss": fvu, "fvu": fvu, "l0": 32.0 + n, "alive": 1 - done / 10, "dead": done / 10, "grad_norm": 0.02,
        "lr": 0.003 * min(1.0, 20 * done, 5 * (1 - done) + 0.001), "tokens_per_s": 25_000.0 + 100 * math.sin(50 * done),
        "outliers": 0.0, "memory_bytes": 900_000_000.0, **held_out,
    }  # fmt: skip


if __name__ == "__main__":
    fake_finish, fake_worker.finish = fake_worker.finish, finish
    sys.exit(fake_worker.main())
