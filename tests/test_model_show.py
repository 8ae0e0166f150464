"""``mistudio model show``: what a model is, for a person; the models are as jobs left them, also of older versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import header_models
import pytest
from click.testing import CliRunner, Result
from mistudio.cli import main
from studio import running

from mistudiod.api import answers
from mistudiod.facts import hook_names, read_facts

Run = Callable[..., Result]
OLD = Path(__file__).parent / "data" / "v0.2.0" / "data" / "models" / "m"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("studio") / "data"
    weights = data.parent / "weights"
    for name in ("tinyllama", "tinyllama_4bit"):
        facts = read_facts(getattr(header_models, name)(weights / name))
        known = {"name": name, "source": "org/tiny", "revision": "0" * 40, "path": str(weights), "licence": None}
        folder = data / "models" / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps(known | asdict(facts) | {"hooks": hook_names(facts)}))
    shutil.copytree(OLD, data / "models" / "m")
    with running(data) as url:
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    return lambda *args: CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, ["model", "show", *args])


def lines(result: Result) -> list[list[str]]:
    """Of what was printed, each line as its columns."""
    assert result.exit_code == 0, result.output
    return [line.split("    ") for line in result.stdout.splitlines()]


def cells(result: Result) -> list[list[str]]:
    return [[cell.strip() for cell in line if cell.strip()] for line in lines(result)]


def test_a_model_is_shown_by_its_sizes_its_bytes_and_its_hooks(run: Run) -> None:
    shown = cells(run("tinyllama"))
    for line in (
        ["family", "llama"],
        ["heads", "32, 4 of keys and values, 64 wide"],
        ["neurons", "5,632 a block"],
        ["context", "2,048 tokens"],
        ["vocabulary", "32,000"],
        ["parameters", "1,100,048,384"],
        ["stored as", "bfloat16, 2.2 GB"],
        ["PRECISION", "WEIGHTS", "A BLOCK"],
        ["bf16", "2.2 GB", "88.1 MB"],
        ["nf4", "762.3 MB", "22.7 MB"],
        ["blocks.0-21.attn.hook_z", "2048"],
        ["blocks.0-21.mlp.hook_post", "5632"],
    ):
        assert line in shown
    assert len(shown) < 40
    assert "--hooks" in run("tinyllama").stderr


def test_a_quantised_model_has_the_bytes_of_the_one_precision_it_can_be_loaded_in(run: Run) -> None:
    shown = cells(run("tinyllama_4bit"))
    assert ["stored as", "nf4, 762.5 MB"] in shown and ["parameters", "1,100,048,384"] in shown
    at = shown.index(["PRECISION", "WEIGHTS", "A BLOCK"])
    assert shown[at + 1] == ["nf4", "762.3 MB", "22.7 MB"] and shown[at + 2] == []


def test_every_hook_is_listed_with_its_width(run: Run) -> None:
    header, *hooks = cells(run("tinyllama", "--hooks"))
    assert header == ["HOOK", "WIDTH"] and len(hooks) == 22 * 7
    assert hooks[4] == ["blocks.0.mlp.hook_post", "5632"] and hooks[-1] == ["blocks.21.hook_resid_post", "2048"]


def test_the_modules_are_a_tree_with_their_weights(run: Run) -> None:
    tree = run("tinyllama", "--tree").stdout
    assert [line.split()[0] for line in tree.splitlines()[:6]] == [
        "MODULE", "llama", "lm_head", "model", "embed_tokens", "layers",
    ]  # fmt: skip
    assert "      0-21 (22 alike)" in tree
    assert ["k_proj", "524,288", "weight BF16 256×2048"] in cells(run("tinyllama", "--tree"))
    assert ["k_proj", "524,288", "weight NF4"] in cells(run("tinyllama_4bit", "--tree"))


def test_there_is_one_view_at_a_time(run: Run) -> None:
    refused = run("tinyllama", "--tree", "--hooks")
    assert refused.exit_code == 2 and "give one of them" in refused.stderr


@pytest.mark.parametrize("options", [[], ["--hooks"], ["--tree"]])
def test_for_a_program_it_is_what_the_api_answers(options: list[str], run: Run) -> None:
    found: dict[str, Any] = json.loads(run("tinyllama", "--json", *options).stdout)
    model = answers.Model.model_validate(found)
    assert model.weight_bytes and model.weight_bytes["int8"] < model.weight_bytes["bf16"]
    assert model.tree and model.tree.parameters == model.parameters == 1_100_048_384
    assert model.parts and model.parts["block"].parameters == 44_044_288
    assert model.hooks and model.hook_widths and len(model.hooks) == 22 * len(model.hook_widths)
    assert set(found) - set(answers.Model.model_fields) == set()  # nothing is left undescribed


def test_a_model_of_an_older_version_is_shown_as_far_as_it_was_noted_and_how_to_mend_it_is_said(run: Run) -> None:
    shown = run("m")
    assert ["parameters", "16,480"] in cells(shown) and ["heads", "—"] in cells(shown)
    said = "mistudio model rm m, then mistudio model add /tmp/mistudio-old-data/model --name m"
    assert said in shown.stderr
    assert ["blocks.0.hook_attn_out", "—"] in cells(run("m", "--hooks"))
    refused = run("m", "--tree")
    assert refused.exit_code == 2 and said in refused.stderr
