"""What a language model takes while its activations are read, from its facts. Pure arithmetic; bytes throughout.

Only the embeddings and the blocks up to the deepest hook are built and read, and no head, unless the whole model is
kept (``engine.lm``). The numbers of a forward pass are those of transformers' modules as they are written: how many
tensors are alive at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mistudiod.facts import ModelFacts, find_hook, weight_bytes

Precision = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
COMPUTE_BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 2, "nf4": 2}  # of an activation
OF_DTYPE: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_MLP_TENSORS = {"gpt2": 4, "gpt_neox": 2}  # d_mlp wide and alive at once: GPT-2's gelu is written out
_GATED_MLP_TENSORS = 3
_STREAM_TENSORS = 12  # d_model wide: the residual stream, norms, q, k, v and their rotations, what attention gives
_UPCAST_TENSORS = 3  # d_model wide and float32, in a model that computes in 16 bits: norms
_INT8_TENSORS = 5  # d_mlp wide and of 32 bits: products of int8 and what they are turned into (measured)


@dataclass(frozen=True)
class Reading:
    """A model that is read at some hooks in one precision."""

    facts: ModelFacts
    hooks: tuple[str, ...]
    precision: Precision
    whole: bool = False  # all blocks and the head are kept, for what comes out in the end

    @property
    def layers(self) -> int:
        """Blocks that are built; a block's ``hook_resid_pre`` is the output of the block before it."""
        return self.facts.n_layers if self.whole else max(map(self._needed, self.hooks))

    def _needed(self, hook: str) -> int:
        layer, point = find_hook(hook, self.facts.n_layers)
        return max(layer, 1) if point == "hook_resid_pre" else layer + 1

    @property
    def stored(self) -> str:
        """The precision that the weight files are in."""
        return self.facts.quantized or OF_DTYPE.get(self.facts.dtype, "fp32")

    def weights(self) -> int:
        return weight_bytes(self.facts, self.precision, None if self.whole else self.layers)

    def converted(self) -> int:
        """The largest tensor as it is stored, which is there beside what becomes of it; 0 when it is used as it is."""
        return 0 if self.precision == self.stored else self.facts.parts["embedding"].weight_bytes[self.stored]

    def forward(self, tokens: int) -> int:
        """The most that is alive at once in a forward pass over ``tokens`` tokens, the captured values among it."""
        return sum(self._tensors(tokens))

    def small(self, tokens: int, limit: int) -> int:
        """Of a forward pass, what is in tensors smaller than ``limit``."""
        number = COMPUTE_BYTES[self.precision] * tokens
        inner, stream = self._tensors(tokens)
        return inner * (self.facts.d_mlp * number < limit) + stream * (self.facts.d_model * number < limit)

    def _tensors(self, tokens: int) -> tuple[int, int]:
        """Of a block's MLP, and of all else."""
        number = COMPUTE_BYTES[self.precision]
        inner = _MLP_TENSORS.get(self.facts.family, _GATED_MLP_TENSORS) * self.facts.d_mlp * number
        inner += _INT8_TENSORS * self.facts.d_mlp * 4 * (self.precision == "int8")
        stream = _STREAM_TENSORS * self.facts.d_model * number
        upcast = 0 if number == 4 else _UPCAST_TENSORS * self.facts.d_model * 4
        return tokens * inner, tokens * (stream + upcast)
