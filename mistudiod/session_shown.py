"""What is told of a session."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from mistudiod.keep_alive import FOREVER
from mistudiod.one_session import Session


def shown(session: Session, memory: tuple[int | None, int | None]) -> dict[str, Any]:
    """``memory``: bytes of the host and of the GPU, as they were measured last."""
    stay, resident = session.stay, session.resident
    return {
        "state": session.state,
        "model": session.wanted.model,
        "precision": session.precision,
        "device": resident.loaded.device if resident and resident.loaded else None,
        "saes": session.saes,
        "pid": resident.worker.process.pid if resident else None,
        "predicted_bytes": session.predicted_bytes,
        "paused_jobs": list(session.paused),
        "progress": resident.progress if resident else session.waits and session.waits.model_dump(exclude={"event"}),
        "memory_bytes": memory[0],
        "gpu_bytes": memory[1],
        "started_at": _at(session.started_at),
        "keep_alive_s": None if stay.keep_alive_s == FOREVER else stay.keep_alive_s,
        "expires_at": _when(session.expires_at),
        "held_until": _when(stay.held_until) if stay.held_until > time.monotonic() else None,
    }


def _when(monotonic: float | None) -> str | None:
    return None if monotonic is None else _at(time.time() + monotonic - time.monotonic())


def _at(seconds: float) -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
