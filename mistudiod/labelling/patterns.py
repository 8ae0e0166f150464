"""What tokens and the places at which they stand have in common, in plain words. Pure."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence

_CODE = re.compile(r"\w\(|\w = |[{};]|->|\w\.\w|^\s*(?:import|from|def|class|return|if|for) ", re.MULTILINE)
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


def bare(text: str) -> str:
    """A token without the white space around it; white space itself stays."""
    return text.strip() or text


def _all_in(chars: str) -> Callable[[str], bool]:
    return lambda text: bool(text) and all(char in chars for char in text)


# The narrow ones first: what a token is, by its text without white space around it.
KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("line breaks", lambda text: text.isspace() and "\n" in text),
    ("indentation", lambda text: text.isspace() and len(text) > 1),
    ("spaces", str.isspace),
    ("numbers", lambda text: text.replace(".", "").replace("_", "").isdigit()),
    ("closing brackets", _all_in(")]}")),
    ("opening brackets", _all_in("([{")),
    ("brackets", _all_in("()[]{}")),
    ("quotes", _all_in("'\"`")),
    ("operators", _all_in("=+-*/%<>!&|^~@")),
    ("Python keywords", lambda text: keyword.iskeyword(text)),
    ("punctuation", lambda text: bool(text) and not any(char.isalnum() or char.isspace() for char in text)),
    ("words in capitals", lambda text: len(text) > 1 and text.isupper()),
    ("capitalised words", lambda text: text[:1].isupper() and text[1:].islower()),
    ("letters beyond ASCII", lambda text: text.isalpha() and not text.isascii()),
    ("single letters", lambda text: len(text) == 1 and text.isalpha()),
    ("names with _", lambda text: "_" in text and bool(_IDENTIFIER.fullmatch(text))),
)  # fmt: skip


def is_word(text: str) -> bool:
    return bool(_IDENTIFIER.fullmatch(text))


def starts_line(before: str, token: str) -> bool:
    """Whether nothing but white space stands between the token and a line break before it."""
    blank = token[: len(token) - len(token.lstrip())]
    line = (before + blank).rpartition("\n")
    return bool(line[1]) and not line[2].strip() and not (token.isspace() and "\n" in token)


def inside(before: str) -> str:
    """What a line of code is in the middle of: "a comment", "a string", or nothing ("")."""
    if before.count('"""') % 2 or before.count("'''") % 2:
        return "a docstring"
    quote, escaped = "", False
    for char in before.rpartition("\n")[2]:
        if escaped:
            escaped = False
        elif quote:
            escaped = char == "\\"
            quote = "" if char == quote else quote
        elif char == "#":
            return "a comment"
        elif char in "\"'":
            quote = char
    return "a string" if quote else ""


def looks_like_code(texts: Sequence[str]) -> bool:
    return sum(bool(_CODE.search(text)) for text in texts) * 2 > len(texts)
