"""``mistudio disk`` and ``clean``: what takes the disk, and what can be deleted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from mistudio import human, output
from mistudio.options import Call, Verb, columned, pass_call
from mistudio.tables import Columns, show_rows

Row = dict[str, Any]
_SAES: Columns = {
    "SAE": lambda one: one["name"],
    "WEIGHTS": lambda one: _size(one["weights"]),
    "FEATURES": lambda one: _size(one["features"]),
    "EXPORTS": lambda one: _size(one["exports"]),
    "CHECKPOINTS": lambda one: _size(one["checkpoints"]),
    "MAXIMA": lambda one: _size(one["maxima"]),
    "TOTAL": lambda one: human.size(one["bytes"]),
}
_GROUPS: Columns = {
    "WHAT": lambda one: one["what"],
    "SIZE": lambda one: human.size(one["bytes"]),
    "THINGS": lambda one: human.count(one["things"]),
    "WHAT IS LOST": lambda one: one["lost"],
}
# As the studio has them; to ask it for them would take a studio for --help.
GROUPS = ("trash", "checkpoints", "extractions", "exports", "activations", "maxima", "logs", "backups")


@click.command("disk", cls=Verb)
@columned
@pass_call
def disk(call: Call) -> None:
    """Show what takes the disk: each SAE, each folder of the studio, and what can be freed."""
    found = call.client.disk()
    rows = sorted(found["saes"], key=lambda one: -one["bytes"])
    if rows or call.json or call.columns:
        show_rows(call, found, rows, _SAES)
    if call.json or call.columns:
        return
    if any(one["checkpoints"] for one in rows):
        output.text("checkpoints are those of the job that made the SAE, shared with the other SAEs of that job")
    output.text("")
    places = sorted(((size, name) for name, size in found["places"].items() if size), reverse=True)
    output.table(["FOLDER", "SIZE"], [[name, human.size(size)] for size, name in places])
    output.text("")
    output.text(f"{human.size(found['bytes'])} in all, {human.size(found['free_bytes'])} are free")
    if freed := sum(one["bytes"] for one in found["clean"]):
        output.text(f"{human.size(freed)} can be freed: mistudio clean shows what")


@click.command("clean", cls=Verb)
@click.option("--what", multiple=True, type=click.Choice(GROUPS), help="only this group (repeatable)")
@click.option("--yes", is_flag=True, help="do not ask")
@columned
@pass_call
def clean(call: Call, what: tuple[str, ...], yes: bool) -> None:
    """Show what can be deleted without losing an SAE, by group, and delete it: when asked, or with --yes."""
    found = call.client.clean(what)
    groups = [one for one in found["groups"] if one["things"]]
    if groups and not (yes and call.json):
        show_rows(call, found, groups, _GROUPS)
    if not groups:
        if call.json:
            output.data(found)
        else:
            output.note("there is nothing to delete")
        return
    chosen = _chosen(groups, yes, call)
    if not chosen:
        return
    gone = call.client.clean(chosen, dry_run=False)
    if call.json:
        output.data(gone)
    else:
        output.note(f"{human.size(gone['bytes'])} freed")


def _chosen(groups: Sequence[Row], yes: bool, call: Call) -> list[str]:
    """Group by group, where somebody can be asked; without anybody, and with --json, none unless --yes was said."""
    if yes:
        return [one["what"] for one in groups]
    if call.json or not sys.stdin.isatty():
        if not call.json:
            output.note("nothing was deleted: say --yes, for some of it with --what")
        return []
    return [
        one["what"] for one in groups
        if click.confirm(f"Delete {one['what']} ({human.size(one['bytes'])})?", err=True)
    ]  # fmt: skip


def _size(n: int) -> str:
    return human.size(n or None)
