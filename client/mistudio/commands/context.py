"""``mistudio context``: studios by name."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from operator import itemgetter

import click

from mistudio import contexts, output
from mistudio.address import UNIX, find, to_https, to_url
from mistudio.api import Client
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
@click.option("--pair", "code", metavar="CODE", help="get a token for a code that mistudio token pair printed there")
@click.option("--fingerprint", metavar="AA:BB:...", help="of the studio's certificate, the only one to be accepted")
@click.option("--yes", is_flag=True, help="do not ask whether the certificate is the studio's")
def add(name: str, host: str, token_stdin: bool, code: str | None, fingerprint: str | None, yes: bool) -> None:
    """Call the studio at HOST by a NAME. A name that is there already is given to the new one.

    With --pair, HOST is reached over TLS, and known by its certificate from then on.
    """
    from mistudio.pinned import parse

    known = _read()
    try:
        pinned = parse(fingerprint) if fingerprint else None
        host = to_https(host) if pinned or code else _checked(host)
        known.add(name, Context(host))
        if code:  # which must not be spent for a token that cannot be kept
            contexts.write(_read(), os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if code and token_stdin:
        raise click.UsageError("give a code or a token, not both")
    if code:
        pinned = pinned or _accepted(host, yes)
        with Client(host, fingerprint=pinned) as client:
            token = client.pair(re.sub(r"[ -]", "", code), _own_name())["token"]
    else:
        token = _token(token_stdin, host)
    _change(lambda known: known.add(name, Context(host, token, pinned)))
    output.note(f"mistudio -c {name} … talks to {host}; mistudio context use {name} makes that the rule")


def _accepted(url: str, yes: bool) -> str:
    """The fingerprint of the studio's certificate, once a person has seen it."""
    from mistudio.pinned import certificate_of

    found = certificate_of(url)
    output.note(
        f"The certificate of {url} has the fingerprint\n  {found}\n"
        "The studio says its own when it starts, and mistudiod certificate does on its machine."
    )
    if yes:
        return found
    if not sys.stdin.isatty():
        raise click.UsageError(
            "nobody can be asked whether that is the studio: give --fingerprint, or --yes to trust it"
        )
    if not click.confirm("Is it the same?", err=True):
        raise click.exceptions.Exit(1)
    return found


def _own_name() -> str:
    """What this machine is called, as tokens may be."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", platform.node().partition(".")[0]).strip("-_")[:64]
    return name if name and not name.isdigit() else f"device-{name}".rstrip("-")


def _token(token_stdin: bool, host: str) -> str | None:
    token: str | None = None
    if token_stdin:
        token = sys.stdin.readline().strip()
        if not token:
            raise click.UsageError("there is no token on stdin")
    elif sys.stdin.isatty() and not host.startswith(UNIX):
        token = click.prompt("Token (Enter for none)", default="", show_default=False, hide_input=True, err=True)
    return (token or "").strip() or None


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
    about = {"studio": found.url, "said_by": found.said_by, "token": found.token is not None}
    show(call, {**about, "fingerprint": found.fingerprint})


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
