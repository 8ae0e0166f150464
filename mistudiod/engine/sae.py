"""A sparse autoencoder in its one canonical form, and the SAELens folder that it is saved as.

pre = (x - b_dec) W_enc + b_enc; the rule makes latents of it; x_hat = latents W_dec + b_dec. A transcoder reads x at
one hook and rebuilds what is at another: it takes x as it is, and may add x W_skip^T. The folder loads in SAELens 6 as
it lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mistudiod.engine.kernels import block_elements, decode_topk, encode_topk, topk_rows
from mistudiod.engine.rules import RULES, GatedRule, Rule, TopKRule

SAE_LENS_VERSION = "6.54.12"  # whose layout is written; a folder that names none goes through its pre-6 converter
UNIT_NORM_TOLERANCE = 1e-5  # rows of W_dec this near to unit norm are saved untouched


@dataclass
class SparseAutoencoder:
    """W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_out), b_dec (d_out,), float32, on one device.

    ``centred``: b_dec is subtracted from x first. ``transcodes``: what is rebuilt is not x. ``metadata`` says what the
    weights belong to: model_name, hook_name, hook_name_out, prepend_bos, context_size, exclude_special_tokens and
    whatever else its maker wrote.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    rule: Rule
    W_skip: Tensor | None = None  # (d_out, d_in)
    centred: bool = True
    transcodes: bool = False
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
            return encode_topk(x, self.W_enc, self.b_enc, b_dec, self.rule.k)
        blocks = [_active(block) for block in self.latents(x)]
        most = max((values.shape[1] for values, _ in blocks), default=1)
        values, latents = (torch.cat([_padded(block, most) for block in part]) for part in zip(*blocks, strict=True))
        return values, latents

    def decode_active(self, values: Tensor, latents: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction (tokens, d_out) of what ``encode_active`` gave; x is needed where there is a W_skip."""
        return self._skipped(decode_topk(values, latents, self.W_dec, self.b_dec), x)

    def encode(self, x: Tensor) -> Tensor:
        """All latents of x (tokens, d_in), most of each row zero: (tokens, d_sae)."""
        return torch.cat(list(self.latents(x)))

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction (tokens, d_out) of latents z (tokens, d_sae); x is needed where there is a W_skip."""
        return self._skipped(torch.addmm(self.b_dec, z, self.W_dec), x)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Iterator[Tensor]:
        """Latents of x (tokens, d_in), dense, a block of tokens at a time."""
        rows = block_elements(self.d_sae, x.device) // self.d_sae
        for start in range(0, max(len(x), 1), rows):
            block = x[start : start + rows]
            pre = torch.addmm(self.b_enc, block - self.b_dec if self.centred else block, self.W_enc)
            yield self.rule.latents(pre)

    def _skipped(self, rebuilt: Tensor, x: Tensor | None) -> Tensor:
        if self.W_skip is None:
            return rebuilt
        if x is None:
            raise ValueError("this transcoder adds a linear map of its input: give x as well")
        return rebuilt.addmm_(x, self.W_skip.t())

    def save(self, folder: Path, metadata: Mapping[str, object] | None = None, sparsity: Tensor | None = None) -> None:
        """Write the SAELens folder; ``metadata`` is added to the SAE's own, ``sparsity`` is each latent's firing share.

        The rows of W_dec are saved with unit norm and their norm goes into the latents, which leaves every product of
        latent and row as it was; which k latents are chosen stays too when the rows have one common norm. Raises
        ValueError for what SAELens has no form for: a transcoder that takes the k largest.
        """
        norm = torch.linalg.vector_norm(self.W_dec, dim=1)  # (d_sae,)
        norm = torch.where(((norm - 1).abs() <= UNIT_NORM_TOLERANCE) | (norm == 0), 1.0, norm)
        rule = self.rule.multiplied(norm)
        weights = {"W_enc": self.W_enc * norm, "W_dec": self.W_dec / norm[:, None], "b_dec": self.b_dec}
        if not isinstance(rule, GatedRule):
            weights["b_enc"] = self.b_enc * norm
        weights |= {name: getattr(rule, name) for name in rule.tensors}
        if self.W_skip is not None:
            weights["W_skip"] = self.W_skip
        config = self._config(metadata or {})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cfg.json").write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
        save_file({name: _plain(weight) for name, weight in weights.items()}, folder / "sae_weights.safetensors")
        if sparsity is not None:
            save_file({"sparsity": torch.log10(_plain(sparsity) + 1e-10)}, folder / "sparsity.safetensors")

    def _config(self, metadata: Mapping[str, object]) -> dict[str, object]:
        config: dict[str, object] = {"architecture": self._architecture(), "d_in": self.d_in, "d_sae": self.d_sae}
        if self.transcodes:
            config["d_out"] = self.d_out
        if isinstance(self.rule, TopKRule):
            config |= {"k": self.rule.k, "rescale_acts_by_decoder_norm": False}
        return {
            **config,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": self.centred,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {**self.metadata, **metadata, "sae_lens_version": SAE_LENS_VERSION},
        }

    def _architecture(self) -> str:
        """SAELens' name: of a transcoder it is that of the rule, of ReLU none, and whether it has a skip."""
        if not self.transcodes:
            return self.rule.name
        named = {"standard": "", "jumprelu": "jumprelu_"}.get(self.rule.name)
        if named is None or self.centred:
            raise ValueError(f"SAELens has no form for a {self.rule.name} transcoder of this kind")
        return f"{named}{'skip_' if self.W_skip is not None else ''}transcoder"

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
        """Read a SAELens folder; ValueError, one sentence, when it is of a kind not known here, or damaged."""
        config = _read_config(folder / "cfg.json")
        rule, transcodes, skips = _ARCHITECTURES[str(config["architecture"])]
        d_in, d_sae = (_size(config, name, folder) for name in ("d_in", "d_sae"))
        d_out = _size(config, "d_out", folder) if transcodes else d_in
        shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,)}
        shapes |= dict.fromkeys((() if rule is GatedRule else ("b_enc",)) + rule.tensors, (d_sae,))
        if skips:
            shapes["W_skip"] = (d_out, d_in)
        weights = _read_weights(folder / "sae_weights.safetensors", shapes, str(config["architecture"]))
        if config.get("rescale_acts_by_decoder_norm"):  # then latents are chosen by what they contribute
            norm = torch.linalg.vector_norm(weights["W_dec"], dim=1)
            weights["W_enc"] *= norm
            weights["b_enc"] *= norm
            weights["W_dec"] /= norm.clamp_min(1e-12)[:, None]
        weights = {name: weight.to(device) for name, weight in weights.items()}
        metadata = config.get("metadata")
        return cls(
            W_enc=weights["W_enc"],
            b_enc=weights["b_gate" if rule is GatedRule else "b_enc"],
            W_dec=weights["W_dec"],
            b_dec=weights["b_dec"],
            rule=_rule(rule, weights, config, d_sae, folder),
            W_skip=weights.get("W_skip"),
            centred=bool(config.get("apply_b_dec_to_input", True)),
            transcodes=transcodes,
            metadata=dict(metadata) if isinstance(metadata, dict) else {},
        )


