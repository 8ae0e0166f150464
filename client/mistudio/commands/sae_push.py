"""``mistudio sae push``: an SAE, published."""

from __future__ import annotations

import sys
from typing import Any

import click

from mistudio import output
from mistudio.api import Job
from mistudio.commands.dataset import name_of
from mistudio.completion import named
from mistudio.options import Call, SpecVerb, pass_call
from mistudio.outcomes import show_published
from mistudio.watch import start


@click.command("push", cls=SpecVerb, kind="push")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--yes", is_flag=True, help="do not show the card first, nor ask")
@pass_call
def push(call: Call, /, sae: str, repo: str, yes: bool, **fields: Any) -> None:
    """Publish an SAE on the Hub: its weights, its labels and its card, in one commit."""
    fields = {"sae": name_of(call, "sae", sae), "repo": repo, **fields}
    if not (yes or fields["dry_run"] or fields["detach"]) and sys.stdin.isatty():
        start(call, "push", {**fields, "dry_run": True}, _show_what_goes)
        if not click.confirm(f"Publish it as {repo}?", err=True):
            raise click.exceptions.Exit(1)
    start(call, "push", fields)


def _show_what_goes(_call: Call, job: Job) -> None:
    show_published(job["result"], output.note)
