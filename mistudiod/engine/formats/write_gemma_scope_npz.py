"""Gemma Scope's params.npz: W_enc (d_in, d_sae), W_dec (d_sae, d_in), b_enc, b_dec, threshold; b_dec is not subtracted.

The file says nothing of model or hook. Where it lies says the layer, the width and what L0 was measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mistudiod.engine.formats.about import About
from mistudiod.engine.formats.folds import biases
from mistudiod.engine.rules import JumpReLURule, ReLURule
from mistudiod.engine.sae import SparseAutoencoder


def lacks(sae: SparseAutoencoder) -> str | None:
    """Why such a file cannot hold an SAE; None when it can."""
    if sae.transcodes:
        return "params.npz cannot say that it is a transcoder"
    if not isinstance(sae.rule, JumpReLURule | ReLURule):
        return f"params.npz holds a threshold for each latent, and a {sae.rule.name} SAE has none"
    if sae.norm != "none":
        return f"Gemma Scope normalizes nothing, and this SAE applies {sae.norm} to each token"
    return None


def write(sae: SparseAutoencoder, folder: Path, about: About) -> list[str]:
    """Returns what was folded and what the file does not say, a sentence each."""
    b_enc, _, notes = biases(sae, centred=False)
    threshold = sae.rule.threshold if isinstance(sae.rule, JumpReLURule) else torch.zeros(sae.d_sae)
    if isinstance(sae.rule, ReLURule):
        notes.append("ReLU is written as a threshold of 0 on every latent, which is the same.")
    inside = folder / place(sae.d_sae, about)
    inside.mkdir(parents=True)
    tensors = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_enc": b_enc, "b_dec": sae.b_dec, "threshold": threshold}
    np.savez(inside / "params.npz", **{name: tensor.float().cpu().numpy() for name, tensor in tensors.items()})
    return [*notes, f"The file does not say that it reads {about.hook}: tell whoever gets it."]


def place(width: int, about: About) -> Path:
    """``layer_12/width_16k/average_l0_82``, as far as it is known."""
    parts = [f"layer_{about.layer}"] if about.layer is not None else []
    parts.append(f"width_{_short(width)}")
    if about.l0 is not None:
        parts.append(f"average_l0_{round(about.l0)}")
    return Path(*parts)


def _short(width: int) -> str:
    """Powers of two as Gemma Scope has them: 16k is 16,384, 1m is 1,048,576."""
    if width < 1024 or width & (width - 1):
        return str(width)
    return f"{width // 1000}k" if width < 1 << 20 else f"{width // 1000**2}m"
