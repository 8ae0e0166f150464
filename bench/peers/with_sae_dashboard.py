"""sae-dashboard's own runner on a model, an SAE and windows of tokens: ``python with_sae_dashboard.py ABOUT.json``.

Prints JSON. ``SaeVisRunner`` is given a HookedSAETransformer (``hooked.py``) and the SAE as SAELens loads it.
Activations of the model are kept on disk between batches of features, as its Neuronpedia runner does: the first batch
pays for the model, every other one reads them again.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hooked import load
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE


def main() -> None:
    about: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(about["threads"])
    stored = np.fromfile(about["tokens"], about["dtype"]).reshape(-1, about["context"])
    rows = torch.from_numpy(stored[about["windows"]].astype(np.int64))
    model = load(Path(about["model"]), about["hook"], rows[:2])
    sae = SAE.load_from_disk(about["sae"], device="cpu")
    batch, before = about["features_at_once"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took: dict[str, list[float]] = {"seconds": [], "cpu_s": []}
    with tempfile.TemporaryDirectory(dir=about["scratch"]) as cache:
        for number in range(about["batches"]):
            config = SaeVisConfig(
                hook_point=about["hook"],
                features=list(range(number * batch, (number + 1) * batch)),
                minibatch_size_features=batch,
                ignore_tokens=set(about["special_ids"]),
                cache_dir=Path(cache),
            )
            began, cpu = time.perf_counter(), time.process_time()
            SaeVisRunner(config).run(encoder=sae, model=model, tokens=rows)
            took["seconds"].append(time.perf_counter() - began)
            took["cpu_s"].append(time.process_time() - cpu)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    print(json.dumps({"batches": took, "tokens": rows.numel(), "peak_bytes": peak}), file=answers, flush=True)


if __name__ == "__main__":
    main()
