"""How a source with very many SAEs is looked at: into the first of them, and of the others at the paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mistudiod.engine.formats.base import LOOKED_INTO, Found, look_at


def look_into(
    candidates: Sequence[str], one: Callable[[str], Found | None], unseen: Callable[[str], Found]
) -> list[Found]:
    """What ``one`` makes of the first candidates, by their insides; when any is one, ``unseen`` of the others."""
    found = look_at(candidates[:LOOKED_INTO], one)
    return found + [unseen(candidate) for candidate in candidates[LOOKED_INTO:]] if found else []


def number_in(text: str, pattern: str) -> int | None:
    """The last number that ``pattern`` has a group for, as a layer in a path."""
    numbers = re.findall(pattern, text, re.IGNORECASE)
    return int(numbers[-1]) if numbers else None
