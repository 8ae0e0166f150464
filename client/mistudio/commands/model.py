"""``mistudio model``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from mistudio import human, names, output
from mistudio.commands.architecture import show_hooks, show_model, show_preview, show_tree
from mistudio.commands.artifact import add_rm
from mistudio.completion import named
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call, source_argument
from mistudio.tables import Columns, show_rows
from mistudio.watch import settle, showing, start


@click.group("model", cls=Noun)
def model() -> None:
    """Language models."""


@model.command("add", cls=SpecVerb, kind="add_model", derived={"name": "from SOURCE"})
@source_argument
@pass_call
def add(call: Call, /, source: str, remote_path: bool, name: str | None, **fields: Any) -> None:
    """Register a model: one of the Hub, builtin:pico, or a folder, uploaded to a studio that cannot read it."""
    name = name or names.from_source(source, "model")
    spec = {"source": settle(call, source, name, remote_path), "name": name, **fields}
    start(call, "add_model", spec, showing(show_model))


@model.command("preview", cls=SpecVerb, kind="preview_model")
@source_argument
@pass_call
def preview(call: Call, /, source: str, remote_path: bool, **fields: Any) -> None:
    """Look at SOURCE before it is fetched: what it is, what it takes, and whether it can be added."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        found = call.client.preview_model(source, remote_path, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if call.json:
        output.data(found)
    else:
        show_preview(found)


_COLUMNS: Columns = {
    "NAME": lambda m: m["name"],
    "ID": lambda m: m["id"],
    "FAMILY": lambda m: m.get("family"),
    "PARAMETERS": lambda m: human.count(m.get("parameters")),
    "LAYERS": lambda m: m.get("n_layers"),
    "D_MODEL": lambda m: m.get("d_model"),
    "SIZE": lambda m: human.size(m.get("size_bytes")),
    "ADDED": lambda m: human.ago(m["created_at"]),
}
_CACHED: Columns = {
    "SOURCE": lambda m: m["source"],
    "REVISION": lambda m: m["revision"][:12],
    "BRANCHES": lambda m: ", ".join(m["refs"]) or human.UNKNOWN,
    "SIZE": lambda m: human.size(m["size_bytes"]),
    "WHOLE": lambda m: m["is_whole"],
}
add_rm(model, "model")


@model.command("list")
@click.option("--cached", is_flag=True, help="those in the Hugging Face cache of the studio's machine instead")
@columned
@pass_call
def list_all(call: Call, cached: bool) -> None:
    """List the models, or with --cached what is on the studio's machine and can be added without a download."""
    if cached:
        found = call.client.cached_models()
        show_rows(call, {"models": found}, found, _CACHED)
        return
    rows = list(call.client.every_artifact("model"))
    show_rows(call, {"models": rows, "next": None}, rows, _COLUMNS)


@model.command("show")
@click.argument("ref", metavar="MODEL", shell_complete=named("model"))
@click.option("--hooks", is_flag=True, help="every hook point of every block instead, with its width")
@click.option("--tree", is_flag=True, help="the tree of its modules instead")
@pass_call
def show(call: Call, ref: str, hooks: bool, tree: bool) -> None:
    """Show one model, by name or id: what it is, its size in each precision, where it can be read."""
    if hooks and tree:
        raise click.UsageError("--hooks and --tree are two views: give one of them")
    found = call.client.artifact("model", ref)
    if call.json:
        output.data(found)
    elif hooks:
        show_hooks(found)
    elif tree:
        show_tree(found)
    else:
        show_model(found)


@model.command("tokens")
@click.argument("model", shell_complete=named("model"))
@click.argument("text")
@pass_call
def tokens(call: Call, model: str, text: str) -> None:
    """Show TEXT as the tokens that a model reads, each in a colour of its own."""
    found = call.client.preview_tokens(model, text)
    if call.json:
        output.data(found)
        return
    output.pieces(_pieces(text.encode(), found))
    left_out = f", of which the last {found['left_out']:,} are not shown" if found["left_out"] else ""
    special = sum(found["special"])
    share = len(text.encode()) / max(found["tokens"] - special, 1)
    output.note(f"{found['tokens']:,} tokens ({special} special){left_out}; {share:.2f} bytes a token")


def _pieces(text: bytes, found: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """What stands in the text for each token; bytes that are no whole character as \\xNN."""
    for begin, end, alone, special in zip(*(found[key] for key in ("starts", "ends", "texts", "special")), strict=True):
        yield text[begin:end].decode(errors="backslashreplace") if end > begin else alone, special
