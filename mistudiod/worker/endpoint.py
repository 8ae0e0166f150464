"""An OpenAI-compatible server that is asked: OpenAI's own, Ollama's, vLLM's and the like, through OpenAI's client.

The client retries what may pass (408, 409, 429, 5xx, time-outs, broken connections), with back-off and as long as
Retry-After says. What fails for good is one question's (``Unanswered``) or, when no further question could fare better,
the job's (``Refused``).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import openai

from mistudiod.labelling.cost import thinks, tokens_of
from mistudiod.labelling.thinking import without_thinking
from mistudiod.specs.label import Asking
from mistudiod.worker import endpoint_errors as errors
from mistudiod.worker.budget import Budget, Purse, Tokens, Tries
from mistudiod.worker.endpoint_errors import Unanswered
from mistudiod.worker.link import Refused
from mistudiod.worker.reach import check_peer, reach

RETRIES = 3
_LONGEST_WAIT_S = 120.0  # that OpenAI's client honours of a Retry-After
_MORE_ROOM = 8  # times the tokens of an answer, for a model that thinks first
_REFUSES_FORM = (400, 415, 422, 500, 501)  # 500: some servers fail at what they do not know
_TOO_LONG = r"context.(length|window|size)|too long|maximum context"  # the question, not its form
_TOKENS_BELOW = 2**53  # what is no number of tokens that an answer can have
_NO_KEY = "none"  # the client wants one; servers without keys read none
_TRIES: ContextVar[Tries] = ContextVar("tries")  # of the question that is asked in this task
Message = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """Tokens are what the server counted; where it counts none, they are guessed from characters."""

    text: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Form:
    """What this server takes in a question; found out from what it refuses."""

    schema: bool = True
    limit: str = "max_tokens"
    temperature: bool = True
    room: int = 1


class Endpoint:
    """``async with Endpoint(given, spec, key) as endpoint: await endpoint.ask(...)``.

    ``given``: ``{"name", "url", "on_this_machine"}``. Without ``budget`` it makes one; raises Refused as ``Budget``
    does. ``endpoint.used`` is what the questions have taken until now.
    """

    def __init__(self, given: Mapping[str, Any], spec: Asking, key: str | None, budget: Budget | None = None) -> None:
        self.name, self.url = str(given["name"]), base_url(str(given["url"]))
        secret = given.get("secret") or errors.secret_name(self.url)
        self._spec, self._shown = spec, errors.Shown(self.name, self.url, str(spec.model), str(secret))
        self.used = budget or Budget(spec, given)
        self._form = Form()
        if thinks(self._shown.model):
            self._form = Form(limit="max_completion_tokens", temperature=False, room=_MORE_ROOM)
        self._proved: Form | None = None  # what has been answered once
        self._answered = False  # at all
        self._slots, self._first, self._began = asyncio.Semaphore(spec.concurrency), asyncio.Lock(), False
        self._over: Refused | None = None  # why nothing is asked any more
        self._not_before = 0.0  # of the loop's clock: as the server has asked us all to wait
        self._client = self._make_client(key)

    def _make_client(self, key: str | None) -> openai.AsyncOpenAI:
        for name in [name for name in os.environ if name.startswith("OPENAI_")]:
            del os.environ[name]  # the client would send organization, project and headers of these to any server
        http = openai.DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=False,  # neither proxies nor .netrc
            timeout=self._spec.timeout_s,
            event_hooks={"request": [self._begins_try], "response": [self._look_at]},
        )
        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=key or _NO_KEY,
            http_client=http,
            max_retries=RETRIES,
            timeout=self._spec.timeout_s,
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def models(self) -> list[str]:
        """Names of the models that the server lists. Raises Refused when it lists none."""
        await reach(self.name, self.url)
        return await errors.listed(self._shown, self._client)

    def purse(self, questions: Sequence[Sequence[Message]], max_tokens: int) -> Purse:
        """Room for questions that are worth something together only; ``max_tokens``: of each answer."""
        held = [self._most(messages, max_tokens, self._form) for messages in questions]
        return Purse(self.used, (sum(prompt for prompt, _ in held), sum(answer for _, answer in held)))

    async def ask(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        purse: Purse | None = None,
    ) -> Answer:
        """The answer, of ``max_tokens`` at most (more for a model that thinks), as JSON by ``schema`` where the server
        can. Paid from the purse, if any. Raises Unanswered, BudgetReached, Refused.
        """
        room = purse or self.used
        async with self._slots:
            if not self._began:
                async with self._first:  # one question alone finds out whether and how this server answers
                    if not self._began:
                        return await self._begin(messages, schema, max_tokens, room)
            if self._over:
                raise self._over
            return await self._ask(messages, schema, max_tokens, room)

    async def _begin(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, max_tokens: int, room: Budget | Purse
    ) -> Answer:
        try:
            await reach(self.name, self.url)
            return await self._ask(messages, schema, max_tokens, room)
        except Refused as refused:
            self._over = refused
            raise
        finally:
            self._began = True

    async def _ask(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, max_tokens: int, room: Budget | Purse
    ) -> Answer:
        form, tried = self._form, set[Form]()
        while True:
            tried.add(form)
            tries = Tries(room, self._most(messages, max_tokens, form))
            try:
                answer, was_cut = await self._paid(messages, schema, max_tokens, form, tries)
            except openai.APIStatusError as error:
                lesser = None if form == self._proved else _other_form(form, tried, schema is not None, error)
                if lesser is None:
                    raise Unanswered(errors.said(error)) from error
                form = lesser
                continue
            self._form = self._proved = form
            if not was_cut or form.room == _MORE_ROOM or without_thinking(answer.text):
                return answer
            form = replace(form, room=_MORE_ROOM)  # it has only thought until now

    async def _paid(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        form: Form,
        tries: Tries,
    ) -> tuple[Answer, bool]:
        await tries.begin()
        used, before = None, _TRIES.set(tries)
        try:
            answer, was_cut = await self._call(messages, schema, max_tokens, form)
            used = (answer.prompt_tokens, answer.answer_tokens)
        finally:
            _TRIES.reset(before)
            await tries.end(used)
        return answer, was_cut

    @staticmethod
    def _most(messages: Sequence[Message], max_tokens: int, form: Form) -> Tokens:
        return _tokens_of(messages), max_tokens * form.room

    async def _call(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, max_tokens: int, form: Form
    ) -> tuple[Answer, bool]:
        """The answer, and whether it was cut at its length. Of a status that refuses the form raises APIStatusError."""
        options: dict[str, Any] = {form.limit: max_tokens * form.room}
        if form.temperature:
            options["temperature"] = 0
        if form.schema and schema is not None:
            wanted = {"name": "answer", "strict": True, "schema": schema}
            options["response_format"] = {"type": "json_schema", "json_schema": wanted}
        limit_s = (RETRIES + 1) * (self._spec.timeout_s + _LONGEST_WAIT_S)  # for one who sends a byte now and then
        try:
            asked = self._client.chat.completions.create(model=self._shown.model, messages=list(messages), **options)
            completion = await asyncio.wait_for(asked, limit_s)
        except (openai.APITimeoutError, asyncio.TimeoutError) as error:
            raise errors.TookTooLong(f"no answer within {self._spec.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            await reach(self.name, self.url)  # Refused when there is nobody any more
            raise errors.broken(error, self._shown, self._answered) from error
        except openai.APIStatusError as error:
            await errors.raise_what_is_final(error, self._shown, self._answered, self._client)
            raise
        except ValueError as error:  # the body is no JSON
            raise errors.no_json("", self._shown, self._answered) from error
        return self._read(completion, messages)

    def _read(self, completion: Any, messages: Sequence[Message]) -> tuple[Answer, bool]:
        if isinstance(completion, str):
            raise errors.no_json(completion, self._shown, self._answered)
        try:
            choice = completion.choices[0]
            text = str(choice.message.content or choice.message.refusal or "")
            was_cut = choice.finish_reason == "length"
        except (AttributeError, LookupError, TypeError):
            raise Unanswered(errors.said_in(completion)) from None
        self._answered = True
        prompt, answer = _counted(completion, "prompt_tokens"), _counted(completion, "completion_tokens")
        guessed = tokens_of(text) if answer is None else answer
        return Answer(text, prompt or _tokens_of(messages), guessed), was_cut

    # What the client's own client is told of: before each request, and after it, retries included.

    async def _begins_try(self, request: Any) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._not_before - loop.time()) > 0:
            await asyncio.sleep(left)
        tries = _tries_of(request)
        if tries:
            await tries.sends()

        async def sees(event: str, info: Mapping[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                await check_peer(self.name, info["return_value"])
            elif event.endswith("send_request_headers.started") and tries:
                tries.has_sent()

        request.extensions = {**request.extensions, "trace": sees}

    async def _look_at(self, response: Any) -> None:
        if tries := _tries_of(response.request):
            tries.answers(response.status_code)
        if response.status_code == 429:
            await response.aread()
            if "insufficient_quota" in response.text:  # waiting does not help
                raise errors.no_credit(self._shown)
        if response.status_code in (429, 503):
            wait_s = errors.retry_after_s(response.headers)
            if wait_s is not None and wait_s <= _LONGEST_WAIT_S:
                self._not_before = max(self._not_before, asyncio.get_running_loop().time() + wait_s)


def base_url(url: str) -> str:
    """As the client wants it: without a password, and with the /v1 of an address that ends with its host."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


