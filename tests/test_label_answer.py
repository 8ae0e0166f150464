"""Whatever a model answers: a label comes out, or the reason why there is none."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mistudiod.labelling import prompt
from mistudiod.labelling.answer import SCHEMA, UNCLEAR, Answer, Unusable, parse

GOOD = {"explanation": "It fires on brackets.", "label": "closing brackets", "confidence": 85, "unclear": False}
SYSTEM = prompt.check(prompt.DEFAULT.read_text())[0][1]
WANTED = Answer("closing brackets", "It fires on brackets.", 0.85)


def reason(text: str, instructions: str = "") -> str:
    with pytest.raises(Unusable) as caught:
        parse(text, instructions)
    return str(caught.value)


def said(**fields: Any) -> str:
    return json.dumps({**GOOD, **fields})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        json.dumps(GOOD, indent=2),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"Sure! Here is the label:\n\n{json.dumps(GOOD)}\n\nLet me know if you need {{more}}.",
        f"<think>Is it {{brackets}}? Maybe {said(label='wrong')}</think>\n{json.dumps(GOOD)}",
        f"Is it brackets? {said(label='wrong')}</think>{json.dumps(GOOD)}",
        f"{said(label='at most 8 words')}\n{json.dumps(GOOD)}",
        json.dumps({"answer": GOOD}),
        json.dumps(GOOD)[:-1] + ",}",
        json.dumps(GOOD)[:-1],
        str(GOOD),
        "{explanation: 'It fires on brackets.', label: 'closing brackets', confidence: 85, unclear: False,}",
        "{“explanation”: “It fires on brackets.”, “label”: “closing brackets”, “confidence”: 85, “unclear”: false}",
        '{"explanation": "It fires\non brackets.", "label": "closing\nbrackets", "confidence": "85%", "unclear": "no"}',
        said(label='  "closing brackets" ', confidence="85 / 100"),
        said(confidence=0.85),
    ],
)
def test_a_label_is_found_however_it_is_wrapped(text: str) -> None:
    assert parse(text, SYSTEM) == WANTED


def test_an_apostrophe_is_no_end_of_a_label_in_single_quotes() -> None:
    assert parse("{'label': 'it's a boy's name', 'confidence': 5}").label == "it's a boy's name"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the answer is empty"),
        ("  \n", "the answer is empty"),
        ("<think>Hmm, the feature", "the answer is empty"),
        ("<think>So</think>", "the answer is empty"),
        ("It fires on closing brackets.", "there is no JSON in the answer"),
        ("Label: brackets", "there is no JSON in the answer"),
        ("[1, 2]", "there is no JSON in the answer"),
        ("{}", "there is no JSON in the answer"),
        ('{"name": "brackets"}', "there is no JSON in the answer"),
        ("I'm sorry, I can't help with that.", "the model refused"),
        ("I’m sorry, but as an AI I must not.", "the model refused"),
        (said(label="I cannot assist with this request"), "the model refused"),
        (said(label=""), "there is no label in the answer"),
        (said(label=None), "there is no label in the answer"),
        (said(label=["brackets"]), "there is no label in the answer"),
        (said(label="...?"), "there is no label in the answer"),
        (said(label="word " * 17), "the label is too long"),
        (said(label="x" * 121), "the label is too long"),
        (said(label="at most 8 words"), "the label is a copy of the instructions"),
        (said(label="<label>"), "the label is a copy of the instructions"),
        (said(label="the number in front of a text says how strongly"), "the label is a copy of the instructions"),
        (said(unclear=True), UNCLEAR),
        (said(unclear="true", label=""), UNCLEAR),
        (said(label="Unclear."), UNCLEAR),
        ('{"unclear": true}', UNCLEAR),
        ("{'unclear': True}", UNCLEAR),
    ],
)
def test_what_cannot_be_used_has_a_reason(text: str, why: str) -> None:
    assert reason(text, SYSTEM) == why


@pytest.mark.parametrize(
    ("confidence", "share"),
    [(0, 0.0), (1, 0.01), (100, 1.0), (250, 1.0), (-5, 0.0), (0.5, 0.5), (1.0, 1.0), (72.5, 0.725), ("90 %", 0.9)]
    + [(value, None) for value in ("high", None, True, [], {}, "nan", "")],
)
def test_a_confidence_is_a_share_or_nothing(confidence: Any, share: float | None) -> None:
    assert parse(said(confidence=confidence)).confidence == share


def test_numbers_that_are_none_are_no_confidence() -> None:
    assert parse('{"label": "a b", "confidence": NaN}').confidence is None
    assert parse('{"label": "a b", "confidence": 1e999}').confidence == 1.0


def test_nothing_invisible_comes_through() -> None:
    found = parse(said(label="closing\u202e \x00brackets\u200b", explanation="a\nb\tc"))
    assert (found.label, found.explanation) == ("closing brackets", "a b c")


def test_the_schema_asks_for_what_is_read() -> None:
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"]) == set(GOOD)


PIECES = st.sampled_from(
    [
        *"{}[]\":,\\'“”",
        "label",
        '"label"',
        "unclear",
        "true",
        "null",
        "<think>",
        "</think>",
        "```",
        "1e999",
        "\ud800",
        "I can't",
        "\n",
    ]
)


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join)))
@example("{" * 5000)
@example('{"label":' * 2000)
@example("<think>" * 3000)
@example('{"label": "' + "\\" * 9999)
@example("{label: '" + "a'a" * 5000)
@example('{"label": ' + "9" * 5000 + "}")
def test_whatever_is_said_nothing_but_unusable_is_raised(text: str) -> None:
    began = time.process_time()
    try:
        found = parse(text, SYSTEM)
    except Unusable as unusable:
        assert str(unusable)
    else:
        assert 0 < len(found.label) <= 120
        assert found.label.isprintable() and found.explanation.isprintable()
        assert found.confidence is None or 0 <= found.confidence <= 1
    assert time.process_time() - began < 1


@settings(deadline=None)
@given(st.text(min_size=1), st.text(), st.integers(0, 100))
def test_a_good_answer_in_json_is_read_as_it_is(label: str, explanation: str, confidence: int) -> None:
    try:
        found = parse(said(label=label, explanation=explanation, confidence=confidence))
    except Unusable as unusable:
        assert "JSON" not in str(unusable)
    else:
        assert found.confidence == confidence / 100
        assert len(found.label) <= len(label)
