"""A sparse autoencoder in its one canonical form, and the SAELens folder that it is saved as.

``encode`` follows SAELens' ``topk``: pre = (x - b_dec) W_enc + b_enc, the k largest of a token kept, then ReLU. The
folder loads in SAELens 6 as it lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mistudiod.engine.kernels import decode_topk, encode_topk

SAE_LENS_VERSION = "6.54.12"  # whose layout is written; a folder that names none goes through its pre-6 converter
UNIT_NORM_TOLERANCE = 1e-5  # rows of W_dec this near to unit norm are saved untouched


@dataclass
class SparseAutoencoder:
    """W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_in), b_dec (d_in,), float32, on one device.

    ``k`` latents are active on a token. ``metadata`` says what the weights belong to: model_name, hook_name,
    prepend_bos, context_size, exclude_special_tokens and whatever else its maker wrote.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    k: int
    architecture: str = "topk"
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    def encode_topk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The active latents of x (tokens, d_in): values and int64 latents, both (tokens, k), in no particular order.

        A value of 0 is a latent that does not fire.
        """
        return encode_topk(x, self.W_enc, self.b_enc, self.b_dec, self.k)

    def decode_topk(self, values: Tensor, indices: Tensor) -> Tensor:
        """The reconstruction (tokens, d_in) of what ``encode_topk`` gave."""
        return decode_topk(values, indices, self.W_dec, self.b_dec)

    def encode(self, x: Tensor) -> Tensor:
        """All latents of x (tokens, d_in), at most k of each row not zero: (tokens, d_sae)."""
        values, indices = self.encode_topk(x)
        return x.new_zeros(len(x), self.d_sae).scatter_(1, indices, values)

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction (tokens, d_in) of latents z (tokens, d_sae), sparse or not."""
        return torch.addmm(self.b_dec, z, self.W_dec)

    def save(self, folder: Path, metadata: Mapping[str, object] | None = None, sparsity: Tensor | None = None) -> None:
        """Write the SAELens folder; ``metadata`` is added to the SAE's own, ``sparsity`` is each latent's firing share.

        The rows of W_dec are saved with unit norm and their norm goes into the latents, which leaves every product of
        latent and row as it was; which k latents are chosen stays too when the rows have one common norm.
        """
        norm = torch.linalg.vector_norm(self.W_dec, dim=1)  # (d_sae,)
        norm = torch.where(((norm - 1).abs() <= UNIT_NORM_TOLERANCE) | (norm == 0), 1.0, norm)
        weights = {
            "W_enc": self.W_enc * norm,
            "b_enc": self.b_enc * norm,
            "W_dec": self.W_dec / norm[:, None],
            "b_dec": self.b_dec,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cfg.json").write_text(json.dumps(self._config(metadata or {}), indent=2, allow_nan=False) + "\n")
        save_file({name: _plain(weight) for name, weight in weights.items()}, folder / "sae_weights.safetensors")
        if sparsity is not None:
            save_file({"sparsity": torch.log10(_plain(sparsity) + 1e-10)}, folder / "sparsity.safetensors")

    def _config(self, metadata: Mapping[str, object]) -> dict[str, object]:
        return {
            "architecture": self.architecture,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "k": self.k,
            "rescale_acts_by_decoder_norm": False,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {**self.metadata, **metadata, "sae_lens_version": SAE_LENS_VERSION},
        }

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
        """Read a SAELens folder of a ``topk`` SAE; ValueError, one sentence, when it is anything else or damaged."""
        config = _read_config(folder / "cfg.json")
        d_in, d_sae, k = (_size(config, name, folder) for name in ("d_in", "d_sae", "k"))
        if k > d_sae:
            raise ValueError(f"{folder / 'cfg.json'} has k {k}, more than its d_sae {d_sae}")
        shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        weights = _read_weights(folder / "sae_weights.safetensors", shapes)
        if config.get("rescale_acts_by_decoder_norm"):  # then latents are chosen by what they contribute
            norm = torch.linalg.vector_norm(weights["W_dec"], dim=1)
            weights["W_enc"] *= norm
            weights["b_enc"] *= norm
            weights["W_dec"] /= norm.clamp_min(1e-12)[:, None]
        metadata = config.get("metadata")
        W_enc, b_enc, W_dec, b_dec = (weights[name].to(device) for name in shapes)
        return cls(W_enc, b_enc, W_dec, b_dec, k, metadata=dict(metadata) if isinstance(metadata, dict) else {})


# What the canonical form has no room for: any other value would be ignored, and the activations wrong.
_EXPECTED = {
    "architecture": "topk",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
}


def _read_config(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is not an SAE: it has no cfg.json") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    for name, expected in _EXPECTED.items():
        found = config.get(name, None if name == "architecture" else expected)
        if found != expected:
            raise ValueError(f"{path} has {name} {json.dumps(found)}, and only {json.dumps(expected)} is understood")
    return config


def _size(config: Mapping[str, object], name: str, folder: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{folder / 'cfg.json'} has {name} {json.dumps(value)}, which must be a whole number above 0")
    return value


def _read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is not an SAE: it has no {path.name}") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if stored.keys() != shapes.keys():
        raise ValueError(f"{path} holds {', '.join(sorted(stored))}; a topk SAE has {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise ValueError(f"{path} holds {name} of shape {tuple(stored[name].shape)}, and cfg.json says {shape}")
        if not stored[name].is_floating_point() or not stored[name].isfinite().all():
            raise ValueError(f"{path} holds a {name} that is not all finite floating-point numbers")
    return {name: weight.float() for name, weight in stored.items()}


def _plain(tensor: Tensor) -> Tensor:
    """As safetensors wants it: float32, contiguous, on the CPU."""
    return tensor.detach().to("cpu", torch.float32).contiguous()
