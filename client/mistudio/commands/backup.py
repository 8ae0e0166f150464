"""``mistudio backup``: what cannot be made or fetched again, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio import human, output
from mistudio.drawing import drawn
from mistudio.options import Call, Verb, pass_call

_SHOWN = 10  # of what is left out


@click.command("backup", cls=Verb)
@click.option("--to", type=click.Path(path_type=Path), default=Path(), help="a folder, or the file  [default: here]")
@click.option("--saes", is_flag=True, help="with SAEs' weights and all that extractions have found")
@click.option("--dry-run", is_flag=True, help="only say what would be in it, and how the nightly backups are")
@pass_call
def backup(call: Call, to: Path, saes: bool, dry_run: bool) -> None:
    """Back up the studio while it runs: the database with labels and history, recipes, records of jobs, settings, and
    whatever is small.

    Secrets are never in it, nor models, datasets, activations and checkpoints. mistudiod restore makes a data folder
    of the file, mistudiod doctor says how the nightly ones are.
    """
    from mistudio.backing_up import fetch, place_of

    about = call.client.backup(saes)
    if dry_run:
        if call.json:
            output.data(about)
        else:
            _show(about)
        return
    try:
        place = place_of(to, about["name"])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        with drawn() as drawing:
            fetch(call.client, about, place, saes, lambda done, of: drawing.line(_far(done, of), done / of, done == of))
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise click.UsageError(f"the backup cannot be made: {error}") from error
    if call.json:
        output.data({**about, "file": str(place.absolute())})
        return
    output.note(f"{place} has {human.size(place.stat().st_size)}, and was read again: it is whole")
    _left_out(about)


def _show(about: dict[str, Any]) -> None:
    output.note(f"{human.count(about['files'])} files, {human.size(about['bytes'])}")
    _left_out(about)
    nightly = about["nightly"]
    if nightly["at"] == "off":
        output.note("none is made at night: the setting backup_at is off")
        return
    newest = f"; the newest: {nightly['names'][0]}" if nightly["names"] else ""
    output.note(f"each night at {nightly['at']} one is made on the studio's disk, {nightly['kept']} are kept{newest}")
    if nightly["failed"]:
        output.note(f"the last one failed: {nightly['failed']}")


def _far(done: int, of: int) -> str:
    return f"backup: {human.size(done)} of {human.size(of)} ({human.share(done / of)})"


def _left_out(about: dict[str, Any]) -> None:
    left = sorted(about["left_out"], key=lambda one: -one["bytes"])
    if not left:
        return
    size = human.size(sum(one["bytes"] for one in left))
    output.note(f"not in it, beside models, activations and secrets: {size} of {human.count(len(left))} things")
    for one in left[:_SHOWN]:
        output.note(f"  {one['what']} ({human.size(one['bytes'])})")
    if len(left) > _SHOWN:
        output.note(f"  … and {human.count(len(left) - _SHOWN)} more: --dry-run --json has all of them")
