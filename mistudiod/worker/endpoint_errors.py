"""Why an endpoint gave no answer, in one sentence: an error of one question, or the end of the job."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import openai

from mistudiod.worker.link import Refused

_LONGEST = 200  # characters of what a server says that are passed on
_MODELS_SHOWN = 10
_LIST_S = 10.0
_NO_MODEL = re.compile(
    r"model\b.{0,120}\b(not found|not exist|not a valid|invalid)|invalid model|no such model", re.DOTALL
)


class Unanswered(Exception):
    """This question has no answer; others may have one. One short reason."""


class TookTooLong(Unanswered):
    """The time was over before the answer came."""


@dataclass(frozen=True)
class Shown:
    """How an endpoint is spoken of. ``secret`` is the name of its key."""

    name: str
    url: str
    model: str
    secret: str

    def ends(self, sentence: str, field: str = "endpoint") -> Refused:
        return Refused(f"{self.name} {sentence}", field=field)


def secret_name(url: str) -> str:
    """Under which name the key of an endpoint is kept."""
    parts = urlsplit(url)
    host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    return "openai" if host == "api.openai.com" else host


def broken(error: openai.APIConnectionError, shown: Shown, answered: bool) -> Exception:
    """It listens, but does not speak as it should: wrong protocol, bad certificate, connection cut."""
    cause = error.__cause__
    why = shortened(str(cause) or type(cause).__name__)
    if answered:
        return Unanswered(f"the connection broke off ({why})")
    return shown.ends(f"does not speak HTTP as it should at {shown.url} ({why}): correct its address")


def no_json(body: str, shown: Shown, answered: bool) -> Exception:
    what = "a web page" if re.match(r"\s*<(!doctype|html)", body, re.IGNORECASE) else "something that is no JSON"
    if answered:
        return Unanswered(f"the endpoint answered with {what}")
    return shown.ends(f"answers with {what} at {shown.url}: it is no OpenAI-compatible server, correct its address")


def no_credit(shown: Shown) -> Exception:
    return shown.ends("says that its account has no credit left: top it up there, then retry the job")


async def raise_what_is_final(
    error: openai.APIStatusError, shown: Shown, answered: bool, client: openai.AsyncOpenAI
) -> None:
    """Raises Refused when no further question would be answered; ``answered``: an earlier one has been."""
    status, said = error.status_code, message_of(error)
    if 300 <= status < 400:
        target = _target(shown.url, error.response.headers.get("location", ""))
        raise shown.ends(f"sends us on to {target}, which is refused: give the address itself")
    if status == 401 or (status == 403 and not answered):  # later, a filter's word on one question
        raise shown.ends(
            f"refuses the key ({status}): set the right one with mistudio secret set {shown.secret}, then retry the job"
        )
    if status == 402:
        raise no_credit(shown)
    if error.code == "model_not_found" or (status in (400, 404) and _NO_MODEL.search(said)):
        raise await _no_model(shown, client)
    if status == 404:
        known = await _models(client)
        if known is not None and shown.model not in known:
            raise await _no_model(shown, client)
        if not answered:
            raise shown.ends(f"answers 404 at {shown.url}: is this its address, with the /v1 at its end?")


def _target(url: str, location: str) -> str:
    """Host and port of a redirection, as far as they can be read."""
    try:
        return shortened(urlsplit(urljoin(url, location)).netloc.rpartition("@")[2]) or "nowhere"
    except ValueError:
        return "elsewhere"


async def _no_model(shown: Shown, client: openai.AsyncOpenAI) -> Refused:
    known = await _models(client)
    if not known:
        return shown.ends(f"has no model {shown.model}: see there what it is called", field="model")
    names = ", ".join(known[:_MODELS_SHOWN]) + (
        f" and {len(known) - _MODELS_SHOWN} more" * (len(known) > _MODELS_SHOWN)
    )
    return shown.ends(f"has no model {shown.model}; it has {names}", field="model")


async def listed(shown: Shown, client: openai.AsyncOpenAI) -> list[str]:
    """Names of the models that the server lists, which is asked once. Raises Refused."""
    try:
        page = await client.with_options(max_retries=0, timeout=_LIST_S).models.list()
        return [shortened(str(model.id)) for model in page.data]
    except openai.APIStatusError as error:
        await raise_what_is_final(error, shown, False, client)
        raise shown.ends(f"answers {error.status_code} when it is asked for its models") from error
    except openai.APITimeoutError as error:
        raise shown.ends(f"does not answer at {shown.url} within {_LIST_S:.0f} s") from error
    except openai.APIConnectionError as error:
        raise error.__cause__ if isinstance(error.__cause__, Refused) else broken(error, shown, False) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise no_json("", shown, False) from error


async def _models(client: openai.AsyncOpenAI) -> list[str] | None:
    """Names of the models that the server lists; None when it lists none."""
    try:
        page = await client.with_options(max_retries=0, timeout=_LIST_S).models.list()
        return [shortened(str(model.id)) for model in page.data]
    except (openai.OpenAIError, Refused, AttributeError, TypeError, ValueError):
        return None


def said(error: openai.APIStatusError) -> str:
    """A reason that is the same for the same trouble, so that reasons can be counted."""
    status, message = error.status_code, message_of(error)
    if status == 429:
        return "the endpoint had too much to do (429)"
    if re.match(r"\s*<", message):
        return f"the endpoint answered {status} with a web page"
    return f"the endpoint answered {status}: {shortened(message)}" if message else f"the endpoint answered {status}"


def said_in(completion: Any) -> str:
    """Of a body that is no completion, such as ``{"error": ...}`` under status 200."""
    extra = getattr(completion, "model_extra", None) or {}
    message = _message_in(extra) if isinstance(extra, Mapping) else ""
    return (
        f"the endpoint answered without an answer: {shortened(message)}" if message else "the endpoint gave no answer"
    )


def message_of(error: openai.APIStatusError) -> str:
    """What the server says; the whole body when it says it in no known way."""
    try:
        body = json.loads(error.response.text)
    except ValueError:
        return error.response.text
    return _message_in(body) if isinstance(body, Mapping) else error.response.text


def _message_in(body: Mapping[str, Any]) -> str:
    found = body.get("error", body)
    if isinstance(found, Mapping):
        found = found.get("message") or found.get("detail") or ""
    return found if isinstance(found, str) else json.dumps(found)


def shortened(text: str) -> str:
    """One line, nothing invisible in it."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks to wait: RFC 9110, 10.2.3, and OpenAI's own in milliseconds."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "")
        if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
            return float(text) / unit
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return email.utils.mktime_tz(date) - time.time() if date else None
