"""``mistudio feature``: features listed, searched, shown, compared, found in the text, marked and exported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import code_pages
import pytest
from click.testing import CliRunner, Result
from feature_stub import Shelf, in_front, score
from mistudio import Client
from mistudio.cli import main
from studio import running

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with an SAE."""
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            made = client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(made["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"made"})


@pytest.fixture
def host(studio: str, shelf: Shelf) -> Iterator[str]:
    with in_front(studio, shelf) as url:
        yield url


@pytest.fixture
def run(host: str) -> Run:
    def invoke(*args: str, typed: str | None = None) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args), input=typed)

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


# -- lists -----------------------------------------------------------------------------------------------------------


def test_a_list_has_what_one_chooses_by_and_the_best_example(run: Run, shelf: Shelf) -> None:
    shelf.label(7, "imports of modules", scores=[score()])
    header, *rows = said(run("feature", "list", "made")).splitlines()
    assert header.split("    ")[0] == "FEATURE"
    assert [row.split()[0] for row in rows] == ["7", "12", "40", "99"]
    assert re.match(r"7 +imports of modules +0.82 +0\.\d+% +7.\d\d ", rows[0])
    assert "【import】" in rows[0] and "【def】" in rows[2]
    assert rows[3].endswith("—")  # dead, without an example


def test_a_list_is_sorted_filtered_and_cut_as_one_says(run: Run, shelf: Shelf) -> None:
    found = data_of(run("feature", "list", "made", "--sort", "-max", "--filter", "alive density<0.1", "--json"))
    strengths = [one["max"] for one in found["features"]]
    assert strengths == sorted(strengths, reverse=True) and len(strengths) == 3
    cut = run("feature", "list", "made", "--limit", "2")
    assert "2 of 4 features; --limit shows more" in cut.stderr
    assert data_of(run("feature", "list", "made", "--limit", "2", "--json"))["next"] == "2"
    assert run("feature", "list", "made", "--filter", "alife").exit_code == 6
    assert run("feature", "list", "mad").stderr == "Error: there is no sae 'mad'; did you mean made?\n"
    assert said(run("feature", "list", "made", "--columns", "index,max")).split()[:2] == ["INDEX", "MAX"]


def test_more_than_a_page_is_asked_for_page_by_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistudio.commands.feature_rows._PAGE", 2)
    found = data_of(run("feature", "list", "made", "--limit", "3", "--json"))
    assert [one["index"] for one in found["features"]] == [7, 12, 40]
    assert found["next"] == "3"


def test_features_are_found_by_words_of_their_labels_and_by_their_tokens(run: Run, shelf: Shelf) -> None:
    shelf.label(12, "the word self")
    assert [one["index"] for one in data_of(run("feature", "search", "made", "self", "--json"))["features"]] == [12]
    by_token = data_of(run("feature", "search", "made", "--token", " import", "--json"))
    assert [one["index"] for one in by_token["features"]] == [7]
    run("feature", "search", "made", "--token", 'a"b\\')
    assert shelf.asked[-1][2]["filter"] == r'token:"a\"b\\"'
    assert run("feature", "search", "made").exit_code == 2


# -- one feature -----------------------------------------------------------------------------------------------------


def test_a_page_says_all_there_is_of_a_feature_in_lines_that_grep_finds(run: Run, shelf: Shelf) -> None:
    about = {"explanation": "fires on import", "confidence": 0.8, "model": "qwen3:8b"}
    shelf.label(7, "imports of modules", "ollama", **about, scores=[score("fuzzing", "gpt"), score()])
    shelf.label(12, "the word self")
    run("feature", "star", "made", "7")
    run("feature", "note", "made", "7", "look again")
    page = said(run("feature", "show", "made", "7"))
    for line in (
        r"feature +7 of made, starred ★",
        r"label +imports of modules",
        r"explanation +fires on import",
        r"by +ollama \(qwen3:8b\), 80% sure, proposed",
        r"score +0.82 \(0.72 – 0.92\) by fuzzing, gpt; 0.82 \(0.72 – 0.92\) by tokens",
        r"note +look again",
        r"fires on +0.\d+% of the tokens, \d+ of them",
        r"activation +max 7.\d\d, mean \d.\d\d, std 1.25, typical \d.\d\d",
        r"' os' +\+5.00 +' numpy' +-4.00 +' import' +64% · 95%",
        r" +12 +0.\d\d   the word self",
        r"near +0.00  .*【.+】.*",
    ):
        assert re.search(f"^{line}$", page, re.MULTILINE), line
    assert len(re.findall("^(?:top|band|random|near) .*【", page, re.MULTILINE)) == 40
    assert not re.search("[\x00-\x09\x0b-\x1f]", page)
    assert data_of(run("feature", "show", "made", "7", "--json"))["index"] == 7
    assert said(run("feature", "show", "made", "7", "--columns", "kind,max")).startswith("KIND")


