"""Neuronpedia's interface, one request at a time: what may pass is tried again, what is final is one sentence."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from mistudiod import __version__
from mistudiod.neuronpedia.upload import KEY
from mistudiod.worker.endpoint_errors import retry_after_s, shortened
from mistudiod.worker.link import Refused
from mistudiod.worker.reach import NEURONPEDIA, check_peer, reach

NAME = "Neuronpedia"
TRIES = 8  # of a request, in a row: some four minutes
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # between two of them, twice as long each time
LONGEST_ASKED_S = 3600.0  # that a Retry-After is heeded
TIMEOUT_S = 120.0  # without a byte of an answer: it makes embeddings of the labels meanwhile
_MAY_PASS = (408, 425, 429)  # and 500 to 599
_GOES_ON = "what was taken stays, and the job goes on from there when it is retried"
log = logging.getLogger(__name__)


class Denied(Exception):
    """The server's last word on a request: ``status``, its ``words``, and in ``path`` where in the body it is at fault,
    as ``features[3].activations``. ``unsure``: an earlier try of the same request may have been taken.
    """

    def __init__(self, status: int, words: str, path: str, unsure: bool) -> None:
        super().__init__(f"{words} ({status})" if words else str(status))
        self.status, self.words, self.path, self.unsure = status, words, path, unsure

    @property
    def is_there(self) -> bool:
        """Whether it says that there is such a thing already."""
        return self.status == 409 or bool(re.search(r"already exist|duplicate", self.words, re.IGNORECASE))


class Api:
    """``async with Api(url, key) as api: await api.post(path, body)``."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        headers = {KEY: key, "Content-Type": "application/json", "User-Agent": f"miStudio/{__version__}"}
        self._http = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,  # neither proxies nor .netrc
            timeout=httpx.Timeout(TIMEOUT_S, connect=10.0),
            headers=headers,
        )

    async def __aenter__(self) -> Api:
        await reach(NAME, self._url, NEURONPEDIA)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Until it is taken. Raises Denied; Refused when nothing further could fare better now."""
        content, unsure = json.dumps(body, allow_nan=False).encode(), False
        for tried in range(TRIES):
            answer, why = None, ""
            try:
                answer = await self._http.post(self._url + path, content=content, extensions={"trace": self._sees})
            except httpx.RequestError as error:
                why, unsure = shortened(str(error) or type(error).__name__), True
            if answer is not None:
                status = answer.status_code
                if status not in _MAY_PASS and status < 500:
                    self._take(answer, unsure)
                    return
                why, unsure = f"it answers {_said(answer)}", unsure or status >= 500
            await self._wait(tried, answer, why)
        raise Refused(f"{NAME} does not take it, {TRIES} times in a row ({why}): {_GOES_ON}")

    async def _wait(self, tried: int, answer: httpx.Response | None, why: str) -> None:
        wait_s = min(FIRST_WAIT_S * 2**tried, LONGEST_WAIT_S)
        asked_s = retry_after_s(answer.headers) if answer is not None else None
        if asked_s is not None:
            if asked_s > LONGEST_ASKED_S:
                raise Refused(f"{NAME} asks to wait {asked_s / 3600:.1f} hours ({why}): retry the job then; {_GOES_ON}")
            wait_s = max(asked_s, 0.0)
        if tried + 1 < TRIES:
            log.warning("%s: %s; trying again in %.0f s", NAME, why, wait_s)
            await asyncio.sleep(wait_s)

    def _take(self, answer: httpx.Response, unsure: bool) -> None:
        """Raises Denied, or Refused for what is no answer of Neuronpedia's."""
        status = answer.status_code
        if 300 <= status < 400:
            raise Refused(
                f"{NAME} sends us on to {_target(self._url, answer.headers.get('location', ''))}, where no key is "
                f"sent: give that address in the setting {NEURONPEDIA} if it is the right one"
            )
        found = _object(answer)
        if found is None and status not in (401, 403, 413):  # which a proxy may say in words of its own
            raise Refused(
                f"what answers at {self._url} ({status}) is no {NAME}: correct its address in the setting {NEURONPEDIA}"
            )
        if status >= 400:
            raise Denied(status, _words(found or {}), str((found or {}).get("path") or ""), unsure)

    @staticmethod
    async def _sees(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            await check_peer(NAME, info["return_value"], NEURONPEDIA)


def _object(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _words(found: Mapping[str, Any]) -> str:
    words = found.get("error") or found.get("message") or ""
    return shortened(words if isinstance(words, str) else json.dumps(words))


def _said(answer: httpx.Response) -> str:
    words = _words(_object(answer) or {})
    return f"{answer.status_code}: {words}" if words else str(answer.status_code)


def _target(url: str, location: str) -> str:
    """Host and port of a redirection, as far as they can be read."""
    try:
        return shortened(urlsplit(urljoin(url, location)).netloc.rpartition("@")[2]) or "nowhere"
    except ValueError:
        return "elsewhere"
