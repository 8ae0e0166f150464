"""A worker's only ties to the daemon: events up a pipe, commands and requests down stdin.

stdin is also the lifeline: its end means that the daemon is gone, and the worker leaves at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from mistudiod.events import (
    MAX_LABELS,
    MAX_LINE_BYTES,
    MAX_TEXT_CHARS,
    Artifact,
    Denied,
    Event,
    Failure,
    Labelled,
    Loaded,
    Metric,
    NewScore,
    Noun,
    Progress,
    Replied,
    Result,
    Scored,
    Written,
    Wrote,
    to_line,
)
from mistudiod.paths import PARTIAL, Paths
from mistudiod.redact import PROCESS
from mistudiod.worker import shortened
from mistudiod.worker.requests import Requests

EVENTS_FD = "MISTUDIO_EVENTS_FD"  # number of the pipe that the daemon reads
SECRETS_FD = "MISTUDIO_SECRETS_FD"  # number of the pipe with this job's secrets; unset when it needs none
DAEMON_PID = "MISTUDIO_DAEMON_PID"
PROGRESS_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJ = 800  # when memory runs out, the kernel takes the worker, not the user's desktop

EXIT_INVALID, EXIT_MISSING, EXIT_INTERNAL, EXIT_DISK = 64, 69, 70, 73
EXIT_YIELDED, EXIT_STOPPED, EXIT_MEMORY = 75, 76, 77
Wish = Literal["stop", "pause", "finalize"]


class Refused(Exception):
    """The job cannot be done as asked: one sentence, and the field of the spec that is at fault."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Held(Exception):
    """The job can go no further until a person has done something: why, as a code and one sentence. It keeps its work,
    and is paused.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Asked(BaseException):
    """The daemon asked this worker to ``stop``, ``pause`` or ``finalize``.

    Not an Exception: nothing on the way may swallow it.
    """

    def __init__(self, what: Wish) -> None:
        super().__init__(what)
        self.what = what


class Link:
    """What a job says and hears. ``run`` is its folder, ``paths`` knows where artifacts lie.

    ``choices``: what its plan has chosen for what its spec leaves open; empty when there is no plan. ``finalize``: a
    training is to come to its end now, from its latest checkpoint or from where it is; no step is trained any more.
    """

    def __init__(
        self,
        run: Path,
        paths: Paths,
        events_fd: int | None = None,
        secrets: Mapping[str, str] | None = None,
        choices: Mapping[str, Any] | None = None,
        finalize: bool = False,
    ) -> None:
        self.run, self.paths, self.choices = run, paths, choices or {}
        self._secrets = secrets or {}
        self.finalize = finalize
        self.asked: Wish | None = None
        self.requests = Requests()
        self._pipe = os.fdopen(events_fd, "wb", buffering=0) if events_fd is not None else None
        self._stage, self._stage_began, self._stage_from, self._last_progress = "", 0.0, 0.0, 0.0
        self._lock, self._hearing = threading.Lock(), threading.Lock()

    def check(self) -> None:
        """Raise Asked when the daemon has asked for an end, Cancelled when it wants no answer to the request under way.
        Call it between steps.

        ``finalize`` is raised once, and stays in ``self.finalize``: the work that follows may be stopped or paused.
        """
        with self._hearing:
            asked = self.asked
            if asked == "finalize":
                self.asked, self.finalize = None, True
        if asked:
            raise Asked(asked)
        self.requests.check()

    def secret(self, name: str) -> str | None:
        """What the daemon has handed to this job under ``name``, as ``hf``; None when nobody has set it."""
        return self._secrets.get(name)

    def progress(self, stage: str, done: float, total: float | None = None, unit: str = "") -> None:
        """Say how far ``stage`` has come. Cheap to call often: few are sent; the ETA is worked out here."""
        at = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_began, self._stage_from = stage, at, done
        elif at - self._last_progress < PROGRESS_EVERY_S and done != total:
            return
        self._last_progress = at
        eta_s = None
        if total is not None and done > self._stage_from:
            eta_s = max(total - done, 0) * (at - self._stage_began) / (done - self._stage_from)
        self._send(Progress(stage=stage, done=done, total=total, unit=unit, eta_s=eta_s))

    def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
        """``sae``: whose values; none is named when there is only one, or they are of the training as a whole."""
        self._send(Metric(step=step, sae=sae, values=values))

    def live(self, sae: str | None, step: int, features: Sequence[Mapping[str, Any]]) -> None:
        """What an SAE is learning: ``{"feature", "density", "windows": [{"value", "before", "token", "after"}]}`` each.

        Texts that are too long for a line are cut on their far sides from the token.
        """
        self._send(shortened.live(sae, step, features))

    def labels(self, *, labels: Sequence[Mapping[str, Any]], **by: Any) -> None:
        """What features are called, as ``events.NewLabel`` has it, or why they are not: ``{"feature", "error"}``.

        ``by``: provider, model, template, template_sha256, extraction. Texts that are too long are cut.
        """
        for some in shortened.in_lines([shortened.label(one) for one in labels]):
            self._send(Labelled(**by, labels=some))

    def scores(self, *, scores: Sequence[Mapping[str, Any]], extraction: str | None = None) -> None:
        """What labels are worth, as ``events.NewScore`` has it."""
        for at in range(0, len(scores), MAX_LABELS):
            some = [NewScore(**one) for one in scores[at : at + MAX_LABELS]]
            self._send(Scored(extraction=extraction, scores=some))

    def given(self) -> dict[str, Any]:
        """What the daemon says is left to do of a job of labelling or scoring, or which labels a job is to publish: its
        ``given.json``.
        """
        found: dict[str, Any] = json.loads((self.run / "given.json").read_text(encoding="utf-8"))
        return found

    def used(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Keep what the job's questions have used until now: the daemon gives it to the job's next worker."""
        partial = self.run / f"{PARTIAL}used.json"
        partial.write_text(json.dumps({"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}))
        partial.replace(self.run / "used.json")

    def artifact(self, noun: Noun, name: str) -> None:
        """Say that a folder is finished and lies under its final name."""
        self._send(Artifact(noun=noun, name=name))

    def result(self, result: dict[str, object]) -> None:
        self._send(Result(result=result))

    def loaded(self, model: str, precision: str, device: str, saes: Sequence[str]) -> None:
        """Say what a resident worker has in memory."""
        self._send(Loaded(model=model, precision=precision, device=device, saes=list(saes)))

    def wrote(self, request: int, tokens: int, texts: Sequence[tuple[int, str]]) -> None:
        """More of the texts of some rows, each of which has ``tokens`` by now."""
        pieces = [
            Written(row=row, text=text[at : at + MAX_TEXT_CHARS])
            for row, text in texts
            for at in range(0, len(text), MAX_TEXT_CHARS)
        ]
        self._send(Wrote(request=request, tokens=tokens, texts=pieces))

    def replied(self, request: int, result: dict[str, object]) -> None:
        self._send(Replied(request=request, result=result))

    def denied(self, request: int, code: str, message: str, field: str | None = None) -> None:
        """``code``: invalid, cancelled, out_of_memory or internal."""
        self._send(Denied(request=request, code=code, message=message[:4000], field=field))

    def failure(self, code: str, message: str, field: str | None = None) -> None:
        self._send(Failure(code=code, message=message[:4000], field=field))

    def _send(self, event: Event) -> None:
        """Raises Refused for what the daemon would take for no line."""
        line = PROCESS.hide_known(to_line(event).decode()).encode()
        if len(line) > MAX_LINE_BYTES:
            raise Refused(f"the answer has {len(line):,} bytes, more than the {MAX_LINE_BYTES:,} of one: ask for less")
        with self._lock:
            if self._pipe is None:
                sys.stderr.write(line.decode())
                return
            try:
                self._pipe.write(line)
            except BrokenPipeError:  # nobody hears: as at the end of stdin
                os._exit(EXIT_YIELDED)

    def listen(self) -> None:
        """Follow stdin in a thread; its end ends this process."""
        threading.Thread(target=self._follow_stdin, name="stdin", daemon=True).start()

    def _follow_stdin(self) -> None:
        for line in sys.stdin:
            self.hear(line.strip())
        os._exit(EXIT_YIELDED)

    def hear(self, command: str) -> None:
        """Note a wish of the daemon's; a later stop or pause beats an earlier one, and to finalize is asked once.

        What else it says are requests and cancels.
        """
        with self._hearing:
            if command in ("stop", "pause") or (command == "finalize" and not (self.asked or self.finalize)):
                self.asked = cast(Wish, command)
        self.requests.hear(command)


def take_secrets() -> dict[str, str]:
    """Read what the daemon hands over, once; from then on this process hides it in all it says."""
    number = os.environ.pop(SECRETS_FD, None)
    if number is None:
        return {}
    with os.fdopen(int(number), "rb") as pipe:
        secrets: dict[str, str] = json.loads(pipe.read())
    PROCESS.know(secrets.values())
    return secrets


def tie_to_parent() -> None:
    """Die with the daemon, be the first to go when memory runs out, and end at SIGTERM as at a stop."""
    daemon = int(os.environ.get(DAEMON_PID) or os.getppid())  # 1 in a container
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != daemon:  # it died before prctl took hold
        os._exit(EXIT_YIELDED)
    with contextlib.suppress(OSError):  # some containers forbid it
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(_signal: int, _frame: object) -> None:
    raise Asked("stop")
