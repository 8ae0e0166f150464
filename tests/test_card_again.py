"""What a card says of making its SAE again, done word by word in a studio that has nothing of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from mistudio.cli import main
from run_job import run_job
from studio import running
from trained_saes import change

from mistudiod.worker.read_recipe import sha256_of

HOOK = "blocks.1.hook_resid_post"


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card.partition("## How to make it again")[2], re.DOTALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the SAE s, of what everybody has."""
    data = tmp_path_factory.mktemp("first") / "data"
    run_job(data, "add_model", source="builtin:pico", name="m")
    run_job(data, "add_dataset", source="builtin:python", name="d", rows=12)
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=32, must_not_match='no `such` "text"\'s')
    given = {"tokenization": "t", "hook": HOOK, "width": 96, "k": 4, "steps": 12, "batch_tokens": 256}
    run_job(data, "train", name="s", architecture="batchtopk", buffer_tokens=4096, **given)
    return data


def card_of(data: Path) -> str:
    (data / "given.json").write_text('{"labels": []}')
    return (Path(run_job(data, "export", sae="s", format="saelens")["path"]) / "README.md").read_text()


@pytest.mark.timeout(300)
def test_the_commands_of_a_card_make_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_of(data)
    (recipe,), (commands,) = blocks(card, "json"), blocks(card, "bash")
    monkeypatch.chdir(tmp_path)
    Path("recipe.json").write_text(recipe)
    assert [line.split()[1:3] for line in commands.splitlines()] == [
        ["model", "add"],
        ["dataset", "add"],
        ["dataset", "tokenize"],
        ["train", "start"],
    ]
    with running(tmp_path / "data", "real_worker.py") as url:
        for command in commands.splitlines():
            done = CliRunner(env={"MISTUDIO_HOST": url}).invoke(main, shlex.split(command)[1:])
            assert done.exit_code == 0, (command, done.output)
    weights = "saes/s/sae_weights.safetensors"
    assert sha256_of(tmp_path / "data" / weights) == sha256_of(data / weights)


def test_what_others_cannot_have_is_said(data: Path) -> None:
    change(data / "datasets/d/dataset.json", source="/home/me/text.txt")
    recipe = json.loads((data / "saes/s/recipe.json").read_text())
    change(data / "saes/s/recipe.json", planned_steps=40, spec={**recipe["spec"], "extends": "older"})
    card = card_of(data)
    assert "/home/me" not in card and "dataset add" not in card and "dataset tokenize d" in card
    assert "The text d is from no public place, and must be in the studio under that name." in card
    assert "It goes on from the SAE older, which must be there as well." in card
    assert "Its training was ended after 12 of 40 steps, and the recipe makes what it would have become." in card
