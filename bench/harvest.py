"""How much of the bare forward pass is left once it goes through the buffer: ``python bench/harvest.py``; 3 minutes.

``next(batches)``, as a training calls it, beside the forward pass alone, truncated at the hook, over as many windows at
a time, for builtin:pico and for GPT-2's shape. They take turns: whenever the buffer has harvested, the bare model runs
over as many tokens. Share: seconds of the bare model by those of ``next``. Goal: 90 %.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from material import CASES, Case, harvest_of, make

from mistudiod.engine.activations import ActivationBatches

BATCH = 4096
BUFFER = {"pico": 65_536, "gpt2": 16_384}  # tokens; four of them are harvested


def measured(data: Path, case: Case) -> dict[str, float]:
    harvest, windows = harvest_of(data, case)
    forward, harvested = harvest.forward, 0

    def counted(ids: Tensor) -> Tensor:
        nonlocal harvested
        harvested += ids.numel()
        return forward(ids)

    batches = ActivationBatches(replace(harvest, forward=counted), windows.train, BATCH, 0, BUFFER[case.name])
    rows = torch.from_numpy(windows.rows(range(harvest.lm_tokens // case.context)))
    forward(rows)
    ours_s = bare_s = 0.0
    bare = 0
    while harvested < 4 * BUFFER[case.name]:
        began = time.perf_counter()
        next(batches)
        ours_s += (now := time.perf_counter()) - began
        while bare < harvested:
            part = rows[: max(1, (harvested - bare) // case.context)]
            forward(part)
            bare += part.numel()
        bare_s += time.perf_counter() - now
    return {"bare": bare / bare_s, "ours": harvested / ours_s, "share": bare_s / bare * harvested / ours_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=sorted(CASES), default=["pico", "gpt2"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    results = {}
    for name in asked.model:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), CASES[name])
            results[name] = measured(Path(folder), CASES[name])
    if asked.json:
        print(json.dumps(results, indent=1))
        return
    print("| model, hook | bare forward, tokens/s | through the buffer | share |\n|---|---:|---:|---:|")
    for name, row in results.items():
        print(f"| {name}, {CASES[name].hook} | {row['bare']:,.0f} | {row['ours']:,.0f} | {row['share']:.1%} |")


if __name__ == "__main__":
    main()
