"""A model is registered where it lies: checked, described, never copied, and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import header_models
import pytest
from tiny_models import configure, tiny_model

from mistudiod.events import Artifact, Result, from_line
from mistudiod.facts import hook_names, known_facts, read_facts
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
    known = {"name": "my-model", "source": str(tiny), "revision": None, "path": str(tiny), "licence": None}
    known["chat_template"] = False
    assert written == known | asdict(facts) | {"hooks": hook_names(facts)}
    assert (written["family"], written["n_layers"], written["d_model"], written["context"]) == ("gpt2", 3, 32, 64)
    assert written["size_bytes"] == (tiny / "model.safetensors").stat().st_size
    assert [p.name for p in (ear.data / "models").iterdir()] == ["my-model"]
    events = ear.events()
    short = {fact: value for fact, value in written.items() if fact not in ("hooks", "tree")}
    assert events[-2:] == [Artifact(noun="model", name="my-model"), Result(result=short)]
    assert known_facts(written) == facts


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("chat_template.jinja", "{{ messages }}", True),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}', True),
        ("tokenizer_config.json", '{"chat_template": null}', False),
        ("tokenizer_config.json", "[", False),
    ],
)
def test_whether_a_model_was_made_for_chat_is_noted(ear: Ear, tmp_path: Path, file: str, text: str, says: bool) -> None:
    folder = tiny_model("llama", tmp_path / "m")
    (folder / file).write_text(text)
    add_model.run(AddModel(source=str(folder), name="m"), ear.link)
    assert json.loads((ear.data / "models" / "m" / "model.json").read_text())["chat_template"] is says


def test_of_the_largest_model_there_can_be_the_result_fits_in_a_line(ear: Ear, tmp_path: Path) -> None:
    folder = tmp_path / "big"
    tensors: header_models.Tensors = {
        "model.embed_tokens.weight": ("BF16", (320, 32)),
        "model.norm.weight": ("BF16", (32,)),
    }
    for layer in range(256):  # no two are alike
        block = {"self_attn.o_proj": (32, 32), "self_attn.k_proj": (16, 32), "mlp.down_proj": (32, 64), "x": (layer,)}
        tensors |= {f"model.layers.{layer}.{name}.weight": ("BF16", shape) for name, shape in block.items()}
    config = {"num_hidden_layers": 256, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
    header_models.write_model(folder, config | {"model_type": "llama", "vocab_size": 320}, tensors)
    shutil.copy(add_model.BUILTIN["pico"] / "tokenizer.json", folder)
    add_model.run(AddModel(source=str(folder), name="big"), ear.link)
    assert isinstance(ear.events()[-1], Result)  # one that is too long is no event
    written = json.loads((ear.data / "models" / "big" / "model.json").read_text())
    assert len(written["hooks"]) == 256 * 7 and len(json.dumps(written)) > 200_000


def test_a_model_whose_modules_differ_without_end_is_refused(ear: Ear, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    tensors: header_models.Tensors = {"embed_tokens.weight": ("BF16", (320, 32))}
    block = {"self_attn.o_proj": (32, 32), "self_attn.k_proj": (16, 32), "mlp.down_proj": (32, 64)}
    tensors |= {f"layers.0.{name}.weight": ("BF16", shape) for name, shape in block.items()}
    tensors |= {f"module{n}.weight": ("BF16", (1,)) for n in range(6000)}
    config = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
    header_models.write_model(folder, config | {"model_type": "llama", "vocab_size": 320}, tensors)
    said = f"{folder} holds 6,004 weights in modules that differ more than a known model's"
    assert str(refusal(str(folder), ear)) == said


def test_code_that_comes_with_a_model_is_neither_run_nor_imported(ear: Ear, tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "m")
    (folder / "modeling_own.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    configure(folder, auto_map=own)
    add_model.run(AddModel(source=str(folder), name="known"), ear.link)
    configure(folder, model_type="own")
    other = Ear(tmp_path / "other")
    said = str(refusal(str(folder), other))
    other.events()
    assert said.startswith(
        f"{folder} can only be read by code of its own (auto_map), which miStudio never runs: choose"
    )
    assert not (tmp_path / "ran").exists() and "modeling_own" not in sys.modules


@pytest.mark.parametrize("lost", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(lost: str, tiny: Path, ear: Ear, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "m"))
    (folder / lost).unlink()
    assert str(refusal(str(folder), ear)).startswith(f"{folder} has no {lost}: ")


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


@pytest.mark.parametrize("source", ["./tiny", "../tiny", "~nobody-here/x", "a/b/c", "org/"])
def test_what_is_neither_a_path_nor_an_id_of_the_hub_is_refused(
    source: str, tiny: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    refused = refusal(source, ear)
    assert str(refused) == f"{source} is neither an absolute path nor the id of a model of the Hub, as org/name"
    assert refused.field == "source"


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
