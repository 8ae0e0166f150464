"""``mistudio dataset``: texts, and their tokenizations."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, names, output
from mistudio.api import Artifact
from mistudio.commands.artifact import Columns, add_list_show_rm, show_table
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, SpecVerb, pass_call
from mistudio.watch import start


@click.group("dataset", cls=Noun)
def dataset() -> None:
    """Texts to train on, and their tokenizations."""


@dataset.command("add", cls=SpecVerb, kind="add_dataset", derived={"name": "from SOURCE"})
@click.argument("source")
@pass_call
def add(call: Call, /, source: str, name: str | None, **fields: Any) -> None:
    """Bring text in: builtin:python, or a file or folder on the studio's machine."""
    name = name or names.from_source(source, "dataset")
    start(call, "add_dataset", {"source": names.absolute(source), "name": name, **fields})


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
@click.argument("dataset")
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
@click.argument("dataset")
@pass_call
def tokenize(call: Call, /, dataset: str, model: str, name: str | None, **fields: Any) -> None:
    """Cut a dataset into windows of a model's tokens."""
    if name is None:
        name = names.of_tokenization(name_of(call, "dataset", dataset), name_of(call, "model", model))
    start(call, "tokenize", {"dataset": dataset, "model": model, "name": name, **fields})


def name_of(call: Call, noun: str, ref: str) -> str:
    return str(call.client.artifact(noun, ref)["name"]) if ref.isdigit() else ref


@dataset.command("stats")
@click.argument("ref", metavar="DATASET")
@pass_call
def stats(call: Call, ref: str) -> None:
    """Show the tokenizations of a dataset with their statistics, or one tokenization by its name."""
    found = _tokenizations(call, ref)
    if call.json:
        output.data({"tokenizations": found, "next": None})
        return
    columns: Columns = {
        "TOKENIZATION": lambda t: t["name"],
        "ID": lambda t: t["id"],
        "MODEL": lambda t: t.get("model"),
        "CONTEXT": lambda t: human.count(t.get("context")),
        "TOKENS": lambda t: human.count(t.get("tokens")),
        "WINDOWS": lambda t: human.count(t.get("windows")),
        "HELD OUT": lambda t: human.count(t.get("held_out_windows")),
        "DOCUMENTS": lambda t: human.count(t.get("documents")),
        "BYTES/TOKEN": lambda t: human.number(t.get("bytes_per_token"), 2),
    }
    show_table(columns, found)


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
    return [one for one in call.client.artifacts("tokenization")["tokenizations"] if one.get("dataset") == name]
