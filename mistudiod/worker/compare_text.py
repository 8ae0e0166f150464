"""Held-out text as several SAEs of a model read it: the same tokens for each, and which documents they are of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import Documents, most_units
from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.certify import Body
from mistudiod.engine.document_sums import Text
from mistudiod.engine.harvest import outlier_norms
from mistudiod.engine.held_out import ROWS, most_tokens, sides_of, with_text
from mistudiod.engine.lm import LM, PASS_TOKENS
from mistudiod.engine.replayed import Replayed
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import PASSES, Splice, Units
from mistudiod.facts import check_hook
from mistudiod.worker.extract_source import known_norms, leaves_out
from mistudiod.worker.held_out_text import HeldOutText, loss_windows
from mistudiod.worker.link import Link
from mistudiod.worker.sae_at import SaeAt
from mistudiod.worker.train_source import HELD_OUT_TOKENS, held_out_windows


class Shared:
    """What SAEs are measured on that all read the text with BOS in front of it, or all without (``bos``).

    A token is left out where one of the SAEs leaves it out, so that all of them are measured on the same tokens.
    ``numbers``: of the windows, with ``tokens`` text tokens. ``width``: the largest d_out of all SAEs of the
    comparison, so that documents have the same numbers with BOS and without. Raises ValueError when there is nothing to
    measure on.
    """

    def __init__(
        self,
        saes: Sequence[SaeAt],
        body: Body,
        bos: bool,
        text: HeldOutText,
        numbers: NDArray[np.int64],
        tokens: int,
        width: int,
        lm: LM,
        link: Link,
    ) -> None:
        self._saes, self._lm, self._link, self._body, self._bos, self._text = saes, lm, link, body, bos, text
        self.numbers, self.tokens = numbers, tokens
        self.documents = Documents(
            text.windows, held_out_windows(text.windows), numbers, text.manifest, most_units(width)
        )
        self._units = Units(lambda some: body.aligned(self.documents.rows(some)), self.documents.units)
        norms = _least_norms(saes)
        self._hooks = list(dict.fromkeys(hook for one in saes for hook in (one.hook, one.hook_out)))
        self._hooks += [hook for hook in norms if hook not in self._hooks]
        lm_tokens = min(PASS_TOKENS[lm.device.type], *(_forward_tokens(one) for one in saes))
        widths = [check_hook(lm.facts, hook) for hook in self._hooks]
        self._harvest = Replayed(body, self._forward, widths, lm.device, lm_tokens, again=numbers)
        self._columns = dict(zip(self._hooks, self._harvest.columns(), strict=True))
        if norms:
            self._harvest.outlier_norms = tuple(norms.get(hook, torch.inf) for hook in self._hooks)
        elif any(leaves_out(one.known) or "imported" in one.known.recipe for one in saes):
            self._harvest.outlier_norms = outlier_norms(self._first(), widths)

    def text_of(self, sae: SaeAt) -> Text:
        read, rebuilt = (self._columns[hook] for hook in (sae.hook, sae.hook_out))
        return Text(self._harvest, self.numbers, read, rebuilt, self._units, int(self._bos))

    @cached_property
    def splice(self) -> Splice:
        numbers = loss_windows(self.numbers, self.tokens)
        passes = (PASSES - 1) * len({one.hook_out for one in self._saes}) + len(self._saes)
        total, done = passes * len(numbers) * self._body.context, 0

        def heard(tokens: int) -> None:
            nonlocal done
            done = min(done + tokens, total)
            self._link.check()
            self._link.progress("measure the model's loss", done, total, "tokens")

        norms, size = self._harvest.outlier_norms, self._harvest.lm_tokens
        return Splice(self._lm, self._body, numbers, self._hooks, norms, size, self._units, heard)

    def with_threshold(self, sae: SaeAt, weights: SparseAutoencoder) -> tuple[SparseAutoencoder, int]:
        """The SAE with the threshold that the end of its training would have given it on this text, and on how many
        tokens it was chosen. Only the half of the held-out windows is used that the end of a training uses.
        """
        read, rebuilt = (self._columns[hook] for hook in (sae.hook, sae.hook_out))
        most = min(HELD_OUT_TOKENS, most_tokens(sae.d_in if read == rebuilt else sae.d_in + sae.d_out))

        (some, *_), _ = sides_of(self._body, np.array(held_out_windows(self._text.windows)), most)
        total, parts = self._body.context * len(some), []
        for x in self._harvest.first(some, total):
            parts.append(x[:, read].clone())  # a view would keep the other columns
            self._link.progress(f"find the threshold of {sae.called}", sum(map(len, parts)), total, "tokens")
        if not parts:
            raise ValueError("the held-out text has no token to choose a threshold by")
        tokens = torch.cat(parts)
        return calibrated(weights, sae.known.recipe["k"], lambda: tokens.split(ROWS)), len(tokens)

    def _forward(self, ids: Tensor) -> Tensor:
        self._link.check()
        return torch.cat(self._lm.activations_at(ids, self._hooks), dim=-1)

    def _first(self) -> Tensor:
        """Activations of the first windows, (n, sum of widths)."""
        first = next(self._harvest.blocks(self.numbers[: self._harvest.lm_windows])).values.float()
        if not len(first):
            raise ValueError("the held-out text has no token that is not special")
        if not first.isfinite().all():
            raise ValueError("the model's activations are not all finite numbers")
        return first


def _least_norms(saes: Sequence[SaeAt]) -> dict[str, float]:
    """By hook, the norm beyond which one of them leaves a token out."""
    found: dict[str, float] = {}
    for one in saes:
        for hook, norm in known_norms(one.known).items():
            found[hook] = min(norm, found.get(hook, norm))
    return found


def _forward_tokens(sae: SaeAt) -> int:
    return int(sae.known.recipe["resolved"].get("forward_tokens") or PASS_TOKENS[sae.known.device.type])


def windows_of(text: HeldOutText, body: Body, tokens: int) -> tuple[NDArray[np.int64], int]:
    """Numbers of held-out windows with up to ``tokens`` text tokens, and how many those are."""
    numbers, count = with_text(body, np.array(held_out_windows(text.windows)), tokens)
    return numbers.astype(np.int64), count
