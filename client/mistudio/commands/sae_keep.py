"""``mistudio sae rename``, ``tag``, ``note``, ``rm`` and ``exports``: keeping a library of SAEs."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, output
from mistudio.commands.artifact import make_sure
from mistudio.commands.sae import sae
from mistudio.completion import named
from mistudio.options import Call, columned, pass_call
from mistudio.tables import Columns, show_rows

_EXPORTS: Columns = {
    "EXPORT": lambda one: one["name"],
    "SAE": lambda one: one["sae"],
    "FORMAT": lambda one: one["format"],
    "SIZE": lambda one: human.size(one["bytes"]),
    "WRITTEN": lambda one: human.ago(one["written_at"]),
}


@sae.command("tag")
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="take the tags away")
@pass_call
def tag(call: Call, ref: str, tags: tuple[str, ...], remove: bool) -> None:
    """Give an SAE tags, which sae list --tag finds."""
    changed = call.client.edit_sae(ref, remove_tags=tags) if remove else call.client.edit_sae(ref, add_tags=tags)
    if call.json:
        output.data(changed)
    else:
        output.note(f"{changed['name']} is tagged {', '.join(changed.get('tags') or ['with nothing'])}")


@sae.command("note")
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@click.argument("text")
@pass_call
def note(call: Call, ref: str, text: str) -> None:
    """Write a note on an SAE; '' takes it away."""
    changed = call.client.edit_sae(ref, note=text)
    if call.json:
        output.data(changed)
    else:
        output.note(f"{changed['name']} has {'a note' if text else 'no note'}")


@sae.command("rename")
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@click.argument("name")
@pass_call
def rename(call: Call, ref: str, name: str) -> None:
    """Give an SAE another name; its features, labels and exports go with it."""
    was = call.client.artifact("sae", ref)["name"]
    changed = call.client.rename_sae(ref, name)
    if call.json:
        output.data(changed)
        return
    output.note(f"{was} is called {changed['name']} now")
    if changed.get("finished") is False and changed["job"] is not None:
        output.note(f"its training is not finished: a retry of job {changed['job']} makes {was} again, beside it")


@sae.command("rm")
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def remove(call: Call, ref: str, yes: bool) -> None:
    """Put an SAE into the trash, where it can be restored for 7 days, with its features, labels and exports."""
    found = call.client.dependents(ref)
    name = found["sae"]
    if not (yes or found["jobs"] or found["in_session"]):
        for sentence in _depending(found):
            output.note(sentence)
        make_sure(f"Put the SAE {name} into the trash?", yes)
    call.client.remove("sae", name)
    gone = next(one for one in call.client.trash() if one["name"] == name)
    output.note(
        f"the SAE {name} is in the trash until {human.moment(gone['deleted_at']):%-d %B}; "
        f"to bring it back: mistudio trash restore {gone['id']}"
    )


def _depending(found: dict[str, Any]) -> list[str]:
    """What goes with an SAE, and what stays that names it."""
    goes = [
        *_counted(found["extractions"], "extraction"),
        *_counted(found["labels"], "label"),
        *_counted(found["marked"], "marked feature"),
        *_counted(found["ranges"], "range"),
        *(f"its {format} export" for format in found["exports"]),
    ]
    stays = [
        *(f"the profile {name}" for name in found["profiles"]),
        *_counted(found["steerings"], "run", " of steering"),
        *(f"the SAE {name}, whose training went on from it" for name in found["extended_by"]),
    ]
    return [
        f"with {found['sae']} go: {', '.join(goes) or 'nothing but its folder'}",
        *([f"what names it stays: {', '.join(stays)}"] if stays else []),
    ]


def _counted(n: int, noun: str, more: str = "") -> list[str]:
    return [f"{human.count(n)} {noun}{'s' * (n > 1)}{more}"] if n else []


@sae.command("exports")
@click.option("--rm", "gone", metavar="EXPORT", help="delete this one")
@columned
@pass_call
def exports(call: Call, gone: str | None) -> None:
    """List the SAEs that are written for others, or delete one of them; the SAE stays."""
    if gone is not None:
        call.client.remove_export(gone)
        output.note(f"removed the export {gone}")
        return
    found = call.client.exports()
    show_rows(call, {"exports": found}, found, _EXPORTS)
