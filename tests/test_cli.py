"""The command line against a real daemon, whose worker leaves what real jobs leave."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from mistudio.options import SpecVerb
from studio import running

from mistudiod.specs import KINDS

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with one of everything."""
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            last = client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(last["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    def invoke(*args: str, host: str = studio) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args))

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def id_of(result: Result) -> str:
    """Of a job that was started with --detach."""
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


# -- what every command line can say ---------------------------------------------------------------------------------


def test_json_and_host_stand_before_or_after_the_subcommand(run: Run, studio: str) -> None:
    for args in (
        ("--json", "-H", studio, "sae", "list"),
        ("sae", "--json", "--host", studio, "list"),
        ("sae", "list", "--json", "-H", studio.removeprefix("http://")),
    ):
        assert data_of(run(*args, host="127.0.0.1:9"))["next"] is None


def test_without_json_nothing_but_data_is_on_stdout(run: Run) -> None:
    started = run("dataset", "add", "--remote-path", "/x", "--name", "chatter", "--detach")
    assert re.fullmatch(r"\d+\n", started.stdout)
    watched = run("job", "watch", started.stdout.strip())
    assert watched.stdout.startswith("name ")
    assert f"job {started.stdout.strip()}: done in" in watched.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_kind_is_an_option_with_its_help_and_default(kind: str) -> None:
    command = next(one for one in spec_commands(main) if one.kind == kind)
    # To a training a recipe may say what it is of.
    derived = ("name", "tokenization", "hook") if kind == "train" else ("name",)
    params = {param.name: param for param in command.get_params(click.Context(command))}
    for name, field in KINDS[kind].model_fields.items():
        if name == "kind":
            continue
        param = params[name]
        if isinstance(param, click.Option) and name not in ("steering", "messages"):  # in a person's words
            assert param.help == field.description
            assert param.opts == [f"--{name.replace('_', '-')}"]
            assert param.required == (field.is_required() and name not in derived)


def spec_commands(group: click.Group) -> Iterator[SpecVerb]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from spec_commands(command)
        elif isinstance(command, SpecVerb):
            yield command


def test_help_shows_descriptions_defaults_and_exit_codes(run: Run) -> None:
    text = run("train", "start", "--help").stdout
    assert re.search(r"latents \(d_sae\),.*?\[default:\s+2048\]", text, re.DOTALL)
    assert "--checkpoint-every-s FLOAT" in text
    assert re.search(r"10\s+the job failed", run("--help").stdout)


def test_importing_the_command_is_quick_and_light() -> None:
    code = (
        "import sys, time; began = time.process_time(); import mistudio.cli; took = time.process_time() - began; "
        "heavy = {'torch', 'numpy', 'aiohttp', 'rich', 'httpx', 'pydantic'} & set(sys.modules); "
        "print(took, sorted(heavy))"
    )
    best = []
    for _ in range(3):
        took, _, heavy = subprocess.check_output([sys.executable, "-c", code], text=True).strip().partition(" ")
        assert heavy == "[]"
        best.append(float(took))
    assert min(best) < 0.2


# -- things ----------------------------------------------------------------------------------------------------------


def test_status_says_version_and_work(run: Run, studio: str) -> None:
    assert studio in run("status").stdout
    assert data_of(run("status", "--json"))["name"] == "mistudio"


@pytest.mark.parametrize(
    ("noun", "name", "column", "field"),
    [
        ("model", "pico", "3,145,728", "parameters"),
        ("dataset", "python", "5.6 MB", "rows"),
        ("sae", "made", "0.123", "fvu"),
    ],
)
def test_things_are_listed_and_shown_by_name_and_by_id(run: Run, noun: str, name: str, column: str, field: str) -> None:
    found = data_of(run(noun, "list", "--json"))
    assert set(found) == {f"{noun}s", "next"}
    [thing] = [one for one in found[f"{noun}s"] if one["name"] == name]
    table = run(noun, "list").stdout
    assert table.startswith("NAME")
    assert column in table
    assert data_of(run(noun, "show", name, "--json")) == thing
    assert data_of(run(noun, "show", str(thing["id"]), "--json"))[field] == thing[field]
    assert re.search(rf"^name +{name}$", run(noun, "show", name).stdout, re.MULTILINE)


def test_nothing_is_deleted_unasked(run: Run) -> None:
    assert run("dataset", "add", "--remote-path", "/books/Old One.txt").exit_code == 0
    refused = run("dataset", "rm", "Old-One")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert run("dataset", "rm", "Old-One", "--yes").exit_code == 0
    assert run("dataset", "show", "Old-One").exit_code == 3


def test_statistics_of_a_datasets_tokenizations(run: Run) -> None:
    assert "2,400,000" in run("dataset", "stats", "python").stdout
    [of_dataset] = data_of(run("dataset", "stats", "python", "--json"))["tokenizations"]
    assert data_of(run("dataset", "stats", "python-pico", "--json"))["tokenizations"] == [of_dataset]
    assert "there is no dataset 'none'" in run("dataset", "stats", "none").stderr


def test_sample_shows_documents(run: Run) -> None:
    assert data_of(run("dataset", "sample", "python", "--rows", "2", "--json")) == {"rows": []}
    assert run("dataset", "sample", "python", "--rows", "99").exit_code == 6


def test_monitor_prints_one_reading_where_there_is_no_terminal(run: Run) -> None:
    assert re.search(r"cpu .* of \d+ cores, memory .* free", run("monitor").stdout)
    assert "memory" in data_of(run("monitor", "--json"))


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_that_steers_shows_its_texts(run: Run) -> None:
    job = id_of(run("steer", "made", "def f(", "-f", "12:+4.5", "-f", "7:-1", "--seed", "3", "--detach"))
    found = data_of(run("job", "wait", job, "--json"))
    asked = [(one["feature"], one["strength"], one["op"]) for one in found["spec"]["steering"]]
    assert asked == [(12, 4.5, "add"), (7, -1.0, "add")]
    assert found["result"]["seed"] == 3
    shown = run("job", "watch", job).stdout
    assert "STEERED  12:+4.5 7:-1" in shown and "import os" in shown


def test_training_shows_its_progress_and_takes_ids_for_names(run: Run) -> None:
    tokenization = data_of(run("dataset", "stats", "python", "--json"))["tokenizations"][0]["id"]
    trained = run("train", "start", "--tokenization", str(tokenization), "--hook", "blocks.3.hook_resid_post")
    assert trained.exit_code == 0, trained.output
    assert "train 1,000,000/2,000,000 tokens (50%), 25,000 tokens/s, 40 s left, fvu 0.500, l0 32.0" in trained.stderr
    assert "measure 500/1,000 tokens (50%), 2.0 s left\n" in trained.stderr  # without what the training measured
    assert "0.123" in trained.stdout
    name = "python-pico-3-resid-post"
    job = data_of(run("train", "show", name, "--json"))
    assert job["makes"] == {"noun": "sae", "name": name, "names": [name]}
    assert data_of(run("train", "list", "--json"))["jobs"][0] == job
    assert run("train", "watch", name).exit_code == 0
    assert run("sae", "rm", name, "--yes").exit_code == 0


def test_a_jobs_whole_life(run: Run, studio: str) -> None:
    job = id_of(run("dataset", "add", "--remote-path", "/x", "--name", "slow", "--detach"))
    with Client(studio) as client:
        reach(client, job, "running")
        assert run("job", "pause", job).stderr == f"job {job} is pausing\n"
        reach(client, job, "paused")
        assert data_of(run("job", "resume", job, "--json"))["state"] == "queued"
        reach(client, job, "running")
    assert run("job", "rm", job, "--yes").exit_code == 5
    late = run("job", "wait", job, "--timeout", "0.1", "--json")
    assert late.exit_code == 8
    assert json.loads(late.stderr)["error"]["code"] == "timeout"
    assert run("job", "stop", job).exit_code == 0
    stopped = run("job", "wait", job)
    assert stopped.exit_code == 11
    assert "was stopped" in stopped.stderr
    assert data_of(run("job", "retry", job, "--json"))["state"] in ("queued", "running")
    run("job", "stop", job)
    assert run("job", "watch", job).exit_code == 11
    assert run("job", "rm", job, "--yes").exit_code == 0
    assert run("job", "show", job).exit_code == 3


def reach(client: Client, job: str, state: str) -> None:
    for event in client.events(["job"]):
        if client.job(int(job))["state"] == state:
            return
        assert event["topic"] != "lost"


def test_jobs_are_listed_in_pages(run: Run) -> None:
    page = data_of(run("job", "list", "--limit", "2", "--json"))
    assert len(page["jobs"]) == 2
    assert f"--limit 2 --cursor {page['next']}" in run("job", "list", "--limit", "2").stderr
    following = data_of(run("job", "list", "--cursor", page["next"], "--limit", "1", "--json"))
    assert following["jobs"][0]["id"] == page["jobs"][-1]["id"] - 1


def test_logs_are_shown_and_followed(run: Run) -> None:
    assert run("job", "logs", "1").stdout.startswith("fake worker, attempt 1\n")
    assert run("job", "logs", "1", "-f").stdout == run("job", "logs", "1").stdout
    assert set(data_of(run("job", "logs", "1", "--json"))) == {"job", "log"}
    assert run("job", "logs", "1", "-f", "--json").exit_code == 2
