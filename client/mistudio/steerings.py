"""The part of the client that steers: texts beside their baseline, calibrated ranges, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from mistudio.errors import Unreachable, refusal
from mistudio.pages import every, given
from mistudio.stream import Records
from mistudio.wire import Wire

Steering = dict[str, Any]
Edit = Mapping[str, Any]
Progress = dict[str, Any]
_PAGE = 1000


class Steerings:
    """``Client`` has these methods. ``sae`` is a name."""

    url: str
    _wire: Wire
    _ask: Callable[..., dict[str, Any]]
    _named: Callable[..., dict[str, Any]]

    def steer(
        self,
        sae: str,
        prompt: str | Sequence[Mapping[str, str]],
        edits: Mapping[int, float] | Iterable[Edit],
        on_text: Callable[[int, str], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **fields: Any,
    ) -> Steering:
        """Write texts with features amplified or suppressed, each beside its baseline, and return once they are there.

        ``prompt``: a text to continue, or messages ``{"role", "content"}`` to answer. ``edits``: strengths by the index
        of their feature, ±1 being its largest activation, or a list of mistudiod.specs.Edit. ``fields`` are those of
        mistudiod.specs.Steer, and ``keep_alive`` (how long the model stays loaded, "5m") and ``if_busy`` ("pause" lets
        a job that has the GPU make room). ``on_text`` is given what is written as it comes, with the row it is of: of
        each sample the baseline, then the steered texts. ``on_progress``: of loading and writing.

        ``{"id", "baseline", "baselines", "steered", "edits", "seed", "made", …}``, a steering that is kept. Raises
        ApiError; of ``code`` gpu_busy when a job has the GPU, which a job of kind steer can wait for: ``submit``.
        """
        steering = [dict(one) for one in listed(edits)]
        text = {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(one) for one in prompt]}
        body = {"sae": sae, **text, "steering": steering, **given(**fields)}
        return self._heard("steer", body, on_text, on_progress)

    def calibrate(
        self, sae: str, features: Iterable[int], on_progress: Callable[[Progress], None] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Find, and keep, the strengths at which adding a feature changes the model by 0.1, 0.5 and 2 nats.

        ``{"sae", "ranges": [{"feature", "kl": {"0.5": {"low", "high"}}, "breaks": {"low", "high", "why"}, …}]}``.
        """
        body = {"features": list(features), **given(**fields)}
        return self._heard("calibrate", body, None, on_progress, ref=sae)

    def ranges(self, sae: str | int, features: Iterable[int] = ()) -> list[dict[str, Any]]:
        """What ``calibrate`` has found for an SAE, as far as it is still true; of these features, or of all."""
        chosen = ",".join(map(str, features))
        found: list[dict[str, Any]] = self._named("ranges", "sae", sae, given(features=chosen or None))["ranges"]
        return found

    def _heard(
        self,
        route: str,
        body: Mapping[str, Any],
        on_text: Callable[[int, str], None] | None,
        on_progress: Callable[[Progress], None] | None,
        **parts: object,
    ) -> dict[str, Any]:
        """The result of what the session is asked. Whoever leaves early (Ctrl-C) hangs up, and the session stops."""
        with closing(self._events(route, {**body, "stream": True}, **parts)) as events:
            for event in events:
                topic, data = event["topic"], event["data"]
                if topic == "result":
                    return dict(data)
                if topic == "error":
                    raise refusal(data.get("error", data))
                if topic == "text" and on_text:
                    for one in data["texts"]:
                        on_text(one["row"], one["text"])
                if topic in ("progress", "text") and on_progress:
                    on_progress(data if topic == "progress" else _written(data["tokens"], body.get("max_tokens")))
        raise Unreachable(f"the studio at {self.url} broke off before the end; mistudio doctor says how it is")

    def _events(self, route: str, body: Mapping[str, Any], **parts: Any) -> Generator[dict[str, Any], None, None]:
        records = Records()
        with self._wire.stream(route, body=body, **parts) as chunks:
            for chunk in chunks:
                yield from records.feed(chunk)

    # -- what was steered and kept -----------------------------------------------------------------------------------

    def steerings(
        self,
        sae: str | None = None,
        starred: bool | None = None,
        q: str | None = None,
        limit: int = _PAGE,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """``{"steerings": newest first, "next"}``: of an SAE, those that are starred, with ``q`` in prompt or note."""
        star = None if starred is None else str(starred).lower()
        return self._ask("steerings", given(sae=sae, starred=star, q=q, limit=limit, cursor=cursor))

    def every_steering(self, **query: Any) -> Iterator[Steering]:
        """As ``steerings``, page after page."""
        return every("steerings", lambda cursor: self.steerings(**query, cursor=cursor))

    def steering(self, steering: int) -> Steering:
        """``{"id", "created_at", "starred", "note", "spec", "result", …}``."""
        return self._ask("steering", steering=steering)

    def mark_steering(self, steering: int, starred: bool | None = None, note: str | None = None) -> Steering:
        """Star it, write a note of it; what is None stays."""
        return self._ask("mark_steering", body=given(starred=starred, note=note), steering=steering)

    def remove_steering(self, steering: int) -> None:
        self._ask("remove_steering", steering=steering)

    def export_steering(self, steering: int, format: str = "json") -> bytes:
        """One file with all of it: ``json``, or ``html`` for people."""
        return self._wire.send("export_steering", {"format": format}, steering=steering).content


def _written(tokens: int, most: int | None) -> Progress:
    """As the progress of loading is told."""
    return {"stage": "write", "done": tokens, "total": most, "unit": "tokens", "eta_s": None}


def listed(edits: Mapping[int, float] | Iterable[Edit]) -> list[Edit]:
    """As the API takes them."""
    if isinstance(edits, Mapping):
        return [{"feature": feature, "strength": strength} for feature, strength in edits.items()]
    return list(edits)
