"""Yes-or-no questions that any tokenized text sets by itself: of a token's spelling, and of what stands around it.

What a question is about is read from the tokens of one window alone; where that does not suffice (what the previous
token is, at a window's beginning; how a line began that did so before the window), it is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Place:
    """A token of text as the questions see it. None: not known from the window, or there is none."""

    text: str
    previous: str | None  # the token before it
    following: str | None  # the token after it
    line: str | None  # what of its line stands before it
    depth: int  # how many brackets were opened in the window before it and not closed
    seen: bool  # its word, without the space, has been in the window before

    @property
    def word(self) -> str:
        """Without the white space in front."""
        return self.text.lstrip()

    @property
    def is_word(self) -> bool:
        """Whether it begins with a letter, after a space or not. Letters are those of English."""
        return _letter(self.word[:1])

    @property
    def begins_word(self) -> bool | None:
        """Of one that begins with a letter: whether no letter or digit goes right before."""
        if self.text[:1].isspace():
            return True
        return None if self.previous is None else not self.previous[-1:].isalnum()

    @property
    def letter(self) -> str | None:
        """The first letter, small, of one that begins a word."""
        return self.word[0].lower() if self.is_word and self.begins_word else None


@dataclass(frozen=True)
class Task:
    """A question: of which places it is asked, and where the answer is yes."""

    name: str
    sentence: str
    asked: Callable[[Place], bool]
    holds: Callable[[Place], bool]


def _letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _mark(text: str | None) -> bool:
    """Whether a token is marks alone: no letter, no digit, not only space. U+FFFD is a part of a character."""
    bare = "" if text is None else text.strip()
    return bool(bare) and not any(one.isalnum() or one == "\ufffd" for one in bare)


def _always(place: Place) -> bool:
    return True


def _word(place: Place) -> bool:
    return place.is_word


def _beginning(place: Place) -> bool:
    return place.letter is not None


def _on_known_line(place: Place) -> bool:
    """The line began in the window, and there is more of it than white space before the token."""
    return place.line is not None and bool(place.line.strip()) and "\n" not in place.text


TASKS = (
    Task("word begins", "the token begins a word, it does not go on with one",
         lambda one: one.is_word and one.begins_word is not None, lambda one: bool(one.begins_word)),
    Task("capital", "the token's first letter is a capital", _word, lambda one: one.word[0].isupper()),
    Task("vowel", "the word that begins here begins with a, e, i, o or u", _beginning,
         lambda one: one.letter in tuple("aeiou")),
    Task("long", "the token has six letters or more", _beginning, lambda one: sum(map(_letter, one.text)) >= 6),
    Task("ends in s", "the token's last letter is s", _word, lambda one: one.text[-1] in "sS"),
    Task("digit", "the token has a digit", _always, lambda one: any(map(str.isdigit, one.text))),
    Task("mark", "the token is marks alone: no letter, no digit", _always, lambda one: _mark(one.text)),
    Task("space", "a space stands in front, as a part of the token", _word, lambda one: one.text[:1] == " "),
    Task("line break", "the token has a line break", _always, lambda one: "\n" in one.text),
    Task("first of line", "the token is the first of its line", lambda one: _word(one) and one.line is not None,
         lambda one: not (one.line or "").strip()),
    Task("after mark", "the token before is marks alone", lambda one: _word(one) and one.previous is not None,
         lambda one: _mark(one.previous)),
    Task("before line break", "the next token has a line break",
         lambda one: one.following is not None and "\n" not in one.text, lambda one: "\n" in (one.following or "")),
    Task("before mark", "the next token is marks alone", lambda one: _word(one) and one.following is not None,
         lambda one: _mark(one.following)),
    Task("in brackets", "a bracket was opened before in the window, and is not closed", _word,
         lambda one: one.depth > 0),
    Task("in quotes", "an odd number of double quotes stands before it on its line", _on_known_line,
         lambda one: (one.line or "").count('"') % 2 == 1),
    Task("after number sign", "a # stands before it on its line, as in front of a comment", _on_known_line,
         lambda one: "#" in (one.line or "")),
    Task("indented", "its line begins with white space", _on_known_line, lambda one: (one.line or "")[0].isspace()),
    Task("seen before", "the token begins a word, and the same has begun before in the window", _beginning,
         lambda one: one.seen),
)  # fmt: skip


def places(
    rows: NDArray[np.int64], special: NDArray[np.bool_], spelling: Mapping[int, bytes]
) -> Iterator[list[Place | None]]:
    """Of each window, rows (n, context), its places; None where a token is special.

    A special token ends a text, and the next one begins with a line of its own; but one at a window's beginning says
    nothing of what was before it. ``spelling``: the bytes of every token that is there.
    """
    for row, specials in zip(rows.tolist(), special.tolist(), strict=True):
        texts = [None if out else spelling[id].decode(errors="replace") for id, out in zip(row, specials, strict=True)]
        yield list(_of_window(texts))


def _of_window(texts: Sequence[str | None]) -> Iterator[Place | None]:
    line: str | None = None
    depth, words = 0, set[str]()
    for at, text in enumerate(texts):
        if text is None:
            line, depth, words = (None if at == 0 else ""), 0, set()
            yield None
            continue
        place = Place(
            text,
            texts[at - 1] if at else None,
            texts[at + 1] if at + 1 < len(texts) else None,
            line,
            depth,
            False,
        )
        if place.letter is not None:
            place = replace(place, seen=place.word in words)
            words.add(place.word)
        yield place
        for character in text:
            depth = max(0, depth + (character in _OPENING) - (character in _CLOSING))
        _, broken, after = text.rpartition("\n")
        line = after if broken else (None if line is None else line + text)


def answers(places: Sequence[Place | None]) -> NDArray[np.int8]:
    """(n, tasks): 1 yes, 0 no, -1 not asked of this place."""
    return np.array(
        [[-1 if one is None or not task.asked(one) else int(task.holds(one)) for task in TASKS] for one in places],
        dtype=np.int8,
    ).reshape(-1, len(TASKS))


def letters(places: Sequence[Place | None]) -> NDArray[np.int8]:
    """(n,): 0 to 25 for the first letter of those that begin a word, -1 for the others."""
    found = [one.letter if one else None for one in places]
    return np.array([ascii_lowercase.index(one) if one else -1 for one in found], dtype=np.int8)
