"""What an extraction takes beside the bare forward pass and encoder: ``python bench/extract.py``; some 20 minutes.

builtin:pico reads builtin:python in windows of 128 tokens; batch-top-k SAEs of 4,096 and 8,192 latents at
blocks.3.hook_resid_post are trained first (``--data FOLDER`` keeps them, and the next run finds them there). Then they
take turns, each in a process of its own: the model up to the hook with ``encode_active`` over the tokens that count,
from windows in memory, and the extraction as a job, from its start to the finished store, reading the same tokens.
Medians of tokens/s, by the clock and by the seconds that processors worked; goal for the share: 70 %. Peak memory is
what the process has more than right after a first pass with model and SAE loaded: all of it, and what is not files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HOOK, CONTEXT, K = "blocks.3.hook_resid_post", 128, 32
TRAINED = 200_000  # tokens that each SAE learns from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", nargs="+", type=int, default=[4096, 8192])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1_000_000, 250_000], help="the first for speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a data folder to keep")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "WIDTH", "TOKENS"), help="what a process of its own does")
    asked = parser.parse_args()
    if asked.one:
        what, width, tokens = asked.one
        print(json.dumps(ONE[what](asked.data, int(width), int(tokens))))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = asked.data or Path(folder)
        for width in asked.width:
            in_a_process(data, "make", width, 0)
        results = {width: measured(data, width, asked.tokens, asked.rounds) for width in asked.width}
    print(json.dumps(results, indent=1) if asked.json else table(results))


def measured(data: Path, width: int, tokens: list[int], rounds: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
    for _ in range(rounds):
        for what, some in runs.items():
            some.append(in_a_process(data, what, width, tokens[0]))
    found: dict[str, Any] = {
        f"{what} by {of}": statistics.median(run["tokens"] / run[of] for run in some)
        for what, some in runs.items()
        for of in ("clock", "processors")
    }
    memory = [runs["ours"][-1], *(in_a_process(data, "ours", width, number) for number in tokens[1:])]
    found["memory"] = dict(zip(tokens, memory, strict=True))
    found["seconds"] = statistics.median(run["clock"] for run in runs["ours"])
    return found


def in_a_process(data: Path, what: str, width: int, tokens: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--data", str(data), "--one", what, str(width), str(tokens)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr[-4000:])
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def table(results: dict[int, dict[str, Any]]) -> str:
    lines = ["| latents | | bare, tokens/s | extraction | share |", "|---:|---|---:|---:|---:|"]
    for width, row in results.items():
        for of in ("clock", "processors"):
            bare, ours = row[f"bare by {of}"], row[f"ours by {of}"]
            lines.append(f"| {width:,} | by {of} | {bare:,.0f} | {ours:,.0f} | {ours / bare:.0%} |")
    lines += ["", "| latents | tokens | seconds | peak memory, MB | not of files |", "|---:|---:|---:|---:|---:|"]
    for width, row in results.items():
        for tokens, run in row["memory"].items():
            numbers = f"{run['clock']:.0f} | {run['peak'] / 1e6:,.0f} | {run['anonymous'] / 1e6:,.0f}"
            lines.append(f"| {width:,} | {tokens:,} | {numbers} |")
    return "\n".join(lines)


# -- in a process of its own -----------------------------------------------------------------------------------------


def make(data: Path, width: int, tokens: int) -> dict[str, float]:
    """The model, the text and an SAE, where they are not there yet."""
    jobs = {
        "models/pico": ("add_model", {"source": "builtin:pico", "name": "pico"}),
        "datasets/python": ("add_dataset", {"source": "builtin:python", "name": "python"}),
        "tokens/python-pico": ("tokenize", {"name": "python-pico", "context": CONTEXT}),
        f"saes/w{width}": ("train", {"name": f"w{width}", "hook": HOOK, "width": width, "k": K, "tokens": TRAINED}),
    }
    read = {"tokenize": {"dataset": "python", "model": "pico"}, "train": {"tokenization": "python-pico"}}
    for name, (kind, spec) in jobs.items():
        if not (data / name).exists():
            run(data, kind, {**spec, **read.get(kind, {})}, f"{kind}-{width}")
    return {}


def bare(data: Path, width: int, tokens: int) -> dict[str, float]:
    import torch

    from mistudiod.engine.extract import spread
    from mistudiod.engine.hooks import layers_needed
    from mistudiod.engine.lm import PASS_TOKENS, load_lm
    from mistudiod.engine.sae import SparseAutoencoder
    from mistudiod.engine.tokens import TokenWindows

    model = json.loads((data / "models" / "pico" / "model.json").read_text())["path"]
    lm, sae = load_lm(Path(model), layers=layers_needed(HOOK)), SparseAutoencoder.load(data / "saes" / f"w{width}")
    windows = TokenWindows(data / "tokens" / "python-pico")
    rows = windows.rows(spread(windows.train, CONTEXT, tokens))
    text = torch.from_numpy(~windows.special_mask(rows))
    size, ids = PASS_TOKENS["cpu"] // CONTEXT, torch.from_numpy(rows)
    began, worked = time.perf_counter(), time.process_time()
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        sae.encode_active(lm.activations(ids[part], HOOK)[text[part]].float())
    took = {"clock": time.perf_counter() - began, "processors": time.process_time() - worked}
    return took | {"tokens": float(ids.numel())}


def ours(data: Path, width: int, tokens: int) -> dict[str, float]:
    from mistudiod.engine.extract import Encoder  # what takes seconds to import does not count, as in bare

    assert Encoder
    memory = Memory()
    began, worked = time.perf_counter(), time.process_time()
    result = run(data, "extract", {"sae": f"w{width}", "tokens": tokens}, str(time.time_ns()), memory.look)
    took = {"clock": time.perf_counter() - began, "processors": time.process_time() - worked}
    read = float(result["tokens"] + sum(result["skipped"].values()))
    return took | {"tokens": read, **memory.told()}


def run(data: Path, kind: str, spec: dict[str, Any], name: str, look: Any = None) -> dict[str, Any]:
    """A job; its result."""
    import importlib

    from mistudiod.paths import Paths
    from mistudiod.specs import KINDS
    from mistudiod.worker.link import Link

    class Told(Link):
        told: dict[str, Any] = {}

        def _send(self, event: Any) -> None:
            if look and event.event == "progress" and event.stage == "read text" and event.done:
                look()

        def result(self, result: dict[str, Any]) -> None:
            self.told = result

    folder = data / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    link = Told(folder, Paths(data))
    importlib.import_module(f"mistudiod.worker.{kind}").run(KINDS[kind].model_validate(spec), link)
    return link.told


class Memory:
    """What this process has at its peak, beyond what it has when ``look`` is first called."""

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self.most = {"VmRSS": 0, "RssAnon": 0}

    def look(self) -> None:
        if not self.first:
            self.first = _status()
            threading.Thread(target=self._watch, daemon=True).start()

    def told(self) -> dict[str, float]:
        peak, anonymous = (float(max(0, self.most[of] - self.first[of])) for of in ("VmRSS", "RssAnon"))
        return {"peak": peak, "anonymous": anonymous}

    def _watch(self) -> None:
        while True:
            now = _status()
            self.most = {of: max(most, now[of]) for of, most in self.most.items()}
            time.sleep(0.02)


def _status() -> dict[str, int]:
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return {name: int(kb) << 10 for name, kb in re.findall(r"(\w+):\s+(\d+) kB", status)}


ONE = {"make": make, "bare": bare, "ours": ours}

if __name__ == "__main__":
    main()
