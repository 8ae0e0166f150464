"""EleutherAI's sparsify: ``SparseCoder.forward`` and what ``Trainer.fit`` does around it for its fvu loss, with Adam.

Its Trainer cannot be had without a language model, so the body of its loop stands here, in its order.
"""

from __future__ import annotations

import torch
from peer import Setup
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor


class Trained:
    def __init__(self, setup: Setup, first: Tensor) -> None:
        torch.set_float32_matmul_precision("high")
        torch.manual_seed(setup.seed)
        config = SparseCoderConfig(num_latents=setup.width, k=setup.k)
        self.coder = SparseCoder(setup.d_in, config, "cpu", torch.float32)
        self.coder.b_dec.data = first.mean(0)
        peak = setup.lr or 2e-4 / (setup.width / 2**14) ** 0.5
        self.adam = torch.optim.Adam(self.coder.parameters(), lr=peak)
        falling = setup.steps - setup.warm_up
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adam, lambda at: min(at / max(1, setup.warm_up), (setup.steps - at) / falling)
        )
        self.silent = torch.zeros(setup.width, dtype=torch.long)
        self.fired = torch.zeros(setup.width, dtype=torch.bool)

    def step(self, x: Tensor) -> None:
        coder = self.coder
        outputs = x.detach().clone()
        coder.set_decoder_norm_to_unit_norm()
        variance = (outputs - outputs.mean(0)).pow(2).sum()
        out = coder(x=outputs, y=outputs, total_variance=variance)
        self.fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + out.multi_topk_fvu / 8).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        self.adam.step()
        self.adam.zero_grad()
        self.schedule.step()
        self.silent += len(x)
        self.silent[self.fired] = 0
        self.fired.zero_()

    def latents(self, x: Tensor) -> Tensor:
        values, indices, _ = self.coder.encode(x)
        return torch.zeros(len(x), self.coder.num_latents).scatter_(1, indices, values)

    def decode(self, latents: Tensor) -> Tensor:
        return latents @ self.coder.W_dec + self.coder.b_dec


def make(entry: str, setup: Setup, first: Tensor) -> Trained:
    assert entry == "topk"
    return Trained(setup, first)
