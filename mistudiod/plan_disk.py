"""What a training takes of the disk: checkpoints, SAEs, and activations that are kept. Pure arithmetic; bytes."""

from __future__ import annotations

from mistudiod.kept_activations import Kept
from mistudiod.plan_train import Choices, Run

BESIDES_KEPT = 2  # checkpoints: the best, and one that is being written


def disk_bytes(run: Run, choices: Choices, stored_bytes: int = 0) -> int:
    """The most that there is at the same time; ``stored_bytes`` of the activations are there already."""
    saes = sum(one.sizes.bytes for one in run.passes(choices))
    return _checkpoints(run, choices) + saes + max(0, store_bytes(run) - stored_bytes)


def store_bytes(run: Run) -> int:
    """Activations of every window at every hook; 0 when they are not to be kept."""
    form, windows = run.spec.keep_activations, run.train_windows + run.held_out_windows
    if form == "no":
        return 0
    return sum(Kept("", "", "", hook, form, windows, run.context, width).bytes for hook, width in run.widths.items())


def _checkpoints(run: Run, choices: Choices) -> int:
    """Those of the pass over the text that goes on, and of each one before it the last."""
    most = before = 0
    for one in run.passes(choices):
        most = max(most, before + (run.spec.keep_checkpoints + BESIDES_KEPT) * one.sizes.state_bytes)
        before += one.sizes.state_bytes
    return most
