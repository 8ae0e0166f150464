"""What a reasoning model says to itself before it answers."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"<(think|thinking|thought|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)


def without_thinking(text: str) -> str:
    """``text`` without ``<think>`` blocks, also one that does not end, and one whose beginning the template ate."""
    text = _BLOCK.sub("", text)
    return _END.split(text)[-1].strip()
