"""list, show and rm: the same for models, datasets, tokenizations and SAEs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from mistudio import output
from mistudio.api import Artifact
from mistudio.completion import named
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

Shown = Callable[[Artifact], None]


def add_list_show_rm(group: Noun, noun: str, columns: Columns, shown: Shown = output.record) -> None:
    """``columns`` of the table: header → what stands in it; ``shown``: shows one to a person."""

    @group.command("list", help=f"List the {noun}s.")
    @columned
    @pass_call
    def list_all(call: Call) -> None:
        rows = list(call.client.every_artifact(noun))
        show_rows(call, {f"{noun}s": rows, "next": None}, rows, columns)

    add_show_rm(group, noun, shown)


def add_show_rm(group: Noun, noun: str, shown: Shown = output.record) -> None:
    add_show(group, noun, shown)
    add_rm(group, noun)


def add_show(group: Noun, noun: str, shown: Shown = output.record) -> None:
    @group.command("show", help=f"Show one {noun}, by name or id.")
    @click.argument("ref", metavar=noun.upper(), shell_complete=named(noun))
    @pass_call
    def show_one(call: Call, ref: str) -> None:
        found = call.client.artifact(noun, ref)
        if call.json:
            output.data(found)
        else:
            shown(found)


def add_rm(group: Noun, noun: str) -> None:
    @group.command("rm", help=f"Delete a {noun}, by name or id, with its files.")
    @click.argument("ref", metavar=noun.upper(), shell_complete=named(noun))
    @click.option("--yes", is_flag=True, help="do not ask")
    @pass_call
    def remove(call: Call, ref: str, yes: bool) -> None:
        found = call.client.artifact(noun, ref)
        make_sure(f"Delete the {noun} {found['name']} in {found['folder']}?", yes)
        call.client.remove(noun, ref)
        output.note(f"removed the {noun} {found['name']}")


def show(call: Call, thing: dict[str, Any]) -> None:
    if call.json:
        output.data(thing)
    else:
        output.record(thing)


def make_sure(question: str, yes: bool) -> None:
    """Ask before something is deleted; where nobody can be asked, --yes must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this deletes something: give --yes where nobody can be asked")
    if not click.confirm(question, err=True):
        raise click.exceptions.Exit(1)
