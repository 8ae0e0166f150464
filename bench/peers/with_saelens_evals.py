"""SAELens' own evaluation of a folder on windows of tokens: ``python with_saelens_evals.py ABOUT.json``; prints JSON.

``run_evals`` is given a HookedSAETransformer (``hooked.py``), the SAE as SAELens loads it, and a store that hands out
the windows it is told of, in order: an ActivationsStore draws its own from a dataset.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hooked import load
from sae_lens import SAE
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.training.activation_scaler import ActivationScaler


class Store:
    """What ``run_evals`` asks of an ActivationsStore."""

    def __init__(self, rows: torch.Tensor, windows: int) -> None:
        self.store_batch_size_prompts, self.context_size = windows, rows.shape[1]
        self._rows, self._at = rows, 0

    def get_batch_tokens(self, windows: int) -> torch.Tensor:
        self._at += windows
        return self._rows[self._at - windows : self._at]

    def reset_input_dataset(self) -> None:
        self._at = 0


def main() -> None:
    about: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    stored = np.fromfile(about["tokens"], about["dtype"]).reshape(-1, about["context"])
    rows = torch.from_numpy(stored[about["windows"]].astype(np.int64))
    model = load(Path(about["model"]), about["hook"], rows[:2])
    windows = 8
    batches = len(rows) // windows
    config = get_eval_everything_config(windows, batches, batches)
    found, features = run_evals(
        SAE.load_from_disk(about["sae"]), Store(rows, windows), model, ActivationScaler(), config,
        exclude_special_tokens=about["special_ids"],
    )  # fmt: skip
    alive = sum(share > 0 for share in features["feature_density"]) / len(features["feature_density"])
    print(json.dumps({**found, "alive": alive}), file=answers, flush=True)


if __name__ == "__main__":
    main()
