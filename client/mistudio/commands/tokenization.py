"""``mistudio tokenization``; ``mistudio dataset tokenize`` makes them."""

from __future__ import annotations

import click

from mistudio import human
from mistudio.commands.artifact import add_list_show_rm
from mistudio.commands.statistics import show_statistics
from mistudio.options import Noun
from mistudio.tables import Columns

COLUMNS: Columns = {
    "NAME": lambda t: t["name"],
    "ID": lambda t: t["id"],
    "DATASET": lambda t: t.get("dataset"),
    "MODEL": lambda t: t.get("model"),
    "CONTEXT": lambda t: human.count(t.get("context")),
    "TOKENS": lambda t: human.count(t.get("tokens")),
    "WINDOWS": lambda t: human.count(t.get("windows")),
    "HELD OUT": lambda t: human.count(t.get("held_out_windows")),
    "DOCUMENTS": lambda t: human.count(t.get("documents")),
    "BYTES/TOKEN": lambda t: human.number(t.get("bytes_per_token"), 2),
    "VOCABULARY": lambda t: human.share(t.get("vocabulary_covered")),
    "ON DISK": lambda t: human.size(t.get("size_bytes")),
}


@click.group("tokenization", cls=Noun)
def tokenization() -> None:
    """Datasets cut into windows of a model's tokens."""


add_list_show_rm(tokenization, "tokenization", COLUMNS, show_statistics)
