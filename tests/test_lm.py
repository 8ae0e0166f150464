"""A language model is loaded whole or in part, and its activations are those of the whole model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import D_MODEL, FAMILIES, LAYERS, VOCABULARY, configure, tiny_model
from tokenizers import Tokenizer, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM

from mistudiod.engine.hooks import capture, layers_needed
from mistudiod.engine.lm import NoChat, load_lm, load_tokenizer
from mistudiod.engine.tokens import read_vocabulary
from mistudiod.engine.weights import lazy_weights
from mistudiod.facts import UnknownHook, UnknownModel, hook_names, read_facts, read_header, weight_bytes

TEXT = "def f(x):\n    return x  # 12345 héllo's , .\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(1, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_of_a_part_are_those_of_the_whole_model(family: str, ids: Tensor, tmp_path: Path) -> None:
    hooks = hook_names(read_facts(tiny_model(family, tmp_path)))
    whole = load_lm(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad(), capture(reference, hooks) as values:
        reference(ids)
    parts = {n: load_lm(tmp_path, layers=n) for n in range(1, LAYERS + 1)}
    for hook in hooks:
        assert torch.equal(whole.activations(ids, hook), values[hook])
        assert torch.equal(parts[layers_needed(hook)].activations(ids, hook), values[hook])
        assert torch.equal(parts[LAYERS].activations(ids, hook), values[hook])


def test_a_part_has_no_more_weights_than_it_needs_and_knows_the_whole_models_facts(saved: Path) -> None:
    part, whole = load_lm(saved, layers=1), load_lm(saved)
    block = sum(p.numel() for p in whole.model.model.layers[0].parameters())
    head = whole.model.lm_head.weight.numel()
    assert part.model.num_parameters() == whole.model.num_parameters() - (LAYERS - 1) * block - head
    assert part.facts == whole.facts
    assert whole.facts.n_layers == LAYERS


def test_the_config_of_a_part_fits_the_part(tmp_path: Path) -> None:
    config = load_lm(tiny_model("gemma2", tmp_path), layers=2).model.config
    assert config.num_hidden_layers == len(config.layer_types) == 2


def test_blocks_after_the_hook_do_not_run(saved: Path, ids: Tensor) -> None:
    lm = load_lm(saved)
    ran: list[int] = []
    for number, block in enumerate(lm.model.model.layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    lm.model.lm_head.register_forward_hook(lambda *_: ran.append(-1))
    lm.activations(ids, "blocks.1.hook_resid_pre")
    lm.activations(ids, "blocks.1.hook_mlp_out")
    assert ran == [0, 0, 1]
    lm.model(ids)
    assert ran[3:] == [0, 1, 2, -1]


def test_activations_need_no_gradients_and_leave_the_model_as_it_was(saved: Path, ids: Tensor) -> None:
    lm = load_lm(saved)
    logits = lm.model(ids).logits
    x = lm.activations(ids, "blocks.0.hook_resid_post")
    assert x.shape == (2, 24, D_MODEL) and x.dtype == torch.float32 and not x.requires_grad
    assert not any(p.requires_grad for p in lm.model.parameters()) and not lm.model.training
    with pytest.raises(IndexError):
        lm.activations(torch.full((1, 3), VOCABULARY), "blocks.0.hook_resid_post")
    assert torch.equal(lm.model(ids).logits, logits)


def test_loading_a_part_prints_nothing(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_lm(saved, layers=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("layers", [0, -1, LAYERS + 1])
def test_a_number_of_layers_that_the_model_does_not_have_is_refused(layers: int, saved: Path) -> None:
    with pytest.raises(ValueError, match="layers must be from 1 to 3"):
        load_lm(saved, layers=layers)


def test_a_hook_that_does_not_exist_or_is_not_loaded_is_refused(saved: Path, ids: Tensor) -> None:
    lm = load_lm(saved, layers=1)
    for hook in ("blocks.3.hook_resid_pre", "blocks.0.hook_z", "blocks.2.hook_resid_post"):
        with pytest.raises(UnknownHook):
            lm.activations(ids, hook)


def test_weights_that_are_missing_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_lm(folder, layers=1)
    with pytest.raises(UnknownModel, match=r"its weights lack 1 tensor, the first .*layers\.1\.mlp\.up_proj\.weight"):
        load_lm(folder)


def test_nothing_is_read_of_the_weights_that_are_not_needed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    names = {stored.start: name for name, stored in read_header(saved / "model.safetensors").items()}
    preadv = os.preadv

    def noted(file: int, buffers: list[memoryview], offset: int) -> int:
        read.append(names[offset])
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", noted)
    load_lm(saved, layers=1)
    block = [name for name in names.values() if name.startswith("model.layers.0.")]
    assert sorted(read) == sorted(["model.embed_tokens.weight", "model.norm.weight", *block])
    del read[:]
    load_lm(saved)
    assert sorted(read) == sorted(names.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_layer_8_of_22_is_the_whole_models_hidden_state_bit_for_bit_from_less_than_half_of_its_bytes(
    precision: str, tmp_path: Path, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model("llama", tmp_path, num_hidden_layers=22)
    read: list[int] = []
    preadv = os.preadv

    def noted(file: int, buffers: list[memoryview], offset: int) -> int:
        read.append(preadv(file, buffers, offset))
        return read[-1]

    monkeypatch.setattr(os, "preadv", noted)
    hook = "blocks.8.hook_resid_post"
    part = load_lm(tmp_path, precision=precision, layers=layers_needed(hook))
    of_part = sum(read)
    whole = load_lm(tmp_path, precision=precision)
    assert of_part < 0.5 * (sum(read) - of_part)
    assert weight_bytes(part.facts, precision, 9) < 0.5 * weight_bytes(part.facts, precision)
    with torch.no_grad():
        states = whole.model(ids, output_hidden_states=True).hidden_states
    assert torch.equal(part.activations(ids, hook), states[9])  # the first is the embedding


def test_a_sharded_model_is_read_from_all_its_files(saved: Path, tmp_path: Path, ids: Tensor) -> None:
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path, max_shard_size="50KB")
    shutil.copy(saved / "tokenizer.json", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(load_lm(tmp_path).model(ids).logits, load_lm(saved).model(ids).logits)


def test_weights_that_are_cut_short_while_they_are_read_are_an_error_and_no_crash(folder: Path) -> None:
    weights = lazy_weights(folder)
    os.truncate(folder / "model.safetensors", 20_000)
    with pytest.raises(UnknownModel, match=r"model\.safetensors was cut short while it was read$"):
        weights["model.norm.weight"][...]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8, torch.uint8, torch.bool])
def test_every_type_of_number_is_read_as_safetensors_reads_it(dtype: torch.dtype, tmp_path: Path) -> None:
    written = {"a": (torch.randn(3, 5) * 9).to(dtype), "empty": torch.zeros(0, 4, dtype=dtype), "b": torch.ones(())}
    save_file(written, tmp_path / "model.safetensors")
    for name, lazy in lazy_weights(tmp_path).items():
        assert torch.equal(lazy[...], written[name]) and lazy[...].dtype == written[name].dtype


def test_what_the_folder_says_of_generation_is_kept(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.25}))
    assert load_lm(folder).model.generation_config.repetition_penalty == 1.25
    path.unlink()
    assert load_lm(folder).model.generation_config.eos_token_id == 0


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"has no config\.json"):
        load_lm(tmp_path)


def test_code_that_comes_with_a_model_is_not_run(folder: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).touch()\n"
    (folder / "modeling_own.py").write_text(code)
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    configure(folder, auto_map=own)
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer_config["auto_map"] = {"AutoTokenizer": ["modeling_own.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    load_lm(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_cut_as_tokenizer_json_says(family: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model(family, tmp_path))
    ids = tokenizer(TEXT)["input_ids"]
    assert ids == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXT).ids
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert len(tokenizer) == VOCABULARY


def test_a_tokenizer_keeps_the_steps_that_its_class_does_not_have(folder: Path) -> None:
    exact = Tokenizer.from_file(str(folder / "tokenizer.json"))
    exact.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    exact.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer(TEXT)["input_ids"] == exact.encode(TEXT).ids
    assert tokenizer.bos_token == "<|endoftext|>"  # the class's, which the files do not name


def test_a_special_token_that_the_vocabulary_lacks_is_not_added(tmp_path: Path) -> None:
    tiny_model("gemma", tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == VOCABULARY
    assert max(tokenizer(TEXT)["input_ids"]) < VOCABULARY


def test_a_missing_or_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UnknownModel, match=r"the tokenizer in .* cannot be loaded: "):
        load_lm(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnknownModel, match=r"has no tokenizer\.json"):
        load_lm(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": "<|endoftext|>"},
        {"bos_token": None, "eos_token": "<|endoftext|>"},
        {"bos_token": "a", "eos_token": "<|endoftext|>"},
        {"bos_token": None, "eos_token": None},
        {"tokenizer_class": "GPT2Tokenizer"},  # names none itself: then config.json does
    ],
    ids=json.dumps,
)
def test_a_text_begins_as_the_windows_of_its_model_do(config: dict[str, object], folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    configure(folder, bos_token_id=5, eos_token_id=6)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    leading = read_vocabulary(folder, tokenizer, VOCABULARY).leading("always")
    lm, ids = load_lm(folder), tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert lm.leading == leading
    assert lm.text_ids(TEXT) == (ids if leading is None else [leading, *ids])
    assert lm.text_ids(TEXT, begins_with_bos=False) == ids


def test_a_text_that_has_its_bos_gets_no_other(folder: Path) -> None:
    lm = load_lm(folder)
    assert lm.text_ids("<|endoftext|>" + TEXT) == lm.text_ids(TEXT)
    assert lm.text_ids("<|endoftext|><|endoftext|>")[:3] == [0, 0] and lm.text_ids("") == [0]


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if messages[-1].role == 'system' %}{{ raise_exception('somebody must say something') }}{% endif %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "def f("}]


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_conversation_is_written_by_the_models_own_template(place: str, folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    if place == path.name:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    else:
        (folder / place).write_text(TEMPLATE)
    lm = load_lm(folder)
    expected = "<|endoftext|>[system] Be short.\n[user] def f(\n[assistant] "
    assert lm.chat_ids(CHAT) == lm.tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert lm.chat_ids(CHAT)[:1] == [0] and lm.tokenizer.decode(lm.chat_ids(CHAT)) == expected
    with pytest.raises(NoChat, match=r"does not take this conversation: somebody must say something$"):
        lm.chat_ids(CHAT[:1])


def test_a_model_without_a_template_does_not_chat(saved: Path) -> None:
    with pytest.raises(NoChat, match=r"^the model has no chat template, so it was not made for chat"):
        load_lm(saved).chat_ids(CHAT)
