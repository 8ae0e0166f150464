"""A sparse autoencoder in its one canonical form, and the SAELens folder that it is saved as.

pre = (x - b_dec) W_enc + b_enc; the rule makes latents of it; x_hat = latents W_dec + b_dec. A transcoder reads x at
one hook and rebuilds what is at another: it takes x as it is, and may add x W_skip^T. With a norm, x is normalized
before all that, and what is rebuilt is scaled back. The folder loads in SAELens 6 as it lies,
but for a transcoder that takes the k largest, which it has no name for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mistudiod.engine.kernels import block_elements, decode_topk, encode_topk, topk_rows
from mistudiod.engine.norms import normalized, restored
from mistudiod.engine.rules import GatedRule, Rule, TopKRule
from mistudiod.engine.saelens_layout import ARCHITECTURES, architecture_of, read_config, rule_of, shapes_of
from mistudiod.engine.tensor_files import TensorFile, Written, row_norms, times, write_tensors

SAE_LENS_VERSION = "6.54.12"  # whose layout is written; a folder that names none goes through its pre-6 converter
UNIT_NORM_TOLERANCE = 1e-5  # rows of W_dec this near to unit norm are saved untouched


@dataclass
class SparseAutoencoder:
    """W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_out), b_dec (d_out,), float32, on one device.

    ``centred``: b_dec is subtracted from x first. ``transcodes``: what is rebuilt is not x. ``norm``: what is done to x
    before and undone after, one of ``norms.NORMS``; a transcoder has none. ``metadata`` says what the weights belong
    to: model_name, hook_name, hook_name_out, prepend_bos, context_size, exclude_special_tokens and whatever else its
    maker wrote.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    rule: Rule
    W_skip: Tensor | None = None  # (d_out, d_in)
    centred: bool = True
    transcodes: bool = False
    norm: str = "none"
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        return self.W_dec.shape[1]

    @torch.no_grad()
    def encode_active(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The active latents of x (tokens, d_in): values and int64 latents, both (tokens, n), in no particular order.

        n is as many as the token with the most has. A value of 0 is a latent that does not fire.
        """
        b_dec = self.b_dec if self.centred else None
        if isinstance(self.rule, TopKRule):
            return encode_topk(normalized(self.norm, x), self.W_enc, self.b_enc, b_dec, self.rule.k)
        blocks = [_active(block) for block in self.latents(x)]
        most = max((values.shape[1] for values, _ in blocks), default=1)
        values, latents = (torch.cat([_padded(block, most) for block in part]) for part in zip(*blocks, strict=True))
        return values, latents

    def decode_active(self, values: Tensor, latents: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction (tokens, d_out) of what ``encode_active`` gave; with a W_skip or a norm it needs x."""
        return self._finished(decode_topk(values, latents, self.W_dec, self.b_dec), x)

    def encode(self, x: Tensor) -> Tensor:
        """All latents of x (tokens, d_in), most of each row zero: (tokens, d_sae)."""
        return torch.cat(list(self.latents(x)))

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction (tokens, d_out) of latents z (tokens, d_sae); with a W_skip or a norm it needs x."""
        return self._finished(torch.addmm(self.b_dec, z, self.W_dec), x)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Iterator[Tensor]:
        """Latents of x (tokens, d_in), dense, a block of tokens at a time."""
        rows = block_elements(self.d_sae, x.device) // self.d_sae
        for start in range(0, max(len(x), 1), rows):
            block = normalized(self.norm, x[start : start + rows])
            pre = torch.addmm(self.b_enc, block - self.b_dec if self.centred else block, self.W_enc)
            yield self.rule.latents(pre)

    def _finished(self, rebuilt: Tensor, x: Tensor | None) -> Tensor:
        if self.W_skip is None and self.norm == "none":
            return rebuilt
        if x is None:
            needs = "normalizes its input" if self.W_skip is None else "adds a linear map of its input"
            raise ValueError(f"this {'transcoder' if self.transcodes else 'SAE'} {needs}: give x as well")
        if self.W_skip is not None:
            rebuilt = rebuilt.addmm_(x, self.W_skip.t())
        return restored(self.norm, rebuilt, x)

    def save(self, folder: Path, metadata: Mapping[str, object] | None = None, sparsity: Tensor | None = None) -> None:
        """Write the SAELens folder; ``metadata`` is added to the SAE's own, ``sparsity`` is each latent's firing share.

        The rows of W_dec are saved with unit norm and their norm goes into the latents, which leaves every product of
        latent and row as it was. Where that would choose other latents (the k largest, of rows that differ in norm)
        they are saved as they are. Raises ValueError for what the layout has no form for: a gated transcoder.
        """
        norm = self._norms()
        weights = {
            "W_enc": Written(self.W_enc, lambda block, _: block * norm),
            "W_dec": Written(self.W_dec, lambda block, rows: block / norm[rows, None]),
            "b_dec": Written(self.b_dec),
        }
        if not isinstance(self.rule, GatedRule):
            weights["b_enc"] = Written(self.b_enc * norm)
        rule = self.rule.multiplied(norm)
        weights |= {name: Written(getattr(rule, name)) for name in rule.tensors}
        if self.W_skip is not None:
            weights["W_skip"] = Written(self.W_skip)
        config = self._config(metadata or {})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cfg.json").write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
        write_tensors(folder / "sae_weights.safetensors", weights)
        if sparsity is not None:
            share = torch.log10(sparsity.float() + 1e-10)
            write_tensors(folder / "sparsity.safetensors", {"sparsity": Written(share)})

    def _norms(self) -> Tensor:
        """(d_sae,): by what the rows of W_dec are divided when they are saved."""
        norm = row_norms(self.W_dec)
        low, high = norm.aminmax()
        if isinstance(self.rule, TopKRule) and self.rule.k < self.d_sae and high - low > UNIT_NORM_TOLERANCE * high:
            return torch.ones_like(norm)
        return torch.where(((norm - 1).abs() <= UNIT_NORM_TOLERANCE) | (norm == 0), 1.0, norm)

    def _config(self, metadata: Mapping[str, object]) -> dict[str, object]:
        name = architecture_of(type(self.rule), self.transcodes, self.W_skip is not None, self.centred)
        config: dict[str, object] = {"architecture": name, "d_in": self.d_in, "d_sae": self.d_sae}
        if self.transcodes:
            config["d_out"] = self.d_out
        if isinstance(self.rule, TopKRule):
            config |= {"k": self.rule.k, "rescale_acts_by_decoder_norm": False}
        return {
            **config,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": self.centred,
            "normalize_activations": self.norm,
            "reshape_activations": "none",
            "metadata": {**self.metadata, **metadata, "sae_lens_version": SAE_LENS_VERSION},
        }

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
        """Read a SAELens folder; ValueError, one sentence, when it is of a kind not known here, or damaged."""
        at = folder / "cfg.json"
        config = read_config(at)
        shapes = shapes_of(config, str(at))
        path = folder / "sae_weights.safetensors"
        try:
            file = TensorFile(path)
        except FileNotFoundError:
            raise ValueError(f"{folder} is not an SAE: it has no {path.name}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        if file.stored.keys() != shapes.keys():
            held, usual = (", ".join(sorted(names)) for names in (file.stored, shapes))
            raise ValueError(f"{path} holds {held}; a {config['architecture']} SAE has {usual}")
        return cls.of(config, {name: file.take(name, shape, device=device) for name, shape in shapes.items()}, str(at))

    @classmethod
    def of(cls, config: Mapping[str, object], weights: dict[str, Tensor], at: str) -> SparseAutoencoder:
        """Of a checked config, which messages call ``at``, and its weights as ``shapes_of`` has them."""
        rule, transcodes, _ = ARCHITECTURES[str(config["architecture"])]
        if config.get("rescale_acts_by_decoder_norm"):  # then latents are chosen by what they contribute
            norm = row_norms(weights["W_dec"])
            times(weights["W_enc"], norm)
            weights["b_enc"] *= norm
            times(weights["W_dec"], 1 / norm.clamp_min(1e-12)[:, None])
        metadata = config.get("metadata")
        return cls(
            W_enc=weights["W_enc"],
            b_enc=weights["b_gate" if rule is GatedRule else "b_enc"],
            W_dec=weights["W_dec"],
            b_dec=weights["b_dec"],
            rule=rule_of(config, weights, at),
            W_skip=weights.get("W_skip"),
            centred=bool(config.get("apply_b_dec_to_input", True)),
            transcodes=transcodes,
            norm=str(config.get("normalize_activations", "none")),
            metadata=dict(metadata) if isinstance(metadata, dict) else {},
        )


def _active(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Of a dense block, the latents that are not zero, padded to as many as the fullest row has."""
    most = int((latents > 0).sum(1).max()) if len(latents) else 0
    return topk_rows(latents, max(most, 1))


def _padded(part: Tensor, width: int) -> Tensor:
    return F.pad(part, (0, width - part.shape[1]))
