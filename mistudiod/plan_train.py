"""The memory of a training, phase by phase, as the engine really takes it. Pure arithmetic; bytes throughout.

The numbers in front of each size count the tensors that are alive at the same time in ``engine.train``,
``engine.architectures.topk``, ``engine.activations``, ``engine.measure`` and ``worker.train``; ``bench/plan.py`` holds
the sums to measured peaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mistudiod.budget import Device
from mistudiod.facts import ModelFacts, check_hook
from mistudiod.plan_model import Precision, Reading

Part = Literal[
    "weights", "runtime", "forward", "buffer", "sae", "gradients", "optimizer", "step", "loading", "measuring"
]
Phase = Literal["load", "harvest", "scale", "train", "refill", "finish", "measure"]
Parts = dict[Part, int]

FLOAT = 4  # bytes; the autoencoder and the buffer are float32 everywhere
DOUBLE = 8
BLOCK_TOKENS = 65_536  # engine.activations
PASS_WINDOWS = 256  # engine.activations: never more windows in one forward pass
PASS_TOKENS: dict[Device, int] = {"cpu": 4_096, "cuda": 16_384, "unified": 16_384}  # engine.lm
BLOCK_BYTES = {"cpu": FLOAT << 22, "cuda": FLOAT << 26, "unified": FLOAT << 26}  # engine.kernels
MIN_BLOCK_ROWS = 64
TOPK_SHARE = 0.6  # what finding the top k takes beside the block it looks at
AN_ENTRY = 90  # bytes for an active latent of a token: value, latent, their gradients, sorted twice
DEAD_AFTER_TOKENS = 1_000_000  # engine.architectures.topk: from then on AuxK may be at work
RANDOM_ROWS = 256  # engine.measure: tokens whose atoms are gathered at once
KEPT_CHECKPOINTS = 2  # engine.checkpoint, and one that is being written
# Measured: importing torch and transformers; on a GPU its context and the libraries' workspaces.
RUNTIME_BYTES: dict[Device, int] = {"cpu": 385_000_000, "cuda": 600_000_000, "unified": 1_600_000_000}
QUANTISED_BYTES = 130_000_000  # more of it, where bitsandbytes is at work
HOST_BYTES = 2_000_000_000  # beside a GPU with memory of its own
# malloc gives tensors below this size pages that it keeps afterwards; larger ones are mapped and given back.
MAPPED_BYTES = 32 << 20
KEPT_SHARE = 0.9  # of those small tensors' bytes
FRAGMENTED_SHARE = 0.05  # CUDA's allocator keeps blocks that fit nothing


@dataclass(frozen=True)
class Choices:
    """What a person may leave open, and what a plan may then change for memory's sake."""

    precision: Precision
    forward_tokens: int  # of one forward pass
    buffer_tokens: int  # shuffled among themselves
    micro_tokens: int  # of a step, taken at once


