"""Asking the Hub: without losing sight of the daemon, and with a sentence for everything that it may answer."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, Literal, TypeVar

from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mistudiod.worker.link import Link, Refused

# The base of every error of the HTTP library that this version of huggingface_hub happens to use.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
TIMEOUT_S = 10.0  # without a byte from the Hub
LOOK_EVERY_S = 0.1  # at what the daemon has asked: a stop is answered within a second
_TRIES = 4  # in a row without anything having come
FIRST_WAIT_S = 0.5  # before the second try; twice as long before each further one
_LONGEST_WAIT_S = 300.0  # that a rate limit may ask for
_PASSING = {408, 429, 500, 502, 503, 504}

Kind = Literal["model", "dataset", "SAE"]
T = TypeVar("T")


class Gone(Exception):
    """Nobody waits for this thread any more."""


def endpoint() -> str:
    """Where the Hub is."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def page(kind: Kind, id: str) -> str:
    """The page of a repository, where access to it is asked for."""
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{id}"


def answered(link: Link, work: Callable[[threading.Event], T], tell: Callable[[], None] = lambda: None) -> T:
    """What ``work`` returns, from a thread of its own; raises what it raises.

    ``tell`` is called ten times a second meanwhile. When the daemon asks for an end this raises Asked at once, however
    long the Hub keeps silent, and sets the event that ``work`` is given.
    """
    gone, pool = threading.Event(), ThreadPoolExecutor(1, "hub")
    try:
        running = pool.submit(copy_context().run, work, gone)
        while not wait([running], LOOK_EVERY_S).done:
            link.check()
            tell()
        tell()
        return running.result()
    finally:
        gone.set()
        pool.shutdown(wait=False)


def persisted(work: Callable[[], T], gone: threading.Event, has_come: Callable[[], int] = lambda: 0) -> T:
    """What ``work`` returns, tried again after what may pass: a cut connection, a rate limit, a Hub out of breath.

    It gives up after four tries in a row between which ``has_come``, a number of bytes, has not grown.
    """
    tries, come = 0, has_come()
    while True:
        try:
            return work()
        except HTTP_ERROR as error:
            status = status_of(error)
            if isinstance(error, HfHubHTTPError) and status not in _PASSING:
                raise
            tries = 1 if has_come() > come else tries + 1
            come = has_come()
            wait_s = _asked_wait_s(error) if status == 429 else 0.0
            if tries >= _TRIES or wait_s > _LONGEST_WAIT_S:
                raise
            if gone.wait(max(wait_s, FIRST_WAIT_S * 2 ** (tries - 1))):
                raise Gone from error


def is_unreachable(error: Exception) -> bool:
    """Whether there was no answer of the Hub's at all."""
    return isinstance(error, HTTP_ERROR) and status_of(error) is None


def refusal(error: Exception, kind: Kind, id: str, token: str | None) -> Refused | None:
    """The sentence for what the Hub's client raised; None for what has nothing to do with the Hub."""
    where = page(kind, id)
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return refusal(error.__cause__, kind, id, token)
    if isinstance(error, GatedRepoError):
        return Refused(_gated(id, where, token), "source")
    if isinstance(error, RepositoryNotFoundError):
        return Refused(_not_found(kind, id, where, token), "source")
    if isinstance(error, RevisionNotFoundError):
        return Refused(
            f"{id} has no such revision: its commits, branches and tags are at {where}/tree/main", "revision"
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return Refused(f"a file of {id} is not there any more: retry the job, which then takes what is", "source")
    if isinstance(error, DisabledRepoError):
        return Refused(f"{id} has been disabled on the Hub; {where} may say why", "source")
    if isinstance(error, OfflineModeIsEnabled):
        return offline(kind, id)
    if isinstance(error, HTTP_ERROR):
        return Refused(_answer(error, where, token), "source")
    return None


def offline(kind: Kind, id: str) -> Refused:
    return Refused(
        f"miStudio is offline and the {kind} {id} is not in this machine's Hugging Face cache: add it once with the "
        "setting offline and the variable HF_HUB_OFFLINE unset, or copy the cache of a machine that has it",
        "source",
    )


def _gated(id: str, where: str, token: str | None) -> str:
    if token is None:
        return (
            f"{id} is gated: ask for access at {where}, make a token of that account at {endpoint()}/settings/tokens "
            "and store it with mistudio secret set hf"
        )
    return f"{id} is gated, and the account of the stored token has no access: ask for it at {where}, then retry"


def _not_found(kind: Kind, id: str, where: str, token: str | None) -> str:
    if token is None:
        return (
            f"there is no public {kind} {id} on the Hub: check its spelling, {where} would be its page; if it is "
            f"private, store a token that may read it with mistudio secret set hf; {_near(kind)}"
        )
    return (
        f"there is no {kind} {id} on the Hub that the stored token may read: check its spelling, {where} would be its "
        f"page; {_near(kind)}"
    )


def _near(kind: Kind) -> str:
    """Whoever meant a path is told how one is named."""
    return (
        f"a {'folder' if kind == 'model' else 'file or folder'} of the studio's machine is named by its absolute path"
    )


def _answer(error: Exception, where: str, token: str | None) -> str:
    status = status_of(error)
    if status is None:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return (
            f"the Hub at {endpoint()} cannot be reached ({_line(said)}): look at this machine's network and retry; "
            "what has come so far is kept"
        )
    if status == 401:
        return (
            f"the Hub does not accept the stored token: make one at {endpoint()}/settings/tokens and store it with "
            "mistudio secret set hf"
        )
    if status == 403 and token:
        return f"the stored token may not read {where}: give it the right to, at {endpoint()}/settings/tokens"
    if status == 429:
        wait_s = _asked_wait_s(error)
        more = "" if token else ", or store a token (mistudio secret set hf), which may ask more often"
        return f"the Hub takes no more requests from here for {wait_s:.0f} s: retry the job after that{more}"
    if status >= 500:
        return f"the Hub answers with the error {status}: retry the job in some minutes; what has come so far is kept"
    said = said_by(error)
    return f"the Hub answers the request for {where} with the error {status}" + (f" ({said})" if said else "")


def said_by(error: Exception) -> str:
    """The Hub's own words; not the error's text, in which there may be a signed address."""
    return _line(_header(error, "X-Error-Message"))


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()[:300]


def status_of(error: Exception) -> int | None:
    """Status of the Hub's answer; None when none came."""
    response: Any = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _asked_wait_s(error: Exception) -> float:
    asked = _header(error, "Retry-After")
    return float(asked) if asked.isdigit() else 60.0


def _header(error: Exception, name: str) -> str:
    response: Any = getattr(error, "response", None)
    return "" if response is None else str(response.headers.get(name, ""))
