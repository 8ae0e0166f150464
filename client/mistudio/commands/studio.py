"""``mistudio status``, ``ps``, ``doctor`` and ``monitor``: the studio and its machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from mistudio import human, output
from mistudio.commands.session import expiry, memory
from mistudio.options import Call, Verb, columned, pass_call
from mistudio.tables import Columns, show_rows

Sample = dict[str, Any]
_PS: Columns = {
    "JOB": lambda one: one["job"],
    "KIND": lambda one: one["kind"],
    "NAME": lambda one: one["name"],
    "STAGE": lambda one: one["stage"] or one["state"],
    "PROGRESS": lambda one: human.share(human.part(one)),
    "ETA": lambda one: human.duration(one["eta_s"]),
    "MEMORY (PREDICTED/MEASURED)": lambda one: (
        f"{human.size(one['predicted_bytes'])} / {human.size(one['measured_bytes'])}"
    ),
    "GPU": lambda one: human.size(one["gpu_bytes"]),
}
_SESSION: Columns = {
    "SESSION": lambda one: one["model"],
    "SAES": lambda one: ", ".join(one["saes"]),
    "STATE": lambda one: one["state"],
    "EXPIRES": expiry,
    "MEMORY (PREDICTED/MEASURED)": memory,
    "GPU": lambda one: human.size(one["gpu_bytes"]),
}


@click.command("status", cls=Verb)
@pass_call
def status(call: Call) -> None:
    """Say whether the studio is up, and what it is doing."""
    found = call.client.status()
    if call.json:
        output.data(found)
        return
    jobs = ", ".join(f"{n} {state}" for state, n in found["jobs"].items() if n) or "none waiting or running"
    output.record({"studio": call.client.url, **found, "jobs": jobs})


@click.command("ps", cls=Verb)
@columned
@pass_call
def ps(call: Call) -> None:
    """Show the jobs at work, how far, how long yet, with the memory they were thought to need and use; the session."""
    found, session = call.client.running(), call.client.session()
    show_rows(call, {"running": found, "session": session}, found, _PS)
    if session and not call.json and not call.columns:
        output.text("")
        output.table(list(_SESSION), [[value(session) for value in _SESSION.values()]])


@click.command("doctor", cls=Verb)
@pass_call
def doctor(call: Call) -> None:
    """Let the studio examine itself and its machine. Exit code 1 when there is a problem."""
    found = call.client.doctor()
    if call.json:
        output.data(found)
    else:
        width = max((len(one["name"]) for one in found["findings"]), default=0)
        for one in found["findings"]:
            output.text(f"{one['level']:8} {one['name']:{width}}  {one['message']}")
            if one["remedy"]:
                output.text(f"{'':8} {'':{width}}  → {one['remedy']}")
    if not found["ok"]:
        raise click.exceptions.Exit(1)


@click.command("monitor", cls=Verb)
@pass_call
def monitor(call: Call) -> None:
    """Show the machine's load: live on a terminal, else once."""
    sample = call.client.system()
    if call.json:
        output.data(sample)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        _live(call, sample)
    else:
        output.text(", ".join(f"{name} {value}" for name, value in readings(sample)) or "no reading yet")


def _live(call: Call, sample: Sample | None) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def drawn(sample: Sample | None) -> Table:
        table = Table.grid(padding=(0, 4))
        for name, value in readings(sample):
            table.add_row(name, value)
        return table

    with Live(drawn(sample), console=Console(), auto_refresh=False) as live:
        for event in call.client.events(("system",)):
            if event["topic"] == "system":
                live.update(drawn(event["data"]), refresh=True)


def readings(sample: Sample | None) -> Iterator[tuple[str, str]]:
    if sample is None:
        return
    cpu, memory, disk = sample["cpu"], sample["memory"], sample["disk"]
    yield "cpu", f"{human.share(cpu['share'])} of {cpu['count']} cores"
    yield "memory", f"{human.size(memory['available_bytes'])} of {human.size(memory['total_bytes'])} free"
    if memory["swap_total_bytes"]:
        yield "swap", f"{human.size(memory['swap_free_bytes'])} of {human.size(memory['swap_total_bytes'])} free"
    yield "disk", f"{human.size(disk['free_bytes'])} of {human.size(disk['total_bytes'])} free"
    for gpu in sample["gpus"]:
        yield gpu["name"], ", ".join(_gpu(gpu))
    warmest = max((t["celsius"] for t in sample["temperatures"] if t["celsius"] is not None), default=None)
    if warmest is not None:
        yield "warmest", f"{warmest:.0f} °C"
    if board := sample["jetson"]:
        watts = board["watts"]
        yield board["model"], f"{human.UNKNOWN if watts is None else f'{watts:.1f}'} W, mode {board['power_mode']}"


def _gpu(gpu: dict[str, Any]) -> Iterator[str]:
    yield human.share(gpu["share"])
    yield f"{human.size(gpu['memory_free_bytes'])} of {human.size(gpu['memory_total_bytes'])} free"
    if gpu["celsius"] is not None:
        yield f"{gpu['celsius']:.0f} °C"
    if gpu["watts"] is not None:
        yield f"{gpu['watts']:.0f} W"
