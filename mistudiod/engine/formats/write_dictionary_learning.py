"""dictionary_learning: ae.pt, a state dict as torch saves it, and config.json, which says whose it is.

AutoEncoder, AutoEncoderTopK, GatedAutoEncoder or JumpReluAutoEncoder, by the rule.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.formats.about import About, module_of, output_hook
from mistudiod.engine.formats.folds import biases
from mistudiod.engine.rules import GatedRule, JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder

# The rule → the class of the library, and the trainer that makes such.
_CLASSES: dict[type[Rule], tuple[str, str]] = {
    ReLURule: ("AutoEncoder", "StandardTrainer"),
    TopKRule: ("AutoEncoderTopK", "TopKTrainer"),
    GatedRule: ("GatedAutoEncoder", "GatedSAETrainer"),
    JumpReLURule: ("JumpReluAutoEncoder", "JumpReluTrainer"),
}
_POINTS = {"hook_resid_post": "resid_post", "hook_attn_out": "attn_out", "hook_mlp_out": "mlp_out"}


def lacks(sae: SparseAutoencoder) -> str | None:
    """Why the library cannot hold an SAE; None when it can."""
    if sae.transcodes:
        return "dictionary_learning has no transcoders"
    if sae.norm != "none":
        return f"dictionary_learning normalizes nothing, and this SAE applies {sae.norm} to each token"
    if isinstance(sae.rule, ReLURule) and (zero := int((torch.linalg.vector_norm(sae.W_dec, dim=1) == 0).sum())):
        return f"dictionary_learning divides each row of the decoder by its norm, which of {zero:,} rows here is 0"
    return None


def write(sae: SparseAutoencoder, folder: Path, about: About) -> list[str]:
    """Returns what was folded or has no place there, a sentence each."""
    folder.mkdir(parents=True, exist_ok=True)
    state, folded = _state(sae)
    torch.save(state, folder / "ae.pt")
    kind, trainer_class = _CLASSES[type(sae.rule)]
    layer, submodule, io, notes = _place(about)
    trainer = {
        "trainer_class": trainer_class,
        "dict_class": kind,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        "k": sae.rule.k if isinstance(sae.rule, TopKRule) else None,
        "lr": about.lr,
        "steps": about.steps,
        "seed": about.seed,
        "layer": layer,
        "lm_name": about.model,
        "submodule_name": submodule,
        "device": "cpu",
        "wandb_name": about.name,
    }
    kept = {key: value for key, value in trainer.items() if value is not None}
    buffer = {"d_submodule": sae.d_in, "io": io} | ({"ctx_len": about.context} if about.context else {})
    (folder / "config.json").write_text(json.dumps({"trainer": kept, "buffer": buffer}, indent=1))
    return folded + notes


def _state(sae: SparseAutoencoder) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the names of the class, and what was folded."""
    b_enc, b_mag, folded = biases(sae, centred=not isinstance(sae.rule, JumpReLURule))
    if isinstance(sae.rule, JumpReLURule):
        state = {"W_enc": sae.W_enc, "b_enc": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
        return state | {"threshold": sae.rule.threshold}, folded
    linear = {"encoder.weight": sae.W_enc.t().contiguous(), "decoder.weight": sae.W_dec.t().contiguous()}
    if isinstance(sae.rule, GatedRule):
        assert b_mag is not None
        gated = {"decoder_bias": sae.b_dec, "gate_bias": b_enc, "mag_bias": b_mag, "r_mag": sae.rule.r_mag}
        return linear | gated, folded
    if isinstance(sae.rule, TopKRule):
        chosen = {"k": torch.tensor(sae.rule.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
        return linear | chosen | {"encoder.bias": b_enc, "b_dec": sae.b_dec}, folded
    return linear | {"encoder.bias": b_enc, "bias": sae.b_dec}, folded


def _place(about: About) -> tuple[int | None, str, str, list[str]]:
    """The layer, the submodule, whether what goes ``in`` or comes ``out`` of it is read, and what is to be said."""
    hook = output_hook(about.hook)
    layer, point = _parts(hook)
    if point in _POINTS:
        same = [f"{about.hook} is what block {layer} gives, and its config says it so."] if hook != about.hook else []
        return layer, f"{_POINTS[point]}_layer_{layer}", "out", same
    if module := module_of(about.family, hook, "in"):
        return layer, module, "in", []
    return None, hook, "in", [f"The library has no name for {hook}: its config has the hook, and no layer."]


def _parts(hook: str) -> tuple[int | None, str]:
    layer, _, point = hook.removeprefix("blocks.").partition(".")
    return (int(layer), point) if layer.isdecimal() else (None, hook)
