"""The language model of a training, and how it is read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.harvest import Harvest
from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.precision import NoPrecision
from mistudiod.facts import UnknownModel
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.train_size import fitting_tokens
from mistudiod.worker.train_source import Source


def load_model(source: Source, link: Link) -> LM:
    """The model's first blocks, up to the last hook; on the GPU when there is one. Raises Refused."""
    link.progress("load model", 0, 1)
    layers = max(map(layers_needed, source.hooks))
    try:
        lm = load_lm(Path(source.model["path"]), source.device, source.chosen.precision, layers)
    except UnknownModel as error:
        raise Refused(str(error), field="tokenization") from error
    except NoPrecision as error:
        raise Refused(str(error), field="precision") from error
    link.progress("load model", 1, 1)
    return lm


def harvest(lm: LM, source: Source, link: Link) -> Harvest:
    """How the hooks of a pass are read; a wish to stop or to pause is heard between forward passes."""
    tokens = source.chosen.forward_tokens
    if "size" in link.choices:
        tokens = fitting_tokens(lm, source.hooks, source.windows.context, tokens, **link.choices["size"])

    def forward(ids: Tensor) -> Tensor:
        if link.asked != "finalize":  # that can wait for the end of a step
            link.check()
        values = lm.activations_at(ids, source.hooks)
        return values[0] if len(values) == 1 else torch.cat(values, dim=-1)

    return Harvest(source.windows, forward, list(source.widths.values()), source.device, tokens)
