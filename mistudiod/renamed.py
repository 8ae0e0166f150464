"""JSON in which an SAE is called otherwise. Pure."""

from __future__ import annotations

from typing import Any


def renamed(value: Any, old: str, new: str) -> Any:
    """``value`` with the new name wherever a field ``sae`` is the old one, or is a key of a field ``sae_sha256``."""
    if isinstance(value, list):
        return [renamed(one, old, new) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: new if (name, one) == ("sae", old) else renamed(one, old, new) for name, one in value.items()}
    by_name = found.get("sae_sha256")
    if isinstance(by_name, dict) and old in by_name:
        found["sae_sha256"] = {new if name == old else name: one for name, one in by_name.items()}
    return found
