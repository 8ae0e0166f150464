"""A model's folder that is incomplete, damaged or a lie is refused in one sentence, whatever is in it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_models import configure, tiny_model
from transformers import AutoModelForCausalLM

from mistudiod.facts import UnknownModel, read_facts, read_header


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


def write_safetensors(path: Path, header: object, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refusal(folder: Path) -> str:
    with pytest.raises(UnknownModel) as caught:
        read_facts(folder)
    return str(caught.value)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} has no config.json: give the folder of a Hugging Face model"
    assert refusal(tmp_path / "missing") == f"{tmp_path / 'missing'} is not a folder"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\xfa", b"[" * 200_000, b'{"model_type": "ll'])
def test_a_config_that_is_no_json_object_is_refused(text: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(text)
    assert "config.json is damaged" in refusal(folder)


def test_a_config_of_many_megabytes_is_not_parsed(folder: Path) -> None:
    (folder / "config.json").write_bytes(b" " * (11 << 20))
    assert "config.json is larger than" in refusal(folder)


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [..., None, 0, -1, 1.5, "3", True, [3], 10**30])
def test_a_shape_that_is_no_count_is_refused(key: str, value: object, folder: Path) -> None:
    configure(folder, **{key: value})
    assert f"for {key}, which must be a whole number from 1 to" in refusal(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    configure(folder, quantization_config={"quant_method": "gptq"})
    assert "quantised" in refusal(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    configure(folder, vocab_size=50257)
    assert "config.json asks for embeddings of (50257, 32), which have the shape (320, 32)" in refusal(folder)
    save_file({"bert.weight": torch.zeros(2)}, folder / "model.safetensors")
    assert "which are not there" in refusal(folder)


def test_missing_weights_are_refused_and_a_pickle_is_no_replacement(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "has no model.safetensors" in refusal(folder)


def test_a_missing_shard_is_named(saved: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path, max_shard_size="50KB")
    shard = min(tmp_path.glob("*.safetensors"))
    shard.unlink()
    assert refusal(tmp_path).endswith(f"model.safetensors.index.json names {shard.name!r}, which is not there")


@pytest.mark.parametrize("name", ["../llama/model.safetensors", "/etc/passwd", "", ".", "x/../model.safetensors"])
def test_an_index_that_points_out_of_the_folder_is_refused(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    assert "is not complete" in refusal(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": None}, {"weight_map": {"w": 3}}, {"weight_map": {"w": ["a"]}}])
def test_an_index_without_a_map_is_refused(index: object, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "has no weight_map" in refusal(folder)


def test_a_tensor_that_no_shard_holds_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    index = {"weight_map": {"model.norm.weight": "weights.safetensors", "lost": "weights.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no file holds 'lost'" in refusal(folder)


def test_a_download_that_was_cut_short_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    assert "is cut short" in refusal(folder)
    os.truncate(file, 100)
    assert "is damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}, "cut short"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "does not fit its shape"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "does not fit its shape"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "does not describe"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "does not describe"),
        ({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}, "does not describe"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "does not describe"),
        ({"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}, "does not describe"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "a type of number that cannot be read"),
        ([], "does not describe"),
    ],
)
def test_a_header_that_lies_is_refused(entry: object, said: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", {"w": entry}, bytes(8))
    with pytest.raises(UnknownModel, match=said):
        read_header(tmp_path / "x")


def test_a_header_said_to_be_huge_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(UnknownModel, match="does not begin with the header"):
        read_header(tmp_path / "x")
    with (tmp_path / "x").open("r+b") as file:  # sparse: as large as its header claims, and over the cap
        file.write(struct.pack("<Q", 100_000_001))
        file.truncate(1 << 30)
    with pytest.raises(UnknownModel, match="does not begin with the header"):
        read_header(tmp_path / "x")


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=64), header=st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, header: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    for write in (lambda: path.write_bytes(data), lambda: write_safetensors(path, header, data)):
        write()
        try:
            read_header(path)
        except UnknownModel as refused:
            str(refused).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5
)


@settings(max_examples=60, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(["model_type", "n_layer", "hidden_size", "dtype", "vocab_size"]), JSON))
def test_any_config_is_read_or_refused(saved: Path, tmp_path_factory: pytest.TempPathFactory, changes: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    configure(folder, **changes)
    try:
        read_facts(folder)
    except UnknownModel as refused:
        str(refused).encode()


def test_a_path_that_the_system_cannot_look_up_is_refused() -> None:
    assert len(refusal(Path("/" + "x" * 5000))) > 5000
