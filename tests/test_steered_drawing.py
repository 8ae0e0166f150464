"""Steered texts as a terminal shows them: beside each other or below, words that differ marked; what a range says."""

from __future__ import annotations

from typing import Any

import pytest
from mistudio.beside import MARK, columns, marked, plain, wrapped
from mistudio.output import Canvas
from mistudio.ranges import is_far, sentence
from mistudio.steered import lines
from mistudio.visible import width
from steer_stub import BASELINE, Desk, found_range, result


def drawn(found: dict[str, Any], cells: int | None, colours: bool = True) -> list[list[tuple[str, str]]]:
    return [list(line) for line in lines(found, {}, Canvas(cells, colours))]


def one_pair(words: str) -> dict[str, Any]:
    desk = Desk()
    desk.steered = words
    return result(desk, {"sae": "made", "prompt": "x", "steering": [{"feature": 7, "strength": 2.0}]})


@pytest.mark.parametrize("cells", [100, 131, 200])
def test_a_wide_terminal_has_the_baseline_left_and_the_steered_text_right(cells: int) -> None:
    words = f"日本語 {'x' * 300} " + "and then some more of it " * 9
    whole = ["".join(text for text, _ in line) for line in drawn(one_pair(words), cells)]
    assert max(map(width, whole)) <= cells
    beside = [line.split(" │ ") for line in whole if " │ " in line]
    assert [side.strip() for side in beside[0]] == ["BASELINE", "STEERED  7:+2"]
    assert {width(line.partition("│")[0]) for line in whole if " │ " in line} == {(cells - 3) // 2 + 1}
    left, right = (
        " ".join(" ".join(side) for side in column)
        for column in zip(*(map(str.split, line) for line in beside[1:]), strict=True)
    )
    assert left.split() == BASELINE.split()
    assert right.replace(" ", "") == words.replace(" ", "")


@pytest.mark.parametrize("cells", [40, 80, 99])
def test_a_narrow_terminal_has_them_below_each_other(cells: int) -> None:
    whole = ["".join(text for text, _ in line) for line in drawn(one_pair("a b c " * 40), cells)]
    assert not any("│" in line for line in whole)
    assert max(map(width, whole[5:])) <= cells
    assert whole.index("BASELINE") < whole.index("STEERED  7:+2")


def test_words_that_differ_are_marked_and_no_others() -> None:
    marks = "".join(
        word for line in drawn(one_pair(BASELINE.replace("line", "row")), 120) for word, style in line if style == MARK
    )
    assert marks == "rowrow"
    assert [word for word, style in marked("a b c d", "a c d e") if style] == ["b"]
    assert not any(style for _, style in marked(BASELINE, BASELINE))


@pytest.mark.parametrize("cells", [1, 2, 7, 30])
def test_wrapped_text_loses_nothing_but_the_spaces_at_its_breaks(cells: int) -> None:
    text = "def  f(x):\n\n    return 日本語 + anaconda.of.words\r\n\tlast   "
    whole = ["".join(part for part, _ in line) for line in wrapped(plain(text), cells)]
    assert max(map(width, whole)) <= max(cells, 2)  # a wide character is as wide as it is
    assert "".join(whole).replace(" ", "") == text.replace("\r\n", "").replace("\n", "").replace(" ", "").replace(
        "\t", "→"
    )
    assert len(list(columns(wrapped(plain(text), 30), [], 30))) == len(wrapped(plain(text), 30))


def test_a_range_knows_what_is_too_much() -> None:
    found = found_range(7)
    assert [is_far(x, found) for x in (2.6, 5.3, -3.8, -4.0)] == [False, True, False, True]
    assert sentence(found) == (
        "0.1 nats at -0.4 and +0.4, 0.5 nats at -1.1 and +1.1, 2 nats at -2.6 and +2.6; breaks above +5.2: repetition"
    )
    nothing = {step: {"low": None, "high": None} for step in ("0.1", "0.5", "2")}
    dead = {**found, "kl": nothing, "breaks": {"low": None, "high": None, "why": None}}
    assert not is_far(1000.0, dead)
    assert "no strength" in sentence(dead)
