"""``mistudio feature``: what the latents of an autoencoder stand for, and where they fire."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from mistudio import feature_page, human, inspected, outcomes, output
from mistudio.api import Client, Job
from mistudio.commands.feature_rows import among, asked, show_features
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.examples import in_context
from mistudio.exporting import export
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call
from mistudio.tables import Columns, show_rows
from mistudio.watch import start

INDEX = click.IntRange(0)


@click.group("feature", cls=Noun)
def feature() -> None:
    """Features: the latents of an SAE and where they fire."""


@feature.command("extract", cls=SpecVerb, kind="extract")
@click.argument("sae", shell_complete=named("sae"))
@pass_call
def extract(call: Call, /, sae: str, **fields: Any) -> None:
    """Find where every feature of an SAE fires, and what speaks for its meaning."""
    start(call, "extract", {"sae": sae, **fields})


@feature.command("list")
@click.argument("sae", shell_complete=named("sae"))
@among
@columned
@pass_call
def list_all(call: Call, sae: str, sort: str, filter: str | None, limit: int) -> None:
    """List features of an SAE's newest extraction, each with its strongest example."""
    show_features(call, asked(call.client, sae, sort, filter, limit=limit))


@feature.command("search")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("text", required=False)
@click.option("--token", metavar="TEXT", help="features of whose tokens one has this in it, such as ' import'")
@among
@columned
@pass_call
def search(
    call: Call, sae: str, text: str | None, token: str | None, sort: str, filter: str | None, limit: int
) -> None:
    """Find features by their labels and explanations, or by the tokens on which they fire most."""
    if text is None and token is None:
        raise click.UsageError("say what to look for: TEXT in labels and explanations, or --token TEXT")
    terms = [filter, None if token is None else f"token:{json.dumps(token, ensure_ascii=False)}"]
    found = asked(call.client, sae, sort, " ".join(term for term in terms if term) or None, text, limit)
    show_features(call, found)


@feature.command("show")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@columned
@pass_call
def show_one(call: Call, sae: str, index: int) -> None:
    """Show a feature: its label, how strongly it fires and on what, its neighbours, and its examples."""
    found = call.client.feature(sae, index)
    if call.json or call.columns:
        show_rows(call, found, found["examples"], {})
        return
    near = found["neighbours"]
    others = [one["index"] for kind in near.values() for one in kind[: feature_page.NEIGHBOURS]]
    output.painted(feature_page.lines(found, labels_of(call.client, sae, others), output.canvas()))


def labels_of(client: Client, sae: str, features: Iterable[int]) -> dict[int, str]:
    """What features are called, of those that have a name."""
    found = {}
    for index in dict.fromkeys(features):
        try:
            label = client.label(sae, index)
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        if label:
            found[index] = str(label["text"])
    return found


@feature.command("neighbours")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@pass_call
def neighbours(call: Call, sae: str, index: int) -> None:
    """Show the features whose directions are nearest, and those that fire together with it."""
    found = call.client.feature(sae, index)["neighbours"]
    if call.json:
        output.data(found)
        return
    if not any(found.values()):
        output.note(f"the newest extraction knows of no neighbours of feature {index}")
    labels = labels_of(call.client, sae, [one["index"] for kind in found.values() for one in kind])
    output.painted(feature_page.neighbours({"neighbours": found}, labels, output.canvas()))


@feature.command("compare")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("a", type=INDEX)
@click.argument("b", type=INDEX)
@pass_call
def compare(call: Call, sae: str, a: int, b: int) -> None:
    """Say how alike two features are, and show them side by side."""
    found = call.client.compare(sae, a, b)
    if call.json:
        output.data(found)
        return
    output.painted(feature_page.compared(found, output.canvas()))


@feature.command("find")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=INDEX)
@click.option("--above", type=float, help="only where it is as strong as this")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="places to show")
@columned
@pass_call
def find(call: Call, sae: str, index: int, above: float | None, limit: int) -> None:
    """Find a feature in the text that was read: every place where it fires, in the order of the text."""
    found = call.client.occurrences(sae, index, above, limit)
    width = output.canvas().width
    room = None if width is None else max(width - 26, 20)
    columns: Columns = {
        "WINDOW": lambda one: one["window"],
        "ACTIVATION": lambda one: human.number(one["value"], 2),
        "TEXT": lambda one: in_context(one, room),
    }
    show_rows(call, found, found["occurrences"], columns)
    if not call.json and found["next"] is not None:
        output.note(f"{human.count(found['total'])} places in all; --limit and --above show others")


@feature.command("inspect", cls=SpecVerb, kind="inspect")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("text")
@pass_call
def inspect(call: Call, /, sae: str, text: str, **fields: Any) -> None:
    """Show which features fire on which token of TEXT; - reads it from stdin."""
    text = sys.stdin.read() if text == "-" else text
    start(call, "inspect", {"sae": sae, "text": text, **fields}, _show_inspected)


def _show_inspected(call: Call, job: Job) -> None:
    """The text and its features; with --json the result alone, not the job."""
    result = job["result"]
    if call.json:
        output.data(result)
        return
    labels = labels_of(call.client, job["spec"]["sae"], [one["index"] for one in result["pooled"][: inspected.MOST]])
    outcomes.show_inspected(result, labels)


@feature.command("export")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@pass_call
def export_all(call: Call, sae: str, file: Path | None) -> None:
    """Write every feature with all its evidence and its label, one JSON object on each line."""
    total = call.client.features(sae, limit=1)["total"]
    export(call, call.client.export_lines("export_features", sae), file, "feature", total)
