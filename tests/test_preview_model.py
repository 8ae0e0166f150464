"""Looking at a model before any of its weights is fetched, with the real client and a Hub of our own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import header_models
import pytest
from hub import Hub, own_home, served_hub  # noqa: F401
from run_job import folders, run_job
from tiny_models import tiny_model

from mistudiod.facts import hook_names, read_facts
from mistudiod.paths import Paths
from mistudiod.specs import PreviewModel
from mistudiod.worker import preview_model
from mistudiod.worker.link import Link, Refused

CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n"
FACTS = ("family", "n_layers", "d_model", "context", "vocab_size", "parameters", "dtype", "quantized", "size_bytes")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def preview(data: Path, source: str = "org/tiny", **fields: Any) -> dict[str, Any]:
    found = run_job(data, "preview_model", source=source, **fields)
    assert folders(data, "models") == []
    return found


def described(folder: Path) -> dict[str, Any]:
    facts = read_facts(folder)
    return {name: getattr(facts, name) for name in FACTS} | {
        "weight_bytes": facts.weight_bytes,
        "hooks": len(hook_names(facts)),
    }


def test_what_is_said_of_a_model_of_the_hub_is_what_adding_it_says(hub: Hub, tiny: Path, data: Path) -> None:
    sha = hub.add_model("org/tiny", tiny)
    found = preview(data)
    assert found.items() >= described(tiny).items()
    assert (found["revision"], found["licence"], found["gated"], found["why"]) == (sha, "apache-2.0", False, None)
    assert found["page"] == f"{hub.url}/org/tiny"
    needed = [file for file in tiny.iterdir() if file.name != ".gitattributes"]
    assert found["missing_bytes"] == sum(file.stat().st_size for file in needed)


def test_of_a_large_model_only_config_and_header_are_read(hub: Hub, tmp_path: Path, data: Path) -> None:
    folder = header_models.gemma2(tmp_path / "gemma")  # 10 GB, of which only the header is on the disk
    (folder / "tokenizer.json").write_text("{}")
    repo = hub.add_model("org/gemma", shutil.copytree(tiny_model("llama", tmp_path / "t"), tmp_path / "small"))
    assert repo
    # a file of 10 GB takes a minute to hash: it gets the place of a small one's entry
    files = hub.repo("models", "org/gemma").commits[repo]
    weights = files["model.safetensors"]
    size = (folder / "model.safetensors").stat().st_size
    files["model.safetensors"] = type(weights)(
        weights.path, folder / "model.safetensors", size, weights.sha1, weights.sha256
    )
    files["config.json"] = type(weights)(
        "config.json", folder / "config.json", (folder / "config.json").stat().st_size, "0" * 40, "0" * 64
    )
    found = preview(data, "org/gemma")
    assert found.items() >= described(folder).items()
    assert found["parameters"] == 2_614_341_888 and found["size_bytes"] > 10e9
    assert hub.bytes_served("org/gemma") < 1_000_000


def test_a_model_that_is_here_is_not_downloaded_again(hub: Hub, tiny: Path, data: Path, tmp_path: Path) -> None:
    hub.add_model("org/tiny", tiny)
    run_job(tmp_path / "other", "add_model", source="org/tiny", name="m")
    assert preview(data)["missing_bytes"] == 0


def test_of_a_gated_model_it_is_said_what_the_hub_tells_everybody(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny, gated=True)
    found = preview(data)
    assert found["gated"] is True and f"ask for access at {hub.url}/org/tiny" in found["why"]
    assert (found["family"], found["parameters"]) == ("llama", read_facts(tiny).parameters)
    assert found["weight_bytes"] is None and found["size_bytes"] == (tiny / "model.safetensors").stat().st_size
    hub.allow("hf_member", "org/tiny")
    link, said = Link(data, Paths(data), secrets={"hf": "hf_member"}), dict[str, Any]()
    link.result = said.update  # type: ignore[method-assign]
    preview_model.run(PreviewModel(source="org/tiny"), link)
    assert said["why"] is None and said.items() >= described(tiny).items()


def test_a_model_that_cannot_be_read_says_why(hub: Hub, tiny: Path, tmp_path: Path, data: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    hub.add_model("org/mamba", folder)
    assert "holds a model of type 'mamba', which is not known" in preview(data, "org/mamba")["why"]
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    hub.add_model("org/deep", folder)
    why = preview(data, "org/deep")["why"]
    assert why.startswith("org/deep does not fit together: config.json says 7 blocks")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.add_model("org/pickle", folder)
    assert "only as pickles" in preview(data, "org/pickle")["why"]


def test_what_is_not_there_is_refused(hub: Hub, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no public model org/none on the Hub"):
        preview(data, "org/none")
    with pytest.raises(Refused, match="is not a folder on this machine"):
        preview(data, str(tmp_path / "none"))


def test_a_folder_and_the_bundled_model_are_looked_at_too(hub: Hub, tiny: Path, data: Path) -> None:
    assert preview(data, str(tiny)).items() >= (described(tiny) | {"missing_bytes": 0, "gated": None}).items()
    assert preview(data, "builtin:pico")["hooks"] == 42
    assert hub.seen == []


def test_offline_the_cache_answers(
    hub: Hub, tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add_model("org/tiny", tiny)
    run_job(tmp_path / "other", "add_model", source="org/tiny", name="m")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = preview(data)
    assert found.items() >= (described(tiny) | {"revision": sha, "missing_bytes": 0}).items()
    with pytest.raises(Refused, match="miStudio is offline"):
        preview(data, "org/none")
