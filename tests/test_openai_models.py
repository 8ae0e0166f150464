"""What OpenAI's clients send and read: requests held to what a steered model can do, answers whole and in chunks."""

from __future__ import annotations

from typing import Any

import pytest

from mistudiod.api.body import check
from mistudiod.api.openai import _as_asked
from mistudiod.api.openai_answers import CHAT, COMPLETION, ChatCompletion, Completion, Voice
from mistudiod.api.openai_asks import ChatRequest, CompletionRequest
from mistudiod.errors import Invalid, SessionFailed
from mistudiod.events import Written
from mistudiod.specs import Edit, Message

USER = {"role": "user", "content": "Hello"}
RESULT = {
    "model": "m",
    "texts": [{"text": "one two", "finish": "length", "tokens": 2}, {"text": "drei", "finish": "stop", "tokens": 1}],
    "prompt_tokens": 3,
    "completion_tokens": 3,
    "no_effect": None,
}


def completion(**fields: Any) -> CompletionRequest:
    return check({"model": "m", "prompt": "Once", **fields}, CompletionRequest)


def chat(**fields: Any) -> ChatRequest:
    return check({"model": "m", "messages": [USER], **fields}, ChatRequest)


def refused(error: pytest.ExceptionInfo[Invalid]) -> str:
    """The field that is named."""
    assert error.value.fields is not None and len(error.value.fields) == 1
    (name,) = error.value.fields
    assert error.value.message.startswith(f"{name}: ")
    return name


def test_what_is_not_given_is_as_openai_has_it() -> None:
    spec = completion().spec("m", [])
    assert (spec.max_tokens, spec.temperature, spec.top_p, spec.samples, spec.stop) == (16, 1.0, 1.0, 1, [])
    assert (spec.prompt, spec.messages, spec.steering) == ("Once", None, [])
    assert chat().spec("m", []).max_tokens == 1024


def test_null_is_as_if_it_were_not_given() -> None:
    nulls = dict.fromkeys(CompletionRequest.model_fields.keys() - {"model", "prompt"})
    assert completion(**{**nulls, "seed": 1}).spec("m", []) == completion(seed=1).spec("m", [])
    nulls = dict.fromkeys(ChatRequest.model_fields.keys() - {"model", "messages"})
    assert chat(**{**nulls, "seed": 1}).spec("m", []) == chat(seed=1).spec("m", [])


def test_what_is_given_goes_down() -> None:
    given = {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "top_k": 7, "repetition_penalty": 1.5, "seed": 9}
    spec = completion(**given, n=3, stop=["a", "b"]).spec("gpt", [Edit(feature=4, sae="s")])
    assert {name: getattr(spec, name) for name in given} == given
    assert (spec.model, spec.samples, spec.stop, spec.steering) == ("gpt", 3, ["a", "b"], [Edit(feature=4, sae="s")])


def test_a_seed_that_is_not_given_is_another_each_time() -> None:
    assert len({completion().seed for _ in range(20)}) > 1
    assert all(0 <= completion(seed=None).spec("m", []).seed < 2**31 for _ in range(20))


def test_the_newer_name_of_the_most_tokens_takes_the_place_of_the_older() -> None:
    assert chat(max_completion_tokens=7).spec("m", []).max_tokens == 7
    assert chat(max_completion_tokens=7, max_tokens=9).spec("m", []).max_tokens == 7
    assert chat(max_tokens=9).spec("m", []).max_tokens == 9


def test_a_prompt_is_a_text_or_a_list_of_one() -> None:
    assert completion(prompt=["Once"]).prompt == "Once"
    for prompt in ([], ["a", "b"], [1, 2], [[1, 2]], [["a"]], "", None, 5, {"a": 1}):
        with pytest.raises(Invalid) as error:
            completion(prompt=prompt)
        assert refused(error) == "prompt"


