"""The language model of a training, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.activation_store import ActivationStore
from mistudiod.engine.harvest import Harvest
from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import LM
from mistudiod.kept_activations import Kept, model_key, tokenization_key, windows_there
from mistudiod.paths import require_space
from mistudiod.worker.link import Link
from mistudiod.worker.train_size import fitting_tokens
from mistudiod.worker.train_source import Source
from mistudiod.worker.trained import load


def load_model(source: Source, link: Link) -> LM:
    """The model's first blocks, up to the last hook, or all of it; on the GPU when there is one. Raises Refused."""
    layers = None if source.chosen.whole_model else max(map(layers_needed, source.hooks))
    fields = "tokenization", "precision"
    return load(Path(source.model["path"]), source.device, source.chosen.precision, layers, link, fields)


def harvest(lm: LM, source: Source, stores: Sequence[ActivationStore], link: Link) -> Harvest:
    """How the hooks of a pass are read; a wish to stop or to pause is heard between forward passes."""
    tokens = source.chosen.forward_tokens
    if "size" in link.choices:
        tokens = fitting_tokens(lm, source.hooks, source.windows.context, tokens, **link.choices["size"])

    def forward(ids: Tensor) -> Tensor:
        if link.asked != "finalize":  # that can wait for the end of a step
            link.check()
        values = lm.activations_at(ids, source.hooks)
        return values[0] if len(values) == 1 else torch.cat(values, dim=-1)

    widths = list(source.widths.values())
    return Harvest(source.windows, forward, widths, source.device, tokens, stores=stores or None)


@contextmanager
def open_stores(form: str, source: Source, link: Link) -> Iterator[list[ActivationStore]]:
    """Where the activations of each hook are kept, by spec.keep_activations; none when there is nothing.

    What an earlier training has kept is read in any case, and added to only when this one is to keep them.
    """
    folders = link.paths.artifact("tokenization", source.tokenization["name"]), Path(source.model["path"])
    with ExitStack() as opened:
        kept = [_kept(hook, "bf16" if form == "no" else form, source, *folders) for hook in source.hooks]
        wanted = form != "no" or all(windows_there(one.folder(link.paths.activations), one) for one in kept)
        stores = []
        for one in kept if wanted else ():
            store = opened.enter_context(ActivationStore(one.folder(link.paths.activations), one, require_space))
            store.writable &= form != "no"
            stores.append(store)
        yield stores


def _kept(hook: str, form: Any, source: Source, tokenization: Path, model: Path) -> Kept:
    windows = source.windows
    return Kept(
        model_key(model), source.chosen.precision, tokenization_key(tokenization), hook, form,
        windows.train + windows.held_out, windows.context, source.widths[hook],
    )  # fmt: skip
