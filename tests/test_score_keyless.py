"""The score without an LLM: right labels do well, others' labels are worth a coin."""

from __future__ import annotations

import time
from random import Random

import pytest
from planted import fires_after, fires_on, plant, words

from mistudiod.labelling.describe import describe
from mistudiod.labelling.held_out import HeldOut
from mistudiod.labelling.keyless import Keyless, meaning
from mistudiod.labelling.metrics import mean
from mistudiod.pages import Pages

AFTER, PAIR = 40, 41


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    rules = [*(fires_on(n) for n in range(40)), fires_after(4, 5), fires_on(50, 52)]
    return plant(tmp_path_factory.mktemp("planted") / "1", words(60), rules, rows=800)


def value(pages: Pages, feature: int, text: str, explanation: str = "") -> float:
    drawn = HeldOut(pages, 0).draw(feature, 20)
    return Keyless(pages).score({"text": text, "explanation": explanation}, drawn).accuracy.value


def test_a_right_label_is_worth_all_and_that_of_another_feature_a_coin(pages: Pages) -> None:
    for feature in range(0, 40, 7):
        assert value(pages, feature, f"fires on `w{feature}x`") == 1.0
        assert value(pages, feature, f"fires on `w{(feature + 9) % 40}x`") == pytest.approx(0.5, abs=0.06)


def test_shuffled_labels_are_worth_a_coin_as_a_set(pages: Pages) -> None:
    held, keyless, shuffled = HeldOut(pages, 0), Keyless(pages), list(range(40))
    Random(1).shuffle(shuffled)
    scores = [
        keyless.score({"text": f"`w{label}x`"}, held.draw(feature, 20)).accuracy
        for feature, label in zip(shuffled, shuffled[1:] + shuffled[:1], strict=True)  # never its own
    ]
    over = mean(scores)
    assert 0.46 < over.value < 0.52 and over.low < 0.5 < over.high


def test_a_label_that_names_half_of_the_tokens_is_worth_three_quarters(pages: Pages) -> None:
    assert value(pages, PAIR, "fires on `w50x` and `w52x`") == 1.0
    assert value(pages, PAIR, "fires on `w50x`") == pytest.approx(0.75, abs=0.1)


def test_a_token_that_often_means_nothing_is_found_out_by_hard_texts(pages: Pages) -> None:
    drawn = HeldOut(pages, 0).draw(AFTER, 20)
    found = Keyless(pages).score({"text": "fires on `w5x`"}, drawn)  # only after w4x
    assert found.tp == 20 and 5 <= found.fp <= 10
    assert found.auroc == found.accuracy


def test_a_label_that_names_no_token_says_nothing(pages: Pages) -> None:
    for text in ("words about the weather", "the", "", "`no such token`"):
        found = Keyless(pages).score({"text": text}, HeldOut(pages, 0).draw(3, 20))
        assert (found.tp, found.fp, found.tn, found.fn) == (0, 0, 20, 20)
        assert found.accuracy.value == found.auroc.value == 0.5
        assert found.accuracy.low < 0.5 < found.accuracy.high


def test_in_prose_the_words_are_tokens_and_case_does_not_matter(pages: Pages) -> None:
    assert value(pages, 3, "W3X and its like") == 1.0
    assert value(pages, 3, "a word", "Fires on w3x.") == 1.0


@pytest.mark.parametrize(
    ("text", "explanation", "named", "not_named"),
    [
        ("fires on `def` at line start; next: names", "", ["def"], ["names", "line"]),
        ("fires on `def`, `class`; next: `foo`", "", ["def", "class"], ["foo", "Class"]),
        ("fires on `next`, `(next`; next: “a”; promotes “`b`”", "", ["next", "(next"], ["a", "b"]),
        ("function definitions", "On `def` and 'lambda'.", ["def"], ["lambda", "function"]),
        ('the keywords "if" and “else”', "", ["if", "else"], ["keywords"]),
        ("it's what doesn't fire", "the token 'it'", ["it"], ["s what doesn"]),
        ("fires on `import os`", "", ["import", "os"], ["import os"]),
        ("fires on `↵␣␣`, `ˋ`", "", ["\n  ", "`"], ["\n", " "]),
        ("fires on numbers", "Of its firings: `12` 50 %.", ["12", "7", "3.5"], ["x"]),
        ("Closing brackets of calls", "", [")", "))"], ["(", "calls"]),
        ("Fires on weather in the text", "", ["weather", "Weather"], ["the", "text", "fires"]),
    ],
)
def test_which_tokens_a_label_names(text: str, explanation: str, named: list[str], not_named: list[str]) -> None:
    means = meaning({"text": text, "explanation": explanation})
    assert [token for token in named + not_named if means(token)] == named


def test_the_description_of_a_planted_feature_is_worth_all(pages: Pages) -> None:
    held, keyless = HeldOut(pages, 0), Keyless(pages)
    for feature in (3, 17, PAIR):
        assert keyless.score(describe(pages.page(feature)), held.draw(feature, 20)).accuracy.value == 1.0


def test_hundreds_of_features_are_scored_in_a_second(pages: Pages) -> None:
    held, keyless = HeldOut(pages, 0), Keyless(pages)
    held.draw(AFTER, 20)  # what is made once
    began = time.process_time()
    for feature in range(40):
        keyless.score({"text": f"fires on `w{feature}x`"}, held.draw(feature, 20))
    assert time.process_time() - began < 40 / 100  # a second holds many hundred where nothing else runs
