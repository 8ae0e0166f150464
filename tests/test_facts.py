"""What a model is, read from its folder without torch, and what its hooks are called."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import header_models
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT, D_MODEL, FAMILIES, LAYERS, VOCABULARY, configure, tiny_model
from transformers import AutoModelForCausalLM

import mistudiod
from mistudiod.facts import (
    PRECISIONS,
    ModelFacts,
    UnknownHook,
    UnknownModel,
    check_hook,
    find_hook,
    hook_names,
    known_facts,
    parse_hook,
    read_facts,
    weight_bytes,
)
from mistudiod.facts.quantized import Unpacked
from mistudiod.facts.tree import module_tree

WIDTHS = {"hook_resid_pre": 192, "attn.hook_z": 256, "hook_attn_out": 192}
WIDTHS |= {"mlp.hook_post": 768, "hook_mlp_out": 192, "hook_resid_post": 192}
TREE = {"name": "", "times": 1, "parameters": 1, "dtype": None, "shape": None, "children": []}
FACTS = ModelFacts("llama", 6, 192, 4, 4, 64, 768, 4096, 512, 1, "float32", None, 4, {"fp32": 4}, {}, WIDTHS, TREE)
LARGE = {
    "gpt2": (header_models.gpt2, 124_439_808, (12, 768, 12, 12, 64, 3072, 50257, 1024)),
    "tinyllama": (header_models.tinyllama, 1_100_048_384, (22, 2048, 32, 4, 64, 5632, 32000, 2048)),
    "gemma2": (header_models.gemma2, 2_614_341_888, (26, 2304, 8, 4, 256, 9216, 256000, 8192)),
    "qwen3": (header_models.qwen3, 596_049_920, (28, 1024, 16, 8, 128, 3072, 151936, 40960)),
    "tinyllama 4-bit": (header_models.tinyllama_4bit, 1_100_048_384, (22, 2048, 32, 4, 64, 5632, 32000, 2048)),
}


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
    d_mlp = 4 * D_MODEL if family == "gpt2" else 64
    n_kv_heads = 4 if family in ("gpt2", "gpt_neox") else 2
    sizes = (facts.n_layers, facts.d_model, facts.n_heads, facts.n_kv_heads, facts.d_head, facts.d_mlp)
    assert (facts.family, *sizes) == (family, LAYERS, D_MODEL, 4, n_kv_heads, 8, d_mlp)
    assert (facts.vocab_size, facts.context) == (VOCABULARY, CONTEXT)
    assert facts.parameters == model.num_parameters() == facts.tree["parameters"]
    assert (facts.dtype, facts.quantized) == ("float32", None)
    assert facts.size_bytes == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", LARGE)
def test_the_parameters_of_real_shapes_are_exact(name: str, tmp_path: Path) -> None:
    write, parameters, sizes = LARGE[name]
    facts = read_facts(write(tmp_path))
    assert facts.parameters == parameters
    shapes = (facts.n_layers, facts.d_model, facts.n_heads, facts.n_kv_heads, facts.d_head, facts.d_mlp)
    assert (*shapes, facts.vocab_size, facts.context) == sizes


def test_the_bytes_of_each_precision_are_those_of_its_numbers_scales_and_tables(tmp_path: Path) -> None:
    facts = read_facts(header_models.tinyllama(tmp_path))
    assert list(facts.weight_bytes) == list(PRECISIONS)
    matrices, outs = 968_884_224, 22 * (2048 + 256 + 256 + 2048 + 5632 + 5632 + 2048)
    other = facts.parameters - matrices
    assert facts.weight_bytes["fp32"] == 4 * facts.parameters
    assert facts.weight_bytes["bf16"] == facts.weight_bytes["fp16"] == 2 * facts.parameters
    assert facts.weight_bytes["int8"] == 2 * other + matrices + 4 * outs
    tables = 22 * 7 * (16 * 4 + 256 * 4 + 4)
    blocks = matrices // 64
    assert facts.weight_bytes["nf4"] == 2 * other + matrices // 2 + blocks + 4 * (blocks // 256) + tables


def test_a_part_of_a_model_is_its_embedding_some_blocks_and_the_last_norm(tmp_path: Path) -> None:
    facts = read_facts(header_models.tinyllama(tmp_path))
    embedding = 32000 * 2048
    parts = {name: part.parameters for name, part in facts.parts.items()}
    assert parts == {"embedding": embedding, "block": 44_044_288, "norm": 2048, "head": embedding}
    assert weight_bytes(facts, "bf16") == 2 * facts.parameters
    assert weight_bytes(facts, "bf16", layers=9) == 2 * (embedding + 9 * 44_044_288 + 2048)
    assert weight_bytes(facts, "fp32", layers=22) == 4 * (facts.parameters - embedding)


def test_a_quantised_folder_can_be_loaded_as_it_is_stored_and_in_no_other_way(tmp_path: Path) -> None:
    facts = read_facts(header_models.tinyllama_4bit(tmp_path / "stored"))
    plain = read_facts(header_models.tinyllama(tmp_path / "plain"))
    assert facts.quantized == "nf4" and facts.dtype == "bfloat16"
    assert facts.weight_bytes == {"nf4": plain.weight_bytes["nf4"]}
    assert weight_bytes(facts, "nf4", layers=9) == weight_bytes(plain, "nf4", layers=9)
    with pytest.raises(
        UnknownModel, match=r"^the model is stored as nf4: it can be loaded as that and as nothing else$"
    ):
        weight_bytes(facts, "bf16")


def test_the_facts_go_to_json_and_back(tmp_path: Path) -> None:
    facts = read_facts(header_models.gemma2(tmp_path))
    text = json.dumps({"name": "gemma", "path": "/somewhere"} | asdict(facts))
    assert len(text) < 10_000  # blocks that are alike are told once
    assert known_facts(json.loads(text)) == facts


OLDER = (
    "the model gpt2 was added by an older miStudio, which noted less of it: remove it and add it again "
    "(mistudio model rm gpt2, then mistudio model add org/gpt2 --name gpt2)"
)


@pytest.mark.parametrize("lost", [field.name for field in fields(ModelFacts)])
def test_a_model_of_which_an_older_version_noted_less_has_to_be_added_again(lost: str, tmp_path: Path) -> None:
    described = asdict(read_facts(header_models.gpt2(tmp_path))) | {"name": "gpt2", "source": "org/gpt2"}
    del described[lost]
    if lost == "quantized":  # null says that it is not
        assert known_facts(described).quantized is None
        return
    with pytest.raises(UnknownModel) as caught:
        known_facts(described)
    assert str(caught.value) == OLDER


@pytest.mark.parametrize(
    "odd",
    [
        {"n_layers": "12"},
        {"family": None},
        {"quantized": "gguf"},
        {"weight_bytes": []},
        {"weight_bytes": {"fp32": None}},
        {"parts": []},
        {"parts": {}},
        {"parts": dict.fromkeys(("embedding", "block", "norm", "head"), 3)},
        {"parts": {part: {"parameters": 1, "weight_bytes": None} for part in ("embedding", "block", "norm", "head")}},
        {"hook_widths": None},
        {"tree": "x"},
    ],
)
def test_a_description_that_something_else_wrote_is_not_believed(odd: dict[str, object], tmp_path: Path) -> None:
    described = asdict(read_facts(header_models.gpt2(tmp_path))) | {"name": "gpt2", "source": "org/gpt2"}
    with pytest.raises(UnknownModel) as caught:
        known_facts(described | odd)
    assert str(caught.value) == OLDER


@pytest.mark.parametrize("version", ["v0.1.0", "v0.2.0"])
def test_the_models_that_older_versions_added_are_told_how_to_be_known_again(version: str) -> None:
    file = Path(__file__).parent / "data" / version / "data" / "models" / "m" / "model.json"
    with pytest.raises(UnknownModel, match=r"mistudio model rm m, then mistudio model add \S+ --name m\)$"):
        known_facts(json.loads(file.read_text()))


def test_the_modules_are_a_tree_in_which_like_blocks_are_told_once(tmp_path: Path) -> None:
    tree = read_facts(header_models.qwen3(tmp_path)).tree
    (model,) = tree["children"]
    assert [(node["name"], node["parameters"]) for node in model["children"]] == [
        ("embed_tokens", 151936 * 1024),
        ("layers", 440_466_432),
        ("norm", 1024),
    ]
    (blocks,) = model["children"][1]["children"]
    assert (blocks["name"], blocks["times"], blocks["parameters"]) == ("0-27", 28, 440_466_432)
    inside = [node["name"] for node in blocks["children"]]
    assert inside == ["input_layernorm", "mlp", "post_attention_layernorm", "self_attn"]
    weight = blocks["children"][1]["children"][0]["children"][0]
    assert weight == TREE | {"name": "weight", "parameters": 1024 * 3072, "dtype": "BF16", "shape": [1024, 3072]}


def test_blocks_that_differ_stand_apart_in_the_tree(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    block = sum(w.numel() for name, w in weights.items() if ".layers.0." in name)
    weights["model.layers.1.self_attn.q_proj.bias"] = torch.zeros(32)
    save_file(weights, folder / "model.safetensors")
    layers = read_facts(folder).tree["children"][1]["children"][1]
    told = [(node["name"], node["times"], node["parameters"]) for node in layers["children"]]
    assert told == [("0, 2", 2, 2 * block), ("1", 1, block + 32)]


def test_numbered_modules_that_are_alike_are_told_by_their_spans() -> None:
    def weight(items: int) -> Unpacked:
        return Unpacked(items, (items,), "F32", 4 * items)

    odd = {3, 7, 8}
    tree = module_tree({f"h.{n}.w": weight(5 if n in odd else 4) for n in (*range(12), 300)} | {"h.07.w": weight(4)})
    (blocks,) = tree["children"]
    assert [(node["name"], node["times"]) for node in blocks["children"]] == [
        ("07", 1),
        ("0-2, 4-6, 9-11, 300", 10),
        ("3, 7-8", 3),
    ]
    assert tree["parameters"] == sum(node["parameters"] for node in blocks["children"]) == 4 * 11 + 5 * 3


def test_a_packed_weight_has_its_true_parameters_and_no_shape_in_the_tree(tmp_path: Path) -> None:
    tree = read_facts(header_models.tinyllama_4bit(tmp_path)).tree
    block = tree["children"][1]["children"][1]["children"][0]
    gate = block["children"][1]["children"][1]
    assert (gate["name"], gate["parameters"]) == ("gate_proj", 2048 * 5632)
    (weight,) = gate["children"]
    assert (weight["dtype"], weight["shape"]) == ("NF4", None)


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
    assert len(names) == 36
    assert names[:7] == [
        "blocks.0.hook_resid_pre",
        "blocks.0.attn.hook_z",
        "blocks.0.hook_attn_out",
        "blocks.0.mlp.hook_post",
        "blocks.0.hook_mlp_out",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
    ]


def test_every_hook_has_the_width_of_its_point(tmp_path: Path) -> None:
    assert [check_hook(FACTS, f"blocks.5.{point}") for point in WIDTHS] == list(WIDTHS.values())
    facts = read_facts(header_models.gemma2(tmp_path))
    assert check_hook(facts, "blocks.25.hook_resid_post") == 2304
    assert check_hook(facts, "blocks.0.attn.hook_z") == 8 * 256
    assert check_hook(facts, "blocks.0.mlp.hook_post") == 9216


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
        "blocks.1.mlp.hook_pre",
        "blocks." + "9" * 5000 + ".hook_mlp_out",
        "\ud800",
    ],
)
def test_what_is_no_hook_is_refused_in_one_sentence(hook: str) -> None:
    with pytest.raises(UnknownHook, match=r"is not the name of a hook: use a name such as blocks\.\d\.") as caught:
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


READERS = {"read_facts", "read_weights", "read_header", "read_json", "headers", "model"}


def test_files_of_a_model_are_read_by_workers_and_the_engine_and_never_by_the_daemon() -> None:
    top = Path(mistudiod.__file__).parent
    # feature_places.py reads two rows of an SAE's own weights, which a worker has written.
    others = ("facts", "worker", "engine", "feature_places.py")
    daemons = [path for path in top.rglob("*.py") if path.relative_to(top).parts[0] not in others]
    assert top / "app.py" in daemons and top / "api" / "plan.py" in daemons
    for path in daemons:
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")}
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.ImportFrom) and module.startswith("mistudiod.facts"):
                assert not names & READERS and module.count(".") == 1, path
            elif isinstance(node, ast.Import):
                assert not any(name.startswith("mistudiod.facts") for name in names), path
