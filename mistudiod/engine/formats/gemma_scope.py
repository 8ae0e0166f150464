"""Gemma Scope, the SAEs and transcoders of Gemma 2: ``layer_L/width_W/average_l0_N/params.npz``.

W_enc (d_in, d_sae), W_dec (d_sae, d_out), b_enc, b_dec, threshold; JumpReLU, b_dec not subtracted, nothing normalized.
Trained without BOS, on 1,024 tokens. Which model and which hook the repository's name says
(``gemma-scope-2b-pt-res``), for the file does not.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

import torch
from torch import Tensor

from mistudiod.engine.formats.base import Found, Imported, Listing, look_at
from mistudiod.engine.formats.hints import path_hints
from mistudiod.engine.formats.npz import Npz
from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import times

CONTEXT = 1024
_KEYS, _SCALING = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"}, "scaling_factor"
_REPO = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")
_MODELS = {2304: "gemma-2-2b", 3584: "gemma-2-9b", 4608: "gemma-2-27b"}
_POINTS = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",  # the norm's weight was folded into the MLP: arXiv:2408.05147v2, page 18
}


class GemmaScope:
    name = "gemma_scope"

    def look(self, listing: Listing) -> list[Found]:
        def one(file: str, within: bool) -> Found | None:
            return _found(listing, file, within)

        return look_at(sorted(name for name in listing.names() if name.endswith(".npz")), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device = "cpu") -> Imported:
        file = Npz(listing, found.files[0])
        if len(file.shape("w_enc")) != 2 or len(file.shape("w_dec")) != 2:
            raise ValueError(
                f"{file.called} holds a w_enc of shape {file.shape('w_enc')}, and two dimensions are expected"
            )
        (d_in, d_sae), d_out = file.shape("w_enc"), file.shape("w_dec")[1]
        shapes = {"w_enc": (d_in, d_sae), "w_dec": (d_sae, d_out), "b_dec": (d_out,)}
        shapes |= dict.fromkeys(("b_enc", "threshold"), (d_sae,))
        weights = {name: file.take(name, shape, device) for name, shape in shapes.items()}
        if _SCALING in file and not bool((file.take(_SCALING, file.shape(_SCALING)) == 1).all()):
            raise ValueError(
                f"{file.called} has a {_SCALING} that is not 1, and no Gemma Scope SAE says what it scales"
            )
        kind = _kind(listing, found)
        notes: list[str] = []
        if _embeds(found):
            _scale_embeddings(weights, d_in)
            notes.append(
                "It was trained on embeddings before Gemma scales them; the scale was folded into the weights."
            )
        if not kind:
            notes.append(
                "Neither the file nor its path says which hook it reads; in Gemma Scope that is the repo's name."
            )
        transcodes = kind == "transcoders" or d_out != d_in
        sae = SparseAutoencoder(
            W_enc=weights["w_enc"],
            b_enc=weights["b_enc"],
            W_dec=weights["w_dec"],
            b_dec=weights["b_dec"],
            rule=JumpReLURule(weights["threshold"]),
            centred=False,
            transcodes=transcodes,
        )
        return _imported(sae, replace(found, width=d_sae), kind, notes)


def _imported(sae: SparseAutoencoder, found: Found, kind: str | None, notes: list[str]) -> Imported:
    model = found.model
    if model is None and kind != "att" and (model := _MODELS.get(sae.d_in)):
        notes.append(f"That its model is {model} is taken from its width, {sae.d_in}; there is an -it of it as well.")
    hook = found.hook
    hook_out = f"blocks.{found.layer}.hook_mlp_out" if sae.transcodes and found.layer is not None else hook
    sae.metadata = {"prepend_bos": True, "context_size": CONTEXT, "exclude_special_tokens": True}
    named = {"model_name": model, "hook_name": hook, "hook_name_out": hook_out if sae.transcodes else None}
    sae.metadata |= {key: value for key, value in named.items() if value}
    declared: dict[str, object] = {} if found.l0 is None else {"l0": found.l0}
    return Imported(sae, found, hook, hook_out, model, CONTEXT, True, declared, notes)


def _scale_embeddings(weights: dict[str, Tensor], d_in: int) -> None:
    times(weights["w_enc"], d_in**-0.5)
    times(weights["w_dec"], d_in**0.5)
    weights["b_dec"] *= d_in**0.5


def _found(listing: Listing, file: str, within: bool) -> Found | None:
    width = None
    if within:
        npz = Npz(listing, file)
        if npz.arrays.keys() - {_SCALING} != _KEYS:
            return None
        width = next(iter(npz.shape("b_enc")), None)
    elif PurePosixPath(file).name != "params.npz":
        return None
    at = f"{listing.source}/{file}"
    folder, repo = str(PurePosixPath(file).parent), _REPO.search(at)
    hints = path_hints(str(PurePosixPath(at).parent))
    path = file if PurePosixPath(file).name != "params.npz" else "" if folder == "." else folder
    found = Found("gemma_scope", path, (file,), hints.layer, width or hints.width, hints.l0)
    if repo:
        found = replace(found, model=f"gemma-2-{repo[1]}" + ("-it" if repo[2] == "it" else ""))
    if repo and _embeds(found):
        return replace(found, layer=0, hook="blocks.0.hook_resid_pre")
    if repo and found.layer is not None:
        found = replace(found, hook=f"blocks.{found.layer}.{_POINTS[repo[3]]}")
    return found


def _kind(listing: Listing, found: Found) -> str | None:
    repo = _REPO.search(f"{listing.source}/{found.files[0]}")
    return repo[3] if repo else None


def _embeds(found: Found) -> bool:
    return "embedding" in PurePosixPath(found.files[0]).parts
