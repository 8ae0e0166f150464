"""An answer in chunks, as OpenAI's clients read them: a frame of ``data:`` each, the last one ``[DONE]``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from mistudiod.api.body import encoded
from mistudiod.api.openai_answers import Chunk, Voice
from mistudiod.api.refusals import error_text, unforeseen
from mistudiod.api.stream import HEADERS, send
from mistudiod.errors import SessionFailed, StudioError
from mistudiod.events import AnyEvent, Replied, Wrote


async def result_of(events: AsyncIterator[AnyEvent]) -> dict[str, Any]:
    """What the session answers in the end. Raises StudioError."""
    async for event in events:
        if isinstance(event, Replied):
            return event.result
    raise _without_answer()


async def stream(request: web.Request, events: AsyncIterator[AnyEvent], voice: Voice) -> web.StreamResponse:
    """Raises StudioError as long as nothing has been written: such an answer has a status, and is no stream.

    Afterwards a failure is a frame with the error, and no ``[DONE]`` follows it.
    """
    async with aclosing(_chunks(events, voice)) as parts:
        first = await anext(parts)
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            await send(request, response, _frames(first))
            async for part in parts:
                await send(request, response, _frames(part))
            last = "[DONE]"
        except ConnectionError:
            return response  # the reader has gone
        except StudioError as error:
            last = error_text(request, error)
        except Exception:  # noqa: BLE001 - unforeseen() logs it; no status can say it any more
            last = error_text(request, unforeseen(request))
        with suppress(ConnectionError):
            await send(request, response, _frame(last))
    return response


async def _chunks(events: AsyncIterator[AnyEvent], voice: Voice) -> AsyncGenerator[list[Chunk], None]:
    """What is to be sent together; nothing while the model is being loaded. Raises StudioError."""
    chunks = [*voice.begin()]
    async for event in events:
        if isinstance(event, Replied):
            yield [*chunks, *voice.end(event.result)]
            return
        if isinstance(event, Wrote) and (chunks := [*chunks, *voice.more(event.texts)]):
            yield chunks
            chunks = []
    raise _without_answer()


def _without_answer() -> StudioError:
    return SessionFailed("the session has ended without an answer")


def _frames(chunks: list[Chunk]) -> bytes:
    return b"".join(_frame(encoded(chunk)) for chunk in chunks)


def _frame(data: str) -> bytes:
    return b"data: " + data.encode(errors="replace") + b"\n\n"
