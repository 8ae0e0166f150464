"""``mistudio dataset``: texts, and their tokenizations."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, names, output
from mistudio.api import Artifact
from mistudio.commands.artifact import add_list_show_rm
from mistudio.commands.tokenization import COLUMNS
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call, source_argument
from mistudio.tables import show_rows
from mistudio.watch import settle, start


@click.group("dataset", cls=Noun)
def dataset() -> None:
    """Texts to train on, and their tokenizations."""


@dataset.command("add", cls=SpecVerb, kind="add_dataset", derived={"name": "from SOURCE"})
@source_argument
@pass_call
def add(call: Call, /, source: str, remote_path: bool, name: str | None, **fields: Any) -> None:
    """Bring text in: builtin:python, or a file or folder, uploaded to a studio that cannot read it."""
    name = name or names.from_source(source, "dataset")
    start(call, "add_dataset", {"source": settle(call, source, name, remote_path), "name": name, **fields})


add_list_show_rm(
    dataset,
    "dataset",
    {
        "NAME": lambda d: d["name"],
        "ID": lambda d: d["id"],
        "DOCUMENTS": lambda d: human.count(d.get("rows")),
        "TEXT": lambda d: human.size(d.get("bytes")),
        "SOURCE": lambda d: d.get("source"),
        "ADDED": lambda d: human.ago(d["created_at"]),
    },
)


@dataset.command("sample", cls=SpecVerb, kind="sample_dataset")
@click.argument("dataset", shell_complete=named("dataset"))
@pass_call
def sample(call: Call, dataset: str, rows: int) -> None:
    """Show a few documents of a dataset."""
    found = call.client.sample(dataset, rows)
    if call.json:
        output.data(found)
        return
    for row in found["rows"]:
        output.text(f"── {row.get('name') or ''}".rstrip())
        output.text(row["text"])


@dataset.command("tokenize", cls=SpecVerb, kind="tokenize", derived={"name": "DATASET-MODEL"})
@click.argument("dataset", shell_complete=named("dataset"))
@pass_call
def tokenize(call: Call, /, dataset: str, model: str, name: str | None, **fields: Any) -> None:
    """Cut a dataset into windows of a model's tokens."""
    if name is None:
        name = names.of_tokenization(name_of(call, "dataset", dataset), name_of(call, "model", model))
    start(call, "tokenize", {"dataset": dataset, "model": model, "name": name, **fields})


def name_of(call: Call, noun: str, ref: str) -> str:
    return str(call.client.artifact(noun, ref)["name"]) if ref.isdigit() else ref


@dataset.command("stats")
@click.argument("ref", metavar="DATASET", shell_complete=named("dataset"))
@columned
@pass_call
def stats(call: Call, ref: str) -> None:
    """Show the tokenizations of a dataset with their statistics, or one tokenization by its name."""
    found = _tokenizations(call, ref)
    show_rows(call, {"tokenizations": found, "next": None}, found, COLUMNS)


def _tokenizations(call: Call, ref: str) -> list[Artifact]:
    try:
        name = call.client.artifact("dataset", ref)["name"]
    except ApiError as missing:
        if missing.status != 404:
            raise
        try:
            return [call.client.artifact("tokenization", ref)]
        except ApiError:
            raise missing from None
    return [one for one in call.client.every_artifact("tokenization") if one.get("dataset") == name]
