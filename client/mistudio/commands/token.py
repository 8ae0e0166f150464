"""``mistudio token``: who may talk to the studio from other machines."""

from __future__ import annotations

import re
from typing import Any

import click

from mistudio import human, output
from mistudio.commands.artifact import make_sure
from mistudio.errors import ApiError
from mistudio.near import did_you_mean
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COLUMNS: Columns = {
    "ID": lambda token: token["id"],
    "NAME": lambda token: token["name"],
    "SCOPE": lambda token: token["scope"],
    "MADE": lambda token: human.ago(token["created_at"]),
    "EXPIRES": lambda token: human.ago(token["expires_at"]) if token["expires_at"] else "never",
    "LAST USED": lambda token: human.ago(token["last_used_at"]) if token["last_used_at"] else "never",
}


@click.group("token", cls=Noun)
def token() -> None:
    """Tokens with which other machines may talk to this studio."""


def _span(context: click.Context, option: click.Parameter, given: str | None) -> int | None:
    """Seconds of ``30d``. Raises BadParameter."""
    if given is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})([smhdw])", given)
    if not found:
        raise click.BadParameter(f"{given!r} is no span of time, such as 30d, 12h or 45m", context, option)
    return int(found[1]) * _SECONDS[found[2]]


_scope = click.option(
    "--scope", type=click.Choice(["read", "write", "admin"]), default="write", show_default=True,
    help="read: look; write: start jobs and delete things too; admin: tokens and secrets too",
)  # fmt: skip
_expires = click.option(
    "--expires", "expires_in_s", callback=_span, metavar="SPAN", help="30d, 12h, 45m  [default: never]"
)


@token.command("create")
@click.argument("name")
@_scope
@_expires
@pass_call
def create(call: Call, name: str, scope: str, expires_in_s: int | None) -> None:
    """Make a token. It is printed once and can not be asked for again."""
    made = call.client.create_token(name, scope, expires_in_s)
    if call.json:
        output.data(made)
    else:
        output.text(made["token"])
        output.note("this is the only time that the token is shown; where it is used: mistudio context add NAME HOST")


@token.command("pair")
@click.option("--name", help="what to call the token  [default: as the device calls itself]")
@_scope
@_expires
@pass_call
def pair(call: Call, name: str | None, scope: str, expires_in_s: int | None) -> None:
    """Make a code of 8 digits, with which another device gets a token: once, within 5 minutes."""
    made = call.client.create_pairing(name, scope, expires_in_s)
    if call.json:
        output.data(made)
    else:
        output.text(made["code"])
        output.note(f"good once, for {made['ends_in_s'] // 60} minutes; {_where(made)}")


def _where(made: dict[str, Any]) -> str:
    if made["url"] is None:
        return "no other machine can reach this studio: start it with --listen lan"
    return (
        f"in a browser: {made['url']}; on a command line:\n"
        f"mistudio context add NAME {made['url']} --pair {made['code']} --fingerprint {made['fingerprint']}"
    )


@token.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List the tokens; never what they are."""
    found = call.client.tokens()
    show_rows(call, {"tokens": found, "next": None}, found, _COLUMNS)


@token.command("revoke")
@click.argument("ref", metavar="TOKEN")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def revoke(call: Call, ref: str, yes: bool) -> None:
    """Refuse a token from now on, by its id or its name."""
    found = _found(call.client.tokens(), ref)
    make_sure(f"Revoke the token {found['name']} ({found['scope']})?", yes)
    call.client.revoke_token(found["id"])
    output.note(f"revoked the token {found['name']}")


def _found(tokens: list[dict[str, Any]], ref: str) -> dict[str, Any]:
    for key in ("id", "name"):
        matching = [one for one in tokens if str(one[key]) == ref]
        if len(matching) == 1:
            return matching[0]
        if matching:
            ids = ", ".join(str(one["id"]) for one in matching)
            raise ApiError(409, "conflict", f"there are several tokens named {ref!r}: revoke them by id ({ids})")
    near = did_you_mean(ref, [one["name"] for one in tokens])
    raise ApiError(404, "not_found", f"there is no token {ref!r}{near}")
