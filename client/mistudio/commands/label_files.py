"""Labels as files, and the templates of the prompts that ask for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from mistudio import human, output
from mistudio.commands.label import label
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.exporting import export
from mistudio.near import did_you_mean
from mistudio.neuronpedia_folders import take_in
from mistudio.options import Call, Noun, columned, pass_call
from mistudio.tables import Columns, show_rows

_TEMPLATES: Columns = {
    "NAME": lambda one: one["name"],
    "SHA256": lambda one: str(one["sha256"])[:12],
}


@label.command("export")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@pass_call
def export_all(call: Call, sae: str, file: Path | None) -> None:
    """Write the labels of an SAE, one JSON object on each line."""
    export(call, call.client.export_lines("export_labels", sae), file, "label")


@label.command("import")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("file", type=click.Path(path_type=Path))
@pass_call
def import_all(call: Call, sae: str, file: Path) -> None:
    """Take in labels that mistudio label export has written, the feature_labels.json of an exported SAE, or a folder as
    of mistudio neuronpedia labels; a person's label here is never replaced.
    """
    if file.is_dir():
        take_in(call, sae, file)
        return
    found = call.client.import_labels(sae, published(file) or read_lines(file))
    if call.json:
        output.data(found)
    else:
        output.note(f"{file}: {', '.join(f'{human.count(n)} {name}' for name, n in found.items())}")


def published(file: Path) -> list[dict[str, Any]] | None:
    """The labels of a feature_labels.json; None when it is no such file."""
    try:
        found = json.loads(file.read_text("utf-8"))
        labels = found["labels"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    if not isinstance(labels, list) or not all(isinstance(one, dict) for one in labels):
        return None
    return [{name: value for name, value in one.items() if name != "score"} for one in labels]


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises UsageError with the number of the line that is none."""
    found = []
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            one = None
        if not isinstance(one, dict):
            raise click.UsageError(f"{file}, line {number} is no JSON object: every line must be one label")
        found.append(one)
    if not found:
        raise click.UsageError(f"there is no label in {file}")
    return found


@label.command("templates")
@columned
@pass_call
def templates(call: Call) -> None:
    """List the prompts that labels can be asked for with."""
    found = call.client.templates()
    show_rows(call, {"templates": found}, found, _TEMPLATES)


@label.group("template", cls=Noun)
def template() -> None:
    """A prompt that labels are asked for with."""


@template.command("show")
@click.argument("name")
@pass_call
def show_template(call: Call, name: str) -> None:
    """Print a template, to be changed and set under another name."""
    try:
        found = call.client.template(name)
    except ApiError as error:
        if error.status == 404:
            near = did_you_mean(name, [one["name"] for one in call.client.templates()])
            raise ApiError(404, error.code, f"{error.message}{near}") from error
        raise
    if call.json:
        output.data(found)
    else:
        output.text(found["text"], end="" if found["text"].endswith("\n") else "\n")


@template.command("set")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@pass_call
def set_template(call: Call, name: str, file: Path) -> None:
    """Keep FILE as the template NAME; - reads it from stdin."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    made = call.client.set_template(name, text)
    if call.json:
        output.data(made)
    else:
        output.note(f"the studio keeps the template {name}")
