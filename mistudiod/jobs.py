"""Job states, the legal moves between them, and the lane of each kind. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum


class State(str, Enum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    INTERRUPTED = "interrupted"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    STOPPED = "stopped"


S = State
# What a job may become. The store refuses every other move.
MOVES: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.RUNNING, S.STOPPED}),
    S.RUNNING: frozenset({S.DONE, S.PARTIAL, S.FAILED, S.STOPPING, S.PAUSING, S.INTERRUPTED}),
    S.STOPPING: frozenset({S.STOPPED, S.DONE, S.PARTIAL, S.FAILED, S.INTERRUPTED}),
    S.PAUSING: frozenset({S.PAUSED, S.STOPPING, S.DONE, S.PARTIAL, S.FAILED, S.INTERRUPTED}),
    S.PAUSED: frozenset({S.QUEUED, S.STOPPED}),
    S.INTERRUPTED: frozenset({S.QUEUED, S.FAILED, S.STOPPED}),
    S.FAILED: frozenset({S.QUEUED}),
    S.STOPPED: frozenset({S.QUEUED}),
    S.PARTIAL: frozenset({S.QUEUED}),
    S.DONE: frozenset(),
}
LIVE = frozenset({S.RUNNING, S.PAUSING, S.STOPPING})  # a worker may be at work
ENDED = frozenset({S.DONE, S.PARTIAL, S.FAILED, S.STOPPED})
ATTEMPTS = 3  # runs of one job before an interrupted one is failed instead of queued again


def may_move(old: State, new: State) -> bool:
    return new in MOVES[old]


def now() -> str:
    """UTC, ISO 8601, milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
