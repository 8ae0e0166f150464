"""Extraction of every feature of an SAE beside sae-dashboard 0.8.0: ``python bench/dashboard.py``; some minutes.

Both read the same windows of ``builtin:python`` with builtin:pico and the same SAE, fp32, on all cores. Ours is the
extract job, from loading the model to the finished store. sae-dashboard takes 256 features at a time (its default) and
goes through all tokens for each of these batches: the first, which runs the model, and some that read its activations
again are timed, and the rest counted as these. Making HTML or JSON of what it has found is not counted. Goal: 20 times
as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from material import PICO, make, model_folder, run_job

ROOT = Path(__file__).parent.parent
FEATURES_AT_ONCE = 256


def ours(data: Path, tokens: int, threads: int) -> dict[str, Any]:
    """The job in a process of its own, as the daemon starts it."""
    run = data / "runs" / "1"
    for left in (run, data / "features" / "s"):
        shutil.rmtree(left, ignore_errors=True)
    run.mkdir(parents=True)
    spec = {"kind": "extract", "sae": "s", "tokens": tokens}
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mistudiod.worker", str(run)]
    cpu, began = _cpu_of_children(), time.perf_counter()
    with (run / "log.txt").open("wb") as log:
        job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ)
        if job.wait():
            sys.exit((run / "log.txt").read_text()[-2000:])
    took = {"seconds": time.perf_counter() - began, "cpu_s": _cpu_of_children() - cpu}
    return {"tokens": len(_windows(data)) * PICO.context, **took}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _windows(data: Path) -> np.ndarray:
    """Numbers of the windows that were read."""
    return np.fromfile(data / "features" / "s" / "1" / "windows.bin", "<u4")


def theirs(data: Path, width: int, batches: int, threads: int) -> dict[str, Any]:
    about_tokens = json.loads((data / "tokens" / PICO.name / "tokenization.json").read_text())
    about = {
        "model": str(model_folder(data, PICO)), "sae": str(data / "saes" / "s"), "hook": PICO.hook,
        "tokens": str(data / "tokens" / PICO.name / "tokens.bin"), "dtype": about_tokens["dtype"],
        "context": PICO.context, "windows": _windows(data).tolist(), "special_ids": about_tokens["special_ids"],
        "features_at_once": FEATURES_AT_ONCE, "batches": batches, "threads": threads, "scratch": str(data),
    }  # fmt: skip
    order = data / "about.json"
    order.write_text(json.dumps(about))
    python = str(ROOT / ".venv-sae-dashboard" / "bin" / "python")
    environ = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [python, str(ROOT / "bench" / "peers" / "with_sae_dashboard.py"), str(order)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, env=environ, stdout=subprocess.PIPE).stdout)
    for measure in ("seconds", "cpu_s"):
        first, *others = found["batches"][measure]
        found[measure] = first + (width // FEATURES_AT_ONCE - 1) * statistics.fmean(others)
    return found


def measured(data: Path, asked: argparse.Namespace) -> dict[str, Any]:
    threads = len(os.sched_getaffinity(0))
    if not (data / "tokens" / PICO.name).exists():
        make(data, PICO)
    if not (data / "saes" / "s").exists():
        some = {"width": [asked.width], "tokens": asked.train_tokens, "architecture": [asked.architecture]}
        run_job(data, "train", name="s", tokenization=PICO.name, hook=[PICO.hook], **some)
    own = ours(data, asked.tokens, threads)
    other = theirs(data, asked.width, asked.batches, threads)
    for one in (own, other):
        one["tokens_per_s"] = one["tokens"] / one["seconds"]
    times = {measure: other[measure] / own[measure] for measure in ("seconds", "cpu_s")}
    return {"width": asked.width, "ours": own, "sae_dashboard": other, "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=8192, help="features; a multiple of 256")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--batches", type=int, default=2, help="of 256 features, that sae-dashboard is timed on")
    parser.add_argument("--architecture", default="batchtopk")
    parser.add_argument("--train-tokens", type=int, default=200_000, help="that the SAE is trained on before")
    parser.add_argument("--data", type=Path, help="a folder to keep the model, the text and the SAE in")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    subprocess.run(
        ["bash", str(ROOT / "bench" / "peers" / "install.sh"), "sae-dashboard"], check=True, stdout=sys.stderr
    )
    with contextlib.ExitStack() as stack:
        found = measured(asked.data or Path(stack.enter_context(tempfile.TemporaryDirectory())), asked)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{asked.width:,} features, {found['ours']['tokens']:,} tokens\n")
    print("| | seconds | of a CPU | tokens/s |\n|---|---:|---:|---:|")
    for name, key in (("miStudio", "ours"), ("sae-dashboard 0.8.0", "sae_dashboard")):
        row = found[key]
        print(f"| {name} | {row['seconds']:,.0f} | {row['cpu_s']:,.0f} | {row['tokens_per_s']:,.0f} |")
    times = found["times"]
    print(f"\n{times['seconds']:.0f} times as fast, with a {times['cpu_s']:.0f}th of the work")


if __name__ == "__main__":
    main()
