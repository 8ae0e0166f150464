"""What the first miStudio wrote, repaired: its exports, its checkpoints, and the ``saelens`` folder of its ZIP.

Its exports cannot be taken at their word. They say that b_dec is not subtracted, and it was; a top-k's k lies in
extra_metadata and its b_pre in the checkpoint only; the ZIP says that activations were not normalized, and they were.
Every export says hook_resid_post, 128 tokens and BOS, whatever was trained on; ``residual`` was what the MLP reads.

A checkpoint has encoder.weight (d_sae, d_in) and decoder.weight (d_in, d_sae), or W_enc and W_dec of these shapes, and
activation.log_threshold, behind ``model.``; an export has SAELens' names and shapes.
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
    number,
    tensors_of,
    words,
)
from mistudiod.engine.formats.folds import fold_centre
from mistudiod.engine.formats.hints import path_hints
from mistudiod.engine.rules import JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import TensorFile

CONFIG, EXPORT, CHECKPOINT = "cfg.json", "sae_weights.safetensors", "checkpoint.safetensors"
_POINTS = {"residual": "mlp.hook_in", "mlp": "hook_mlp_out", "attention": "hook_attn_out"}
_FOLDER = re.compile(r"layer_(\d+)_(residual|mlp|attention)(?=$|/)")
_USUAL_NORM = "constant_norm_rescale"


class MiStudioOriginal:
    name = "mistudio_original"

    def look(self, listing: Listing) -> list[Found]:
        files = [name for name in listing.names() if PurePosixPath(name).name in (EXPORT, CHECKPOINT)]
        return look_at(sorted(files), lambda file, within: _found(listing, file, within))

    def read(self, listing: Listing, found: Found, device: str | torch.device = "cpu") -> Imported:
        file = TensorFile(listing.path(found.files[0]), f"{found.files[0]} of {listing.source}")
        config = config_of(listing, found.files[1]) if len(found.files) > 1 else {}
        notes: list[str] = []
        sae = _Reading(file, config, device, notes).sae()
        sae.norm = (
            "none"
            if any(name.endswith("b_enc_center") for name in file.stored)
            else _norm(config, listing, found, notes)
        )
        notes.append("How long its texts were and whether they began with BOS the files do not say.")
        if found.hook and found.hook.endswith("mlp.hook_in"):
            notes.append(
                "Its residual was what the MLP reads (mlp.hook_in), not the hook_resid_post that its config names; "
                "before August 2026 it could be either."
            )
        elif found.hook and not _FOLDER.search(f"{listing.source}/{found.path}"):
            notes.append("Its config names hook_resid_post whatever it was trained on, and no folder says otherwise.")
        sae.metadata = {"hook_name": found.hook} if found.hook else {}
        sae.metadata |= {"model_name": found.model} if found.model else {}
        return Imported(sae, replace(found, width=sae.d_sae), found.hook, found.hook, found.model, notes=notes)


class _Reading:
    """One SAE out of a file in either of the two ways in which weights were named."""

    def __init__(
        self, file: TensorFile, config: Mapping[str, object], device: str | torch.device, notes: list[str]
    ) -> None:
        self.file, self.config, self.device, self.notes = file, config, device, notes
        self.prefix = "model." if any(name.startswith("model.") for name in file.stored) else ""
        self.linear = f"{self.prefix}encoder.weight" in file
        self.exported = not self.linear and not self.has("activation.log_threshold")
        encoder = file.shape(self.prefix + ("encoder.weight" if self.linear else "W_enc"))
        if len(encoder) != 2:
            raise ValueError(f"{file.called} holds an encoder of shape {encoder}, and two dimensions are expected")
        self.d_in, self.d_sae = encoder if self.exported else reversed(encoder)

    def has(self, name: str) -> bool:
        return self.prefix + name in self.file

    def take(self, name: str, *shape: int, turned: bool = False) -> torch.Tensor:
        return self.file.take(self.prefix + name, shape, turned, self.device)

    def sae(self) -> SparseAutoencoder:
        d_in, d_sae = self.d_in, self.d_sae
        architecture = words(self.config.get("architecture")) or self.guessed()
        if architecture == "skip":
            raise ValueError(f"{self.file.called} adds its input to what it rebuilds: without a latent it is perfect")
        encoder, decoder = ("encoder.weight", "decoder.weight") if self.linear else ("W_enc", "W_dec")
        W_enc = self.take(encoder, d_in, d_sae, turned=not self.exported)
        b_enc = self.take("encoder.bias" if self.linear else "b_enc", d_sae)
        if self.has(decoder):
            W_dec = self.take(decoder, d_sae, d_in, turned=not self.exported)
        else:
            W_dec = self.take(encoder, d_sae, d_in)  # tied
            self.notes.append("Its decoder is its encoder (tied weights).")
        b_dec, centred = self.bias(architecture)
        if self.has("b_enc_center"):
            b_enc = fold_centre(W_enc, b_enc, self.take("b_enc_center", d_in))
            self.notes.append("It was called a transcoder and rebuilt its own input; its centre was folded into b_enc.")
        elif centred:
            self.notes.append("It subtracts b_dec from its input, which its config denies.")
        return SparseAutoencoder(W_enc, b_enc, W_dec, b_dec, self.rule(architecture), centred=centred)

    def guessed(self) -> str:
        if self.has("b_pre"):
            return "topk"
        return "jumprelu" if self.has("activation.log_threshold") or self.has("threshold") else "standard"

    def bias(self, architecture: str) -> tuple[torch.Tensor, bool]:
        """b_dec, and whether it is subtracted from the input."""
        if architecture == "transcoder" and not self.has("b_enc_center"):
            raise ValueError(
                f"{self.file.called} was exported without what its encoder subtracts: import its checkpoint"
            )
        if self.has("b_pre"):
            return self.take("b_pre", self.d_in), True
        if self.has("decoder.bias"):  # of its first versions, which subtracted nothing
            b_dec = self.take("decoder.bias", self.d_in)
            return b_dec + self.take("decoder_bias", self.d_in) if self.has("decoder_bias") else b_dec, False
        for name in ("decoder_bias", "b_dec"):
            if self.has(name):
                return self.take(name, self.d_in), True
        raise ValueError(
            f"{self.file.called} was exported without its b_pre, which it subtracts: import its checkpoint"
        )

    def rule(self, architecture: str) -> Rule:
        if self.has("activation.log_threshold"):
            return JumpReLURule(self.take("activation.log_threshold", self.d_sae).exp_())
        if self.has("threshold"):
            return JumpReLURule(self.take("threshold", self.d_sae))
        if architecture != "topk":
            return ReLURule()
        extra = self.config.get("extra_metadata")
        k = number(extra.get("top_k")) if isinstance(extra, dict) else None
        if k is None or k != int(k) or not 0 < k <= self.d_sae:
            raise ValueError(f"{self.file.called} takes the k largest, and no cfg.json beside it or its export says k")
        self.notes.append(f"That k is {k:g} was found in the extra_metadata of its config.")
        return TopKRule(int(k))


def _norm(config: Mapping[str, object], listing: Listing, found: Found, notes: list[str]) -> str:
    said = config.get("normalize_activations")
    if said == "anthropic_rescale":
        notes.append("Its anthropic_rescale scales each token to the same norm: constant_norm_rescale.")
    elif said == "none" and _zipped(listing, found.path):
        notes.append(
            "Its ZIP says that activations were not normalized; they were (constant_norm_rescale), by default."
        )
    elif said is None:
        notes.append("That activations were normalized (constant_norm_rescale) is what it did by default.")
    elif said in ("none", _USUAL_NORM):
        return str(said)
    else:
        raise ValueError(f"{found.files[1]} has normalize_activations {str(said)[:40]!r}, which is not understood")
    return _USUAL_NORM


def _found(listing: Listing, file: str, within: bool) -> Found | None:
    folder, names = folder_of(file), set(listing.names())
    name = inside(folder, CONFIG) if inside(folder, CONFIG) in names else _exported(file, names)
    config = config_of(listing, name) if name and within else {}
    if within and not _is_ours(listing, file, config):
        return None
    at = f"{listing.source}/{folder}"
    named = _FOLDER.search(at)
    layer = int(named[1]) if named else path_hints(at).layer
    hook = f"blocks.{layer}.{_POINTS[named[2]]}" if named else words(config.get("hook_name"))
    extra = config.get("extra_metadata")
    model = words(extra.get("hf_model_name")) if isinstance(extra, dict) else None
    if layer is None and hook:
        layer = path_hints(hook).layer
    width = number(config.get("d_sae"))
    return Found(
        "mistudio_original",
        folder,
        (file, name) if name else (file,),
        layer,
        int(width) if width else None,
        hook=hook,
        model=model or words(config.get("model_name")),
    )


def _is_ours(listing: Listing, file: str, config: Mapping[str, object]) -> bool:
    said = "mistudio_training_id" in config or str(config.get("architecture")).startswith("standard_")
    if PurePosixPath(file).name == EXPORT and not said and not _zipped(listing, folder_of(file)):
        return False
    tensors = tensors_of(listing, file)
    native = any(name.startswith("model.") for name in tensors)
    ours = native or PurePosixPath(file).name == EXPORT
    return ours and not {"model.encoder.weight", "model.W_enc", "encoder.weight", "W_enc"}.isdisjoint(tensors)


def _exported(file: str, names: set[str]) -> str | None:
    """The config of a checkpoint's export: ``checkpoints/<step>/<sae>/`` lies beside ``community_format/<sae>/``."""
    parts = PurePosixPath(file).parts
    name = PurePosixPath(*parts[:-4], "community_format", *parts[-2:-1], CONFIG).as_posix()
    return name if name in names else None


def _zipped(listing: Listing, folder: str) -> bool:
    """Whether the folder is the ``saelens`` of an unpacked ZIP, by what lies above it."""
    name = inside(folder_of(folder), "metadata.json") if folder else ""
    if name not in listing.names():
        return False
    source = config_of(listing, name).get("source")
    return isinstance(source, dict) and source.get("tool") == "miStudio"
