"""Gemma Scope 2, the SAEs and transcoders of Gemma 3: a folder with config.json and params.safetensors.

w_enc (d_in, d_sae), w_dec (d_sae, d_out), b_enc, b_dec, threshold, and of an affine transcoder affine_skip_connection
(d_in, d_out), whose transpose is our W_skip. JumpReLU; b_dec is not subtracted. Hooks are Hugging Face's modules.
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
    config_of,
    folder_of,
    inside,
    look_at,
    tensors_of,
    words,
)
from mistudiod.engine.formats.hints import module_hook, path_hints
from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import TensorFile
from mistudiod.facts import Stored

CONFIG = "config.json"
_KEYS = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"}
_SKIP, _ARCHITECTURE = "affine_skip_connection", "jump_relu"
_REPO = re.compile(r"gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)")


class GemmaScope2:
    name = "gemma_scope_2"

    def look(self, listing: Listing) -> list[Found]:
        def one(file: str, within: bool) -> Found | None:
            return _found(listing, file, within)

        return look_at(sorted(name for name in listing.names() if name.endswith(".safetensors")), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device = "cpu") -> Imported:
        file = TensorFile(listing.path(found.files[0]), f"{found.files[0]} of {listing.source}")
        if len(file.shape("w_dec")) == 3:
            raise ValueError(
                f"{file.called} is a cross-layer transcoder: it writes to several layers, which none here does"
            )
        if len(file.shape("w_enc")) != 2 or len(file.shape("w_dec")) != 2:
            raise ValueError(
                f"{file.called} holds a w_enc of shape {file.shape('w_enc')}, and two dimensions are expected"
            )
        (d_in, d_sae), d_out = file.shape("w_enc"), file.shape("w_dec")[1]
        config = config_of(listing, found.files[1]) if len(found.files) > 1 else {}
        _refuse(config, file)
        hook, hook_out = _hooks(config, found)
        transcodes = d_out != d_in or hook_out != hook or _SKIP in file
        sae = SparseAutoencoder(
            W_enc=file.take("w_enc", (d_in, d_sae), device=device),
            b_enc=file.take("b_enc", (d_sae,), device=device),
            W_dec=file.take("w_dec", (d_sae, d_out), device=device),
            b_dec=file.take("b_dec", (d_out,), device=device),
            rule=JumpReLURule(file.take("threshold", (d_sae,), device=device)),
            W_skip=file.take(_SKIP, (d_out, d_in), turned=True, device=device) if _SKIP in file else None,
            centred=False,
            transcodes=transcodes,
        )
        named = {"model_name": found.model, "hook_name": hook, "hook_name_out": hook_out if transcodes else None}
        named |= {"hf_hook_name": words(config.get("hf_hook_point_in"))}
        named |= {"hf_hook_name_out": words(config.get("hf_hook_point_out")) if transcodes else None}
        sae.metadata = {key: value for key, value in named.items() if value}
        sae.metadata |= {"prepend_bos": True, "exclude_special_tokens": True}
        declared: dict[str, object] = {} if found.l0 is None else {"l0": found.l0}
        notes = [] if hook else ["The files do not say which hook it reads."]
        return Imported(sae, replace(found, width=d_sae), hook, hook_out, found.model, None, True, declared, notes)


def _refuse(config: Mapping[str, object], file: TensorFile) -> None:
    if (architecture := config.get("architecture", _ARCHITECTURE)) != _ARCHITECTURE:
        raise ValueError(f"{file.called} is {str(architecture)[:60]!r}, and only {_ARCHITECTURE} is understood")
    if bool(config.get("affine_connection", _SKIP in file)) != (_SKIP in file):
        raise ValueError(f"{file.called} and its {CONFIG} do not agree on whether it is affine ({_SKIP})")
    if more := file.stored.keys() - _KEYS - {_SKIP}:
        raise ValueError(f"{file.called} also holds {', '.join(sorted(more))[:200]}, which no Gemma Scope 2 SAE has")


def _hooks(config: Mapping[str, object], found: Found) -> tuple[str | None, str | None]:
    """Where it reads and where it writes; without a config by the folder's name, as Google names them."""
    if "hf_hook_point_in" in config:
        read, written = (words(config.get(f"hf_hook_point_{side}")) for side in ("in", "out"))
        hook = _named(read) if read else None
        return hook, _named(written) if written else hook
    for begin, point, out in (
        ("transcoder", "mlp.hook_in", "hook_mlp_out"),
        ("resid_post", "hook_resid_post", "hook_resid_post"),
        ("mlp_out", "hook_mlp_out", "hook_mlp_out"),
        ("attn_out", "attn.hook_z", "attn.hook_z"),
    ):
        if found.layer is not None and any(part.startswith(begin) for part in PurePosixPath(found.path).parts):
            return f"blocks.{found.layer}.{point}", f"blocks.{found.layer}.{out}"
    return None, None


def _named(point: str) -> str | None:
    """TransformerLens' name of ``model.layers.3.self_attn.o_proj.input``."""
    module, _, side = point.rpartition(".")
    return module_hook(module, {"input": "in", "output": "out"}.get(side, ""), post_normed=True)


def _found(listing: Listing, file: str, within: bool) -> Found | None:
    folder = folder_of(file)
    single = PurePosixPath(file).name == "params.safetensors"
    if not within and not single:
        return None
    width = None
    if within:
        tensors = tensors_of(listing, file)
        if not tensors.keys() >= _KEYS:
            return None
        width = _width(tensors)
    names = [inside(folder, CONFIG)] if inside(folder, CONFIG) in listing.names() else []
    at = f"{listing.source}/{folder if single else file}"
    hints, repo = path_hints(at), _REPO.search(at)
    found = Found(
        "gemma_scope_2", folder if single else file, (file, *names), hints.layer, width or hints.width, hints.l0
    )
    config = config_of(listing, names[0]) if within and names else {}
    model = words(config.get("model_name")) or (f"gemma-3-{repo[1]}-{repo[2]}" if repo else None)
    if model:  # gemma-v3 in some configs; and of the smallest the Hub has no name with pt
        model = model.replace("-v3", "-3").replace("270m-pt", "270m")
    hook = _hooks(config, found)[0]
    layer = path_hints(hook).layer if hook else None
    return replace(found, model=model, hook=hook, layer=hints.layer if layer is None else layer)


def _width(tensors: Mapping[str, Stored]) -> int | None:
    return next(iter(tensors["b_enc"].shape), None)
