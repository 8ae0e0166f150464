"""Qwen Scope: a pickle for each layer, ``layer9.sae.pt``, of the k largest; k stands in the name of the repo alone."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from mistudiod.engine.formats.base import Found, Imported, Listing, look_at
from mistudiod.engine.formats.hints import number_in
from mistudiod.engine.formats.outcome import outcome
from mistudiod.engine.formats.pickled import SUFFIXES, shapes_in, weights_of
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder

_REPO = re.compile(r"SAE-Res-(.+)-W\d+K-L0_(\d+)")


class QwenScope:
    name = "qwen_scope"

    def look(self, listing: Listing) -> list[Found]:
        pickles = sorted(name for name in listing.names() if name.endswith(SUFFIXES))

        def one(name: str, within: bool) -> Found | None:
            if not within:
                return _unseen(listing, name)
            shapes = shapes_in(listing, name)
            encoder, decoder = shapes.get("W_enc", ()), shapes.get("W_dec", ())
            # SAELens' names, and the other way round: its own encoders are wider than high
            if shapes.keys() != {"W_enc", "W_dec", "b_enc", "b_dec"} or len(encoder) != 2 or decoder != encoder[::-1]:
                return None
            return replace(_unseen(listing, name), width=encoder[0]) if encoder[0] > encoder[1] else None

        return look_at(pickles, one)

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        weights = weights_of(listing, found.path)
        tensors = weights.tensors
        shape = tensors.shape("W_enc")
        if len(shape) != 2:
            raise ValueError(f"{found.path} holds W_enc of shape {shape}, and a matrix is expected")
        d_sae, d_in = shape
        if found.l0 is None:
            raise ValueError(
                f"how many latents of {found.path} may fire stands only in its repo's name, and {listing.source} is "
                "none: rename the folder to the repo's, which ends in -L0_50 or so"
            )
        if found.l0 > d_sae:
            raise ValueError(f"{listing.source} says k {found.l0:.0f}, more than its {d_sae} latents")
        sae = SparseAutoencoder(
            W_enc=tensors.take("W_enc", (d_in, d_sae), turned=True, device=device),
            b_enc=tensors.take("b_enc", (d_sae,), device=device),
            W_dec=tensors.take("W_dec", (d_sae, d_in), turned=True, device=device),
            b_dec=tensors.take("b_dec", (d_in,), device=device),
            rule=TopKRule(int(found.l0)),
            centred=False,
        )
        return outcome(sae, found, notes=[f"k {found.l0:.0f} is taken from the name of its repo."])


def _unseen(listing: Listing, name: str) -> Found:
    layer = number_in(name, r"layer[_.]?(\d+)")
    named = _REPO.search(f"{listing.source}/{name}")
    hook = f"blocks.{layer}.hook_resid_post" if layer is not None else None
    model, k = (f"Qwen/{named[1]}", float(named[2])) if named else (None, None)
    return Found("qwen_scope", name, (name,), layer=layer, l0=k, hook=hook, model=model, pickle=True)
