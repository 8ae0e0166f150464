"""``mistudio dataset``: texts, and their tokenizations."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, names, output
from mistudio.api import Artifact
from mistudio.commands.artifact import add_list_show_rm
from mistudio.commands.statistics import show_statistics
from mistudio.commands.tokenization import COLUMNS
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call, source_argument
from mistudio.tables import show_rows
from mistudio.watch import settle, showing, start


@click.group("dataset", cls=Noun)
def dataset() -> None:
    """Texts to train on, and their tokenizations."""


@dataset.command("add", cls=SpecVerb, kind="add_dataset", derived={"name": "from SOURCE"})
@source_argument
@pass_call
def add(call: Call, /, source: str, remote_path: bool, name: str | None, **fields: Any) -> None:
    """Bring text in: a dataset of the Hub, builtin:python, or files, uploaded to a studio that cannot read them."""
    name = name or names.from_source(source, "dataset")
    spec = {"source": settle(call, source, name, remote_path), "name": name, **fields}
    start(call, "add_dataset", spec, showing(show_dataset))


def show_dataset(dataset: Artifact) -> None:
    asked = dataset.get("asked") or {}
    about = {
        "name": dataset["name"],
        "id": dataset["id"],
        "source": dataset.get("source"),
        **{fact: dataset[fact] for fact in ("revision", "licence") if dataset.get(fact)},
        **{fact: asked[fact] for fact in ("config", "split") if asked.get(fact)},
        "documents": human.count(dataset.get("rows")) + " (there is more at the source)" * bool(dataset.get("is_cut")),
        "  held out": human.count(dataset.get("held_out_rows")),
        "  left out, blank": human.count(dataset.get("blank_rows")),
        "text": human.size(dataset.get("bytes")),
        "text column": dataset.get("text_column"),
        "folder": dataset["folder"],
        "job": dataset["job"],
        "added": human.ago(dataset["created_at"]),
    }
    output.record(about)


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
    show_dataset,
)


@dataset.command("preview", cls=SpecVerb, kind="preview_dataset")
@source_argument
@pass_call
def preview(call: Call, /, source: str, remote_path: bool, **fields: Any) -> None:
    """Look at SOURCE before anything of it is stored: its columns, its first rows, how large it is."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        found = call.client.preview_dataset(source, remote_path, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if call.json:
        output.data(found)
        return
    output.record(_about(found))
    for row in found["rows"]:
        output.text("──")
        output.record(row)


def _about(found: dict[str, Any]) -> dict[str, object]:
    text_column = found["text_column"]
    if text_column is None and found["text_columns"]:
        text_column = f"could be {', '.join(found['text_columns'])}: say which with --text-column"
    of_the_hub = {
        "revision": found["revision"],
        "licence": found["licence"],
        "config": _chosen(found["config"], found["configs"]),
        "split": _chosen(found["split"], found["splits"]),
    }
    return {
        "source": found["source"],
        **(of_the_hub if found["configs"] else {}),
        "files": human.count(found["files"]),
        "size": human.size(found["bytes"]),
        "documents": human.count(found["documents"]),
        "columns": ", ".join(f"{one['name']} ({one['type']})" for one in found["columns"]) or None,
        "text column": text_column,
    }


def _chosen(one: str | None, among: list[str] | None) -> str | None:
    if one is None:
        return f"say which of {', '.join(among)}" if among else None
    others = [other for other in among or [] if other != one]
    return f"{one} (there is {', '.join(others)} too)" if others else one


@dataset.command("sample", cls=SpecVerb, kind="sample_dataset")
@click.argument("dataset", shell_complete=named("dataset"))
@pass_call
def sample(call: Call, dataset: str, rows: int | None, offset: int | None, chars: int | None) -> None:
    """Show documents of a dataset: a few from all over it, or page by page with --offset."""
    found = call.client.sample(dataset, rows, offset, chars)
    if call.json:
        output.data(found)
        return
    for row in found["rows"]:
        marks = ["held out"] * bool(row.get("held_out")) + ["goes on from the row before"] * bool(row.get("continues"))
        output.text(" · ".join([f"── {human.count(row.get('row'))}", *filter(None, [row.get("name")]), *marks]))
        output.text(row["text"])
    if offset is not None:
        _page(offset, len(found["rows"]), found["total"])


def _page(offset: int, shown: int, total: int) -> None:
    if not shown:
        output.note(f"there is no row {offset:,}: the dataset has {total:,}, the first is 0")
    elif offset + shown < total:
        output.note(f"{total:,} rows in all; to go on: --offset {offset + shown}")


@dataset.command("tokenize", cls=SpecVerb, kind="tokenize", derived={"name": "DATASET-MODEL"})
@click.argument("dataset", shell_complete=named("dataset"))
@pass_call
def tokenize(call: Call, /, dataset: str, model: str, name: str | None, **fields: Any) -> None:
    """Cut a dataset into windows of a model's tokens."""
    if name is None:
        name = names.of_tokenization(name_of(call, "dataset", dataset), name_of(call, "model", model))
    spec = {"dataset": dataset, "model": model, "name": name, **fields}
    start(call, "tokenize", spec, showing(show_statistics))


@dataset.command("filters", cls=SpecVerb, kind="preview_filters")
@click.argument("dataset", shell_complete=named("dataset"))
@pass_call
def filters(call: Call, /, dataset: str, model: str, **fields: Any) -> None:
    """Try filters on some documents of DATASET: how many they keep, and leave out for which reason."""
    given = {name: value for name, value in fields.items() if value is not None}
    found = call.client.preview_filters(name_of(call, "dataset", dataset), name_of(call, "model", model), **given)
    if call.json:
        output.data(found)
        return
    rows = [["kept", found["kept"]], *([reason.replace("_", "-"), n] for reason, n in found["dropped"].items())]
    share = [[name, human.count(n), human.share(n / max(found["documents"], 1))] for name, n in rows]
    output.table(["", "DOCUMENTS", "SHARE"], share)
    output.note(f"{human.count(found['documents'])} documents from all over {dataset} were looked at")


def name_of(call: Call, noun: str, ref: str) -> str:
    return str(call.client.artifact(noun, ref)["name"]) if ref.isdigit() else ref


@dataset.command("stats")
@click.argument("ref", metavar="NAME", shell_complete=named("dataset"))
@columned
@pass_call
def stats(call: Call, ref: str) -> None:
    """Show what tokenizing a dataset has found; several tokenizations side by side, one by its name in full."""
    found = _tokenizations(call, ref)
    if len(found) == 1 and not call.json and not call.columns:
        show_statistics(found[0])
        return
    show_rows(call, {"tokenizations": found, "next": None}, found, COLUMNS)
    if len(found) > 1 and not call.json:
        output.note(f"one in full: mistudio dataset stats {found[0]['name']}")


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
