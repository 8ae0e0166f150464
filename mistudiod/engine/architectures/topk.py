"""The TopK autoencoder in training, with AuxK against dead latents (Gao et al. 2024, arXiv:2406.04093).

Each token keeps the k largest pre-activations. The loss is the batch's FVU, sum ||x - x_hat||^2 / sum ||x - mean||^2,
so that learning rate, clipping and AuxK mean the same on every model. Gradients are written out by hand, because only
k of d_sae latents have one on a token; the tests hold them against automatic differentiation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine.kernels import (
    bias_by_latent,
    block_elements,
    by_latent,
    decode_topk,
    encode_topk,
    remove_along_rows,
    sum_by_latent,
)
from mistudiod.engine.sae import SparseAutoencoder

AUX_COEFFICIENT = 1 / 32  # weight of AuxK in the loss, as in the paper
DEAD_AFTER_TOKENS = 1_000_000
TINY = 1e-12  # keeps a batch without variance from dividing by zero


@dataclass(frozen=True)
class StepResult:
    """What one batch says. ``grads`` are the trainer's own buffers, overwritten by the next step."""

    loss: Tensor  # (), fvu + AUX_COEFFICIENT aux_loss: what the gradients are of
    fvu: Tensor  # (), of this batch, about the batch's mean
    aux_loss: Tensor  # (), 0 while no latent is dead
    grads: dict[str, Tensor]  # for every entry of params
    values: Tensor  # (tokens, k), 0 where fewer than k latents fire
    indices: Tensor  # (tokens, k) int64


