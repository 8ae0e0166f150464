"""``mistudio label``: labels asked for at a price that is said before, tested, written, judged and carried about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from feature_stub import Shelf, in_front, score
from mistudio import Client
from mistudio.cli import main
from mistudio.options import Call
from mistudio.watch import Failed, conclude
from studio import running

Run = Callable[..., Result]
ASK = ("label", "start", "made", "--features", "7,12", "--endpoint", "ollama", "--model", "qwen3:8b")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with an SAE and its features."""
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            made = client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(made["id"], 120)["state"] == "done"
            assert client.wait(client.extract("made")["id"], 120)["state"] == "done"
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


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_labels_without_an_llm_start_at_once_and_say_what_came_out(run: Run) -> None:
    done = run("label", "start", "made", "--endpoint", "tokens")
    assert done.exit_code == 0, done.output
    assert "3 features, without an LLM\nio lane\n" in done.stderr
    assert re.search(r"^labelled +3\nunclear +1\nfailed +0$", done.stdout, re.MULTILINE)
    assert data_of(run("label", "start", "made", "--json"))["result"]["labelled"] == 3


def test_what_it_takes_is_said_before_and_money_is_never_spent_unasked(run: Run, shelf: Shelf) -> None:
    shelf.calls, shelf.cost_usd = 40, 1.5
    refused = run(*ASK)
    assert refused.exit_code == 2
    assert "3 features, 40 calls to qwen3:8b at ollama (http://127.0.0.1:11434)\n" in refused.stderr
    assert "about 48,000 tokens of questions and 90 of answers, US$ 1.50\n" in refused.stderr
    assert "give --yes" in refused.stderr
    assert not [one for one in shelf.asked if one[:2] == ("POST", "/api/jobs")]
    shelf.cost_usd = None
    assert "at a cost that is not known" in run(*ASK).stderr
    assert run(*ASK, "--yes").exit_code == 0
    shelf.cost_usd = 0.0
    assert run(*ASK).exit_code == 0


def test_the_estimate_and_the_job_are_of_the_same_spec(run: Run, shelf: Shelf, studio: str) -> None:
    sae = data_of(run("sae", "list", "--json"))["saes"][0]["id"]
    job = data_of(run(*("label", "start", str(sae)), *ASK[3:], "--again", "--max-cost", "2", "--detach", "--json"))
    asked = next(body for method, path, _, body in shelf.asked if path.endswith("/estimate"))
    wanted = {"kind": "label", "sae": "made", "features": [7, 12], "endpoint": "ollama", "model": "qwen3:8b"}
    assert asked["spec"] == {**wanted, "again": True, "max_cost": 2.0}
    assert {field: job["spec"][field] for field in asked["spec"]} == asked["spec"]


def test_a_spec_that_is_wrong_is_refused_with_the_reason(run: Run) -> None:
    refused = run("label", "start", "made", "--endpoint", "ollama", "--yes")
    assert refused.exit_code == 6
    assert "say which features" in refused.stderr
    assert run("label", "start", "mades").stderr.endswith("did you mean made?\n")


def test_a_job_whose_features_are_still_being_made_is_queued_behind_them(studio: str) -> None:
    def run(*args: str) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, list(args))

    with Client(studio) as client:
        bare = client.train("python-pico", "blocks.3.hook_resid_post", "bare")
        assert client.wait(bare["id"], 120)["state"] == "done"
        begun = [client.train("python-pico", "blocks.3.hook_resid_post", "slow")]
        try:
            for sae in ("bare", "slow"):  # of the second not even the SAE is there
                extraction = client.extract(sae)
                begun.append(extraction)
                waiting = run("label", "start", sae, "--detach")
                assert waiting.exit_code == 0, waiting.output
                assert "cannot be estimated yet: " in waiting.stderr
                scoring = data_of(run("label", "score", sae, "--methods", "tokens", "--detach", "--json"))
                assert extraction["id"] in scoring["after"]
                begun += [client.job(int(waiting.stdout)), scoring]
                asking = ("label", "start", sae, *ASK[3:], "--detach")
                assert "at a cost that is not known): give --yes" in run(*asking).stderr
                begun.append(data_of(run(*asking, "--yes", "--json")))
        finally:
            for job in reversed(begun):
                client.stop(job["id"])
        refused = run("label", "start", "bare")
        assert refused.exit_code != 0 and "no features of bare have been extracted yet" in refused.stderr


def test_scores_say_what_the_labels_as_a_whole_are_worth(run: Run) -> None:
    done = run("label", "score", "made", "--methods", "tokens")
    assert done.exit_code == 0, done.output
    assert re.search(r"^scored +3\nunscored +0\nfailed +0$", done.stdout, re.MULTILINE)
    assert re.search(r"^tokens +3 +0.70 \(0.60 – 0.80\) +50% +0$", done.stdout, re.MULTILINE)


def test_a_job_of_which_a_part_failed_says_so_first_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "partial": "32 of 40 features failed: the answer is no JSON (30)", "labelled": 7, "unclear": 1, "failed": 32,
        "reasons": {"the answer is no JSON": 30, "\x1b[31mred": 2}, "prompt_tokens": 48_000, "answer_tokens": 900,
        "cost_usd": 0.0123,
    }  # fmt: skip
    job = {"id": 5, "kind": "label", "state": "partial", "result": result, "plan": None, "makes": None,
           "error": {"code": "partial", "message": result["partial"]}}  # fmt: skip
    with pytest.raises(Failed, match="32 of 40") as failed:
        conclude(Call(), job)
    assert failed.value.exit_code == 10
    shown = capsys.readouterr().out
    assert shown.startswith("32 of 40 features failed: the answer is no JSON (30)\nlabelled ")
    assert re.search(r"^tokens +48,000 asked, 900 answered\ncost +US\$ 0.0123$", shown, re.MULTILINE)
    assert "  30: the answer is no JSON\n" in shown and r"  2: \x1b[31mred" in shown


