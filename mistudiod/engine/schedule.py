"""How long to train and how fast to learn: both are decided before the first step and depend on nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

WARM_UP_SHARE = 0.05  # of the steps, but never more than WARM_UP_STEPS
WARM_UP_STEPS = 1_000
DECAY_SHARE = 0.2  # the last fifth goes down to 0
LONG_STEPS = 25_000  # from here on the peak is that of published long runs
HIGHEST_LR = 6e-3
DEAD_SHARE = 0.1  # of the training: a latent that was silent for so long is dead
MOST_DEAD_TOKENS = 10_000_000
LEAST_DEAD_STEPS = 20


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up, a level stretch at ``peak_lr``, a linear decay to 0 over the last fifth.

    All of it lies between steps ``start`` and ``steps``: what was made before, another schedule led to its end.
    """

    steps: int
    peak_lr: float
    start: int = 0

    @property
    def warm_up(self) -> int:
        """Steps of the warm-up."""
        return min(WARM_UP_STEPS, math.ceil((self.steps - self.start) * WARM_UP_SHARE))

    def lr(self, step: int) -> float:
        """Learning rate of step start … steps - 1."""
        decay = math.ceil((self.steps - self.start) * DECAY_SHARE)
        return self.peak_lr * min(1.0, (step - self.start + 1) / self.warm_up, (self.steps - step) / decay)

    def done(self, step: int) -> float:
        """How far what grows during a training has come, 0 to 1; in one that is gone on with it has grown."""
        return 1.0 if self.start else step / self.steps

    def halved(self) -> Schedule:
        return replace(self, peak_lr=self.peak_lr / 2)


def plan(width: int, batch_tokens: int, tokens: int, steps: int | None = None, lr: float | None = None) -> Schedule:
    """The schedule of a run over ``tokens`` tokens, the last batch filled up, or of ``steps`` steps when given."""
    steps = steps or math.ceil(tokens / batch_tokens)
    return Schedule(steps, lr or automatic_lr(width, steps))


def automatic_lr(width: int, steps: int) -> float:
    """2e-4·sqrt(2^14 / width), as published for long runs of top-k SAEs (Gao et al. 2024, section 2.2 and appendix A.3;
    the constant is dictionary_learning's), times sqrt(25,000 / steps) for shorter ones, at most 6e-3.

    A run of a few hundred steps must take larger ones to arrive at all.
    """
    shorter = max(1.0, math.sqrt(LONG_STEPS / steps))
    return min(HIGHEST_LR, 2e-4 * math.sqrt(2**14 / width) * shorter)


def dead_after_tokens(steps: int, batch_tokens: int) -> int:
    """After how many silent tokens a latent is dead: 10 M as published (Gao et al. 2024), less in a shorter run.

    A run of 5 M tokens would never see a dead latent otherwise, and AuxK would never be at work.
    """
    share = max(LEAST_DEAD_STEPS, round(DEAD_SHARE * steps)) * batch_tokens
    return min(MOST_DEAD_TOKENS, share)
