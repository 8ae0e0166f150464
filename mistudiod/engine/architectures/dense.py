"""What autoencoders have in common that may activate any number of latents: dense products, a block at a time.

The (tokens, d_sae) matrices exist for one block only. An architecture says what its latents are and how a gradient goes
back through them; the five products around that are here.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from mistudiod.engine.architectures.base import TrainingSae
from mistudiod.engine.architectures.step import Batch, Params, Rebuilt, Settings
from mistudiod.engine.kernels import block_elements
from mistudiod.engine.native import in_large_pages


class DenseSae(TrainingSae):
    clip_norm = 1.0  # the gradient of what makes it sparse may be large, and would take the rest down with it

    def __init__(self, params: Params, settings: Settings) -> None:
        super().__init__(params, settings)
        self._blocks: dict[str, Tensor] = {}
        self._latest = torch.empty(0, self.d_in, device=params["W_dec"].device)

    def _rebuild(self, batch: Batch) -> Rebuilt:
        self._latest = batch.x
        for grad in self._grads.values():
            grad.zero_()
        squared, active, extra = (batch.x.new_zeros(()) for _ in range(3))
        rows = max(1, block_elements(self.d_sae, batch.x.device) // self.d_sae)
        for part in batch.parts:
            for start in range(part.start, part.stop, rows):
                block = slice(start, min(start + rows, part.stop))
                lost, fired, more = self._rebuild_block(batch, block)
                squared, active, extra = squared + lost, active + fired.sum(), extra + more
                self.tokens_since_fired.masked_fill_(fired > 0, 0)
        l0 = active / len(batch.x)
        fvu = squared / batch.variance
        return Rebuilt(fvu + extra + self._add_after(batch, l0), fvu, l0)

    def _rebuild_block(self, batch: Batch, block: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The block's squared error (), how often each latent fired (d_sae,), and what else it adds to the loss ()."""
        raise NotImplementedError

    def _add_after(self, batch: Batch, l0: Tensor) -> Tensor:
        """What can be added to the loss and the gradients only when the whole batch is known, ()."""
        return l0.new_zeros(())

    @torch.no_grad()
    def values_of(self, features: Tensor) -> Tensor:
        params, rule = self.params, self._rule()
        centred = self._latest - params["b_dec"]
        pre = torch.addmm(params["b_enc"][features], centred, params["W_enc_T"][features].t())
        of_features = {field.name: getattr(rule, field.name)[features] for field in fields(rule)}
        return replace(rule, **of_features).latents(pre)

    def _product(self, centred: Tensor) -> Tensor:
        """The encoder's product (block, d_sae) without a bias, in memory that is used again."""
        return torch.mm(centred, self.params["W_enc_T"].t(), out=self._block("product", centred))

    def _block(self, name: str, like: Tensor) -> Tensor:
        """Memory (block, d_sae) for as many tokens as ``like`` has, used again."""
        size = len(like) * self.d_sae
        if name not in self._blocks or self._blocks[name].numel() < size:
            self._blocks[name] = in_large_pages(like.new_empty(size))
        return self._blocks[name][:size].view(len(like), self.d_sae)

    def _missing(self, batch: Batch, block: slice, latents: Tensor) -> Tensor:
        """y_hat - y of the block."""
        rebuilt = torch.addmm(self.params["b_dec"], latents, self.params["W_dec"])
        return torch.sub(rebuilt, batch.y[block], out=batch.residual[block])

    def _back_through_decoder(self, latents: Tensor, gradient: Tensor) -> Tensor:
        """Add the decoder's gradients, given that of y_hat; return that of the latents, (block, d_sae)."""
        self._grads["W_dec"].addmm_(latents.t(), gradient)
        self._grads["b_dec"] += gradient.sum(0)
        return torch.mm(gradient, self.params["W_dec"].t(), out=self._block("back", latents))

    def _back_through_encoder(self, gradient: Tensor, centred: Tensor) -> None:
        """Add the encoder's gradients but b_enc's, given that of the product."""
        self._grads["W_enc_T"].addmm_(gradient.t(), centred)

    def _fired(self) -> Tensor:
        """Zeros (d_sae,) int32, to count in."""
        return torch.zeros(self.d_sae, dtype=torch.int32, device=self.params["W_dec"].device)

    def _spread(self, batch: Batch) -> Tensor:
        """Root of the variance of a token, (): activations are as large, so a loss divided by it has no unit."""
        return (batch.variance / len(batch.x)).sqrt()
