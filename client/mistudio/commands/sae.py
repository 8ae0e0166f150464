"""``mistudio sae``: autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio import human, output
from mistudio.commands.artifact import add_show
from mistudio.commands.sae_add import add, preview, show_sae
from mistudio.commands.sae_compare import compare
from mistudio.commands.sae_eval import evaluate
from mistudio.commands.sae_push import push
from mistudio.completion import named
from mistudio.evaluated import latest
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call
from mistudio.tables import Columns, show_rows
from mistudio.watch import sending, start


@click.group("sae", cls=Noun)
def sae() -> None:
    """Sparse autoencoders."""


_COLUMNS: Columns = {
    "NAME": lambda s: s["name"],
    "ID": lambda s: s["id"],
    "ARCHITECTURE": lambda s: s.get("architecture"),
    "HOOK": lambda s: s.get("hook"),
    "WIDTH": lambda s: human.count(s.get("width")),
    "K": lambda s: s.get("k"),
    "FVU": lambda s: human.number(latest(s, "fvu")),
    "L0": lambda s: human.number(latest(s, "l0"), 1),
    "ALIVE": lambda s: human.share(latest(s, "alive")),
    "MADE": lambda s: human.ago(s["created_at"]),
    "TAGS": lambda s: s.get("tags"),
}


@sae.command("list")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="only those with this tag (repeatable: with each)")
@columned
@pass_call
def list_all(call: Call, tags: tuple[str, ...]) -> None:
    """List the SAEs."""
    rows = [one for one in call.client.every_artifact("sae") if {*tags} <= {*(one.get("tags") or ())}]
    show_rows(call, {"saes": rows, "next": None}, rows, _COLUMNS)


add_show(sae, "sae", show_sae)
sae.add_command(add)
sae.add_command(compare)
sae.add_command(preview)
sae.add_command(evaluate)
sae.add_command(push)


@sae.command("certify", cls=SpecVerb, kind="certify")
@click.argument("sae", shell_complete=named("sae"))
@pass_call
def certify(call: Call, /, sae: str, **fields: Any) -> None:
    """Run an SAE on held-out text in each way in which it may have been meant, and say which holds."""
    start(call, "certify", {"sae": sae, **fields})


@sae.command("download")
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@click.option("--to", "folder", type=click.Path(path_type=Path), help="the folder to make  [default: its name]")
@pass_call
def download(call: Call, ref: str, folder: Path | None) -> None:
    """Bring an SAE here as a folder that SAELens loads."""
    from mistudio.download import fetch

    found = call.client.artifact("sae", ref)
    with sending("download") as told:
        made = fetch(call.client, found["id"], folder or Path(found["name"]), told)
    if call.json:
        output.data({"sae": found["name"], "folder": str(made.absolute())})
    else:
        output.text(str(made))
