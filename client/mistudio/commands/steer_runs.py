"""What has been steered and is kept: listed, shown, run again, compared, starred, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio import edits, human, output, steered_twice
from mistudio.commands.artifact import make_sure
from mistudio.commands.edit_options import if_busy_option, keep_alive_option
from mistudio.commands.steer import show, steer, with_choices, write
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.exporting import written
from mistudio.options import Call, columned, pass_call
from mistudio.tables import Columns, show_rows
from mistudio.visible import cut, visible

ID = click.IntRange(1)
_PROMPT_CELLS = 40
_COLUMNS: Columns = {
    "ID": lambda one: f"{one['id']}{' ★' * bool(one['starred'])}",
    "SAE": lambda one: one["sae"],
    "STEERING": lambda one: edits.joined(one["steering"], one["sae"]) + _swept(one["sweep"]),
    "SAMPLES": lambda one: one["samples"],
    "MADE": lambda one: human.ago(one["created_at"]),
    "PROMPT": lambda one: cut(visible(one["prompt"]), _PROMPT_CELLS),
    "NOTE": lambda one: one["note"],
}


def _swept(factors: list[float] | None) -> str:
    return f" × {', '.join(f'{one:g}' for one in factors)}" if factors else ""


@steer.command("list")
@click.option("--sae", shell_complete=named("sae"), help="only those of this SAE")
@click.option("--starred", is_flag=True, default=None, help="only those that are starred")
@click.option("--search", "q", metavar="TEXT", help="only those with these words in prompt or note")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="how many to show")
@click.option("--cursor", help="go on after an earlier list, which said this")
@columned
@pass_call
def list_all(call: Call, /, **query: Any) -> None:
    """List the steerings that are kept, the newest first: all that are starred, and the newest of the others."""
    found = call.client.steerings(**query)
    show_rows(call, found, found["steerings"], _COLUMNS)
    if found["next"] and not call.json:
        output.note(f"there are more: --cursor {found['next']} shows those that follow")


@steer.command("show")
@click.argument("id", type=ID)
@pass_call
def show_one(call: Call, id: int) -> None:
    """Show a kept steering: what was done, the texts, and the measures."""
    found = call.client.steering(id)
    if call.json:
        output.data(found)
        return
    about = {"steering": f"{id}{', starred ★' * bool(found['starred'])}", "made": human.ago(found["created_at"])}
    output.record(about | ({"note": found["note"]} if found["note"] else {}))
    output.text("")
    show(call, found["result"])


@steer.command("again")
@click.argument("id", type=ID)
@keep_alive_option
@if_busy_option("refuse", "pause")
@pass_call
def again(call: Call, id: int, keep_alive: str | None, if_busy: str) -> None:
    """Run a kept steering again, and say whether the texts are the same to the letter."""
    before = call.client.steering(id)
    spec = {name: value for name, value in before["spec"].items() if value is not None}
    try:
        result = write(call, spec, keep_alive, "pause" if if_busy == "pause" else None)
    except ApiError as error:
        raise with_choices(error, "pause") from error
    others = steered_twice.differing(before["result"], result)
    now = {**before, "result": result}
    changed = {name: list(sides) for name, sides in steered_twice.differences(before, now).items()}
    if call.json:
        output.data({"steering": id, "same": not others, "changed": changed, "result": result})
        return
    show(call, result)
    if not others:
        output.note(f"the texts are those of steering {id}, to the letter")
        return
    total = len(steered_twice.texts_of(result))
    why = f"; what has changed since: {', '.join(changed)}" if changed else ""
    output.note(f"{others} of {total} texts differ from those of steering {id}{why}")


@steer.command("compare")
@click.argument("a", type=ID)
@click.argument("b", type=ID)
@pass_call
def compare(call: Call, a: int, b: int) -> None:
    """Show in what two kept steerings differ, and their texts beside each other."""
    one, other = call.client.steering(a), call.client.steering(b)
    if call.json:
        found = {name: list(sides) for name, sides in steered_twice.differences(one, other).items()}
        output.data({"a": one, "b": other, "differences": found})
        return
    output.painted(steered_twice.lines(one, other, output.canvas()))


@steer.command("star")
@click.argument("ids", metavar="ID...", type=ID, nargs=-1, required=True)
@click.option("--off", is_flag=True, help="take the stars away")
@pass_call
def star(call: Call, ids: tuple[int, ...], off: bool) -> None:
    """Star steerings: they are kept for good."""
    changed = [call.client.mark_steering(id, starred=not off) for id in ids]
    if call.json:
        output.data({"steerings": changed})
    else:
        output.note(f"{'no longer starred' if off else 'starred'}: {', '.join(map(str, ids))}")


@steer.command("note")
@click.argument("id", type=ID)
@click.argument("text")
@pass_call
def note(call: Call, id: int, text: str) -> None:
    """Write a note of a steering; '' takes it away."""
    changed = call.client.mark_steering(id, note=text)
    if call.json:
        output.data(changed)
    else:
        output.note(f"steering {id} has {'a note' if text else 'no note'}")


@steer.command("export")
@click.argument("id", type=ID)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@pass_call
def export(call: Call, id: int, file: Path) -> None:
    """Write a steering as one file: FILE.json has all of it, FILE.html is a page for people."""
    format = file.suffix.lower().lstrip(".")
    if format not in ("json", "html"):
        raise click.UsageError(f"{file} is neither FILE.json nor FILE.html")
    content = call.client.export_steering(id, format)
    written([content], file)
    if call.json:
        output.data({"file": str(file.absolute()), "bytes": len(content)})
    else:
        output.note(f"wrote steering {id} to {file}")


@steer.command("rm")
@click.argument("id", type=ID)
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def remove(call: Call, id: int, yes: bool) -> None:
    """Forget a steering."""
    found = call.client.steering(id)
    said = edits.joined(found["spec"]["steering"], found["sae"])
    make_sure(f"Forget steering {id} of {found['sae']} ({said})?", yes)
    call.client.remove_steering(id)
    output.note(f"removed steering {id}")
