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
from safetensors.torch import load_file, save_file
from tiny_models import configure, tiny_model
from transformers import AutoModelForCausalLM

from mistudiod.facts import UnknownModel, read_facts, read_header

HEADS = "num_attention_heads"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


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


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings", HEADS])
@pytest.mark.parametrize("value", [..., None, 0, -1, 1.5, "3", True, [3], 10**30])
def test_a_shape_that_is_no_count_is_refused(key: str, value: object, folder: Path) -> None:
    configure(folder, **{key: value})
    assert f"for {key}, which must be a whole number from 1 to" in refusal(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", None, 3])
def test_weights_that_another_library_quantised_are_refused_and_it_is_named(method: object, folder: Path) -> None:
    configure(folder, quantization_config={"quant_method": method, "bits": 4})
    assert refusal(folder) == (
        f"{folder} holds weights quantised by {str(method)!r}, which cannot be read: "
        "give the model as it was before quantisation, or one quantised by bitsandbytes"
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"load_in_4bit": True}, "fp4 in uint8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "fp4 in uint8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "x"}, "nf4 in x"),
        ({"bits": 4}, "something else in uint8"),
    ],
)
def test_other_ways_of_bitsandbytes_are_refused(how: dict[str, object], said: str, folder: Path) -> None:
    configure(folder, quantization_config=how)
    assert f"holds weights quantised by bitsandbytes as {said}, which cannot be read: give the model as" in refusal(
        folder
    )


@pytest.mark.parametrize(("how", "precision"), [({"load_in_8bit": True}, "int8"), (NF4, "nf4")])
def test_weights_that_are_said_to_be_quantised_and_are_not_are_refused(
    how: dict[str, object], precision: str, folder: Path
) -> None:
    configure(folder, quantization_config=how)
    assert refusal(folder).endswith(f"config.json says {precision}, and no weight is stored so")


@pytest.mark.parametrize("lost", ["", ".absmax", ".quant_state.bitsandbytes__nf4"])
def test_a_packed_weight_that_lacks_what_belongs_to_it_is_refused(lost: str, folder: Path) -> None:
    configure(folder, quantization_config=NF4)
    name = "model.layers.0.mlp.up_proj.weight"
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    packed = {"": (1024, 1), ".absmax": (32,), ".quant_map": (16,), ".quant_state.bitsandbytes__nf4": (160,)}
    weights |= {name + side: torch.zeros(shape, dtype=torch.uint8) for side, shape in packed.items() if side != lost}
    save_file(weights, folder / "model.safetensors")
    assert refusal(folder).endswith(f"{name!r} is stored as nf4 without {name + lost!r}")


def test_a_first_block_that_is_not_whole_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    assert refusal(folder) == f"{folder} is not complete: its weights lack layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize("layers", [2, 4])
def test_a_number_of_blocks_that_is_not_that_of_the_weights_is_refused(layers: int, folder: Path) -> None:
    configure(folder, num_hidden_layers=layers)
    assert refusal(folder) == (
        f"{folder} does not fit together: config.json says {layers} blocks, and the weights are of 3"
    )


def test_weights_that_are_all_whole_numbers_are_refused(folder: Path) -> None:
    weights = {name: weight.to(torch.int8) for name, weight in load_file(folder / "model.safetensors").items()}
    weights["model.layers.0.mlp.up_proj.SCB"] = torch.ones(64, dtype=torch.int8)
    save_file(weights, folder / "model.safetensors")
    configure(folder, dtype=..., quantization_config={"load_in_8bit": True})
    assert refusal(folder) == f"{folder} holds weights as integers: give the model as it was before quantisation"


def test_heads_that_do_not_go_with_the_weights_are_refused(folder: Path) -> None:
    configure(folder, num_attention_heads=5)
    assert "self_attn.o_proj.weight has 1,024 parameters, which does not go with the sizes in config" in refusal(folder)


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
    assert refusal(folder) == f"{file} is cut short: 'model.norm.weight' lies beyond its end"
    header = struct.unpack("<Q", file.read_bytes()[:8])[0]
    os.truncate(file, 100)
    assert refusal(folder) == f"{file} is cut short: its header has {header:,} bytes, and only 92 are there"
    for size in (0, 4):
        os.truncate(file, size)
        assert refusal(folder) == f"{file} is damaged: it does not begin with the header of a safetensors file"


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


