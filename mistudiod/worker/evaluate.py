"""Measure an SAE on held-out text, and keep what comes of it beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import LEAST_UNITS, LEVEL, RESAMPLES, Documents, most_units
from mistudiod.engine.document_sums import Text
from mistudiod.engine.evaluate import FORMULAS, evaluate, with_losses
from mistudiod.engine.extract import spread
from mistudiod.engine.harvest import Harvest, outlier_norms
from mistudiod.engine.held_out import with_text
from mistudiod.engine.lm import PASS_TOKENS
from mistudiod.engine.probes import probes
from mistudiod.engine.splice import PASSES, Splice, Units
from mistudiod.engine.token_bytes import token_bytes
from mistudiod.engine.verdict import evaluated
from mistudiod.facts import check_hook
from mistudiod.specs import Evaluate
from mistudiod.worker.beside import hashes_of, keep, made_of
from mistudiod.worker.extract_source import known_norms, leaves_out
from mistudiod.worker.held_out_text import body_of, check_hooks, find_text, loss_windows
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.train_source import held_out_windows
from mistudiod.worker.trained import load, open_trained

EVALUATION = "evaluation.json"
FORMAT = 1  # of evaluations
FIT_TOKENS, FIT_WIDTHS = 16_384, 4  # of training text, for principal components: at least so many, and times the width
RESULT = (
    *("sae", "verdict", "figures", "density", "tokens", "ce_tokens", "documents", "components", "directions"),
    *("tokenization", "hook", "hook_out", "probes", "seconds"),
)


def run(spec: Evaluate, link: Link) -> None:
    """Write ``saes/<sae>/evaluation.json``. Raises Refused, DiskFull, Asked."""
    job = _Evaluation(spec, link)
    evaluation = job.evaluation()
    keep(job.trained.folder, EVALUATION, evaluation)
    link.artifact("sae", spec.sae)
    link.result({name: evaluation.get(name) for name in RESULT})


class _Evaluation:
    def __init__(self, spec: Evaluate, link: Link) -> None:
        self._spec, self._link, self._began = spec, link, time.monotonic()
        self.trained = open_trained(spec.sae, link)
        self._sha256 = hashes_of(self.trained)
        self._found = find_text(spec.tokenization, self.trained, link)
        check_hooks(spec.sae, self.trained, self.trained.sae.d_in, self.trained.sae.d_out)
        self._lm = load(Path(self.trained.model["path"]), self.trained.device, self.trained.precision, None, link,
                        ("sae", "sae"))  # fmt: skip
        self._link.progress("read the text", 0, spec.tokens, "tokens")
        self._body, self._bos = body_of(self._found, self._lm, self.trained.sae.metadata.get("prepend_bos"))
        held_out = held_out_windows(self._found.windows)
        numbers, self._tokens = with_text(self._body, np.array(held_out), spec.tokens)
        self._numbers: NDArray[np.int64] = numbers.astype(np.int64)
        self._documents = Documents(
            self._found.windows, held_out, self._numbers, self._found.manifest, most_units(self.trained.sae.d_out)
        )
        self._units = Units(lambda some: self._body.aligned(self._documents.rows(some)), self._documents.units)

    def evaluation(self) -> dict[str, Any]:
        """What is kept, JSON-ready. Raises Refused."""
        trained, name = self.trained, self._found.name
        try:
            harvest, hooks = self._harvest()
            found, losses = self._measured(harvest, hooks), self._losses()
            probed = self._probed(harvest, hooks) if self._spec.probes else None
        except ValueError as error:
            raise Refused(f"{self._spec.sae} on {name}: {error}", "sae") from error
        found["figures"] |= losses.pop("figures")
        documents = {
            "unit": self._documents.unit,
            "count": self._documents.documents,
            "units": found.pop("units"),
            "ce_units": losses.pop("ce_units"),
            "least": LEAST_UNITS,
        }
        found |= {"documents": documents, "asked": self._spec.tokens, **losses}
        return {
            "format": FORMAT,
            "sae": self._spec.sae,
            "verdict": evaluated(found),
            **found,
            "formulas": {name: {"unit": unit, "formula": formula} for name, (unit, formula) in FORMULAS.items()},
            "interval": {"level": LEVEL, "draws": RESAMPLES, "of": "documents, with replacement"},
            "probes": probed,
            "hook": trained.hook,
            "hook_out": trained.hook_out,
            "bos": self._bos,
            "tokenization": name,
            **made_of(trained, self._found, self._began, self._sha256),
        }

    def _measured(self, harvest: Harvest, hooks: list[str]) -> dict[str, Any]:
        sae, link, trained = self.trained.sae, self._link, self.trained
        columns = dict(zip(hooks, harvest.columns(), strict=True))
        rebuilt = columns[trained.hook_out if sae.transcodes else trained.hook]
        text = Text(harvest, self._numbers, columns[trained.hook], rebuilt, self._units, int(self._bos))

        def told(stage: str, done: int, of: int) -> None:
            link.check()
            link.progress(stage, done, of, "tokens")

        def train() -> Iterator[Tensor]:
            context, came = self._body.context, 0
            fit = spread(self._found.windows.train, context, max(FIT_TOKENS, FIT_WIDTHS * sae.d_in))
            for x in harvest.batches(fit):
                yield x[:, columns[trained.hook]]
                came += len(x)
                told("fit principal components", came, len(fit) * context)

        beside = not sae.transcodes and self._found.windows.train
        return evaluate(sae, text, self._tokens, train if beside else None, 0, told)

    def _harvest(self) -> tuple[Harvest, list[str]]:
        """What the model gives at the hooks that say which tokens are outliers, among them the SAE's own.

        Those of a training are known; of an SAE that was brought in, they are told by this text.
        """
        trained, lm = self.trained, self._lm
        norms = known_norms(trained)
        hooks = list(dict.fromkeys([trained.hook, trained.hook_out, *norms]))

        def forward(ids: Tensor) -> Tensor:
            return torch.cat(lm.activations_at(ids, hooks), dim=-1)

        usual = PASS_TOKENS[trained.device.type]
        lm_tokens = min(usual, trained.recipe["resolved"].get("forward_tokens") or usual)
        widths = [check_hook(lm.facts, hook) for hook in hooks]
        harvest = Harvest(self._body, forward, widths, trained.device, lm_tokens)
        first = next(harvest.blocks(self._numbers)).values.float()
        if not len(first):
            raise ValueError("the held-out text has no token that is not special")
        if not first.isfinite().all():
            raise ValueError("the model's activations are not all finite numbers")
        if norms:
            harvest.outlier_norms = tuple(norms.get(hook, torch.inf) for hook in hooks)
        elif leaves_out(trained) or "imported" in trained.recipe:
            harvest.outlier_norms = outlier_norms(first, widths)
        self._norms = dict(zip(hooks, harvest.outlier_norms, strict=True)) if harvest.outlier_norms else {}
        self._lm_tokens = lm_tokens
        return harvest, hooks

    def _probed(self, harvest: Harvest, hooks: list[str]) -> dict[str, Any]:
        def told(stage: str, done: int, of: int) -> None:
            self._link.check()
            self._link.progress(stage, done, of)

        columns = dict(zip(hooks, harvest.columns(), strict=True))[self.trained.hook]
        spell = partial(token_bytes, self._lm.tokenizer)
        return probes(harvest, self._numbers, columns, self.trained.sae, spell, self._units.rows, told)

    def _losses(self) -> dict[str, Any]:
        trained, link = self.trained, self._link
        numbers = loss_windows(self._numbers, self._tokens)
        total, done = PASSES * len(numbers) * self._body.context, 0

        def heard(tokens: int) -> None:
            nonlocal done
            done += tokens
            link.check()
            link.progress("measure the model's loss", done, total, "tokens")

        hooks = list(self._norms) or list(dict.fromkeys([trained.hook, trained.hook_out]))
        norms = list(self._norms.values()) or None
        splice = Splice(self._lm, self._body, numbers, hooks, norms, self._lm_tokens, self._units, heard)
        out = trained.hook_out if trained.sae.transcodes else trained.hook
        return with_losses(trained.sae, splice, trained.hook, out)
