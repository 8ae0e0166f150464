"""What all autoencoders in training have in common: parameters, gradients, dead latents, the way to the saved form.

The loss is the batch's FVU, sum ||y - y_hat||^2 / sum ||y - mean||^2, and what an architecture adds to it, so that
learning rate, clipping and coefficients mean the same on every model. Gradients are written out by hand: most latents
have none on a token. The tests hold them against automatic differentiation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from mistudiod.engine.architectures.step import Batch, Params, Rebuilt, Settings, Shape, StepResult
from mistudiod.engine.kernels import Path, block_elements, encode_topk, remove_along_rows, rows_active
from mistudiod.engine.native import in_large_pages
from mistudiod.engine.rules import Rule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.sparse import sparse_step

AUX_COEFFICIENT = 1 / 32  # weight of AuxK in the loss (Gao et al. 2024, arXiv:2406.04093, appendix A.2)
MOST_TIMES_K = 4  # latents that one token may have, as a multiple of k, where tokens share k n among them
TINY = 1e-12  # keeps a batch without variance from dividing by zero

Self = TypeVar("Self", bound="TrainingSae")


class TrainingSae:
    """Parameters, gradients and the memory of which latents fire. The optimizer belongs to the caller.

    ``params``: W_enc_T (d_sae, d_in), one encoder vector a row (the transpose of the saved W_enc, so that both weight
    gradients are sums over rows); b_enc (d_sae,); W_dec (d_sae, d_out), unit rows; b_dec (d_out,); and what else an
    architecture has. Float32. Update them in place and call ``after_step`` after every update. The same seed and
    batches give the same bits on a CPU.
    """

    name: ClassVar[str]
    centred: ClassVar[bool] = True  # b_dec is subtracted from x
    transcodes: ClassVar[bool] = False
    # Of the gradient. That of FVU has a norm of some 0.1, so nearly every step's is cut to this one: Adam's second
    # moments would remember the large gradients of the first steps for a thousand more otherwise.
    clip_norm: ClassVar[float] = 0.01

    def __init__(self, params: dict[str, Tensor], settings: Settings) -> None:
        self.params, self.settings = params, settings
        self.d_sae, self.d_in = params["W_enc_T"].shape
        self.d_out = params["W_dec"].shape[1]
        if not 1 <= settings.k <= self.d_sae:
            raise ValueError(f"k ({settings.k}) must be between 1 and d_sae ({self.d_sae})")
        self.k_aux = 2 ** round(math.log2(max(2, self.d_in / 2)))
        self.tokens = 0
        self.tokens_since_fired = torch.zeros(self.d_sae, dtype=torch.int64, device=params["W_dec"].device)
        self._grads = {name: torch.zeros_like(param) for name, param in params.items()}
        for tensor in (*params.values(), *self._grads.values()):
            in_large_pages(tensor)
        self._buffers: dict[str, Tensor] = {}
        self._step = sparse_step(params["W_enc_T"], max(MOST_TIMES_K * settings.k, self.k_aux))

    @classmethod
    def init(
        cls: type[Self],
        shape: Shape,
        settings: Settings,
        seed: int,
        mean: Tensor | None = None,
        mean_out: Tensor | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """A new autoencoder: random unit decoder rows, the encoder their transpose, b_dec the mean of the data.

        mean: (d_in,), of the activations as they will come; ``mean_out`` (d_out,), of what a transcoder rebuilds.
        """
        # drawn on the CPU, so that a seed means the same on every device
        params = cls._first_params(shape, torch.Generator().manual_seed(seed), _or_zeros(mean, shape.d_in), mean_out)
        return cls({name: param.to(device) for name, param in params.items()}, settings)

    @classmethod
    def _first_params(
        cls, shape: Shape, generator: torch.Generator, mean: Tensor, mean_out: Tensor | None
    ) -> dict[str, Tensor]:
        W_dec = unit_rows(shape.d_sae, shape.d_in, generator)
        return {"W_enc_T": W_dec.clone(), "b_enc": torch.zeros(shape.d_sae), "W_dec": W_dec, "b_dec": mean}

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """Take from activations x (tokens, d_in) what an architecture begins with, once, before the first step."""

    @torch.no_grad()
    def loss_and_grads(
        self, x: Tensor, y: Tensor | None = None, micro_tokens: int | None = None, done: float = 1.0
    ) -> StepResult:
        """The loss and its gradients on a batch x (tokens, d_in), float32; also notes which latents fired.

        ``y`` (tokens, d_out) is what a transcoder rebuilds. ``done``: share of the training that is over. Takes
        ``micro_tokens`` at a time, all at once when not given: the same sums, in another order. The gradient of W_dec
        has no component along its rows: it would only change their norm.
        """
        x = x.contiguous()
        target = x if y is None else y.contiguous()
        size = micro_tokens or len(x)
        parts = [slice(i, min(i + size, len(x))) for i in range(0, len(x), size)]
        variance = self._variance(target, parts)
        batch = Batch(x, target, parts, variance, self._buffer("residual", target), done)
        self.tokens += len(x)
        self.tokens_since_fired += len(x)  # until a part says otherwise
        rebuilt = self._rebuild(batch)
        aux_loss = self._add_auxk(batch)
        grads = self._grads
        if self.centred:  # x - b_dec enters the encoder too
            grads["b_dec"].addmv_(self.params["W_enc_T"].t(), self._encoder_gradient(), alpha=-1)
        norm, silent = self._finished()
        loss = rebuilt.loss + AUX_COEFFICIENT * aux_loss
        return StepResult(loss, rebuilt.fvu, aux_loss, rebuilt.l0, norm, grads, silent)

    def _rebuild(self, batch: Batch) -> Rebuilt:
        """Write every gradient but AuxK's, ``batch.residual`` and what fired."""
        raise NotImplementedError

    def _finished(self) -> tuple[Tensor, Tensor | None]:
        """Take from the gradient of W_dec what is along its rows; the norm of all gradients, and what is silent."""
        remove_along_rows(self._grads["W_dec"], self.params["W_dec"])
        norms = [torch.linalg.vector_norm(grad) for grad in self._grads.values()]
        return torch.linalg.vector_norm(torch.stack(norms)), None

    @torch.no_grad()
    def values_of(self, features: Tensor) -> Tensor:
        """Values of the latents ``features`` (n,) on the latest batch: (tokens, n)."""
        raise NotImplementedError

    def _encoder_gradient(self) -> Tensor:
        """(d_sae,), the gradient of the encoder's product, summed over tokens."""
        return self._grads["b_enc"]

    @torch.no_grad()
    def after_step(self, rows_are_unit: bool = False) -> None:
        """Give the decoder rows unit norm again, unless they have it; call it after every update of ``params``."""
        if rows_are_unit:
            return
        W_dec = self.params["W_dec"]
        W_dec /= torch.linalg.vector_norm(W_dec, dim=1, keepdim=True).clamp_min_(TINY)

    @property
    def dead(self) -> Tensor:
        """(d_sae,) bool: did not fire on the last ``dead_after_tokens`` tokens."""
        return self.tokens_since_fired >= self.settings.dead_after_tokens

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, the optimizer's own state apart. The tensors are not copies."""
        counters = {"tokens": torch.tensor(self.tokens), "tokens_since_fired": self.tokens_since_fired}
        return {**self.params, **counters}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state_dict``; the next steps are bit-equal to those of the trainer that it came from."""
        mine = self.state_dict()
        if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in mine.items()}:
            raise ValueError(f"the state does not fit a {self.name} SAE of d_in {self.d_in} and d_sae {self.d_sae}")
        for name, value in state.items():
            mine[name].copy_(value)
        self.tokens = int(state["tokens"])

    def to_sae(self, scale: float, metadata: Mapping[str, object], scale_out: float | None = None) -> SparseAutoencoder:
        """The canonical form, for activations as the model has them; ``scale`` is what they were multiplied by here.

        Latents come in the units of what is rebuilt, that is divided by ``scale_out``, a transcoder's own scale.
        """
        params, out = self.params, scale_out or scale
        W_skip = params.get("W_skip")
        return SparseAutoencoder(
            W_enc=(params["W_enc_T"].t() * (scale / out)).contiguous(),
            b_enc=params["b_enc"] / out,
            W_dec=params["W_dec"].clone(),
            b_dec=params["b_dec"] / out,
            rule=self._rule().multiplied(torch.full_like(params["b_enc"], 1 / out)),
            W_skip=None if W_skip is None else W_skip * (scale / out),
            centred=self.centred,
            transcodes=self.transcodes,
            metadata={**metadata, "training_architecture": self.name},
        )

    def _rule(self) -> Rule:
        """The rule for activations as they are here, scaled."""
        raise NotImplementedError

    def _centred(self, x: Tensor) -> Tensor:
        """What the encoder multiplies, in memory that is used again."""
        return torch.sub(x, self.params["b_dec"], out=self._buffer("centred", x)) if self.centred else x

    def _add_auxk(self, batch: Batch) -> Tensor:
        """AuxK: the k_aux strongest dead latents rebuild y - y_hat. Adds its gradients, returns its loss, ().

        ``batch.residual`` is overwritten.
        """
        params, grads = self.params, self._grads
        # the count spares a GPU the wait for an answer while no latent can be dead yet
        dead = self.dead.nonzero().squeeze(1) if self.tokens >= self.settings.dead_after_tokens else ()
        if not len(dead):
            return batch.residual.new_zeros(())
        weights = {name: params[name][dead] for name in ("W_enc_T", "b_enc", "W_dec")}
        dead_grads = {name: torch.empty_like(weight) for name, weight in weights.items()}
        missing = batch.residual.neg_()
        variance, squared = self._variance(missing, batch.parts), missing.new_zeros(())
        for part in batch.parts:
            back = 2 * AUX_COEFFICIENT / variance
            squared += self._rebuild_missing(self._centred(batch.x[part]), missing[part], weights, back, dead_grads)
            for name, gradient in dead_grads.items():
                grads[name].index_add_(0, dead, gradient)
        self._note_written(dead)
        return squared / variance

    def _note_written(self, latents: Tensor) -> None:
        """AuxK has added to the gradients of ``latents``."""

    def _rebuild_missing(self, x: Tensor, missing: Tensor, weights: Params, back: Tensor, grads: Params) -> Tensor:
        """AuxK's squared error with ``weights`` of dead latents, and their gradients; ``back`` is 2 / 32 / variance."""
        W_enc_T, b_enc, W_dec = weights.values()
        k = min(self.k_aux, len(b_enc))
        if self._step is not None:
            return missing.new_tensor(self._step.rebuild(x, missing, weights, k, float(back), grads))
        path = Path(rows_active(*encode_topk(x, W_enc_T.t(), b_enc, None, k, buffer=self._dense(x))), W_dec)
        wrong = torch.sub(path.sums.detach(), missing, out=self._buffer("gradient", missing))
        squared = torch.linalg.vector_norm(wrong).square()
        path.backward(wrong.mul_(back), x, *grads.values(), add=False)
        return squared

    def _variance(self, target: Tensor, parts: list[slice]) -> Tensor:
        """sum ||target - mean||^2 over the batch, ()."""
        if self._step is not None:
            return target.new_tensor(max(self._step.variance(target), TINY))
        mean, total = target.mean(0), target.new_zeros(())
        for part in parts:
            about_mean = torch.sub(target[part], mean, out=self._buffer("gradient", target[part]))
            total += torch.linalg.vector_norm(about_mean).square()
        return total.clamp_min_(TINY)

    def _dense(self, like: Tensor) -> Tensor:
        """Memory for a block of pre-activations, flat."""
        if "dense" not in self._buffers:
            self._buffers["dense"] = like.new_empty(block_elements(self.d_sae, like.device))
        return self._buffers["dense"]

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        """Memory shaped as ``like`` that the next step uses again: new pages are what small steps on a CPU wait for."""
        known = self._buffers.get(name)
        if known is None or len(known) < len(like) or known.shape[1:] != like.shape[1:]:
            self._buffers[name] = in_large_pages(torch.empty_like(like, memory_format=torch.contiguous_format))
        return self._buffers[name][: len(like)]


def unit_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(rows, columns, generator=generator)
    return drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True)


def _or_zeros(mean: Tensor | None, size: int) -> Tensor:
    return torch.zeros(size) if mean is None else mean.detach().to("cpu", torch.float32, copy=True)
