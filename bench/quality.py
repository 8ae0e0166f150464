"""Whether speed costs quality: ``python bench/quality.py``, some 12 minutes on two cores.

SAEs of miStudio, SAELens and dictionary_learning are trained on the same activations (builtin:pico on builtin:python),
with the same tokens, batches, width, k, warm-up and decay, and from three seeds, which also order the batches: once all
with the same learning rate, once each with its own default. Measured is on held-out text: FVU about the global mean,
and the share of latents that fire. A batch-top-k gets the threshold at which k latents of a token fire on other
held-out text, by the same few lines for every library, so that L0 is the same. Every run has a core to itself.

No worse: our mean is on the right side of the far end of the other's interval (95 %, Student's t).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from material import PICO, activations, make
from running import Running, install, versions

ENTRIES = [
    f"{library}/{kind}" for kind in ("topk", "batchtopk") for library in ("ours", "saelens", "dictionary_learning")
]
CALIBRATE, HELD_OUT = 16_384, 65_536
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # two-sided 95 %


def one_run(entry: str, lr: float | None, seed: int, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    batches = asked.tokens // asked.batch
    order = list(range(batches))
    random.Random(seed).shuffle(order)
    setup = {"d_in": PICO.d_in, "width": asked.width, "batch": asked.batch, "k": asked.k, "steps": batches}
    setup |= {"lr": lr, "seed": seed}
    own = folder / f"{threading.get_ident()}"
    own.mkdir(exist_ok=True)
    file = own / "train.f32"
    if not file.exists():
        file.hardlink_to(folder / "train.f32")  # its log lies beside it
    running = Running(entry, setup, file, 1)
    try:
        running.answer()
        took = running.ask("train", order=order)["seconds"]
        calibrate = CALIBRATE if "batchtopk" in entry else 0
        found = running.ask("measure", file=str(folder / "held_out.f32"), calibrate=calibrate, skip=CALIBRATE)
    finally:
        running.end()
    print(f"{time.strftime('%H:%M:%S')} {entry} lr {lr or 'own'} seed {seed}: {found}", file=sys.stderr, flush=True)
    return {"entry": entry, "lr": lr, "seed": seed, "seconds": took, **found}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    if len(values) < 2:
        return values[0], float("inf")
    return statistics.mean(values), T[len(values)] * statistics.stdev(values) / len(values) ** 0.5


def compared(runs: list[dict[str, Any]], lrs: list[float | None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for lr in lrs:
        rows: dict[str, Any] = {}
        for entry in ENTRIES:
            mine = [run for run in runs if run["entry"] == entry and run["lr"] == lr]
            rows[entry] = {name: interval([run[name] for run in mine]) for name in ("fvu", "alive", "l0")}
            rows[entry]["seconds"] = statistics.mean(run["seconds"] for run in mine)
        for entry in ENTRIES:
            ours, row = rows[f"ours/{entry.split('/')[1]}"], rows[entry]
            if not entry.startswith("ours"):
                row["no_worse_fvu"] = ours["fvu"][0] <= sum(row["fvu"])
                row["no_worse_alive"] = ours["alive"][0] >= row["alive"][0] - row["alive"][1]
        found["own default" if lr is None else f"{lr:g}"] = rows
    return found


def show(found: dict[str, Any]) -> None:
    for lr, rows in found.items():
        print(f"\nLearning rate: {lr}\n\n| entry | FVU | alive | L0 | seconds | ours no worse: FVU, alive |")
        print("|---|---:|---:|---:|---:|---|")
        for entry, row in rows.items():
            fvu, alive = (f"{row[name][0]:.4f} ± {row[name][1]:.4f}" for name in ("fvu", "alive"))
            verdict = ", ".join("yes" if row[f"no_worse_{name}"] else "NO" for name in ("fvu", "alive")
                                if f"no_worse_{name}" in row)  # fmt: skip
            print(f"| {entry} | {fvu} | {alive} | {row['l0'][0]:.1f} | {row['seconds']:.0f} | {verdict} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=409_600)
    parser.add_argument("--width", type=int, default=2_048)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2_048)
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(T))
    parser.add_argument("--lr", type=float, nargs="*", default=[1e-3], help="learning rates that all are given")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    install()
    lrs = [*asked.lr, None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, PICO)
        train, held_out = activations(folder, PICO, asked.tokens, CALIBRATE + HELD_OUT)
        for file, rows in (("train.f32", train), ("held_out.f32", held_out)):
            (folder / file).write_bytes(rows.numpy().tobytes())
        del train, held_out
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            waiting = [
                pool.submit(one_run, entry, lr, seed, asked, folder)
                for seed in range(asked.seeds) for lr in lrs for entry in ENTRIES
            ]  # fmt: skip
            found = compared([one.result() for one in waiting], lrs)
    about = {name: getattr(asked, name) for name in ("tokens", "width", "k", "batch", "seeds")}
    if asked.json:
        print(json.dumps({"versions": versions(), **about, "results": found}, indent=1))
    else:
        print(json.dumps({"versions": versions(), **about}, indent=1))
        show(found)


if __name__ == "__main__":
    main()