def _tries_of(request: Any) -> Tries | None:
    """Of a question; the list of models is none."""
    return _TRIES.get(None) if request.method == "POST" else None


def _tokens_of(messages: Sequence[Message]) -> int:
    return tokens_of("".join(message["content"] for message in messages))


def _counted(completion: Any, name: str) -> int | None:
    """A number of tokens as the server counts them; None when it says none that can be one."""
    found = getattr(getattr(completion, "usage", None), name, None)
    return found if type(found) is int and 0 <= found < _TOKENS_BELOW else None


def _other_form(form: Form, tried: set[Form], has_schema: bool, error: openai.APIStatusError) -> Form | None:
    """The form to try next, by what the server says it does not take; None when there is none."""
    text = errors.message_of(error).lower()
    if error.status_code not in _REFUSES_FORM or re.search(_TOO_LONG, text):
        return None
    limit = "max_tokens" if form.limit != "max_tokens" else "max_completion_tokens"
    others = [
        (r"temperature", replace(form, temperature=False)),
        (r"max_tokens|max_completion_tokens", replace(form, limit=limit)),
    ]
    if has_schema:
        others.insert(0, (r"response_format|schema|grammar|structured|guided", replace(form, schema=False)))
    others = [(words, other) for words, other in others if other not in tried]
    named = [other for words, other in others if re.search(words, text)]
    return next(iter([*named, *(other for _, other in others)]), None)
