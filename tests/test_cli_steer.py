"""``mistudio steer``: what is asked, and what is shown of the texts beside each other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import click
import code_pages
import pytest
from click.testing import CliRunner, Result
from feature_stub import Shelf
from feature_stub import in_front as with_features
from mistudio import Client
from mistudio.cli import main
from mistudio.edits import parse, said
from steer_stub import BASELINE, Desk, found_range, in_front
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
def desk() -> Desk:
    return Desk()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"made"})


@pytest.fixture
def host(studio: str, shelf: Shelf, desk: Desk) -> Iterator[str]:
    with with_features(studio, shelf) as between, in_front(between, desk) as url:
        yield url


@pytest.fixture
def run(host: str) -> Run:
    def invoke(*args: str, typed: str | None = None) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args), input=typed)

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def said_by(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


# -- what is done to a feature ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("1234", {"feature": 1234, "strength": 1.0}),
        ("1234:+2", {"feature": 1234, "strength": 2.0}),
        ("88:-1.5", {"feature": 88, "strength": -1.5}),
        ("7:0", {"feature": 7, "strength": 0.0}),
        ("7:ablate", {"feature": 7, "op": "ablate"}),
        ("7:clamp=1.5", {"feature": 7, "op": "clamp", "strength": 1.5}),
        ("7:scale=3", {"feature": 7, "op": "scale", "strength": 3.0}),
        ("other-sae.v2/12:+1", {"feature": 12, "sae": "other-sae.v2", "strength": 1.0}),
    ],
)
def test_an_edit_is_read_as_it_is_said(text: str, edit: dict[str, Any]) -> None:
    assert parse(text) == edit
    assert parse(said(edit)) == edit  # and said as it is read


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("7:nan", "'nan' is no strength"),
        ("7:+inf", "'+inf' is no strength"),
        ("7:-1e999", "is no strength"),
        ("7:", "'' is no strength"),
        ("7:clamp", "clamp takes a number, as in 7:clamp=1.5"),
        ("7:clamp=x", "'x' is no strength"),
        ("7:ablate=2", "ablate takes no number"),
        ("7:push=2", "'push' is none of clamp, scale, ablate"),
        ("12=4.5", "as in 12:4.5"),
        ("-3:+1", "is no feature and strength, such as 1234:+2"),
        ("", "is no feature and strength"),
        ("python imports", 'mistudio feature search made "python imports"'),
    ],
)
def test_what_is_no_edit_is_one_sentence(run: Run, desk: Desk, text: str, word: str) -> None:
    refused = run("steer", "made", "x", "-f", text)
    assert refused.exit_code == 2
    assert word in refused.stderr
    assert not desk.bodies("/api/steer")


def test_an_sae_may_be_called_like_a_command(run: Run, desk: Desk) -> None:
    for args in (("steer", "run", "list", "x"), ("steer", "--json", "run", "list", "x"), ("steer", "other", "x")):
        run(*args, "-f", "7")
    assert [body["sae"] for body in desk.bodies("/api/steer")] == ["list", "list", "other"]
    assert said_by(run("steer", "list")).startswith("ID")
    assert said_by(run("--json", "steer", "--json", "list")).startswith("{")


def test_options_may_stand_before_the_sae(run: Run, desk: Desk) -> None:
    assert run("steer", "-f", "7:+2", "--seed", "5", "made", "def f(").exit_code == 0
    assert run("steer", "--json", "made", "def f(", "-f", "7:+2").exit_code == 0
    assert [body["sae"] for body in desk.bodies("/api/steer")] == ["made", "made"]


def test_what_is_asked_is_what_was_said_and_nothing_else(run: Run, desk: Desk) -> None:
    run("steer", "made", "x", "-f", "7:+2")
    options = ("--sweep=-2,0,2", "--samples", "3", "--top-k", "5", "--scope", "generated", "--keep-alive", "-1")
    run("steer", "made", "hello", "--chat", "-f", "7:+2", "-f", "other/12:ablate", *options)
    plain, full = desk.bodies("/api/steer")
    assert plain == {
        "sae": "made", "prompt": "x", "steering": [{"feature": 7, "strength": 2.0}], "stream": True
    }  # fmt: skip
    assert full == {
        "sae": "made", "messages": [{"role": "user", "content": "hello"}], "stream": True, "keep_alive": "-1",
        "steering": [
            {"feature": 7, "strength": 2.0, "scope": "generated"},
            {"feature": 12, "sae": "other", "op": "ablate", "scope": "generated"},
        ],
        "sweep": [-2.0, 0.0, 2.0], "samples": 3, "top_k": 5,
    }  # fmt: skip


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_a_pair_is_shown_with_its_measures_and_labels(run: Run, shelf: Shelf) -> None:
    shelf.label(7, "imports of modules")
    done = run("steer", "made", "def read(path):\n    ", "-f", "7:+2")
    text = said_by(done)
    assert re.search(r"^7 +h \+= 2·44\.6·d +blocks.3.hook_resid_post +all +44\.60 +imports of modules$", text, re.M)
    assert text.index("BASELINE") < text.index("yield line") < text.index("STEERED  7:+2") < text.index("import os")
    assert "7:+2  KL 0.48 nats a token  perplexity 9.5 (3.1)  repetition 2.0% (2.0%)  changed 31%" in text
    assert "0.27" in text
    assert "feature 7 fires at 0.40, 3.25 in this text" in text and "88.00, 90.50 under the edit" in text
    assert "\x1b" not in text
    assert "load pico" in done.stderr and "3.0 s left" in done.stderr
    assert "mistudio steer show 1" in done.stderr


def test_json_is_the_result_as_the_api_gives_it(run: Run, desk: Desk) -> None:
    found = data_of(run("steer", "made", "x", "-f", "7:+2", "--samples", "2", "--seed", "3", "--json"))
    assert (found["id"], found["seed"], len(found["steered"])) == (1, 3, 2)
    assert found["baseline"]["text"] == BASELINE
    assert found["steered"][0]["kl"] == 0.48 and found["steered"][0]["strengths"][0]["strength"] == 2.0


def test_a_sweep_is_a_block_for_each_strength_and_a_table(run: Run) -> None:
    text = said_by(run("steer", "made", "x", "-f", "7:+1", "--sweep=-2,0,2"))
    heads = [text.index(f"\n{head}\n") for head in ("BASELINE", "7:-2", "7:+0", "7:+2")]
    assert heads == sorted(heads)
    rows = [line.split() for line in text.partition("\nSTRENGTHS")[2].splitlines()[1:5]]
    assert [row[0] for row in rows] == ["baseline", "7:-2", "7:+0", "7:+2"]
    assert [row[1] for row in rows] == ["—", "0.48", "0", "0.48"]


def test_samples_have_each_their_own_baseline(run: Run) -> None:
    text = said_by(run("steer", "made", "x", "-f", "7:+1", "--samples", "2"))
    assert text.count("BASELINE") == text.count("STEERED  7:+1") == 2
    assert "SAMPLE 1 OF 2" in text and "SAMPLE 2 OF 2" in text


def test_what_changes_nothing_is_a_warning(run: Run) -> None:
    done = run("steer", "made", "x", "-f", "99:+2")
    assert "warning: 99:+2 changed nothing: it fires nowhere (max 0)" in done.stderr
    assert "warning" not in run("steer", "made", "x", "-f", "99:0").stderr
    assert "hint" not in run("steer", "made", "x", "-f", "99:0").stderr


def test_a_weak_effect_and_a_strength_beyond_the_range_are_hints(run: Run, desk: Desk) -> None:
    desk.kl = 0.01
    assert "hint: the effect is weak (0.01 nats): raise" in run("steer", "made", "x", "-f", "7:+0.1").stderr
    assert "calibrate made -f 7" in run("steer", "made", "x", "-f", "7:+0.1").stderr
    desk.ranges[7] = found_range(7)
    known = run("steer", "made", "x", "-f", "7:+0.1").stderr
    assert "0.5 nats at -1.1 and +1.1" in known and "calibrate" not in known
    desk.kl = 3.0
    assert "hint: 7:+9 is far beyond its useful range" in run("steer", "made", "x", "-f", "7:+9").stderr
    assert "hint" not in run("steer", "made", "x", "-f", "7:+2").stderr


def test_hostile_text_is_shown_and_does_nothing_to_a_terminal(run: Run, shelf: Shelf, desk: Desk) -> None:
    desk.steered = f"{code_pages.HOSTILE}\n[red]{code_pages.HOSTILE}"
    shelf.label(7, code_pages.HOSTILE)
    for args in (("-f", "7:+2"), ("-f", "7:+1", "--sweep=-1,1")):
        text = said_by(run("steer", "made", code_pages.HOSTILE, *args))
        assert "\\x1b" in text and "[red]" in text and "日本語" in text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e]", text)


def test_help_names_what_steering_takes() -> None:
    command = main.commands["steer"]
    assert isinstance(command, click.Group)
    shown = CliRunner().invoke(main, ["steer", "made", "x", "--help"]).stdout
    for option in ("--sweep", "--samples", "--top-p", "--repetition-penalty", "--precision", "--chat", "--scope"):
        assert option in shown
    assert "--steering" not in shown and "--messages" not in shown
    assert "mistudio steer SAE PROMPT" in CliRunner().invoke(main, ["steer", "--help"]).stdout


# -- ranges ----------------------------------------------------------------------------------------------------------


def test_calibration_is_a_row_for_each_feature(run: Run, shelf: Shelf, desk: Desk) -> None:
    shelf.label(7, "imports of modules")
    text = said_by(run("steer", "calibrate", "made", "-f", "7", "-f", "12"))
    rows = [line.split() for line in text.splitlines() if re.match(r" +(7|12) ", line)]
    assert rows[0][:7] == ["7", "-2.6", "-1.1", "-0.4", "+0.4", "+1.1", "+2.6"]
    assert "above +5.2: repetition" in text and "imports of modules" in text
    assert desk.bodies("/api/saes/made/ranges") == [{"features": [7, 12], "stream": True}]
    assert len(data_of(run("steer", "calibrate", "made", "-f", "7", "--json"))["ranges"]) == 1
