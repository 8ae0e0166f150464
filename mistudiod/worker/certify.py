"""Run an SAE on held-out text in every way in which it may have been meant, and keep what comes of it beside it."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.certificate import figures, holds, sentences, stated
from mistudiod.engine.certify import Bench, Body, Declared, certify
from mistudiod.engine.held_out import with_text
from mistudiod.engine.splice import Loss
from mistudiod.engine.tokens import MANIFEST, TOKENS, TokenWindows
from mistudiod.engine.tried import LEAST, SURE
from mistudiod.facts import UnknownHook, UnknownModel, check_hook, read_facts
from mistudiod.paths import PARTIAL
from mistudiod.specs import Certify
from mistudiod.worker.certify_repair import written_as_meant
from mistudiod.worker.extract_source import check_tokenizer
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.recipe import origins, sha256_of
from mistudiod.worker.train_source import held_out_windows
from mistudiod.worker.trained import Trained, load, open_trained

CERTIFICATE = "certificate.json"
FORMAT = 1  # of certificates
RESULT = ("sae", "holds", "verdict", "best", "declared", "tried", "stated", "tokens", "tokenization", "repaired")


def run(spec: Certify, link: Link) -> None:
    """Write ``saes/<sae>/certificate.json`` and, with ``repair``, where another way holds, ``saes/<sae>-repaired/``.

    Raises Refused, DiskFull, Asked.
    """
    job = _Certification(spec, link)
    certificate = job.certificate()
    keep(job.trained.folder, certificate)
    if spec.repair and certificate["holds"] == "other":
        written_as_meant(spec, job.bench, job.outcome, job.trained, certificate, link)
        link.artifact("sae", spec.repaired)
        certificate["repaired"] = spec.repaired
        keep(job.trained.folder, certificate)
    link.artifact("sae", spec.sae)
    link.result({name: certificate[name] for name in RESULT})


def keep(folder: Path, certificate: dict[str, Any]) -> None:
    """Write the certificate into an SAE's folder, whole or not at all; the folder stays as old as it was."""
    was = folder.stat()
    partial = folder.parent / f"{PARTIAL}{folder.name}-{os.getpid()}"
    partial.mkdir()
    try:
        with (partial / CERTIFICATE).open("w", encoding="utf-8") as file:
            file.write(json.dumps(certificate, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        (partial / CERTIFICATE).replace(folder / CERTIFICATE)
        os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Certification:
    """``outcome``: which way holds, on the text of ``bench``."""

    def __init__(self, spec: Certify, link: Link) -> None:
        self._spec, self._link, self._began = spec, link, time.monotonic()
        self.trained = open_trained(spec.sae, link)
        hashed = ("cfg.json", self.trained.weights.name)
        self._sha256 = {name: sha256_of(self.trained.folder / name) for name in hashed}
        self._name, self._tokenization, windows = _text(spec, self.trained, link)
        _check_hooks(spec, self.trained)
        self._lm = load(Path(self.trained.model["path"]), self.trained.device, self.trained.precision, None, link,
                        ("sae", "sae"))  # fmt: skip
        try:
            self.bench = self._bench(windows)
            self.stated = stated(self.trained.recipe)
            self.outcome = certify(self.bench, self.stated.get("l0"))
            self._losses = self._measure_losses()
        except ValueError as error:
            raise Refused(f"{spec.sae} on {self._name}: {error}", "sae") from error

    def certificate(self) -> dict[str, Any]:
        """What is kept, JSON-ready."""
        outcome, trained, losses = self.outcome, self.trained, self._losses
        folder = self._link.paths.artifact("tokenization", self._name)
        found = origins(self._tokenization, folder, trained.model)
        by = "its card" if "imported" in trained.recipe else "its training"
        return {
            "format": FORMAT,
            "sae": self._spec.sae,
            "holds": holds(outcome),
            "verdict": sentences(outcome, self.stated, by, losses, self._repair()),
            "declared": figures(outcome.declared, outcome.declared, losses[0]),
            "best": figures(outcome.best, outcome.declared, losses[1]),
            "stated": self.stated,
            "tried": [figures(one, outcome.declared) for one in outcome.tried],
            "better": {"least": LEAST, "standard_errors": SURE},
            "hook": trained.hook,
            "hook_out": trained.hook_out,
            "tokenization": self._name,
            "tokens": outcome.tokens,
            "outliers_left_out": outcome.left_out,
            "ce_tokens": losses[0].tokens if losses[0] else None,
            "repaired": None,
            "sha256": {
                "sae": self._sha256,
                "model": found["model"]["weights"],
                "tokens": found["data"][TOKENS],
            },
            "device": trained.device.type,
            "precision": trained.precision,
            "versions": found["versions"],
            "code": found["code"],
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "seconds": time.monotonic() - self._began,
        }

    def _bench(self, windows: TokenWindows) -> Bench:
        lm, trained = self._lm, self.trained
        begins = self._tokenization["policy"]["bos"] is not None
        prepends = trained.sae.metadata.get("prepend_bos")
        bos = None if lm.leading is None else (begins if prepends is None else bool(prepends))
        numbers = _numbers(windows, self._spec.tokens)

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

    def _repair(self) -> str:
        name, repaired = self._spec.sae, self._spec.repaired
        if self._spec.repair:
            return f"{repaired} is written that way; {name} stays as it is"
        return f"nothing was changed: mistudio sae certify {name} --repair writes {repaired} that way"


def _text(spec: Certify, trained: Trained, link: Link) -> tuple[str, dict[str, Any], TokenWindows]:
    """The tokenization: its name, its manifest, its windows. Raises Refused."""
    name = spec.tokenization or _usual(trained, link)
    folder = link.paths.artifact("tokenization", name)
    field = "tokenization" if spec.tokenization else "sae"
    try:
        windows = TokenWindows(folder)
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refused(str(error), field) from error
    check_tokenizer(name, found, trained, field)
    if not windows.held_out:
        raise Refused(f"the tokenization {name} has no held-out text: tokenize more text", field)
    return name, found, windows


def _usual(trained: Trained, link: Link) -> str:
    """That of the SAE's training, else the newest of its model. Raises Refused when there is none."""
    own, model = trained.recipe["spec"].get("tokenization"), trained.model["name"]
    if own and (link.paths.artifact("tokenization", own) / MANIFEST).is_file():
        return str(own)
    known = link.paths.folder("tokenization").glob(f"*/{MANIFEST}")
    for path in sorted((one for one in known if PARTIAL not in str(one)), key=_made, reverse=True):
        try:
            if json.loads(path.read_text(encoding="utf-8"))["model"] == model:
                return path.parent.name
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise Refused(
        f"there is no text for {model} to run it on: tokenize one, mistudio dataset tokenize DATASET --model {model}",
        "sae",
    )


def _made(path: Path) -> float:
    return path.stat().st_mtime


def _check_hooks(spec: Certify, trained: Trained) -> None:
    """Raises Refused unless the model has the SAE's hooks, as wide as the SAE is."""
    if not isinstance(trained.hook, str):
        raise Refused(f"{spec.sae} does not say which hook it reads: add it again with --hook", "sae")
    for hook, width, verb in (
        (trained.hook, trained.sae.d_in, "reads"),
        (trained.hook_out, trained.sae.d_out, "rebuilds"),
    ):
        try:
            found = check_hook(read_facts(Path(trained.model["path"])), hook)
        except (UnknownModel, UnknownHook, ValueError) as error:
            raise Refused(str(error), "sae") from error
        if found != width:
            model = trained.model["name"]
            raise Refused(f"{spec.sae} {verb} {width} numbers, and {hook} of {model} has {found}", "sae")


def _numbers(windows: TokenWindows, tokens: int) -> NDArray[np.int64]:
    return with_text(windows, np.array(held_out_windows(windows)), tokens)[0].astype(np.int64)
