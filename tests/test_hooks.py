"""Hooks have TransformerLens' names and meaning in every family, and leave no trace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import D_MODEL, FAMILIES, LAYERS, VOCABULARY, tiny_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from mistudiod.engine.hooks import capture, hooked, layers_needed, only_first
from mistudiod.facts import POINTS, UnknownHook, UnknownModel

HOOKS = [f"blocks.{layer}.{point}" for layer in range(LAYERS) for point in POINTS]
RESIDUAL = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"]
FINAL_NORM = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return load(tiny_model(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return load(tiny_model("gpt2", tmp_path_factory.mktemp("gpt2")))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(1, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def v() -> Tensor:
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(2))


def hooks_set(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_residual_hooks_are_the_hidden_states_of_transformers(model: PreTrainedModel, ids: Tensor) -> None:
    final_norm = model.base_model.get_submodule(FINAL_NORM.get(model.config.model_type, "norm"))
    before_norm: list[Tensor] = []
    handle = final_norm.register_forward_pre_hook(lambda _module, args: before_norm.append(args[0]))
    with handle, capture(model, HOOKS) as values:
        states = model(ids, output_hidden_states=True).hidden_states
    for layer in range(LAYERS):
        assert torch.equal(values[f"blocks.{layer}.hook_resid_pre"], states[layer])
    for layer in range(LAYERS - 1):
        assert torch.equal(values[f"blocks.{layer}.hook_resid_post"], states[layer + 1])
    last = values[f"blocks.{LAYERS - 1}.hook_resid_post"]
    assert torch.equal(last, before_norm[0])
    assert torch.equal(final_norm(last), states[-1])


def check_sum(model: PreTrainedModel, ids: Tensor) -> None:
    with capture(model, HOOKS) as values:
        model(ids)
    for layer in range(LAYERS):
        pre, attn_out, mlp_out, post = (values[f"blocks.{layer}.{point}"] for point in RESIDUAL)
        assert attn_out.norm() > 0.01 * pre.norm() and mlp_out.norm() > 0.01 * pre.norm()
        torch.testing.assert_close(pre + attn_out + mlp_out, post, rtol=1e-5, atol=1e-5)


def test_attention_and_mlp_are_what_a_block_adds_to_the_residual_stream(model: PreTrainedModel, ids: Tensor) -> None:
    check_sum(model, ids)


def test_heads_and_neurons_have_their_widths_and_are_what_attention_and_mlp_are_made_of(
    model: PreTrainedModel, ids: Tensor
) -> None:
    zeros = {f"blocks.1.{point}": torch.zeros_like for point in ("attn.hook_z", "mlp.hook_post")}
    with capture(model, HOOKS) as plain, hooked(model, zeros), capture(model, HOOKS) as edited:
        model(ids)
    n_neurons = 4 * D_MODEL if model.config.model_type == "gpt2" else 64
    assert plain["blocks.1.attn.hook_z"].shape == (2, 24, 4 * 8)
    assert plain["blocks.1.mlp.hook_post"].shape == (2, 24, n_neurons)
    for out in (
        "blocks.1.hook_attn_out",
        "blocks.1.hook_mlp_out",
    ):  # nothing but a bias is left, at every token the same
        torch.testing.assert_close(edited[out], edited[out][:1, :1].expand_as(edited[out]))


def test_neurons_are_what_the_last_matrix_of_the_mlp_reads(gpt2: PreTrainedModel, ids: Tensor) -> None:
    mlp = gpt2.transformer.h[1].mlp
    with capture(gpt2, ["blocks.1.mlp.hook_in", "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"]) as values:
        gpt2(ids)
    neurons = mlp.act(values["blocks.1.mlp.hook_in"] @ mlp.c_fc.weight + mlp.c_fc.bias)
    torch.testing.assert_close(values["blocks.1.mlp.hook_post"], neurons)
    torch.testing.assert_close(values["blocks.1.hook_mlp_out"], neurons @ mlp.c_proj.weight + mlp.c_proj.bias)


def test_heads_outputs_lie_side_by_side_and_are_mixed_by_the_last_matrix(tmp_path: Path, ids: Tensor) -> None:
    model = load(tiny_model("llama", tmp_path))
    with capture(model, ["blocks.1.attn.hook_z", "blocks.1.hook_attn_out"]) as values:
        model(ids)
    z, mixed = values["blocks.1.attn.hook_z"], model.model.layers[1].self_attn.o_proj.weight
    heads = sum(z[..., 8 * h : 8 * h + 8] @ mixed[:, 8 * h : 8 * h + 8].T for h in range(4))
    torch.testing.assert_close(values["blocks.1.hook_attn_out"], heads)


def test_a_neox_model_with_sequential_blocks_adds_up_as_well(ids: Tensor, tmp_path: Path) -> None:
    check_sum(load(tiny_model("gpt_neox", tmp_path, use_parallel_residual=False)), ids)


def test_adding_zero_or_returning_nothing_changes_nothing(model: PreTrainedModel, ids: Tensor) -> None:
    logits = model(ids).logits
    with hooked(model, dict.fromkeys(HOOKS, lambda x: x + 0)):
        assert torch.equal(model(ids).logits, logits)
    with hooked(model, dict.fromkeys(HOOKS, lambda x: None)):
        assert torch.equal(model(ids).logits, logits)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_added_vector_shifts_the_value_there_and_changes_the_logits(
    model: PreTrainedModel, ids: Tensor, hook: str
) -> None:
    with capture(model, [hook]) as plain:
        logits = model(ids).logits
    v = torch.randn(plain[hook].shape[-1], generator=torch.Generator().manual_seed(2))
    with hooked(model, {hook: lambda x: x + v}), capture(model, [hook]) as values:
        steered = model(ids).logits
    assert torch.equal(values[hook], plain[hook] + v)
    assert (steered - logits).abs().max() > 1e-3


def test_an_edit_reaches_the_next_hook_of_the_same_dict(model: PreTrainedModel, ids: Tensor, v: Tensor) -> None:
    with capture(model, ["blocks.1.hook_resid_pre"]) as plain:
        model(ids)
    seen: list[Tensor] = []
    with hooked(model, {"blocks.0.hook_resid_post": lambda x: x + v, "blocks.1.hook_resid_pre": seen.append}):
        model(ids)
    assert torch.equal(seen[0], plain["blocks.1.hook_resid_pre"] + v)


def test_at_one_hook_a_capture_sees_the_edits_made_before_it_only(gpt2: PreTrainedModel, ids: Tensor) -> None:
    hook = "blocks.1.hook_mlp_out"
    add, double = {hook: lambda x: x + 1}, {hook: lambda x: x * 2}
    with capture(gpt2, [hook]) as before, hooked(gpt2, add), hooked(gpt2, double), capture(gpt2, [hook]) as after:
        gpt2(ids)
    assert torch.equal(after[hook], (before[hook] + 1) * 2)


def test_the_next_pass_replaces_what_was_captured(gpt2: PreTrainedModel, ids: Tensor) -> None:
    with capture(gpt2, [HOOKS[0]]) as values:
        gpt2(ids)
        gpt2(ids[:, :5])
    assert values[HOOKS[0]].shape == (2, 5, D_MODEL)


def test_greedy_generation_under_an_edit_is_the_same_with_and_without_the_cache(
    model: PreTrainedModel, ids: Tensor, v: Tensor
) -> None:
    lengths: list[int] = []

    def steer(x: Tensor) -> Tensor:
        lengths.append(x.shape[1])
        return x + v

    def generate(use_cache: bool) -> Tensor:
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, do_sample=False,
            use_cache=use_cache, pad_token_id=0,
        )  # fmt: skip

    with hooked(model, {"blocks.1.hook_resid_post": steer}):
        cached = generate(use_cache=True)
        assert lengths == [24] + [1] * 7
        assert torch.equal(generate(use_cache=False), cached)
    assert not torch.equal(generate(use_cache=True), cached)


def test_a_model_without_its_head_has_the_same_hooks(model: PreTrainedModel, ids: Tensor) -> None:
    with capture(model, HOOKS) as with_head:
        model(ids)
    with capture(model.base_model, HOOKS) as without:
        model.base_model(ids)
    assert all(torch.equal(with_head[hook], without[hook]) for hook in HOOKS)


def test_nothing_is_left_behind_after_an_exception(gpt2: PreTrainedModel, ids: Tensor) -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("in the function")

    before, logits = hooks_set(gpt2), gpt2(ids).logits
    with pytest.raises(RuntimeError, match="in the body"), hooked(gpt2, dict.fromkeys(HOOKS, lambda x: x + 1)):
        assert hooks_set(gpt2) == before + len(HOOKS)
        raise RuntimeError("in the body")
    with pytest.raises(RuntimeError, match="in the function"), hooked(gpt2, dict.fromkeys(HOOKS, fail)):
        gpt2(ids)
    with pytest.raises(UnknownHook), hooked(gpt2, {HOOKS[0]: lambda x: x + 1, "blocks.9.hook_resid_pre": fail}):
        pass
    assert hooks_set(gpt2) == before
    assert torch.equal(gpt2(ids).logits, logits)


class KeywordBlock(nn.Module):
    """A block as in other releases of transformers: takes its input by keyword, returns a tuple."""

    def forward(self, *, hidden_states: Tensor) -> tuple[Tensor, str]:
        return 2 * hidden_states, "weights"


class KeywordModel(nn.Module):
    config = SimpleNamespace(model_type="llama")

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([KeywordBlock()])

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return self.layers[0](hidden_states=x)


def test_blocks_that_take_keywords_and_return_tuples_are_hooked_as_well() -> None:
    edits = {"blocks.0.hook_resid_pre": lambda x: x + 1, "blocks.0.hook_resid_post": lambda x: x + 5}
    model = KeywordModel()
    with hooked(model, edits):
        x, rest = model(torch.zeros(1, 2, 3))
    assert torch.equal(x, torch.full((1, 2, 3), 7.0)) and rest == "weights"


def test_an_edit_in_float32_keeps_a_bfloat16_model_in_bfloat16(tmp_path: Path, ids: Tensor) -> None:
    model = load(tiny_model("llama", tmp_path)).to(torch.bfloat16)
    with hooked(model, dict.fromkeys(HOOKS, lambda x: x.float() + 1)):
        assert model(ids).logits.dtype == torch.bfloat16


def test_an_edit_of_another_shape_is_refused(gpt2: PreTrainedModel, ids: Tensor, v: Tensor) -> None:
    said = r"blocks\.0\.hook_resid_post returned the shape \(32,\) for \(2, 24, 32\)"
    with pytest.raises(ValueError, match=said), hooked(gpt2, {"blocks.0.hook_resid_post": lambda x: v}):
        gpt2(ids)


def test_an_unknown_hook_is_named_with_what_there_is(gpt2: PreTrainedModel) -> None:
    said = r"^blocks.9.hook_mlp_out does not exist: the model has 3 blocks \(0 to 2\)$"
    with pytest.raises(UnknownHook, match=said), capture(gpt2, ["blocks.9.hook_mlp_out"]):
        pass


def test_a_model_of_an_unknown_family_is_refused() -> None:
    model = KeywordModel()
    model.config = SimpleNamespace(model_type="bloom")
    for other in (model, nn.Linear(2, 2)):
        with pytest.raises(UnknownModel, match="known types are gpt2, gpt_neox, llama"), hooked(other, {HOOKS[0]: abs}):
            pass


def test_a_hook_needs_the_blocks_up_to_it() -> None:
    assert layers_needed("blocks.3.hook_resid_post") == 4
    assert layers_needed("blocks.3.hook_attn_out") == layers_needed("blocks.3.hook_mlp_out") == 4
    assert layers_needed("blocks.3.hook_resid_pre") == 3
    assert layers_needed("blocks.0.hook_resid_pre") == 1


def test_blocks_that_were_skipped_are_back_afterwards(model: PreTrainedModel, ids: Tensor) -> None:
    logits = model(ids).logits
    with capture(model, ["blocks.2.hook_resid_pre"]) as values, only_first(model, 2):
        shorter = model(ids).logits
    assert not values
    assert not torch.equal(shorter, logits)
    assert torch.equal(model(ids).logits, logits)
