"""What a label is worth without an LLM: do the tokens that it names tell on which tokens the feature fires? Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mistudiod.labelling.held_out import Drawn
from mistudiod.labelling.metrics import Measured, Verdict, measure
from mistudiod.labelling.patterns import KINDS, bare
from mistudiod.labelling.shown import visible
from mistudiod.pages import Pages

_NEXT = re.compile(r"[;(]\s*(next:|promotes ).*", re.DOTALL)  # what a description says there follows the tokens
_TICKED = re.compile(r"`([^`\n]+)`")
_QUOTED = re.compile(r"“([^”\n]{1,40})”|\"([^\"\n]{1,40})\"|(?<!\w)['‘]([^'’\n]{1,40})['’](?!\w)")
_WORD = re.compile(r"\w+")
_KIND = re.compile(rf"\b({'|'.join(name for name, _ in KINDS)})\b", re.IGNORECASE)
_HOLDS = {name.lower(): holds for name, holds in KINDS}
# Words that speak of features and texts, or mean nothing by themselves: no prose names a token by them.
_OF_PROSE = frozenset(
    "a an and are as at be before after by for from in into is it its of on or that the their this to when where "
    "which with feature features fires activates token tokens word words text texts such like other often mostly "
    "usually".split()
)
Means = Callable[[str], bool]  # whether a token, without the white space around it, is one that a label names


class Keyless:
    """Scores labels of one extraction by the tokens that they name (``meaning``).

    Of each text one token is judged, ``Text.place``: so they are as independent as the windows, half of the silent ones
    are hard, and an interval means what it says. A label that names no token predicts that the feature never fires:
    its balanced accuracy is 0.5 by construction, which says that tokens do not tell, not that the label is wrong.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._known: dict[int, str] = {}

    def score(self, label: Mapping[str, Any], drawn: Drawn) -> Measured:
        means = meaning(label)
        both = [(one, True) for one in drawn.fires] + [(one, False) for one in drawn.silent]
        found = measure([Verdict(100.0 * means(self._bare(one.ids[one.place])), fires) for one, fires in both])
        # There is one point on the curve of a yes or no: the area below it is the balanced accuracy itself.
        return replace(found, auroc=found.accuracy)

    def _bare(self, id: int) -> str:
        known = self._known.get(id)
        if known is None:
            known = self._known[id] = bare(self._pages.texts([id])[0])
        return known


def meaning(label: Mapping[str, Any]) -> Means:
    """Which tokens a label names, whatever it says of their surroundings.

    The words in `backticks` of its text; where there are none, a kind of tokens such as numbers; words in backticks of
    its explanation; words in quotes of either; at last, for it is prose, all words of both that could be a token's,
    upper and lower case alike.
    """
    text, explanation = (_NEXT.sub("", str(label.get(part) or "")) for part in ("text", "explanation"))
    if named := _named(_TICKED, text):
        return lambda token: _shown(token) in named
    if kind := _KIND.search(text):
        return _HOLDS[kind[1].lower()]
    for pattern, part in ((_TICKED, explanation), (_QUOTED, text), (_QUOTED, explanation)):
        if found := _named(pattern, part):
            return lambda token: _shown(token) in found
    words = {word.lower() for word in _WORD.findall(f"{text} {explanation}")} - _OF_PROSE
    return lambda token: token.lower() in words


def _named(pattern: re.Pattern[str], text: str) -> frozenset[str]:
    found = ("".join(match.groups(default="")) for match in pattern.finditer(text))
    return frozenset(word for one in found for word in one.split() or [_shown(one)])


def _shown(token: str) -> str:
    """As a label shows it in backticks."""
    return visible(token).replace("`", "ˋ")
