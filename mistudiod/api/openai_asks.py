"""What OpenAI's clients send, held to what a steered model can do.

Of the fields of OpenAI's API, those without effect here are taken and ignored; those that would change the answer and
are not to be had are refused by name, unless their value asks for nothing. Steering is a field of our own.
Facts of the API: https://platform.openai.com/docs/api-reference, Completions and Chat.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, StringConstraints, field_validator, model_validator
from pydantic_core import CoreSchema, core_schema

from mistudiod.api.body import check
from mistudiod.api.fields import Fields
from mistudiod.api.session import IfBusy, KeepAlive
from mistudiod.errors import Invalid
from mistudiod.specs import Complete, Edit
from mistudiod.specs.steer import MOST_EDITS, MOST_WRITTEN, Prompt, Sampling, Steering

_OF_COMPLETION = 16  # tokens that are written when none are said, as OpenAI has it
_OF_CHAT = 1024  # there it is to the end of the context, which most of our models would go on to


@dataclass(frozen=True)
class Only:
    """Of a field that is not supported: the values that ask for nothing, null besides."""

    harmless: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._nothing, handler(source))

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"enum": [None, *self.harmless], "description": "not supported: taken when it asks for nothing"}

    def _nothing(self, value: Any) -> Any:
        if value is not None and value not in self.harmless:
            raise ValueError("is not supported here; leave it out")
        return value


Never = Annotated[Any, Only()]
Zero = Annotated[Any, Only((0,))]
No = Annotated[Any, Only((False,))]
Empty = Annotated[Any, Only(([], {}, ""))]
NoTool = Annotated[Any, Only(("none", "auto"))]  # which of them, when there are none
Ignored = Annotated[Any, Field(description="without effect here")]


def _null_is_absent(data: Any) -> Any:
    """To OpenAI's API null is as if the field were not there."""
    return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


def _one_prompt(prompt: Any) -> Any:
    if not isinstance(prompt, list):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if prompt and all(isinstance(one, str) for one in prompt):
        raise ValueError("holds several texts; send one request for each")
    raise ValueError("must be a text, or a list of one text; numbers of tokens cannot be read here")


def _one_text(content: Any) -> Any:
    """The parts of a message as one text, each on a line of its own."""
    if not isinstance(content, list):
        return content
    found = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    texts = [text for text in found if isinstance(text, str)]
    if not texts or len(texts) != len(content):
        raise ValueError("must be a text, or parts of the type text; nothing else can be read here")
    return "\n".join(texts)


def _listed(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class TextPart(Fields):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Ignored = None


Content = Annotated[
    str,
    StringConstraints(max_length=100_000),
    BeforeValidator(_one_text, json_schema_input_type=str | list[TextPart]),
]
Stop = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=1000)]],
    Field(max_length=16),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]


class ChatMessage(Fields):
    """Answers are sent back with the conversation: what they have besides their text is taken when it is empty."""

    role: Literal["developer", "system", "user", "assistant"] = Field(description="developer is system")
    content: Content
    name: Ignored = None
    annotations: Ignored = None
    audio: Never = None
    function_call: Never = None
    refusal: Empty = None
    tool_calls: Empty = None

    _absent = model_validator(mode="before")(_null_is_absent)


class StreamOptions(Fields):
    include_usage: bool = Field(False, description="a last chunk with how many tokens were read and written")
    include_obfuscation: Ignored = None

    _absent = model_validator(mode="before")(_null_is_absent)


