"""SAELens folders: cfg.json and sae_weights.safetensors, of version 6 and of the layouts before it.

Before 6 the config is flat, says ``activation_fn`` for a rule and may have ``normalize_activations`` true; weights may
hold ``scaling_factor``, which multiplies latents when they are decoded. A checkpoint of a training may hold
``log_threshold`` or ``topk_threshold``, and files beside it say how activations were scaled or whitened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

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
    tensors_of,
    words,
)
from mistudiod.engine.formats.folds import fold_scale, fold_whitening
from mistudiod.engine.formats.hints import path_hints
from mistudiod.engine.norms import NORMS
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.saelens_layout import check_config, shapes_of
from mistudiod.engine.tensor_files import TensorFile, times

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn_str": "activation_fn"}
_OWN = ("architecture", "d_in", "d_sae", "d_out", "k", "rescale_acts_by_decoder_norm", "apply_b_dec_to_input")
# Of a flat config what says what the weights belong to; the rest is how it was trained.
_METADATA = (
    "model_name hook_name hook_head_index model_class_name model_from_pretrained_kwargs prepend_bos context_size "
    "exclude_special_tokens sequence_separator_token disable_concat_sequences seqpos_slice dataset_path neuronpedia_id "
    "hook_name_out hook_head_index_out hf_hook_name hf_hook_name_out sae_lens_training_version l0"
).split()


@dataclass
class Config:
    """A config in the words of version 6: ``own`` keys, what the weights belong to, and what is to be folded."""

    own: dict[str, object]
    metadata: dict[str, object]
    normalize: object = "none"
    scaled: bool = False  # finetuning_scaling_factor
    notes: list[str] = field(default_factory=list)


class SAELens:
    name = "saelens"

    def look(self, listing: Listing) -> list[Found]:
        def one(folder: str, within: bool) -> Found | None:
            return _found(listing, folder, within)

        return look_at(beside(listing, CONFIG, WEIGHTS), one)

    def read(self, listing: Listing, found: Found, device: str | torch.device = "cpu") -> Imported:
        at = f"{inside(found.path, CONFIG)} of {listing.source}"
        config = understood(config_of(listing, inside(found.path, CONFIG)), at)
        called = f"{inside(found.path, WEIGHTS)} of {listing.source}"
        file = TensorFile(listing.path(inside(found.path, WEIGHTS)), called)
        sae = _assembled(config, file, at, device)
        _unscale(sae, config, listing, found.path, at)
        sae.metadata = config.metadata
        return imported(sae, found, config, _declared(config, listing, found.path))


def understood(config: Mapping[str, object], at: str) -> Config:
    """A config of any version; ValueError for what was trained in a way that has no form here."""
    metadata = config.get("metadata")
    version = config.get("sae_lens_version") or (metadata.get("sae_lens_version") if isinstance(metadata, dict) else "")
    modern = str(version).partition(".")[0].isdecimal() and int(str(version).partition(".")[0]) >= 6
    flat = {_RENAMED.get(key, key): value for key, value in config.items()}
    found = Config(
        {key: flat[key] for key in _OWN if key in flat}, dict(metadata) if isinstance(metadata, dict) else {}
    )
    if not modern:
        found.metadata |= {key: flat[key] for key in _METADATA if flat.get(key) is not None}
        found.metadata.setdefault("prepend_bos", True)  # what SAELens takes it for
        _from_flat(found, flat, at)
        found.notes.append("The config is of a SAELens before version 6 and was translated.")
    found.own.setdefault("architecture", "standard")
    found.normalize, found.scaled = flat.get("normalize_activations"), bool(flat.get("finetuning_scaling_factor"))
    if isinstance(found.normalize, bool):
        found.normalize = "expected_average_only_in" if found.normalize else "none"
    if found.normalize is None:
        found.normalize = "none"
    if found.metadata.get("hook_head_index") is not None:
        raise ValueError(f"{at} reads one head alone (hook_head_index), which is not understood here")
    hook = str(found.metadata.get("hook_name"))
    if flat.get("reshape_activations") == "hook_z" or (not modern and "hook_z" in hook):
        found.notes.append("SAELens puts the heads of hook_z side by side itself; here they already lie so.")
    loading = found.metadata.get("model_from_pretrained_kwargs")
    if isinstance(loading, dict) and loading.get("center_writing_weights"):
        found.notes.append("It was trained on a model with centred writing weights, whose activations have mean 0.")
    return found


def _from_flat(found: Config, flat: Mapping[str, object], at: str) -> None:
    activation, extra = flat.get("activation_fn", "relu"), flat.get("activation_fn_kwargs")
    if activation == "topk":
        k = extra.get("k") if isinstance(extra, dict) else flat.get("k")
        found.own |= {"architecture": "topk", "k": k}
    elif activation not in ("relu", "jumprelu"):
        raise ValueError(f"{at} has activation_fn {json.dumps(activation)[:60]}, and only relu and topk are understood")


def _assembled(config: Config, file: TensorFile, at: str, device: str | torch.device) -> SparseAutoencoder:
    """The SAE, but for what scales its input."""
    own = dict(config.own)
    batch_top_k = own["architecture"] in ("batchtopk", "matryoshka_batchtopk")
    if not batch_top_k and own["architecture"] != "topk":
        own.pop("rescale_acts_by_decoder_norm", None)  # which SAELens knows of none but these
    if batch_top_k:
        own["architecture"] = "jumprelu"
    check_config(own, at)
    if "transcoder" in str(own["architecture"]):
        own["apply_b_dec_to_input"] = False  # b_dec lies where it writes
    shapes = shapes_of(own, at)
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name == "threshold" and batch_top_k:
            weights[name] = torch.full(shape, file.number("topk_threshold"), device=device)
            config.notes.append("The one threshold of a batch-top-k training is that of every latent.")
        elif name == "threshold" and name not in file:
            weights[name] = file.take("log_threshold", shape, device=device).exp_()
        else:
            turned = name in file and shape != file.shape(name) == shape[::-1]
            weights[name] = file.take(name, shape, turned, device)
            config.notes += [f"{name} is stored the other way round; it was turned."] if turned else []
    known = {*shapes, "log_threshold", "topk_threshold", "scaling_factor", "finetuning_scaling_factor"}
    if more := file.stored.keys() - known:
        raise ValueError(
            f"{file.called} also holds {', '.join(sorted(more))[:200]}, which no {own['architecture']} SAE has"
        )
    for name in {"scaling_factor", "finetuning_scaling_factor"} & file.stored.keys():
        _scale_decoded(weights["W_dec"], file.take(name, (shapes["W_enc"][1],), device=device), config)
    return SparseAutoencoder.of(own, weights, at)


def _scale_decoded(W_dec: Tensor, factor: Tensor, config: Config) -> None:
    if torch.allclose(factor, torch.ones_like(factor)):
        return
    if config.scaled:
        times(W_dec, factor[:, None])
        config.notes.append("The scaling_factor of latents when they are decoded was folded into W_dec.")
    else:
        config.notes.append("A scaling_factor lies beside the weights, but the config says that it is not used.")


def _unscale(sae: SparseAutoencoder, config: Config, listing: Listing, folder: str, at: str) -> None:
    """Fold what scales or whitens activations, or keep it as the SAE's norm."""
    kind = config.normalize
    if kind in NORMS and not (sae.transcodes and kind != "none"):
        sae.norm = str(kind)
    elif kind == "expected_average_only_in":
        names = listing.names()
        scaler = config_of(listing, inside(folder, SCALER)) if inside(folder, SCALER) in names else {}
        factor = number(scaler.get("scaling_factor"))
        if factor is None or factor <= 0:
            config.notes.append(
                "Activations were scaled in training by one number that is not in the files and was perhaps never "
                "folded into the weights (normalize_activations expected_average_only_in): mistudio sae certify "
                "measures whether they are right as they are."
            )
            return
        fold_scale(sae, factor)
        config.notes.append(f"Activations were scaled by {factor:g} in training; that was folded into the weights.")
    elif kind == "covariance_whitening":
        name = inside(folder, WHITENING)
        if name not in listing.names() or sae.transcodes:
            raise ValueError(f"{at} was trained on whitened activations, and there is no {WHITENING} to undo it with")
        file, square = TensorFile(listing.path(name), f"{name} of {listing.source}"), (sae.d_in, sae.d_in)
        device = sae.W_enc.device
        mean = file.take("mean", (sae.d_in,), device=device)
        fold_whitening(sae, mean, *(file.take(one, square, device=device) for one in ("matrix", "inverse_matrix")))
        config.notes.append("Activations were whitened in training; that was folded into the weights.")
    else:
        raise ValueError(f"{at} has normalize_activations {json.dumps(kind)[:60]}, which is not understood")