def test_messages_are_texts_whoever_says_them() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "prompt_cache_breakpoint": {}}]
    answer = {
        "role": "assistant",
        "content": "x",
        "annotations": [],
        **dict.fromkeys(("refusal", "audio", "tool_calls")),
    }
    said = [{"role": "developer", "content": "d", "name": "me"}, {"role": "user", "content": parts}, answer]
    assert chat(messages=said).spec("m", []).messages == [
        Message(role="system", content="d"),
        Message(role="user", content="a\nb"),
        Message(role="assistant", content="x"),
    ]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages.0.role"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages.0.content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content"),
        ({"role": "user", "content": []}, "messages.0.content"),
        ({"role": "assistant", "content": None}, "messages.0.content"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, "messages.0.tool_calls"),
        ({"role": "user", "content": "x", "colour": "red"}, "messages.0.colour"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as error:
        chat(messages=[message])
    assert field in (error.value.fields or {})


HARMLESS = {
    "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "user": "me", "tools": [], "functions": [],
    "tool_choice": "none", "function_call": "auto", "parallel_tool_calls": True, "response_format": {"type": "text"},
    "logprobs": False, "top_logprobs": 0, "modalities": ["text"], "reasoning_effort": "none", "metadata": {"a": "b"},
    "store": True, "service_tier": "auto", "prediction": {"type": "content", "content": "x"}, "safety_identifier": "x",
    "prompt_cache_key": "x", "prompt_cache_retention": "24h", "stream_options": {"include_obfuscation": False},
}  # fmt: skip


def test_what_has_no_effect_is_taken() -> None:
    assert chat(**HARMLESS, seed=1).spec("m", []) == chat(seed=1).spec("m", [])
    harmless = {"best_of": 2, "n": 2, "echo": False, "suffix": "", "logit_bias": {}, "presence_penalty": 0, "user": "x"}
    assert completion(**harmless, seed=1).spec("m", []) == completion(n=2, seed=1).spec("m", [])


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]}, {"functions": [{"name": "f"}]}, {"tool_choice": "required"},
        {"function_call": {"name": "f"}}, {"response_format": {"type": "json_object"}}, {"logprobs": True},
        {"top_logprobs": 3}, {"modalities": ["audio"]}, {"audio": {"voice": "x"}}, {"frequency_penalty": 0.5},
        {"presence_penalty": -1}, {"logit_bias": {"50256": -100}}, {"reasoning_effort": "high"}, {"verbosity": "low"},
        {"web_search_options": {}}, {"moderation": {"model": "x"}}, {"no_such_field": 1}, {"temperature": -1},
        {"temperature": "hot"}, {"n": 0}, {"n": 65}, {"seed": -1}, {"seed": 2**31}, {"top_p": 0}, {"stop": [""]},
        {"stop": ["x"] * 17}, {"max_tokens": 0}, {"max_completion_tokens": 5000}, {"stream": "perhaps"},
        {"if_busy": "fight"}, {"messages": []},
    ],
    ids=str,
)  # fmt: skip
def test_what_would_change_the_answer_and_is_not_to_be_had_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as error:
        chat(**fields)
    assert refused(error) == next(iter(fields))


