"""The question to an LLM what one feature stands for: a template, filled in with the evidence of the feature's page.

Pure. Evidence is what labels may be made from: no example of a held-out window is shown.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mistudiod.labelling.shown import escape, marked, quoted

__all__ = ["DEFAULT", "PLACEHOLDERS", "build", "check", "escape", "has_evidence", "marked", "shown_windows"]

DEFAULT = Path(__file__).parent / "templates" / "default.txt"
FIRED = 0.3  # of a text's strongest activation from which on a token is marked
BEFORE, AFTER = 24, 8  # tokens of a text around the one that it is about
STRONG, SPREAD, NEAR = 8, 6, 4  # texts
TOKENS, NEXT, PROMOTED, SUPPRESSED = 10, 6, 10, 5
PLACEHOLDERS = (
    "fired", "density", "top_tokens", "next_tokens", "promoted", "suppressed", "strong", "spread", "near",
)  # fmt: skip
_SECTION = re.compile(r"^---[ \t]*(\S*)[ \t]*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_ROLES = ("system", "user", "assistant")
Page = Mapping[str, Any]


def build(page: Page, template: str) -> list[dict[str, str]]:
    """The messages. Raises ValueError as ``check`` does."""
    evidence = _evidence(page)
    return [
        {"role": role, "content": _PLACEHOLDER.sub(lambda found: evidence[found[1]], text)}
        for role, text in check(template)
    ]


def check(template: str) -> list[tuple[str, str]]:
    """Roles and texts of a template's messages. Raises ValueError: one sentence saying what is wrong with it."""
    _, *parts = _SECTION.split(template)
    messages = [(role, text.strip()) for role, text in zip(parts[::2], parts[1::2], strict=True)]
    for role, text in messages:
        if role not in _ROLES:
            raise ValueError(f"the line --- {role} begins no message: write --- system, --- user or --- assistant")
        for name in _PLACEHOLDER.findall(text):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                raise ValueError(f"{{{name}}} is nothing that can be filled in: there are {known}")
    asked = [text for role, text in messages if role == "user"]
    if not any(asked):
        raise ValueError("it asks nothing: write a line --- user and below it the question")
    if not any(_PLACEHOLDER.search(text) for text in asked):
        raise ValueError("it shows no evidence: put {strong} or {top_tokens} below --- user")
    return messages


def has_evidence(page: Page) -> bool:
    """Whether there is a text in which the feature fires that a label may be made from."""
    return bool(_firing(page))


def shown_windows(page: Page) -> list[int]:
    """Numbers of the windows that ``build`` shows: what a label was made from."""
    strong = _strong(page)
    return sorted({one["window"] for one in (*strong, *_spread(page, strong), *_near(page))})


def _evidence(page: Page) -> dict[str, str]:
    strong, peak = _strong(page), page["max"]
    logits = page["logits"] or {"top": [], "bottom": []}
    return {
        "fired": f"{page['fired']:,}",
        "density": f"{100 * page['density']:.2g} %",
        "top_tokens": _lines(map(_top_token, page["for_labels"]["tokens"][:TOKENS])),
        "next_tokens": _next_tokens(page),
        "promoted": ", ".join(quoted(one["text"]) for one in logits["top"][:PROMOTED]) or "not known",
        "suppressed": ", ".join(quoted(one["text"]) for one in logits["bottom"][:SUPPRESSED]) or "not known",
        "strong": _lines(_text(one, peak) for one in strong),
        "spread": _lines(_text(one, peak) for one in _spread(page, strong)),
        "near": _lines(f"- {marked(_cut(one)[0], ())}" for one in _near(page)),
    }


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) or "- none"


def _top_token(one: Mapping[str, Any]) -> str:
    share, rate = _percent(one["share"]), _percent(one["rate"])
    return f"- {quoted(one['text'])}: {one['fired']:,} times, {share} of its firings; it fires on {rate} of all"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def _next_tokens(page: Page) -> str:
    following = [one["texts"][one["peak"] + 1] for one in _firing(page) if one["peak"] + 1 < len(one["texts"])]
    counts = Counter(text for text in following if text).most_common(NEXT)
    return _lines(f"- {quoted(text)} in {count} of {len(following)} texts" for text, count in counts)


def _text(one: Mapping[str, Any], peak: float) -> str:
    texts, activations = _cut(one)
    least = FIRED * max(activations)
    strength = min(10, max(1, math.ceil(10 * one["max"] / peak))) if peak > 0 else 1
    return f"- ({strength}) {marked(texts, [at for at, value in enumerate(activations) if value > least])}"


def _cut(one: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[float]]:
    part = slice(max(0, one["peak"] - BEFORE), one["peak"] + AFTER + 1)
    return one["texts"][part], one["activations"][part]


def _firing(page: Page) -> list[Mapping[str, Any]]:
    return [one for one in page["examples"] if one["kind"] != "near" and not one["held_out"]]


def _strong(page: Page) -> list[Mapping[str, Any]]:
    return _distinct(one for one in _firing(page) if one["kind"] == "top")[:STRONG]


def _spread(page: Page, strong: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Evenly over the strengths of those that are not among the strongest."""
    known = {_words(one) for one in strong}
    others = [one for one in _distinct(_firing(page)) if _words(one) not in known]
    others.sort(key=lambda one: -one["max"])
    if len(others) <= SPREAD:
        return others
    return [others[(len(others) - 1) * n // (SPREAD - 1)] for n in range(SPREAD)]


def _near(page: Page) -> list[Mapping[str, Any]]:
    return _distinct(one for one in page["examples"] if one["kind"] == "near" and not one["held_out"])[:NEAR]


def _distinct(examples: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The same snippet once."""
    return list({_words(one): one for one in reversed(list(examples))}.values())[::-1]


def _words(one: Mapping[str, Any]) -> str:
    return "".join(_cut(one)[0])
