"""How well tokens are mixed: ``python bench/shuffle.py``; a minute.

Of two tokens of one batch, how often do they come from the same window of text? Ours is the real buffer with numbers of
windows in place of activations; SAELens' is its own ``mixing_buffer``, at its defaults, at its tutorial's settings, and
at defaults with the smallest pool that does not fail. The best there can be is a shuffle of all tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from running import HERE, install, python_of

from mistudiod.engine.activations import ActivationBatches, Harvest, pairs_of_a_window

BATCH = 4096
# context, n_batches_in_buffer, store_batch_size_prompts
SAELENS = {"defaults": (128, 20, 32), "defaults, 32 batches": (128, 32, 32), "tutorial": (256, 64, 16)}


class Numbered:
    """Windows whose tokens are the window's number; there is no special token."""

    def __init__(self, context: int) -> None:
        self.context = context

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        return np.repeat(np.asarray(indices, dtype=np.int64)[:, None], self.context, axis=1)

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.zeros(rows.shape, dtype=np.bool_)


def ours(windows: int, context: int) -> Iterator[Tensor]:
    """The window of each token, batch by batch, of one pass."""
    harvest = Harvest(Numbered(context), lambda ids: ids[:, :, None].float(), lm_tokens=4096, widths=[1])
    batches = ActivationBatches(harvest, windows, BATCH, 0)
    for _ in range(windows * context // BATCH):
        next(batches)
        yield batches.where // context


def saelens(windows: int, context: int, in_buffer: int, prompts: int) -> Iterator[Tensor]:
    """The same; ValueError with SAELens' words."""
    command = [python_of("saelens"), str(HERE / "saelens_mixing.py")]
    command += [str(number) for number in (windows, context, BATCH, in_buffer, prompts)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert process.stdout is not None
    for line in process.stdout:
        given = json.loads(line)
        if isinstance(given, str):
            raise ValueError(given)
        yield torch.tensor(given)
    if process.wait():
        raise SystemExit("SAELens' mixing buffer could not be run")


def measured(batches: Iterable[Tensor]) -> dict[str, float]:
    """Share of pairs of one batch that are of one window, and how many windows a batch has; means over batches."""
    pairs, windows = [], []
    for batch in batches:
        pairs.append(pairs_of_a_window(batch, 1))
        windows.append(len(batch.unique()))
    return {"same_window": statistics.mean(pairs), "worst": max(pairs), "windows": statistics.mean(windows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2_097_152, help="in the data set, gone through once")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    install()
    rows: dict[str, dict[str, Any]] = {}
    for context in (128, 256):
        windows = asked.tokens // context
        rows[f"all tokens shuffled, context {context}"] = {"same_window": (context - 1) / (asked.tokens - 1)}
        rows[f"ours, context {context}"] = measured(ours(windows, context))
        for name, (its_context, in_buffer, prompts) in SAELENS.items():
            if its_context == context:
                try:
                    found: dict[str, Any] = measured(saelens(windows, context, in_buffer, prompts))
                except ValueError as error:
                    found = {"fails": str(error)}
                rows[f"SAELens, {name}, context {context}, pool {in_buffer * context:,}"] = found
    if asked.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"Batches of {BATCH}, {asked.tokens:,} tokens\n")
    print("| | pairs of one window | worst batch | windows in a batch |\n|---|---:|---:|---:|")
    for name, row in rows.items():
        if "fails" in row:
            print(f"| {name} | {row['fails']} | | |")
        elif "worst" in row:
            print(f"| {name} | {row['same_window']:.4%} | {row['worst']:.4%} | {row['windows']:,.0f} |")
        else:
            print(f"| {name} | {row['same_window']:.4%} | | |")


if __name__ == "__main__":
    main()
