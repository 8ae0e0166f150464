"""Run an SAE on held-out text in every way in which it may have been meant, and keep what comes of it beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from mistudiod.engine.certificate import figures, holds, sentences, stated
from mistudiod.engine.certify import Bench, Body, Declared, certify
from mistudiod.engine.held_out import with_text
from mistudiod.engine.splice import Loss
from mistudiod.engine.tokens import TokenWindows
from mistudiod.engine.tried import LEAST, SURE
from mistudiod.specs import Certify
from mistudiod.worker.beside import hashes_of, keep, made_of
from mistudiod.worker.certify_repair import written_as_meant
from mistudiod.worker.held_out_text import check_hooks, find_text
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.train_source import held_out_windows
from mistudiod.worker.trained import load, open_trained

CERTIFICATE = "certificate.json"
FORMAT = 1  # of certificates
RESULT = ("sae", "holds", "verdict", "best", "declared", "tried", "stated", "tokens", "tokenization", "repaired")
# Without names: the SAE may have another when they are read.
_REPAIR = "nothing was changed: certify it with --repair, and another SAE is written that way"
_REPAIRED = "another SAE is written that way; this one stays as it is"


def run(spec: Certify, link: Link) -> None:
    """Write ``saes/<sae>/certificate.json`` and, with ``repair``, where another way holds, ``saes/<sae>-repaired/``.

    Raises Refused, DiskFull, Asked.
    """
    job = _Certification(spec, link)
    certificate = job.certificate()
    keep(job.trained.folder, CERTIFICATE, certificate)
    if spec.repair and certificate["holds"] == "other":
        written_as_meant(spec, job.bench, job.outcome, job.trained, certificate, link)
        link.artifact("sae", spec.repaired)
        certificate["repaired"] = spec.repaired
        keep(job.trained.folder, CERTIFICATE, certificate)
    link.artifact("sae", spec.sae)
    link.result({name: certificate[name] for name in RESULT})


class _Certification:
    """``outcome``: which way holds, on the text of ``bench``."""

    def __init__(self, spec: Certify, link: Link) -> None:
        self._spec, self._link, self._began = spec, link, time.monotonic()
        self.trained = open_trained(spec.sae, link)
        self._sha256 = hashes_of(self.trained)
        self._text = find_text(spec.tokenization, self.trained, link)
        check_hooks(spec.sae, self.trained, self.trained.sae.d_in, self.trained.sae.d_out)
        self._lm = load(Path(self.trained.model["path"]), self.trained.device, self.trained.precision, None, link,
                        ("sae", "sae"))  # fmt: skip
        try:
            self.bench = self._bench(self._text.windows)
            self.stated = stated(self.trained.recipe)
            self.outcome = certify(self.bench, self.stated.get("l0"))
            self._losses = self._measure_losses()
        except ValueError as error:
            raise Refused(f"{spec.sae} on {self._text.name}: {error}", "sae") from error

    def certificate(self) -> dict[str, Any]:
        """What is kept, JSON-ready."""
        outcome, trained, losses = self.outcome, self.trained, self._losses
        by = "its card" if "imported" in trained.recipe else "its training"
        return {
            "format": FORMAT,
            "sae": self._spec.sae,
            "holds": holds(outcome),
            "verdict": sentences(outcome, self.stated, by, losses, _REPAIRED if self._spec.repair else _REPAIR),
            "declared": figures(outcome.declared, outcome.declared, losses[0]),
            "best": figures(outcome.best, outcome.declared, losses[1]),
            "stated": self.stated,
            "tried": [figures(one, outcome.declared) for one in outcome.tried],
            "better": {"least": LEAST, "standard_errors": SURE},
            "hook": trained.hook,
            "hook_out": trained.hook_out,
            "tokenization": self._text.name,
            "tokens": outcome.tokens,
            "outliers_left_out": outcome.left_out,
            "ce_tokens": losses[0].tokens if losses[0] else None,
            "repaired": None,
            **made_of(trained, self._text, self._began, self._sha256),
        }

    def _bench(self, windows: TokenWindows) -> Bench:
        lm, trained = self._lm, self.trained
        begins = self._text.manifest["policy"]["bos"] is not None
        prepends = trained.sae.metadata.get("prepend_bos")
        bos = None if lm.leading is None else (begins if prepends is None else bool(prepends))
        numbers = with_text(windows, np.array(held_out_windows(windows)), self._spec.tokens)[0].astype(np.int64)

        def heard(came: int) -> None:
            self._link.check()
            self._link.progress("try ways", came, len(numbers) * windows.context, "tokens")

        body = Body(windows, begins, lm.facts.context - 1)
        return Bench(lm, body, numbers, Declared(trained.sae, trained.hook, trained.hook_out, bos), heard)

    def _measure_losses(self) -> tuple[Loss | None, Loss | None]:
        """Of the declared way and of the best."""
        outcome = self.outcome
        self._link.progress("measure the model's loss", 0, 2)
        declared = self.bench.loss(outcome.declared.way)
        self._link.check()
        best = declared if outcome.best is outcome.declared else self.bench.loss(outcome.best.way)
        self._link.progress("measure the model's loss", 2, 2)
        return declared, best
