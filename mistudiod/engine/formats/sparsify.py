"""EleutherAI's sparsify: a folder with cfg.json and sae.safetensors, named for a module of the Hugging Face model.

encoder.weight (d_sae, d_in), encoder.bias, W_dec (d_sae, d_out), b_dec, and of a skip transcoder W_skip (d_out, d_in).
Top-k; b_dec is subtracted unless it transcodes. An SAE reads what comes out of the module; a transcoder reads what goes
in and rebuilds what comes out. ``multi_topk`` changes the training only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

import torch

from mistudiod.engine.formats.base import (
    Found,
    Imported,
    Listing,
    beside,
    config_of,
    inside,
    look_at,
    tensors_of,
    whole,
    words,
)
from mistudiod.engine.formats.hints import is_post_normed, module_hook, path_hints
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import TensorFile

CONFIG, WEIGHTS, RUN = "cfg.json", "sae.safetensors", "config.json"
_KEYS, _SKIP = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}, "W_skip"


class Sparsify:
    name = "sparsify"

    def look(self, listing: Listing) -> list[Found]:
        def one(folder: str, within: bool) -> Found | None:
            return _found(listing, folder, within)

        return look_at(beside(listing, CONFIG, WEIGHTS), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device = "cpu") -> Imported:
        config = config_of(listing, found.files[0])
        at = f"{found.files[0]} of {listing.source}"
        transcodes = bool(config.get("transcode"))
        _refuse(config, transcodes, at)
        file = TensorFile(listing.path(found.files[1]), f"{found.files[1]} of {listing.source}")
        if len(file.shape("W_dec")) != 2:
            raise ValueError(
                f"{file.called} holds W_dec of shape {file.shape('W_dec')}, and two dimensions are expected"
            )
        d_in, k = whole(config, "d_in", at), whole(config, "k", at)
        d_sae, d_out = file.shape("W_dec")
        declared = config.get("num_latents") or d_in * whole({"expansion_factor": 32} | config, "expansion_factor", at)
        if declared != d_sae or k > d_sae:
            raise ValueError(f"{at} says {declared} latents and k {k}, and {file.called} holds {d_sae} latents")
        if more := file.stored.keys() - _KEYS - {_SKIP}:
            raise ValueError(f"{file.called} also holds {', '.join(sorted(more))[:200]}, which no such SAE has")
        skip = _SKIP in file
        if skip != bool(config.get("skip_connection")):
            raise ValueError(f"{at} and {file.called} do not agree on whether there is a skip connection (W_skip)")
        sae = SparseAutoencoder(
            W_enc=file.take("encoder.weight", (d_in, d_sae), turned=True, device=device),
            b_enc=file.take("encoder.bias", (d_sae,), device=device),
            W_dec=file.take("W_dec", (d_sae, d_out if transcodes else d_in), device=device),
            b_dec=file.take("b_dec", (d_out,), device=device),
            rule=TopKRule(k),
            W_skip=file.take(_SKIP, (d_out, d_in), device=device) if skip else None,
            centred=not transcodes,
            transcodes=transcodes,
        )
        return _imported(sae, found, config, listing.source)


def _refuse(config: Mapping[str, object], transcodes: bool, at: str) -> None:
    if config.get("signed"):
        raise ValueError(f"{at} is signed: latents are the k of largest magnitude, below 0 too, which none here can be")
    if (activation := config.get("activation", "topk")) != "topk":
        raise ValueError(f"{at} has activation {str(activation)[:40]}, and only topk is understood")
    if config.get("skip_connection") and not transcodes:
        raise ValueError(f"{at} is an SAE with a skip connection, by which it can rebuild its input without a latent")


def _imported(sae: SparseAutoencoder, found: Found, config: Mapping[str, object], source: str) -> Imported:
    module, notes = _module(source, found.path), []
    hook_out = None
    if sae.transcodes:
        hook_out = module_hook(module, "out", is_post_normed(found.model))
        notes.append("SAELens has no transcoder that takes the k largest: this one it cannot load.")
    if found.hook is None:
        notes.append(f"What the module {module or 'it was trained on'} gives is no hook that is known here: name one.")
    if config.get("multi_topk"):
        notes.append("It was trained with a second loss over 4 k latents (multi_topk); k of them fire.")
    hook_out = hook_out if sae.transcodes else found.hook
    named = {"model_name": found.model, "hook_name": found.hook, "hook_name_out": hook_out if sae.transcodes else None}
    sae.metadata = {key: value for key, value in named.items() if value}
    sae.metadata |= {"hf_hook_name": module} if module else {}
    declared: dict[str, object] = {"l0": found.l0}
    return Imported(
        sae, replace(found, width=sae.d_sae), found.hook, hook_out, found.model, None, None, declared, notes
    )


def _found(listing: Listing, folder: str, within: bool) -> Found | None:
    files = (inside(folder, CONFIG), inside(folder, WEIGHTS))
    module = _module(listing.source, folder)
    found = Found("sparsify", folder, files, path_hints(module).layer)
    if not within:
        return replace(found, hook=module_hook(module, "out"))
    config, tensors = config_of(listing, files[0]), tensors_of(listing, files[1])
    if not tensors.keys() >= _KEYS or "k" not in config:
        return None
    k = config.get("k")
    model = _model(listing, folder)
    side = "in" if config.get("transcode") else "out"
    return replace(
        found,
        width=next(iter(tensors["encoder.bias"].shape), None),
        l0=float(k) if isinstance(k, int) else None,
        hook=module_hook(module, side, is_post_normed(model)),
        model=model,
    )


def _module(source: str, folder: str) -> str:
    """The name of the folder, or of the one above it that holds several seeds; ``source`` may be the weights alone."""
    parts = [part for part in PurePosixPath(source, folder).parts if part != WEIGHTS]
    return next((part for part in reversed(parts) if not re.fullmatch(r"seed\d*", part)), "")


def _model(listing: Listing, folder: str) -> str | None:
    """Out of the config of the training, which lies at the root of all its SAEs."""
    for parent in PurePosixPath(folder, "-").parents:
        name = inside("" if str(parent) == "." else str(parent), RUN)
        if name in listing.names():
            return words(config_of(listing, name).get("model"))
    return None
