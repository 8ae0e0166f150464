"""The held-out text that an SAE is measured on, and whether its model has what it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.certify import Body
from mistudiod.engine.lm import LM
from mistudiod.engine.tokens import MANIFEST, TokenWindows
from mistudiod.facts import UnknownHook, UnknownModel, check_hook, read_facts
from mistudiod.paths import PARTIAL
from mistudiod.worker.extract_source import check_tokenizer
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.train_measure import SPLICE_TOKENS
from mistudiod.worker.trained import Known

LOSS_SHARE = 4  # of the tokens a quarter: for its loss the whole model reads each seven times


@dataclass(frozen=True)
class HeldOutText:
    """A tokenization in the tokens of an SAE's model, with held-out windows."""

    name: str
    folder: Path
    manifest: dict[str, Any]  # tokenization.json
    windows: TokenWindows


def find_text(tokenization: str | None, trained: Known, link: Link) -> HeldOutText:
    """The one that is asked for, else that of the SAE's training, else the newest of its model. Raises Refused."""
    name = tokenization or _usual(trained, link)
    folder = link.paths.artifact("tokenization", name)
    field = "tokenization" if tokenization else "sae"
    try:
        windows = TokenWindows(folder)
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refused(str(error), field) from error
    check_tokenizer(name, found, trained, field)
    if not windows.held_out:
        raise Refused(f"the tokenization {name} has no held-out text: tokenize more text", field)
    return HeldOutText(name, folder, found, windows)


def _usual(trained: Known, link: Link) -> str:
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


def check_hooks(sae: str, trained: Known, d_in: int, d_out: int) -> None:
    """Raises Refused unless the model has the SAE's hooks, as wide as the SAE is."""
    if not isinstance(trained.hook, str):
        raise Refused(f"{sae} does not say which hook it reads: add it again with --hook", "sae")
    for hook, width, verb in (
        (trained.hook, d_in, "reads"),
        (trained.hook_out, d_out, "rebuilds"),
    ):
        try:
            found = check_hook(read_facts(Path(trained.model["path"])), hook)
        except (UnknownModel, UnknownHook, ValueError) as error:
            raise Refused(str(error), "sae") from error
        if found != width:
            model = trained.model["name"]
            raise Refused(f"{sae} {verb} {width} numbers, and {hook} of {model} has {found}", "sae")


def body_of(text: HeldOutText, lm: LM, prepends: object) -> tuple[Body, bool]:
    """The windows with BOS or without, as an SAE's ``prepend_bos`` says, else as they are; and whether they have it."""
    first = text.manifest["policy"]["bos"]
    begins = first is not None
    bos = begins if lm.leading is None or prepends is None else bool(prepends)
    lead = (first if begins else lm.leading) if bos else None
    return Body(text.windows, begins, lm.facts.context - bos, lead), bos


def loss_windows(numbers: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """Of windows with ``tokens`` text tokens those that the model's loss is measured on."""
    return numbers[:: max(1, -(-tokens // max(SPLICE_TOKENS, tokens // LOSS_SHARE)))]
