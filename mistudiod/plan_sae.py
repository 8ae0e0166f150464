"""What autoencoders take while they are trained, as the engine takes it. Pure arithmetic; bytes throughout.

The numbers in front of each size count the tensors that are alive at the same time in ``engine.architectures`` and
``engine.measure``; ``bench/plan.py`` holds the sums to measured peaks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mistudiod.budget import Device
from mistudiod.specs import One

FLOAT, DOUBLE = 4, 8  # an autoencoder is float32 everywhere, what is measured of it float64
BLOCK_BYTES: dict[Device, int] = {"cpu": FLOAT << 22, "cuda": FLOAT << 26, "unified": FLOAT << 26}  # engine.kernels
MIN_BLOCK_ROWS = 64  # engine.kernels
# Of the native step on a CPU (engine.sparse), which takes a whole batch at once, AuxK apart.
A_NATIVE_ENTRY = 20  # an active latent of a token: value, latent, gradient, sorted by latent
A_PLACE = 8  # of a token's list of candidates: value and latent
LIST_BYTES = 16 << 20  # of the lists of tokens that are treated at once, where each token has its own k
SPARE, SPARE_SHARE = 16, 0.25  # candidates of a token beyond those that are kept
# Of the step in plain torch (engine.architectures, engine.kernels), in micro-batches.
HALF_ENCODER = 2  # bytes a number of W_enc once more, to find candidates with
TOPK_SHARE = 0.6  # what finding the top k takes beside the block it looks at
AN_ENTRY = 90  # an active latent of a token: value, latent, their gradients, sorted twice
A_CANDIDATE = 12  # a latent that may become active: value and number
TIMES_K = {"batchtopk": 4, "matryoshka": 4, "transcoder": 4}  # candidates of a token, in k; 1 of all others
LEVELS = {"matryoshka": 5}  # reconstructions that are alive together; 1 of all others
# Blocks of (tokens, latents) that are alive together, the one that is kept among them, in architectures without top k.
DENSE_BLOCKS = {"standard": 2.25, "jumprelu": 5.25, "gated": 6.5}
TANH_BLOCKS = 7.25  # of a jumprelu that is made sparse by tanh
DEAD_SHARE = 0.1  # of the latents, on which AuxK works; more is a training that has failed
DEAD_STEPS = 20  # engine.schedule: in the first ones no latent is dead
METER_ROWS, METER_TENSORS = 4_096, 5  # engine.measure: tokens judged at once, and what is as large, in float64
RANDOM_ROWS = 256  # engine.baselines: tokens whose atoms are gathered at once
COMPONENT_ROWS = 4_096  # engine.baselines, of those for principal components


@dataclass(frozen=True)
class Stepping:
    """How all autoencoders of a training are taken through a step."""

    device: Device
    batch_tokens: int
    micro_tokens: int
    steps: int
    held_out_tokens: int
    tanh: bool = False


@dataclass(frozen=True)
class Sizes:
    """Of one autoencoder, or of several that are trained at once."""

    parameters: int  # numbers
    latents: int
    entries: int  # latents active on a token
    held: int  # what a step needs and the next one needs again
    most: int  # what a step takes beyond that, for one autoencoder after another
    largest: int  # bytes of the parameters of one
    metering: int  # what judging one on held-out activations takes
    beside: int  # and what it is compared with

    @property
    def bytes(self) -> int:
        return FLOAT * self.parameters

    @property
    def state_bytes(self) -> int:
        """Of a checkpoint: the parameters, Adam's two moments of each, a counter of each latent."""
        return 3 * self.bytes + 8 * self.latents


@functools.lru_cache(maxsize=4096)
def sizes(one: One, d_in: int, d_out: int, how: Stepping) -> Sizes:
    """Of one that reads ``d_in`` numbers and rebuilds ``d_out``."""
    step = _dense if one.architecture in DENSE_BLOCKS else _native if how.device == "cpu" else _plain
    held, most = step(one, d_in, d_out, how)
    # what of the batch is its own, scaled; what is rebuilt as well
    most += FLOAT * how.batch_tokens * (d_in + (d_out if one.hook_out else 0))
    if how.device != "cpu":
        most += one.width * max(d_in, d_out) * FLOAT  # a weight gradient is not made in pieces there
    rows, parameters = min(METER_ROWS, how.held_out_tokens), one.parameters(d_in, d_out)
    return Sizes(
        parameters=parameters,
        latents=one.width,
        entries=one.k,
        held=held,
        most=most,
        largest=FLOAT * parameters,
        metering=METER_TENSORS * rows * d_out * DOUBLE + 2 * _block(one, how),
        beside=0 if one.hook_out else _beside(one, d_in, how.held_out_tokens),
    )