def test_a_dead_feature_is_said_to_be_dead(run: Run) -> None:
    page = said(run("feature", "show", "made", str(code_pages.DEAD)))
    assert re.search(r"^fires on +no token at all: it is dead$", page, re.MULTILINE)
    assert "PROMOTES" in page and "POINTS LIKE" in page and "ACTIVATIONS" not in page and "【" not in page


def test_what_is_not_there_is_refused_in_a_sentence(run: Run) -> None:
    refused = run("feature", "show", "made", "500")
    assert (refused.exit_code, refused.stderr) == (3, "Error: there is no feature 500: the SAE has 100\n")
    assert run("feature", "show", "made", "seven").exit_code == 2
    assert run("feature", "show", "mades", "7").stderr.endswith("did you mean made?\n")
    assert run("feature", "export", "mades").stderr.endswith("did you mean made?\n")


def test_neighbours_come_with_their_labels(run: Run, shelf: Shelf) -> None:
    shelf.label(40, "def of a function")
    shown = said(run("feature", "neighbours", "made", "7"))
    assert shown.count("def of a function") == 2
    assert set(data_of(run("feature", "neighbours", "made", "7", "--json"))) == {"decoder", "cofiring"}


def test_two_features_are_compared_side_by_side(run: Run, shelf: Shelf) -> None:
    shelf.label(7, "imports")
    shown = said(run("feature", "compare", "made", "7", "12"))
    assert re.search(r"^label +imports +—$", shown, re.MULTILINE)
    assert re.search(r"^cosine of their directions +0.25$", shown, re.MULTILINE)
    assert re.search(r"^7.\d\d +0.50 .*【import】", shown, re.MULTILINE)
    assert data_of(run("feature", "compare", "made", "7", "12", "--json"))["jaccard"] == 0.5


def test_a_feature_is_found_in_the_text(run: Run) -> None:
    lines = said(run("feature", "find", "made", "7", "--above", "5")).splitlines()
    assert len(lines) > 3 and all("【import】" in line for line in lines[1:])
    some = run("feature", "find", "made", "7", "--limit", "2")
    assert len(some.stdout.splitlines()) == 3 and "places in all" in some.stderr
    assert data_of(run("feature", "find", "made", "7", "--limit", "2", "--json"))["next"] == "1"


def test_an_extraction_ends_with_what_it_has_read_and_found(run: Run) -> None:
    shown = said(run("feature", "extract", "made", "--tokens", "5000"))
    assert re.search(r"^tokens +5,000\n  left out, special +7\nfeatures +2\n  dead +1\nL0 +31.5\n", shown, re.MULTILINE)
    assert said(run("job", "watch", str(data_of(run("job", "list", "--json"))["jobs"][0]["id"]))) == shown
    options = ("--context", "16,8", "--no-postings", "--detach", "--json")
    spec = data_of(run("feature", "extract", "made", *options))["spec"]
    assert (spec["context"], spec["postings"], spec["examples"]) == ("16,8", False, 24)
    assert run("feature", "extract", "made", "--context", "16").exit_code == 6


# -- a text ----------------------------------------------------------------------------------------------------------


