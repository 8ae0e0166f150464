"""A model is registered where it lies: checked, described, never copied, and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import configure, tiny_model

from mistudiod.events import Artifact, Result, from_line
from mistudiod.facts import hook_names, read_facts
from mistudiod.paths import Paths
from mistudiod.specs import AddModel
from mistudiod.worker import add_model
from mistudiod.worker.link import Asked, Link, Refused


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("gpt2", tmp_path_factory.mktemp("models") / "tiny")


class Ear:
    """A link whose events can be read, and the data folder behind it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._read, write = os.pipe()
        self.link = Link(data / "runs" / "1", Paths(data), write)

    def events(self) -> list[object]:
        """What was said; only at the end."""
        self.link._pipe.close()
        with os.fdopen(self._read, "rb") as pipe:
            return [from_line(line) for line in pipe]


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(tmp_path / "data")
    yield ear
    if not ear.link._pipe.closed:
        ear.events()


def refusal(source: str, ear: Ear, name: str = "m") -> Refused:
    with pytest.raises(Refused) as caught:
        add_model.run(AddModel(source=source, name=name), ear.link)
    assert not list((ear.data / "models").glob("*")) or name == "taken"
    return caught.value


def test_a_folder_is_described_in_model_json_and_in_the_result(tiny: Path, ear: Ear) -> None:
    add_model.run(AddModel(source=str(tiny), name="my-model"), ear.link)
    written = json.loads((ear.data / "models" / "my-model" / "model.json").read_text())
    facts = read_facts(tiny)
    assert written == {
        "name": "my-model",
        "source": str(tiny),
        "path": str(tiny),
        "family": "gpt2",
        "n_layers": 3,
        "d_model": 32,
        "vocab_size": 320,
        "context": 64,
        "parameters": facts.parameters,
        "dtype": "float32",
        "size_bytes": (tiny / "model.safetensors").stat().st_size,
        "hooks": hook_names(facts),
    }
    assert [p.name for p in (ear.data / "models").iterdir()] == ["my-model"]
    events = ear.events()
    assert events[-2:] == [Artifact(noun="model", name="my-model"), Result(result=written)]


def test_a_job_that_ran_before_says_the_same_again(tiny: Path, ear: Ear, tmp_path: Path) -> None:
    spec = AddModel(source=str(tiny), name="m")
    add_model.run(spec, ear.link)
    again = Ear(ear.data)
    add_model.run(spec, again.link)
    assert again.events() == ear.events()[-2:]


def test_a_name_that_another_source_has_is_refused(tiny: Path, ear: Ear) -> None:
    add_model.run(AddModel(source=str(tiny), name="taken"), ear.link)
    refused = refusal("/elsewhere", ear, name="taken")
    assert str(refused) == f"there is already a model called taken, from {tiny}"
    assert refused.field == "name"


def test_a_folder_in_the_home_folder_is_found(tiny: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    add_model.run(AddModel(source="~/tiny", name="m"), ear.link)
    assert json.loads((ear.data / "models" / "m" / "model.json").read_text())["path"] == str(tiny)


@pytest.mark.parametrize("source", ["EleutherAI/pythia-70m", "gpt2", "~nobody-here/x"])
def test_a_model_of_the_hub_is_not_downloaded_yet(source: str, ear: Ear) -> None:
    refused = refusal(source, ear)
    assert str(refused) == (
        f"{source} is not a folder on this machine; downloading from the Hub is not built yet: give a folder"
    )
    assert refused.field == "source"


def test_a_relative_path_is_refused(tiny: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    assert str(refusal("tiny", ear)) == "tiny is a relative path: give the folder's absolute path"


@pytest.mark.parametrize("path", ["/no/such/folder", "/etc/passwd", "/a\0b", "/" + "x" * 4000])
def test_a_path_that_is_no_folder_is_refused(path: str, ear: Ear) -> None:
    assert str(refusal(path, ear)) == f"{path} is not a folder on this machine"


def test_an_unknown_builtin_is_told_which_there_are(ear: Ear) -> None:
    refused = refusal("builtin:mega", ear)
    assert str(refused) == "there is no builtin:mega: the models that come with miStudio are builtin:pico"
    assert refused.field == "source"


def test_a_folder_that_holds_no_known_model_is_refused(ear: Ear, tmp_path: Path) -> None:
    refused = refusal(str(tmp_path), ear)
    assert "has no config.json" in str(refused) and refused.field == "source"
    configure(tiny_model("llama", tmp_path), model_type="bloom")
    assert "the known types are gpt2" in str(refusal(str(tmp_path), ear))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": 3}'])
def test_a_tokenizer_that_does_not_load_is_refused(text: str, ear: Ear, tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path) / "tokenizer.json"
    path.write_text(text)
    refused = refusal(str(tmp_path), ear)
    assert str(refused).startswith(f"{path} does not hold a tokenizer: ") and refused.field == "source"
    path.unlink()
    assert "has no tokenizer.json" in str(refusal(str(tmp_path), ear))


def test_a_job_that_is_asked_to_stop_leaves_nothing(tiny: Path, ear: Ear) -> None:
    ear.link.asked = "stop"
    with pytest.raises(Asked):
        add_model.run(AddModel(source=str(tiny), name="m"), ear.link)
    assert not (ear.data / "models").exists()


def test_the_worker_process_registers_a_model_without_torch(tiny: Path, tmp_path: Path) -> None:
    code = "import sys, mistudiod.worker.add_model; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    subprocess.run([sys.executable, "-c", code], check=True)
    run = tmp_path / "runs" / "1"
    run.mkdir(parents=True)
    spec = {"kind": "add_model", "source": str(tiny), "name": "m"}
    (run / "spec.json").write_text(json.dumps({"data": str(tmp_path), "spec": spec}))
    command = [sys.executable, "-m", "mistudiod.worker", str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        said = worker.stderr.read()  # stdin stays open: its end would end the worker
        assert worker.wait() == 0, said
    assert json.loads((tmp_path / "models" / "m" / "model.json").read_text())["family"] == "gpt2"
