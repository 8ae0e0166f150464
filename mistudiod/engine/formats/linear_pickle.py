"""Goodfire's and qresearch's SAEs: one pickle of two linear maps, ReLU between them, with no config at all."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import replace

import torch

from mistudiod.engine.formats.base import Found, Imported, Listing, folder_of, inside, look_at
from mistudiod.engine.formats.dictionary_learning import trainer_of
from mistudiod.engine.formats.hints import number_in
from mistudiod.engine.formats.outcome import outcome
from mistudiod.engine.formats.pickled import SUFFIXES, shapes_in, weights_of
from mistudiod.engine.rules import ReLURule
from mistudiod.engine.sae import SparseAutoencoder

_PAIRS = (("encoder_linear", "decoder_linear"), ("encoder", "decoder"))
_STEM = re.compile(r"([^/]+)-SAE-l(\d+)\.pth?$")
_OWNERS = {"Llama": "meta-llama", "DeepSeek": "deepseek-ai"}


class LinearPickle:
    name = "linear_pickle"

    def look(self, listing: Listing) -> list[Found]:
        names = set(listing.names())

        def one(name: str, within: bool) -> Found | None:
            if not within:
                return _unseen(name)
            folder = folder_of(name)
            if inside(folder, "config.json") in names and trainer_of(listing, folder)[0]:
                return None  # dictionary_learning's AutoEncoderNew has the same tensors
            shapes = shapes_in(listing, name)
            pair = _pair(shapes.keys())
            if not pair or shapes.keys() != {f"{part}.{kind}" for part in pair for kind in ("weight", "bias")}:
                return None
            return replace(_unseen(name), width=next(iter(shapes[f"{pair[0]}.weight"]), None))

        return look_at(sorted(name for name in names if name.endswith(SUFFIXES)), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        tensors = weights_of(listing, found.path).tensors
        encoder, decoder = _pair(tensors.stored.keys()) or _PAIRS[1]
        shape = tensors.shape(f"{encoder}.weight")
        if len(shape) != 2:
            raise ValueError(f"{found.path} holds {encoder}.weight of shape {shape}, and a matrix is expected")
        d_sae, d_in = shape
        sae = SparseAutoencoder(
            W_enc=tensors.take(f"{encoder}.weight", (d_in, d_sae), turned=True, device=device),
            b_enc=tensors.take(f"{encoder}.bias", (d_sae,), device=device),
            W_dec=tensors.take(f"{decoder}.weight", (d_sae, d_in), turned=True, device=device),
            b_dec=tensors.take(f"{decoder}.bias", (d_in,), device=device),
            rule=ReLURule(),
            centred=False,
        )
        guessed = "ReLU, what the block gives (hook_resid_post), and b_dec not subtracted from what is read"
        return outcome(sae, found, notes=[f"It says nothing of itself, and is taken as its makers use it: {guessed}."])


def _pair(names: Container[str]) -> tuple[str, str] | None:
    return next((pair for pair in _PAIRS if all(f"{part}.weight" in names for part in pair)), None)


def _unseen(name: str) -> Found:
    named = _STEM.search(name)
    layer = int(named[2]) if named else number_in(name, r"(?:layer[_-]?|\bl)(\d+)")
    owner = next((owner for start, owner in _OWNERS.items() if named and named[1].startswith(start)), None)
    model = f"{owner}/{named[1]}" if named and owner else None
    hook = f"blocks.{layer}.hook_resid_post" if layer is not None else None
    return Found("linear_pickle", name, (name,), layer=layer, hook=hook, model=model, pickle=True)