def imported(sae: SparseAutoencoder, found: Found, config: Config, declared: dict[str, object]) -> Imported:
    of = config.metadata
    bos, context = of.get("prepend_bos"), number(of.get("context_size"))
    hook = words(of.get("hook_name")) or found.hook
    return Imported(
        sae=sae,
        found=replace(found, width=sae.d_sae),
        hook=hook,
        hook_out=words(of.get("hook_name_out")) if sae.transcodes else hook,
        model=words(of.get("model_name")),
        context=int(context) if context else None,
        bos=bos if isinstance(bos, bool) else None,
        declared=declared,
        notes=config.notes,
    )


def _declared(config: Config, listing: Listing, folder: str) -> dict[str, object]:
    declared: dict[str, object] = {}
    if (l0 := number(config.metadata.get("l0"))) is not None:
        declared["l0"] = l0
    elif (name := inside(folder, SPARSITY)) in listing.names():
        with suppress(ValueError):  # damaged, but nothing that the SAE needs
            file = TensorFile(listing.path(name))
            shares = torch.pow(10, file.take("sparsity", file.shape("sparsity")).double())  # stored as log10
            declared["l0"] = shares.sum().item()
    return declared


def _found(listing: Listing, folder: str, within: bool) -> Found | None:
    names = set(listing.names())
    files = [inside(folder, CONFIG), inside(folder, WEIGHTS)]
    files += [name for one in (SPARSITY, SCALER, WHITENING) if (name := inside(folder, one)) in names]
    hints = path_hints(f"{listing.source}/{folder}")
    found = Found("saelens", folder, tuple(files), hints.layer, hints.width, hints.l0, hints.hook)
    if not within:
        return found
    config = config_of(listing, files[0])
    if "d_in" not in config or "W_dec" not in tensors_of(listing, files[1]):
        return None
    metadata = config.get("metadata")
    said = {_RENAMED.get(key, key): value for key, value in config.items()}
    said |= metadata if isinstance(metadata, dict) else {}
    hook = words(said.get("hook_name")) or hints.hook
    layer = path_hints(hook).layer if hook else None
    width, l0 = number(said.get("d_sae")), number(said.get("l0"))
    return replace(
        found,
        layer=hints.layer if layer is None else layer,
        width=int(width) if width else hints.width,
        l0=hints.l0 if l0 is None else l0,
        hook=hook,
        model=words(said.get("model_name")),
    )
