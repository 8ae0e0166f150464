"""Training steps of miStudio and of other libraries, side by side: ``python bench/train.py``; some 40 minutes.

``--shape 512x4096 --rounds 3`` takes 3 minutes; ``--json`` prints one object instead of tables. The environments of the
other libraries are made when they are missing (``bench/peers/install.sh``).

Every entry is a process of its own that keeps its trainer ready; all read the same activations. They take turns, never
two at once: a block of back-to-back steps each, whose first is not counted, in every round in another order. A fixed
product is timed around every block; where it is more than 15 % off the run's median, others had the machine and the
block is made again. Speeds are medians over the blocks, ratios those of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from running import Ruler, Running, install, running, versions

SHAPES = ("512x4096", "512x16384", "2048x16384")
K = 32
BATCHES = 8  # of activations, gone through again and again
STRAY = 0.15  # of the ruler
TRIES = 3  # of a block
# Those that are held to each other run together: all of them at once would not fit in memory.
GROUPS = (
    (
        "floor/sparse",
        "floor/sparse+bf16",
        "ours/topk",
        "ours/batchtopk",
        "ours/matryoshka",
        "saelens/topk",
        "saelens/topk+autocast",
        "saelens/batchtopk",
        "saelens/batchtopk+autocast",
        "dictionary_learning/topk",
        "dictionary_learning/batchtopk",
        "sparsify/topk",
    ),
    (
        "floor/dense",
        "floor/dense+bf16",
        "ours/standard",
        "ours/gated",
        "ours/jumprelu",
        "saelens/standard",
        "saelens/standard+autocast",
        "saelens/jumprelu",
        "saelens/jumprelu+autocast",
        "dictionary_learning/standard",
    ),
)
# key: ours is so many times as fast as the other
RATIOS = {
    "saelens_topk": ("ours/topk", "saelens/topk"),
    "saelens_topk_autocast": ("ours/topk", "saelens/topk+autocast"),
    "saelens_batchtopk": ("ours/batchtopk", "saelens/batchtopk"),
    "saelens_batchtopk_autocast": ("ours/batchtopk", "saelens/batchtopk+autocast"),
    "dictionary_learning_topk": ("ours/topk", "dictionary_learning/topk"),
    "dictionary_learning_batchtopk": ("ours/batchtopk", "dictionary_learning/batchtopk"),
    "sparsify_topk": ("ours/topk", "sparsify/topk"),
    "saelens_jumprelu": ("ours/jumprelu", "saelens/jumprelu"),
    "saelens_jumprelu_autocast": ("ours/jumprelu", "saelens/jumprelu+autocast"),
    "saelens_standard": ("ours/standard", "saelens/standard"),
    "saelens_standard_autocast": ("ours/standard", "saelens/standard+autocast"),
    "dictionary_learning_standard": ("ours/standard", "dictionary_learning/standard"),
    "dense_floor_standard": ("ours/standard", "floor/dense"),
    "dense_floor_gated": ("ours/gated", "floor/dense"),
}


@dataclass(frozen=True)
class Shape:
    d_in: int
    width: int
    batch: int

    @classmethod
    def of(cls, text: str) -> Shape:
        """512x16384, or 512x16384x1024 with the batch."""
        try:
            d_in, width, *batch = (int(number) for number in text.split("x"))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no shape: give d_in x width, as 512x16384") from None
        return cls(d_in, width, batch[0] if batch else 4096 if d_in < 2048 else 1024)

    @property
    def name(self) -> str:
        return f"{self.d_in}x{self.width}"


@dataclass
class Blocks:
    """What was measured of one entry."""

    tokens_per_s: list[tuple[float, float]] = field(default_factory=list)  # with the ruler
    peak_bytes: int = 0
    step_bytes: int = 0
    strays: int = 0  # that were made again

    def kept(self, ruler: float) -> list[float]:
        """Those of a quiet machine; all, when there are not three."""
        quiet = [speed for speed, at in self.tokens_per_s if abs(at / ruler - 1) <= STRAY]
        return quiet if len(quiet) >= 3 else [speed for speed, _ in self.tokens_per_s]


def write_activations(file: Path, shape: Shape) -> None:
    """Sums of 8 to 56 of 4 d_in directions with heavy-tailed weights, a mean and noise; a mean norm of sqrt(d_in)."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(4 * shape.d_in, shape.d_in, generator=generator) / shape.d_in**0.5
    mean = torch.randn(shape.d_in, generator=generator) / 4
    with open(file, "wb") as out:
        for _ in range(BATCHES):
            counts = torch.randint(8, 57, (shape.batch, 1), generator=generator)
            weights = torch.rand(shape.batch, 56, generator=generator).log_().neg_() * (torch.arange(56) < counts)
            chosen = torch.randint(len(atoms), (shape.batch, 56), generator=generator)
            x = torch.nn.functional.embedding_bag(chosen, atoms, mode="sum", per_sample_weights=weights)
            x = x * (shape.d_in**0.5 / 8) + mean + 0.1 * torch.randn(x.shape, generator=generator)
            x *= shape.d_in**0.5 / x.norm(dim=1).mean()
            out.write(x.numpy().tobytes())


