"""What a worker's end means for its job. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mistudiod.errors import StudioError
from mistudiod.jobs import State
from mistudiod.runner import Exit

YIELDED, STOPPED, MEMORY = 75, 76, 77  # exit codes of a worker
_NO_MEMORY = "there was not enough memory, not even to say for what"


@dataclass(frozen=True)
class Ending:
    """``state`` INTERRUPTED: it died without being asked to, and may be tried again."""

    state: State
    reason: str  # for the attempt
    error: dict[str, Any] | None = None

    @property
    def moves(self) -> list[State]:
        """From running; what has been asked for meanwhile is seen to elsewhere."""
        return [State.PAUSING, State.PAUSED] if self.state is State.PAUSED else [self.state]


def ending(
    exit: Exit, failure: dict[str, Any] | None, closing: bool, progress_s: float, partial: dict[str, Any] | None = None
) -> Ending:
    """``failure`` is what the worker told of, ``partial`` the error when it did only a part of its work.

    ``closing``: the daemon is; ``progress_s``: how long a worker may be silent.
    """
    left = exit.code < 0 or exit.code in (YIELDED, STOPPED)  # 76 unasked: SIGTERM from outside
    held = failure if exit.code == YIELDED else None  # it goes no further until a person has seen to that
    if exit.code == 0:
        return Ending(State.PARTIAL, "partial", partial) if partial else Ending(State.DONE, "done")
    if closing and exit.asked == "pause":
        return Ending(State.INTERRUPTED, "paused")
    if exit.asked == "stop":
        return Ending(State.STOPPED, "stopped", held)
    if held:
        return Ending(State.PAUSED, "held", held)
    if exit.asked == "pause" and left:
        return Ending(State.PAUSED, "paused")
    if exit.hung:
        limit = f"it gave no sign of life for {progress_s:.0f} s and was ended"
        return Ending(State.FAILED, "hung", error("hung", limit, exit.tail))
    if left:
        sentence = _sentence(exit.code)
        return Ending(State.INTERRUPTED, sentence, error("died", sentence, exit.tail))
    if exit.code == MEMORY:
        silent = error("out_of_memory", f"{_NO_MEMORY}; close other programs or ask for less, then retry the job")
    else:
        silent = error("died", f"the worker ended with exit code {exit.code} and no word", exit.tail)
    return Ending(State.FAILED, "failed", failure or silent)


def error(code: str, message: str, tail: str | None = None) -> dict[str, Any]:
    """A job's error; ``tail`` is the end of its log."""
    found: dict[str, Any] = {"code": code, "message": message}
    return {**found, "log": tail[-4000:]} if tail else found


def not_started(refusal: StudioError | OSError) -> dict[str, Any]:
    """The error of a job whose worker there is no point in starting, or that could not be started."""
    if isinstance(refusal, OSError):
        return error("not_started", f"the worker could not be started: {refusal.strerror or refusal}")
    return error(refusal.code, refusal.message)


def _sentence(code: int) -> str:
    if code == YIELDED:
        return "the worker lost its tie to the daemon"
    if code == STOPPED:
        return "the worker was told to end from outside (SIGTERM)"
    if code == -9:
        return "the worker was killed (SIGKILL: by a person, or by the kernel for want of memory)"
    return f"the worker died of signal {-code}"