@pytest.mark.parametrize(
    "fields", [{"echo": True}, {"suffix": "x"}, {"logprobs": 0}, {"best_of": 2}, {"messages": [USER]}], ids=str
)
def test_of_a_completion_too(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as error:
        completion(**fields)
    assert refused(error) == next(iter(fields))


def test_more_than_one_request_may_write_is_refused_before_it_is_written() -> None:
    with pytest.raises(Invalid, match="lower n or max_tokens") as error:
        chat(n=17, max_tokens=1000).spec("m", [])
    assert refused(error) == "n"
    assert chat(n=16, max_tokens=1000).spec("m", []).samples == 16


def test_where_nobody_says_how_many_tokens_there_are_as_many_as_there_is_room_for() -> None:
    assert chat().spec("m", []).shorter and chat(n=64).spec("m", []).max_tokens == 256
    assert completion().spec("m", []).shorter and not completion(max_tokens=16).spec("m", []).shorter
    assert not chat(max_completion_tokens=5).spec("m", []).shorter


def test_more_edits_than_there_may_be_are_refused_the_profiles_among_them() -> None:
    edits = [Edit(feature=n, sae="s") for n in range(101)]
    with pytest.raises(Invalid, match="101 edits together with the profile's") as error:
        chat().spec("m", edits)
    assert refused(error) == "steering"


def test_a_wrong_edit_is_named_by_its_number() -> None:
    edits = [{"sae": "s", "feature": 1}, {"sae": "s", "feature": -1}]
    with pytest.raises(Invalid) as error:
        chat(steering=edits)
    assert refused(error) == "steering.1.feature"


def test_an_answer_is_as_the_document_says() -> None:
    said = Completion.model_validate(Voice(COMPLETION, "m:p", 5, 2).whole(RESULT))
    assert [(one.index, one.text, one.finish_reason) for one in said.choices] == [
        (0, "one two", "length"),
        (1, "drei", "stop"),
    ]
    assert (said.model, said.seed, said.usage.total_tokens, said.steering) == ("m:p", 5, 6, None)
    answered = ChatCompletion.model_validate(Voice(CHAT, "m", 5, 2).whole(RESULT))
    assert [one.message.content for one in answered.choices] == ["one two", "drei"]
    assert answered.id.startswith("chatcmpl-") and said.id.startswith("cmpl-")


NO_EFFECT = [{"sae": "s", "feature": 3, "reason": "dead", "message": "feature 3 never fires"}]


def test_an_edit_without_effect_is_said_in_the_answer_and_in_the_last_chunk_of_each_text() -> None:
    result = {**RESULT, "no_effect": NO_EFFECT}
    assert Voice(CHAT, "m", 5, 2).whole(result)["steering"] == {"no_effect": NO_EFFECT}
    ends = [one for one in Voice(CHAT, "m", 5, 2).end(result) if one["choices"][0]["finish_reason"]]
    assert [one["steering"] for one in ends] == [{"no_effect": NO_EFFECT}] * 2
    assert not [one for one in Voice(CHAT, "m", 5, 2).end(RESULT) if "steering" in one]


@pytest.mark.parametrize("tells_usage", [False, True])
def test_the_chunks_of_each_text_are_the_text(tells_usage: bool) -> None:
    voice = Voice(CHAT, "m", 5, 2, tells_usage)
    chunks = [*voice.begin(), *voice.more([Written(row=1, text="dr"), Written(row=0, text="one")]),
              *voice.more([Written(row=0, text=" tw"), Written(row=1, text="")]), *voice.end(RESULT)]  # fmt: skip
    assert {one["id"] for one in chunks} == {chunks[0]["id"]}
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    texts, ends, roles = ["", ""], [None, None], [None, None]
    for choice in (choice for one in chunks for choice in one["choices"]):
        index = choice["index"]
        assert ends[index] is None, "nothing comes after the end"
        roles[index] = roles[index] or choice["delta"].get("role")
        texts[index] += choice["delta"].get("content", "")
        ends[index] = choice["finish_reason"]
    assert (texts, ends, roles) == (["one two", "drei"], ["length", "stop"], ["assistant", "assistant"])
    if tells_usage:
        assert [one["usage"] for one in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        assert chunks[-1]["choices"] == []
    else:
        assert not [one for one in chunks if "usage" in one]


def test_a_text_that_is_another_in_the_end_is_a_failure() -> None:
    voice = Voice(COMPLETION, "m", 5, 2)
    (chunk,) = voice.more([Written(row=0, text="two")])
    assert chunk["choices"][0]["text"] == "two"
    with pytest.raises(SessionFailed):
        [*voice.end(RESULT)]


def test_a_wrong_edit_is_counted_from_the_requests_first_not_from_the_profiles() -> None:
    fields = {"steering.2.scope": "a", "steering.0.sae": "b", "steering": "c", "prompt": "d"}
    assert _as_asked(fields, 1) == {"steering.1.scope": "a", "model": "b", "steering": "c", "prompt": "d"}
