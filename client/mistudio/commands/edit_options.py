"""Options of commands that steer: which features, where, and what to do when the GPU is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from mistudio import edits
from mistudio.commands.dataset import name_of
from mistudio.options import Call

Command = Callable[..., Any]

feature_option = click.option(
    "-f", "--feature", "steering", multiple=True, required=True, metavar="FEATURE",
    help="1234:+2 adds a feature (1 is its largest activation), 1234:-1.5 takes it away, 7:clamp=1.5 sets it, "
    "7:scale=3 multiplies it, 7:ablate removes it; SAE/12:+1 is of another SAE (repeatable)",
)  # fmt: skip

scope_option = click.option(
    "--scope", metavar="SCOPE",
    help="where these act: all tokens, generated ones only, active: where the feature fires by itself, or from:N on "
    "[default: all]",
)  # fmt: skip

keep_alive_option = click.option(
    "--keep-alive", metavar="SPAN", help="how long the model then stays loaded: 5m, 0, or -1 for ever"
)


def if_busy_option(*choices: str) -> Callable[[Command], Command]:
    help = "when a job has the GPU: refuse, or pause the job until the session ends"
    if "queue" in choices:
        help = "when a job has the GPU: refuse, queue behind it, or pause it until the session ends"
    return click.option(
        "--if-busy", type=click.Choice(choices), default="refuse", show_default=True, help=help
    )  # fmt: skip


def edits_of(call: Call, given: Sequence[str], sae: str, scope: str | None = None) -> list[edits.Edit]:
    """Raises UsageError. ``sae`` is what an edit without one is of."""
    try:
        found = [edits.parse(one, sae) for one in given]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for one in found:
        if "sae" in one:
            one["sae"] = name_of(call, "sae", one["sae"])
        if scope:
            one["scope"] = scope
    return found
