"""``mistudio context``: studios by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from operator import itemgetter

import click

from mistudio import contexts, output
from mistudio.address import UNIX, find, to_url
from mistudio.commands.artifact import show
from mistudio.completion import contexts_known
from mistudio.contexts import LOCAL, Context, Contexts
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

_COLUMNS: Columns = {name.upper(): itemgetter(name) for name in ("name", "host", "token", "chosen")}


@click.group("context", cls=Noun)
def context() -> None:
    """Studios on this machine and others, by name, with the tokens that they want."""


@context.command("add")
@click.argument("name")
@click.argument("host")
@click.option("--token-stdin", is_flag=True, help="read the token from stdin; else a terminal asks for one")
def add(name: str, host: str, token_stdin: bool) -> None:
    """Call the studio at HOST by a NAME. A name that is there already is given to the new one."""
    token: str | None = None
    if token_stdin:
        token = sys.stdin.readline().strip()
        if not token:
            raise click.UsageError("there is no token on stdin")
    elif sys.stdin.isatty() and not host.startswith(UNIX):
        token = click.prompt("Token (Enter for none)", default="", show_default=False, hide_input=True, err=True)
    _change(lambda known: known.add(name, Context(_checked(host), (token or "").strip() or None)))
    output.note(f"mistudio -c {name} … talks to {host}; mistudio context use {name} makes that the rule")


def _checked(host: str) -> str:
    to_url(host)
    return host


@context.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List the contexts; tokens are not shown."""
    known = _read()
    rows = [
        {"name": name, "host": one.host, "token": one.token is not None, "chosen": name == (known.chosen or LOCAL)}
        for name, one in {LOCAL: Context("this machine"), **known.known}.items()
    ]
    show_rows(call, {"contexts": rows}, rows, _COLUMNS)


@context.command("show")
@pass_call
def show_one(call: Call) -> None:
    """Say which studio this command line talks to, and why."""
    try:
        found = find(call.host, call.context, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    show(call, {"studio": found.url, "said_by": found.said_by, "token": found.token is not None})


@context.command("use")
@click.argument("name", shell_complete=contexts_known)
def use(name: str) -> None:
    """Talk to this studio when no other is named; 'local' is the one on this machine."""
    _change(lambda known: known.use(name))


@context.command("rm")
@click.argument("name", shell_complete=contexts_known)
def remove(name: str) -> None:
    """Forget a context and its token."""
    _change(lambda known: known.remove(name))
    output.note(f"forgot the context {name}")


def _read() -> Contexts:
    try:
        return contexts.read(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _change(change: Callable[[Contexts], None]) -> None:
    known = _read()
    try:
        change(known)
        contexts.write(known, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
