"""mwhanna's Qwen3 transcoders: ``layer_9.safetensors`` with both matrices (d_sae, d_model), ``config.yaml`` beside.

Cross-layer transcoders lie in files that are called much the same, and are refused: one latent writes at many layers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

import torch

from mistudiod.engine.formats.base import Found, Imported, Listing, folder_of, inside, look_at, tensors_of
from mistudiod.engine.formats.hints import number_in
from mistudiod.engine.formats.outcome import outcome
from mistudiod.engine.rules import ReLURule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import TensorFile

_TENSORS = {"W_enc", "W_dec", "b_enc", "b_dec"}
_FILE, _CROSS = re.compile(r"(?:^|/)layer_\d+\.safetensors$"), re.compile(r"(?:^|/)W_dec_(\d+)\.safetensors$")
_REPO = re.compile(r"qwen3-([\d.]+b)-transcoders", re.IGNORECASE)
_INTO, _OUT_OF = "mlp.hook_in", "hook_mlp_out"


class MwhannaTranscoders:
    name = "mwhanna_transcoders"

    def look(self, listing: Listing) -> list[Found]:
        names = list(listing.names())
        if cross := next((name for name in names if _CROSS.search(name)), None):
            _refuse_cross_layer(listing, cross)
        said: dict[str, dict[str, str]] = {}

        def one(name: str, within: bool) -> Found | None:
            if not within:
                return _unseen(listing, name, said)
            stored = tensors_of(listing, name)
            if stored.keys() != _TENSORS or stored["W_enc"].shape != stored["W_dec"].shape:
                return None
            return replace(_unseen(listing, name, said), width=stored["b_enc"].items)

        return look_at(sorted(filter(_FILE.search, names)), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        file = TensorFile(listing.path(found.path), found.path)
        d_sae, d_in = prod(file.shape("b_enc")), prod(file.shape("b_dec"))
        sae = SparseAutoencoder(
            W_enc=file.take("W_enc", (d_in, d_sae), turned=True, device=device),
            b_enc=file.take("b_enc", (d_sae,), device=device),
            W_dec=file.take("W_dec", (d_sae, d_in), device=device),
            b_dec=file.take("b_dec", (d_in,), device=device),
            rule=ReLURule(),
            centred=False,
            transcodes=True,
        )
        out = _said(listing, found.path).get("feature_output_hook", _OUT_OF)
        return outcome(sae, found, hook_out=f"blocks.{found.layer}.{out}")


def _unseen(listing: Listing, name: str, said: dict[str, dict[str, str]]) -> Found:
    folder = folder_of(name)
    if folder not in said:
        said[folder] = _said(listing, name)
    layer, config = number_in(name, r"layer_(\d+)"), said[folder]
    named = _REPO.search(f"{listing.source}/{name}")
    model = config.get("model_name") or (f"Qwen/Qwen3-{named[1].upper()}" if named else None)
    hook = f"blocks.{layer}.{config.get('feature_input_hook', _INTO)}"
    return Found("mwhanna_transcoders", name, (name,), layer=layer, hook=hook, model=model)


def _said(listing: Listing, name: str) -> dict[str, str]:
    """The lines ``key: text`` of config.yaml, which are all that is needed of it."""
    config = inside(folder_of(name), "config.yaml")
    if config not in listing.names():
        return {}
    return dict(re.findall(r"""^(\w+):[ \t]+["']?([^\s"'#]+)["']?[ \t]*$""", listing.text(config), re.MULTILINE))


def _refuse_cross_layer(listing: Listing, name: str) -> None:
    if any(len(stored.shape) == 3 for stored in tensors_of(listing, name).values()):
        raise ValueError(
            f"{listing.source} is a cross-layer transcoder: each latent writes at many layers, which has no form here"
        )
