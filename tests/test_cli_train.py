"""``mistudio train``: one SAE or many, and how a training is shown, ended, made again and gone on with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mistudio import Client, names, recipes
from mistudio.cli import main
from mistudio.drawing import cropped
from mistudio.measures import Measures, held_out
from studio import running

from mistudiod.specs import check_name

Run = Callable[..., Result]
HOOK = "blocks.3.hook_resid_post"
WHAT = ("--tokenization", "t", "--hook", HOOK)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "m")
            client.add_dataset("builtin:python", "d")
            client.tokenize("d", "m", "t")
            assert client.wait(client.train("t", HOOK, "one")["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def client(studio: str) -> Iterator[Client]:
    with Client(studio) as client:
        yield client


@pytest.fixture
def run(studio: str) -> Run:
    return lambda *args: CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, list(args))


def started(run: Run, *args: str) -> dict[str, Any]:
    done = run("train", "start", *WHAT, *args, "--detach", "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trained(run: Run, client: Client, name: str, *args: str) -> int:
    """A training that has told of itself and goes on until it is told otherwise."""
    job = int(started(run, "--name", name, *args)["id"])
    while (client.job(job)["progress"] or {}).get("stage") != "train":
        assert client.job(job)["state"] in ("queued", "running")
    return job


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_only_what_was_given_is_sent_so_that_a_preset_has_its_say(run: Run, client: Client) -> None:
    spec = started(run, "--name", "quick", "--preset", "quick-look")["spec"]
    assert (spec["width"], spec["tokens"], spec["batch_tokens"]) == (2048, 1_000_000, 2048)
    spec = started(run, "--name", "big", "--preset", "research", "--tokens", "5000")["spec"]
    assert (spec["width"], spec["tokens"], spec["batch_tokens"]) == (32_768, 5000, 8192)
    assert started(run, "--name", "switched", "--outliers")["spec"]["outliers"] is True


def test_lists_are_given_with_commas_or_by_saying_an_option_again(run: Run) -> None:
    made = started(run, "--name", "g", "--width", "64,128", "--width", "256", "--k", "8")
    assert made["spec"]["width"] == [64, 128, 256]
    assert made["makes"]["names"] == ["g-w64", "g-w128", "g-w256"]
    two = started(run, "--hook", "blocks.1.hook_resid_post", "--name", "h", "--architecture", "topk,batchtopk")
    assert two["spec"]["hook"] == [HOOK, "blocks.1.hook_resid_post"]
    assert len(two["makes"]["names"]) == 4


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--width", "64,x"), "'x' is not a valid integer"),
        (("--width", "64,,128"), "lacks a value"),
        (("--width", ""), "lacks a value"),
        (("--architecture", "topk,tpok"), "'tpok' is not one of"),
    ],
)
def test_a_list_with_something_wrong_in_it_is_refused(run: Run, args: tuple[str, ...], word: str) -> None:
    refused = run("train", "start", *WHAT, *args)
    assert refused.exit_code == 2
    assert word in refused.stderr


def test_what_a_training_needs_is_asked_for(run: Run) -> None:
    refused = run("train", "start", "--tokenization", "t")
    assert refused.exit_code == 2
    assert "Missing option '--hook'" in refused.stderr


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_a_grid_is_watched_and_ends_with_a_line_for_each_sae(run: Run) -> None:
    done = run("train", "start", *WHAT, "--name", "grid", "--width", "64,128,256", "--k", "8")
    assert done.exit_code == 0, done.output
    assert "25,000 tokens/s, 40 s left, 3 SAEs, fvu 0.167 to 0.500, l0 32.0, dead 10%" in done.stderr
    assert re.search(r"^  grid-w128 +0.250 +32.0 +10% +0.456 +90%$", done.stderr, re.MULTILINE)
    assert re.search(r"^SAE +HOOK +ARCHITECTURE +WIDTH +K +FVU +L0 +ALIVE$", done.stdout, re.MULTILINE)
    assert re.search(rf"^grid-w256 +{HOOK} +batchtopk +2,048 +32 +0.300", done.stdout, re.MULTILINE)
    assert re.search(r"^peak +2.0 GB", done.stdout, re.MULTILINE) or "2000000000" in done.stdout
    assert "grid-w64: 22 % are dead" in done.stdout
    listed = run("train", "list").stdout
    assert re.search(r"train +grid-w64 \(\+2\) +done", listed)
    assert json.loads(run("train", "show", "grid-w128", "--json").stdout)["spec"]["name"] == "grid"
    shown = run("train", "show", "grid-w128").stdout
    assert re.search(r"^state +done$", shown, re.MULTILINE)
    assert re.search(rf"^grid-w128 +{HOOK}", shown, re.MULTILINE)
    assert "ARCHITECTURE" in run("sae", "list").stdout


def test_a_single_sae_is_shown_with_what_was_measured_on_held_out_text(run: Run) -> None:
    done = run("train", "start", *WHAT, "--name", "single")
    assert done.exit_code == 0, done.output
    assert "step 1, held out: FVU 0.456, L0 31.0, CE recovered 90%" in done.stderr
    assert re.search(r"^fvu +0.123$", done.stdout, re.MULTILINE)


def test_a_part_that_failed_is_never_painted_as_success(run: Run) -> None:
    done = run("train", "start", *WHAT, "--name", "half", "--width", "64,128", "--k", "8")
    assert done.exit_code == 10
    assert "is only partly done: 1 of 2 SAEs failed: half-w128 (it diverged)" in done.stderr
    assert re.search(r"^half-w64 ", done.stdout, re.MULTILINE), "what was made is shown all the same"


def test_many_lines_are_cropped_to_the_terminal() -> None:
    lines = [str(n) for n in range(10)]
    assert cropped(lines, 10) == lines
    assert cropped(lines, 4) == ["0", "1", "2", "  … and 7 more"]
    assert len(cropped(lines, -3)) == 2


def test_what_is_measured_seldom_stays_until_it_is_measured_again() -> None:
    measures = Measures()
    measures.take({"step": 1, "sae": "a", "values": {"fvu": 0.5, "eval_fvu": 0.4}})
    measures.take({"step": 2, "sae": "a", "values": {"fvu": 0.3}})
    measures.take({"step": 2, "sae": None, "values": {"tokens_per_s": 7.0}})
    assert (measures.several, measures.lines(), measures.tokens_per_s) == (False, [], 7.0)
    measures.take({"step": 2, "sae": "b", "values": {"fvu": 0.2, "l0": None}})
    assert measures.lines()[1:] == ["  a    0.300  —   0.400", "  b    0.200  —   —"]
    assert list(measures.parts()) == ["2 SAEs", "fvu 0.200 to 0.300"]
    assert held_out({"fvu": 0.3}) == ""


# -- how it ends and goes on -----------------------------------------------------------------------------------------


def test_a_training_is_told_what_to_do_by_its_job_or_by_an_sae(run: Run, client: Client) -> None:
    job = trained(run, client, "train", "--width", "64,128", "--k", "8")
    assert run("train", "pause", "train-w128").stderr == f"job {job} is pausing\n"
    client.wait(job, 30, "paused")
    assert run("train", "resume", str(job)).exit_code == 0
    client.wait(job, 30, "running")
    [found] = json.loads(run("train", "checkpoints", "train-w64", "--json").stdout)["checkpoints"]
    assert (found["step"], found["best"]) == (5, True)
    assert re.search(r"^5 +1.\d kB +0.250 +yes ", run("train", "checkpoints", str(job)).stdout, re.MULTILINE)
    assert run("train", "stop", "train-w64").exit_code == 0
    assert run("job", "wait", str(job)).exit_code == 11
    assert json.loads(run("train", "retry", "train-w64", "--json").stdout)["state"] in ("queued", "running")
    client.wait(job, 30, "running")
    assert run("train", "finalize", "train-w64").stderr == f"job {job} is running and comes to its end\n"
    assert client.wait(job, 30)["state"] == "done"
    assert run("train", "finalize", str(job)).exit_code == 5
    assert run("train", "stop", "nothing").exit_code == 3


def test_live_features_are_shown_with_the_token_marked_and_steer_no_terminal(run: Run, client: Client) -> None:
    job = trained(run, client, "x-hostile-train", "--width", "64,128", "--k", "8")
    shown = run("train", "features", "x-hostile-train-w128").stdout
    assert "x-hostile-train-w64" not in shown
    assert shown.startswith("x-hostile-train-w128 at step 5\n  feature 5, on 1.0% of the tokens\n")
    assert "     3.50  import【 os】↵sys." in shown
    assert len(json.loads(run("train", "features", str(job), "--json").stdout)["saes"]) == 2
    client.stop(job)
    job = int(started(run, "--name", "y-hostile-slow")["id"])
    while not client.live(job):
        assert client.job(job)["state"] in ("queued", "running")
    shown = run("train", "features", str(job)).stdout
    client.stop(job)
    assert "\\x1b]0;owned\\x07【\\u202egnp】" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", shown)


def test_an_sae_is_extended_by_a_new_training_that_chooses_nothing_anew(run: Run) -> None:
    done = run("train", "extend", "one", "--tokens", "5000000", "--detach", "--json")
    assert done.exit_code == 0, done.output
    spec = json.loads(done.stdout)["spec"]
    assert (spec["name"], spec["extends"], spec["tokens"], spec["steps"]) == ("one-5M", "one", 5_000_000, None)
    assert (spec["precision"], spec["forward_tokens"], spec["threads"]) == ("fp32", 4096, 2)
    refused = run("train", "extend", "one", "--tokens", "100")
    assert refused.exit_code == 2
    assert "one has been trained on 2,000,000 tokens already" in refused.stderr
    assert run("train", "extend", "one").exit_code == 2
    assert run("train", "extend", "oen", "--tokens", "5000000").exit_code == 3


@pytest.mark.parametrize(
    ("tokens", "name"), [(5_000_000, "s-5M"), (1_250_000, "s-1.25M"), (20_000, "s-20k"), (3 * 10**9, "s-3B"),
                         (5_000_001, "s-5000001"), (999, "s-999")]
)  # fmt: skip
def test_an_extended_sae_is_called_after_its_tokens(tokens: int, name: str) -> None:
    assert names.of_extended("s", tokens) == name
    check_name(names.of_extended("x" * 64, tokens))


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(client: Client) -> dict[str, Any]:
    """Of the SAE ``one``, as its file has it."""
    found: dict[str, Any] = json.loads((Path(client.artifact("sae", "one")["folder"]) / "recipe.json").read_text())
    return found


def test_a_recipe_is_made_again_with_what_was_chosen_then(run: Run, recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    done = run("train", "start", "--recipe", str(path), "--name", "again", "--detach", "--json")
    assert done.exit_code == 0, done.output
    assert "Warning" not in done.stderr
    spec = json.loads(done.stdout)["spec"]
    chosen = ("precision", "forward_tokens", "buffer_tokens", "micro_tokens", "threads")
    assert {name: spec[name] for name in chosen} == {name: recipe["resolved"][name] for name in chosen}
    assert {**spec, **{name: recipe["spec"][name] for name in (*chosen, "name")}} == recipe["spec"]
    assert spec["name"] == "again"
    assert run("train", "start", "--recipe", str(path)).exit_code == 5, "its own name is taken"


def test_a_recipe_says_all_and_must_be_one(run: Run, recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    refused = run("train", "start", "--recipe", str(path), "--batch-tokens", "64")
    assert (refused.exit_code, "leave --batch-tokens away" in refused.stderr) == (2, True)
    assert "there is no file" in run("train", "start", "--recipe", str(tmp_path / "none.json")).stderr
    for text, word in (
        ("[" * 99_999, "cannot be read as JSON"),
        ("[]", "is no recipe"),
        ('{"spec": {}}', "is no recipe"),
    ):
        path.write_text(text)
        refused = run("train", "start", "--recipe", str(path))
        assert (refused.exit_code, word in refused.stderr) == (2, True), refused.stderr


def test_a_recipe_of_other_text_or_another_model_is_warned_of_once(
    run: Run, recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.json"
    other = {**recipe, "model": {**recipe["model"], "parameters": 5}}
    other["tokenization"] = {**recipe["tokenization"], "tokens": 7}
    path.write_text(json.dumps(other))
    done = run("train", "start", "--recipe", str(path), "--name", "warned", "--detach")
    assert done.exit_code == 0, done.output
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
    assert "the tokenization t was made of other text or in another way" in warning
    assert "the model m is another one (parameters 3145728, not 5)" in warning


def test_a_fingerprint_says_more_than_numbers() -> None:
    then = {"spec": {}, "tokenization": {"fingerprint": "a", "windows": 1}, "model": {}}
    assert "was made of other text" in recipes.differences(then, {"name": "t", "fingerprint": "b", "windows": 1}, {})
    assert recipes.differences(then, {"name": "t", "fingerprint": "a", "windows": 2}, {}) == ""
    weights = {**then, "model": {"weights": {"a": {"bytes": 5}}}}
    other = recipes.differences(weights, {"name": "t", "fingerprint": "a"}, {"name": "m", "size_bytes": 6})
    assert other == "the SAE will not be the one of the recipe: the model m is another one"


def test_the_client_makes_again_and_extends(client: Client, recipe: dict[str, Any]) -> None:
    again = client.make_again(recipe, "by-client", priority=3)
    assert (again["priority"], again["spec"]["threads"]) == (3, 2)
    assert client.extend("one", 7_000_000)["makes"]["name"] == "one-7M"
    with pytest.raises(ValueError, match="is no recipe"):
        client.make_again({})