def _active(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Of a dense block, the latents that are not zero, padded to as many as the fullest row has."""
    most = int((latents > 0).sum(1).max()) if len(latents) else 0
    return topk_rows(latents, max(most, 1))


def _padded(part: Tensor, width: int) -> Tensor:
    return F.pad(part, (0, width - part.shape[1]))


# SAELens' name → the rule, whether it is a transcoder, whether that has a skip.
_ARCHITECTURES: dict[str, tuple[type[Rule], bool, bool]] = {
    **{name: (rule, False, False) for name, rule in RULES.items()},
    "transcoder": (RULES["standard"], True, False),
    "skip_transcoder": (RULES["standard"], True, True),
    "jumprelu_transcoder": (RULES["jumprelu"], True, False),
    "jumprelu_skip_transcoder": (RULES["jumprelu"], True, True),
}
# What the canonical form has no room for: any other value would be ignored, and the activations wrong.
_EXPECTED = {"normalize_activations": "none", "reshape_activations": "none"}


def _rule(rule: type[Rule], weights: Mapping[str, Tensor], config: Mapping[str, object], d_sae: int, at: Path) -> Rule:
    if rule is TopKRule:
        k = _size(config, "k", at)
        if k > d_sae:
            raise ValueError(f"{at / 'cfg.json'} has k {k}, more than its d_sae {d_sae}")
        return TopKRule(k)
    return rule(**{one.name: weights[one.name] for one in fields(rule)})


def _read_config(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is not an SAE: it has no cfg.json") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    if config.get("architecture") not in _ARCHITECTURES:
        named, known = json.dumps(config.get("architecture")), ", ".join(_ARCHITECTURES)
        raise ValueError(f"{path} has architecture {named}, and only {known} are understood")
    for name, expected in _EXPECTED.items():
        found = config.get(name, expected)
        if found != expected:
            raise ValueError(f"{path} has {name} {json.dumps(found)}, and only {json.dumps(expected)} is understood")
    return config


def _size(config: Mapping[str, object], name: str, folder: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{folder / 'cfg.json'} has {name} {json.dumps(value)}, which must be a whole number above 0")
    return value


def _read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], architecture: str) -> dict[str, Tensor]:
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is not an SAE: it has no {path.name}") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if stored.keys() != shapes.keys():
        held, usual = (", ".join(sorted(names)) for names in (stored, shapes))
        raise ValueError(f"{path} holds {held}; a {architecture} SAE has {usual}")
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise ValueError(f"{path} holds {name} of shape {tuple(stored[name].shape)}, and cfg.json says {shape}")
        if not stored[name].is_floating_point() or not stored[name].isfinite().all():
            raise ValueError(f"{path} holds a {name} that is not all finite floating-point numbers")
    return {name: weight.float() for name, weight in stored.items()}


def _plain(tensor: Tensor) -> Tensor:
    """As safetensors wants it: float32, contiguous, on the CPU."""
    return tensor.detach().to("cpu", torch.float32).contiguous()
