"""OpenAI's GPT-2 small autoencoders: one pickle for each layer, ReLU (v1, v4) or the k largest (v5).

Those of the k largest read each token's activations less their mean, divided by their standard deviation.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mistudiod.engine.formats.base import Found, Imported, Listing, look_at, whole
from mistudiod.engine.formats.hints import number_in
from mistudiod.engine.formats.outcome import outcome
from mistudiod.engine.formats.pickled import SUFFIXES, shapes_in, weights_of
from mistudiod.engine.rules import ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder

_POINTS = {
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
    "mlp_post_act": "mlp.hook_post",
}
_TENSORS = {"pre_bias", "latent_bias", "encoder.weight", "decoder.weight"}
_CONTEXT = 64  # tokens of training, Gao et al. 2024 (arXiv:2406.04093), of the k largest


class OpenAIGPT2:
    name = "openai_gpt2"

    def look(self, listing: Listing) -> list[Found]:
        pickles = sorted(name for name in listing.names() if name.endswith(SUFFIXES))

        def one(name: str, within: bool) -> Found | None:
            if not within:
                return _unseen(name)
            shapes = shapes_in(listing, name)
            width = next(iter(shapes.get("encoder.weight", ())), None)
            return replace(_unseen(name), width=width) if shapes.keys() >= _TENSORS else None

        return look_at(pickles, one)

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        weights = weights_of(listing, found.path)
        tensors = weights.tensors
        d_sae, d_in = _matrix(tensors.shape("encoder.weight"), weights.called)
        rule, notes = _rule(weights.values, d_sae, weights.called)
        sae = SparseAutoencoder(
            W_enc=tensors.take("encoder.weight", (d_in, d_sae), turned=True, device=device),
            b_enc=tensors.take("latent_bias", (d_sae,), device=device),
            W_dec=tensors.take("decoder.weight", (d_sae, d_in), turned=True, device=device),
            b_dec=tensors.take("pre_bias", (d_in,), device=device),
            rule=rule,
            norm="layer_norm" if isinstance(rule, TopKRule) else "none",
        )
        if not found.hook:
            notes.append(f"The path {found.path} does not say which activations it is of: name a hook.")
        context = _CONTEXT if isinstance(rule, TopKRule) else None
        l0 = float(rule.k) if isinstance(rule, TopKRule) else None
        return outcome(sae, replace(found, l0=l0), context=context, notes=notes)


def _unseen(name: str) -> Found:
    layer = number_in(name, r"(?:^|/)(\d+)\.pth?$")
    point = next((point for location, point in _POINTS.items() if location in name), None)
    hook = f"blocks.{layer}.{point}" if point and layer is not None else None
    return Found("openai_gpt2", name, (name,), layer=layer, hook=hook, model="gpt2", pickle=True)


def _rule(values: dict[str, object], d_sae: int, at: str) -> tuple[Rule, list[str]]:
    activation = values.get("activation", "ReLU")
    if activation == "ReLU":
        return ReLURule(), []
    after = values.get("activation_state_dict.postact_fn", "ReLU")
    if activation != "TopK" or after != "ReLU":
        signed = " of negative latents too" if after == "Identity" else ""
        raise ValueError(
            f"{at} has the activation {activation!r}{signed}, and only ReLU and TopK with ReLU are understood"
        )
    k = whole(values, "activation_state_dict.k", at)
    if k > d_sae:
        raise ValueError(f"{at} has k {k}, more than its {d_sae} latents")
    return TopKRule(k), ["Each token is normalised before it is read, which no weights can do: it is done at run time."]


def _matrix(shape: tuple[int, ...], at: str) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"{at} holds encoder.weight of shape {shape}, and a matrix is expected")
    return shape[0], shape[1]
