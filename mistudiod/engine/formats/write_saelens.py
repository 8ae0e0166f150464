"""SAELens 6: cfg.json and sae_weights.safetensors, which is how this studio keeps an SAE too."""

from __future__ import annotations

from pathlib import Path

import torch

from mistudiod.engine.formats.about import About
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import UNIT_NORM_TOLERANCE, SparseAutoencoder

_UNEQUAL = (
    "The rows of the decoder differ in norm, and giving them one would choose other latents: SAELens takes them as "
    "they are, SAEBench wants rows of unit norm."
)
_HEADS = (
    "It takes the heads of hook_z side by side: in a HookedSAETransformer, which has them apart, call its "
    "turn_on_forward_pass_hook_z_reshaping() first."
)


def lacks(sae: SparseAutoencoder) -> str | None:
    """Why SAELens cannot hold an SAE; None when it can."""
    if sae.transcodes and isinstance(sae.rule, TopKRule):
        return "SAELens has no transcoder that takes the k largest latents"
    return None


def write(sae: SparseAutoencoder, folder: Path, about: About) -> list[str]:
    """Returns what is to be said of it, a sentence each. Its own metadata says where it belongs."""
    sae.save(folder)
    norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
    low, high = norms.aminmax()
    unequal = isinstance(sae.rule, TopKRule) and bool(high - low > UNIT_NORM_TOLERANCE * high)
    notes = [_UNEQUAL] if unequal else []
    return [*notes, _HEADS] if about.hook.endswith("hook_z") else notes
