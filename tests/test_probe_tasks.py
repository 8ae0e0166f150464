"""The questions that a text sets by itself, against a plain reading of its strings."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest

from mistudiod.engine.probe_tasks import TASKS, answers, letters, places

BOS = 0
PIECES = [
    "def", " self", " Self", "s", " is", "ing", "\n", "\n    ", "\n\n", " #", "#", '"', ' "', "'", "(", ")", " [", "]:",
    " =", "=", "1", " 20", "x1", "_", "name", " name", "Name", ".", ",", "Ærø", " été", "Is", " elephants", "  ", "\t",
    "HTTPS", " a", "B", " {}", "\ufffd",
]  # fmt: skip


class Reading:
    """One token, in a text of which the beginning is not known."""

    def __init__(self, tokens: list[str], at: int) -> None:
        self.token, self.before = tokens[at], "".join(tokens[:at])
        self.tokens_before = tokens[:at]
        self.next = tokens[at + 1] if at + 1 < len(tokens) else None
        self.line = self.before.split("\n")[-1] if "\n" in self.before else None
        self.word = re.fullmatch(r"(\s*)([A-Za-z].*)", self.token, re.DOTALL)

    def begins(self) -> bool | None:
        if self.word is None:
            return None
        if self.word[1]:
            return True
        return None if not self.before else re.search(r"[^\W_]\Z", self.before) is None

    def earlier(self) -> list[str]:
        """The tokens before that begin a word, without their space."""
        found = []
        for at in range(len(self.tokens_before)):
            one = Reading(self.tokens_before, at)
            if one.begins():
                assert one.word is not None
                found.append(one.word[2])
        return found


def is_mark(token: str | None) -> bool:
    return token is not None and re.fullmatch(r"\s*([^\w\s\ufffd]|_)+(\s|[^\w\s\ufffd]|_)*", token) is not None


def depth(text: str) -> int:
    found = 0
    for character in re.findall(r"[(){}\[\]]", text):
        found = found + 1 if character in "([{" else max(found - 1, 0)
    return found


def on_line(read: Callable[[str], bool]) -> Callable[[Reading], bool | None]:
    def answer(one: Reading) -> bool | None:
        return None if not (one.line or "").strip() or "\n" in one.token else read(one.line or "")

    return answer


def of_words(read: Callable[[Reading, str], bool | None], begins: bool = False) -> Callable[[Reading], bool | None]:
    """Asked of tokens that begin with a letter, or of those alone that begin a word."""

    def answer(one: Reading) -> bool | None:
        return None if one.word is None or (begins and not one.begins()) else read(one, one.word[2])

    return answer


PLAIN: dict[str, Callable[[Reading], bool | None]] = {
    "word begins": lambda one: one.begins(),
    "capital": of_words(lambda _, word: re.match("[A-Z]", word) is not None),
    "vowel": of_words(lambda _, word: re.match("[aeiouAEIOU]", word) is not None, begins=True),
    "long": of_words(lambda _, word: len(re.findall("[A-Za-z]", word)) >= 6, begins=True),
    "ends in s": of_words(lambda _, word: re.search(r"[sS]\Z", word) is not None),
    "digit": lambda one: re.search(r"\d", one.token) is not None,
    "mark": lambda one: is_mark(one.token),
    "space": of_words(lambda one, _: one.token.startswith(" ")),
    "line break": lambda one: one.token.count("\n") > 0,
    "first of line": of_words(lambda one, _: None if one.line is None else one.line.strip() == ""),
    "after mark": of_words(lambda one, _: is_mark(one.tokens_before[-1]) if one.tokens_before else None),
    "before line break": lambda one: None if one.next is None or "\n" in one.token else "\n" in one.next,
    "before mark": of_words(lambda one, _: None if one.next is None else is_mark(one.next)),
    "in brackets": of_words(lambda one, _: depth(one.before) > 0),
    "in quotes": on_line(lambda line: len(re.findall('"', line)) % 2 == 1),
    "after number sign": on_line(lambda line: "#" in line),
    "indented": on_line(lambda line: re.match(r"\s", line) is not None),
    "seen before": of_words(lambda one, word: word in one.earlier(), begins=True),
}


def asked(tokens: list[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Answers and letters of one window; None is a special token."""
    known = list(dict.fromkeys(one for one in tokens if one is not None))
    ids = np.array([[BOS if one is None else 1 + known.index(one) for one in tokens]])
    spelling = {1 + n: text.encode() for n, text in enumerate(known)}
    [found] = places(ids, ids == BOS, spelling)
    return answers(found), letters(found)


def test_every_question_is_answered_as_a_plain_reading_of_the_text_does() -> None:
    assert [task.name for task in TASKS] == list(PLAIN)
    draw, seen = random.Random(0), set[tuple[str, int]]()
    for _ in range(150):
        tokens = draw.choices(PIECES, k=24)
        begins = draw.choice([None, BOS])  # with a BOS the window's text is no more known to begin there
        found, first = asked([None, *tokens] if begins == BOS else [*tokens])
        found, first = found[-24:], first[-24:]
        for at in range(24):
            reading = Reading(tokens, at)
            for task, name in enumerate(PLAIN):
                answer = PLAIN[name](reading)
                expected = -1 if answer is None else int(answer)
                assert found[at, task] == expected, (name, tokens[: at + 2], at)
                seen.add((name, expected))
            letter = reading.word[2][0].lower() if reading.word and reading.begins() else None
            assert first[at] == (-1 if letter is None else ord(letter) - ord("a"))
    assert {(name, answer) for name in PLAIN for answer in (0, 1)} <= seen


def test_after_a_separator_a_text_and_its_line_begin_and_nothing_of_the_one_before_counts() -> None:
    names = [task.name for task in TASKS]
    found, _ = asked(["(", " name", None, " name", " name"])
    assert found[2].tolist() == [-1] * len(TASKS)
    third, fourth = (dict(zip(names, found[at].tolist(), strict=True)) for at in (3, 4))
    assert third["first of line"] == 1 and third["seen before"] == 0 and third["in brackets"] == 0
    assert third["after mark"] == -1 and fourth["seen before"] == 1 and fourth["indented"] == 1
    assert dict(zip(names, found[1].tolist(), strict=True))["before mark"] == -1  # nothing of its text is after it


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_question_is_said_in_a_sentence(task) -> None:
    assert len(task.sentence) > 20 and task.sentence[0].islower() and not task.sentence.endswith(".")
