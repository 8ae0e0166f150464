"""``mistudio trash``: SAEs that were removed."""

from __future__ import annotations

import click

from mistudio import human, output
from mistudio.commands.artifact import make_sure
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

_COLUMNS: Columns = {
    "ID": lambda one: one["id"],
    "SAE": lambda one: one["name"],
    "REMOVED": lambda one: human.ago(one["removed_at"]),
    "DELETED FOR GOOD": lambda one: human.ago(one["deleted_at"]),
    "LABELS": lambda one: human.count(one["labels"]),
}


@click.group("trash", cls=Noun)
def trash() -> None:
    """SAEs that were removed, and can be restored for 7 days."""


@trash.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List what can be restored, the newest first."""
    found = call.client.trash()
    show_rows(call, {"trash": found}, found, _COLUMNS)


@trash.command("restore")
@click.argument("ref", metavar="ID|SAE")
@click.option("--as", "name", metavar="NAME", help="what to call it  [default: as before]")
@pass_call
def restore(call: Call, ref: str, name: str | None) -> None:
    """Bring an SAE back, with its features, labels and exports."""
    try:
        found = call.client.restore(ref, name)
    except ApiError as error:
        if error.fields and "name" in error.fields and name is None:
            raise ApiError(error.status, error.code, f"{error.message} (--as NAME)", error.fields) from error
        raise
    if call.json:
        output.data(found)
        return
    output.note(f"the SAE {found['sae']['name']} is back")
    if not found["labels"]:
        output.note("its labels are not: they were in a database that is gone")


@trash.command("empty")
@click.argument("ref", metavar="[ID|SAE]", required=False)
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def empty(call: Call, ref: str | None, yes: bool) -> None:
    """Delete what is in the trash, or one of it, for good."""
    what = f"{ref} out of the trash" if ref else "everything in the trash"
    make_sure(f"Delete {what} for good?", yes)
    n = call.client.delete_trashed(ref) if ref else call.client.empty_trash()
    if call.json:
        output.data({"deleted": n})
    else:
        output.note(f"deleted for good: {human.count(n)}")
