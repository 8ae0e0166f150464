"""What a model is, read from its folder without torch; a folder that is damaged is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT, D_MODEL, FAMILIES, LAYERS, VOCABULARY, tiny_model
from transformers import AutoModelForCausalLM

from mistudiod.facts import (
    ModelFacts,
    UnknownHook,
    UnknownModel,
    check_hook,
    find_hook,
    hook_names,
    parse_hook,
    read_facts,
    read_header,
)

FACTS = ModelFacts("llama", 6, 192, 4096, 512, 1, "float32", 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


def configure(folder: Path, **changes: Any) -> None:
    """Change the config; ``...`` removes a key."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def write_safetensors(path: Path, header: object, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refusal(folder: Path) -> str:
    with pytest.raises(UnknownModel) as caught:
        read_facts(folder)
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read(family: str, tmp_path: Path) -> None:
    facts = read_facts(tiny_model(family, tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert facts == ModelFacts(
        family, LAYERS, D_MODEL, VOCABULARY, CONTEXT, model.num_parameters(), "float32", size_bytes=size
    )


def test_a_sharded_model_has_the_same_facts(saved: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path, max_shard_size="50KB")
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    facts, single = read_facts(tmp_path), read_facts(saved)
    assert facts.parameters == single.parameters
    assert facts.size_bytes == sum(shard.stat().st_size for shard in shards)


@pytest.mark.parametrize(("family", "head"), [("gpt2", "lm_head.weight"), ("gpt_neox", "embed_out.weight")])
def test_tied_weights_are_counted_once_even_when_they_are_stored_twice(family: str, head: str, tmp_path: Path) -> None:
    once = read_facts(tiny_model(family, tmp_path, tie_word_embeddings=True)).parameters
    weights = load_file(tmp_path / "model.safetensors")
    embedding = next(tensor for name, tensor in weights.items() if name.endswith(("wte.weight", "embed_in.weight")))
    save_file({**weights, head: embedding.clone()}, tmp_path / "model.safetensors")
    assert read_facts(tmp_path).parameters == once
    configure(tmp_path, tie_word_embeddings=False)
    assert read_facts(tmp_path).parameters == once + embedding.numel()


def test_the_first_gpt2_checkpoints_with_their_masks_and_bare_names_are_read(tmp_path: Path) -> None:
    facts = read_facts(tiny_model("gpt2", tmp_path))
    file = tmp_path / "model.safetensors"
    weights = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, CONTEXT, CONTEXT) for layer in range(LAYERS)}
    save_file(weights | masks, file)
    assert read_facts(tmp_path).parameters == facts.parameters


@pytest.mark.parametrize("spelling", ["dtype", "torch_dtype"])
def test_the_configs_dtype_is_read_in_both_spellings(spelling: str, folder: Path) -> None:
    configure(folder, **{"dtype": ..., spelling: "bfloat16"})
    assert read_facts(folder).dtype == "bfloat16"


def test_the_weights_say_the_dtype_when_the_config_does_not(folder: Path) -> None:
    configure(folder, dtype=...)
    weights = load_file(folder / "model.safetensors")
    norm = weights.pop("model.norm.weight")  # float32, as some checkpoints keep their norms
    save_file(
        {name: w.half() for name, w in weights.items()} | {"model.norm.weight": norm}, folder / "model.safetensors"
    )
    assert read_facts(folder).dtype == "float16"


def test_hooks_are_named_block_by_block() -> None:
    names = hook_names(FACTS)
    assert len(names) == 24
    assert names[:5] == [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_attn_out",
        "blocks.0.hook_mlp_out",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
    ]
    assert {check_hook(FACTS, name) for name in names} == {192}


def test_a_block_that_the_model_does_not_have_is_said() -> None:
    with pytest.raises(UnknownHook) as caught:
        check_hook(FACTS, "blocks.9.hook_resid_post")
    assert str(caught.value) == "blocks.9.hook_resid_post does not exist: the model has 6 blocks (0 to 5)"
    assert find_hook("blocks.5.hook_resid_post", 6) == (5, "hook_resid_post")


def test_a_misspelt_hook_is_answered_with_near_names() -> None:
    with pytest.raises(UnknownHook, match=r"'blocks.3.hook_resid_pos' is not .* such as blocks.3.hook_resid_post or"):
        parse_hook("blocks.3.hook_resid_pos")


@pytest.mark.parametrize(
    "hook",
    [
        "",
        "blocks",
        "blocks.-1.hook_mlp_out",
        "blocks.01.hook_mlp_out",
        "blocks.٣.hook_mlp_out",
        "x.0.hook_mlp_out",
        "blocks.1.hook_mlp_out\n",
        "blocks.1.mlp.hook_post",
        "blocks." + "9" * 5000 + ".hook_mlp_out",
        "\ud800",
    ],
)
def test_what_is_no_hook_is_refused_in_one_sentence(hook: str) -> None:
    with pytest.raises(UnknownHook, match=r"is not the name of a hook: use a name such as blocks\.\d\.hook_") as caught:
        check_hook(FACTS, hook)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 400
    said.encode()


def test_an_unknown_family_is_told_which_are_known(folder: Path) -> None:
    configure(folder, model_type="bloom")
    assert refusal(folder).endswith(
        f"model of type 'bloom', which is not known: the known types are {', '.join(FAMILIES)}"
    )


@pytest.mark.parametrize("model_type", [None, 3, ["llama"], {}, "", "LLAMA"])
def test_a_model_type_of_another_kind_is_refused(model_type: object, folder: Path) -> None:
    configure(folder, model_type=model_type)
    assert "which is not known" in refusal(folder)


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


def test_facts_need_no_torch() -> None:
    code = "import sys, mistudiod.facts; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'transformers')))"
    subprocess.run([sys.executable, "-c", code], check=True)
