"""EleutherAI's sparsify: a folder called after a module of the Hugging Face model, with cfg.json and sae.safetensors.

What is written: encoder.weight (d_sae, d_in), encoder.bias, W_dec (d_sae, d_in), b_dec, of a skip transcoder W_skip;
beside the folder config.json, which says the model.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mistudiod.engine.formats.about import About, as_folder, module_of, output_hook
from mistudiod.engine.formats.folds import biases
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import UNIT_NORM_TOLERANCE, SparseAutoencoder
from mistudiod.engine.tensor_files import Written, write_tensors


def lacks(sae: SparseAutoencoder) -> str | None:
    """Why sparsify cannot hold an SAE; None when it can."""
    if not isinstance(sae.rule, TopKRule):
        return "sparsify has only SAEs that take the k largest latents"
    if sae.d_out != sae.d_in:
        return f"sparsify rebuilds as many numbers as it reads, and this reads {sae.d_in} and rebuilds {sae.d_out}"
    if sae.norm != "none":
        return f"sparsify normalizes nothing, and this SAE applies {sae.norm} to each token"
    return None


def write(sae: SparseAutoencoder, folder: Path, about: About) -> list[str]:
    """Returns what was folded or has no place there, a sentence each."""
    assert isinstance(sae.rule, TopKRule)
    named, notes = module(sae, about)
    b_enc, _, folded = biases(sae, not sae.transcodes)
    norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
    config = {
        "activation": "topk",
        "expansion_factor": max(1, sae.d_sae // sae.d_in),  # num_latents counts
        "normalize_decoder": bool(((norms - 1).abs() <= UNIT_NORM_TOLERANCE).all()),
        "num_latents": sae.d_sae,
        "k": sae.rule.k,
        "multi_topk": False,
        "skip_connection": sae.W_skip is not None,
        "transcode": sae.transcodes,
        "d_in": sae.d_in,
    }
    inside = folder / named
    inside.mkdir(parents=True)
    (inside / "cfg.json").write_text(json.dumps(config, indent=1))
    tensors = {"encoder.weight": sae.W_enc.t(), "encoder.bias": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    if sae.W_skip is not None:
        tensors["W_skip"] = sae.W_skip
    write_tensors(inside / "sae.safetensors", {name: Written(tensor) for name, tensor in tensors.items()})
    (folder / "config.json").write_text(json.dumps({"model": about.model, "hookpoints": [named]}, indent=1))
    return folded + notes


def module(sae: SparseAutoencoder, about: About) -> tuple[str, list[str]]:
    """What the folder is called, and what is to be said of it.

    A transcoder reads what goes into the module and rebuilds what comes out of it.
    """
    hook = about.hook if sae.transcodes else output_hook(about.hook)
    if sae.transcodes:
        into = module_of(about.family, hook, "in")
        if into and module_of(about.family, about.hook_out, "out") == into:
            return into, []
        return as_folder(f"{hook}-{about.hook_out}"), [
            f"sparsify's transcoders go from what a module reads to what it gives, and {hook} and {about.hook_out} are "
            f"not known as these: the folder is called after both."
        ]
    out = module_of(about.family, hook, "out")
    if out is None:
        return as_folder(hook), [
            f"No module of the model is known that gives {hook}: the folder is called after the hook."
        ]
    same = [f"{about.hook} is what {out} gives, and sparsify calls it so."] if hook != about.hook else []
    return out, same