class TopK:
    """Parameters, gradients and the memory of which latents fire. The optimizer belongs to the caller.

    ``params``: W_enc_T (d_sae, d_in), one encoder vector a row (the transpose of the saved W_enc, so that both weight
    gradients are sums over rows); b_enc (d_sae,); W_dec (d_sae, d_in), unit rows; b_dec (d_in,). Float32. Update them
    in place and call ``after_step`` after every update. The same seed and batches give the same bits on a CPU.
    """

    def __init__(self, params: dict[str, Tensor], k: int, dead_after_tokens: int) -> None:
        self.params = params
        self.k = k
        self.d_sae, self.d_in = params["W_dec"].shape
        self.dead_after_tokens = dead_after_tokens
        self.k_aux = 2 ** round(math.log2(max(2, self.d_in / 2)))
        self.tokens = 0
        self.tokens_since_fired = torch.zeros(self.d_sae, dtype=torch.int64, device=params["W_dec"].device)
        self._grads = {name: torch.zeros_like(param) for name, param in params.items()}
        self._buffers: dict[str, Tensor] = {}

    @classmethod
    def init(
        cls,
        d_in: int,
        d_sae: int,
        k: int,
        seed: int,
        b_dec: Tensor | None = None,
        dead_after_tokens: int = DEAD_AFTER_TOKENS,
        device: str | torch.device = "cpu",
    ) -> TopK:
        """A new autoencoder: random unit decoder rows, the encoder their transpose, ``b_dec`` the mean of the data.

        A latent counts as dead, and AuxK works on it, once it was silent for ``dead_after_tokens`` tokens.
        """
        if not 1 <= k <= d_sae:
            raise ValueError(f"k ({k}) must be between 1 and d_sae ({d_sae})")
        # drawn on the CPU, so that a seed means the same on every device
        W_dec = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed))
        W_dec /= torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
        params = {
            "W_enc_T": W_dec.clone(),
            "b_enc": torch.zeros(d_sae),
            "W_dec": W_dec,
            "b_dec": torch.zeros(d_in) if b_dec is None else b_dec.detach().to("cpu", torch.float32, copy=True),
        }
        return cls({name: param.to(device) for name, param in params.items()}, k, dead_after_tokens)

    @torch.no_grad()
    def loss_and_grads(self, x: Tensor, micro_tokens: int | None = None) -> StepResult:
        """The loss and its gradients on a batch x (tokens, d_in), float32; also notes which latents fired.

        Takes ``micro_tokens`` at a time, all at once when not given: the same sums, in another order. The gradient of
        W_dec has no component along its rows: it would only change their norm.
        """
        params, grads = self.params, self._grads
        parts = [slice(i, i + (micro_tokens or len(x))) for i in range(0, len(x), micro_tokens or len(x))]
        variance = self._variance(x, parts)
        residual = self._buffer("residual", x)
        grads["b_dec"].zero_()
        self.tokens += len(x)
        self.tokens_since_fired += len(x)  # until a part says otherwise
        paths = []
        for part in parts:
            centred = torch.sub(x[part], params["b_dec"], out=self._buffer("centred", x[part]))
            path = self._forward(centred, params["W_enc_T"], params["b_enc"], params["W_dec"], self.k)
            self._note_fired(path)
            rebuilt = path.sums.detach() + params["b_dec"]
            missing = torch.sub(rebuilt, x[part], out=residual[part])
            gradient = torch.mul(missing, 2 / variance, out=self._buffer("gradient", missing))
            path.backward(gradient, centred, grads["W_enc_T"], grads["b_enc"], grads["W_dec"], add=bool(paths))
            grads["b_dec"] += gradient.sum(0)
            paths.append((path.values.detach(), path.indices))
        fvu = torch.linalg.vector_norm(residual).square() / variance
        aux_loss = self._add_auxk(x, residual, parts)
        # x - b_dec enters the encoder too; summed over tokens its gradient is that of b_enc through W_enc
        grads["b_dec"].addmv_(params["W_enc_T"].t(), grads["b_enc"], alpha=-1)
        remove_along_rows(grads["W_dec"], params["W_dec"])
        values, indices = paths[0] if len(paths) == 1 else (torch.cat(found) for found in zip(*paths, strict=True))
        return StepResult(fvu + AUX_COEFFICIENT * aux_loss, fvu, aux_loss, grads, values, indices)

    @torch.no_grad()
    def after_step(self) -> None:
        """Give the decoder rows unit norm again; call it after every update of ``params``."""
        W_dec = self.params["W_dec"]
        W_dec /= torch.linalg.vector_norm(W_dec, dim=1, keepdim=True).clamp_min_(TINY)

    @property
    def dead(self) -> Tensor:
        """(d_sae,) bool: did not fire on the last ``dead_after_tokens`` tokens."""
        return self.tokens_since_fired >= self.dead_after_tokens

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, the optimizer's own state apart. The tensors are not copies."""
        counters = {"tokens": torch.tensor(self.tokens), "tokens_since_fired": self.tokens_since_fired}
        return {**self.params, **counters}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state_dict``; the next steps are bit-equal to those of the trainer that it came from."""
        mine = self.state_dict()
        if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in mine.items()}:
            raise ValueError(f"the state does not fit a TopK autoencoder of d_in {self.d_in} and d_sae {self.d_sae}")
        for name, value in state.items():
            mine[name].copy_(value)
        self.tokens = int(state["tokens"])

    def to_sae(self, scale: float, metadata: dict[str, object]) -> SparseAutoencoder:
        """The canonical form, for activations as the model has them; ``scale`` is what they were multiplied by here.

        Latents come in the model's units too, that is divided by ``scale``; which k are chosen does not change.
        """
        params = self.params
        return SparseAutoencoder(
            W_enc=params["W_enc_T"].t().clone(memory_format=torch.contiguous_format),
            b_enc=params["b_enc"] / scale,
            W_dec=params["W_dec"].clone(),
            b_dec=params["b_dec"] / scale,
            k=self.k,
            metadata=dict(metadata),
        )

    def _forward(self, centred: Tensor, W_enc_T: Tensor, b_enc: Tensor, W_dec: Tensor, k: int) -> _Path:
        if "dense" not in self._buffers:
            self._buffers["dense"] = centred.new_empty(block_elements(self.d_sae, centred.device))
        values, indices = encode_topk(centred, W_enc_T.t(), b_enc, None, k, buffer=self._buffers["dense"])
        with torch.enable_grad():
            return _Path(values.requires_grad_(), indices, decode_topk(values, indices, W_dec))

    def _add_auxk(self, x: Tensor, residual: Tensor, parts: list[slice]) -> Tensor:
        """AuxK: the k_aux strongest dead latents reconstruct x - x_hat. Adds its gradients, returns its loss, ().

        ``residual``, x_hat - x, is overwritten.
        """
        params, grads = self.params, self._grads
        # the count spares a GPU the wait for an answer while no latent can be dead yet
        dead = self.dead.nonzero().squeeze(1) if self.tokens >= self.dead_after_tokens else ()
        if not len(dead):
            return residual.new_zeros(())
        weights = {name: params[name][dead] for name in ("W_enc_T", "b_enc", "W_dec")}
        dead_grads = {name: torch.empty_like(weight) for name, weight in weights.items()}
        missing = residual.neg_()
        variance, squared = self._variance(missing, parts), residual.new_zeros(())
        for number, part in enumerate(parts):
            centred = torch.sub(x[part], params["b_dec"], out=self._buffer("centred", x[part]))
            path = self._forward(centred, *weights.values(), min(self.k_aux, len(dead)))
            wrong = torch.sub(path.sums.detach(), missing[part], out=self._buffer("gradient", missing[part]))
            squared += torch.linalg.vector_norm(wrong).square()
            path.backward(wrong.mul_(2 * AUX_COEFFICIENT / variance), centred, *dead_grads.values(), add=number > 0)
        # a dead latent did not fire on this batch: its gradients so far are zero
        for name, gradient in dead_grads.items():
            grads[name][dead] = gradient
        return squared / variance

    def _variance(self, target: Tensor, parts: list[slice]) -> Tensor:
        """sum ||target - mean||^2 over the batch, ()."""
        mean, total = target.mean(0), target.new_zeros(())
        for part in parts:
            about_mean = torch.sub(target[part], mean, out=self._buffer("gradient", target[part]))
            total += torch.linalg.vector_norm(about_mean).square()
        return total.clamp_min_(TINY)

    def _note_fired(self, path: _Path) -> None:
        silent = torch.where(path.values.detach() > 0, 0, torch.iinfo(torch.int64).max)
        self.tokens_since_fired.scatter_reduce_(0, path.indices.flatten(), silent.flatten(), "amin")

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        """Memory shaped as ``like`` that the next step uses again: new pages are what small steps on a CPU wait for."""
        if name not in self._buffers or len(self._buffers[name]) < len(like):
            self._buffers[name] = torch.empty_like(like)
        return self._buffers[name][: len(like)]


@dataclass(frozen=True)
class _Path:
    """A forward pass through some latents, and the way back."""

    values: Tensor  # (tokens, k)
    indices: Tensor  # (tokens, k)
    sums: Tensor  # (tokens, d_in), the decoded values without b_dec

    def backward(
        self, gradient: Tensor, centred: Tensor, W_enc_T: Tensor, b_enc: Tensor, W_dec: Tensor, add: bool
    ) -> None:
        """Write the weights' gradients into the last three, or add them, given the gradient of ``sums``."""
        (value_grads,) = torch.autograd.grad(self.sums, self.values, gradient)
        value_grads.masked_fill_(self.values <= 0, 0)
        entries = by_latent(self.indices, len(W_dec))
        sum_by_latent(entries, value_grads, centred, W_enc_T, add)
        bias_by_latent(entries, value_grads, b_enc, add)
        sum_by_latent(entries, self.values.detach(), gradient, W_dec, add)
