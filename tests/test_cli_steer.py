"""``mistudio steer``: texts written by a session, beside each other; what is kept of them; and the client beneath."""

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

import click
import code_pages
import pytest
from click.testing import CliRunner, Result
from feature_stub import Shelf
from feature_stub import in_front as with_features
from mistudio import Client
from mistudio.beside import MARK, columns, marked, plain, wrapped
from mistudio.cli import main
from mistudio.edits import parse, said
from mistudio.errors import ApiError, Unreachable
from mistudio.output import Canvas
from mistudio.ranges import is_far, sentence
from mistudio.steered import lines
from mistudio.visible import width
from steer_stub import BASELINE, BUSY, Desk, found_range, in_front, result
from studio import running
from test_cli_terminal import at_terminal

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
    rows = [line.split() for line in text.partition("\nSTRENGTHS")[2].splitlines()[1:]]
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


def test_a_range_knows_what_is_too_much() -> None:
    found = found_range(7)
    assert [is_far(x, found) for x in (2.6, 5.3, -3.8, -4.0)] == [False, True, False, True]
    assert sentence(found) == (
        "0.1 nats at -0.4 and +0.4, 0.5 nats at -1.1 and +1.1, 2 nats at -2.6 and +2.6; breaks above +5.2: repetition"
    )
    nothing = {step: {"low": None, "high": None} for step in ("0.1", "0.5", "2")}
    dead = {**found, "kl": nothing, "breaks": {"low": None, "high": None, "why": None}}
    assert not is_far(1000.0, dead)
    assert "no strength" in sentence(dead)


def test_hostile_text_is_shown_and_does_nothing_to_a_terminal(run: Run, shelf: Shelf, desk: Desk) -> None:
    desk.steered = f"{code_pages.HOSTILE}\n[red]{code_pages.HOSTILE}"
    shelf.label(7, code_pages.HOSTILE)
    for args in (("-f", "7:+2"), ("-f", "7:+1", "--sweep=-1,1")):
        text = said_by(run("steer", "made", code_pages.HOSTILE, *args))
        assert "\\x1b" in text and "[red]" in text and "日本語" in text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e]", text)


# -- beside each other -----------------------------------------------------------------------------------------------


def drawn(found: dict[str, Any], cells: int | None, colours: bool = True) -> list[list[tuple[str, str]]]:
    return [list(line) for line in lines(found, {}, Canvas(cells, colours))]


def one_pair(desk: Desk, words: str) -> dict[str, Any]:
    desk.steered = words
    return result(desk, {"sae": "made", "prompt": "x", "steering": [{"feature": 7, "strength": 2.0}]})


