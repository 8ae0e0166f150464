"""The part of a card that says how an SAE is made, or got, again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mistudiod.specs import is_hub_id
from mistudiod.worker.shared import Shared

_RECIPE = ("spec", "resolved")  # of recipe.json, what makes the SAE again


def again(shared: Shared) -> str:
    """Commands for a studio that has nothing of it, and the recipe as ``mistudio train start --recipe`` takes it."""
    if shared.imported is not None:
        command = _added(shared, shared.imported)
        return command and f"## How to get it again\n\n```bash\n{command}\n```"
    recipe = {key: shared.recipe[key] for key in _RECIPE if key in shared.recipe}
    versions = ", ".join(f"{name} {version}" for name, version in (shared.recipe.get("versions") or {}).items())
    commands = [*(shlex.join(words) for words in _before(shared)), "mistudio train start --recipe recipe.json"]
    parts = [
        "## How to make it again",
        " ".join(["Save this as recipe.json.", *_unsaid(shared)]),
        f"```json\n{json.dumps(recipe, indent=1, allow_nan=False)}\n```",
        "```bash\n" + "\n".join(commands) + "\n```",
        f"Made with {versions or 'versions that are not known'}.",
    ]
    return "\n\n".join(parts)


def origin(imported: Mapping[str, Any]) -> tuple[str | None, str]:
    """The repository of the Hub, None when it is from elsewhere, and the path in it."""
    repo, _, path = str(imported.get("source") or "").partition(":")
    path = str(imported.get("path") or path)
    return (repo if is_hub_id(repo) else None), path if path.isprintable() else ""


def _added(shared: Shared, imported: Mapping[str, Any]) -> str:
    repo, path = origin(imported)
    if repo is None:
        return ""
    words = ["mistudio", "sae", "add", f"{repo}:{path}" if path else repo, "--name", shared.name]
    return shlex.join([*words, *_options({"revision": imported.get("revision")})])


def _before(shared: Shared) -> Iterator[list[str]]:
    """The model, the text and its tokens, as far as others can have them."""
    model, data, text = shared.model, shared.dataset, shared.recipe.get("tokenization") or {}
    if _is_public(model):
        more = {"name": model.get("name"), "revision": model.get("revision")}
        yield ["mistudio", "model", "add", str(model["source"]), *_options(more)]
    if _is_public(data):
        asked = data.get("asked")
        more = {"name": text.get("dataset"), **(asked if isinstance(asked, dict) else {})}
        yield ["mistudio", "dataset", "add", str(data["source"]), *_options(more)]
    if isinstance(settings := text.get("settings"), dict):
        more = {"model": text.get("model"), "name": text.get("name"), **settings}
        yield ["mistudio", "dataset", "tokenize", str(text.get("dataset")), *_options(more)]


def _unsaid(shared: Shared) -> Iterator[str]:
    """What the commands do not do, a sentence each."""
    recipe, text = shared.recipe, shared.recipe.get("tokenization") or {}
    for what, about, name in (
        ("model", shared.model, shared.model.get("name")),
        ("text", shared.dataset, text.get("dataset")),
    ):
        if not _is_public(about):
            yield f"The {what} {name} is from no public place, and must be in the studio under that name."
    if extends := (recipe.get("spec") or {}).get("extends"):
        yield f"It goes on from the SAE {extends}, which must be there as well."
    steps, planned = recipe.get("steps"), recipe.get("planned_steps")
    if isinstance(steps, int) and isinstance(planned, int) and steps < planned:
        yield (
            f"Its training was ended after {steps:,} of {planned:,} steps, and the recipe makes what it would have "
            "become."
        )


def _is_public(about: Mapping[str, Any]) -> bool:
    source = about.get("source")
    return isinstance(source, str) and (is_hub_id(source) or source.startswith("builtin:")) and source.isprintable()


def _options(given: Mapping[str, Any]) -> Iterator[str]:
    """As a command line has them; what was left open is left out."""
    for key, value in given.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{'' if value else 'no-'}{flag}"
        elif value is not None and str(value).isprintable():
            yield from (f"--{flag}", str(value))
