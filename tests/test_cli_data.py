"""The first step by hand: data and a model of the Hub, tokenized, on the command line; daemon and workers are real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hub import Hub
from mistudio.cli import main
from tiny_models import tiny_model

Run = Callable[..., Result]
STORIES = [f"Once upon a time there was a number {i}, and it was happy." for i in range(3000)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A studio that has fetched ``stories`` and ``tiny`` from the Hub, and tokenized the first 60 stories."""
    folder = tmp_path_factory.mktemp("studio")
    with Hub() as hub:
        fill(hub, folder / "repos")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MISTUDIO_"))}
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(folder / "data"), "--port", "0"]
        environ |= hub.environ(folder / "huggingface")
        daemon = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        assert daemon.stderr is not None
        url = next(found[0] for line in daemon.stderr if (found := re.search(r"http://[\d.:]+", line)))
        studio = CliRunner(env={"MISTUDIO_HOST": url})
        try:
            yield lambda *args: studio.invoke(main, list(args))
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.communicate(timeout=30)


def fill(hub: Hub, repos: Path) -> None:
    stories, two = repos / "stories", repos / "two"
    for folder in (stories, two):
        folder.mkdir(parents=True)
    table = pa.table({"text": STORIES, "id": list(range(len(STORIES)))})
    pq.write_table(table, stories / "train-00000-of-00001.parquet", row_group_size=500)
    (stories / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    (two / "train.jsonl").write_text('{"question": "why is that so?", "answer": "because of this"}\n' * 50)
    hub.add_dataset("org/stories", stories)
    hub.add_dataset("org/two", two)
    hub.add_model("org/tiny", tiny_model("gpt2", repos / "tiny"))


@pytest.fixture(scope="module")
def tokenized(run: Run) -> Result:
    """What ``dataset tokenize`` printed, after a dataset and a model have been added."""
    for args in (
        ("dataset", "add", "org/stories", "--rows", "60", "--name", "stories"),
        ("model", "add", "org/tiny", "--name", "tiny"),
    ):
        added = run(*args)
        assert added.exit_code == 0, added.output
    return run("dataset", "tokenize", "stories", "--model", "tiny", "--context", "16", "--no-packing")


def rows(result: Result) -> list[list[str]]:
    """Of what was printed, each line's cells."""
    assert result.exit_code == 0, result.output
    return [re.split(r" {2,}", line.strip()) for line in result.stdout.splitlines()]


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_dataset_of_the_hub_is_looked_at_before_it_is_stored(run: Run) -> None:
    shown = rows(run("dataset", "preview", "org/stories", "--rows", "2"))
    for line in (
        ["source", "org/stories"],
        ["licence", "cc-by-4.0"],
        ["split", "train"],
        ["documents", "3,000"],
        ["text column", "text"],
        ["text", STORIES[1]],
    ):
        assert line in shown
    assert shown.count(["──"]) == 2
    [columns] = [line[1] for line in shown if line[0] == "columns"]
    assert re.fullmatch(r"text \(.+\), id \(.+\)", columns)
    assert data_of(run("--json", "dataset", "preview", "org/stories"))["documents"] == 3000


def test_a_preview_says_which_columns_could_be_the_text(run: Run) -> None:
    assert "could be question, answer: say which with --text-column" in run("dataset", "preview", "org/two").stdout


def test_a_dataset_of_two_texts_is_refused_until_one_is_chosen(run: Run) -> None:
    refused = run("dataset", "add", "org/two", "--name", "two")
    assert refused.exit_code == 10
    assert "question" in refused.stderr and "answer" in refused.stderr and "Traceback" not in refused.stderr
    added = rows(run("dataset", "add", "org/two", "--name", "two", "--text-column", "answer"))
    assert ["text column", "answer"] in added
    assert run("dataset", "rm", "two", "--yes").exit_code == 0


def test_what_was_added_is_shown_as_what_it_is(run: Run, tokenized: Result) -> None:
    dataset = rows(run("dataset", "show", "stories"))
    for line in (
        ["source", "org/stories"],
        ["licence", "cc-by-4.0"],
        ["documents", "60 (there is more at the source)"],
        ["text column", "text"],
    ):
        assert line in dataset
    assert ["family", "gpt2"] in rows(run("model", "show", "tiny"))
    assert data_of(run("dataset", "show", "stories", "--json"))["asked"]["rows"] == 60


def test_tokenizing_ends_with_what_it_found(run: Run, tokenized: Result) -> None:
    shown = rows(tokenized)
    assert ["name", "stories-tiny"] in shown
    assert ["documents", "60 kept of 60"] in shown
    assert ["MOST FREQUENT", "TIMES", "LEAST FREQUENT", "TIMES"] in shown
    for args in (("dataset", "stats", "stories"), ("tokenization", "show", "stories-tiny")):
        assert run(*args).stdout == tokenized.stdout


def test_several_tokenizations_of_a_dataset_are_compared(run: Run, tokenized: Result) -> None:
    again = run("dataset", "tokenize", "stories", "--model", "tiny", "--context", "32", "--name", "long", "--json")
    assert data_of(again)["result"]["context"] == 32
    compared = run("dataset", "stats", "stories", "--columns", "name,context")
    assert rows(compared) == [["NAME", "CONTEXT"], ["stories-tiny", "16"], ["long", "32"]]
    assert "one in full: mistudio dataset stats stories-tiny" in compared.stderr
    assert ["windows", f"{data_of(again)['result']['windows']} of 32 tokens"] in rows(run("dataset", "stats", "long"))
    assert run("tokenization", "rm", "long", "--yes").exit_code == 0
    assert "there is no dataset 'long'" in run("dataset", "stats", "long").stderr


def test_documents_are_paged_through(run: Run, tokenized: Result) -> None:
    page = run("dataset", "sample", "stories", "--rows", "2", "--offset", "56")
    assert page.stdout == f"── 56\n{STORIES[56]}\n── 57\n{STORIES[57]}\n"
    assert "60 rows in all; to go on: --offset 58" in page.stderr
    assert "there is no row 60: the dataset has 60" in run("dataset", "sample", "stories", "--offset", "60").stderr
    assert run("dataset", "sample", "stories", "--rows", "2", "--offset", "58").stderr == ""
    assert len(data_of(run("dataset", "sample", "stories", "--rows", "4", "--json"))["rows"]) == 4


def test_a_text_is_shown_as_the_tokens_of_a_model(run: Run, tokenized: Result) -> None:
    shown = run("model", "tokens", "tiny", "number é")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.endswith("|n|u|m|b|e|r| |\\xc3|\\xa9\n")
    assert re.fullmatch(r"\d+ tokens \(\d special\); [\d.]+ bytes a token\n", shown.stderr)
    assert data_of(run("model", "tokens", "tiny", "number", "--json"))["tokens"] >= 1


def test_models_in_the_machines_cache_are_listed_with_their_commits(run: Run, tokenized: Result) -> None:
    listed = rows(run("model", "list", "--cached"))
    assert listed[0] == ["SOURCE", "REVISION", "BRANCHES", "SIZE", "WHOLE"]
    [tiny] = [line for line in listed if line[0] == "org/tiny"]
    assert re.fullmatch("[0-9a-f]{12}", tiny[1]) and tiny[2] == "main" and tiny[4] == "yes"


@pytest.mark.parametrize(("noun", "name"), [("model", "tiny"), ("dataset", "stories")])
def test_what_something_was_made_from_stays_until_that_is_gone(
    run: Run, tokenized: Result, noun: str, name: str
) -> None:
    refused = run(noun, "rm", name, "--yes")
    assert refused.exit_code != 0
    assert "stories-tiny" in refused.stderr
    assert data_of(run(noun, "show", name, "--json"))["name"] == name
