"""The label of a feature without an LLM: what its page says of the tokens on which it fires, in plain words. Pure.

Words in `backticks` are tokens on which the feature fires, exactly, without the spaces around them (white space itself
as ``visible`` shows it): scores without an LLM read them. Tokens of the surroundings stand in “quotes”. A description
of a kind of tokens, such as numbers, has its commonest tokens in backticks in the explanation. Nothing is taken from
examples of held-out windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistudiod.labelling.patterns import KINDS, bare, inside, is_word, looks_like_code, starts_line
from mistudiod.labelling.shown import visible

MOST_CHARS = 200  # of a text
DENSE = 0.1  # share of tokens from which on a feature tells little of any of them
_MOSTLY, _NEARLY_ALL, _OFTEN = 0.75, 0.8, 0.6  # shares of firings
_FEW, _SEVERAL, _LISTED = 3, 5, 12  # tokens that are named instead of their kind; at all; in an explanation
_AGREES = 0.3  # share of examples that go on with a promoted token
_FEWEST_PLACES = 5  # of which anything is said in common
_LONGEST_TOKEN = 30  # characters
Page = Mapping[str, Any]


@dataclass(frozen=True)
class _Token:
    text: str
    share: float  # of all firings
    rate: float  # on which share of its occurrences the feature fires


@dataclass(frozen=True)
class _Place:
    """Where the feature fires in one example."""

    before: str
    last: str  # the token before, spaces left aside
    token: str
    next: str
    is_first: bool  # of its window
    is_top: bool  # one of the strongest


@dataclass(frozen=True)
class _Subject:
    """``share`` of the firings is what the words account for; ``places`` are those that they are about."""

    words: str
    share: float
    places: Sequence[_Place]
    is_mixed: bool = False


def describe(page: Page) -> dict[str, Any]:
    """``{"text", "explanation", "confidence"}``: the text has 200 characters at most, the confidence is 0 to 1, as
    large as the share of firings that the text accounts for.
    """
    if page["dead"]:
        return {"text": "dead: fires on none of the tokens read", "explanation": "", "confidence": 1.0}
    if not page["for_labels"]["fired"]:
        text = "fires too rarely to be described: all its texts are kept for scoring"
        return {"text": text, "explanation": "", "confidence": 0.0}
    tokens, places = _tokens(page), _places(page)
    subject = _subject(tokens, places)
    is_dense = page["density"] >= DENSE
    text = f"fires on {_percent(page['density'])} of tokens: {subject.words}" if is_dense else f"fires {subject.words}"
    text += "".join(f" {phrase}" for phrase in _context(subject.places))
    following, promoted = _next(subject), _promoted(page, subject.places)
    for part in (following and f"; next: {following}", promoted and f"; promotes {promoted}"):
        if part and len(text + part) <= MOST_CHARS:
            text += part
    return {
        "text": text[:MOST_CHARS],
        "explanation": _explanation(page, tokens),
        "confidence": round(subject.share * (0.5 if is_dense else 1.0), 2),
    }


def _tokens(page: Page) -> list[_Token]:
    """The tokens on which it fires most; those that differ in spaces only are one."""
    counts: dict[str, list[int]] = {}
    for one in page["for_labels"]["tokens"]:
        counted = counts.setdefault(bare(one["text"]), [0, 0])
        counted[0] += one["fired"]
        counted[1] += one["read"]
    all_fired = page["for_labels"]["fired"]
    found = [_Token(text, fired / all_fired, fired / max(read, 1)) for text, (fired, read) in counts.items()]
    return sorted(found, key=lambda token: -token.share)


def _places(page: Page) -> list[_Place]:
    found = []
    for one in page["examples"]:
        if one["kind"] != "near" and not one["held_out"]:
            texts, peak = one["texts"], one["peak"]
            following = texts[peak + 1] if peak + 1 < len(texts) else ""
            last = next((text for text in reversed(texts[:peak]) if text.strip() or "\n" in text), "")
            is_first = one["first"] + peak == 0
            found.append(_Place("".join(texts[:peak]), last, texts[peak], following, is_first, one["kind"] == "top"))
    return found


def _subject(tokens: Sequence[_Token], places: Sequence[_Place]) -> _Subject:
    """A few tokens by name, or the kind of nearly all, or those of its strongest firings, or the commonest of many."""
    for named in (_named(tokens, _FEW, places), _kind(tokens, places), _named(tokens, _SEVERAL, places)):
        if named:
            return named
    strongest = _strongest(tokens, [place for place in places if place.is_top])
    if strongest:
        return strongest
    first = tokens[:_FEW]
    are_parts = _common(places, lambda place: place.before[-1:].isalnum() and place.token[:1].isalnum())
    what = (
        "parts of words"
        if are_parts
        else "words"
        if _common(places, lambda place: is_word(bare(place.token)))
        else "tokens"
    )
    words = f"on various {what}, most often {_list(first)}" if first else f"on various {what}"
    return _Subject(words, sum(token.share for token in first), places, is_mixed=True)


def _named(tokens: Sequence[_Token], most: int, places: Sequence[_Place]) -> _Subject | None:
    share = 0.0
    for count, token in enumerate(tokens[:most], 1):
        share += token.share
        if share >= _MOSTLY:
            named = tokens[:count]
            rate = sum(one.rate * one.share for one in named) / share
            every = "every " if rate >= 0.95 and count == 1 else "some " if rate < 0.3 else ""
            return _Subject(f"on {every}{_list(named)}", min(share, 1.0), places)
    return None


def _kind(tokens: Sequence[_Token], places: Sequence[_Place]) -> _Subject | None:
    """Counted over the tokens that are known by name; of the other firings the examples speak."""
    listed = {token.text for token in tokens}
    others = [bare(place.token) for place in places if bare(place.token) not in listed]
    left = max(0.0, 1.0 - sum(token.share for token in tokens))
    for name, holds in KINDS:
        share = sum(token.share for token in tokens if holds(token.text))
        share += left * sum(map(holds, others)) / len(others) if others else 0.0
        if share >= _NEARLY_ALL:
            return _Subject(f"on {name}", min(share, 1.0), places)
    return None


def _strongest(tokens: Sequence[_Token], top: Sequence[_Place]) -> _Subject | None:
    """Many features are pure where they are strong, and fire weakly on much else."""
    if len(top) < _FEWEST_PLACES:
        return None
    counted = Counter(bare(place.token) for place in top)
    shares = {token.text: token.share for token in tokens}
    for most in range(1, _FEW + 1):
        first = [text for text, _ in counted.most_common(most)]
        if sum(counted[text] for text in first) >= _MOSTLY * len(top):
            named = [_Token(text, shares.get(text, 0.0), 0.0) for text in first]
            return _Subject(f"strongest on {_list(named)}", sum(one.share for one in named), top)
    for name, holds in KINDS:
        count = sum(holds(bare(place.token)) for place in top)
        if count >= _NEARLY_ALL * len(top):
            share = sum(token.share for token in tokens if holds(token.text))
            return _Subject(f"strongest on {name}", share, top)
    return None


def _context(places: Sequence[_Place]) -> list[str]:
    if _common(places, lambda place: place.is_first):
        return ["at the beginning of a window"]
    phrases = []
    if _common(places, lambda place: starts_line(place.before, place.token)):
        phrases.append("at line start")
    elif last := _most_common([bare(place.last) for place in places if place.last.strip()], len(places)):
        phrases.append(f"after “{visible(last)}”")
    where = Counter(inside(place.before) for place in places).most_common(1)
    if where and where[0][0] and len(places) >= _FEWEST_PLACES and where[0][1] >= _NEARLY_ALL * len(places):
        phrases.append(f"in {where[0][0]}")
    return phrases


def _next(subject: _Subject) -> str:
    following = [bare(place.next) for place in subject.places if place.next]
    one = _most_common(following, len(following))
    if one:
        return f"“{visible(one)}”"
    if len(following) < _FEWEST_PLACES or subject.is_mixed:
        return ""
    for name, holds in KINDS:
        if sum(map(holds, following)) >= _NEARLY_ALL * len(following):
            return name
    if sum(map(is_word, following)) >= _NEARLY_ALL * len(following):
        return "names" if looks_like_code([place.before for place in subject.places]) else "words"
    return ""


def _promoted(page: Page, places: Sequence[_Place]) -> str:
    """The tokens that the feature makes likelier, three at most; none unless the text goes on with such ones."""
    if not page["logits"] or len(places) < _FEWEST_PLACES:
        return ""
    promoted = dict.fromkeys(bare(one["text"]) for one in page["logits"]["top"] if one["value"] > 0)
    following = Counter(bare(place.next) for place in places)
    if sum(following[text] for text in promoted) < _AGREES * len(places):
        return ""
    shown = [text for text in promoted if following[text] and len(text) <= _LONGEST_TOKEN]
    return ", ".join(f"“{visible(text)}”" for text in shown[:_FEW])


def _explanation(page: Page, tokens: Sequence[_Token]) -> str:
    shares = [f"`{_shown(one)}` {_percent(one.share)}" for one in tokens if _is_short(one)][:_LISTED]
    said = f"Fires on {_percent(page['density'])} of tokens."
    if shares:
        said += f" Of its firings: {', '.join(shares)}."
    if tokens:
        said += f" On “{_shown(tokens[0])}” it fires {_percent(tokens[0].rate)} of the time."
    if page["logits"]:
        top = ", ".join(f"“{visible(bare(one['text']))}”" for one in page["logits"]["top"][:_SEVERAL])
        said += f" Most promoted: {top}."
    return said


def _common(places: Sequence[_Place], holds: Callable[[_Place], bool]) -> bool:
    return len(places) >= _FEWEST_PLACES and sum(map(holds, places)) >= _NEARLY_ALL * len(places)


def _most_common(texts: Sequence[str], total: int) -> str:
    counted = Counter(texts).most_common(1)
    if not counted or total < _FEWEST_PLACES or counted[0][1] < _OFTEN * total or len(counted[0][0]) > _LONGEST_TOKEN:
        return ""
    return counted[0][0]


def _list(tokens: Sequence[_Token]) -> str:
    return ", ".join(f"`{_shown(token)}`" for token in tokens if _is_short(token)) or "a long token"


def _is_short(token: _Token) -> bool:
    return 0 < len(_shown(token)) <= _LONGEST_TOKEN


def _shown(token: _Token) -> str:
    return visible(token.text).replace("`", "ˋ")


def _percent(share: float) -> str:
    if share >= 0.01:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %"
