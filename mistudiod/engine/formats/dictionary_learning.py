"""dictionary_learning: ``ae.pt`` and its ``config.json``, each class of that library.

A run that was cut off has left its whole state as ``ae.pt``, with activations still divided by their mean norm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mistudiod.engine.formats.base import (
    Found,
    Imported,
    Listing,
    beside,
    config_of,
    inside,
    look_at,
    number,
    whole,
    words,
)
from mistudiod.engine.formats.hints import is_post_normed, module_hook, number_in
from mistudiod.engine.formats.outcome import outcome
from mistudiod.engine.formats.pickled import Pickled, weights_of
from mistudiod.engine.rules import GatedRule, JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import row_norms, times

_WEIGHTS, _CONFIG = "ae.pt", "config.json"


@dataclass(frozen=True)
class _Class:
    """How a class of the library calls its tensors."""

    b_dec: str
    b_enc: str = "encoder.bias"
    linear: bool = True  # encoder.weight (F, d) and decoder.weight (d, F), not W_enc (d, F) and W_dec (F, d)
    centred: bool = True


_CLASSES = {
    "AutoEncoder": _Class("bias"),
    "AutoEncoderNew": _Class("decoder.bias", centred=False),
    "GatedAutoEncoder": _Class("decoder_bias", b_enc="gate_bias"),
    "AutoEncoderTopK": _Class("b_dec"),
    "BatchTopKSAE": _Class("b_dec"),
    "MatryoshkaBatchTopKSAE": _Class("b_dec", b_enc="b_enc", linear=False),
    "JumpReluAutoEncoder": _Class("b_dec", b_enc="b_enc", linear=False, centred=False),
}
_POINTS = (  # of submodule_name: the hook of what such a module gives, and of what it takes
    (r"attn|attention", "hook_attn_out", None),
    (r"mlp", "hook_mlp_out", "mlp.hook_in"),
    (r"", "hook_resid_post", "hook_resid_pre"),
)


class DictionaryLearning:
    name = "dictionary_learning"

    def look(self, listing: Listing) -> list[Found]:
        def one(folder: str, within: bool) -> Found | None:
            if not within:
                return _unseen(folder)
            trainer, buffer = trainer_of(listing, folder)
            if not trainer:
                return None
            hook, _ = _hook(trainer, buffer)
            width, k = (int(value) if (value := number(trainer.get(key))) else None for key in ("dict_size", "k"))
            layer = number_in(hook, r"blocks\.(\d+)\.") if hook else None
            model = words(trainer.get("lm_name"))
            return replace(_unseen(folder), layer=layer, width=width, l0=k, hook=hook, model=model)

        return look_at(beside(listing, _WEIGHTS, _CONFIG), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        trainer, buffer = trainer_of(listing, found.path)
        at = inside(found.path, _CONFIG)
        kind = words(trainer.get("dict_class")) or "none"
        if kind not in _CLASSES:
            raise ValueError(f"{at} has dict_class {kind[:100]}, and only {', '.join(_CLASSES)} are understood")
        if buffer.get("io") == "in_and_out":
            raise ValueError(
                f"{at} is of a transcoder (io in_and_out), whose two hooks dictionary_learning does not name"
            )
        weights = weights_of(listing, inside(found.path, _WEIGHTS))
        notes: list[str] = []
        sae = _sae(kind, weights, trainer, device, notes)
        d_in, d_sae = (whole(trainer, key, at) for key in ("activation_dim", "dict_size"))
        if (sae.d_in, sae.d_sae) != (d_in, d_sae):
            raise ValueError(f"{weights.called} is {sae.d_in} by {sae.d_sae}, and {at} says {d_in} by {d_sae}")
        hook, guessed = _hook(trainer, buffer)
        if guessed:
            notes.append(guessed)
        context = number(buffer.get("ctx_len"))
        k = float(sae.rule.k) if isinstance(sae.rule, TopKRule) else number(trainer.get("k"))
        found = replace(found, hook=hook, l0=k, model=words(trainer.get("lm_name")))
        return outcome(sae, found, context=int(context) if context else None, notes=notes)


def trainer_of(listing: Listing, folder: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Of a folder's config.json, what it says of the trainer and of its buffer; both empty when it is another's."""
    config = config_of(listing, inside(folder, _CONFIG))
    trainer, buffer = config.get("trainer"), config.get("buffer")
    if not isinstance(trainer, dict) or "dict_class" not in trainer:
        return {}, {}
    return trainer, buffer if isinstance(buffer, dict) else {}


def _unseen(folder: str) -> Found:
    files = (inside(folder, _WEIGHTS), inside(folder, _CONFIG))
    return Found("dictionary_learning", folder, files, layer=number_in(folder, r"layer_?(\d+)"), pickle=True)


