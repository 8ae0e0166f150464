"""Live features: which are shown, where they are strongest, how their text is cut, and that nothing is changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoencoders import batch, new, perturbed
from tiny_models import LINES, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models
from torch import Tensor

from mistudiod.engine import live as module
from mistudiod.engine.activations import Harvest
from mistudiod.engine.architectures import ARCHITECTURES, TrainingSae
from mistudiod.engine.live import FEATURES, Live, Shown, dense_latents
from mistudiod.engine.lm import load_lm
from mistudiod.engine.pieces import Pieces
from mistudiod.engine.schedule import Schedule
from mistudiod.engine.splice import Splice
from mistudiod.engine.trainer import Trainer, View
from mistudiod.worker.train_watch import Watch, evaluate_tokens

T = 8  # tokens in a window


@pytest.fixture(autouse=True)
def anything_that_fires_is_moderate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoencoders of these tests are so small that all their latents are dense."""
    monkeypatch.setattr(module, "MODERATE", (0.001, 0.9))


def places(tokens: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + tokens)


def look(live: Live, sae: TrainingSae, x: Tensor, where: Tensor, scale: float = 1.0) -> list[Shown]:
    """At a batch that the SAE, shown it ``scale`` times as large, has just been trained on."""
    trainer = Trainer(sae, Schedule(1, 0.0), View(slice(0, sae.d_in), scale))
    trainer.advance(0, x / scale, None)
    return live.look(trainer, x / scale, where)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_latents_are_those_of_the_sae_that_would_be_saved(name: str) -> None:
    sae = perturbed(name, k=4)
    x, _ = batch(sae, 200, 3)
    sae.loss_and_grads(x, batch(sae, 200, 3)[1])
    expected = sae.to_sae(1, {}).encode(x)
    torch.testing.assert_close(dense_latents(sae, x), expected, rtol=1e-5, atol=1e-6)


