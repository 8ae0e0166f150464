"""What is added at a hook, held against its definition token by token; and that nothing can fail to be added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from steered import HOOK, RULE_NAMES, SPECIAL, change, deltas, passed, sae_of, some_ids
from test_hooks import hooks_set
from tiny_models import D_MODEL, FAMILIES, tiny_model
from torch import Tensor
from transformers import DynamicCache

from mistudiod.engine.edits import Change, Changing, Effect, HookDidNotRun, formula
from mistudiod.engine.hooks import capture, hooked, only_first
from mistudiod.engine.latents_of import LatentsOf
from mistudiod.engine.lm import LM, load_lm
from mistudiod.facts import POINTS, check_hook

OPS = [("add", 1.5), ("add", -2.0), ("clamp", 1.0), ("clamp", 0.0), ("scale", 3.0), ("scale", 0.0), ("ablate", 1.0)]
SCOPES = ["all", "generated", "active", "from:3"]
Load = Callable[..., LM]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    made: dict[tuple[str, str], LM] = {}

    def get(family: str = "llama", precision: str = "fp32") -> LM:
        if (family, precision) not in made:
            folder = tiny_model(family, tmp_path_factory.mktemp(family))
            made[family, precision] = load_lm(folder, precision=precision)
        return made[family, precision]

    return get


@torch.no_grad()
def values(lm: LM, ids: Tensor, *hooks: str) -> list[Tensor]:
    with capture(lm.model, hooks) as found:
        lm.model(ids, use_cache=False)
    return [found[hook] for hook in hooks]


@torch.no_grad()
def changed(lm: LM, ids: Tensor, rows: list[list[Change]], *hooks: str, prompt_tokens: int = 8) -> list[Tensor]:
    """Values at hooks of a pass under changes, after them."""
    with Changing(lm, rows, SPECIAL) as changing, capture(lm.model, hooks) as found:
        changing.at(ids, 0, prompt_tokens)
        lm.model(ids, use_cache=False)
        changing.check()
    return [found[hook] for hook in hooks]


def expected(rows: list[list[Change]], x: Tensor, h: Tensor, ids: Tensor, prompt_tokens: int = 8) -> Tensor:
    """h (B, T, d_out) after changes of SAEs that read x (B, T, d_in)."""
    parts = zip(rows, x, h, ids, strict=True)
    return torch.stack([(b.double() + deltas(row, a, i, prompt_tokens)).to(h.dtype) if row else b
                        for row, a, b, i in parts])  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_added_is_the_formula_at_every_hook_of_every_family(family: str, point: str, load: Load) -> None:
    lm, hook = load(family), f"blocks.1.{point}"
    sae = sae_of(d_in=check_hook(lm.facts, hook))
    ids = some_ids(1).expand(1 + len(OPS), -1)
    (x,) = values(lm, ids, hook)
    often = int((sae.encode(x[0]) > 0).sum(0).argmax())
    rows = [[], *([change(sae, op, strength, hook=hook, feature=often)] for op, strength in OPS)]
    (found,) = changed(lm, ids, rows, hook)
    wanted = expected(rows, x, x, ids)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0], x[0]) and all(not found[n].equal(x[n]) for n in range(1, len(rows)))
    with torch.no_grad(), hooked(lm.model, {hook: lambda _: wanted}):
        logits = lm.model(ids, use_cache=False).logits
    torch.testing.assert_close(passed(lm, ids, rows)[0], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("rule", RULE_NAMES)
def test_every_operation_in_every_scope_with_an_sae_of_every_rule(
    rule: str, scope: str, precision: str, load: Load
) -> None:
    lm, sae = load("gemma2", precision), sae_of(rule)
    rows = [[change(sae, op, strength, scope=scope, feature=n)] for n, (op, strength) in enumerate(OPS)]
    ids = some_ids(len(rows))
    (x,) = values(lm, ids, HOOK)
    (found,) = changed(lm, ids, rows, HOOK)
    assert found.dtype == x.dtype
    close = {"fp32": 1e-5, "bf16": 2**-7}[precision]  # the last bit, where a sum falls between two numbers
    torch.testing.assert_close(found, expected(rows, x, x, ids), rtol=close, atol=1e-5)


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_a_few_latents_are_those_of_the_whole_encoder(rule: str) -> None:
    sae, x = sae_of(rule), torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(LatentsOf(sae, [7, 0, 39])(x), sae.encode(x)[:, [7, 0, 39]])
    assert (sae.encode(x)[:, [7, 0, 39]] > 0).any(0).all()


@pytest.mark.parametrize("op", ["add", "clamp", "ablate"])
def test_a_transcoder_reads_at_one_hook_and_writes_at_another(op: str, load: Load) -> None:
    lm, hook, out = load("gemma3_text"), "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    sae = sae_of("jumprelu", d_out=D_MODEL)
    rows, ids = [[change(sae, op, 2.0, hook=hook, hook_out=out, scope="active")], []], some_ids()
    x, h = values(lm, ids, hook, out)
    read, found = changed(lm, ids, rows, hook, out)
    assert torch.equal(read, x) and not torch.equal(found, h)
    torch.testing.assert_close(found, expected(rows, x, h, ids), rtol=1e-5, atol=1e-5)


def test_a_transcoder_reads_what_another_sae_has_changed_at_its_hook(load: Load) -> None:
    lm, hook, out = load(), "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    before, sae = change(sae_of(seed=3), hook=hook, name="before"), sae_of(d_out=D_MODEL)
    rows, ids = [[change(sae, "ablate", hook=hook, hook_out=out, name="after"), before]] * 2, some_ids()
    with hooked(lm.model, {hook: lambda x: expected([[before]] * 2, x, x, ids)}):
        x, h = values(lm, ids, hook, out)
    (found,) = changed(lm, ids, rows, out)
    torch.testing.assert_close(found, expected([[rows[0][0]]] * 2, x, h, ids), rtol=1e-5, atol=1e-5)


def test_an_sae_that_would_write_before_it_reads_is_an_error(load: Load) -> None:
    one = change(sae_of(), "ablate", hook="blocks.2.hook_resid_pre", hook_out="blocks.1.hook_resid_pre")
    with pytest.raises(HookDidNotRun, match=r"^nothing was read at blocks\.2\.hook_resid_pre before it was to change"):
        passed(load(), some_ids(1), [[one]])


def test_several_features_and_saes_at_one_hook_add_up_in_any_order(load: Load) -> None:
    lm, one, other = load(), sae_of("topk"), sae_of("gated", seed=4)
    row = [
        change(one, "clamp", 1.0, feature=1),
        change(one, "add", -1.0, feature=2, scope="generated"),
        change(other, "scale", 2.0, feature=1, name="other", scope="active"),
        change(other, "ablate", feature=5, name="other"),
        change(one, "add", 0.5, feature=1, scope="from:4"),  # the same feature once more
        change(one, "ablate", feature=1, scope="generated"),
    ]
    rows, ids = [row, row[::-1], [], row[2:]], some_ids(1).expand(4, -1)
    (x,) = values(lm, ids, HOOK)
    (found,) = changed(lm, ids, rows, HOOK)
    torch.testing.assert_close(found, expected(rows, x, x, ids), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_what_is_changed_in_one_layer_is_read_in_the_next(load: Load) -> None:
    lm, ids = load("gpt2"), some_ids(1)
    first = change(sae_of(), hook="blocks.0.hook_resid_post", name="first", strength=3.0)
    second = change(sae_of(seed=2), "clamp", hook="blocks.2.hook_attn_out", name="second")
    (x,) = changed(lm, ids, [[first]], second.hook)
    (found,) = changed(lm, ids, [[second, first]], second.hook)
    assert not torch.equal(x, values(lm, ids, second.hook)[0])
    torch.testing.assert_close(found, expected([[second]], x, x, ids), rtol=1e-5, atol=1e-5)


def test_special_tokens_are_never_changed(load: Load) -> None:
    lm, ids = load(), some_ids()
    rows = [[change(sae_of("topk"), op, 5.0)] for op in ("add", "clamp")]
    (x,), (found,) = values(lm, ids, HOOK), changed(lm, ids, rows, HOOK)
    same = (x == found).all(-1)
    assert torch.equal(same, ids == 0) and same.sum() == 4


@pytest.mark.parametrize("scope", SCOPES)
def test_stretches_with_a_cache_are_changed_like_the_whole(scope: str, load: Load) -> None:
    lm, ids = load("gemma3_text"), some_ids(1, 20).expand(2, -1)
    rows = [[change(sae_of("gated"), "clamp", 2.0, scope=scope)], [change(sae_of("gated"), "add", scope=scope)]]
    logits, whole = passed(lm, ids, rows, prompt_tokens=14)
    cache, found = DynamicCache(config=lm.model.config), []
    with torch.no_grad(), Changing(lm, rows, SPECIAL) as changing:
        for start, end in ((0, 2), (2, 11), (11, 15), *((n, n + 1) for n in range(15, 20))):
            changing.at(ids[:, start:end], start, 14)
            found.append(lm.model(ids[:, start:end], past_key_values=cache, use_cache=True).logits)
        changing.check()
    torch.testing.assert_close(torch.cat(found, 1), logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(changing.effects(), whole.effects(), strict=True):
        assert one[0].positions == other[0].positions > 0
        assert (one[0].change, one[0].h) == (pytest.approx(other[0].change), pytest.approx(other[0].h))


def test_effects_say_where_h_was_changed_and_by_how_much(load: Load) -> None:
    lm, ids, sae = load(), some_ids(1), sae_of("jumprelu")
    (x,) = values(lm, ids, HOOK)
    fires = (sae.encode(x[0])[ids[0] != 0] > 0).sum(0).tolist()
    some = next(n for n, tokens in enumerate(fires) if 2 <= tokens <= 8)
    row = [change(sae, "add", 2.0, scope="generated"), change(sae, "ablate", feature=some), change(sae, "add", 0.0)]
    (effects,) = passed(lm, ids, [row])[1].effects()
    whole = deltas(row, x[0], ids[0], 8).norm(dim=1)  # by all of them together
    for one, effect in zip(row, effects, strict=True):
        there = deltas([one], x[0], ids[0], 8).norm(dim=1) > 0
        assert effect.positions == int(there.sum())
        assert effect.change == pytest.approx(float(whole[there].sum()), rel=1e-5)
        assert effect.h == pytest.approx(float(x[0].norm(dim=1)[there].sum()), rel=1e-5)
    assert effects[2] == Effect(0, 0.0, 0.0) and effects[1].positions == fires[some]


def test_a_change_that_is_lost_in_rounding_has_changed_nothing(load: Load) -> None:
    for strength, precision, positions in ((1e-4, "fp32", 10), (0.1, "bf16", 10), (1e-9, "bf16", 0)):
        _, changing = passed(load("llama", precision), some_ids(1), [[change(sae_of(), "add", strength)]])
        assert changing.effects()[0][0].positions == positions


@pytest.mark.parametrize(("op", "scope"), [("scale", "all"), ("ablate", "all"), ("add", "active"), ("clamp", "active")])
def test_a_feature_that_does_not_fire_is_not_changed_by_what_needs_it_active(op: str, scope: str, load: Load) -> None:
    lm, ids, sae = load(), some_ids(), sae_of()
    silent = replace(sae, b_enc=sae.b_enc.index_fill(0, torch.tensor([3]), -1e4))
    logits, changing = passed(lm, ids, [[change(silent, op, 4.0, scope=scope)], []])
    assert changing.effects() == [[Effect()], []]
    assert torch.equal(logits, lm.model(ids, use_cache=False).logits)


@pytest.mark.parametrize(
    "one", [change(sae_of(), "add", 0.0), change(sae_of(), "add", 4.0, maximum=0.0), change(sae_of(), "scale", 1.0)]
)
def test_what_can_change_nothing_is_not_even_hooked(one: Change, load: Load) -> None:
    lm = load()
    assert one.does_nothing
    with Changing(lm, [[one]], SPECIAL):
        assert hooks_set(lm.model) == 0
    assert not change(sae_of(), "clamp", 0.0).does_nothing and not change(sae_of(), "ablate", 0.0).does_nothing


@torch.no_grad()
def test_a_hook_that_the_model_does_not_come_by_is_an_error(load: Load) -> None:
    lm, ids = load(), some_ids(1)
    said = r"^the edit at blocks\.2\.hook_mlp_out did not run: the model came by 0 times in one pass$"
    rows = [[change(sae_of(), hook="blocks.2.hook_mlp_out"), change(sae_of(), hook="blocks.0.hook_mlp_out", name="t")]]
    with Changing(lm, rows, SPECIAL) as changing, only_first(lm.model, 2):
        changing.at(ids, 0, 8)
        lm.model(ids)
        with pytest.raises(HookDidNotRun, match=said):
            changing.check()
        with pytest.raises(HookDidNotRun, match=said):  # nor does it go on to the next pass
            changing.at(ids, 12, 8)


@torch.no_grad()
def test_a_pass_of_which_nothing_was_said_is_an_error(load: Load) -> None:
    lm, ids = load(), some_ids(1)
    with Changing(lm, [[change(sae_of())]], SPECIAL), pytest.raises(HookDidNotRun):
        lm.model(ids)
    with Changing(lm, [[change(sae_of())]], SPECIAL) as changing:
        changing.at(ids, 0, 8)
        lm.model(ids)
        with pytest.raises(HookDidNotRun, match="2 times"):
            lm.model(ids)
    with Changing(lm, [[change(sae_of())]], SPECIAL) as changing, pytest.raises(ValueError, match="2 rows"):
        changing.at(some_ids(2), 0, 8)
    assert hooks_set(lm.model) == 0


@torch.no_grad()
def test_rows_that_have_ended_leave_and_keep_what_was_counted(load: Load) -> None:
    lm, sae = load(), sae_of("topk")
    rows = [[], [change(sae, "clamp", 2.0)], [change(sae, "add", 1.0)], [change(sae, "ablate", feature=1)]]
    ids = some_ids(4)
    with Changing(lm, rows, SPECIAL) as changing:
        changing.at(ids, 0, 8)
        lm.model(ids)
        before = changing.effects()
        changing.keep([3, 1])
        with capture(lm.model, [HOOK]) as found:
            changing.at(ids[[3, 1]], 0, 8)
            lm.model(ids[[3, 1]])
        after = changing.effects()
    (x,) = values(lm, ids[[3, 1]], HOOK)
    wanted = expected([rows[3], rows[1]], x, x, ids[[3, 1]])
    torch.testing.assert_close(found[HOOK], wanted, rtol=1e-5, atol=1e-5)
    assert after[0] == [] and after[2] == before[2]
    assert [after[n][0].positions for n in (1, 3)] == [2 * before[n][0].positions for n in (1, 3)]


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantised_model_is_changed_by_the_formula_as_well(precision: str, load: Load) -> None:
    lm, ids = load("llama", precision), some_ids()
    rows = [[change(sae_of("topk"), "clamp", 2.0)], [change(sae_of("jumprelu"), "add", 2.0)]]
    (x,), (found,) = values(lm, ids, HOOK), changed(lm, ids, rows, HOOK)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected(rows, x, x, ids), rtol=2**-7, atol=1e-5)


def test_the_formula_is_a_line_for_people() -> None:
    lines = [formula(change(sae_of(), op, 2.0, maximum=13.4159)) for op in ("add", "clamp", "scale", "ablate")]
    assert lines == ["h += 2 × 13.42 × d", "h += (2 × 13.42 - a) × d", "h += (2 - 1) × a × d", "h -= a × d"]


def test_rows_of_a_batch_do_not_touch_each_other(load: Load) -> None:
    lm, ids = load("mistral"), some_ids(1).expand(2, -1)
    logits, _ = passed(lm, ids, [[], [change(sae_of(), "add", 8.0)]])
    assert torch.equal(logits[0], lm.model(ids, use_cache=False).logits[0]) and not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_of_an_sae_with_a_norm_directions_have_the_scale_of_each_token(norm: str, load: Load) -> None:
    lm, sae = load(), replace(sae_of(), norm=norm)
    ids = some_ids(1).expand(3, -1)
    (x,) = values(lm, ids, HOOK)
    z = sae.encode(x[0])
    feature = int((z > 0).sum(0).argmax())
    rows = [[], [change(sae, "ablate", 1.0, feature=feature)], [change(sae, "add", 2.0, feature=feature)]]
    (found,) = changed(lm, ids, rows, HOOK)
    without = z.clone()
    without[:, feature] = 0
    text = ~torch.isin(ids[0], torch.tensor(sorted(SPECIAL)))
    removed = sae.decode(z, x[0]) - sae.decode(without, x[0])
    torch.testing.assert_close(x[0] - found[1], removed * text[:, None], rtol=1e-4, atol=1e-4)
    scale = x[0].std(1) if norm == "layer_norm" else x[0].norm(dim=1) / D_MODEL**0.5
    added = 2 * rows[2][0].maximum * scale[:, None] * sae.W_dec[feature]
    torch.testing.assert_close(found[2] - x[0], added * text[:, None], rtol=1e-4, atol=1e-4)
