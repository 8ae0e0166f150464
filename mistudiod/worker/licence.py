"""What a card says of the licence, and how one is written on a card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

_MOST_CHARS = 200
# Identifiers that the Hub knows (https://huggingface.co/docs/hub/repositories-licenses); others it refuses.
_OF_THE_HUB = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
    lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
    pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other
    """.split()
)


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


def on_card(licence: str | None) -> dict[str, str]:
    """What the top of a card says of a licence; nothing of one that is not known."""
    if not licence:
        return {}
    if licence.lower() in _OF_THE_HUB:
        return {"license": licence.lower()}
    name = re.sub(r"[^a-z0-9.-]+", "-", licence.lower()).strip("-.")
    return {"license": "other"} | ({"license_name": name} if name else {})
