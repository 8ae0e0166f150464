"""How the command line treats people: tables to one's taste, near misses, completion, waiting, speed."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from mistudio.tables import field
from studio import running

MISTUDIO = [sys.executable, "-m", "mistudio.cli"]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with one of everything."""
    with running(
        tmp_path_factory.mktemp("studio") / "data", "telling_worker.py", environ={"HF_ENDPOINT": "http://127.0.0.1:1"}
    ) as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            made = client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(made["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    def invoke(*args: str, typed: str | None = None, host: str = studio) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args), input=typed)

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# -- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_shows_the_fields_that_one_names(run: Run) -> None:
    header, *rows = run("job", "list", "--columns", "id,spec.kind, progress.stage,result.rows").stdout.splitlines()
    assert header.split() == ["ID", "SPEC.KIND", "PROGRESS.STAGE", "RESULT.ROWS"]
    assert ["2", "add_dataset", "work", "1234"] in [row.split() for row in rows]
    assert run("sae", "list", "--columns", "name,fvu").stdout.splitlines()[1].split() == ["made", "0.123"]


def test_a_column_that_is_not_there_is_a_sentence_with_the_nearest(run: Run) -> None:
    refused = run("sae", "list", "--columns", "name,fvuu")
    assert refused.exit_code == 2
    assert "there is no column 'fvuu'; did you mean fvu?" in refused.stderr
    assert "there is no column 'xyz'; there are " in run("sae", "list", "--columns", "xyz").stderr
    assert run("sae", "list", "--columns", "name", "--json").exit_code == 2


def test_what_is_null_today_may_hold_a_column_tomorrow(run: Run) -> None:
    assert run("job", "list", "--columns", "id,error.message").exit_code == 0
    assert field({"error": None}, "error.message") is None
    assert field({"id": 3}, "id.x") is None


def tables(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from tables(command, (*path, name))
        elif any("--columns" in param.opts for param in command.params):
            yield (*path, name)


def test_every_list_has_columns() -> None:
    found = {" ".join(path) for path in tables(main)}
    nouns = ("model", "dataset", "tokenization", "sae", "job", "train", "feature", "label", "steer", "profile")
    lists = {f"{noun} list" for noun in (*nouns, "token", "secret", "context")}
    of_features = {f"feature {verb}" for verb in ("show", "search", "find", "lists")}
    of_labels = {f"label {verb}" for verb in ("history", "endpoints", "templates")}
    others = {"ps", "dataset stats", "train checkpoints", "trash list", "sae exports", "disk", "clean"}
    assert found == lists | of_features | of_labels | others


# -- near misses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "exit_code", "word"),
    [
        (("datset", "list"), 2, "Did you mean 'dataset'?"),
        (("dataset", "lst"), 2, "Did you mean 'list'?"),
        (("job", "list", "--limt", "3"), 2, "Did you mean '--limit'?"),
        (("model", "show", "pica"), 3, "there is no model 'pica'; did you mean pico?"),
        (("dataset", "sample", "pithon"), 3, "did you mean python?"),
        (("tokenization", "rm", "pythonpico"), 3, "did you mean python-pico?"),
        (("train", "show", "mades"), 3, "did you mean made?"),
        (("steer", "mades", "x", "-f", "1:+2", "--detach"), 6, "did you mean made?"),
        (("dataset", "tokenize", "pyton", "--model", "pico"), 6, "did you mean python?"),
    ],
)
def test_a_near_miss_is_told_what_was_probably_meant(
    run: Run, args: tuple[str, ...], exit_code: int, word: str
) -> None:
    for given in (args, (*args, "--json")):
        refused = run(*given)
        assert (refused.exit_code, refused.stdout) == (exit_code, "")
        assert word in refused.stderr


def test_nothing_is_suggested_for_what_is_there_or_near_nothing(run: Run) -> None:
    assert "did you mean" not in run("model", "show", "zzzzzz").stderr


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_waiting_is_for_an_end_or_a_state(run: Run) -> None:
    job = run("dataset", "add", "--remote-path", "/x", "--name", "slow", "--detach").stdout.strip()
    assert data_of(run("job", "wait", job, "--for", "running", "--json"))["state"] == "running"
    [found] = data_of(run("ps", "--json"))["running"]
    assert (found["job"], found["kind"], found["name"]) == (int(job), "add_dataset", "slow")
    while "work" not in (shown := run("ps").stdout):  # what a worker says is passed on a moment later
        assert "slow" in shown
    assert shown.splitlines()[0].split()[:7] == ["JOB", "KIND", "NAME", "STAGE", "PROGRESS", "ETA", "MEMORY"]
    assert re.search(rf"{job}\s+add_dataset\s+slow\s+work\s+50%", shown)
    assert run("job", "wait", job, "--for", "done", "--timeout", "0.1").exit_code == 8
    run("job", "pause", job)
    assert data_of(run("job", "wait", job, "--for", "paused", "--json"))["state"] == "paused"
    run("job", "stop", job)
    assert run("job", "wait", job, "--for", "stopped").exit_code == 0
    assert run("job", "wait", job, "--for", "running").exit_code == 11
    assert run("job", "wait", job).exit_code == 11
    refused = run("job", "wait", "1", "--for", "paused")
    assert refused.exit_code == 5
    assert "job 1 is done and will not be paused any more" in refused.stderr
    assert run("job", "rm", job, "--yes").exit_code == 0


def test_a_queued_job_gets_another_priority(run: Run, studio: str) -> None:
    first = run("dataset", "add", "--remote-path", "/x", "--name", "slow-1", "--detach").stdout.strip()
    waits = run("dataset", "add", "--remote-path", "/x", "--name", "x-2", "--detach", "--after", first).stdout.strip()
    assert run("job", "edit", waits, "--priority", "7").stderr == f"job {waits} has priority 7\n"
    with Client(studio) as client:
        _, tag = client.job_and_etag(int(waits))
        client.edit_job(int(waits), 8, tag)
        with pytest.raises(Exception, match="changed") as refused:
            client.edit_job(int(waits), 9, tag)
        assert refused.value.status == 412  # type: ignore[attr-defined]
    assert [one["id"] for one in data_of(run("job", "list", "--state", "queued", "--json"))["jobs"]] == [int(waits)]
    run("job", "stop", first)
    run("job", "wait", first)
    assert run("job", "edit", first, "--priority", "1").exit_code == 5


def test_the_same_submission_twice_is_one_job(studio: str) -> None:
    with Client(studio) as client:
        spec = {"kind": "add_dataset", "source": "/x", "name": "once"}
        first, second = client.submit(spec, key="k1"), client.submit(spec, key="k1")
        assert first["id"] == second["id"]
        client.wait(first["id"], 30)


# -- tokens and secrets ----------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_alone_on_stdout(run: Run) -> None:
    made = run("token", "create", "laptop", "--scope", "read", "--expires", "30d")
    assert made.exit_code == 0, made.output
    assert re.fullmatch(r"mis_[\w-]+\n", made.stdout)
    assert "the only time" in made.stderr
    listed = run("token", "list")
    assert made.stdout.strip() not in listed.output
    assert re.search(r"laptop\s+read\s+\S.*in (29|30) days\s+never", listed.stdout)
    [token] = data_of(run("token", "list", "--json"))["tokens"]
    assert run("token", "revoke", "laptp", "--yes").stderr == "Error: there is no token 'laptp'; did you mean laptop?\n"
    assert run("token", "revoke", "laptop").exit_code == 2  # nobody can be asked
    assert run("token", "revoke", str(token["id"]), "--yes").exit_code == 0
    assert data_of(run("token", "list", "--json"))["tokens"] == []


@pytest.mark.parametrize("span", ["30", "d", "-1d", "0d", "1y", ""])
def test_a_span_of_time_has_a_number_and_a_unit(run: Run, span: str) -> None:
    assert run("token", "create", "x", "--expires", span).exit_code == 2


def test_a_secret_comes_from_stdin_and_is_never_shown(run: Run) -> None:
    kept = run("secret", "set", "hf", typed="hf_canary\n")
    assert (kept.exit_code, kept.stderr) == (0, "the studio keeps the secret hf\n"), kept.exception
    listed = run("secret", "list")
    assert re.search(r"hf\s+file\s+\S", listed.stdout)
    assert "canary" not in listed.output + run("secret", "list", "--json").output
    assert run("secret", "set", "hf", typed="").exit_code == 2
    assert run("secret", "set", "hf", "hf_canary").exit_code == 2  # no argument: ps would show it
    assert run("secret", "rm", "hf", "--yes").exit_code == 0
    assert data_of(run("secret", "list", "--json"))["secrets"] == []


# -- the studio ------------------------------------------------------------------------------------------------------


def test_doctor_tells_what_the_studio_finds(run: Run) -> None:
    for _ in range(20):  # of disk and memory it may find something else a moment later
        levels, shown, after = levels_found(run), run("doctor"), levels_found(run)
        if levels == after:
            break
    assert levels == after and len(levels) > 10
    assert shown.exit_code == (1 if "problem" in dict(levels) else 0)
    for level, name in levels:
        assert re.search(rf"{level}\s+{re.escape(name)}", shown.stdout)


def levels_found(run: Run) -> list[tuple[str, str]]:
    found = run("doctor", "--json")
    report = json.loads(found.stdout)
    assert found.exit_code == (0 if report["ok"] else 1)
    return [(one["level"], one["name"]) for one in report["findings"]]


def test_tokenizations_are_listed_shown_and_removed(run: Run) -> None:
    run("dataset", "tokenize", "python", "--model", "pico", "--name", "short", "--context", "64")
    assert re.search(r"short\s+\d+\s+python\s+pico\s+64\s+2,400,000", run("tokenization", "list").stdout)
    assert data_of(run("tokenization", "show", "short", "--json"))["context"] == 64
    assert run("tokenization", "rm", "short", "--yes").exit_code == 0
    assert run("tokenization", "show", "short").exit_code == 3


def test_an_sae_is_brought_here(run: Run, tmp_path: Path) -> None:
    brought = run("sae", "download", "made", "--to", str(tmp_path / "here"))
    assert (brought.exit_code, brought.stdout) == (0, f"{tmp_path / 'here'}\n")
    assert json.loads((tmp_path / "here" / "recipe.json").read_text())["fvu"] == 0.123
    again = run("sae", "download", "made", "--to", str(tmp_path / "here"))
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert run("sae", "download", "mede").exit_code == 3


def test_context_is_a_length_to_tokenize_and_a_studio_everywhere_else(run: Run) -> None:
    refused = run("-c", "nowhere", "dataset", "tokenize", "python", "--model", "pico", "--context", "64")
    assert "there is no context 'nowhere'" in refused.stderr
    assert "there is no context 'nowhere'" in run("dataset", "list", "--context", "nowhere").stderr


# -- speed -----------------------------------------------------------------------------------------------------------


def test_importing_the_client_is_quick_and_light() -> None:
    code = (
        "import sys, time; began = time.process_time(); import mistudio; took = time.process_time() - began; "
        "heavy = {'torch', 'numpy', 'aiohttp', 'rich', 'httpx', 'pydantic', 'click'} & set(sys.modules); "
        "print(took, sorted(heavy))"
    )
    best = []
    for _ in range(3):
        took, _, heavy = subprocess.check_output([sys.executable, "-c", code], text=True).strip().partition(" ")
        assert heavy == "[]"
        best.append(float(took))
    assert min(best) < 0.15


def test_help_is_there_at_once() -> None:
    best = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*MISTUDIO, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(best) < 0.3


def test_settings_are_shown_and_changed_and_the_log_is_read(run: Run) -> None:
    assert run("settings", "show").output.splitlines()[0].split() == ["SETTING", "VALUE", "FROM"]
    changed = run("settings", "set", "offline", "on")
    assert (changed.exit_code, changed.stderr) == (0, "offline is true for what starts from now on\n")
    row = next(line for line in run("settings", "show").output.splitlines() if line.startswith("offline"))
    assert row.split() == ["offline", "true", "kept"]
    assert run("settings", "set", "offline", "--default").stderr == "offline is false for what starts from now on\n"
    assert run("settings", "set", "offline", "perhaps").exit_code == 2
    assert run("settings", "set", "offline").exit_code == 2
    wrong = run("settings", "set", "session_keep_alive", "soon")
    assert wrong.exit_code == 6 and "is no duration" in wrong.stderr
    assert run("settings", "set", "port", "1").exit_code == 6
    assert run("log").exit_code == 0
    assert run("label", "models", "nobody").exit_code == 3