# -- labels ----------------------------------------------------------------------------------------------------------


def test_a_label_is_shown_with_its_scores_and_those_before_it(run: Run, shelf: Shelf) -> None:
    shelf.label(7, "an older one", confidence=0.5)
    shelf.label(7, "imports", "ollama", explanation="of modules", scores=[score("fuzzing", "gpt")])
    shown = said(run("label", "show", "made", "7"))
    assert re.search(r"^label +imports$", shown, re.MULTILINE)
    assert re.search(
        r"^fuzzing +gpt +0.82 \(0.72 – 0.92\) +0.90 \(0.80 – 0.95\) +16 +4 +17 +3 +0 ", shown, re.MULTILINE
    )
    assert re.search(r"^1 +no +tokens, 50% sure +proposed .* an older one$", shown, re.MULTILINE)
    assert [one["text"] for one in data_of(run("label", "history", "made", "7", "--json"))["labels"]] == [
        "imports", "an older one",
    ]  # fmt: skip
    assert data_of(run("label", "show", "made", "7", "--json"))["label"]["text"] == "imports"
    unnamed = run("label", "show", "made", "12").stderr
    assert "mistudio label set made 12 TEXT" in unnamed and "gave nothing: the answer is no JSON" in unnamed


def test_a_person_writes_accepts_and_rejects_labels(run: Run, shelf: Shelf) -> None:
    written = run("label", "set", "made", "7", "imports", "--explanation", "of modules")
    assert written.stderr == "feature 7 is called 'imports'\n"
    assert shelf.current(7)["provider"] == "person"  # type: ignore[index]
    shelf.label(7, "another")
    assert run("label", "accept", "made", "7").stderr == "feature 7: 'another' is accepted\n"
    assert run("label", "reject", "made", "7", "1").stderr == "feature 7: 'imports' is rejected\n"
    refused = run("label", "accept", "made", "7", "9")
    assert (refused.exit_code, refused.stderr) == (3, "Error: feature 7 has no label 9; it has 2, 1\n")
    assert run("label", "reject", "made", "12").stderr == "Error: feature 12 has no label\n"


def test_labels_are_listed_and_summed_up(run: Run, shelf: Shelf) -> None:
    shelf.label(7, "imports", confidence=0.8, scores=[score()])
    header, *rows = said(run("label", "list", "made")).splitlines()
    assert header.split() == ["FEATURE", "SCORE", "BY", "SURE", "STATUS", "LABEL"]
    assert [row.split() for row in rows] == [["7", "0.82", "tokens", "80%", "proposed", "imports"]]
    assert data_of(run("label", "list", "made", "--filter", "alive", "--json"))["total"] == 1
    shown = said(run("label", "summary", "made"))
    assert re.search(r"^  failed: the answer is no JSON +4$", shown, re.MULTILINE)
    assert re.search(r"^tokens +— +2 +0.70 \(0.60 – 0.80\) +0$", shown, re.MULTILINE)
    assert data_of(run("label", "summary", "made", "--json"))["labelled"] == 2


def test_labels_are_carried_about_as_lines_of_json(run: Run, shelf: Shelf, tmp_path: Path) -> None:
    shelf.label(7, "imports")
    file = tmp_path / "labels.jsonl"
    assert "wrote 1 labels to" in run("label", "export", "made", str(file)).stderr
    assert said(run("label", "export", "made")) == file.read_text()
    assert run("label", "import", "made", str(file)).stderr == f"{file}: 1 imported, 0 known\n"
    assert len(shelf.labels) == 2
    for text, reason in (("[1]\n", "line 1 is no JSON object"), ("\n{}\n{", "line 3"), ("", "there is no label in")):
        file.write_text(text)
        refused = run("label", "import", "made", str(file))
        assert refused.exit_code == 2 and reason in refused.stderr
    assert run("label", "import", "made", str(tmp_path)).exit_code == 2


def test_endpoints_and_templates_are_listed_shown_and_set(run: Run, tmp_path: Path) -> None:
    assert re.search(r"^ollama +http://127.0.0.1:11434 +yes +no$", said(run("label", "endpoints")), re.MULTILINE)
    assert said(run("label", "template", "show", "default")) == "What does it fire on?\n"
    file = tmp_path / "mine.txt"
    file.write_text("Say it in French")
    assert run("label", "template", "set", "mine", str(file)).stderr == "the studio keeps the template mine\n"
    assert said(run("label", "template", "show", "mine")) == "Say it in French\n"
    assert run("label", "template", "set", "mine", "-", typed="Otherwise").exit_code == 0
    assert said(run("label", "template", "show", "mine")) == "Otherwise\n"
    assert "mine" in said(run("label", "templates"))
    assert run("label", "template", "show", "defalt").stderr.endswith("did you mean default?\n")
    assert run("label", "template", "set", "mine", str(tmp_path / "none")).exit_code == 2
