"""One library in a process of its own, in its own environment: ``python process.py MODULE ENTRY SETUP FILE THREADS``.

Makes the trainer, then does what it is told, one line of JSON on stdin each, answering with one on stdout:
``{"do": "steps", "n": 4}`` → seconds of each step; ``{"do": "train", "order": [...]}`` trains on those batches;
``{"do": "measure", "file": ..., "calibrate": ..., "skip": ...}`` → FVU, L0 and the share of latents that fire. FILE
holds float32 rows.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peer import Peer, Setup
from torch import Tensor

MEASURE_ROWS = 1024


def rows_of(file: str, d_in: int) -> Tensor:
    """(rows, d_in), not read before it is used."""
    return torch.from_file(file, shared=True, size=Path(file).stat().st_size // 4).view(-1, d_in)


def memory(field: str) -> int:
    """Bytes: ``VmHWM`` is the most there ever was of this process, ``VmRSS`` what there is."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Process:
    def __init__(self, module: str, entry: str, setup: Setup, file: str) -> None:
        self.setup, self._file = setup, os.open(file, os.O_RDONLY)
        self._batches = Path(file).stat().st_size // (4 * setup.d_in * setup.batch)
        self._x = torch.zeros(setup.batch, setup.d_in)
        library = importlib.import_module(module)
        self._warm(library, entry)
        self.batch(0)
        self.before = memory("VmRSS")
        torch.manual_seed(setup.seed)
        self.peer: Peer = library.make(entry, setup, self.batch(0))
        self.at = 0

    def _warm(self, library: Any, entry: str) -> None:
        """Libraries and thread pools take their memory before that of the trainer is counted."""
        small = Setup(d_in=32, width=512, batch=64, k=4, steps=10)
        peer = library.make(entry, small, torch.randn(64, 32))
        for _ in range(2):
            peer.step(torch.randn(64, 32))

    def batch(self, number: int) -> Tensor:
        """Read into the same memory every time, which is not the trainer's."""
        os.preadv(self._file, [memoryview(self._x.numpy())], number % self._batches * self._x.nbytes)
        return self._x

    def steps(self, n: int) -> dict[str, Any]:
        """Back to back. Memory: the peak of these steps over what there was without a trainer."""
        forget_peak()
        seconds = []
        for _ in range(n):
            x = self.batch(self.at)
            began = time.perf_counter()
            self.peer.step(x)
            seconds.append(time.perf_counter() - began)
            self.at += 1
        peak = memory("VmHWM")
        return {"seconds": seconds, "peak_bytes": peak, "step_bytes": peak - self.before}

    def train(self, order: list[int]) -> dict[str, Any]:
        began = time.perf_counter()
        for number in order:
            self.peer.step(self.batch(number))
        return {"seconds": time.perf_counter() - began}

    @torch.no_grad()
    def measure(self, file: str, calibrate: int, skip: int) -> dict[str, Any]:
        """FVU about the mean of all rows but the first ``skip``, in float64.

        The first ``calibrate`` rows give a batch-top-k its threshold: that above which k latents of a token fire.
        """
        rows = rows_of(file, self.setup.d_in)
        threshold = self._threshold(rows[:calibrate]) if calibrate else 0.0
        rows = rows[skip:]
        fired = torch.zeros(self.setup.width, dtype=torch.int64)
        lost = 0.0
        for x in rows.split(MEASURE_ROWS):
            latents = self.peer.latents(x)
            latents = latents * (latents > threshold)
            lost += (x.double() - self.peer.decode(latents).double()).square().sum().item()
            fired += (latents > 0).sum(0)
        total = (rows.double() - rows.double().mean(0)).square().sum().item()
        alive = (fired > 0).double().mean().item()
        return {"fvu": lost / total, "l0": fired.sum().item() / len(rows), "alive": alive}

    def _threshold(self, rows: Tensor) -> float:
        positive = torch.cat([(z := self.peer.latents(x))[z > 0] for x in rows.split(MEASURE_ROWS)])
        wanted = self.setup.k * len(rows)  # the largest that is not to fire
        return positive.kthvalue(len(positive) - wanted).values.item() if len(positive) > wanted else 0.0


def main() -> None:
    module, entry, setup, file, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints
    torch.set_num_threads(int(threads))
    process = Process(module, entry, Setup(**json.loads(setup)), file)
    print(json.dumps({"ready": memory("VmRSS"), "torch": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(process, asked.pop("do"))(**asked)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
