"""A feature described without an LLM: plain words, true, the same every time."""

from __future__ import annotations

import re
import time
from typing import Any

from feature_pages import definitions, example, page
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.labelling.describe import MOST_CHARS, describe


def text(made: dict[str, Any]) -> str:
    return str(describe(made)["text"])


def test_a_token_at_line_start_and_what_comes_next() -> None:
    described = describe(definitions())
    assert described["text"] == "fires on every `def` at line start; next: names"
    assert described["confidence"] == 1.0
    assert "`def` 100 %" in described["explanation"]


def test_one_of_the_rare_occurrences_of_a_token_is_said_to_be_some() -> None:
    made = page([f"x{n} = f(⟦in⟧ y{n})" for n in range(6)], tokens={"in": (20, 4000)})
    assert text(made).startswith("fires on some `in` after “(”; next: names")


def test_a_few_tokens_are_named_those_that_differ_in_spaces_once() -> None:
    made = page(["a ⟦==⟧ b"], tokens={" ==": (50, 60), "==": (10, 60), " !=": (30, 90), "x": (10, 900)})
    assert text(made) == "fires on `==`, `!=`"
    assert describe(made)["confidence"] == 0.9


def test_many_tokens_of_one_kind_are_named_by_their_kind() -> None:
    numbers = {str(n): (10, 12) for n in range(20)}
    made = page([f"a[⟦{n}⟧]" for n in range(8)], tokens=numbers)
    described = describe(made)
    assert described["text"] == "fires on numbers after “[”; next: “]”"
    assert "`7` 5 %" in described["explanation"]
    brackets = page(["f(x⟦)⟧", "f[x⟦]⟧"], tokens=dict.fromkeys([")", "])", ")))", "}", "))", "]]"], (9, 99)))
    assert text(brackets) == "fires on closing brackets"


def test_a_feature_pure_where_it_is_strong_is_described_by_that() -> None:
    strong = [f"self._⟦type⟧ == {n}" for n in range(8)]
    weak = [example(f"w{n} ⟦other{n}⟧", kind="random", strength=1.0, row=30 + n) for n in range(8)]
    made = page([*strong, *weak], tokens={"type": (20, 25)} | {f"other{n}": (10, 99) for n in range(8)})
    described = describe(made)
    assert described["text"] == "fires strongest on `type` after “_”; next: “==”"
    assert described["confidence"] == 0.2


def test_a_feature_of_many_tokens_is_said_to_be_one() -> None:
    words = ["apple", "Berlin", "x", "17", "(", "def", "_", "ness", "THE"]
    made = page([f"{n}; ⟦{word}⟧ {n}" for n, word in enumerate(words)])
    assert text(made).startswith("fires on various tokens, most often `apple`, `Berlin`, `x`")
    assert describe(made)["confidence"] == 0.33


def test_beginnings_of_windows_strings_and_comments_are_seen() -> None:
    first = [example(f"⟦w{n}⟧ a", row=n) | {"first": 0} for n in range(6)]
    assert "`w4` at the beginning of a window" in text(page(first))
    assert (
        text(page([f"x = {n}  # see ⟦it⟧ here" for n in range(6)]))
        == "fires on `it` after “see” in a comment; next: “here”"
    )
    assert "in a string" in text(page([f'print("a{n} ⟦it⟧' for n in range(6)]))
    assert "in a docstring" in text(page([f'def f{n}():\n    """It is\n a{n} ⟦it⟧' for n in range(6)]))


def test_a_dense_feature_is_said_to_be_dense_and_is_trusted_less() -> None:
    described = describe(page([f"a{n} ⟦the⟧ b" for n in range(6)], density=0.354))
    assert described["text"].startswith("fires on 35 % of tokens: on `the`")
    assert described["confidence"] == 0.5


def test_a_dead_feature_is_said_to_be_dead() -> None:
    dead = page([], density=0.0, fired=0)
    assert describe(dead) == {"text": "dead: fires on none of the tokens read", "explanation": "", "confidence": 1.0}


def test_promoted_tokens_are_named_when_the_text_goes_on_with_them() -> None:
    texts = [f"x{n} ⟦def⟧ __(self)" for n in range(6)]
    assert text(page(texts, promoted=["zebra", "__", "qux"])).endswith("; promotes “__”")
    assert "promotes" not in text(page(texts, promoted=["zebra", "qux"]))
    assert "Most promoted: “zebra”, “qux”." in describe(page(texts, promoted=["zebra", "qux"]))["explanation"]


def test_words_in_backticks_are_tokens_on_which_it_fires_and_nothing_else() -> None:
    for made in (definitions(), page(["a ⟦\n    ⟧b", "a ⟦`⟧ c"], promoted=["p"])):
        described = describe(made)
        ticked = re.findall(r"`([^`]*)`", described["text"] + described["explanation"])
        assert set(ticked) <= {"def", "↵␣␣␣␣", "ˋ"}


def test_nothing_is_taken_from_held_out_windows() -> None:
    made = page([f"a{n} ⟦it⟧ b" for n in range(6)])
    held = [example("# ⟦it⟧ secret", held_out=True, row=n) for n in range(50)]
    assert describe(made) == describe({**made, "examples": [*made["examples"], *held]})


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.text(min_size=1, max_size=40), TEXTS), min_size=1, max_size=12), st.floats(1e-7, 1))
def test_a_description_is_short_printable_and_the_same_every_time(
    parts: list[tuple[str, str, str]], density: float
) -> None:
    clean = str.maketrans("", "", "⟦⟧")
    texts = [
        f"{a}⟦{b.translate(clean) or 'b'}⟧{c}"
        for a, b, c in ((a.translate(clean), b, c.translate(clean)) for a, b, c in parts)
    ]
    made = page(texts, density=density, promoted=["\u202e", "a"])
    described = describe(made)
    assert described == describe(made)
    assert 0 < len(described["text"]) <= MOST_CHARS
    assert described["text"].isprintable() and described["explanation"].isprintable()
    assert 0 <= described["confidence"] <= 1


def test_ten_thousand_features_take_seconds() -> None:
    made = definitions()
    began = time.process_time()
    for _ in range(500):
        describe(made)
    assert time.process_time() - began < 1.5
