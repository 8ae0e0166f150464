"""A resident worker: a model and SAEs stay in memory, and requests are answered one after the other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mistudiod.oom import classify
from mistudiod.specs import ASKED, Calibrate, Complete, Load, Session, Steer
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.loaded import Loaded
from mistudiod.worker.requests import Cancelled, Request
from mistudiod.worker.steering import calibrate, complete, steer

TOLD_EVERY_S = 0.03


def run(spec: Session, link: Link) -> None:
    """Load the model, say what is loaded, answer requests until there is an end of them.

    Raises Refused when the model cannot be loaded, Asked at a stop, and what says that memory ran out.
    """
    loaded = Loaded(spec.model, spec.precision, spec.saes, link)
    _say_loaded(loaded)
    for request in link.requests:
        if request is None:
            link.check()
        else:
            _answer(request, spec.rows_at_once, loaded)


class _Telling:
    """Says the texts of a request as they are written: the first tokens at once, later ones a few at a time."""

    def __init__(self, request: int, link: Link) -> None:
        self._request, self._link = request, link
        self._waiting: dict[int, str] = {}
        self._told: float | None = None

    def __call__(self, tokens: int, new: Mapping[int, str], end: bool) -> None:
        for row, text in new.items():
            self._waiting[row] = self._waiting.get(row, "") + text
        now = time.monotonic()
        if end or self._told is None or now - self._told >= TOLD_EVERY_S:
            self._link.wrote(self._request, tokens, [(row, text) for row, text in self._waiting.items() if text])
            self._waiting, self._told = {}, now


def _answer(request: Request, rows_at_once: int | None, loaded: Loaded) -> None:
    """Raises Asked, and what says that memory ran out, once it is said why there is no answer."""
    number, link = request.number, loaded.link
    try:
        link.replied(number, _result(request, rows_at_once, loaded))
    except Cancelled:
        link.denied(number, "cancelled", "nobody waits for the answer any more")
    except Asked:
        link.denied(number, "cancelled", "the session ends")
        raise
    except Refused as refused:
        link.denied(number, "invalid", str(refused), refused.field)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        link.denied(number, "invalid", f"{field or request.kind}: {first['msg']}", field)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if classify(said):
            link.denied(number, "out_of_memory", _too_little(error))
            raise
        traceback.print_exc()
        link.denied(number, "internal", said)


def _result(request: Request, rows_at_once: int | None, loaded: Loaded) -> dict[str, Any]:
    """Raises Refused, ValidationError, Cancelled, Asked."""
    link, before = loaded.link, set(loaded.saes)
    link.check()
    if request.kind not in ASKED:
        raise Refused(f"{request.kind} is nothing that a session does: it does {', '.join(ASKED)}", "kind")
    spec = ASKED[request.kind].model_validate(request.spec)
    telling = _Telling(request.number, link)
    try:
        if isinstance(spec, Load):
            loaded.check(spec.model, spec.precision)
            for n, name in enumerate(spec.saes):
                loaded.sae(name, f"saes.{n}")
            return _about(loaded)
        if isinstance(spec, Calibrate):
            return calibrate(spec, loaded)
        if isinstance(spec, Complete):
            return complete(spec, loaded, rows_at_once, telling)
        assert isinstance(spec, Steer)
        return steer(spec, loaded, rows_at_once, telling)
    finally:
        if request.kind == "load" or set(loaded.saes) != before:
            _say_loaded(loaded)


def _about(loaded: Loaded) -> dict[str, Any]:
    return {
        "model": loaded.name,
        "precision": loaded.lm.precision,
        "device": loaded.lm.device.type,
        "saes": list(loaded.saes),
    }


def _say_loaded(loaded: Loaded) -> None:
    loaded.link.loaded(**_about(loaded))


def _too_little(error: Exception) -> str:
    return f"there was not enough memory for so many texts at once ({error}): ask for fewer or shorter ones"
