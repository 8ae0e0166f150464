"""What OpenAI's clients read: models, completions, answers of a chat, and the chunks of both.

``seed`` and ``steering`` are ours; those clients hand them on as they are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.api.steer_answers import NoEffect
from mistudiod.errors import SessionFailed
from mistudiod.events import Written

Chunk = dict[str, Any]


class OpenAIModel(Fields):
    id: str = Field(description="`<model>`, or `<model>:<profile>`")
    object: Literal["model"]
    created: int = Field(description="seconds since 1970")
    owned_by: Literal["mistudio"]


class OpenAIModelList(Fields):
    object: Literal["list"]
    data: list[OpenAIModel]


class Usage(Fields):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class SteeringDone(Fields):
    no_effect: list[NoEffect] = Field(description="edits that changed nothing, and why")


class _Choice(Fields):
    index: int
    logprobs: None
    finish_reason: Literal["stop", "length"]


class CompletionChoice(_Choice):
    text: str


class AnswerMessage(Fields):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Choice):
    message: AnswerMessage


class _Answer(Fields):
    id: str
    created: int = Field(description="seconds since 1970")
    model: str = Field(description="as it was asked for")
    seed: int = Field(description="of the sampling: the same request with it is answered alike")
    usage: Usage
    steering: SteeringDone | None = Field(None, description="what is to be known of it: edits without effect")


class Completion(_Answer):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ChatCompletion(_Answer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


@dataclass(frozen=True)
class Shape:
    """How one kind of answer is written; ``first`` is what a choice's first chunk has, if there is one."""

    prefix: str
    whole: str
    part: str
    said: Callable[[str], Chunk]
    more: Callable[[str], Chunk]
    last: Chunk
    first: Chunk | None = None


COMPLETION = Shape(
    prefix="cmpl-",
    whole="text_completion",
    part="text_completion",
    said=lambda text: {"text": text},
    more=lambda text: {"text": text},
    last={"text": ""},
)
CHAT = Shape(
    prefix="chatcmpl-",
    whole="chat.completion",
    part="chat.completion.chunk",
    said=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    more=lambda text: {"delta": {"content": text}},
    last={"delta": {}},
    first={"delta": {"role": "assistant", "content": ""}},
)


@dataclass
class Voice:
    """One answer, whole or in chunks; what has been told of each text is kept, so that its rest can be."""

    shape: Shape
    model: str
    seed: int
    texts: int
    tells_usage: bool = False
    _told: list[str] = field(init=False)
    _head: Chunk = field(init=False)

    def __post_init__(self) -> None:
        self._told = [""] * self.texts
        id = f"{self.shape.prefix}{secrets.token_hex(12)}"
        self._head = {"id": id, "created": int(time.time()), "model": self.model, "seed": self.seed}

    def whole(self, result: dict[str, Any]) -> Chunk:
        choices = [
            {"index": index, **self.shape.said(text["text"]), "logprobs": None, "finish_reason": text["finish"]}
            for index, text in enumerate(result["texts"])
        ]
        head = {**self._head, "object": self.shape.whole}
        return {**head, "choices": choices, "usage": usage(result), **_steering(result)}

    def begin(self) -> Iterator[Chunk]:
        if self.shape.first is not None:
            for index in range(self.texts):
                yield self._chunk(index, self.shape.first)

    def more(self, written: list[Written]) -> Iterator[Chunk]:
        for one in written:
            if one.text:
                self._told[one.row] += one.text
                yield self._chunk(one.row, self.shape.more(one.text))

    def end(self, result: dict[str, Any]) -> Iterator[Chunk]:
        """The rest of each text and why it ends. Raises SessionFailed when other text has been told already."""
        for index, text in enumerate(result["texts"]):
            told = self._told[index]
            if not text["text"].startswith(told):
                raise SessionFailed("what the session wrote and what it says that it wrote are not the same")
            if rest := text["text"][len(told) :]:
                yield self._chunk(index, self.shape.more(rest))
            yield {**self._chunk(index, self.shape.last, text["finish"]), **_steering(result)}
        if self.tells_usage:
            yield {**self._part(), "choices": [], "usage": usage(result)}

    def _chunk(self, index: int, said: Chunk, finish: str | None = None) -> Chunk:
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        return {**self._part(), "choices": [choice], **({"usage": None} if self.tells_usage else {})}

    def _part(self) -> Chunk:
        return {**self._head, "object": self.shape.part}


def usage(result: dict[str, Any]) -> dict[str, int]:
    read, written = result["prompt_tokens"], result["completion_tokens"]
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _steering(result: dict[str, Any]) -> Chunk:
    """An edit that has changed nothing is never passed over in silence."""
    return {"steering": {"no_effect": result["no_effect"]}} if result["no_effect"] else {}