class OpenAIRequest(Sampling):
    """What both kinds of request have."""

    model: str = Field(min_length=1, max_length=200, description="a model of the studio, or `<model>:<profile>`")
    steering: Steering = Field(
        [], description="features and what is done to them, after what the profile does; `sae` may be left out "
        "when the model has only one"
    )  # fmt: skip
    temperature: float = Field(1.0, ge=0, le=5, description="0 takes the likeliest token")
    seed: int = Field(
        default_factory=lambda: secrets.randbelow(2**31),
        ge=0,
        lt=2**31,
        description="of the sampling; one at random when not given, and the answer says which",
    )
    n: int = Field(1, ge=1, le=64, description="texts to write, each with a seed of its own")
    stop: Stop = Field([], description="texts before which writing ends")
    stream: bool = Field(False, description="answer with chunks, as the text is written")
    stream_options: StreamOptions | None = None
    keep_alive: KeepAlive = None
    if_busy: IfBusy = "refuse"
    frequency_penalty: Zero = None
    logit_bias: Empty = None
    presence_penalty: Zero = None
    user: Ignored = None

    _absent = model_validator(mode="before")(_null_is_absent)

    @property
    def tells_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def tokens(self) -> int | None:
        """Of each text, as they were asked for."""
        return self.max_tokens if "max_tokens" in self.model_fields_set else None

    @property
    def text(self) -> dict[str, Any]:
        """What is to be continued or answered, as the spec has it."""
        raise NotImplementedError

    def spec(self, model: str, steering: list[Edit]) -> Complete:
        """What the session is asked for. Raises Invalid."""
        tokens = self.tokens or min(self.max_tokens, MOST_WRITTEN // self.n)
        if self.n * tokens > MOST_WRITTEN:
            reason = f"{self.n} texts of {tokens:,} tokens are more than the {MOST_WRITTEN:,} of one request"
            raise Invalid(f"n: {reason}; lower n or max_tokens", {"n": reason})
        if len(steering) > MOST_EDITS:
            reason = f"is {len(steering)} edits together with the profile's; {MOST_EDITS} are the most"
            raise Invalid(f"steering: {reason}", {"steering": reason})
        sampling = {name: getattr(self, name) for name in Sampling.model_fields} | {"max_tokens": tokens}
        asked = {"model": model, "steering": steering, "samples": self.n, "stop": self.stop}
        return check({**sampling, **self.text, **asked, "shorter": self.tokens is None}, Complete)


class CompletionRequest(OpenAIRequest):
    """What POST /v1/completions takes."""

    prompt: Annotated[Prompt, BeforeValidator(_one_prompt, json_schema_input_type=str | list[str])] = Field(
        description="text to continue, or a list of one"
    )
    max_tokens: int = Field(_OF_COMPLETION, ge=1, le=4096, description="tokens to write")
    best_of: int | None = Field(None, description="not supported: no more than n")
    echo: No = None
    logprobs: Never = None
    suffix: Empty = None

    @field_validator("best_of")
    @classmethod
    def _is_n(cls, best_of: int | None, info: Any) -> int | None:
        if best_of is not None and best_of > info.data.get("n", best_of):
            raise ValueError("above n is not supported here; leave it out")
        return best_of

    @property
    def text(self) -> dict[str, Any]:
        return {"prompt": self.prompt}


class ChatRequest(OpenAIRequest):
    """What POST /v1/chat/completions takes."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=200, description="the conversation to answer")
    max_tokens: int = Field(_OF_CHAT, ge=1, le=4096, description="tokens to write")
    max_completion_tokens: int | None = Field(None, ge=1, le=4096, description="takes the place of max_tokens")
    audio: Never = None
    function_call: NoTool = None
    functions: Empty = None
    logprobs: No = None
    metadata: Ignored = None
    modalities: Annotated[Any, Only((["text"],))] = None
    moderation: Never = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    reasoning_effort: Annotated[Any, Only(("none",))] = None
    response_format: Annotated[Any, Only(({"type": "text"},))] = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    tool_choice: NoTool = None
    tools: Empty = None
    top_logprobs: Zero = None
    verbosity: Never = None
    web_search_options: Never = None

    @property
    def tokens(self) -> int | None:
        return self.max_completion_tokens or super().tokens

    @property
    def text(self) -> dict[str, Any]:
        roles = {"developer": "system"}
        return {"messages": [{"role": roles.get(one.role, one.role), "content": one.content} for one in self.messages]}
