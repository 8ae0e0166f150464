"""An SAE to publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from steered import sae_of

from mistudiod.worker.recipe import sha256_of

WEIGHTS, CARD = "sae_weights.safetensors", "README.md"
NAMES = {"cfg.json", WEIGHTS, "sparsity.safetensors", CARD}
# huggingface_hub sends files in a way that its HTTP library does not like any more.
SENDING = "ignore:Use 'content=:DeprecationWarning"


def add_sae(data: Path, seed: int = 0, **given: Any) -> Path:
    """The folder of the SAE s in a studio's data folder."""
    folder = data / "saes" / "s"
    folder.mkdir(parents=True, exist_ok=True)
    sae = sae_of(seed=seed, **given)
    sae.save(folder, {"hook_name": "blocks.1.hook_resid_post"}, torch.rand(sae.d_sae))
    model = {"name": "m", "source": "org/model", "path": "/nobody/else"}
    about = {"architecture": "standard", "hook": "blocks.1.hook_resid_post", "width": sae.d_sae, "model": model}
    (folder / "recipe.json").write_text(json.dumps({**about, "sae_sha256": sha256_of(folder / WEIGHTS)}))
    return folder
