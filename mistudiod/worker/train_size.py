"""How many tokens go through the model at once on a GPU: measured there, for no formula knows its allocator."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from mistudiod.engine.lm import LM
from mistudiod.engine.sizing import find_size, peak_bytes
from mistudiod.host import is_pressed

log = logging.getLogger(__name__)


def fitting_tokens(
    lm: LM, hooks: Sequence[str], context: int, most_tokens: int, budget_bytes: int, unified: bool
) -> int:
    """At most ``most_tokens``, in whole windows of ``context``, with a peak within ``budget_bytes``. Raises WontFit."""
    most = max(1, most_tokens // context)

    def run(windows: int) -> None:
        ids = torch.zeros(windows, context, dtype=torch.int64)
        [values.float() for values in lm.activations_at(ids, hooks)]

    found = find_size(
        lambda windows: peak_bytes(lambda: run(windows), lm.device),
        budget_bytes,
        most,
        unified=unified,
        start=max(1, most // 4),
        pressed=is_pressed,
    )
    log.warning("%d windows of %d tokens go through the model at once; tried %s", found.size, context, found.probes)
    return found.size * context
