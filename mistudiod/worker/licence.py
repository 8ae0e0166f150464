"""What a card says of the licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

_MOST_CHARS = 200


def licence_in(folder: Path) -> str | None:
    """Of the README.md of a folder; None when there is none, or it says nothing."""
    try:
        return licence_of(metadata_load(folder / "README.md") or {})
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # no card, or none that can be read
        return None


def licence_of(card: Mapping[str, Any]) -> str | None:
    """Of "other" its name."""
    licence = card.get("license_name") if card.get("license") == "other" else None
    licence = licence or card.get("license")
    return licence[:_MOST_CHARS] if isinstance(licence, str) else None
