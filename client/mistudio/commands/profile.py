"""``mistudio profile``: edits kept by a name, for the OpenAI endpoint."""

from __future__ import annotations

import click

from mistudio import edits, human, output
from mistudio.commands.artifact import make_sure
from mistudio.commands.edit_options import edits_of, feature_option, scope_option
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

_COLUMNS: Columns = {
    "NAME": lambda one: one["name"],
    "MODEL": lambda one: f"{one['model']}:{one['name']}",
    "STEERING": lambda one: edits.joined(one["steering"]),
    "MADE": lambda one: human.ago(one["created_at"]),
    "MISSING": lambda one: ", ".join(one["missing"]) or human.UNKNOWN,
    "NOTE": lambda one: one["note"],
}


@click.group("profile", cls=Noun)
def profile() -> None:
    """Profiles: edits kept by a name; /v1 serves each as the model MODEL:NAME."""


@profile.command("save")
@click.argument("name")
@click.option("--sae", shell_complete=named("sae"), help="of features that are given without one")
@feature_option
@scope_option
@click.option("--note", help="what it is for")
@click.option("--replace", is_flag=True, help="in the place of the one of that name")
@pass_call
def save(
    call: Call,
    name: str,
    sae: str | None,
    steering: tuple[str, ...],
    scope: str | None,
    note: str | None,
    replace: bool,
) -> None:
    """Keep what is done to features by a NAME."""
    found = edits_of(call, steering, sae or "SAE", scope)
    for one in found:
        if "sae" not in one and sae is None:
            raise click.UsageError(f"of which SAE is {edits.said(one)}? Say SAE/{edits.said(one)}, or --sae SAE of all")
        one.setdefault("sae", sae)
    try:
        made = call.client.save_profile(name, found, note, replace)
    except ApiError as error:
        if error.status == 409:
            raise ApiError(409, error.code, f"{error.message} (--replace)") from error
        raise
    if call.json:
        output.data(made)
    else:
        output.note(f"saved: the model {made['model']}:{made['name']} of {call.client.url}/v1")


@profile.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List the profiles."""
    found = call.client.profiles()
    show_rows(call, {"profiles": found}, found, _COLUMNS)


@profile.command("show")
@click.argument("name")
@pass_call
def show_one(call: Call, name: str) -> None:
    """Show a profile."""
    found = call.client.profile(name)
    if call.json:
        output.data(found)
        return
    output.record({header.lower(): value(found) for header, value in _COLUMNS.items()})


@profile.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def remove(call: Call, name: str, yes: bool) -> None:
    """Forget a profile."""
    found = call.client.profile(name)
    make_sure(f"Forget the profile {name} ({edits.joined(found['steering'])})?", yes)
    call.client.remove_profile(name)
    output.note(f"removed the profile {name}")
