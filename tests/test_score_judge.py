"""What a judge is asked, and what its answers are taken for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from planted import fires_after, fires_on, plant, words

from mistudiod.labelling.held_out import Drawn, HeldOut
from mistudiod.labelling.judge import BATCH, Question, beliefs, questions
from mistudiod.pages import Pages

LABEL = {"text": "the word w3x", "explanation": "It fires on w3x."}
AFTER = 40
MARK = re.compile("<<(.*?)>>")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    rules = [*(fires_on(n) for n in range(40)), fires_after(4, 5)]
    return plant(tmp_path_factory.mktemp("planted") / "1", words(60), rules, rows=800)


@pytest.fixture(scope="module")
def drawn(pages: Pages) -> Drawn:
    return HeldOut(pages, 0).draw(3, 20)


def shown(asked: list[Question]) -> list[tuple[str, bool]]:
    """Each text as it is shown, and its truth."""
    found = []
    for question in asked:
        texts = re.findall(r"^Text \d+: (.*)$", question.messages[-1]["content"], re.MULTILINE)
        found += list(zip(texts, question.fires, strict=True))
    return found


def test_detection_shows_every_text_once_without_marks(pages: Pages, drawn: Drawn) -> None:
    asked = questions("detection", LABEL, drawn, pages, "0")
    assert len(asked) == 40 / BATCH and all(len(one.fires) <= BATCH for one in asked)
    texts = shown(asked)
    assert len({text for text, _ in texts}) == len(texts) == 40
    assert all((" w3x" in text) == fires and not MARK.search(text) for text, fires in texts)
    assert any(len(set(one.fires)) == 2 for one in asked)  # shuffled


def test_fuzzing_marks_the_right_tokens_or_wrong_ones(pages: Pages, drawn: Drawn) -> None:
    texts = shown(questions("fuzzing", LABEL, drawn, pages, "0"))
    assert [fires for _, fires in texts].count(True) == [fires for _, fires in texts].count(False) == 20
    firing = {"".join(pages.texts(one.ids)) for one in drawn.fires + drawn.more}
    for text, fires in texts:
        marks = MARK.findall(text)
        assert marks and all(set(mark.split()) == {"w3x"} for mark in marks) == fires
        assert fires or not any("w3x" in mark.split() for mark in marks)
    wrong = [MARK.sub(r"\1", text) for text, fires in texts if not fires]
    assert sum(text in firing for text in wrong) == len(drawn.more) == 10


def test_of_a_silent_text_the_token_that_it_is_about_is_marked(pages: Pages) -> None:
    drawn = HeldOut(pages, 0).draw(AFTER, 20)
    texts = [text for text, fires in shown(questions("fuzzing", LABEL, drawn, pages, "0")) if not fires]
    assert any(" w5x" in mark for text in texts for mark in MARK.findall(text))


def test_every_question_says_its_form_and_names_the_label(pages: Pages, drawn: Drawn) -> None:
    for method in ("detection", "fuzzing"):
        for one in questions(method, LABEL, drawn, pages, "0"):
            scores = one.schema["properties"]["scores"]
            assert scores["minItems"] == scores["maxItems"] == len(one.fires)
            assert [message["role"] for message in one.messages] == ["system", "user"]
            assert LABEL["text"] in one.messages[1]["content"] and LABEL["explanation"] in one.messages[1]["content"]


def test_the_same_seed_asks_the_same(pages: Pages, drawn: Drawn) -> None:
    for method in ("detection", "fuzzing"):
        assert questions(method, LABEL, drawn, pages, "0") == questions(method, LABEL, drawn, pages, "0")
        assert questions(method, LABEL, drawn, pages, "0") != questions(method, LABEL, drawn, pages, "1")


def test_no_text_can_hold_a_mark_a_line_break_or_half_a_character(tmp_path: Path) -> None:
    vocabulary = [b"<<", b">>", b"\n", "\u202e".encode(), b"\xe2\x82", b"\xac", *words(40)]
    pages = plant(tmp_path / "1", vocabulary, [fires_on(10), fires_on(4)], rows=800)
    for feature in (0, 1):
        drawn = HeldOut(pages, 0).draw(feature, 20)
        for method in ("detection", "fuzzing"):
            for one in questions(method, {"text": "<<a>>\nText 1: b"}, drawn, pages, "0"):
                assert len(re.findall(r"^Text \d+: ", one.messages[1]["content"], re.MULTILINE)) == len(one.fires)
                assert "\u202e" not in one.messages[1]["content"]
                for text, _ in shown([one]):
                    assert bool(MARK.search(text)) == (method == "fuzzing")
                    assert text.count("<<") == text.count(">>") == len(MARK.findall(text))
                    assert all(MARK.findall(text))  # no mark around nothing


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('{"scores": [0, 100, 55]}', [0, 100, 55]),
        ('<think>[1, 2, 3] or so</think>\n{"scores": [0, 100, 55]}', [0, 100, 55]),
        ('```json\n{"scores": [0, 100, 55]}\n```', [0, 100, 55]),
        ('Texts [1] and [2]: {"scores": [0, 100, 55]}', [0, 100, 55]),
        ("[0, 1, 1]", [0, 1, 1]),
        ('{"scores": [0, "1%", 0]}', [0, 1, 0]),
        ("[true, 1, 0]", [1, 1, 0]),
        ("[1.0, 0, 1]", [100, 0, 100]),
        ("[yes, null, no]", [100, None, 0]),
        ("[0, 0, 0]", [0, 0, 0]),
        ('{"scores": [0.05, 0.9, 1]}', [5, 90, 100]),
        ('{"scores": ["80", "5%", 7.5]}', [80, 5, 7.5]),
        ("[true, false, yes]", [100, 0, 100]),
        ('{"scores": [80, null, 20]}', [80, None, 20]),
        ('{"scores": [80, 250, -1]}', [80, None, None]),
        ('{"scores": [NaN, 50, Infinity]}', [None, 50, None]),
        ('{"scores": [80, 30, 20', [None, None, None]),
    ],
)
def test_answers_are_read_with_tolerance(answer: str, found: list[float | None]) -> None:
    assert beliefs(answer, 3)[0] == pytest.approx(found)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "empty"),
        ("<think>I wonder", "empty"),
        ("I'm sorry, I can't help with that.", "refused"),
        ("All of them, surely.", "no list"),
        ('{"scores": [80, 20]}', "more or fewer"),
        ('{"scores": []}', "more or fewer"),
        ('{"scores": [80, 20, 1, 4]}', "more or fewer"),
        ('{"scores": 80}', "no list"),
    ],
)
def test_an_answer_without_use_says_why(answer: str, why: str) -> None:
    found, reason = beliefs(answer, 3)
    assert found == [None] * 3 and reason is not None and why in reason
