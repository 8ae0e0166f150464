"""A command that starts a job, or comes back to one: submit it, draw it, and say how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from mistudio import human, outcomes, output, progress, results
from mistudio.api import Artifact, Job
from mistudio.drawing import drawn
from mistudio.errors import ApiError
from mistudio.options import Call
from mistudio.sources import settled

EXIT_FAILED, EXIT_STOPPED, EXIT_INTERRUPTED = 10, 11, 130


class Failed(Exception):
    """A job did not get done: the sentence for a person, the API's error object, and the exit code."""

    def __init__(self, job: Job) -> None:
        what = f"job {job['id']} ({job['kind']})"
        if job["state"] == "stopped":
            self.exit_code, sentence = EXIT_STOPPED, f"{what} was stopped"
        else:
            self.exit_code, sentence = (
                EXIT_FAILED,
                f"{what} {'is only partly done' if job['state'] == 'partial' else 'failed'}",
            )
        error = job["error"] or {}
        field = error.get("field")
        reason = ": ".join(part for part in (field, error.get("message")) if part)
        super().__init__(f"{sentence}: {reason}" if reason else sentence)
        self.body: dict[str, object] = {
            "code": error.get("code", job["state"]), "message": error.get("message", sentence), "job": job["id"],
        }  # fmt: skip
        if field:
            self.body["fields"] = {field: error["message"]}


def show_result(call: Call, job: Job) -> None:
    """What a job found; with --json the job itself."""
    if call.json:
        output.data(job)
    elif job["result"] and job["kind"] in outcomes.OF_KIND:
        outcomes.OF_KIND[job["kind"]](job["result"])
    elif job["result"]:
        results.show(job["result"], job["plan"])


def showing(show: Callable[[Artifact], None]) -> Callable[[Call, Job], None]:
    """For ``start``: what a job has made, shown as that kind of thing is; with --json the job itself."""

    def show_made(call: Call, job: Job) -> None:
        if call.json:
            output.data(job)
        else:
            show(call.client.artifact(job["makes"]["noun"], job["makes"]["name"]))

    return show_made


def settle(call: Call, source: str, name: str, remote_path: bool) -> str:
    """The source as the studio takes it; draws its upload when it needs one."""
    if remote_path:
        return source
    with sending("upload") as told:
        return settled(call.client, source, name, told)


@contextmanager
def sending(what: str) -> Iterator[Callable[[int, int], None]]:
    """Draw how many bytes of how many have come; what goes wrong with the files is a sentence."""
    begun = False

    def told(done: int, total: int) -> None:
        nonlocal begun
        begun = True
        share = done / total if total else 1.0
        drawing.line(f"{what}: {human.size(done)} of {human.size(total)} ({human.share(share)})", share, done == total)

    try:
        with drawn() as drawing:
            yield told
    except KeyboardInterrupt:
        if begun:
            output.note(f"what has come is kept: the same command goes on with the {what} from there")
        raise
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, FileNotFoundError | TimeoutError):
            raise
        raise click.UsageError(f"the {what} cannot be made: {error}") from error


def start(call: Call, kind: str, fields: dict[str, Any], show: Callable[[Call, Job], None] = show_result) -> None:
    """Submit a job and, unless told to detach, stay until its end."""
    detach, after, priority = fields.pop("detach"), fields.pop("after") or (), fields.pop("priority") or 0
    spec = {"kind": kind, **{name: value for name, value in fields.items() if value is not None}}
    job = _submitted(call, _by_name(call, spec), after, priority)
    if not detach:
        watch(call, job["id"], show)
    elif call.json:
        output.data(job)
    else:
        output.text(str(job["id"]))
        output.note(f"job {job['id']} is {job['state']}; mistudio job watch {job['id']} shows how it goes")


def _submitted(call: Call, spec: dict[str, Any], after: Sequence[int], priority: int) -> Job:
    from mistudiod.specs import USES

    try:
        return call.client.submit(spec, after, priority)
    except ApiError as error:
        for field, noun in USES[spec["kind"]].items():
            if field in error.fields:
                error.missing = (noun, str(spec.get(field)))
        raise


def watch(call: Call, job: int, show: Callable[[Call, Job], None] = show_result) -> None:
    """Draw a job until it ends, then show what it found. Raises Failed; Ctrl-C leaves the job alone."""
    try:
        with drawn() as drawing:
            ended = progress.follow(call.client, job, drawing)
    except KeyboardInterrupt:
        output.note(f"job {job} goes on; to come back: mistudio job watch {job}")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    conclude(call, ended, show)


def conclude(call: Call, job: Job, show: Callable[[Call, Job], None] = show_result) -> None:
    if job["state"] == "done":
        show(call, job)
        return
    if call.json:
        output.data(job)
    elif job["kind"] in ("train", *outcomes.OF_KIND) and job["state"] != "failed":
        show_result(call, job)  # of what was stopped, or of which a part failed, the rest is there
    raise Failed(job)


def _by_name(call: Call, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Specs name what they use; a person may give an id, of each in a list."""
    from mistudiod.specs import USES

    def name(noun: str, given: Any) -> Any:
        if isinstance(given, list):
            return [name(noun, one) for one in given]
        return call.client.artifact(noun, given)["name"] if str(given).isdigit() else given

    return {**spec, **{field: name(noun, spec[field]) for field, noun in USES[spec["kind"]].items() if field in spec}}


def job_making(call: Call, noun: str, ref: str) -> Job:
    """A job by its id, or the newest that makes (or made) what ``ref`` names. Raises ApiError."""
    if ref.isdigit():
        return call.client.job(int(ref))
    for job in call.client.every_job():
        if job["makes"] and job["makes"]["noun"] == noun and ref in job["makes"]["names"]:
            return job
    with contextlib.suppress(ApiError):  # it was renamed since: it knows its job, which knows it by its first name
        if (made_by := call.client.artifact(noun, ref)["job"]) is not None:
            return call.client.job(made_by)
    raise ApiError(404, "not_found", f"there is no job that makes the {noun} {ref!r}", missing=(noun, ref))
