"""What a reader gives for an SAE whose files have no metadata of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mistudiod.engine.formats.base import Found, Imported
from mistudiod.engine.sae import SparseAutoencoder


def outcome(
    sae: SparseAutoencoder,
    found: Found,
    hook_out: str | None = None,
    context: int | None = None,
    bos: bool | None = None,
    notes: Sequence[str] = (),
) -> Imported:
    """``found`` with its hook and model as they are known by now; ``hook_out`` of a transcoder only."""
    named = {
        "model_name": found.model,
        "hook_name": found.hook,
        "hook_name_out": hook_out,
        "context_size": context,
        "prepend_bos": bos,
    }
    sae.metadata = {key: value for key, value in named.items() if value is not None}
    declared: dict[str, object] = {} if found.l0 is None else {"l0": found.l0}
    found = replace(found, width=sae.d_sae)
    return Imported(sae, found, found.hook, hook_out or found.hook, found.model, context, bos, declared, list(notes))
