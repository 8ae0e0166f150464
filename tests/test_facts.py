"""What a model is, read from its folder without torch, and what its hooks are called."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT, D_MODEL, FAMILIES, LAYERS, VOCABULARY, configure, tiny_model
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
)

FACTS = ModelFacts("llama", 6, 192, 4096, 512, 1, "float32", 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


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


def test_facts_need_no_torch() -> None:
    code = "import sys, mistudiod.facts; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'transformers')))"
    subprocess.run([sys.executable, "-c", code], check=True)