@pytest.mark.parametrize("cells", [100, 131, 200])
def test_a_wide_terminal_has_the_baseline_left_and_the_steered_text_right(desk: Desk, cells: int) -> None:
    words = f"日本語 {'x' * 300} " + "and then some more of it " * 9
    whole = ["".join(text for text, _ in line) for line in drawn(one_pair(desk, words), cells)]
    assert max(map(width, whole)) <= cells
    beside = [line.split(" │ ") for line in whole if " │ " in line]
    assert [side.strip() for side in beside[0]] == ["BASELINE", "STEERED  7:+2"]
    assert {width(line.partition("│")[0]) for line in whole if " │ " in line} == {(cells - 3) // 2 + 1}
    left, right = (
        " ".join(" ".join(side) for side in column)
        for column in zip(*(map(str.split, line) for line in beside[1:]), strict=True)
    )
    assert left.split() == BASELINE.split()
    assert right.replace(" ", "") == words.replace(" ", "")


@pytest.mark.parametrize("cells", [40, 80, 99])
def test_a_narrow_terminal_has_them_below_each_other(desk: Desk, cells: int) -> None:
    whole = ["".join(text for text, _ in line) for line in drawn(one_pair(desk, "a b c " * 40), cells)]
    assert not any("│" in line for line in whole)
    assert max(map(width, whole[5:])) <= cells
    assert whole.index("BASELINE") < whole.index("STEERED  7:+2")


def test_words_that_differ_are_marked_and_no_others(desk: Desk) -> None:
    marks = "".join(
        word
        for line in drawn(one_pair(desk, BASELINE.replace("line", "row")), 120)
        for word, style in line
        if style == MARK
    )
    assert marks == "rowrow"
    assert [word for word, style in marked("a b c d", "a c d e") if style] == ["b"]
    assert not any(style for _, style in marked(BASELINE, BASELINE))


@pytest.mark.parametrize("cells", [1, 2, 7, 30])
def test_wrapped_text_loses_nothing_but_the_spaces_at_its_breaks(cells: int) -> None:
    text = "def  f(x):\n\n    return 日本語 + anaconda.of.words\r\n\tlast   "
    whole = ["".join(part for part, _ in line) for line in wrapped(plain(text), cells)]
    assert max(map(width, whole)) <= max(cells, 2)  # a wide character is as wide as it is
    assert "".join(whole).replace(" ", "") == text.replace("\r\n", "").replace("\n", "").replace(" ", "").replace(
        "\t", "→"
    )
    assert len(list(columns(wrapped(plain(text), 30), [], 30))) == len(wrapped(plain(text), 30))


def test_a_terminal_sees_texts_grow_and_then_beside_each_other_with_marks(host: str, desk: Desk) -> None:
    desk.slow = True
    exit_code, shown = at_terminal(host, "steer", "made", "x", "-f", "7:+2")
    assert exit_code == 0
    assert re.search(r"BASELINE.*│.*STEERED  7:\+2", shown)
    assert "\x1b[1;4mos\x1b[0m" in shown
    assert re.search(r"w1 w2 w3.*│.*w1 w2 w3", shown)  # as they are written
    desk.slow = False
    assert at_terminal(host, "steer", "made", "x", "-f", "7:+1", "--sweep=-1,1")[0] == 0


# -- the wire --------------------------------------------------------------------------------------------------------


def test_the_client_gives_texts_as_they_come_and_the_result(host: str) -> None:
    heard: dict[int, str] = {}
    stages: list[str] = []

    def on_text(row: int, more: str) -> None:
        heard[row] = heard.get(row, "") + more

    with Client(host) as client:
        found = client.steer("made", "x", {7: 2.0, 12: -1.5}, on_text, lambda one: stages.append(one["stage"]))
        again = client.steer("made", [{"role": "user", "content": "hi"}], [{"feature": 7, "op": "ablate"}])
    assert heard == {0: " w1 w2 w3", 1: " w1 w2 w3"}
    assert stages == ["load pico", "write", "write", "write"]
    assert [one["strength"] for one in found["edits"]] == [2.0, -1.5]
    assert (found["id"], again["id"]) == (1, 2)


def test_what_goes_wrong_on_the_way_is_the_apis_error(run: Run, desk: Desk, host: str) -> None:
    desk.denied = {"code": "out_of_memory", "message": "2 rows of 100 tokens do not fit", "fits": 1}
    refused = run("steer", "made", "x", "-f", "7", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr.splitlines()[-1])["error"] == desk.denied
    with Client(host) as client, pytest.raises(ApiError) as error:
        client.steer("made", "x", {7: 1.0})
    assert (error.value.status, error.value.about) == (507, {"fits": 1})
    desk.denied = {"code": "invalid", "message": "there is no feature 5000", "fields": {"steering.0.feature": "…"}}
    assert run("steer", "made", "x", "-f", "5000").exit_code == 6
    desk.denied = None
    desk.breaks_off = True
    with Client(host) as client, pytest.raises(Unreachable, match="broke off"):
        client.steer("made", "x", {7: 1.0})


def test_ctrl_c_hangs_up(host: str, desk: Desk) -> None:
    desk.slow = True
    command = [sys.executable, "-m", "mistudio.cli", "steer", "made", "x", "-f", "7:+2"]
    environ = {**os.environ, "MISTUDIO_HOST": host}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while "write" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert desk.hung_up.wait(5)
    assert not desk.kept
    assert (out, "Traceback" in rest) == ("", False)


# -- a GPU that a job has --------------------------------------------------------------------------------------------


def test_a_busy_gpu_is_refused_with_what_helps(run: Run, desk: Desk) -> None:
    desk.busy = True
    refused = run("steer", "made", "x", "-f", "7")
    assert refused.exit_code == 5
    for word in (BUSY["message"], "(--if-busy queue or --if-busy pause)"):
        assert word in refused.stderr
    told = json.loads(run("steer", "made", "x", "-f", "7", "--json").stderr.splitlines()[-1])["error"]
    assert told["job"]["id"] == 5 and told["choices"] == ["queue", "pause"]
    calibrated = run("steer", "calibrate", "made", "-f", "7")
    assert "--if-busy pause" in calibrated.stderr and "queue" not in calibrated.stderr


def test_it_can_pause_the_job(run: Run, desk: Desk) -> None:
    desk.busy = True
    assert run("steer", "made", "x", "-f", "7", "--if-busy", "pause").exit_code == 0
    assert desk.bodies("/api/steer")[0]["if_busy"] == "pause"


def test_it_can_queue_behind_the_job(run: Run, desk: Desk) -> None:
    desk.busy = True
    queued = run("steer", "made", "x", "-f", "7:+2", "--if-busy", "queue")
    assert "import os" in said_by(queued)
    assert "queued behind it" in queued.stderr and BUSY["message"] in queued.stderr
    [body] = desk.bodies("/api/jobs")
    assert body["spec"] == {
        "kind": "steer", "sae": "made", "prompt": "x", "steering": [{"feature": 7, "strength": 2.0}]
    }  # fmt: skip


def test_detached_it_is_a_job(run: Run, desk: Desk) -> None:
    job = said_by(run("steer", "made", "x", "-f", "7:+2", "--detach", "--priority", "3")).strip()
    assert data_of(run("job", "show", job, "--json"))["priority"] == 3
    assert not desk.bodies("/api/steer")
    for refused in (("--keep-alive", "5m"), ("--if-busy", "pause")):
        assert run("steer", "made", "x", "-f", "7", "--detach", *refused).exit_code == 2


# -- ranges ----------------------------------------------------------------------------------------------------------


def test_calibration_is_a_row_for_each_feature(run: Run, shelf: Shelf, desk: Desk) -> None:
    shelf.label(7, "imports of modules")
    text = said_by(run("steer", "calibrate", "made", "-f", "7", "-f", "12"))
    rows = [line.split() for line in text.splitlines() if re.match(r" +(7|12) ", line)]
    assert rows[0][:7] == ["7", "-2.6", "-1.1", "-0.4", "+0.4", "+1.1", "+2.6"]
    assert "above +5.2: repetition" in text and "imports of modules" in text
    assert desk.bodies("/api/saes/made/ranges") == [{"features": [7, 12], "stream": True}]
    assert len(data_of(run("steer", "calibrate", "made", "-f", "7", "--json"))["ranges"]) == 1


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_steerings_are_listed_shown_starred_noted_and_removed(run: Run, desk: Desk) -> None:
    for strength in ("+2", "-1"):
        run("steer", "made", "def f(", "-f", f"7:{strength}", "-f", "other/12:ablate")
    header, *rows = said_by(run("steer", "list")).splitlines()
    assert header.split()[:3] == ["ID", "SAE", "STEERING"]
    assert [row.split()[0] for row in rows] == ["2", "1"]
    assert "--cursor 1" in run("steer", "list", "--limit", "1").stderr
    assert "7:+2 other/12:ablate" in rows[1] and "def f(" in rows[1]
    run("steer", "star", "1")
    run("steer", "note", "1", "the one")
    assert [one["id"] for one in data_of(run("steer", "list", "--starred", "--json"))["steerings"]] == [1]
    shown = said_by(run("steer", "show", "1"))
    assert "1, starred ★" in shown and "the one" in shown and "STEERED  7:+2" in shown
    assert data_of(run("steer", "show", "1", "--json"))["result"]["seed"] == 0
    run("steer", "star", "1", "--off")
    assert not desk.kept[1]["starred"]
    assert run("steer", "rm", "1").exit_code == 2
    assert run("steer", "rm", "1", "--yes").exit_code == 0
    assert list(desk.kept) == [2]


def test_a_steering_that_is_run_again_says_whether_it_is_the_same(run: Run, desk: Desk) -> None:
    run("steer", "made", "def f(", "-f", "7:+2", "--seed", "9", "--sweep=-1,1")
    same = run("steer", "again", "1")
    assert "the texts are those of steering 1, to the letter" in same.stderr
    first, again = desk.bodies("/api/steer")
    assert first == again
    assert data_of(run("steer", "again", "1", "--json"))["same"] is True
    desk.steered = "something else"
    other = run("steer", "again", "1")
    assert "2 of 3 texts differ from those of steering 1" in other.stderr
    assert data_of(run("steer", "again", "1", "--json"))["same"] is False


def test_two_steerings_are_compared(run: Run) -> None:
    run("steer", "made", "x", "-f", "7:+2")
    run("steer", "made", "x", "-f", "7:-2", "--seed", "4")
    text = said_by(run("steer", "compare", "1", "2"))
    assert re.search(r"^steering +7:\+2 +7:-2$", text, re.M)
    assert re.search(r"^seed +— +4$", text, re.M)
    assert text.index("1  7:+2") < text.index("2  7:-2")
    assert set(data_of(run("steer", "compare", "1", "2", "--json"))["differences"]) == {"steering", "seed"}
    assert "asked for and made alike" in said_by(run("steer", "compare", "1", "1"))


def test_a_steering_is_exported_as_its_file_says(run: Run, tmp_path: Path) -> None:
    run("steer", "made", "x", "-f", "7:+2")
    for name, begin in (("a.html", "<!doctype"), ("a.json", "{")):
        assert run("steer", "export", "1", str(tmp_path / name)).exit_code == 0
        assert (tmp_path / name).read_text().startswith(begin)
    assert "neither FILE.json nor FILE.html" in run("steer", "export", "1", str(tmp_path / "a.txt")).stderr
    assert run("steer", "export", "1", str(tmp_path / "none" / "a.json")).exit_code == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.html", "a.json"]


def test_help_names_what_steering_takes() -> None:
    command = main.commands["steer"]
    assert isinstance(command, click.Group)
    shown = CliRunner().invoke(main, ["steer", "made", "x", "--help"]).stdout
    for option in ("--sweep", "--samples", "--top-p", "--repetition-penalty", "--precision", "--chat", "--scope"):
        assert option in shown
    assert "--steering" not in shown and "--messages" not in shown
    assert "mistudio steer SAE PROMPT" in CliRunner().invoke(main, ["steer", "--help"]).stdout
