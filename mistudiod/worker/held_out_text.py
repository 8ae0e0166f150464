"""The held-out text that an SAE is measured on, and whether its model has what it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudiod.engine.tokens import MANIFEST, TokenWindows
from mistudiod.facts import UnknownHook, UnknownModel, check_hook, read_facts
from mistudiod.paths import PARTIAL
from mistudiod.worker.extract_source import check_tokenizer
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.trained import Trained


@dataclass(frozen=True)
class HeldOutText:
    """A tokenization in the tokens of an SAE's model, with held-out windows."""

    name: str
    folder: Path
    manifest: dict[str, Any]  # tokenization.json
    windows: TokenWindows


def find_text(tokenization: str | None, trained: Trained, link: Link) -> HeldOutText:
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


def check_hooks(sae: str, trained: Trained) -> None:
    """Raises Refused unless the model has the SAE's hooks, as wide as the SAE is."""
    if not isinstance(trained.hook, str):
        raise Refused(f"{sae} does not say which hook it reads: add it again with --hook", "sae")
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
            raise Refused(f"{sae} {verb} {width} numbers, and {hook} of {model} has {found}", "sae")
