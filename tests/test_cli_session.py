"""``mistudio session``, ``profile`` and ``ps``: what is loaded, and edits by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from steer_stub import Desk, found_range, in_front, session
from studio import running

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with a model and an SAE of it."""
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_model("builtin:pico", "other")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            made = client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(made["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def host(studio: str, desk: Desk) -> Iterator[str]:
    with in_front(studio, desk) as url:
        yield url


@pytest.fixture
def run(host: str) -> Run:
    def invoke(*args: str, typed: str | None = None) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args), input=typed)

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def in_time(**span: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_is_of_a_model_or_of_saes(run: Run, desk: Desk) -> None:
    assert "made" in run("session", "start", "made").stdout
    run("session", "start", "pico", "--keep-alive", "-1", "--hold", "10m")
    run("session", "start", "pico", "made", "--precision", "bf16", "--if-busy", "pause")
    assert desk.bodies("/api/session") == [
        {"saes": ["made"], "if_busy": "refuse"},
        {"model": "pico", "keep_alive": "-1", "hold": "10m", "if_busy": "refuse"},
        {"model": "pico", "saes": ["made"], "precision": "bf16", "if_busy": "pause"},
    ]


def test_what_is_not_there_or_too_much_is_a_sentence(run: Run, desk: Desk) -> None:
    missing = run("session", "start", "maid")
    assert missing.exit_code == 3
    assert "there is no model or SAE 'maid'; did you mean made?" in missing.stderr
    several = run("session", "start", "pico", "other")
    assert several.exit_code == 2 and "pico and other are several" in several.stderr
    assert not desk.bodies("/api/session")


def test_a_session_is_shown_with_memory_and_expiry(run: Run, desk: Desk) -> None:
    assert "there is no session" in run("session", "show").stderr
    assert data_of(run("session", "show", "--json")) == {"session": None}
    desk.session = session("pico", ["made"], expires_at=in_time(minutes=5, seconds=9), paused_jobs=[3, 4])
    shown = run("session", "show").stdout
    assert re.search(r"^memory +500.0 MB / 410.0 MB$", shown, re.M)
    assert re.search(r"^expires +5 min 0\d s left$", shown, re.M)
    assert re.search(r"^paused for it +job 3, job 4$", shown, re.M)
    assert data_of(run("session", "show", "--json"))["session"]["pid"] == 77
    assert "the session has ended" in run("session", "stop").stderr
    assert desk.session is None


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"expires_at": None}, "forever"),
        ({"expires_at": in_time(minutes=-5)}, "now"),
        ({"state": "busy", "expires_at": None}, "—"),
    ],
)
def test_ps_shows_the_session(run: Run, desk: Desk, fields: dict[str, Any], word: str) -> None:
    desk.session = session("pico", ["made", "more"], **fields)
    header, row = run("ps").stdout.splitlines()[-2:]
    assert header.split()[:4] == ["SESSION", "SAES", "STATE", "EXPIRES"]
    assert re.split(r" {4,}", row)[:5] == ["pico", "made, more", desk.session["state"], word, "500.0 MB / 410.0 MB"]
    assert data_of(run("ps", "--json"))["session"]["saes"] == ["made", "more"]
    desk.session = None
    assert "SESSION" not in run("ps").stdout
    assert data_of(run("ps", "--json")) == {"running": [], "session": None}


# -- profiles --------------------------------------------------------------------------------------------------------


def test_a_profile_keeps_edits_with_their_saes(run: Run, desk: Desk, host: str) -> None:
    edits = ("-f", "made/7:+2", "-f", "12:ablate", "--sae", "made", "--scope", "generated")
    saved = run("profile", "save", "python+2", *edits, "--note", "code")
    assert f"the model pico:python+2 of {host}/v1" in saved.stderr
    [body] = desk.bodies("/api/profiles")
    assert body == {
        "name": "python+2", "note": "code", "replace": False,
        "steering": [
            {"feature": 7, "sae": "made", "strength": 2.0, "scope": "generated"},
            {"feature": 12, "sae": "made", "op": "ablate", "scope": "generated"},
        ],
    }  # fmt: skip
    assert "pico:python+2    made/7:+2 made/12:ablate" in run("profile", "list").stdout
    assert re.search(r"^note +code$", run("profile", "show", "python+2").stdout, re.M)
    assert data_of(run("profile", "show", "python+2", "--json"))["steering"] == body["steering"]
    assert run("profile", "rm", "python+2").exit_code == 2
    assert run("profile", "rm", "python+2", "--yes").exit_code == 0
    assert data_of(run("profile", "list", "--json")) == {"profiles": []}


def test_a_profile_needs_the_sae_of_each_feature(run: Run, desk: Desk) -> None:
    refused = run("profile", "save", "p", "-f", "7:+2")
    assert refused.exit_code == 2 and "SAE/7:+2, or --sae SAE" in refused.stderr
    assert not desk.bodies("/api/profiles")


def test_the_client_keeps_and_forgets_profiles_and_sessions(host: str) -> None:
    with Client(host) as client:
        made = client.save_profile("p", [{"sae": "made", "feature": 7}], replace=True)
        assert client.profiles() == [made] and client.profile("p") == made
        client.remove_profile("p")
        assert client.start_session(saes=["made"])["saes"] == ["made"]
        assert client.session() is not None
        client.stop_session()
        assert client.session() is None
        assert client.ranges("made") == []
        assert client.calibrate("made", [7])["ranges"] == client.ranges("made", [7]) == [found_range(7)]
