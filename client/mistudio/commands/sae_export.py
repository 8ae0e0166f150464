"""``mistudio sae export``: an SAE as another library reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio.api import Job
from mistudio.commands.sae import sae
from mistudio.completion import named
from mistudio.options import Call, SpecVerb, pass_call
from mistudio.watch import sending, show_result, start


@sae.command("export", cls=SpecVerb, kind="export")
@click.argument("sae", shell_complete=named("sae"))
@click.option("--to", "folder", type=click.Path(path_type=Path), help="bring it here, as this folder")
@pass_call
def export(call: Call, /, folder: Path | None, **fields: Any) -> None:
    """Write an SAE as another library reads it, with its card and labels; refused where there is no room for it."""
    from mistudio.download import fetch_export, require_free

    if folder is None:
        start(call, "export", fields)
        return
    if fields["detach"]:
        raise click.UsageError("--to waits for the export: leave --detach out")
    place = folder

    def bring(call: Call, job: Job) -> None:
        with sending("download") as told:
            made = fetch_export(call.client, job["result"]["export"], place, told)
        show_result(call, {**job, "result": {**job["result"], "folder": str(made.absolute())}})

    try:
        require_free(folder)
    except FileExistsError as error:
        raise click.UsageError(str(error)) from error
    start(call, "export", fields, bring)