def test_a_text_is_read_and_its_features_shown_pooled_and_token_by_token(run: Run, shelf: Shelf) -> None:
    shelf.label(7, "imports")
    shown = said(run("feature", "inspect", "made", "import os", "--top", "5"))
    assert re.search(r"^ +7 +5.00 +1   'import' +imports$", shown, re.MULTILINE)
    assert re.search(r"^'import' +7 \(5.00\)  12 \(0.50\)$", shown, re.MULTILINE)
    assert re.search(r"^' os↵' +12 \(1.50\)$", shown, re.MULTILINE)
    result = data_of(run("feature", "inspect", "made", "-", "--ignore-denser", "0.1", "--json", typed="from stdin"))
    assert result["top"] == len("from stdin")
    assert run("feature", "inspect", "mades", "x").stderr.endswith("did you mean made?\n")


# -- marks -----------------------------------------------------------------------------------------------------------


def test_features_are_starred_noted_and_put_on_lists(run: Run, shelf: Shelf) -> None:
    assert run("feature", "star", "made", "7", "12").stderr == "starred: 7, 12\n"
    assert run("feature", "unstar", "made", "12").stderr == "no longer starred: 12\n"
    assert run("feature", "note", "made", "7", "nice").stderr == "feature 7 has a note\n"
    assert run("feature", "mark", "made", "7", "--list", "a", "--list", "b").stderr == "feature 7 is on a, b\n"
    assert run("feature", "mark", "made", "7", "--unlist", "a", "--list", "c").stderr == "feature 7 is on b, c\n"
    assert shelf.marks[7] == {"starred": True, "note": "nice", "lists": ["b", "c"]}
    assert said(run("feature", "lists", "made")).split() == ["LIST", "FEATURES", "b", "1", "c", "1"]
    assert "7★" in said(run("feature", "list", "made"))
    assert run("feature", "mark", "made", "7").exit_code == 2
    assert run("feature", "star", "made").exit_code == 2


# -- exports ---------------------------------------------------------------------------------------------------------


def test_an_export_is_every_feature_a_line(run: Run, host: str, tmp_path: Path) -> None:
    lines = said(run("feature", "export", "made")).splitlines()
    assert [json.loads(line)["index"] for line in lines] == [7, 12, 40, 99]
    file = tmp_path / "all.jsonl"
    written = run("feature", "export", "made", str(file))
    assert "wrote 4 features to" in written.stderr and "export: 4 of 4 features" in written.stderr
    assert [json.loads(line) for line in file.read_text().splitlines()] == [json.loads(line) for line in lines]
    with Client(host) as client:
        assert [one["index"] for one in client.export_features("made")] == [7, 12, 40, 99]


def test_an_export_that_breaks_off_leaves_no_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    assert run("feature", "export", "mades", str(file)).exit_code == 3
    assert run("feature", "export", "made", str(tmp_path / "no" / "folder.jsonl")).exit_code == 2
    assert list(tmp_path.iterdir()) == []


# -- hostile text ----------------------------------------------------------------------------------------------------


def test_hostile_text_is_shown_and_steers_nothing(run: Run, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = code_pages.HOSTILE
    page = code_pages.hostile_page()
    monkeypatch.setattr(code_pages, "page", lambda index: {**page, "index": index})
    shelf.label(7, hostile, explanation=f"{hostile}\nsecond line", scores=[score("detection", hostile)])
    shelf.marks[7] = {"starred": True, "note": hostile, "lists": [hostile]}
    for args in (("list", "made"), ("show", "made", "7"), ("neighbours", "made", "12"), ("find", "made", "7"),
                 ("compare", "made", "7", "12"), ("lists", "made"), ("export", "made"),
                 ("show", "made", "7", "--columns", "texts"), ("show", "made", "7", "--json")):  # fmt: skip
        shown = said(run("feature", *args))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown), args
    shown = said(run("feature", "show", "made", "7"))
    assert shown.count(r"\x1b]0;owned\x07<script>[red]x[/red]\u202egnp\u200b�\x9b2J日本語") >= 5
    kept = json.loads(said(run("feature", "export", "made")).splitlines()[0])
    assert kept["label"]["text"] == hostile and hostile in kept["examples"][0]["texts"]
