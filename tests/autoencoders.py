"""Autoencoders to train in tests, data for them, and their formulas, dense, for automatic differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mistudiod.engine.architectures import ARCHITECTURES, TrainingSae
from mistudiod.engine.architectures.batchtopk import MOST_TIMES_K
from mistudiod.engine.architectures.jumprelu import AIM, STEEPNESS, WINDOW
from mistudiod.engine.architectures.step import Settings, Shape

NEVER = 10**9  # tokens after which a latent is dead
Params = dict[str, Tensor]


def sparse_data(tokens: int, d_in: int, seed: int, atoms: int = 40, active: int = 3) -> Tensor:
    """Activations that are sums of a few of some fixed directions, away from the origin."""
    dictionary = normalize(torch.randn(atoms, d_in, generator=torch.Generator().manual_seed(99)))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, atoms, generator=generator).topk(active, dim=1).indices
    strengths = 1 + torch.rand(tokens, active, generator=generator)
    return (dictionary[chosen] * strengths[:, :, None]).sum(1) + 0.5


def rebuilt_from(x: Tensor, d_out: int) -> Tensor:
    """What a transcoder is to rebuild from x: some function of it."""
    mix = torch.randn(x.shape[1], d_out, generator=torch.Generator().manual_seed(98))
    return (x @ mix / x.shape[1] ** 0.5).relu() + 0.2


def new(
    name: str, d_in: int = 16, d_sae: int = 80, k: int = 3, seed: int = 0, dead_after_tokens: int = NEVER, **given: Any
) -> TrainingSae:
    """An autoencoder at its beginning; d_out is another for transcoders."""
    kind = ARCHITECTURES[name]
    d_out = given.pop("d_out", d_in + 3 if kind.transcodes else d_in)
    shape = Shape(d_in, d_sae, d_out, given.pop("skip", False))
    l1 = given.pop("l1", 0.05)
    x = sparse_data(512, d_in, 7)
    mean_out = rebuilt_from(x, d_out).mean(0) if kind.transcodes else None
    sae = kind.init(shape, Settings(k, dead_after_tokens, l1=l1, **given), seed, x.mean(0), mean_out)
    sae.prepare(x)
    return sae


def perturbed(name: str, seed: int = 0, **given: Any) -> TrainingSae:
    """One somewhere in the middle of training: nothing zero, encoder and decoder not tied."""
    sae = new(name, seed=seed, **given)
    generator = torch.Generator().manual_seed(seed + 1)
    for param in sae.params.values():
        param += 0.05 * torch.randn(param.shape, generator=generator)
    sae.after_step()
    return sae


def batch(sae: TrainingSae, tokens: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """x, and what a transcoder rebuilds."""
    x = sparse_data(tokens, sae.d_in, seed)
    return x, rebuilt_from(x, sae.d_out) if sae.transcodes else None


def train(sae: TrainingSae, adam: torch.optim.Adam, steps: range, tokens: int = 64) -> list[float]:
    losses = []
    for step in steps:
        result = sae.loss_and_grads(*batch(sae, tokens, 1000 + step))
        for name, param in sae.params.items():
            param.grad = result.grads[name]
        adam.step()
        sae.after_step()
        losses.append(result.loss.item())
    return losses


def adam_of(sae: TrainingSae, lr: float = 3e-3) -> torch.optim.Adam:
    return torch.optim.Adam(list(sae.params.values()), lr=lr, fused=True)


# -- the formulas ----------------------------------------------------------------------------------------------------


def reference(
    sae: TrainingSae, x: Tensor, y: Tensor | None, dead: Tensor | None = None, done: float = 1.0
) -> tuple[Tensor, Params]:
    """Loss and gradients in float64 by automatic differentiation.

    Decoder rows are divided by their norm inside the loss: its gradient is then the projected one.
    """
    params = {name: param.double().requires_grad_() for name, param in sae.params.items()}
    x = x.double()
    y = x if y is None else y.double()
    W_dec = normalize(params["W_dec"])
    a = (x - params["b_dec"] if sae.centred else x) @ params["W_enc_T"].t()
    pre = a + params["b_enc"]
    skipped = x @ params["W_skip"].t() if "W_skip" in params else 0
    total = (y - y.mean(0)).square().sum()
    y_hat, loss = _loss(sae, params, a, y - skipped, total, W_dec, done)
    if dead is not None and dead.any():
        missing = (y - skipped - y_hat).detach()
        z = pre.masked_fill(~dead, -torch.inf)
        wrong = _kept(z, min(sae.k_aux, int(dead.sum()))) @ W_dec - missing
        loss = loss + wrong.square().sum() / (missing - missing.mean(0)).square().sum() / 32
    loss.backward()
    return loss.detach(), {name: param.grad for name, param in params.items() if param.grad is not None}


def _loss(
    sae: TrainingSae, params: Params, a: Tensor, y: Tensor, total: Tensor, W_dec: Tensor, done: float
) -> tuple[Tensor, Tensor]:
    """y_hat and the loss without AuxK; y without what a skip adds; ``total`` is the variance that it is divided by."""
    pre, k, n = a + params["b_enc"], sae.settings.k, len(a)

    def fvu(f: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return (f @ W + b - y).square().sum() / total

    b_dec = params["b_dec"]
    extra: Any = 0
    if sae.name in ("topk", "topk_transcoder"):
        f = _kept(pre, k)
    elif sae.name in ("batchtopk", "matryoshka", "transcoder"):
        most = _kept(pre, min(MOST_TIMES_K * k, pre.shape[1]))
        f = _kept(most.view(1, -1), k * n).view(most.shape)
    elif sae.name == "standard":
        f = pre.relu()
        extra = sae.settings.l1 * min(1, done / 0.05) * f.sum() / (n * (total / n).sqrt())
    elif sae.name == "gated":
        gate = pre.relu()
        f = (a * params["r_mag"].exp() + params["b_mag"]).relu() * (pre > 0)
        extra = fvu(gate, W_dec.detach(), b_dec.detach())
        extra = extra + sae.settings.l1 * min(1, done / 0.05) * gate.sum() / (n * (total / n).sqrt())
    else:
        f, fires = _Jump.apply(pre, params["threshold"], sae.settings.tanh is not None)
        if sae.settings.tanh is None:
            extra = AIM * (fires.sum() / n / k - 1).square()
        else:
            extra = sae.settings.tanh * done * torch.tanh(STEEPNESS * f).sum() / n
    if sae.name == "matryoshka":
        ends = sae._levels()  # type: ignore[attr-defined]
        loss = sum(fvu(f[:, :m], W_dec[:m], b_dec) for m in ends) / len(ends)
    else:
        loss = fvu(f, W_dec, b_dec)
    return f @ W_dec + b_dec, loss + extra


def _kept(z: Tensor, k: int) -> Tensor:
    best = z.topk(k, dim=1)
    return torch.zeros_like(z).scatter(1, best.indices, best.values.relu())


class _Jump(torch.autograd.Function):
    """f and [z > threshold], with the gradients of the straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, through_z: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(z, threshold)
        ctx.through_z = through_z
        fires = (z > threshold).to(z)
        return z * fires, fires

    @staticmethod
    def backward(ctx: Any, f_grad: Tensor, fires_grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        z, threshold = ctx.saved_tensors
        window = ((z - threshold).abs() < WINDOW / 2).to(z) / WINDOW
        to_z = f_grad * ((z > threshold).to(z) + (window * threshold if ctx.through_z else 0))
        return to_z, -(f_grad * threshold * window + fires_grad * window).sum(0), None
