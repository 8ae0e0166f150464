"""``mistudio model``."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, names
from mistudio.commands.artifact import add_list_show_rm
from mistudio.options import Call, Noun, SpecVerb, pass_call, source_argument
from mistudio.watch import settle, start


@click.group("model", cls=Noun)
def model() -> None:
    """Language models."""


@model.command("add", cls=SpecVerb, kind="add_model", derived={"name": "from SOURCE"})
@source_argument
@pass_call
def add(call: Call, /, source: str, remote_path: bool, name: str | None, **fields: Any) -> None:
    """Register a language model: builtin:pico, or a Hugging Face folder, uploaded to a studio that cannot read it."""
    name = name or names.from_source(source, "model")
    start(call, "add_model", {"source": settle(call, source, name, remote_path), "name": name, **fields})


add_list_show_rm(
    model,
    "model",
    {
        "NAME": lambda m: m["name"],
        "ID": lambda m: m["id"],
        "FAMILY": lambda m: m.get("family"),
        "PARAMETERS": lambda m: human.count(m.get("parameters")),
        "LAYERS": lambda m: m.get("n_layers"),
        "D_MODEL": lambda m: m.get("d_model"),
        "SIZE": lambda m: human.size(m.get("size_bytes")),
        "ADDED": lambda m: human.ago(m["created_at"]),
    },
)