def test_a_look_shows_eight_living_features_with_their_strongest_windows() -> None:
    sae = perturbed("topk", k=4)
    x, _ = batch(sae, 200, 3)
    live = Live(sae.d_sae, T)
    shown = look(live, sae, x, places(200), 2.0)
    latents = dense_latents(sae, x) / 2
    assert len({one.feature for one in shown}) == FEATURES
    for one in shown:
        values = latents[:, one.feature]
        assert one.density == pytest.approx((values > 0).double().mean().item())
        best = values.view(-1, T).max(1).values.sort(descending=True).values[:5]
        assert [value for value, _ in one.strongest] == pytest.approx([v for v in best.tolist() if v > 0])
        for value, where in one.strongest:
            assert values[where].item() == pytest.approx(value)
        assert len({where // T for _, where in one.strongest}) == len(one.strongest)


def test_the_strongest_windows_so_far_are_kept_while_the_weights_stay() -> None:
    sae = perturbed("batchtopk", k=4)
    x, _ = batch(sae, 400, 3)
    sae.loss_and_grads(x)
    live, at_once = Live(sae.d_sae, T), {}
    for start in range(0, 400, 100):
        shown = look(live, sae, x[start : start + 100], places(100, start))
    latents = dense_latents(sae, x)
    for one in shown:
        by_window = latents[:, one.feature].view(-1, T).max(1).values.sort(descending=True).values
        at_once[one.feature] = [v for v in by_window[:5].tolist() if v > 0]
        assert [value for value, _ in one.strongest] == pytest.approx(at_once[one.feature])
    assert any(where < 300 for one in shown for _, where in one.strongest)


def test_what_is_kept_is_valued_by_the_weights_of_now() -> None:
    sae = perturbed("standard", l1=0.1)
    x, _ = batch(sae, 100, 3)
    live = Live(sae.d_sae, T)
    before = look(live, sae, x, places(100))
    sae.params["b_enc"] -= 0.2
    after = look(live, sae, sae.params["b_dec"][None].clone(), places(1, 10**6))
    for one, then in zip(after, before, strict=True):
        assert one.feature == then.feature
        expected = [(value - 0.2, where) for value, where in then.strongest if value > 0.2]
        assert [where for _, where in one.strongest] == [where for _, where in expected]
        assert [value for value, _ in one.strongest] == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_features_stay_until_they_die_and_are_then_replaced() -> None:
    sae = perturbed("topk", k=4, dead_after_tokens=1000)
    live = Live(sae.d_sae, T, 3)
    first = [one.feature for one in look(live, sae, batch(sae, 200, 3)[0], places(200))]
    again = [one.feature for one in look(live, sae, batch(sae, 200, 4)[0], places(200, 200))]
    assert again == first
    sae.tokens_since_fired[first[2]] = 1000
    sae.params["b_enc"][first[2]] = -1e6
    third = [one.feature for one in look(live, sae, batch(sae, 200, 5)[0], places(200, 400))]
    assert third[:2] + third[3:] == first[:2] + first[3:] and third[2] not in first


def test_the_seed_decides_which_features_are_shown() -> None:
    def chosen(seed: int) -> list[int]:
        sae = perturbed("topk", k=4)
        shown = look(Live(sae.d_sae, T, seed), sae, batch(sae, 200, 3)[0], places(200))
        return [one.feature for one in shown]

    assert chosen(0) == chosen(0) != chosen(1)


def test_features_of_moderate_density_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODERATE", (0.001, 0.03))
    sae = perturbed("topk", k=4)
    x, _ = batch(sae, 256, 3)
    density = (dense_latents(sae, x) > 0).double().mean(0)
    moderate = ((density > 0.001) & (density <= 0.03)).sum()
    shown = look(Live(sae.d_sae, T), sae, x, places(256))
    assert moderate > 0
    assert sum(density[one.feature].item() <= 0.03 for one in shown) == min(FEATURES, int(moderate))


def test_while_nothing_fires_nothing_is_shown() -> None:
    sae = new("standard")
    sae.params["b_enc"] -= 1e6
    assert look(Live(sae.d_sae, T), sae, batch(sae, 50, 1)[0], places(50)) == []


# -- text ------------------------------------------------------------------------------------------------------------


def decode(ids: list[int]) -> str:
    return str(tiny_tokenizer().decode(ids))


@pytest.mark.parametrize("text", ["def a(): return 'é€😀 ü'", "😀" * 6, "a€b", "plain text only"])
def test_characters_are_never_cut_and_the_pieces_make_up_the_text(text: str) -> None:
    ids = tiny_tokenizer()(text)["input_ids"]
    assert "😀" not in text or any("\ufffd" in decode([one]) for one in ids)  # characters are spread over tokens
    for position in range(len(ids)):
        before, token, after = Pieces(decode, [0], around=100).at(ids, position)
        assert before + token + after == text and token and "\ufffd" not in before + token + after


def test_a_part_of_the_text_begins_and_ends_with_whole_characters() -> None:
    ids = tiny_tokenizer()("😀€é" * 8)["input_ids"]
    for position in range(len(ids)):
        before, token, after = Pieces(decode, [0], around=4).at(ids, position)
        assert "\ufffd" not in before + token + after and before + token + after in "😀€é" * 8


def test_text_ends_at_special_tokens_and_ten_tokens_away() -> None:
    ids = [0, *tiny_tokenizer()("abcdefghijklmnopqrstuvwxyz0123456789")["input_ids"], 0, 40, 41]
    assert Pieces(decode, [0], around=3).at(ids, 2) == (decode(ids[1:2]), decode(ids[2:3]), decode(ids[3:6]))
    before, _, after = Pieces(decode, [0]).at(ids, len(ids) - 5)
    assert before == decode(ids[len(ids) - 15 : len(ids) - 5]) and after == decode(ids[len(ids) - 4 : len(ids) - 3])
    assert Pieces(decode, [0]).at(ids, len(ids) - 2)[0] == ""


def test_bytes_of_a_sentencepiece_model_are_put_together() -> None:
    vocabulary = {"▁the": 0, "▁": 1, **{f"<0x{byte:02X}>": 2 + byte for byte in range(256)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    ids = [0, 1, *(2 + byte for byte in "€".encode()), 0]
    for position in (2, 3, 4):
        assert Pieces(tokenizer.decode, []).at(ids, position) == ("the ", "€", " the")


# -- in a training ---------------------------------------------------------------------------------------------------


class Rows:
    """Windows of text that begin with BOS, token 0."""

    context, special_ids = T, [0]

    def __init__(self) -> None:
        ids = tiny_tokenizer()("".join(LINES))["input_ids"] * 9
        self.all = np.zeros((40, T), dtype=np.int64)
        self.all[:, 1:] = np.array(ids)[: 40 * (T - 1)].reshape(40, T - 1)

    def rows(self, indices: Any) -> Any:
        return self.all[np.asarray(indices)]

    def special_mask(self, rows: Any) -> Any:
        return rows == 0


HOOKS = {
    "batchtopk": ("blocks.1.hook_resid_post", None),
    "transcoder": ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"),
}


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_training_that_is_watched_has_the_same_bits(name: str, whole: bool, tmp_path: Path) -> None:
    lm = load_lm(tiny_model("llama", tmp_path / "tiny"), layers=None if whole else 2)
    hook, out = HOOKS[name]
    hooks = [hook, *([out] if out else [])]
    windows = Rows()
    harvest = Harvest(windows, lambda ids: torch.cat(lm.activations_at(ids, hooks), dim=-1), [32] * len(hooks))
    splice = Splice(lm, windows, np.arange(30, 40), hooks) if whole else None
    ends, told = [], []
    for watched in (False, True):
        sae = new(name, d_in=32, d_out=32, k=4)
        trainer = Trainer(sae, Schedule(30, 1e-2), View(slice(0, 32), 2.0), View(slice(32, 64), 3.0) if out else None)
        watch = Watch([(hook, out)], harvest, windows, range(30, 40), lm, splice=splice)  # type: ignore[arg-type]
        torch.manual_seed(0)
        for step in range(30):
            x = torch.cat(list(harvest.batches(np.arange(step % 30, step % 30 + 1))))
            trainer.advance(step, x, None)
            if watched and step % 3 == 0:
                evaluated = watch.evaluate(0, trainer)
                where = torch.arange(len(x)) + 1 + (step % 30) * T
                found = watch.live(0, trainer, x, where)
                told += [found] if found is not None else []
                watch._next.clear()
        trainer._adam.zero_grad()
        ends.append({one: tensor.clone() for one, tensor in trainer.tensors().items()})
        ends[-1]["random"] = torch.random.get_rng_state()
    assert all(torch.equal(ends[0][one], ends[1][one]) for one in ends[0])
    assert all((evaluated[one] is None) != whole for one in ("ce_delta", "kl", "ce_clean"))
    assert all(evaluated[one] > 0 for one in ("eval_fvu", "eval_l0", "eval_cosine"))  # type: ignore[operator]
    features = told[-1]
    assert len(told) == 10 and 0 < len(features) <= FEATURES
    texts = windows.all
    for one in features:
        assert set(one) == {"feature", "density", "windows"}
        for window in one["windows"]:
            assert window["value"] > 0 and any(
                window["before"] + window["token"] + window["after"] in decode(row.tolist()) for row in texts
            )


def test_evaluated_figures_are_those_of_the_saved_sae(tmp_path: Path) -> None:
    lm = load_lm(tiny_model("llama", tmp_path / "tiny"))
    hook, windows = "blocks.1.hook_resid_post", Rows()
    harvest = Harvest(windows, lambda ids: lm.activations(ids, hook), [32])
    trainer = Trainer(perturbed("topk", d_in=32, k=4), Schedule(30, 1e-2), View(slice(0, 32), 2.0))
    part = Watch([(hook, None)], harvest, windows, range(30, 40), lm)  # type: ignore[arg-type]
    whole = copy.copy(part)
    whole._splice = Splice(lm, windows, np.arange(30, 40), [hook])
    x = torch.cat(list(harvest.batches(np.arange(30, 40))))
    y = (sae := trainer.to_sae({})).decode(sae.encode(x))
    fvu = ((x - y).square().sum() / (x - x.mean(0)).square().sum()).item()
    assert part.evaluate(0, trainer)["eval_fvu"] == pytest.approx(fvu, rel=1e-4)
    assert whole.evaluate(0, trainer)["eval_fvu"] == pytest.approx(fvu, rel=1e-2)  # of values that nothing has rounded


def test_looking_takes_no_more_than_its_share_of_the_time(tmp_path: Path) -> None:
    lm = load_lm(tiny_model("llama", tmp_path / "tiny"))
    hook, windows = "blocks.1.hook_resid_post", Rows()
    harvest = Harvest(windows, lambda ids: lm.activations(ids, hook), [32])
    trainer = Trainer(perturbed("topk", d_in=32, k=4), Schedule(30, 1e-2), View(slice(0, 32), 2.0))
    watch = Watch([(hook, None)] * 2, harvest, windows, range(30, 40), lm)  # type: ignore[arg-type]
    x = torch.cat(list(harvest.batches(np.arange(0, 10))))
    assert watch.live(0, trainer, x, places(len(x))) is not None
    assert watch.live(0, trainer, x, places(len(x))) is None
    assert watch.live(1, trainer, x, places(len(x))) is not None


def test_a_short_training_is_evaluated_on_less_text() -> None:
    assert [evaluate_tokens(tokens) for tokens in (10_000, 1_200_000, 10**9)] == [512, 1_200, 4_096]
