"""``mistudio job``."""

from __future__ import annotations

import time
from typing import Any

import click

from mistudio import human, output, results
from mistudio.api import ENDED, Client, Job
from mistudio.commands.artifact import make_sure
from mistudio.commands.plan import choices
from mistudio.completion import jobs
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.results import with_peaks
from mistudio.tables import Columns, show_rows
from mistudio.watch import conclude, show_result, watch

STATES = ("queued", "running", "pausing", "paused", "stopping", "interrupted", "done", "partial", "failed", "stopped")

_FOLLOW_EVERY_S = 0.5
_TAIL_BYTES = 256 << 10


@click.group("job", cls=Noun)
def job() -> None:
    """What the studio does, has done and will do."""


@job.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="jobs to show")
@click.option("--cursor", help="go on after an earlier list, which said this")
@click.option("--state", type=click.Choice(STATES), help="only jobs that are in this state")
@columned
@pass_call
def list_all(call: Call, limit: int, cursor: str | None, state: str | None) -> None:
    """List jobs, the newest first."""
    found = call.client.jobs(limit, cursor, state)
    show_jobs(call, found)
    if found["next"] and not call.json:
        only = f" --state {state}" if state else ""
        output.note(f"there are more: mistudio job list --limit {limit}{only} --cursor {found['next']}")


COLUMNS: Columns = {
    "ID": lambda job: job["id"],
    "KIND": lambda job: job["kind"],
    "NAME": lambda job: _name(job),
    "STATE": lambda job: job["state"],
    "PROGRESS": lambda job: human.share(human.part(job["progress"])),
    "TOOK": lambda job: human.duration(human.between(job["started_at"], job["ended_at"])),
    "QUEUED": lambda job: human.ago(job["created_at"]),
}


def _name(job: Job) -> object:
    """``stories-w4096 (+3)``: the first of what it makes, and how many more; of what makes nothing, what it reads."""
    if not job["makes"]:
        return job["spec"].get("name") or job["spec"].get("sae")
    more = len(job["makes"]["names"]) - 1
    return f"{job['makes']['name']} (+{more})" if more else job["makes"]["name"]


def show_jobs(call: Call, found: dict[str, Any]) -> None:
    show_rows(call, found, found["jobs"], COLUMNS)


@job.command("show")
@click.argument("job", type=int, shell_complete=jobs)
@pass_call
def show_one(call: Call, job: int) -> None:
    """Show all that is known of a job."""
    show_job(call, call.client.job(job))


def show_job(call: Call, found: Job) -> None:
    """All of it; of its plan the verdict and the choices, of several SAEs a table."""
    if call.json:
        output.data(found)
        return
    result, plan = found["result"], found["plan"]
    several = results.several(result)
    if plan:
        found["plan"] = {"verdict": plan["verdict"], **choices(plan)}
    found["result"] = None if several else result and with_peaks(result, plan)
    output.record(found)
    if several:
        output.text("")
        results.show(result, plan)


@job.command("watch")
@click.argument("job", type=int, shell_complete=jobs)
@pass_call
def watch_one(call: Call, job: int) -> None:
    """Follow a job to its end; Ctrl-C leaves it running."""
    watch(call, job)


@job.command("wait")
@click.argument("job", type=int, shell_complete=jobs)
@click.option(
    "--for", "state", type=click.Choice([*STATES, "ended"]), default="ended", show_default=True, help="until it is so"
)
@click.option("--timeout", type=float, metavar="SECONDS", help="wait no longer than this (exit code 8)")
@pass_call
def wait(call: Call, job: int, state: str, timeout: float | None) -> None:
    """Wait, without a word, until a job has ended or is in a state."""
    found = call.client.wait(job, timeout, None if state == "ended" else state)
    if found["state"] == state:
        show_result(call, found)
    elif found["state"] == "done" and state != "ended":
        raise ApiError(409, "conflict", f"job {job} is done and will not be {state} any more")
    else:
        conclude(call, found)


@job.command("edit")
@click.argument("job", type=int, shell_complete=jobs)
@click.option("--priority", type=click.IntRange(-100, 100), required=True, help="higher goes first")
@pass_call
def edit(call: Call, job: int, priority: int) -> None:
    """Change a queued job."""
    changed = call.client.edit_job(job, priority)
    if call.json:
        output.data(changed)
    else:
        output.note(f"job {job} has priority {changed['priority']}")


@job.command("logs")
@click.argument("job", type=int, shell_complete=jobs)
@click.option("-f", "--follow", is_flag=True, help="go on until the job has ended")
@pass_call
def logs(call: Call, job: int, follow: bool) -> None:
    """Show what a job's worker wrote."""
    if follow and call.json:
        raise click.UsageError("a followed log is text: leave --json or --follow away")
    if call.json:
        output.data({"job": job, "log": call.client.log(job)})
    elif follow:
        _follow(call.client, job)
    else:
        output.text(call.client.log(job, _TAIL_BYTES), end="")


def _follow(client: Client, job: int) -> None:
    seen = ""
    while True:
        ended = client.job(job)["state"] in ENDED  # before the log is read: nothing comes after
        log = client.log(job, _TAIL_BYTES)
        output.text(new_part(seen, log), end="")
        if ended:
            return
        seen = log
        time.sleep(_FOLLOW_EVERY_S)


def new_part(seen: str, log: str) -> str:
    """What ``log`` has beyond ``seen``, both being ends of one growing text."""
    if log.startswith(seen):
        return log[len(seen) :]
    anchor = seen[-2000:]
    at = log.find(anchor)
    return log[at + len(anchor) :] if at >= 0 else log


def act(call: Call, changed: Job) -> None:
    if call.json:
        output.data(changed)
    else:
        output.note(f"job {changed['id']} is {changed['state']}")


@job.command("pause")
@click.argument("job", type=int, shell_complete=jobs)
@pass_call
def pause(call: Call, job: int) -> None:
    """Let a running job save where it is and make room."""
    act(call, call.client.pause(job))


@job.command("resume")
@click.argument("job", type=int, shell_complete=jobs)
@pass_call
def resume(call: Call, job: int) -> None:
    """Let a paused job go on."""
    act(call, call.client.resume(job))


@job.command("stop")
@click.argument("job", type=int, shell_complete=jobs)
@pass_call
def stop(call: Call, job: int) -> None:
    """End a job; what it has finished stays."""
    act(call, call.client.stop(job))


@job.command("retry")
@click.argument("job", type=int, shell_complete=jobs)
@pass_call
def retry(call: Call, job: int) -> None:
    """Queue a failed or stopped job again; it goes on from its last checkpoint."""
    act(call, call.client.retry(job))


@job.command("rm")
@click.argument("job", type=int, shell_complete=jobs)
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def remove(call: Call, job: int, yes: bool) -> None:
    """Delete an ended job's record, log and checkpoints; what it made stays."""
    found = call.client.job(job)
    make_sure(f"Delete job {job} ({found['kind']}, {found['state']}) with its log and checkpoints?", yes)
    call.client.remove_job(job)
    output.note(f"removed job {job}")
