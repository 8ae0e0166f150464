"""What a person marks features with: stars, notes and lists."""

from __future__ import annotations

import click

from mistudio import human, output
from mistudio.commands.feature import INDEX, feature
from mistudio.completion import named
from mistudio.options import Call, columned, pass_call
from mistudio.tables import Columns, show_rows

_COLUMNS: Columns = {"LIST": lambda one: one["name"], "FEATURES": lambda one: human.count(one["features"])}


def _star(call: Call, sae: str, indices: tuple[int, ...], starred: bool) -> None:
    changed = [call.client.mark(sae, index, starred=starred) for index in indices]
    if call.json:
        output.data({"features": changed})
    else:
        output.note(f"{'starred' if starred else 'no longer starred'}: {', '.join(map(str, indices))}")


@feature.command("star")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("indices", metavar="INDEX...", type=INDEX, nargs=-1, required=True)
@pass_call
def star(call: Call, sae: str, indices: tuple[int, ...]) -> None:
    """Star features."""
    _star(call, sae, indices, True)


@feature.command("unstar")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("indices", metavar="INDEX...", type=INDEX, nargs=-1, required=True)
@pass_call
def unstar(call: Call, sae: str, indices: tuple[int, ...]) -> None:
    """Take stars away."""
    _star(call, sae, indices, False)


@feature.command("note")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@click.argument("text")
@pass_call
def note(call: Call, sae: str, index: int, text: str) -> None:
    """Write a note of a feature; '' takes it away."""
    changed = call.client.mark(sae, index, note=text)
    if call.json:
        output.data(changed)
    else:
        output.note(f"feature {index} has {'a note' if text else 'no note'}")


@feature.command("mark")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@click.option("--list", "onto", multiple=True, metavar="NAME", help="put the feature on this list (repeatable)")
@click.option("--unlist", "off", multiple=True, metavar="NAME", help="take it off this list (repeatable)")
@pass_call
def mark(call: Call, sae: str, index: int, onto: tuple[str, ...], off: tuple[str, ...]) -> None:
    """Put a feature on lists of yours, or take it off."""
    if not onto and not off:
        raise click.UsageError("say --list NAME or --unlist NAME")
    there = call.client.feature(sae, index)["marks"]["lists"]
    kept = [name for name in dict.fromkeys([*there, *onto]) if name not in off]
    changed = call.client.mark(sae, index, lists=kept)
    if call.json:
        output.data(changed)
    else:
        output.note(f"feature {index} is on {', '.join(kept) if kept else 'no list'}")


@feature.command("lists")
@click.argument("sae", shell_complete=named("sae"))
@columned
@pass_call
def lists(call: Call, sae: str) -> None:
    """Show the lists of features."""
    found = call.client.lists(sae)
    show_rows(call, {"lists": found}, found, _COLUMNS)
