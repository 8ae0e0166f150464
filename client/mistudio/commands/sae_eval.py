"""``mistudio sae eval``: an SAE measured."""

from __future__ import annotations

from typing import Any

import click

from mistudio.completion import named
from mistudio.options import Call, SpecVerb, pass_call
from mistudio.watch import start


@click.command("eval", cls=SpecVerb, kind="evaluate")
@click.argument("sae", shell_complete=named("sae"))
@pass_call
def evaluate(call: Call, /, sae: str, **fields: Any) -> None:
    """Measure an SAE on held-out text, each figure with its interval, beside what costs nothing to beat."""
    start(call, "evaluate", {"sae": sae, **fields})
