"""What is measured of steered texts, held against whole passes over prompt and text and their logits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steered import HOOK, SPECIAL, Chosen, change, sae_of, some_ids
from tiny_models import D_MODEL, FAMILIES, tiny_model
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from mistudiod.engine import effects
from mistudiod.engine import lm as lm_module
from mistudiod.engine.edits import Change, Changing
from mistudiod.engine.effects import changed, measure, repetition
from mistudiod.engine.hooks import capture
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.write import Text, write

Load = Callable[..., LM]
PROMPT = some_ids(1, 10)[0]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    made: dict[tuple[str, str], LM] = {}

    def get(family: str = "llama", precision: str = "fp32") -> LM:
        if (family, precision) not in made:
            folder = tiny_model(family, tmp_path_factory.mktemp(family))
            made[family, precision] = load_lm(folder, precision=precision)
        return made[family, precision]

    return get


def written(lm: LM, variants: Sequence[Sequence[Change]], seeds: Sequence[int] = (0, 1)) -> list[Text]:
    texts = write(lm, PROMPT, variants, seeds, Chosen(16, 1.3), SPECIAL, lambda _: None)
    # of other lengths, and with a special token among them
    return [Text([*text.ids[: 6 + 3 * (n % 4)], 0, 7], text.finish, text.effects) for n, text in enumerate(texts)]


@torch.no_grad()
def whole(lm: LM, variant: Sequence[Change], text: Text, hook: str) -> tuple[Tensor, Tensor]:
    """ln p before each token of a text (n, vocabulary), and the values at the hook on it: one pass over it all."""
    ids = torch.tensor([[*PROMPT.tolist(), *text.ids]])
    with Changing(lm, [variant], SPECIAL) as changing, capture(lm.model, [hook]) as values:
        changing.at(ids, 0, len(PROMPT))
        logits = lm.model(ids, use_cache=False).logits
    return log_softmax(logits[0, len(PROMPT) - 1 : -1].double(), -1), values[hook][0, len(PROMPT) :]


def activations(one: Change, x: Tensor, text: Text) -> dict[str, Any]:
    latents = one.sae.encode(x.float())[[token not in SPECIAL for token in text.ids], one.feature]
    mean, largest = (pytest.approx(value.item(), rel=1e-4, abs=1e-5) for value in (latents.mean(), latents.amax()))
    return {"sae": one.name, "feature": one.feature, "mean": mean, "max": largest}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_measured_is_what_whole_passes_say_in_every_family(family: str, load: Load) -> None:
    lm = load(family)
    one, two = (
        change(sae_of("topk"), "clamp", 3.0),
        change(sae_of(seed=4), "add", 2.0, name="t", feature=9, scope="generated"),
    )
    out = change(sae_of("jumprelu", d_out=D_MODEL), "scale", -5.0, hook="blocks.2.mlp.hook_in",
                 hook_out="blocks.2.hook_mlp_out", name="u")  # fmt: skip
    variants = [[], [one, two], [out, two], [two]]
    texts = written(lm, variants)
    for n, (text, found) in enumerate(zip(texts, measure(lm, PROMPT, texts, variants, SPECIAL), strict=True)):
        variant, targets = variants[n % 4], torch.tensor(text.ids)[:, None]
        plain = {one.hook: whole(lm, [], text, one.hook) for one in (one, two, out)}
        loss = -plain[HOOK][0].gather(1, targets).mean()
        assert found["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-4)
        assert found["activations"] == [activations(one, plain[one.hook][1], text) for one in (one, two, out)]
        if not variant:
            assert found.keys() == {"perplexity", "repetition", "activations"}
            continue
        steered = {one.hook: whole(lm, variant, text, one.hook) for one in (one, two, out)}
        kl = kl_div(plain[HOOK][0], steered[HOOK][0], reduction="none", log_target=True).sum(1)
        assert found["kl_tokens"] == pytest.approx(kl.tolist(), rel=1e-3, abs=1e-5) and len(kl) == len(text.ids)
        assert found["kl"] == pytest.approx(kl.mean().item(), rel=1e-3) and found["kl"] > 0.001
        assert found["steered_activations"] == [activations(one, steered[one.hook][1], text) for one in (one, two, out)]
        assert found["changed"] == changed(texts[n - n % 4].ids, text.ids)
    json.dumps(measure(lm, PROMPT, texts, variants, SPECIAL), allow_nan=False)


def test_a_clamped_feature_is_read_back_as_it_was_set(load: Load) -> None:
    """Where the encoder reads what the decoder writes, and nothing else does."""
    sae = sae_of()
    sae.W_enc[:, 3] = sae.W_dec[3] / sae.W_dec[3].square().sum()
    sae.W_dec[3] = sae.W_enc[:, 3] / sae.W_enc[:, 3].square().sum()
    variants = [[], *([change(sae, "clamp", strength)] for strength in (0.5, 1.0, 4.0))]
    found = measure(load(), PROMPT, written(load(), variants), variants, SPECIAL)
    for strength, one in zip((0.5, 1.0, 4.0), found[1:4], strict=True):
        (read,) = one["steered_activations"]
        assert read["mean"] == pytest.approx(2.5 * strength, rel=0.5) and read["max"] >= 2.5 * strength - 1e-3
    assert found[1]["kl"] < found[2]["kl"] < found[3]["kl"]


def test_kl_of_the_model_and_itself_is_0(load: Load) -> None:
    sae = sae_of("topk")
    variants = [[], [change(sae, "add", 0.0)], [change(sae, "add", 2.0, maximum=0.0), change(sae, "scale", 1.0)]]
    baseline, *others = measure(load(), PROMPT, written(load(), variants)[:3], variants, SPECIAL)
    for n, one in enumerate(others):
        text = written(load(), variants)[n + 1]
        assert one["kl"] == 0 and one["kl_tokens"] == [0] * len(text.ids)
        assert one["steered_activations"] == one["activations"]
    assert "kl" not in baseline and "changed" not in baseline


@pytest.mark.parametrize("precision", ["bf16", "int8", "nf4"])
def test_texts_are_measured_in_every_precision(precision: str, load: Load) -> None:
    lm, variants = load("llama", precision), [[], [change(sae_of("gated"), "add", 3.0)]]
    for one in measure(lm, PROMPT, written(lm, variants), variants, SPECIAL)[1::2]:
        assert one["kl"] > 0.001 and one["perplexity"] > 1
        assert all(math.isfinite(value) for value in one["kl_tokens"])


def test_pieces_and_smaller_batches_say_the_same(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, variants = load("gemma3_text"), [[], [change(sae_of("topk"), "clamp", 3.0)], [change(sae_of(), name="t")]]
    texts = written(lm, variants)
    at_once = measure(lm, PROMPT, texts, variants, SPECIAL)
    monkeypatch.setattr(lm_module, "LOGIT_ELEMENTS", 3 * lm.facts.vocab_size)
    monkeypatch.setitem(effects.PASS_TOKENS, "cpu", 25)
    assert lm.logit_rows == 3
    for one, other in zip(measure(lm, PROMPT, texts, variants, SPECIAL), at_once, strict=True):
        assert one["perplexity"] == pytest.approx(other["perplexity"], rel=1e-5)
        assert one.get("kl_tokens", []) == pytest.approx(other.get("kl_tokens", []), rel=1e-3, abs=1e-6)


def test_of_a_text_without_tokens_nothing_is_known(load: Load) -> None:
    sae, nothing = sae_of(), [{"sae": "s", "feature": 3, "mean": None, "max": None}]
    variants = [[], [change(sae)]]
    texts = [Text([], "stop", []), Text([], "stop", []), Text([5, 6], "stop", []), Text([0], "stop", [])]
    none, empty, short, special = measure(load(), PROMPT, texts, variants, SPECIAL)
    assert none == {"perplexity": None, "repetition": None, "activations": nothing}
    assert empty == none | {"kl": None, "kl_tokens": [], "changed": None, "steered_activations": nothing}
    assert short["perplexity"] > 1 and short["repetition"] is None
    assert special["kl"] > 0 and special["activations"] == special["steered_activations"] == nothing


def test_without_a_baseline_it_is_not_known_what_was_changed(load: Load) -> None:
    variants = [[change(sae_of())]]
    (found,) = measure(load(), PROMPT, [Text([3, 4, 5], "length", [])], variants, SPECIAL)
    assert found["changed"] is None and found["kl"] > 0


def test_numbers_that_are_not_finite_are_absent(load: Load) -> None:
    variants = [[change(sae_of(), "add", 1000.0, maximum=3e38)]]
    (found,) = measure(load(), PROMPT, [Text([3, 4], "length", [])], variants, SPECIAL)
    assert found["kl"] is None and found["perplexity"] > 1
    json.dumps(found, allow_nan=False)


def test_repetition_is_the_share_of_four_tokens_that_were_there_before() -> None:
    assert repetition([1, 2, 3]) is None
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([1] * 13) == 0.9
    assert repetition([1, 2, 3, 4, 9, 1, 2, 3, 4]) == pytest.approx(1 / 6)


def test_changed_is_the_share_of_tokens_that_the_baseline_does_not_have_there() -> None:
    assert changed([1, 2, 3, 4], [1, 2, 3, 4]) == 0
    assert changed([1, 2, 3, 4], [5, 6, 7, 8]) == 1
    assert changed([1, 2, 3, 4], [1, 2, 9, 4]) == 0.25
    assert changed([1, 2, 3], [9, 1, 2, 3]) == 0.25  # a shift is one token
    assert changed([1], []) is None and changed([], [1]) == 1


def in_common(one: list[int], other: list[int]) -> int:
    """Length of the longest common subsequence, by the table of the textbook."""
    above = [0] * (len(other) + 1)
    for token in one:
        row = [0]
        for n, candidate in enumerate(other):
            row.append(above[n] + 1 if token == candidate else max(above[n + 1], row[n]))
        above = row
    return above[-1]


@given(st.lists(st.integers(0, 4), max_size=70), st.lists(st.integers(0, 4), min_size=1, max_size=70))
def test_what_was_not_changed_is_the_longest_common_subsequence(one: list[int], other: list[int]) -> None:
    assert changed(one, other) == 1 - in_common(one, other) / len(other)


def test_texts_that_repeat_themselves_are_compared_as_fast_as_others() -> None:
    began = time.process_time()
    assert changed([1] * 4096, [1, 2] * 2048) == 0.5
    assert time.process_time() - began < 2


@given(st.lists(st.integers(0, 4), max_size=40), st.lists(st.integers(0, 4), max_size=40))
def test_shares_are_shares(one: list[int], other: list[int]) -> None:
    for share in (repetition(one), changed(one, other)):
        assert share is None or 0 <= share <= 1
