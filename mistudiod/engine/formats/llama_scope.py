"""Llama Scope and what OpenMOSS trained after it: ``hyperparams.json`` and ``checkpoints/final.safetensors``, or
``config.json`` and ``sae_weights.safetensors``.

Activations are brought to a mean norm of sqrt(d_model) over a dataset, which is folded here. A latent is gated by what
it contributes (its activation times the norm of its row of the decoder) where sparsity_include_decoder_norm says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from mistudiod.engine.formats.base import (
    Found,
    Imported,
    Listing,
    config_of,
    folder_of,
    inside,
    look_at,
    number,
    tensors_of,
    whole,
    words,
)
from mistudiod.engine.formats.folds import fold_centre
from mistudiod.engine.formats.hints import number_in
from mistudiod.engine.formats.outcome import outcome
from mistudiod.engine.rules import JumpReLURule, ReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import TensorFile, row_norms, times

_LAYOUTS = {"hyperparams.json": "checkpoints/final.safetensors", "config.json": "sae_weights.safetensors"}
# W_enc, b_enc, W_dec, b_dec; the matrices of linear maps are the other way round than ours
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
_PLAIN = ("W_E", "b_E", "W_D", "b_D")
_THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
_MODELS = {"R1-Distill": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "Llama3_1-8B-Base": "meta-llama/Llama-3.1-8B"}
_CONTEXT = 1024  # tokens of the training of those models' SAEs, after BOS
_REFUSED = {"use_glu_encoder": "a GLU encoder", "use_shared_decoder": "a decoder shared with others"}
_TYPES = (None, "sae")


class LlamaScope:
    name = "llama_scope"

    def look(self, listing: Listing) -> list[Found]:
        names = set(listing.names())
        configs = [name for name in sorted(names) if name.split("/")[-1] in _LAYOUTS and _weights(name) in names]

        def one(name: str, within: bool) -> Found | None:
            if not within:
                return _unseen(listing, name)
            config = config_of(listing, name)
            if "hook_point_in" not in config:
                return None
            stored = tensors_of(listing, _weights(name))
            bias = next((bias for _, bias, *_ in (_LINEAR, _PLAIN) if bias in stored), None)
            hook, found = words(config["hook_point_in"]), _unseen(listing, name)
            layer = number_in(hook or "", r"blocks\.(\d+)\.")
            return replace(found, layer=layer, width=stored[bias].items, hook=hook) if bias else None

        return look_at(configs, one)

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        weights, at = found.files
        config, file = config_of(listing, at), TensorFile(listing.path(weights), weights)
        for key, what in _REFUSED.items():
            if config.get(key):
                raise ValueError(f"{at} has {key}: {what} has no form here")
        if config.get("sae_type") not in _TYPES:
            raise ValueError(f"{at} has sae_type {config['sae_type']!r}, and only sae is understood")
        hook = words(config.get("hook_point_in"))
        hook_out, notes = words(config.get("hook_point_out")) or hook, list[str]()
        sae = _weighted(config, file, at, device)
        sae.transcodes = hook_out != hook
        _folded(sae, config, file, at, notes)
        context, bos = (_CONTEXT, True) if found.model in _MODELS.values() else (None, None)
        transcoded = hook_out if sae.transcodes else None
        return outcome(sae, replace(found, hook=hook), transcoded, context, bos, notes)


def _weights(config: str) -> str:
    return inside(folder_of(config), _LAYOUTS[config.split("/")[-1]])


def _unseen(listing: Listing, name: str) -> Found:
    model = next((model for part, model in _MODELS.items() if part in f"{listing.source}/{name}"), None)
    layer = number_in(name, r"L(\d+)(?:R|A|M|TC)\b")
    return Found("llama_scope", folder_of(name), (_weights(name), name), layer=layer, model=model)


def _weighted(config: Mapping[str, object], file: TensorFile, at: str, device: str | torch.device) -> SparseAutoencoder:
    """As it is stored, without its rule."""
    linear = _LINEAR[0] in file
    w_enc, b_enc, w_dec, b_dec = _LINEAR if linear else _PLAIN
    d_in, d_sae = whole(config, "d_model", at), prod(file.shape(b_enc))
    return SparseAutoencoder(
        W_enc=file.take(w_enc, (d_in, d_sae), turned=linear, device=device),
        b_enc=file.take(b_enc, (d_sae,), device=device),
        W_dec=file.take(w_dec, (d_sae, d_in), turned=linear, device=device),
        b_dec=file.take(b_dec, (d_in,), device=device) if b_dec in file else torch.zeros(d_in, device=device),
        rule=ReLURule(),
        centred=False,
    )


def _folded(sae: SparseAutoencoder, config: Mapping[str, object], file: TensorFile, at: str, notes: list[str]) -> None:
    into, out = _factors(sae, config, file, at, notes)
    if config.get("apply_decoder_bias_to_pre_encoder", False):
        sae.b_enc = fold_centre(sae.W_enc, sae.b_enc, sae.b_dec)
        notes.append("b_dec was subtracted from what is read: that is folded into b_enc.")
    by_norm = config.get("sparsity_include_decoder_norm", True)
    if by_norm:
        norm = row_norms(sae.W_dec)
        norm = torch.where(norm == 0, 1.0, norm)
        times(sae.W_enc, norm)
        sae.b_enc *= norm
        times(sae.W_dec, 1 / norm[:, None])
        if not torch.allclose(norm, torch.ones_like(norm), atol=1e-3):
            notes.append(
                "A latent's gate looks at what it contributes: the norms of the decoder's rows went into the latents."
            )
    times(sae.W_enc, into)
    times(sae.W_dec, 1 / out)
    sae.b_dec /= out
    _ruled(sae, config, file, at, out if by_norm else into, notes)


def _factors(
    sae: SparseAutoencoder, config: Mapping[str, object], file: TensorFile, at: str, notes: list[str]
) -> tuple[float, float]:
    """By what activations are multiplied before they are read, and by what those that are to be rebuilt."""
    way = config.get("norm_activation", "dataset-wise")
    if way == "token-wise" and not sae.transcodes:
        sae.norm = "constant_norm_rescale"
        notes.append("Each token is brought to a norm of sqrt(d_model) before it is read, which is done at run time.")
    if way == "inference" or sae.norm != "none":
        return 1.0, 1.0
    if way != "dataset-wise":
        raise ValueError(f"{at} has norm_activation {way!r}, which cannot be undone in what is rebuilt")
    kept = config.get("dataset_average_activation_norm")
    norms = []
    for side in ("in", "out"):
        tensor = f"dataset_average_activation_norm.{config.get(f'hook_point_{side}') or config.get('hook_point_in')}"
        norm = number(kept.get(side)) if isinstance(kept, dict) else file.number(tensor) if tensor in file else None
        if not norm or norm < 0:
            raise ValueError(
                f"{at} and its weights do not say the dataset_average_activation_norm that it was trained with"
            )
        norms.append(sae.d_in**0.5 / norm)
    into, out = norms
    notes.append(f"Activations were multiplied by {into:.6g}, and what is rebuilt by {out:.6g}: both are folded in.")
    return into, out


def _ruled(
    sae: SparseAutoencoder, config: Mapping[str, object], file: TensorFile, at: str, raw: float, notes: list[str]
) -> None:
    """``raw``: by what the latents are larger than those of activations as the model has them."""
    act, threshold = config.get("act_fn", "relu"), number(config.get("jump_relu_threshold"))
    if act == "topk" and threshold and threshold > 0:
        act = "jumprelu"
        notes.append("It was trained to take the k largest; its makers use its threshold instead, and so does this.")
    if act == "topk":
        k = whole(config, "top_k", at)
        if k > sae.d_sae:
            raise ValueError(f"{at} has top_k {k}, more than its {sae.d_sae} latents")
        sae.rule = TopKRule(k)
        if sae.transcodes:
            notes.append("SAELens has no transcoder that takes the k largest: this one it cannot load.")
    elif act == "jumprelu":
        sae.rule = JumpReLURule(_threshold(sae, config, file, at, raw, notes))
    elif act != "relu":
        raise ValueError(f"{at} has act_fn {str(act)[:100]!r}, and only relu, jumprelu and topk are understood")


def _threshold(
    sae: SparseAutoencoder, config: Mapping[str, object], file: TensorFile, at: str, raw: float, notes: list[str]
) -> Tensor:
    for name in _THRESHOLDS:
        if name in file:
            return file.take(name, (sae.d_sae,), device=sae.b_enc.device).exp_()
    threshold = number(config.get("jump_relu_threshold"))
    if threshold is None or threshold < 0:
        raise ValueError(f"{at} has act_fn jumprelu and neither a jump_relu_threshold nor a tensor of thresholds")
    # measured when dataset norms and decoder norms were folded: OpenMOSS/Language-Model-SAEs, initializer
    notes.append(
        f"Its threshold {threshold:.6g} is for activations as the model has them, and became {threshold * raw:.6g}."
    )
    return torch.full_like(sae.b_enc, threshold * raw)
