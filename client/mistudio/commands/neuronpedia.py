"""``mistudio neuronpedia``: features put there, labels brought from there, and exports checked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio import human, output
from mistudio.commands.dataset import name_of
from mistudio.completion import named
from mistudio.neuronpedia_folders import exports_of, take_in
from mistudio.options import Call, Noun, SpecVerb, pass_call
from mistudio.watch import start

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group("neuronpedia", cls=Noun)
def neuronpedia() -> None:
    """Features on Neuronpedia: uploads, exports, labels from there."""


@neuronpedia.command("upload", cls=SpecVerb, kind="upload")
@click.argument("sae", shell_complete=named("sae"))
@pass_call
def upload(call: Call, /, sae: str, **fields: Any) -> None:
    """Put the newest features of an SAE on Neuronpedia, with their labels; mistudio secret set neuronpedia keeps the
    key for it. Dead features have no place there. What is cut goes on when the job is retried.
    """
    start(call, "upload", {"sae": name_of(call, "sae", sae), **fields})


@neuronpedia.command("labels")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("folder", type=_FOLDER)
@pass_call
def labels(call: Call, sae: str, folder: Path) -> None:
    """Take in the labels of an export, or of a source's folder from Neuronpedia's bucket; a person's label here is
    never replaced.
    """
    take_in(call, sae, folder)


@neuronpedia.command("validate")
@click.argument("folder", type=_FOLDER)
@pass_call
def validate(call: Call, folder: Path) -> None:
    """Hold an export, or those of a folder, line by line to what Neuronpedia imports; no studio is asked."""
    from mistudiod.neuronpedia import validate as rules

    found = {one: rules.validate(one) for one in exports_of(folder)}
    count = sum(map(len, found.values()))
    if call.json:
        rows = [{"folder": str(one), "findings": [each._asdict() for each in all_]} for one, all_ in found.items()]
        output.data({"ok": not count, "exports": rows})
    else:
        for one, all_ in found.items():
            for each in all_:
                at = ":".join(str(part) for part in (each.file or ".", each.line) if part is not None)
                output.text(f"{one / at}: {each.message} ({each.rule})")
            if not all_:
                output.text(f"{one}: nothing that Neuronpedia would not import")
    if count:
        output.note(f"{human.count(count)} findings")
        raise click.exceptions.Exit(1)
