"""Looking at what SAEs a source holds before any is fetched, and bringing one in on the command line."""

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

import pytest
from click.testing import CliRunner, Result
from hub import Hub, served_hub  # noqa: F401
from mistudio import names
from mistudio.cli import main
from mistudio.sources import sae_parts
from repos_of_saes import F, dictionary_learning, gemma_scope, hf_home, sparsify  # noqa: F401
from run_job import run_job
from tiny_models import tiny_model

from mistudiod.engine.formats.base import LOOKED_INTO
from mistudiod.worker.link import Refused

Run = Callable[..., Result]
SCOPE = "google/gemma-scope-2b-pt-res"


def preview(data: Path, source: Path | str, **fields: Any) -> dict[str, Any]:
    """The result, after a look that nothing was stored."""
    found = run_job(data, "preview_sae", source=str(source), **fields)
    assert not data.exists()
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def scope(tmp_path: Path) -> Path:
    """Of three layers, the tenth after the second, an L0 or two each."""
    for layer, l0 in ((10, 9), (2, 41), (2, 9), (2, 176)):
        gemma_scope(tmp_path / "scope" / f"layer_{layer}/width_16k/average_l0_{l0}")
    return tmp_path / "scope"


def test_the_saes_of_a_repository_are_listed_without_their_weights(hub: Hub, scope: Path, data: Path) -> None:
    sha = hub.add_model(SCOPE, scope)
    found = preview(data, SCOPE)
    assert (found["source"], found["revision"], found["count"], found["left_out"]) == (SCOPE, sha, 4, 0)
    assert [(one["layer"], one["width"], one["l0"]) for one in found["saes"]] == [
        (2, F, 9.0), (2, F, 41.0), (2, F, 176.0), (10, F, 9.0),
    ]  # fmt: skip
    size = next(scope.rglob("params.npz")).stat().st_size
    assert found["saes"][0] == {
        "path": "layer_2/width_16k/average_l0_9", "format": "gemma_scope", "layer": 2, "width": F, "l0": 9.0,
        "hook": "blocks.2.hook_resid_post", "model": "gemma-2-2b", "pickle": False, "bytes": size,
    }  # fmt: skip
    assert not [one for one in hub.seen if one.method == "GET" and "resolve" in one.path and one.range is None]


def test_of_large_files_only_headers_are_read(hub: Hub, data: Path, tmp_path: Path) -> None:
    for layer in range(3):
        sparsify(tmp_path / "repo" / f"layers.{layer}", f=16_384)
    hub.add_model("org/saes", tmp_path / "repo")
    assert [one["width"] for one in preview(data, "org/saes")["saes"]] == [16_384] * 3
    assert hub.bytes_served("org/saes") < 3 * 70_000 < (tmp_path / "repo/layers.0/sae.safetensors").stat().st_size