def measured(shape: Shape, names: Sequence[str], rounds: int, steps: int, threads: int) -> dict[str, Any]:
    ruler, found, fails = Ruler(), {name: Blocks() for name in names}, {}
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "activations.f32"
        write_activations(file, shape)
        setup = {"d_in": shape.d_in, "width": shape.width, "batch": shape.batch, "k": K}
        setup["steps"] = steps * rounds * (TRIES + 1)
        for group in GROUPS:
            if not (asked := [name for name in group if name in found]):
                continue
            with running(asked, setup, file, threads) as entries:
                fails |= {name: why for name, why in entries.items() if isinstance(why, str)}
                ready = [one for one in entries.values() if isinstance(one, Running)]
                for one in ready:
                    one.ask("steps", n=1)
                for number in range(rounds):
                    order.shuffle(ready)
                    for one in ready:
                        block(one, found[one.name], ruler, shape, steps)
                    say(f"{shape.name}: round {number + 1} of {rounds}, {len(ready)} entries")
    return summary(shape, {name: blocks for name, blocks in found.items() if name not in fails}, fails, ruler)


def block(one: Running, blocks: Blocks, ruler: Ruler, shape: Shape, steps: int) -> None:
    """One that a quiet machine has measured, or the last of TRIES."""
    before = ruler.read()
    for attempt in range(TRIES):
        took = one.ask("steps", n=steps)
        after = ruler.read()
        at = min(before, after, key=lambda speed: -abs(speed / statistics.median(ruler.seen) - 1))
        before = after
        quiet = abs(at / statistics.median(ruler.seen) - 1) <= STRAY
        if quiet or attempt == TRIES - 1:
            blocks.tokens_per_s.append((shape.batch * (steps - 1) / sum(took["seconds"][1:]), at))
            break
        blocks.strays += 1
    blocks.peak_bytes = max(blocks.peak_bytes, took["peak_bytes"])
    blocks.step_bytes = max(blocks.step_bytes, took["step_bytes"])


