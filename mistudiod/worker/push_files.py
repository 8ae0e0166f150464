"""What of an SAE is published: its files as they lie, and its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mistudiod.specs import is_hub_id
from mistudiod.worker.link import Link, Refused

CARD = "README.md"
_NEEDED = ("cfg.json", "sae_weights.safetensors")
_KNOWN = ("sparsity.safetensors",)  # where it is known
_FACTS = ("architecture", "hook", "hook_out", "width", "k", "l0", "fvu", "alive", "tokens")


def published(sae: str, link: Link) -> dict[str, Path]:
    """Name in the repository → file. The card is written into the run folder. Raises Refused."""
    folder, recipe = link.paths.artifact("sae", sae), recipe_of(sae, link)
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise Refused(f"{sae} cannot be published without its {' and its '.join(missing)}: make it again", "sae")
    card = link.run / CARD
    card.write_text(_card(sae, recipe), encoding="utf-8")
    found = {name: folder / name for name in (*_NEEDED, *_KNOWN) if (folder / name).is_file()}
    return found | {CARD: card}


def recipe_of(sae: str, link: Link) -> dict[str, Any]:
    """recipe.json. Raises Refused."""
    try:
        found: dict[str, Any] = json.loads((link.paths.artifact("sae", sae) / "recipe.json").read_text())
    except FileNotFoundError:
        raise Refused(f"there is no SAE called {sae}: train one or add one first", "sae") from None
    except ValueError as error:
        raise Refused(f"the recipe.json of {sae} is damaged ({error}): make it again", "sae") from error
    return found


def _card(sae: str, recipe: dict[str, Any]) -> str:
    source = str((recipe.get("model") or {}).get("source") or "")
    about: dict[str, Any] = {"library_name": "saelens", "tags": ["sparse-autoencoder", "saelens", "mistudio"]}
    if is_hub_id(source):
        about["base_model"] = source
    facts = [f"- {name.replace('_', ' ')}: {recipe[name]}" for name in _FACTS if recipe.get(name) is not None]
    head = "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items())  # JSON is YAML
    return "\n".join(["---", head, "---", f"# {sae}", "", "A sparse autoencoder.", "", *facts, ""])
