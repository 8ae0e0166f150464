"""Recipes (recipe.json beside an SAE): the spec that makes the SAE again, or that goes on with its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Recipe = Mapping[str, Any]
# What was chosen where the spec left it open, and must be the same for the same SAE.
_CHOSEN = ("precision", "forward_tokens", "buffer_tokens", "micro_tokens", "threads")
_OF_TEXT = ("windows", "tokens", "context")
_OF_MODEL = ("family", "parameters", "dtype", "revision")


def read(path: Path) -> dict[str, Any]:
    """Raises ValueError, in a sentence, when the file is no recipe."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    settled(found)
    return dict(found)


def settled(recipe: Any) -> dict[str, Any]:
    """The spec of a training with nothing left open that was chosen then. Raises ValueError."""
    spec = recipe.get("spec") if isinstance(recipe, Mapping) else None
    if not isinstance(spec, Mapping) or spec.get("kind") != "train":
        raise ValueError("this is no recipe of an SAE: it has no spec of a training")
    resolved = recipe.get("resolved")
    resolved = resolved if isinstance(resolved, Mapping) else {}
    chosen = {
        name: resolved[name]
        for name in _CHOSEN
        if spec.get(name) in (None, "auto") and resolved.get(name) not in (None, "auto")
    }
    return {**spec, **chosen}


def again(recipe: Recipe, name: str | None = None) -> dict[str, Any]:
    """The spec that makes it again. Raises ValueError."""
    return {**settled(recipe), **({"name": name} if name else {})}


def extended(recipe: Recipe, tokens: int, name: str) -> dict[str, Any]:
    """The spec that goes on with it, up to ``tokens`` in all. Raises ValueError."""
    spec, sae = settled(recipe), str(recipe.get("name") or recipe.get("sae"))
    if (seen := recipe.get("tokens")) and tokens <= seen:
        raise ValueError(f"{sae} has been trained on {seen:,} tokens already, and {tokens:,} in all are no more")
    return {**spec, "name": name, "extends": sae, "tokens": tokens, "steps": None}


def differences(recipe: Recipe, tokenization: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """A sentence on what is not here as it was then; empty when all that can be compared is the same."""
    then, read_by = recipe.get("tokenization") or {}, recipe.get("model") or {}
    facts = ["fingerprint"] if then.get("fingerprint") and tokenization.get("fingerprint") else _OF_TEXT
    found = []
    if any(then.get(fact) != tokenization.get(fact) for fact in facts):
        found.append(f"the tokenization {tokenization['name']} was made of other text or in another way")
    weights = read_by.get("weights")
    size = sum(one["bytes"] for one in weights.values()) if isinstance(weights, Mapping) else None
    changed = [fact for fact in _OF_MODEL if fact in read_by and read_by[fact] != model.get(fact)]
    if changed or (size is not None and model.get("size_bytes") not in (None, size)):
        found.append(
            f"the model {model['name']} is another one{f' ({_both(changed[0], read_by, model)})' if changed else ''}"
        )
    return f"the SAE will not be the one of the recipe: {', and '.join(found)}" if found else ""


def _both(fact: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{fact} {now.get(fact)}, not {then.get(fact)}"
