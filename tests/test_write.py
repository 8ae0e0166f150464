"""Texts written as one batch, held against whole passes without a cache and against transformers' own generation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from steered import HOOK, SPECIAL, Chosen, change, sae_of, some_ids
from test_hooks import hooks_set
from tiny_models import CONTEXT, FAMILIES, VOCABULARY, tiny_model
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from mistudiod.engine import write as module
from mistudiod.engine.edits import Change, Changing, Effect, HookDidNotRun
from mistudiod.engine.hooks import capture
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.write import NotFinite, Text, end_ids, write

Load = Callable[..., LM]
FIRST = HOOK.replace("1", "0")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    made: dict[tuple[str, str], LM] = {}

    def get(family: str = "llama", precision: str = "fp32") -> LM:
        if (family, precision) not in made:
            # without an end: random models end too soon
            folder = tiny_model(family, tmp_path_factory.mktemp(family), eos_token_id=None)
            lm = load_lm(folder, precision=precision)
            lm.tokenizer.eos_token = None
            made[family, precision] = lm
        return made[family, precision]

    return get


def prompt(tokens: int = 10) -> Tensor:
    return some_ids(1, tokens)[0]


def written(
    lm: LM, variants: Sequence[Sequence[Change]], seeds: Sequence[int] = (0,), tokens: int = 10, **how
) -> list[Text]:
    stop_ids = how.pop("stop_ids", ())
    heard = how.pop("heard", lambda _: None)
    return write(lm, prompt(tokens), variants, seeds, Chosen(**how), SPECIAL, heard, stop_ids)


@torch.no_grad()
def by_hand(lm: LM, variant: Sequence[Change], seed: int, tokens: int = 10, **how) -> list[int]:
    """The same text one row at a time: a whole pass without a cache for each token."""
    ids, chosen, generator = prompt(tokens).tolist(), Chosen(**how), torch.Generator().manual_seed(seed)
    for _ in range(chosen.max_tokens):
        with Changing(lm, [variant], SPECIAL) as changing:
            changing.at(torch.tensor([ids]), 0, tokens)
            logits = lm.model(torch.tensor([ids]), use_cache=False).logits[:, -1].float()
        if chosen.repetition_penalty != 1:
            logits = RepetitionPenaltyLogitsProcessor(chosen.repetition_penalty)(torch.tensor([ids]), logits)
        if chosen.temperature:
            logits = logits / chosen.temperature
            logits = TopKLogitsWarper(chosen.top_k)(None, logits) if chosen.top_k else logits
            logits = TopPLogitsWarper(chosen.top_p)(None, logits) if chosen.top_p < 1 else logits
            uniform = torch.rand(VOCABULARY, generator=generator)
            logits = logits - (-uniform.log()).log()
        ids.append(int(logits.argmax()))
    return ids[tokens:]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_text_is_that_of_transformers_in_every_family(family: str, penalty: float, load: Load) -> None:
    lm = load(family)  # and longer than the window of those whose attention has one
    (text,) = written(lm, [[]], max_tokens=20, repetition_penalty=penalty)
    ids = prompt()[None]
    expected = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, repetition_penalty=penalty,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    assert text.ids == expected[0, 10:].tolist() and text.finish == "length" and text.effects == []


HOWS = [
    {},
    {"temperature": 1.5},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("how", HOWS, ids=["likeliest", "drawn", "drawn of few"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3", "gemma2", "gemma3_text", "mistral"])
def test_changed_texts_of_a_batch_are_those_written_one_by_one_without_a_cache(
    family: str, how: dict[str, float], load: Load
) -> None:
    lm, sae, other = load(family), sae_of("topk"), sae_of("jumprelu", seed=2)
    variants = [
        [],
        [change(sae, "add", 3.0), change(other, "clamp", 2.0, name="other", hook=FIRST, scope="active")],
        [change(sae, "clamp", 2.0, scope="generated")],
        [change(sae, "scale", -4.0, scope="from:4")],
    ]
    texts = written(lm, variants, (5, 8), **how)
    expected = [by_hand(lm, variant, seed, **how) for seed in (5, 8) for variant in variants]
    assert [text.ids for text in texts] == expected
    assert len({tuple(text.ids) for text in texts}) > 2


def test_strength_0_is_token_for_token_the_baseline(load: Load) -> None:
    sae, asked = sae_of("topk"), {"temperature": 1.0, "max_tokens": 25}
    nothing = [
        [change(sae, "add", 0.0)],
        [change(sae, "add", 3.0, maximum=0.0)],  # a dead feature
        [change(sae, "scale", 1.0), change(sae, "add", 0.0, feature=9)],
    ]
    texts = written(load(), [[], *nothing], (1, 2), **asked)
    for seed in (0, 4):
        assert all(text.ids == texts[seed].ids for text in texts[seed : seed + 4])
        assert texts[seed + 3].effects == [Effect(), Effect()]
    assert texts[0].ids != texts[4].ids
    assert written(load(), nothing[:1], (1,), **asked)[0].ids == texts[0].ids


def test_rows_with_the_same_distribution_take_the_same_tokens(load: Load) -> None:
    """Pairs differ only by what was changed: here not even the variant that is computed beside it."""
    sae = sae_of()
    sae.b_enc[3] = -1e4  # it never fires
    silent = [[change(sae, "add", 9.0, scope="active")], [change(sae, "scale", 4.0)]]
    texts = written(load("gemma3_text"), [[], *silent], range(5), temperature=1.2, max_tokens=30)
    for seed in range(5):
        one, *others = texts[3 * seed : 3 * seed + 3]
        assert all(other.ids == one.ids and other.effects == [Effect()] for other in others)


def test_a_seed_gives_its_text_whatever_is_written_beside_it(load: Load) -> None:
    lm, variant = load(), [change(sae_of("topk"), "add", 2.0)]
    texts = written(lm, [[], variant], (7, 3, 7), temperature=1.0)
    assert [text.ids for text in texts[:2]] == [text.ids for text in texts[4:]]
    assert written(lm, [variant], (3,), temperature=1.0)[0].ids == texts[3].ids
    assert written(lm, [[]], (3,), temperature=1.0)[0].ids == texts[2].ids


def test_texts_written_again_are_the_same_bit_for_bit(load: Load) -> None:
    lm, variants = load("gemma2"), [[], [change(sae_of("topk"), "clamp", 2.0)]]
    assert written(lm, variants, (1, 2), temperature=1.0) == written(lm, variants, (1, 2), temperature=1.0)


def test_a_prompt_goes_through_once_for_each_variant_that_differs_and_rows_share_it(load: Load) -> None:
    lm, one = load(), change(sae_of(), "add", 2.0)
    shapes: list[tuple[int, ...]] = []
    heads: list[tuple[int, ...]] = []
    first, last = lm.model.get_input_embeddings(), lm.model.get_output_embeddings()
    with (
        first.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape))),
        last.register_forward_pre_hook(lambda _, args: heads.append(tuple(args[0].shape))),
    ):
        texts = written(lm, [[], [one], [change(one.sae, "add", 0.0)], [one]], (0, 1, 2), max_tokens=4)
    assert shapes == [(2, 10), (6, 1), (6, 1), (6, 1)]  # the last token is not read
    assert heads == [(6, 32)] * 4  # of the prompt only its last
    assert len(texts) == 12 and texts[1] == texts[3] and texts[0].ids == texts[2].ids


def test_a_long_prompt_goes_through_in_stretches(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("llama", "gemma3_text"):
        lm, variants = load(family), [[], [change(sae_of("topk"), "clamp", 3.0, scope="from:7")]]
        whole = written(lm, variants, tokens=30)
        with monkeypatch.context() as patch:
            patch.setitem(module.PASS_TOKENS, "cpu", 14)
            parts = written(lm, variants, tokens=30)
        assert [one.ids for one in parts] == [one.ids for one in whole]
        assert parts[1].effects[0].positions == whole[1].effects[0].positions == 23 + 11 - special(whole[1], 7)


def special(text: Text, first: int) -> int:
    return sum(token in SPECIAL for token in [*prompt(30).tolist()[first:], *text.ids[:-1]])


def test_effects_of_a_text_are_those_of_one_pass_over_all_of_it(load: Load) -> None:
    lm, sae = load("gpt2"), sae_of("jumprelu")
    variant = [
        change(sae, "scale", 3.0),
        change(sae, "add", 0.0),
        change(sae, "add", 1.0, scope="generated", feature=8),
    ]
    texts = written(lm, [[], variant], (0, 1), temperature=1.0)
    for text in (texts[1], texts[3]):
        ids = torch.tensor([[*prompt().tolist(), *text.ids[:-1]]])
        with torch.no_grad(), Changing(lm, [variant], SPECIAL) as changing:
            changing.at(ids, 0, 10)
            lm.model(ids)
        for one, other in zip(text.effects, changing.effects()[0], strict=True):
            assert one.positions == other.positions
            assert (one.change, one.h) == (pytest.approx(other.change, rel=1e-4), pytest.approx(other.h, rel=1e-4))
        assert text.effects[1] == Effect() and text.effects[0].positions


def test_a_text_ends_where_it_ends_and_the_others_go_on(load: Load) -> None:
    lm, said = load(), []
    variants = [[], [change(sae_of(), "add", 2.0)]]
    asked = {"seeds": (0, 1, 2), "temperature": 1.5, "max_tokens": 30}
    free = written(lm, variants, **asked)
    stop = [Counter(token for text in free for token in text.ids).most_common()[0][0], free[0].ids[4]]
    texts = written(lm, variants, **asked, stop_ids=stop, heard=lambda tokens: said.append(list(tokens)))
    ends = []
    for text, whole in zip(texts, free, strict=True):
        end = next((n for n, token in enumerate(whole.ids) if token in stop), None)
        assert text.finish == ("length" if end is None else "stop")
        assert text.ids == whole.ids[:end]  # without the token that ends it
        ends.append(30 if end is None else end)
    assert len(set(ends)) > 2 and min(ends) < 5
    assert len(said) == min(30, max(ends) + 1)
    for row, text in enumerate(texts):
        heard = [tokens[row] for tokens in said]
        assert heard == [*text.ids, *[None] * (len(said) - len(text.ids))]


def test_rows_that_have_ended_leave_the_batch(load: Load) -> None:
    lm, sizes = load(), []
    (free,) = written(lm, [[]], (0,), temperature=1.5)
    with lm.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: sizes.append(len(args[0]))):
        one, other = written(lm, [[]], (0, 1), temperature=1.5, stop_ids=[free.ids[3]])
    assert one.finish == "stop" and len(one.ids) <= 3 and other.finish == "length"
    assert sizes == [1, *[2] * len(one.ids), *[1] * (11 - len(one.ids))]


def test_a_text_may_end_before_it_begins(load: Load) -> None:
    lm = load()
    (free,) = written(lm, [[]])
    assert written(lm, [[]], stop_ids=free.ids[:1]) == [Text([], "stop", [])]


def test_a_model_may_end_with_any_of_several_tokens(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    lm = load_lm(folder)
    assert end_ids(lm) == {0, 7, 9}
    (folder / "generation_config.json").unlink()
    assert end_ids(load_lm(folder)) == {0}
    ended = [Text([], "stop", [])]
    for token in (0, 7, 9):
        lm.model.lm_head.weight.data[:] = 0
        with lm.model.lm_head.register_forward_hook(lambda *_, t=token: torch.eye(VOCABULARY)[t : t + 1]):
            assert written(lm, [[]]) == ended


class Enough(Exception):
    pass


def test_whoever_hears_may_end_it_at_a_token(load: Load) -> None:
    lm, told = load(), []

    def heard(tokens: Sequence[int | None]) -> None:
        told.append(tokens)
        if len(told) == 3:
            raise Enough

    with pytest.raises(Enough):
        written(lm, [[change(sae_of())]], heard=heard)
    assert len(told) == 3 and hooks_set(lm.model) == 0


def test_an_edit_that_is_not_made_is_an_error_and_no_text(load: Load) -> None:
    lm, variants = load(), [[], [change(sae_of(), hook="blocks.2.hook_mlp_out")]]
    block, told = lm.model.model.layers[2], []
    whole = block.forward

    def heard(tokens: Sequence[int | None]) -> None:
        told.append(tokens)
        if len(told) == 3:
            block.forward = lambda x, **_: x  # no MLP any more

    try:
        with pytest.raises(HookDidNotRun, match=r"^the edit at blocks\.2\.hook_mlp_out did not run"):
            written(lm, variants, heard=heard)
        with pytest.raises(HookDidNotRun):
            written(lm, variants)
    finally:
        block.forward = whole
    assert len(told) == 3


def test_numbers_that_are_not_finite_are_an_error(load: Load) -> None:
    with pytest.raises(NotFinite, match=r"^the model gives no finite numbers with these strengths: lower them$"):
        written(load(), [[], [change(sae_of(), "add", 1000.0, maximum=3e38)]])


@pytest.mark.parametrize("precision", ["bf16", "int8", "nf4"])
def test_texts_in_every_precision_move_with_the_strength(precision: str, load: Load) -> None:
    lm, sae = load("llama", precision), sae_of("topk")
    variants = [[], *([change(sae, "clamp", s)] for s in (-4.0, 4.0))]
    texts = written(lm, variants, temperature=1.0)
    assert len({tuple(text.ids) for text in texts}) == 3
    assert texts == written(lm, variants, temperature=1.0)
    assert all(text.effects[0].positions > 15 for text in texts[1:])


def test_only_tokens_that_the_tokenizer_has_are_written(tmp_path: Path) -> None:
    lm = load_lm(tiny_model("llama", tmp_path, vocab_size=VOCABULARY + 80, tie_word_embeddings=False))
    known = len(lm.tokenizer)
    lm.model.lm_head.weight.data[known:] *= 100
    assert known < VOCABULARY + 80
    for how in ({}, {"temperature": 1.0, "top_k": 3}):
        assert all(token < known for text in written(lm, [[]], range(3), **how) for token in text.ids)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.7), (6, 0.9), (500, 0.999)])
def test_tokens_are_drawn_as_often_as_they_are_likely(top_k: int, top_p: float, load: Load) -> None:
    logits, draws = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0)), 20_000
    chosen = Chosen(temperature=0.8, top_k=top_k, top_p=top_p)
    chooser = module._Chooser(load(), chosen, prompt(), range(draws))
    found = torch.bincount(torch.tensor(chooser.choose(logits.expand(draws, -1), range(draws))), minlength=VOCABULARY)
    scores = logits / 0.8
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    scores = TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores
    p = scores.softmax(1)[0]
    assert not found[p == 0].any()
    chi = ((found - draws * p).square() / (draws * p))[p > 0].sum()
    many = int((p > 0).sum()) - 1
    assert many > 1 and chi < many + 5 * (2 * many) ** 0.5


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_next_to_no_temperature_takes_the_likeliest_token(temperature: float, top_p: float, load: Load) -> None:
    cold = written(load(), [[]], temperature=temperature, top_p=top_p)
    assert cold[0].ids == written(load(), [[]])[0].ids


def test_the_context_can_be_used_up_to_its_last_token(load: Load) -> None:
    (text,) = written(load("gpt2"), [[]], tokens=10, max_tokens=CONTEXT - 10)
    assert len(text.ids) == CONTEXT - 10


def test_little_work_is_done_by_one_thread_and_then_there_are_as_many_as_before(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def heard(_tokens: object) -> None:
        seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for most in (module.ALONE, 0):
            monkeypatch.setattr(module, "ALONE", most)
            write(load(), prompt(), [[]], [0], Chosen(max_tokens=1), SPECIAL, heard)
        assert seen == [1, 2] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_a_changed_text_is_changed_where_it_was_said(load: Load) -> None:
    lm, one = load(), change(sae_of(), "add", 4.0, scope="generated")
    text = written(lm, [[one]])[0]
    ids = torch.tensor([[*prompt().tolist(), *text.ids]])
    with Changing(lm, [[one]], SPECIAL) as changing, capture(lm.model, [HOOK]) as under:
        changing.at(ids, 0, 10)
        lm.model(ids)
    with capture(lm.model, [HOOK]) as plain:
        lm.model(ids)
    assert torch.equal(under[HOOK][:, :10], plain[HOOK][:, :10])