def _sae(
    kind: str, weights: Pickled, trainer: Mapping[str, object], device: str | torch.device, notes: list[str]
) -> SparseAutoencoder:
    names = _CLASSES[kind]
    within = "ae." if any(name.startswith("ae.") for name in weights.tensors.stored) else ""
    encoder, decoder = ("encoder.weight", "decoder.weight") if names.linear else ("W_enc", "W_dec")
    d_sae, d_in = _sizes(weights, within + encoder, names.linear)

    def take(name: str, *shape: int) -> Tensor:
        return weights.tensors.take(within + name, shape, turned=names.linear and len(shape) > 1, device=device)

    sae = SparseAutoencoder(
        W_enc=take(encoder, d_in, d_sae),
        b_enc=take(names.b_enc, d_sae),
        W_dec=take(decoder, d_sae, d_in),
        b_dec=take(names.b_dec, d_in),
        rule=ReLURule(),
        centred=names.centred,
    )
    if kind == "GatedAutoEncoder":
        sae.rule = GatedRule(sae.b_enc, take("mag_bias", d_sae), take("r_mag", d_sae))
    elif kind == "JumpReluAutoEncoder":
        sae.rule = JumpReLURule(take("threshold", d_sae))
    elif kind not in ("AutoEncoder", "AutoEncoderNew"):
        said = {name: weights.number(within + name) for name in ("k", "threshold")}
        sae.rule = _chosen(
            kind,
            {"k": number(trainer.get("k")), **{n: v for n, v in said.items() if v is not None}},
            sae,
            weights.called,
            notes,
        )
    if kind == "AutoEncoder":
        _unit_rows(sae, notes)
    factor = weights.number("norm_factor") if within else None
    if factor and factor != 1:
        _scaled(sae, factor)
        notes.append(f"Training was not over, its activations divided by {factor:.6g}: that is folded into the biases.")
    return sae


def _sizes(weights: Pickled, encoder: str, linear: bool) -> tuple[int, int]:
    """d_sae and d_in."""
    shape = weights.tensors.shape(encoder)
    if len(shape) != 2:
        raise ValueError(f"{weights.called} holds {encoder} of shape {shape}, and a matrix is expected")
    return (shape[0], shape[1]) if linear else (shape[1], shape[0])


def _chosen(kind: str, said: Mapping[str, float | None], sae: SparseAutoencoder, at: str, notes: list[str]) -> Rule:
    """The rule of the classes that are trained with k: the library uses the threshold of all but TopK."""
    threshold = said.get("threshold")
    if kind == "AutoEncoderTopK" or threshold is None:
        k = whole(said, "k", at)
        if k > sae.d_sae:
            raise ValueError(f"{at} has k {k}, more than its {sae.d_sae} latents")
        if kind != "AutoEncoderTopK":
            notes.append(f"It has no threshold: the {k} largest of each token are taken, not {k} a token of a batch.")
        return TopKRule(k)
    if threshold < 0:
        notes.append("Its threshold was never set: every positive latent fires, as in dictionary_learning.")
    return JumpReLURule(torch.full_like(sae.b_enc, max(threshold, 0.0)))


def _unit_rows(sae: SparseAutoencoder, notes: list[str]) -> None:
    """As AutoEncoder.from_pretrained does: the norm of a row of the decoder goes into its latent."""
    norm = row_norms(sae.W_dec)
    norm = torch.where(norm == 0, 1.0, norm)
    if not torch.allclose(norm, torch.ones_like(norm)):
        times(sae.W_dec, 1 / norm[:, None])
        times(sae.W_enc, norm)
        sae.b_enc *= norm
        notes.append("The rows of the decoder were given unit norm, and the latents theirs, as that library does.")


def _scaled(sae: SparseAutoencoder, factor: float) -> None:
    """From x / factor to x: latents grow by the factor, so weights stay as they are and what is added grows."""
    sae.b_enc *= factor
    sae.b_dec *= factor
    if isinstance(sae.rule, GatedRule):
        sae.rule = GatedRule(sae.b_enc, sae.rule.b_mag * factor, sae.rule.r_mag)
    elif isinstance(sae.rule, JumpReLURule):
        sae.rule = JumpReLURule(sae.rule.threshold * factor)


def _hook(trainer: Mapping[str, object], buffer: Mapping[str, object]) -> tuple[str | None, str | None]:
    """The hook, and what of it was guessed."""
    module = words(trainer.get("submodule_name")) or ""
    if hook := module_hook(module, "in" if buffer.get("io") == "in" else "out", _post_normed(trainer)):
        return hook, None
    layer = number(trainer.get("layer"))
    if layer is None and (found := number_in(module, r"(\d+)")) is not None:
        layer = float(found)
    if re.search(r"embed", module):
        return "hook_embed", None
    if layer is None or layer < 0:
        return None, "Its config.json does not say which layer it belongs to: name a hook."
    _, out, into = next(point for point in _POINTS if re.search(point[0], module))
    point = into if buffer.get("io") == "in" else out
    if point is None:
        return None, f"It reads what goes into {module}, which is no hook here: name one."
    said = re.search(r"resid|attn|attention|mlp", module)
    guess = None if said else "Its config.json names no module: it is taken for what the block gives (hook_resid_post)."
    return f"blocks.{int(layer)}.{point}", guess


def _post_normed(trainer: Mapping[str, object]) -> bool:
    return is_post_normed(words(trainer.get("lm_name")))