def together(several: Sequence[Sizes]) -> Sizes:
    """Of several at once: each keeps what it needs, but one after another makes its step and is measured."""
    return Sizes(
        parameters=sum(one.parameters for one in several),
        latents=sum(one.latents for one in several),
        entries=sum(one.entries for one in several),
        held=sum(one.held for one in several),
        most=max(one.most for one in several),
        largest=max(one.largest for one in several),
        metering=max(one.metering for one in several),
        beside=max(one.beside for one in several),
    )


def _native(one: One, d_in: int, d_out: int, how: Stepping) -> tuple[int, int]:
    """What a step needs and the next one needs again, and what it takes beyond that."""
    batch, k, kept = how.batch_tokens, one.k, one.k * TIMES_K.get(one.architecture, 1)
    # centred, once more in bf16; the residual
    held = batch * (FLOAT * d_in + 2 * d_in + FLOAT * d_out) + FLOAT * one.width
    held += A_NATIVE_ENTRY * batch * k + (_lists(batch, k) if kept == k else batch * (_places(kept) + FLOAT * kept))
    if one.architecture in LEVELS:
        held += 2 * FLOAT * batch * d_out  # of a level: its gradient, and what it misses
    if how.steps <= DEAD_STEPS:
        return held, 0
    dead, micro = _dead(one), min(how.micro_tokens, batch)
    working = min(k_aux(d_in), dead)
    held += FLOAT * micro * d_out + A_NATIVE_ENTRY * micro * working + max(0, _lists(micro, working) - _lists(batch, k))
    return held, _gathered(dead, d_in, d_out)


def _plain(one: One, d_in: int, d_out: int, how: Stepping) -> tuple[int, int]:
    held, most = _common(one, d_in, d_out, how)
    micro, batch = min(how.micro_tokens, how.batch_tokens), how.batch_tokens
    held += HALF_ENCODER * one.width * d_in
    most += A_CANDIDATE * batch * one.k * TIMES_K.get(one.architecture, 1)
    most += AN_ENTRY * micro * one.k + int(TOPK_SHARE * _block(one, how))
    return held, most


def _dense(one: One, d_in: int, d_out: int, how: Stepping) -> tuple[int, int]:
    held, most = _common(one, d_in, d_out, how)
    blocks = TANH_BLOCKS if how.tanh and one.architecture == "jumprelu" else DENSE_BLOCKS[one.architecture]
    rows = min(how.micro_tokens, how.batch_tokens) * one.width * FLOAT
    return held, most + int((blocks - 1) * min(_block(one, how), rows))


def _common(one: One, d_in: int, d_out: int, how: Stepping) -> tuple[int, int]:
    """Of every step in plain torch."""
    batch, micro = how.batch_tokens, min(how.micro_tokens, how.batch_tokens)
    # centred; the residual, and the gradient of what is rebuilt; a block of pre-activations
    held = FLOAT * (micro * d_in + (batch + micro) * d_out) + _block(one, how)
    # what is rebuilt, and what it misses
    most = 2 * FLOAT * micro * d_out * LEVELS.get(one.architecture, 1)
    if how.steps > DEAD_STEPS:
        dead = _dead(one)
        most += _gathered(dead, d_in, d_out) + AN_ENTRY * micro * min(k_aux(d_in), dead)
    return held, most


def _block(one: One, how: Stepping) -> int:
    return max(MIN_BLOCK_ROWS * one.width * FLOAT, BLOCK_BYTES[how.device])


def _places(kept: int) -> int:
    """Bytes of a token's list of candidates."""
    keep = kept + max(SPARE, math.ceil(SPARE_SHARE * kept))
    return A_PLACE * (keep + keep // 2 + 64)


def _lists(tokens: int, k: int) -> int:
    return min(LIST_BYTES, tokens * _places(k))


def _dead(one: One) -> int:
    return int(DEAD_SHARE * one.width)


def _gathered(dead: int, d_in: int, d_out: int) -> int:
    """Weights of dead latents and their gradients, for AuxK."""
    return 2 * FLOAT * dead * (d_in + d_out)


def k_aux(d_in: int) -> int:
    """Dead latents that AuxK lets rebuild a token: engine.architectures.base."""
    return int(2 ** round(math.log2(max(2, d_in / 2))))


def _beside(one: One, d: int, held_out_tokens: int) -> int:
    """Principal components and a random dictionary, in float64, whichever takes more."""
    k, width = min(one.k, d), one.width
    components = max(5 * d * d, 4 * min(COMPONENT_ROWS, held_out_tokens) * d) * DOUBLE
    rows = min(RANDOM_ROWS, held_out_tokens)
    dictionary = max(2 * width * d, width * d + rows * (k * d + 2 * width)) * DOUBLE
    return max(components, dictionary)
