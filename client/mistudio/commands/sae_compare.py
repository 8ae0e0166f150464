"""``mistudio sae compare``: SAEs beside each other, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio import output
from mistudio.api import Job
from mistudio.completion import named
from mistudio.exporting import written
from mistudio.options import Call, SpecVerb, pass_call
from mistudio.watch import show_result, start


@click.command("compare", cls=SpecVerb, kind="compare")
@click.argument("saes", metavar="SAE[@STEP] SAE[@STEP] ...", nargs=-1, required=True, shell_complete=named("sae"))
@click.option(
    "--picture", metavar="FILE.svg", type=click.Path(path_type=Path, dir_okay=False), help="also draw it into this file"
)
@pass_call
def compare(call: Call, /, saes: tuple[str, ...], picture: Path | None, **fields: Any) -> None:
    """Measure SAEs of one model on the same held-out text, and see which features they have in common.

    SAE@STEP is an SAE as it was at a checkpoint of its training.
    """
    if len(saes) < 2:
        raise click.UsageError(f"{saes[0]} alone cannot be compared: name another SAE as well")
    if picture is not None:
        _check(picture, bool(fields["detach"]))

    def show(call: Call, job: Job) -> None:
        show_result(call, job)
        if picture is not None:
            from mistudio.compared_picture import drawn

            written([drawn(job["result"]).encode()], picture)
            output.note(f"drew {picture}")

    start(call, "compare", {"saes": list(saes), **fields}, show)


def _check(picture: Path, detach: bool) -> None:
    """Before the work is done: raises UsageError."""
    if picture.suffix.lower() != ".svg":
        raise click.UsageError(f"{picture} is not FILE.svg: that is what can be drawn")
    if detach:
        raise click.UsageError("--detach does not wait for what --picture is to draw: leave out one of them")
    if not picture.absolute().parent.is_dir():
        raise click.UsageError(f"{picture} cannot be written: there is no folder {picture.absolute().parent}")
