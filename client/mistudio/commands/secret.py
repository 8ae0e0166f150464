"""``mistudio secret``: the keys with which the studio's jobs talk to others."""

from __future__ import annotations

import sys

import click

from mistudio import human, output
from mistudio.commands.artifact import make_sure
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

_COLUMNS: Columns = {
    "NAME": lambda secret: secret["name"],
    "FROM": lambda secret: secret["source"],
    "SET": lambda secret: human.ago(secret["set_at"]),
}


@click.group("secret", cls=Noun)
def secret() -> None:
    """Secrets of the studio: hf for the Hugging Face Hub, neuronpedia, openai and the names of other endpoints."""


@secret.command("set")
@click.argument("name")
@pass_call
def set_one(call: Call, name: str) -> None:
    """Keep a secret: asked for at a terminal, else read from stdin. It is never shown again."""
    asked = sys.stdin.isatty()
    value = (click.prompt(f"Secret {name}", hide_input=True, err=True) if asked else sys.stdin.read()).strip()
    if not value:
        raise click.UsageError("there is no secret on stdin")
    call.client.set_secret(name, value)
    output.note(f"the studio keeps the secret {name}")


@secret.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List the secrets and where they are kept; never what they are."""
    found = call.client.secrets()
    show_rows(call, {"secrets": found, "next": None}, found, _COLUMNS)


@secret.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
@pass_call
def remove(call: Call, name: str, yes: bool) -> None:
    """Forget a secret."""
    make_sure(f"Forget the secret {name}?", yes)
    call.client.remove_secret(name)
    output.note(f"forgot the secret {name}")