F32 = {"dtype": "F32", "shape": [2]}


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([[0, 8], [0, 8]], "'b' overlaps 'a'"),
        ([[0, 8], [4, 12]], "'b' overlaps 'a'"),
        ([[0, 8], [12, 20]], "there are bytes of no tensor before 'b'"),
        ([[4, 12], [12, 20]], "there are bytes of no tensor before 'a'"),
        ([[0, 8], [8, 16]], "there are bytes of no tensor behind 'b'"),
    ],
)
def test_tensors_that_do_not_lie_side_by_side_are_refused(spans: list[list[int]], said: str, tmp_path: Path) -> None:
    entries = {name: F32 | {"data_offsets": span} for name, span in zip("ab", spans, strict=True)}
    write_safetensors(tmp_path / "x", entries, bytes(20))
    with pytest.raises(UnknownModel, match=said):
        read_header(tmp_path / "x")


def test_tensors_may_be_named_in_any_order(tmp_path: Path) -> None:
    entries = {"b": F32 | {"data_offsets": [8, 16]}, "none": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}}
    write_safetensors(tmp_path / "x", entries | {"a": F32 | {"data_offsets": [0, 8]}}, bytes(16))
    assert read_header(tmp_path / "x").keys() == {"a", "b", "none"}


def test_a_tensor_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(F32 | {"data_offsets": [0, 8]})
    write_safetensors(tmp_path / "x", f'{{"w": {entry}, "w": {entry}}}'.encode(), bytes(8))
    with pytest.raises(UnknownModel, match=r"x is damaged: it names 'w' twice$"):
        read_header(tmp_path / "x")


@pytest.mark.parametrize("shape", [[1 << 62, 1 << 62], [1 << 40], [(1 << 63) - 1] * 8])
def test_dimensions_that_are_huge_are_refused_and_nothing_is_made_of_their_size(
    shape: list[int], tmp_path: Path
) -> None:
    write_safetensors(tmp_path / "x", {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}, bytes(8))
    with pytest.raises(UnknownModel, match="the size of 'w' does not fit its shape"):
        read_header(tmp_path / "x")


@pytest.mark.parametrize(("name", "shape"), [("w", [1] * 9), (".".join("x" * 20), [1]), ("x" * 251, [1])])
def test_a_tensor_such_as_no_model_has_is_refused(name: str, shape: list[int], tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}, bytes(4))
    with pytest.raises(UnknownModel, match="which is no tensor of a known model"):
        read_header(tmp_path / "x")


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write_safetensors(tmp_path / "x", {str(n): entry for n in range(50_001)})
    with pytest.raises(UnknownModel, match=r"holds 50,001 tensors, and no known model has more than 50,000$"):
        read_header(tmp_path / "x")


def test_a_tensor_that_lies_in_two_files_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a")
    shutil.copy(folder / "a", folder / "b")
    index = {"weight_map": {"lm_head.weight": "a", "model.norm.weight": "b"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(folder) == f"{folder} is damaged: two of its files hold 'lm_head.weight'"


def test_a_header_that_is_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", 3) + b"{}")
    with pytest.raises(UnknownModel, match=r"x is cut short: its header has 3 bytes, and only 2 are there$"):
        read_header(tmp_path / "x")


@pytest.mark.parametrize("length", [100_000_001, 1 << 62, (1 << 64) - 1])
def test_a_header_said_to_be_huge_is_not_read(length: int, tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:  # sparse, and larger than the first of these
        file.write(struct.pack("<Q", length) + b"{}")
        file.truncate(1 << 30)
    with pytest.raises(UnknownModel, match=rf"is damaged: its header has {length:,} bytes, and 100,000,000 may be$"):
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
@given(
    changes=st.dictionaries(st.sampled_from(["model_type", "quantization_config", "hidden_size", "dtype", HEADS]), JSON)
)
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