@dataclass(frozen=True)
class Run:
    """One training: shapes and numbers of tokens."""

    device: Device
    facts: ModelFacts
    hook: str
    width: int
    k: int
    batch_tokens: int
    tokens: int  # to train on, repeated ones counted
    context: int
    train_windows: int
    held_out_tokens: int

    @property
    def d_in(self) -> int:
        return check_hook(self.facts, self.hook)

    def reading(self, choices: Choices) -> Reading:
        return Reading(self.facts, self.hook, choices.precision)

    @property
    def parameters(self) -> int:
        return 2 * self.d_in * self.width + self.width + self.d_in

    @property
    def state_bytes(self) -> int:
        """Of a checkpoint: the parameters, Adam's two moments of each, a counter of each latent."""
        return 3 * FLOAT * self.parameters + 8 * self.width

    def pass_tokens(self, choices: Choices) -> int:
        """Tokens of a forward pass: whole windows, at least one."""
        windows = max(1, min(PASS_WINDOWS, choices.forward_tokens // self.context))
        return self.context * min(windows, self.windows(choices))

    def windows(self, choices: Choices) -> int:
        """Windows that the buffer holds."""
        return min(self.train_windows, max(1, choices.buffer_tokens // self.context))

    def refills(self, choices: Choices) -> bool:
        """Whether the first block is not enough: then language model and training are at work in turn."""
        return self.tokens > self.windows(choices) * (self.context - 1)


def disk_bytes(run: Run) -> int:
    """The checkpoints that there are at the same time, and the SAE."""
    return (KEPT_CHECKPOINTS + 1) * run.state_bytes + FLOAT * run.parameters


def phases(run: Run, choices: Choices) -> dict[Phase, Parts]:
    """What is alive in each phase of the job, part by part."""
    reading = run.reading(choices)
    tokens = run.pass_tokens(choices)
    buffer = run.windows(choices) * run.context * run.d_in * FLOAT
    forward = reading.forward(tokens) + tokens * run.d_in * FLOAT
    runtime = RUNTIME_BYTES[run.device] + QUANTISED_BYTES * (choices.precision in ("int8", "nf4"))
    base: Parts = {"weights": reading.weights(), "runtime": runtime}
    kept = _kept(run, reading, tokens)
    tokens = min(tokens, run.held_out_tokens)  # they go through the model again, into pages that were kept
    held_out = reading.forward(tokens) + tokens * run.d_in * FLOAT - _kept(run, reading, tokens)
    step, held = _step(run, min(choices.micro_tokens, run.batch_tokens))
    sae = FLOAT * run.parameters
    trained: Parts = {**base, "buffer": buffer, "sae": sae, "gradients": sae, "optimizer": 2 * sae}
    idle = runtime + kept
    found: dict[Phase, Parts] = {
        "load": {**base, "loading": reading.converted()},
        "harvest": {**base, "buffer": buffer, "forward": forward},
        # The mean in float64 makes a copy of the whole buffer.
        "scale": {**base, "runtime": idle, "buffer": buffer, "measuring": 2 * buffer},
        "train": {**trained, "runtime": runtime + max(0, kept - step), "step": step},
        "finish": {**trained, "sae": 2 * sae, "runtime": runtime + max(0, kept - held), "step": held},
        "measure": {
            **base,
            "runtime": idle,
            "buffer": buffer,
            "sae": sae,
            "measuring": max(held_out, _measuring(run, buffer)),
        },
    }
    if run.refills(choices):
        batch = run.batch_tokens * run.d_in * FLOAT
        found["refill"] = {**trained, "step": held + batch, "forward": forward}
    if run.device != "cpu":
        for parts in found.values():
            parts["runtime"] += int(FRAGMENTED_SHARE * (sum(parts.values()) - runtime))
    return found


def _kept(run: Run, reading: Reading, tokens: int) -> int:
    """What malloc keeps of a forward pass over ``tokens`` tokens."""
    return int(KEPT_SHARE * reading.small(tokens, MAPPED_BYTES)) if run.device == "cpu" else 0


def host_bytes(run: Run) -> int:
    """Of the machine's memory, beside a GPU with its own: libraries, and a checkpoint on its way to the disk."""
    return HOST_BYTES + run.state_bytes


def _step(run: Run, micro: int) -> tuple[int, int]:
    """The most that a step takes, and what of it stays until the next."""
    batch, rows = run.batch_tokens * run.d_in * FLOAT, micro * run.d_in * FLOAT
    dense = max(MIN_BLOCK_ROWS * run.width * FLOAT, BLOCK_BYTES[run.device])
    # the residual; centred and gradient; values and latents
    held = batch + 2 * rows + 12 * run.batch_tokens * run.k + dense
    # the batch, and before that it unscaled, after it the sums and what is rebuilt
    most = held + batch + max(batch, 2 * rows) + AN_ENTRY * micro * run.k + int(TOPK_SHARE * dense)
    if run.tokens > DEAD_AFTER_TOKENS:
        most += AN_ENTRY * micro * min(_k_aux(run.d_in), run.width)
    if run.device != "cpu":
        most += run.width * run.d_in * FLOAT  # a weight gradient is not made in pieces there
    return most, held


def _k_aux(d_in: int) -> int:
    return int(2 ** round(math.log2(max(2, d_in / 2))))


def _measuring(run: Run, buffer: int) -> int:
    """Of a phase after the training: the buffer's mean, principal components, a random dictionary, in float64."""
    d, k = run.d_in, min(run.k, run.d_in)
    chunk = min(4096, run.held_out_tokens) * d * DOUBLE
    components = max(5 * d * d * DOUBLE, 4 * chunk)
    atoms = run.width * d * DOUBLE
    rows = min(RANDOM_ROWS, run.held_out_tokens)
    dictionary = max(2 * atoms, atoms + rows * (k * d + 2 * run.width) * DOUBLE)
    return max(2 * buffer, components, dictionary)
