"""``mistudio neuronpedia``: what is made for Neuronpedia, checked here."""

from __future__ import annotations

from pathlib import Path

import click

from mistudio import human, output
from mistudio.options import Call, Noun, pass_call

_EXPORT = "release.jsonl"  # which every export has


@click.group("neuronpedia", cls=Noun)
def neuronpedia() -> None:
    """Exports for Neuronpedia."""


@neuronpedia.command("validate")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
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


def exports_of(folder: Path) -> list[Path]:
    """The folder itself when it is one, else those in it: {model}/{source}/, at most two folders down."""
    if (folder / _EXPORT).exists():
        return [folder]
    return sorted(one.parent for depth in ("*", "*/*") for one in folder.glob(f"{depth}/{_EXPORT}")) or [folder]
