"""Transcoder (Dunefsky et al. 2024, arXiv:2406.11944): reads x at one hook and rebuilds y at another, an MLP's output.

f keeps the largest entries of x W_enc + b_enc; y_hat = f W_dec + b_dec (+ x W_skip^T, Paulo et al. 2025,
arXiv:2501.18823); loss = FVU of y_hat about y, plus AuxK / 32. x: (tokens, d_in); y: (tokens, d_out). Saved with a
calibrated threshold in both kinds: SAELens has no form for a transcoder that takes the k largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mistudiod.engine.architectures.base import unit_rows
from mistudiod.engine.architectures.batchtopk import BatchTopK
from mistudiod.engine.architectures.step import Batch, Shape
from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.kernels import Active
from mistudiod.engine.sparse import Inputs


class Transcoder(BatchTopK):
    name = "transcoder"
    centred = False
    transcodes = True

    @classmethod
    def _first_params(
        cls, shape: Shape, generator: torch.Generator, mean: Tensor, mean_out: Tensor | None
    ) -> dict[str, Tensor]:
        """Nothing ties input to output: both are random. b_enc makes up for the mean of the input."""
        W_enc_T, W_dec = (unit_rows(shape.d_sae, width, generator) for width in (shape.d_in, shape.d_out))
        b_dec = torch.zeros(shape.d_out) if mean_out is None else mean_out.detach().to("cpu", torch.float32, copy=True)
        params = {"W_enc_T": W_enc_T, "b_enc": -(W_enc_T @ mean), "W_dec": W_dec, "b_dec": b_dec}
        return params | ({"W_skip": torch.zeros(shape.d_out, shape.d_in)} if shape.skip else {})


class TopKTranscoder(Transcoder):
    """The same with k latents on every token while it is trained."""

    name = "topk_transcoder"

    def _select(self, batch: Batch, inputs: Inputs | None) -> Active:
        active = TopK._select(self, batch, inputs)
        self._remember(active.values.view(len(batch.x), -1).amin(1).mean())
        return active
