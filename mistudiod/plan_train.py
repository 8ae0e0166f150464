"""The memory of a training, phase by phase, as the engine really takes it. Pure arithmetic; bytes throughout.

The numbers in front of each size count the tensors that are alive at the same time in ``engine.train``,
``engine.activations``, ``engine.measure`` and ``worker.train``; ``bench/plan.py`` holds the sums to measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mistudiod.budget import Device
from mistudiod.facts import ModelFacts, check_hook
from mistudiod.mixing import Mixing, mixing
from mistudiod.plan_model import Precision, Reading
from mistudiod.plan_sae import DOUBLE, FLOAT, Sizes, Stepping, sizes, together
from mistudiod.specs import One, Train

Part = Literal[
    "weights",
    "runtime",
    "forward",
    "buffer",
    "sae",
    "gradients",
    "optimizer",
    "step",
    "loading",
    "evaluation",
    "measuring",
]
Phase = Literal["load", "harvest", "scale", "train", "refill", "evaluate", "finish", "measure"]
Parts = dict[Part, int]

BUFFER_BYTES = 2  # engine.ring: a number in the buffer is bf16
SLOT_BYTES = 16  # engine.ring: where a row is from, and which are free
TAKEN_BYTES = 4  # a number of a forward pass on its way into the buffer
SAMPLE_BYTES = 6  # a number of the first chunk, which statistics are taken of: as it is harvested, and in float32
PASS_WINDOWS = 256  # engine.harvest: never more windows in one forward pass
PASS_TOKENS: dict[Device, int] = {"cpu": 4_096, "cuda": 16_384, "unified": 16_384}  # engine.lm
HELD_TOKENS, HELD_BYTES, LEAST_HELD_TOKENS = 100_000, 128 << 20, 16_384  # worker.train_measure and engine.held_out
GATHERED = 1.5  # of held-out activations, while the parts of them are put together
LOGIT_BYTES = 6 * (4 << 23)  # engine.splice: logits of some tokens, with and without the SAE, and what is made of them
SPLICED_TENSORS = 4  # as wide as a hook: what is there, as read and in float32, what is rebuilt, what takes its place
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
    buffer_tokens: int  # mixed with each other
    micro_tokens: int  # of a step, taken at once
    saes_at_once: int  # in one pass over the text
    whole_model: bool  # all of it is kept, for what an SAE costs it in loss


@dataclass(frozen=True)
class Run:
    """One training: shapes and numbers of tokens."""

    device: Device
    facts: ModelFacts
    spec: Train
    context: int
    train_windows: int
    held_out_windows: int
    saes: tuple[One, ...] = field(init=False)
    widths: dict[str, int] = field(init=False)  # of the hooks, whose activations lie side by side

    def __post_init__(self) -> None:
        """Raises UnknownHook."""
        object.__setattr__(self, "saes", tuple(self.spec.saes()))
        object.__setattr__(self, "widths", {hook: check_hook(self.facts, hook) for hook in self.spec.hooks})

    @property
    def steps(self) -> int:
        return self.spec.steps or math.ceil(self.spec.tokens / self.spec.batch_tokens)

    @property
    def tokens(self) -> int:
        """To train each SAE on, repeated ones counted."""
        return self.steps * self.spec.batch_tokens

    def reading(self, choices: Choices) -> Reading:
        return Reading(self.facts, tuple(self.widths), choices.precision, choices.whole_model)

    def mixing(self, choices: Choices) -> Mixing:
        return mixing(self.train_windows, self.context, self.spec.batch_tokens, choices.buffer_tokens)

    def passes(self, choices: Choices) -> list[Pass]:
        """Over the text, one after another: which SAEs are trained in each, in order, as many at once as is chosen."""
        how = Stepping(
            device=self.device,
            batch_tokens=self.spec.batch_tokens,
            micro_tokens=choices.micro_tokens,
            steps=self.steps,
            held_out_tokens=self.held_out_tokens,
            tanh=self.spec.tanh is not None,
        )
        n = choices.saes_at_once
        return [self._pass(self.saes[first : first + n], how) for first in range(0, len(self.saes), n)]

    def _pass(self, several: Sequence[One], how: Stepping) -> Pass:
        each = [sizes(one, self.widths[one.hook], self.widths[one.hook_out or one.hook], how) for one in several]
        hooks = dict.fromkeys(hook for one in several for hook in (one.hook, one.hook_out) if hook)
        return Pass(together(each), tuple(self.widths[hook] for hook in hooks))

    @property
    def held_out_tokens(self) -> int:
        return self.held_out_windows * self.context

    def pass_tokens(self, choices: Choices) -> int:
        """Tokens of a forward pass: whole windows, at least one."""
        windows = max(1, min(PASS_WINDOWS, choices.forward_tokens // self.context))
        return self.context * min(windows, self.train_windows)

    def refills(self, choices: Choices) -> bool:
        """Whether more is harvested after the first batch: then language model and training are at work in turn."""
        mixed = self.mixing(choices)
        return self.tokens > mixed.chunk_tokens // min(2, mixed.chunks)


@dataclass(frozen=True)
class Pass:
    """One over the text: what is trained in it, and how wide the hooks are that it reads, side by side."""

    sizes: Sizes
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        """Numbers of a row of activations."""
        return sum(self.widths)


def like(run: Run, choices: Choices) -> dict[str, Any]:
    """What a measurement of this training is found again by: fields of ``plan_measured.Measured``.

    The first are those of the pass that takes most, for what is like it; the last names all sizes that bear on speed.
    """
    largest = max((one.sizes for one in run.passes(choices)), key=lambda one: one.parameters)
    each = sorted((one.architecture, one.hook, one.hook_out or "", one.width, one.k, one.skip) for one in run.saes)
    return {
        "parameters": largest.parameters,
        "entries": largest.entries,
        "batch_tokens": run.spec.batch_tokens,
        "sizes": repr([each, choices.saes_at_once, choices.whole_model, run.spec.batch_tokens]),
    }


def phases(run: Run, choices: Choices) -> dict[Phase, Parts]:
    """What is alive in each phase of the job, part by part: in that pass over the text in which it is most."""
    found = [_OfPass(run, choices, one).phases() for one in dict.fromkeys(run.passes(choices))]
    most: dict[Phase, Parts] = {
        phase: max((one[phase] for one in found), key=lambda parts: sum(parts.values())) for phase in found[0]
    }
    if run.device != "cpu":
        for parts in most.values():
            parts["runtime"] += int(FRAGMENTED_SHARE * (sum(parts.values()) - RUNTIME_BYTES[run.device]))
    return most


class _OfPass:
    """One pass over the text."""

    def __init__(self, run: Run, choices: Choices, one: Pass) -> None:
        self.run, self.choices, self.one, self.reading = run, choices, one, run.reading(choices)
        self.runtime = RUNTIME_BYTES[run.device] + QUANTISED_BYTES * (choices.precision in ("int8", "nf4"))
        self.mixing = run.mixing(choices)
        self.tokens = run.pass_tokens(choices)
        self.kept = _kept(run, self.reading, self.tokens)

    def phases(self) -> dict[Phase, Parts]:
        sae = self.one.sizes.bytes
        model: Parts = {"weights": self.reading.weights(), "runtime": self.runtime}
        buffer = self.mixing.rows * (self.one.width * BUFFER_BYTES + SLOT_BYTES)
        idle: Parts = {**model, "runtime": self.runtime + self.kept, "buffer": buffer}
        trained: Parts = {**model, "buffer": buffer, "sae": sae, "gradients": sae, "optimizer": 2 * sae}
        held = self.run.spec.batch_tokens * self.one.width * FLOAT + self.one.sizes.held
        step = held + self.one.sizes.most
        found: dict[Phase, Parts] = {
            "load": {**model, "loading": self.reading.converted()},
            "harvest": {**model, "buffer": buffer, "forward": self._forward()},
            "scale": {**idle, "measuring": self._statistics()},
            "train": {**trained, "runtime": self._rest(step), "step": step},
            "evaluate": {**trained, "runtime": self._rest(held), "step": held, "evaluation": self._evaluation()},
            "finish": {**trained, "sae": 2 * sae, "runtime": self._rest(held), "step": held},
            "measure": {**idle, "sae": sae, "measuring": self._measuring()},
        }
        if self.run.refills(self.choices):
            found["refill"] = {**trained, "step": held, "forward": self._forward()}
        return found

    def _rest(self, step: int) -> int:
        """The runtime with what malloc kept of the forward pass and a step does not use again."""
        return self.runtime + max(0, self.kept - step)

    def _forward(self) -> int:
        """Of the language model, with what it gives on its way into the buffer."""
        return self.reading.forward(self.tokens) + self.tokens * self.one.width * TAKEN_BYTES

    def _sample(self) -> int:
        """The first chunk, which statistics are taken of."""
        return self.mixing.chunk_tokens * self.one.width * SAMPLE_BYTES

    def _statistics(self) -> int:
        """A mean in float64 makes a copy of what it is of, one hook after another."""
        return self._sample() + self.mixing.chunk_tokens * max(self.one.widths) * DOUBLE

    def _evaluation(self) -> int:
        """Held-out text, one SAE after another in its saved form."""
        return self._held_out() + self.one.sizes.largest + max(self._spliced(), self.one.sizes.metering)

    def _measuring(self) -> int:
        held_out = self._held_out()
        after = max(self._spliced(), self.one.sizes.metering, self.one.sizes.beside)
        return max(self._statistics(), self._sample() + max(int(GATHERED * held_out), held_out + after))

    def _held_out(self) -> int:
        """Activations that are kept to measure on."""
        most = max(LEAST_HELD_TOKENS, HELD_BYTES // (FLOAT * self.one.width))
        return min(most, HELD_TOKENS, self.run.held_out_tokens) * self.one.width * FLOAT

    def _spliced(self) -> int:
        """A forward pass of the whole model, in pages that were kept, and what is compared of it; 0 without it."""
        if not self.choices.whole_model:
            return 0
        tokens = min(self.tokens, self.run.held_out_tokens)
        forward = self.reading.forward(tokens) - _kept(self.run, self.reading, tokens)
        return forward + SPLICED_TENSORS * FLOAT * tokens * max(self.one.widths) + LOGIT_BYTES


def _kept(run: Run, reading: Reading, tokens: int) -> int:
    """What malloc keeps of a forward pass over ``tokens`` tokens."""
    return int(KEPT_SHARE * reading.small(tokens, MAPPED_BYTES)) if run.device == "cpu" else 0


def host_bytes(run: Run, choices: Choices) -> int:
    """Of the machine's memory, beside a GPU with its own: libraries, and a checkpoint on its way to the disk."""
    return HOST_BYTES + max(one.sizes.state_bytes for one in run.passes(choices))


def run_of(spec: Train, facts: ModelFacts, tokenization: Mapping[str, Any], device: Device) -> Run:
    """``tokenization``: its ``tokenization.json``. Raises UnknownHook."""
    windows = (int(tokenization[name]) for name in ("context", "train_windows", "held_out_windows"))
    return Run(device, facts, spec, *windows)
