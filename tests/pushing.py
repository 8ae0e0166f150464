"""An SAE to publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from steered import sae_of

from mistudiod.worker.read_recipe import sha256_of

WEIGHTS, CARD = "sae_weights.safetensors", "README.md"
NAMES = {"cfg.json", WEIGHTS, "sparsity.safetensors", "feature_labels.json", CARD}
# huggingface_hub sends files in a way that its HTTP library does not like any more.
SENDING = "ignore:Use 'content=:DeprecationWarning"


def add_sae(data: Path, seed: int = 0, **given: Any) -> Path:
    """The folder of the SAE s in a studio's data folder."""
    folder = data / "saes" / "s"
    folder.mkdir(parents=True, exist_ok=True)
    give(data)
    sae = sae_of(seed=seed, **given)
    about = {"hook_name": "blocks.1.hook_resid_post", "model_source": "/nobody/else"}
    sae.save(folder, about, torch.rand(sae.d_sae))
    model = {"name": "m", "source": "org/model", "path": "/nobody/else"}
    recipe = {"architecture": "standard", "hook": "blocks.1.hook_resid_post", "width": sae.d_sae, "model": model}
    (folder / "recipe.json").write_text(json.dumps({**recipe, "sae_sha256": sha256_of(folder / WEIGHTS)}))
    return folder


def give(run: Path) -> None:
    """As the daemon gives a run folder what features are called."""
    label = {"feature": 3, "text": "is about imports", "provider": "person", "status": "accepted"}
    (run / "given.json").write_text(json.dumps({"labels": [label]}))
