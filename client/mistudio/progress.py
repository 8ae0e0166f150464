"""How a job goes, followed by its events to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from mistudio import human
from mistudio.api import ENDED, Client, Job
from mistudio.drawing import Drawing
from mistudio.errors import ApiError, Unreachable
from mistudio.measures import Measures, held_out
from mistudio.stream import PATIENCE_S, TRY_AGAIN_S


def follow(client: Client, job: int, drawing: Drawing, label: str = "") -> Job:
    """Draw a job's progress until it has ended, and return it. Raises ApiError when the job is not there (any more).

    What happened while the studio was away is asked for, and how the job ended is what the studio says of it.
    """
    tracker = _Tracker(label or f"job {job}")
    for event in client.events(("job", "progress", "metric")):
        topic, about = event["topic"], event["data"]
        if topic == "lost":
            drawing.note("the studio does not answer; trying again")
            continue
        if topic in ("connected", "reset"):
            topic, about = "job", _found(client, job)
            tracker.catch_up(client)
        if about.get("id" if topic == "job" else "job") != job:
            continue
        if about.get("removed"):
            raise ApiError(404, "not_found", f"job {job} was removed")
        fresh = tracker.take(topic, about)
        if tracker.job["state"] in ENDED:  # unless that is an old story: it may have been queued again meanwhile
            tracker.take("job", _found(client, job))
        if tracker.job["state"] in ENDED:
            drawing.line(tracker.text(), 1.0, True)
            return tracker.job
        drawing.line(tracker.text(), tracker.share(), fresh, tracker.below())
        if topic == "metric" and (found := tracker.held_out(about)):
            drawing.note(found)
    raise AssertionError("the event stream never ends by itself")


def _found(client: Client, job: int) -> Job:
    """The job, also from a studio that is just being started anew."""
    since = time.monotonic()
    while True:
        try:
            return client.job(job)
        except Unreachable:
            if time.monotonic() - since > PATIENCE_S:
                raise
            time.sleep(TRY_AGAIN_S)


class _Tracker:
    """What is known of one job on its way."""

    def __init__(self, label: str) -> None:
        self.job: Job = {"state": ""}
        self._label = label
        self._progress: dict[str, Any] = {}
        self._measures = Measures()
        self._began = (0.0, 0.0)  # when the stage was first seen, and how far it was then

    def take(self, topic: str, about: dict[str, Any]) -> bool:
        """Whether a stage or a state has just begun."""
        if topic == "metric":
            self._measures.take(about)
            return False
        fresh = False
        if topic == "job":
            fresh = about["state"] != self.job["state"]
            self.job, about = about, about["progress"] or {}
        if about and about["stage"] != self._progress.get("stage"):
            self._began, fresh = (time.monotonic(), about["done"]), True
        self._progress = about
        return fresh

    def catch_up(self, client: Client) -> None:
        """The metrics that were missed: they are not told again."""
        after = self._measures.step
        while after is not None:
            page = client.metrics(self.job["id"], after)
            for one in page["metrics"]:
                self.take("metric", one)
            after = page["next"]

    def share(self) -> float | None:
        return human.part(self._progress)

    def _is_measured(self) -> bool:
        """Metrics are the training loop's: in any other stage than "train" or "train, pass 1 of 2" they are old."""
        return str(self._progress.get("stage")).partition(",")[0] == "train"

    def below(self) -> list[str]:
        """A line for each of several SAEs that are trained."""
        return self._measures.lines() if self._is_measured() else []

    def held_out(self, metric: dict[str, Any]) -> str:
        """What was just measured on held-out text, of the only SAE: several have it in their lines."""
        found = "" if self._measures.several else held_out(metric["values"])
        return found and f"{self._label}: step {human.count(metric['step'])}, held out: {found}"

    def text(self) -> str:
        job, state = self.job, self.job["state"]
        if state == "queued" and job["after"]:
            return f"{self._label}: queued behind job {', '.join(map(str, job['after']))}"
        if state == "paused":
            why = f" ({job['error']['message']})" if job["error"] else ""
            return f"{self._label}: paused{why}; 'mistudio job resume {job['id']}' lets it go on"
        if state in ENDED:
            took = human.between(job["started_at"], job["ended_at"])
            return f"{self._label}: {state}" + (f" in {human.duration(took)}" if took is not None else "")
        if self._progress:
            return f"{self._label}: {', '.join(self._parts())}"
        return f"{self._label}: {'starting' if state == 'running' else state}"

    def _parts(self) -> Iterator[str]:
        done, total, unit = self._progress["done"], self._progress["total"], self._progress["unit"]
        stage = self._progress["stage"]
        if total == 1:  # one thing, done or not: its name says all
            yield stage
        elif total:
            yield f"{stage} {_of(done, total, unit)} ({human.share(self.share())})"
        else:
            yield f"{stage} {human.amount(done, unit)}" if done else stage
        if self.job["state"] in ("pausing", "stopping"):
            yield self.job["state"]
        else:
            if (rate := self._rate()) is not None:
                yield rate
            if self._progress["eta_s"]:
                yield f"{human.duration(self._progress['eta_s'])} left"
        if self._is_measured():
            yield from self._measures.parts()

    def _rate(self) -> str | None:
        """Units a second: the trainer's own figure, or as seen from here."""
        tokens = self._measures.tokens_per_s
        if tokens and self._is_measured():
            return f"{human.count(tokens)} tokens/s"
        began_at, began_done = self._began
        elapsed, unit = time.monotonic() - began_at, self._progress["unit"]
        if not unit or elapsed < 0.5 or self._progress["done"] <= began_done:
            return None
        return f"{human.amount((self._progress['done'] - began_done) / elapsed, unit)}/s"


def _of(done: float, total: float, unit: str) -> str:
    if unit == "bytes":
        return f"{human.size(done)} of {human.size(total)}"
    return f"{human.count(done)}/{human.count(total)} {unit}".rstrip()
