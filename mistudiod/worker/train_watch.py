"""What a training says of itself while it goes on: measures on held-out text, and a few live features.

Everything is worked out from copies or from what is only read: a training that is watched has the same bits as one
that is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mistudiod.engine.harvest import Harvest
from mistudiod.engine.live import Live, Shown
from mistudiod.engine.lm import LM
from mistudiod.engine.measure import Meter, measure
from mistudiod.engine.pieces import Pieces
from mistudiod.engine.splice import NO_FIGURES, Splice
from mistudiod.engine.tokens import TokenWindows
from mistudiod.engine.trainer import Trainer

EVALUATE_TOKENS = 4_096  # held out, at most, for each evaluation
LEAST_TOKENS = 512
LIVE_EVERY_S = 0.5
LIVE_SHARE = 0.01  # of the time that passes, for the live features of all SAEs together


def evaluate_tokens(tokens: int) -> int:
    """On how many tokens to evaluate a training of so many, ten times, that the model spends 5 % more time on it.

    An evaluation is two passes of the whole model, where a step's tokens take one of its first blocks.
    """
    return max(LEAST_TOKENS, min(EVALUATE_TOKENS, tokens // 1_000))


class Watch:
    """Watches the trainers of a training, told apart by their numbers in it.

    ``hooks`` of each are (read, rebuilt), the second None but for a transcoder. ``held_out`` are numbers of windows.
    ``splice`` is the whole language model on some of them, None when only a part of it is in memory; then it is
    ``tokens`` that are evaluated on.
    """

    def __init__(
        self,
        hooks: Sequence[tuple[str, str | None]],
        harvest: Harvest,
        windows: TokenWindows,
        held_out: range,
        lm: LM,
        seed: int = 0,
        splice: Splice | None = None,
        tokens: int = EVALUATE_TOKENS,
    ) -> None:
        self._hooks, self._harvest, self._windows, self._splice = hooks, harvest, windows, splice
        self._held_out, self._seed, self._tokens = np.array(held_out), seed, tokens
        self._pieces = Pieces(lambda ids: str(lm.tokenizer.decode(ids)), set(windows.special_ids))
        self._held: list[Tensor] = []  # held-out activations, the same for every SAE and every evaluation
        self._live: dict[int, Live] = {}
        self._texts: dict[int, tuple[str, str, str]] = {}  # by where, of what is shown
        self._next: dict[int, float] = {}  # when each may be looked at again, by time.monotonic

    def evaluate(self, number: int, trainer: Trainer) -> dict[str, float | None]:
        """FVU, L0 and cosine on held-out tokens, by the weights of now, and what they cost the language model.

        Keys: eval_fvu, eval_l0, eval_cosine, ce_clean, ce_delta, ce_recovered_zero, ce_recovered_mean and kl; the
        last five are None without a whole model.
        """
        sae = trainer.to_sae({})
        losses = NO_FIGURES
        if self._splice is None:
            x, y = trainer.x.columns, (trainer.y or trainer.x).columns
            if not self._held:
                self._held = list(self._harvest.first(self._held_out, self._tokens))
            found = measure(sae, ((batch[:, x], batch[:, y]) for batch in self._held))
        else:
            meter = Meter(sae)
            losses = self._splice.loss(self._hooks[number][0], meter.add, self._hooks[number][1]).figures()
            found = meter.measures()
        figures = {"eval_fvu": found.fvu, "eval_l0": found.l0, "eval_cosine": found.cosine, **losses}
        return {name: None if value is None or not math.isfinite(value) else value for name, value in figures.items()}

    def live(self, number: int, trainer: Trainer, batch: Tensor, where: Tensor) -> list[dict[str, Any]] | None:
        """The features to tell of, JSON-ready; None when it is too early to look again, for looking takes time.

        batch: the latest (tokens, all columns), as harvested; where: (tokens,) int64, window * context + position.
        """
        began = time.monotonic()
        if began < self._next.get(number, 0.0):
            return None
        live = self._live.get(number)
        if live is None:
            live = self._live[number] = Live(trainer.sae.d_sae, self._windows.context, self._seed + number)
        told = [self._told(one) for one in live.look(trainer, batch, where)]
        self._forget()
        took = time.monotonic() - began
        self._next[number] = began + max(LIVE_EVERY_S, took * len(self._hooks) / LIVE_SHARE)
        return told

    def _told(self, one: Shown) -> dict[str, Any]:
        windows = []
        for value, where in one.strongest:
            before, token, after = self._text(where)
            windows.append({"value": value, "before": before, "token": token, "after": after})
        return {"feature": one.feature, "density": one.density, "windows": windows}

    def _text(self, where: int) -> tuple[str, str, str]:
        if where not in self._texts:
            window, position = divmod(where, self._windows.context)
            self._texts[where] = self._pieces.at(self._windows.rows([window])[0].tolist(), position)
        return self._texts[where]

    def _forget(self) -> None:
        """Keep the texts of what is shown only."""
        shown = {where for live in self._live.values() for one in live.shown for _, where in one.strongest}
        self._texts = {where: text for where, text in self._texts.items() if where in shown}
