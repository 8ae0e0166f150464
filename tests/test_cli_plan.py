"""``mistudio plan`` and what of a plan is shown where a job is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mistudio.cli import main
from studio import running
from test_planning import PICO, TOKENIZATION

from mistudiod.facts import read_facts

Run = Callable[..., Result]
WHAT = ("--tokenization", "t", "--hook", "blocks.0.hook_resid_post")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    data = tmp_path_factory.mktemp("studio") / "data"
    model = {"name": "pico", "source": "builtin:pico", "path": str(PICO), **asdict(read_facts(PICO))}
    put(data / "models" / "pico" / "model.json", model)
    put(data / "tokens" / "t" / "tokenization.json", TOKENIZATION)
    with running(data) as url:
        yield lambda *args: CliRunner(env={"MISTUDIO_HOST": url}).invoke(main, list(args))


def put(path: Path, about: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(about))


def test_a_plan_is_a_table_of_parts_the_choices_and_a_verdict(run: Run) -> None:
    shown = run("plan", "train", *WHAT)
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^the model's weights +[\d.]+ MB", shown.stdout, re.MULTILINE)
    assert re.search(r"^precision +fp32 \(automatic\)$", shown.stdout, re.MULTILINE)
    assert re.search(r"^micro_tokens +4096 \(automatic\)$", shown.stdout, re.MULTILINE)
    assert shown.stdout.splitlines()[-1].startswith("it fits: ")


def test_a_plan_in_json_is_the_apis_answer(run: Run) -> None:
    shown = run("--json", "plan", "train", *WHAT, "--precision", "nf4")
    found = json.loads(shown.stdout)
    assert found["choices"]["precision"] == {"value": "nf4", "automatic": False}
    assert found["fits"] is True


def test_a_plan_that_cannot_be_made_names_the_option(run: Run) -> None:
    shown = run("plan", "train", "--tokenization", "t", "--hook", "blocks.77.hook_resid_post")
    assert shown.exit_code != 0
    assert "hook" in shown.stderr and "Traceback" not in shown.stderr


def test_a_plan_cannot_be_given_what_only_a_queue_heeds(run: Run) -> None:
    assert run("plan", "train", *WHAT, "--detach").exit_code == 2


def test_a_training_shows_its_plan_first_and_at_the_end_what_it_took_beside_what_was_predicted(run: Run) -> None:
    shown = run("train", "start", *WHAT, "--name", "ok")
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^it fits: ", shown.stderr, re.MULTILINE)
    assert "it fits" not in shown.stdout
    assert re.search(r"^peak +600.0 MB of memory, [\d.]+ MB predicted$", shown.stdout, re.MULTILINE)
    id = json.loads(run("--json", "job", "list").stdout)["jobs"][0]["id"]
    assert re.search(r"^plan.verdict +it fits: ", run("job", "show", str(id)).stdout, re.MULTILINE)


def test_a_training_of_what_is_not_there_says_so_without_a_plan(run: Run) -> None:
    shown = run("train", "start", "--tokenization", "missing", "--hook", "blocks.0.hook_resid_post", "--name", "no")
    assert shown.exit_code != 0
    assert "it fits" not in shown.stderr
