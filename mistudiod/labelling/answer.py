"""What an LLM has answered to ``prompt.build``: the label in it, however it is wrapped, or why there is none. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mistudiod.labelling.thinking import without_thinking

UNCLEAR = "unclear"  # a reason, and no error: the model sees no pattern
TOKENS = 400  # most of an answer that does not think
MOST_CHARS, MOST_WORDS = 120, 16  # of a label; eight words are asked for
_OWN_WORDS = 5  # so many may by chance stand in the instructions as well
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string"},
        "label": {"type": "string"},
        "confidence": {"type": "integer"},
        "unclear": {"type": "boolean"},
    },
    "required": ["explanation", "label", "confidence", "unclear"],
    "additionalProperties": False,
}
_READ_CHARS, _TRIES = 20_000, 50  # of an answer, and beginnings of objects in it
_EXPLANATION_CHARS = 1000
_REFUSAL = re.compile(
    r"\b(i'?m|i am|we'?re) (sorry|unable|not able)\b|\b(i|we) (can'?t|cannot|can not|won'?t|must decline)\b"
    r"|\bas an ai\b|\bunable to (help|assist|comply)\b|\bagainst (my|our) (policy|guidelines)\b",
    re.IGNORECASE,
)
_NO_PATTERN = {"unclear", "unknown", "none", "n/a", "no pattern", "no clear pattern", "unsure", "not clear"}
_COPIES = {
    "label",
    "the label",
    "a label",
    "short label",
    "string",
    "text",
    "...",
    "…",
    "at most 8 words",
    "your label",
}


class Unusable(Exception):
    """There is no label in the answer: why, in a few words that are the same for the same trouble."""


@dataclass(frozen=True)
class Answer:
    label: str
    explanation: str
    confidence: float | None  # 0 to 1; None when the model says none


def parse(text: str, instructions: str = "") -> Answer:
    """The label in an answer. ``instructions``: the question, whose words no label can be. Raises Unusable."""
    said = without_thinking(text)[-_READ_CHARS:]
    if not said:
        raise Unusable("the answer is empty")
    found = _object(said)
    if found is None:
        raise Unusable(
            "the model refused" if _REFUSAL.search(_plain_quotes(said)) else "there is no JSON in the answer"
        )
    label = _line(found.get("label"))
    if _is_true(found.get("unclear")) or label.lower().rstrip(".") in _NO_PATTERN:
        raise Unusable(UNCLEAR)
    _check(label, instructions)
    return Answer(label, _line(found.get("explanation"))[:_EXPLANATION_CHARS], _confidence(found.get("confidence")))


def _check(label: str, instructions: str) -> None:
    if not any(char.isalnum() or char in "`\"'“" for char in label):
        raise Unusable("there is no label in the answer")
    if _REFUSAL.search(_plain_quotes(label)):
        raise Unusable("the model refused")
    if label.lower().strip("<>[](). ") in _COPIES or (len(label.split()) > _OWN_WORDS and label in _line(instructions)):
        raise Unusable("the label is a copy of the instructions")
    if len(label) > MOST_CHARS or len(label.split()) > MOST_WORDS:
        raise Unusable("the label is too long")


def _object(text: str) -> dict[str, Any] | None:
    """The last JSON object with a label or with the word that there is none; mended where that is safe."""
    found = [one for one in _objects(text) if "label" in one or _is_true(one.get("unclear"))]
    if found:
        return found[-1]
    begun = text.find("{")
    if begun < 0:
        return None
    names = ("label", "explanation", "confidence", "unclear")
    fields = {name: value for name in names if (value := _field(text[begun:], name)) is not None}
    return fields if "label" in fields or _is_true(fields.get("unclear")) else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder, at = json.JSONDecoder(strict=False), 0
    for _ in range(_TRIES):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            at = end
            yield value
            yield from (inner for inner in value.values() if isinstance(inner, dict))


def _field(text: str, name: str) -> str | None:
    """A field of an object that is nearly JSON: single quotes, curly ones, commas too many, an end that is missing."""
    begin = rf"""(?:^|[{{,\s])["'“]?{name}["'”]?\s*:\s*"""
    patterns = (
        begin + r'"((?:[^"\\]|\\.)*)"',
        begin + r"'((?:[^'\\]|\\.|(?<=\w)'(?=\w))*)'(?=\s*(?:[,}]|$))",
        begin + r"“([^”]*)”",
        begin + r"([\w.%+-]+)",
    )
    for pattern in patterns:
        if found := re.search(pattern, text, re.DOTALL):
            return re.sub(
                r"\\(.)", lambda escaped: {"n": " ", "t": " "}.get(escaped[1], escaped[1]), found[1], flags=re.DOTALL
            )
    return None


def _line(value: object) -> str:
    """One line without anything invisible; without quotes around all of it and a full stop at its end."""
    if not isinstance(value, str):
        return ""
    text = " ".join("".join(char if char.isprintable() else " " for char in value).split())
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def _plain_quotes(text: str) -> str:
    return text.replace("’", "'")


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes"))


def _confidence(value: object) -> float | None:
    """A whole number is of 100, as is asked; a broken one of at most 1 is a share."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        if not (found := re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,10})?)\s*(%|/ ?100)?\s*", value)):
            return None
        value = float(found[1]) if "." in found[1] else int(found[1])
    if isinstance(value, float) and math.isnan(value):
        return None
    share = value if isinstance(value, float) and value <= 1 else min(value, 100) / 100
    return round(max(float(share), 0.0), 4)
