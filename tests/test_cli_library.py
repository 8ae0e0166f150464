"""A library of SAEs from the command line: tags, names, the trash, the disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kept_saes import put_sae
from mistudio import Client
from mistudio.cli import main
from mistudio.commands.disk import GROUPS
from studio import running
from test_cli_terminal import at_terminal

from mistudiod.cleaning import WHAT

Run = Callable[..., Result]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    data = tmp_path / "data"
    for name in ("pico", "other"):
        put_sae(data, name, (1, 2))
    with running(data) as url:
        with Client(url) as client:
            client.set_label("pico", 1, "commas")
            client.mark("pico", 2, starred=True)
        yield url


@pytest.fixture
def run(host: str) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args))

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def note_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stderr.strip()


def test_tags_and_notes_are_given_and_taken_and_found(run: Run) -> None:
    assert note_of(run("sae", "tag", "pico", "good", "gpt2")) == "pico is tagged good, gpt2"
    assert note_of(run("sae", "tag", "other", "good")) == "other is tagged good"
    assert note_of(run("sae", "note", "pico", "the one of the paper")) == "pico has a note"
    listed = run("sae", "list")
    assert re.search(r"TAGS$", listed.stdout, re.MULTILINE) and "good, gpt2" in listed.stdout
    assert [one["name"] for one in data_of(run("sae", "list", "--tag", "good", "--tag", "gpt2", "--json"))["saes"]] == [
        "pico"
    ]
    assert "other" not in run("sae", "list", "--tag", "gpt2").stdout
    assert "the one of the paper" in run("sae", "show", "pico").stdout
    assert note_of(run("sae", "tag", "pico", "good", "gpt2", "--remove")) == "pico is tagged with nothing"
    assert note_of(run("sae", "note", "pico", "")) == "pico has no note"
    wrong = run("sae", "tag", "pico", "two words")
    assert wrong.exit_code == 6 and "no blanks, commas or control characters" in wrong.stderr


def test_a_renamed_sae_is_said_and_its_old_name_leads_to_it(run: Run) -> None:
    assert note_of(run("sae", "rename", "pico", "gpt2-pico")) == "pico is called gpt2-pico now"
    gone = run("feature", "list", "pico")
    assert (gone.exit_code, gone.stderr) == (3, "Error: there is no sae 'pico'; it is called gpt2-pico now\n")
    taken = run("sae", "rename", "gpt2-pico", "other")
    assert taken.exit_code == 5 and "there is an SAE named 'other' already" in taken.stderr
    assert "commas" in run("feature", "list", "gpt2-pico").stdout


def test_what_goes_with_an_sae_is_said_before_anybody_is_asked(run: Run, host: str) -> None:
    no, shown = at_terminal(host, "sae", "rm", "pico", typed="n\n")
    assert no == 1
    assert "with pico go: 2 extractions, 1 label, 1 marked feature, its saelens export, its zip export" in shown
    assert "Put the SAE pico into the trash?" in shown
    assert run("sae", "show", "pico").exit_code == 0
    unasked = run("sae", "rm", "pico")
    assert unasked.exit_code == 2 and "give --yes where nobody can be asked" in unasked.stderr
    gone = note_of(run("sae", "rm", "pico", "--yes"))
    found = re.fullmatch(
        r"the SAE pico is in the trash until \d+ \w+; to bring it back: mistudio trash restore (\w+)", gone
    )
    assert found
    listed = run("trash", "list")
    assert re.search(rf"^{found[1]} +pico +.* in [67] days +1$", listed.stdout, re.MULTILINE), listed.stdout
    assert note_of(run("trash", "restore", found[1], "--as", "back")) == "the SAE back is back"
    assert "commas" in run("feature", "list", "back").stdout
    assert run("trash", "list", "--json").exit_code == 0 and data_of(run("trash", "list", "--json")) == {"trash": []}


def test_a_name_that_is_taken_meanwhile_asks_for_another(run: Run) -> None:
    run("sae", "rm", "pico", "--yes")
    run("sae", "rename", "other", "pico")
    taken = run("trash", "restore", "pico")
    assert taken.exit_code == 5 and "there is an SAE named 'pico' already" in taken.stderr
    assert taken.stderr.endswith("or restore it under another name (--as NAME)\n")
    assert "there is no 'nothing' in the trash" in run("trash", "restore", "nothing").stderr
    assert run("trash", "empty").exit_code == 2
    assert note_of(run("trash", "empty", "pico", "--yes")) == "deleted for good: 1"
    assert data_of(run("trash", "empty", "--yes", "--json")) == {"deleted": 0}


def test_the_disk_is_shown_by_sae_and_by_folder_with_what_can_be_freed(run: Run) -> None:
    shown = run("disk").stdout
    assert re.search(r"^pico +\S+ kB +\S+ kB +\S+ kB +— +— +\S+ kB$", shown, re.MULTILINE), shown
    assert re.search(r"^features +\S+ kB$", shown, re.MULTILINE)
    assert re.search(r"^\S+ \w+ in all, \S+ \w+ are free$", shown, re.MULTILINE)
    assert re.search(r"^\S+ kB can be freed: mistudio clean shows what$", shown, re.MULTILINE)
    assert data_of(run("disk", "--json"))["saes"][0]["weights"] > 0


def test_clean_shows_first_and_deletes_what_is_said(run: Run, host: str) -> None:
    assert GROUPS == WHAT
    shown = run("clean")
    assert re.search(r"^extractions +\S+ kB +2 +what earlier extractions have found, ", shown.stdout, re.MULTILINE)
    assert "nothing was deleted: say --yes" in shown.stderr
    assert len(data_of(run("sae", "exports", "--json"))["exports"]) == 4
    assert data_of(run("clean", "--json"))["dry_run"] is True
    assert re.fullmatch(r"\S+ kB freed", note_of(run("clean", "--what", "exports", "--yes")).splitlines()[-1])
    assert data_of(run("sae", "exports", "--json")) == {"exports": []}
    code, asked = at_terminal(host, "clean", typed="y\n")
    assert code == 0 and "Delete extractions (" in asked and "kB freed" in asked
    assert note_of(run("clean")) == "there is nothing to delete"
    assert data_of(run("clean", "--yes", "--json"))["bytes"] == 0
    assert data_of(run("feature", "list", "pico", "--json"))["extraction"] == "2"


def test_one_export_is_deleted_by_its_name(run: Run) -> None:
    assert note_of(run("sae", "exports", "--rm", "pico-zip")) == "removed the export pico-zip"
    assert "pico-zip" not in run("sae", "exports").stdout
    assert run("sae", "exports", "--rm", "pico-zip").exit_code == 3
