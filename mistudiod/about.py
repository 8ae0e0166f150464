"""What a person says of an SAE, in about.json beside it: tags and a note; and what it was called before."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mistudiod.paths import put_beside

ABOUT = "about.json"
FORMAT = 1
MOST_TAGS, TAG_CHARACTERS, NOTE_CHARACTERS = 50, 40, 10_000
_EARLIER = 20  # names that it had


def check_tag(tag: str) -> str:
    """Raises ValueError, in words that follow the name of a field."""
    if not 1 <= len(tag) <= TAG_CHARACTERS:
        raise ValueError(f"must have 1 to {TAG_CHARACTERS} characters")
    if any(character.isspace() or character == "," or _steers(character) for character in tag) or tag[0] in "+-":
        raise ValueError("must be a word: no blanks, commas or control characters, and no + or - in front")
    return tag


def check_note(note: str | None) -> str | None:
    """As ``check_tag``."""
    if note is not None and len(note) > NOTE_CHARACTERS:
        raise ValueError(f"must have {NOTE_CHARACTERS:,} characters at most")
    if any(_steers(character) and character not in "\n\t" for character in note or ""):
        raise ValueError("must hold no control characters")
    return note


def said(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """``{"tags", "note", "earlier"}`` out of an about.json, whose parts are left out where they are none."""
    found = found or {}
    note = found.get("note")
    lists = {name: value for name in ("tags", "earlier") if (value := _texts(found.get(name)))}
    return {**lists, **({"note": note} if isinstance(note, str) and note else {})}


def read(folder: Path) -> dict[str, Any]:
    """As ``said``, of the SAE in a folder; nothing where its about.json is damaged."""
    try:
        found = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said(found if isinstance(found, dict) else None)


def known_as(name: str, info: Mapping[str, Any]) -> set[str]:
    """What an SAE is called, was when it was trained, and at any time since. ``info``: its recipe and ``said``."""
    spec = info.get("spec")
    trained = spec.get("name") if isinstance(spec, dict) else None
    return {name, *info.get("earlier", ()), *([trained] if isinstance(trained, str) else [])}


def edited(about: Mapping[str, Any], add: Iterable[str], remove: Iterable[str], **note: str | None) -> dict[str, Any]:
    """``about`` with other tags, in their order, and with the note if one is given. Raises ValueError."""
    gone = set(remove)
    tags = [tag for tag in dict.fromkeys([*about.get("tags", ()), *add]) if tag not in gone]
    if len(tags) > MOST_TAGS:
        raise ValueError(f"an SAE has {MOST_TAGS} tags at most")
    return said({**about, "tags": tags, **note})


def called(about: Mapping[str, Any], was: str, name: str) -> dict[str, Any]:
    """``about`` of an SAE that was called ``was``, and now ``name``."""
    before = [one for one in about.get("earlier", ()) if one not in (was, name)]
    return said({**about, "earlier": [*before, was][-_EARLIER:]})


def write(folder: Path, about: Mapping[str, Any]) -> None:
    """Whole or not at all; the folder stays as old as it was. Raises OSError."""
    put_beside(folder, ABOUT, json.dumps({"format": FORMAT, **about}, indent=1, ensure_ascii=False) + "\n")


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _steers(character: str) -> bool:
    """Whether it is a control character or half of one that UTF-16 writes as two."""
    return unicodedata.category(character) in ("Cc", "Cs")
