"""What "layer 8 of 22" takes to load, beside the whole model: ``python bench/load.py [--rounds 5] [--precision fp32]``.

The model has TinyLlama's shapes and random weights: 22 blocks, 1.1 G parameters in bfloat16, 2.2 GB on disk for as long
as this runs. Every load is a process of its own, the whole and the part in turn, medians at the end. Before the clock
starts a process loads the built-in model, so that imports are paid for, and lets the page cache forget the weights, so
that they come from the disk. Memory is the high-water mark of the process above what it had then. Both must give the
same bits at ``blocks.8.hook_resid_post``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mistudiod.demo

PICO = Path(mistudiod.demo.__file__).parent / "pico"
HOOK, LAYERS = "blocks.8.hook_resid_post", 9


def make(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32_000,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    shutil.copy(PICO / "tokenizer.json", folder)


def measure(folder: Path, layers: int | None, precision: str) -> dict[str, object]:
    """In a process of its own."""
    import torch

    from mistudiod.engine.lm import load_lm

    load_lm(PICO, precision=precision, layers=layers and 1)
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    memory, read = high_water_bytes(), read_bytes()
    began = time.perf_counter()
    lm = load_lm(folder, precision=precision, layers=layers)
    took = time.perf_counter() - began
    found = {"seconds": took, "memory_bytes": high_water_bytes() - memory, "read_bytes": read_bytes() - read}
    x = lm.activations(torch.arange(1, 65)[None], HOOK)
    return found | {"bits": hashlib.sha256(x.float().numpy().tobytes()).hexdigest()}


def high_water_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def in_a_process(folder: Path, layers: int | None, precision: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--precision", precision]
    command += ["--layers", str(layers)] if layers else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return dict(json.loads(done.stdout))


def compare(folder: Path, rounds: int, precision: str) -> None:
    runs: dict[int | None, list[dict[str, Any]]] = {None: [], LAYERS: []}
    for _ in range(rounds):
        for layers, found in runs.items():
            found.append(in_a_process(folder, layers, precision))
    same = len({run["bits"] for found in runs.values() for run in found}) == 1
    print(f"{precision}, medians of {rounds} rounds, activations {'bit-identical' if same else 'NOT the same'}")
    for what, unit, size, middle in (
        ("seconds", "s", 1, statistics.median),
        ("seconds at best", "s", 1, min),
        ("memory_bytes", "MB", 1e6, statistics.median),
        ("read_bytes", "MB", 1e6, statistics.median),
    ):
        whole, part = (middle([run[what.partition(" ")[0]] for run in found]) / size for found in runs.values())
        share = f"{part / whole:.0%}" if whole else "-"
        print(f"{what.partition('_')[0]:16} whole {whole:8.2f} {unit:2}   blocks 0-8 {part:8.2f} {unit:2}   {share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        print(json.dumps(measure(asked.folder, asked.layers, asked.precision)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        compare(Path(folder), asked.rounds, asked.precision)


if __name__ == "__main__":
    main()
