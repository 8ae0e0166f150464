"""The training loop on planted dictionaries, its resumption and its schedule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mistudiod.engine import checkpoint
from mistudiod.engine.architectures import ARCHITECTURES, TrainingSae
from mistudiod.engine.architectures.step import Settings, Shape, StepResult
from mistudiod.engine.schedule import Schedule, automatic_lr, dead_after_tokens, plan
from mistudiod.engine.train import Training, fit
from mistudiod.engine.trainer import Diverged, Trainer, View
from mistudiod.paths import publish

D_IN, ATOMS, ACTIVE = 24, 48, 3


def planted_atoms():
    atoms = torch.randn(ATOMS, D_IN, generator=torch.Generator().manual_seed(1))
    return atoms / atoms.norm(dim=1, keepdim=True)


class Planted:
    """Batches of sums of a few planted atoms with positive weights; batch i is the same whenever it is asked for."""

    def __init__(self, batch_tokens=256):
        self.atoms, self.batch_tokens, self.i = planted_atoms(), batch_tokens, 0

    def state(self):
        return {"i": self.i}

    def load(self, state):
        self.i = state["i"]

    def __next__(self):
        generator = torch.Generator().manual_seed(1000 + self.i)
        self.i += 1
        chosen = torch.rand(self.batch_tokens, ATOMS, generator=generator).topk(ACTIVE, dim=1).indices
        weights = torch.rand(self.batch_tokens, ACTIVE, generator=generator) + 0.5
        return torch.zeros(self.batch_tokens, ATOMS).scatter_(1, chosen, weights) @ self.atoms


class Scripted:
    """The given batches, then no more."""

    def __init__(self, *batches):
        self.batches, self.i = batches, 0

    def state(self):
        return {"i": self.i}

    def load(self, state):
        self.i = state["i"]

    def __next__(self):
        self.i += 1
        batch = self.batches[self.i - 1]
        if isinstance(batch, BaseException):
            raise batch
        return batch


def trainer(name="topk", steps=40, lr=3e-3, width=ATOMS, seed=0, dead_after_tokens=10**9, **options):
    settings = Settings(ACTIVE, dead_after_tokens, **options)
    sae = ARCHITECTURES[name].init(Shape(D_IN, width, D_IN), settings, seed)
    view = View(slice(0, D_IN), 1.5)
    sae.prepare(view.of(next(Planted())))
    return Trainer(sae, Schedule(steps, lr), view)


def training(steps=40, batches=None, **kwargs):
    return Training([trainer(steps=steps, **kwargs)], batches or Planted())


def silent(step, metrics):
    pass


def nothing():
    pass


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("topk", {}),
        ("batchtopk", {}),
        ("matryoshka", {}),
        ("jumprelu", {}),
        ("jumprelu", {"tanh": 0.05}),
        ("standard", {"l1": 0.3}),
        ("gated", {"l1": 0.4}),
    ],
)
def test_training_recovers_a_planted_dictionary(name, options):
    run = training(name=name, steps=400, lr=1e-2, width=2 * ATOMS, **options)
    fit(run, silent, nothing, checkpoint_every_s=1e9)
    cosines = planted_atoms() @ run.trainers[0].sae.params["W_dec"].t()
    assert cosines.max(dim=1).values.mean() > 0.9
    assert run.metrics()[0]["fvu"] < 0.2


def test_decoder_rows_keep_unit_norm():
    run = training()
    fit(run, silent, nothing, checkpoint_every_s=1e9)
    norms = run.trainers[0].sae.params["W_dec"].norm(dim=1)
    assert torch.allclose(norms, torch.ones(ATOMS), atol=1e-5)


@pytest.mark.parametrize("stop_at", [1, 20, 39])
def test_resumed_training_ends_bit_equal_to_one_that_was_not_stopped(tmp_path, stop_at):
    # few tokens make a latent dead here, so that AuxK and its counters are resumed as well
    straight = training(dead_after_tokens=600, width=4 * ATOMS)
    fit(straight, silent, nothing, checkpoint_every_s=1e9)

    first = training(dead_after_tokens=600, width=4 * ATOMS)
    for _ in range(stop_at):
        first.advance()
    checkpoint.save(tmp_path, first.step, first.tensors(), first.about(), publish)
    found = checkpoint.latest(tmp_path)
    second = training(dead_after_tokens=600, width=4 * ATOMS)
    second.load(found.tensors, found.about)
    fit(second, silent, nothing, checkpoint_every_s=1e9)

    assert second.step == straight.step == 40
    assert equal(second.tensors(), straight.tensors())
    assert second.metrics()[0]["loss"] == straight.metrics()[0]["loss"]


def test_several_saes_on_the_same_batches_become_what_each_becomes_alone():
    kinds = [{"name": "topk"}, {"name": "batchtopk", "width": 30, "seed": 3}, {"name": "jumprelu", "lr": 1e-2}]
    together = Training([trainer(**kind) for kind in kinds], Planted())
    fit(together, silent, nothing, checkpoint_every_s=1e9)
    for kind, one in zip(kinds, together.trainers, strict=True):
        alone = Training([trainer(**kind)], Planted())
        fit(alone, silent, nothing, checkpoint_every_s=1e9)
        assert equal(alone.trainers[0].tensors(), one.tensors())
    assert len(together.metrics()) == 3


def test_the_same_seed_gives_the_same_bits():
    one, other = training(), training()
    for run in (one, other):
        fit(run, silent, nothing, checkpoint_every_s=1e9)
    assert equal(one.tensors(), other.tensors())


def moment_after(size):
    """Adam's first moment after a gradient whose every number is ``size``, and that gradient's norm."""
    run = training(lr=1.0)
    grads = {name: torch.full_like(value, size) for name, value in run.trainers[0].sae.params.items()}
    norm, none = torch.tensor(size * math.sqrt(sum(value.numel() for value in grads.values()))), torch.zeros(())
    run.trainers[0]._adam.update(StepResult(none, none, none, none, norm, grads, None), 1.0)
    return run.tensors()["0.adam.b_dec.exp_avg"], norm


def test_a_large_gradient_is_clipped():
    moment, norm = moment_after(5.0)
    assert torch.allclose(moment, 0.1 * TrainingSae.clip_norm * 5.0 / norm.expand_as(moment), rtol=1e-4)


def test_a_small_gradient_is_not_scaled_up():
    moment, _ = moment_after(1e-6)
    assert torch.allclose(moment, torch.full_like(moment, 1e-7), rtol=1e-4)


def test_checkpoints_are_saved_as_often_as_asked_and_at_the_end():
    run, saved = training(steps=6), []
    fit(run, silent, lambda: saved.append(run.step), checkpoint_every_s=1e-9)
    assert saved == [1, 2, 3, 4, 5, 6]
    run, saved = training(steps=6), []
    fit(run, silent, lambda: saved.append(run.step), checkpoint_every_s=1e9)
    assert saved == [6]


def test_metrics_say_what_was_trained():
    run, heard = training(steps=30), {}
    fit(run, lambda step, values: heard.__setitem__(step, values[0]), nothing, checkpoint_every_s=1e9)
    assert {1, 30} <= heard.keys()
    last = heard[30]
    told = {"loss", "fvu", "l0", "alive", "dead", "grad_norm", "lr", "tokens", "tokens_per_s"}
    assert last.keys() == told
    assert last["alive"] == 1
    assert 0 < last["grad_norm"] < math.inf
    assert last["tokens"] == 30 * 256
    assert 0 < last["l0"] <= ACTIVE
    assert last["dead"] == 0
    assert last["fvu"] < heard[1]["fvu"]


def test_a_loss_that_is_no_number_ends_training_before_it_is_saved():
    good = next(Planted())
    run, saved = training(batches=Scripted(good, good * math.nan)), []
    with pytest.raises(Diverged, match="step 2"):
        fit(run, silent, lambda: saved.append(run.step), checkpoint_every_s=1e-9)
    assert saved == [1]


def test_an_end_asked_for_while_harvesting_leaves_a_state_to_save():
    good = next(Planted())
    run = training(batches=Scripted(good, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fit(run, silent, nothing, checkpoint_every_s=1e9)
    assert run.whole
    assert run.step == 1
    assert run.batches.state() == {"i": 1}


def test_a_step_that_breaks_off_half_way_is_not_whole():
    run = training(batches=Scripted(torch.zeros(4, D_IN - 1)))
    with pytest.raises(RuntimeError):
        run.advance()
    assert not run.whole


def test_learning_rate_warms_up_stays_and_decays_to_zero():
    rates = [Schedule(100, 1.0).lr(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4:81] == [1.0] * 77
    assert rates[-1] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[80:]))
    assert Schedule(1, 1.0).lr(0) == 1.0


def test_steps_cover_the_tokens_or_are_given():
    assert plan(2048, 4096, tokens=2_000_000).steps == 489
    assert plan(2048, 4096, tokens=1).steps == 1
    assert plan(2048, 4096, tokens=2_000_000, steps=7).steps == 7
    assert plan(2048, 4096, tokens=1, lr=0.5).peak_lr == 0.5


def test_automatic_learning_rate_falls_with_width_and_with_the_length_of_the_run():
    assert automatic_lr(16_384, 1_000_000) == pytest.approx(2e-4)
    assert automatic_lr(65_536, 1_000_000) == pytest.approx(1e-4)
    assert 1e-3 < automatic_lr(2048, 489) <= 6e-3
    assert automatic_lr(16_384, 489) < automatic_lr(2048, 489)


def test_a_short_run_sees_dead_latents_too():
    assert dead_after_tokens(steps=1221, batch_tokens=4096) == 122 * 4096  # of 5 M tokens
    assert dead_after_tokens(steps=10, batch_tokens=4096) == 20 * 4096
    assert dead_after_tokens(steps=1_000_000, batch_tokens=4096) == 10_000_000