def summary(shape: Shape, found: dict[str, Blocks], fails: dict[str, str], ruler: Ruler) -> dict[str, Any]:
    usual = statistics.median(ruler.seen)
    entries: dict[str, Any] = {}
    for name, blocks in found.items():
        kept = blocks.kept(usual)
        entries[name] = {
            "tokens_per_s": statistics.median(kept),
            "best": max(kept),
            "worst": min(kept),
            "blocks": len(kept),
            "made_again": blocks.strays,
            "peak_bytes": blocks.peak_bytes,
            "step_bytes": blocks.step_bytes,
        }
    speeds = {name: entry["tokens_per_s"] for name, entry in entries.items()}
    ratios = {key: speeds[a] / speeds[b] for key, (a, b) in RATIOS.items() if a in speeds and b in speeds}
    floors = {name: speeds[name] for name in ("floor/sparse", "floor/sparse+bf16") if name in speeds}
    over = {name: max(floors.values()) / speeds[f"ours/{name}"] for name in ("topk", "batchtopk", "matryoshka")
            if floors and f"ours/{name}" in speeds}  # fmt: skip
    return {
        "shape": shape.name,
        "batch": shape.batch,
        "ruler_gflops": usual,
        "ratios": ratios,
        "over_floor": over.get("topk"),
        "over_floor_of": over,
        "step_memory": {
            name: step_memory(shape, entries[name]["step_bytes"]) for name in entries if not name.startswith("floor")
        },
        "entries": entries,
        "fails": fails,
    }


def step_memory(shape: Shape, step_bytes: int) -> dict[str, float]:
    """What a step needs beyond parameters, Adam's moments and gradients, beside the dense tensors of a step.

    A dense step has three of (batch, width) at least: pre-activations, latents and their gradient.
    """
    parameters = shape.width * (2 * shape.d_in + 1) + shape.d_in
    extra = step_bytes - 4 * 4 * parameters
    return {"bytes": extra, "of_dense": extra / (3 * 4 * shape.batch * shape.width)}


def show(result: dict[str, Any]) -> None:
    title = f"{result['shape']}, batch {result['batch']}, k {K}; ruler {result['ruler_gflops']:.0f} GFLOP/s"
    print(f"\n## {title}\n\n| entry | tokens/s | worst to best | peak RSS | beyond the state, of dense | blocks |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, entry in result["entries"].items():
        memory = result["step_memory"].get(name)
        share = f"{memory['bytes'] / 1e6:,.0f} MB, {memory['of_dense']:.0%}" if memory else ""
        blocks = f"{entry['blocks']}" + (f" (+{entry['made_again']} again)" if entry["made_again"] else "")
        print(
            f"| {name} | {entry['tokens_per_s']:,.0f} | {entry['worst']:,.0f} to {entry['best']:,.0f} | "
            f"{entry['peak_bytes'] / 1e6:,.0f} MB | {share} | {blocks} |"
        )
    for name, why in result["fails"].items():
        print(f"| {name} | fails: {why} | | | | |")
    print("\n| ours beside | times as fast |\n|---|---:|")
    for key, ratio in result["ratios"].items():
        print(f"| {key} | {ratio:.2f} |")
    for name, over in result["over_floor_of"].items():
        print(f"| time of {name} over the floor | {over:.2f} |")


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    bf16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "bf16_units": bf16,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object, and nothing else, on stdout")
    parser.add_argument("--shape", type=Shape.of, nargs="+", action="extend", help=f"as {' '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="in a block; the first is not counted")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", default=[], help="entries that contain one of these, as topk")
    asked = parser.parse_args()
    names = [name for group in GROUPS for name in group if not asked.only or any(part in name for part in asked.only)]
    if asked.steps < 2 or asked.rounds < 1 or not names:
        parser.error("there is nothing to measure: ask for at least 2 steps, 1 round, and entries that exist")
    install()
    torch.set_num_threads(asked.threads)
    about = {"machine": machine(), "k": K, "rounds": asked.rounds, "steps": asked.steps, "threads": asked.threads}
    if not asked.json:
        print(json.dumps(about, indent=1))
    results = []
    for shape in asked.shape or [Shape.of(text) for text in SHAPES]:
        results.append(measured(shape, names, asked.rounds, asked.steps, asked.threads))
        if not asked.json:
            show(results[-1])
    if asked.json:  # of a single shape, its keys are at the top as well
        alone = results[0] if len(results) == 1 else {}
        print(json.dumps({**about, **alone, "shapes": {one["shape"]: one for one in results}}, indent=1))


if __name__ == "__main__":
    main()
