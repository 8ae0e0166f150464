"""What is said of a job that has the GPU, or is next to have it. Pure."""

from __future__ import annotations

from mistudiod.errors import GpuBusy
from mistudiod.jobs import State
from mistudiod.statements import Job

GOES_ON = ("train", "extract", "label", "score")  # kinds that keep what they have done when they pause


def name_of(job: Job) -> str | None:
    name = job["spec"].get("name") or job["spec"].get("sae")
    return name if isinstance(name, str) else None


def described(job: Job) -> str:
    """As ``job 7 (train s: train, 45 %, about 3 min left)``."""
    name, progress = name_of(job), job["progress"]
    parts = []
    if progress:
        parts.append(progress["stage"])
        if progress["total"]:
            parts.append(f"{100 * progress['done'] / progress['total']:.0f} %")
        if progress["eta_s"] is not None:
            left = progress["eta_s"]
            parts.append(f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left")
    said = f": {', '.join(parts)}" if parts else ""
    return f"job {job['id']} ({job['kind']}{f' {name}' if name else ''}{said})"


def refusal(job: Job) -> GpuBusy:
    """Of a session that is asked for while a job has the GPU, or waits for it."""
    has = "is next on the GPU" if job["state"] == State.QUEUED else "has the GPU"
    if job["kind"] in GOES_ON:
        ways = "queue behind it as a job, or let it pause for as long as the session lasts"
    else:
        ways = f"queue behind it as a job; {job['kind']} cannot be paused"
    return _busy(f"{described(job)} {has}: {ways}", job)


def taken(job: Job) -> GpuBusy:
    """Of a session that made room for a job while it was asked something."""
    return _busy(f"{described(job)} has waited long enough and takes the GPU: queue behind it as a job", job)


def _busy(message: str, job: Job) -> GpuBusy:
    progress = job["progress"]
    about = {"id": job["id"], "kind": job["kind"], "name": name_of(job), "progress": progress}
    choices = ["queue", "pause"] if job["kind"] in GOES_ON else ["queue"]
    return GpuBusy(
        message, about={"job": {**about, "eta_s": progress["eta_s"] if progress else None}, "choices": choices}
    )