def test_a_large_repository_costs_a_few_requests(hub: Hub, data: Path, tmp_path: Path) -> None:
    one = sparsify(tmp_path / "repo" / "layers.0")
    for layer in range(1, 300):
        folder = one.with_name(f"layers.{layer}")
        folder.mkdir()
        for file in one.iterdir():
            (folder / file.name).hardlink_to(file)
    hub.add_model("org/saes", tmp_path / "repo")
    hub.page_size = 40
    found = preview(data, "org/saes")
    assert found["count"] == 300
    assert {one["hook"] for one in found["saes"][:2]} == {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"}
    assert len([one for one in hub.seen if "resolve" in one.path]) < 2 * LOOKED_INTO + 16


def test_a_folder_in_a_source_is_looked_at_alone(hub: Hub, scope: Path, data: Path) -> None:
    hub.add_model(SCOPE, scope)
    found = preview(data, f"{SCOPE}:layer_10")
    assert [one["path"] for one in found["saes"]] == ["layer_10/width_16k/average_l0_9"]
    assert preview(data, f"{scope}:layer_2")["count"] == 3


def test_a_pickle_is_listed_as_one_and_not_read(hub: Hub, data: Path, tmp_path: Path) -> None:
    dictionary_learning(tmp_path / "repo" / "trainer_0")
    (one,) = preview(data, tmp_path / "repo")["saes"]
    assert (one["pickle"], one["format"], one["width"]) == (True, "dictionary_learning", F)


def test_a_source_without_saes_is_refused(hub: Hub, data: Path, tmp_path: Path) -> None:
    hub.add_model("org/tiny", tiny_model("llama", tmp_path / "tiny"))
    with pytest.raises(Refused, match="org/tiny holds no SAE of a known layout: ") as caught:
        preview(data, "org/tiny")
    assert caught.value.field == "source"


# On the command line, with a studio


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A studio with the model ``m``, and a Hub with SAEs."""
    folder = tmp_path_factory.mktemp("studio")
    with Hub() as hub:
        for layer in (0, 1):
            for width in (F, 2 * F):
                sparsify(folder / "repo" / f"width_{width}" / f"layers.{layer}", f=width)
        (folder / "repo" / "config.json").write_text(json.dumps({"model": "org/tiny"}))
        hub.add_model("org/saes", folder / "repo")
        hub.add_model("org/tiny", tiny_model("llama", folder / "tiny"))
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MISTUDIO_"))}
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(folder / "data"), "--port", "0"]
        environ |= hub.environ(folder / "huggingface")
        daemon = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        assert daemon.stderr is not None
        url = next(found[0] for line in daemon.stderr if (found := re.search(r"http://[\d.:]+", line)))
        studio = CliRunner(env={"MISTUDIO_HOST": url})
        try:
            yield lambda *args: studio.invoke(main, list(args))
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.communicate(timeout=30)


def test_a_preview_groups_by_layer_and_width_and_says_how_to_go_on(run: Run) -> None:
    shown = run("sae", "preview", "org/saes")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["0", "96", "6", "blocks.0.hook_resid_post", "sparsify"] in [line[:5] for line in lines]
    assert "4 SAEs; to bring one in: mistudio sae add org/saes:width_96/layers.0" in shown.stderr
    found = json.loads(run("--json", "sae", "preview", "org/saes:width_96").stdout)
    assert [one["path"] for one in found["saes"]] == ["width_96/layers.0", "width_96/layers.1"]


def test_a_preview_has_a_dash_where_no_l0_is_said(run: Run, tmp_path: Path) -> None:
    gemma_scope(tmp_path / "mine")
    shown = run("sae", "preview", str(tmp_path / "mine"))
    assert shown.exit_code == 0, shown.output
    assert ["—", str(F), "—"] in [line.split()[:3] for line in shown.stdout.splitlines()]


def test_an_sae_is_added_and_shown_with_where_it_is_from(run: Run, tmp_path: Path) -> None:
    several = run("sae", "add", "org/saes")
    assert several.exit_code and "org/saes holds 4 SAEs: say which, as org/saes:width_96/layers.0" in several.stderr
    assert run("model", "add", "org/tiny", "--name", "m").exit_code == 0
    added = run("sae", "add", "org/saes:width_96/layers.1")
    assert added.exit_code == 0, added.output
    rows = dict(
        re.split(r"  +", line.strip(), maxsplit=1) for line in added.stdout.splitlines() if "  " in line.strip()
    )
    assert rows.items() >= {
        "name": "saes-width_96-layers.1", "source": "org/saes:width_96/layers.1", "format": "sparsify", "model": "m",
        "hook": "blocks.1.hook_resid_post", "k": "6",
    }.items()  # fmt: skip
    listed = json.loads(run("--json", "sae", "show", "saes-width_96-layers.1").stdout)
    assert listed["imported"]["declared"] == {"l0": 6.0} and listed.get("fvu") is None


def test_a_folder_of_ours_is_added_in_place(run: Run, tmp_path: Path) -> None:
    folder = sparsify(tmp_path / "mine" / "layers.2")
    added = run("sae", "add", f"{folder.parent}:layers.2", "--model", "m", "--name", "mine")
    assert added.exit_code == 0, added.output
    nothing = run("sae", "add", str(tmp_path / "none"))
    assert nothing.exit_code and "there is no file or folder" in nothing.stderr


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("google/gemma-scope-2b-pt-res:layer_12/width_16k", "gemma-scope-2b-pt-res-layer_12-width_16k"),
        ("org/saes", "saes"),
        ("/saes/layer_3.safetensors", "layer_3"),
        ("org/saes:layer_3/params.npz", "saes-layer_3"),
    ],
)
def test_an_sae_is_called_after_its_source(source: str, name: str) -> None:
    assert names.of_published(*sae_parts(source)) == name


def test_a_long_name_keeps_its_end() -> None:
    name = names.of_published("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82/and/so/on/and/on/x")
    assert len(name) <= 64 and name.endswith("average_l0_82-and-so-on-and-on-x")
