"""Harvest and train, ours beside SAELens' runner: ``python bench/end_to_end.py``; some 20 minutes.

On builtin:pico with its text and on a model of GPT-2's shape with random weights, at width 16,384, k 32, both fp32,
from the same windows of tokens. Ours is the loop of the train job, ``engine.train.fit``, with its buffer; SAELens' is
``LanguageModelSAETrainingRunner``, once in fp32 and once with both of its autocasts. They take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from material import CASES, Case, harvest_of, make, model_folder
from running import HERE, Ruler, install, python_of, versions
from timed import Timed

from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.base import Settings, Shape
from mistudiod.engine.schedule import dead_after_tokens, plan
from mistudiod.engine.train import Training, fit
from mistudiod.engine.trainer import Trainer, View

K, BATCH = 32, 4096
STEPS = {"pico": 8, "gpt2": 5}


class TimedBatches(ActivationBatches):
    """The real ones, and how long they take; the statistics before the first step are harvesting too."""

    timed: Timed

    def __next__(self) -> Tensor:
        return self.timed.of(super().__next__)


def ours(data: Path, case: Case, kind: str, steps: int, kept: float) -> dict[str, float]:
    harvest, windows = harvest_of(data, case)
    timed, forward = Timed(), harvest.forward

    def counted(ids: Tensor) -> Tensor:
        timed.harvested += ids.numel()
        return forward(ids)

    batches = TimedBatches(replace(harvest, forward=counted), windows.train, BATCH, 0)
    batches.timed = timed
    began = time.perf_counter()
    scale, mean = batches.statistics()
    timed.harvest_s += time.perf_counter() - began
    schedule = plan(case.width, BATCH, BATCH * steps)
    settings = Settings(K, dead_after_tokens(steps, BATCH))
    sae = ARCHITECTURES[kind].init(Shape(case.d_in, case.width, case.d_in), settings, 0, mean * scale)
    training = Training([Trainer(sae, schedule, View(slice(0, case.d_in), scale))], batches)
    fit(training, lambda step, metrics: None, lambda: None, float("inf"))
    return timed.told(BATCH, kept)


def saelens(data: Path, case: Case, kind: str, steps: int, kept: float, autocast: bool) -> dict[str, float]:
    folder = data / "tokens" / case.name
    tokenization = json.loads((folder / "tokenization.json").read_text())
    about = {
        "model": str(model_folder(data, case)), "module": case.module, "tokens": str(folder / "tokens.bin"),
        "dtype": tokenization["dtype"], "context": case.context, "windows": tokenization["train_windows"],
        "special_ids": tokenization["special_ids"], "d_in": case.d_in, "width": case.width, "k": K, "kind": kind,
        "batch": BATCH, "steps": steps, "kept": kept, "autocast": autocast, "threads": torch.get_num_threads(),
    }  # fmt: skip
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "PYTHONPATH": ""}
    command = [python_of("saelens"), str(HERE / "saelens_runner.py"), json.dumps(about)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environ)
    if ran.returncode:
        raise SystemExit(ran.stderr[-2000:])
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def measured(data: Path, case: Case, kinds: list[str], rounds: int, ruler: Ruler) -> dict[str, Any]:
    steps, windows = STEPS[case.name], harvest_of(data, case)[1]
    kept = float(1 - windows.special_mask(windows.rows(range(min(512, windows.train)))).mean())
    runs: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for kind in kinds:
            for name, run in (
                (f"ours/{kind}", lambda kind=kind: ours(data, case, kind, steps, kept)),
                (f"saelens/{kind}", lambda kind=kind: saelens(data, case, kind, steps, kept, False)),
                (f"saelens/{kind}+autocast", lambda kind=kind: saelens(data, case, kind, steps, kept, True)),
            ):
                before = ruler.read()
                runs.setdefault(name, []).append(run())
                words = ", ".join(f"{part} {speed:,.0f}" for part, speed in runs[name][-1].items())
                quiet = f"ruler {before:.0f}, {ruler.read():.0f}"
                print(f"{case.name} round {number + 1} {name}: {words}; {quiet}", file=sys.stderr, flush=True)
    found: dict[str, Any] = {
        name: {part: statistics.median(run[part] for run in mine) for part in mine[0]} for name, mine in runs.items()
    }
    for kind in kinds:
        for name in (f"saelens/{kind}", f"saelens/{kind}+autocast"):
            found[name]["ours_times_as_fast"] = found[f"ours/{kind}"]["whole"] / found[name]["whole"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=sorted(CASES), default=["pico", "gpt2"])
    parser.add_argument("--kind", nargs="+", choices=("topk", "batchtopk"), default=["topk", "batchtopk"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    install()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    ruler, results = Ruler(), {}
    for name in asked.model:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), CASES[name])
            results[name] = measured(Path(folder), CASES[name], asked.kind, asked.rounds, ruler)
    if asked.json:
        print(json.dumps({"versions": versions(), "results": results}, indent=1))
        return
    print(json.dumps(versions(), indent=1))
    for name, found in results.items():
        print(f"\n{name}, {CASES[name].hook}, width {CASES[name].width}, tokens/s\n")
        print("| | harvest | train | whole | ours is so many times as fast |\n|---|---:|---:|---:|---:|")
        for entry, row in found.items():
            ratio = f"{row['ours_times_as_fast']:.2f}" if "ours_times_as_fast" in row else ""
            print(f"| {entry} | {row['harvest']:,.0f} | {row['train']:,.0f} | {row['whole']:,.0f} | {ratio} |")


if __name__ == "__main__":
    main()
