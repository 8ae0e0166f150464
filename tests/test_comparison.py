"""What is said of SAEs on the same documents: who is better at what, what may be chance, and who dominates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mistudiod.engine.by_document import Bootstrap, LossSums, Sums
from mistudiod.engine.comparison import Measured, better, differences, dominates, estimate, together, verdict

UNITS = 60


def sae(
    name: str, lost: float = 1.0, l0: float = 8.0, noise: float = 0.0, delta: float = 0.1, seed: int = 0
) -> Measured:
    """Hard documents are hard for every SAE; ``noise`` is its own."""
    shared, own = np.random.default_rng(7), np.random.default_rng(seed)
    tokens, hardness = shared.integers(20, 80, UNITS).astype(float), shared.uniform(0.2, 2.0, UNITS)
    about = shared.normal(size=(UNITS, 3))
    off = 1 + noise * own.normal(size=UNITS)
    sums = Sums(
        tokens=tokens, squares=tokens * 10, about=about, lost=lost * tokens * hardness * off, cosine=tokens * 0.9,
        l2_ratio=tokens * 0.9, rebuilt=tokens * 9, products=tokens * 9, l0=tokens * l0, l1=tokens,
    )  # fmt: skip
    clean = tokens * 3
    spliced = clean + tokens * delta * hardness * off
    losses = LossSums(tokens, clean, spliced, tokens * 0.5 * delta * hardness * off, clean * 4, clean * 3)
    return Measured(name, "blocks.1.hook_resid_post", sums, losses)


def of(a: Measured, b: Measured, units: int = UNITS) -> tuple[dict[str, dict], list[str]]:  # type: ignore[type-arg]
    bootstrap = Bootstrap(units)
    found = differences(a, b, bootstrap, bootstrap)
    l0 = tuple(float(estimate(one.figures()["l0"], bootstrap)["value"]) for one in (a, b))
    return found, verdict(a, b, (l0[0], l0[1]), found, units)


def test_one_is_indistinguishable_from_itself() -> None:
    found, said = of(sae("a"), sae("b"))
    assert all(one["value"] == 0 and one["interval"] == [0, 0] for one in found.values())
    assert said == [
        "a and b are indistinguishable on this data: what they differ by may be 0 (FVU 0 to 0, ΔCE 0 to 0 nats, KL 0 "
        "to 0 nats)."
    ]


def test_what_chance_may_have_made_is_said_to_be_so() -> None:
    found, said = of(sae("a", noise=0.3, seed=1), sae("b", noise=0.3, seed=2))
    low, high = found["fvu"]["interval"]
    assert low < 0 < high
    assert len(said) == 1
    assert said[0].startswith("a and b are indistinguishable on this data")


def test_what_rounding_makes_is_no_difference() -> None:
    found, said = of(sae("a"), sae("b", lost=1 + 1e-5, l0=8 + 1e-5, delta=0.1 + 1e-7))
    assert all(one["interval"][1] < 0 for one in found.values())  # small as it is, it is the same on every document
    assert len(said) == 1
    assert said[0].startswith("a and b are indistinguishable on this data")


def test_documents_that_are_hard_for_both_do_not_hide_a_difference() -> None:
    a, b = sae("a"), sae("b", lost=1.03, delta=0.1)
    bootstrap = Bootstrap(UNITS)
    alone = [estimate(one.figures()["fvu"], bootstrap)["interval"] for one in (a, b)]
    assert alone[0][1] > alone[1][0]  # each by itself could be the better one
    found, said = of(a, b)
    assert found["fvu"]["interval"][1] < 0
    assert said[0].startswith("a has the lower FVU, by 0.00")
    assert said[0].endswith("at the same L0 (8.0).")
    assert said[1].startswith("a and b are indistinguishable in ΔCE and KL on this data")
    assert said[2] == "a dominates b: it loses less at no more latents."


def test_the_other_way_round_it_is_the_same_but_for_the_sign() -> None:
    there, back = of(sae("a"), sae("b", lost=1.2, l0=12, delta=0.2)), of(sae("b", lost=1.2, l0=12, delta=0.2), sae("a"))
    assert there[1] == back[1]
    for name, one in there[0].items():
        low, high = one["interval"]
        assert back[0][name]["interval"] == pytest.approx([-high, -low])
    assert there[1][-1] == "a dominates b: it loses less at no more latents."


def test_a_lower_fvu_at_more_latents_dominates_nobody() -> None:
    found, said = of(sae("a", lost=0.8, l0=12.8), sae("b"))
    assert dominates(found) == 0
    assert ", at 1.60 times the L0 (12.8 to 8.0)." in said[0]
    assert said[-1] == "Neither dominates: a loses less, b needs fewer latents."


def test_fewer_latents_alone_are_said_to_be_fewer() -> None:
    _, said = of(sae("a", l0=5.0), sae("b"))
    assert said[-1] == "a needs fewer latents: L0 5.0, b 8.0."


def test_of_other_hooks_what_the_model_loses_is_compared_and_no_fvu() -> None:
    a, b = sae("a"), replace(sae("b", delta=0.3), rebuilds="blocks.2.hook_resid_post")
    found, said = of(a, b)
    assert set(found) == {"l0", "ce_delta", "kl"}
    assert said[0] == (
        "FVU is not compared: a rebuilds blocks.1.hook_resid_post, b rebuilds blocks.2.hook_resid_post; what each "
        "costs the model is."
    )
    assert said[1].startswith("a has the lower ΔCE, by 0.2")
    assert dominates(found) == 0


def test_few_documents_tell_nothing_from_chance() -> None:
    def few(one: Measured) -> Measured:
        cut = {name: getattr(one.sums, name)[:5] for name in one.sums.__dataclass_fields__}
        losses = {name: getattr(one.losses, name)[:5] for name in one.losses.__dataclass_fields__}
        return replace(one, sums=Sums(**cut), losses=LossSums(**losses))

    found, said = of(few(sae("a")), few(sae("b", lost=9.0)), 5)
    assert found["fvu"]["interval"] is None
    assert found["fvu"]["value"] < 0
    assert better(found["fvu"]) == 0
    assert said == ["For intervals there must be 10 documents, and there are 5: no difference can be told from chance."]


def with_few_losses(one: Measured) -> Measured:
    """Of 6 of its documents: those that the windows hold on which losses are measured."""
    losses = {name: getattr(one.losses, name)[:6] for name in one.losses.__dataclass_fields__}
    return replace(one, losses=LossSums(**losses))


@pytest.mark.parametrize(("lost", "first"), [(1.0, "a and b are indistinguishable in FVU"), (1.5, "a has the lower F")])
def test_losses_of_few_documents_have_no_interval_and_what_has_one_is_told(lost: float, first: str) -> None:
    a, b = with_few_losses(sae("a")), with_few_losses(sae("b", lost=lost, delta=0.3))
    found = differences(a, b, Bootstrap(UNITS), Bootstrap(6))
    assert found["ce_delta"]["value"] < 0
    assert found["ce_delta"]["interval"] is found["kl"]["interval"] is None
    said = verdict(a, b, (8.0, 8.0), found, UNITS)
    assert said[0].startswith(first)
    assert said[1] == (
        "ΔCE and KL come of 6 documents, fewer than 10: there is no interval, and no difference in them can be told "
        "from chance."
    )


def test_of_other_hooks_and_few_losses_only_l0_is_told() -> None:
    a, b = with_few_losses(sae("a", l0=5.0)), replace(with_few_losses(sae("b")), rebuilds="blocks.2.hook_resid_post")
    said = verdict(a, b, (5.0, 8.0), differences(a, b, Bootstrap(UNITS), Bootstrap(6)), UNITS)
    assert [sentence.split(" ")[0] for sentence in said] == ["FVU", "ΔCE", "a"]
    assert said[-1] == "a needs fewer latents: L0 5.0, b 8.0."


def test_of_several_only_intervals_that_there_are_are_counted() -> None:
    saes = [with_few_losses(sae(name, lost=lost)) for name, lost in (("a", 1.0), ("b", 1.5), ("c", 2.0))]
    pairs = [(saes[0], saes[1]), (saes[0], saes[2]), (saes[1], saes[2])]
    found = {(x.name, y.name): differences(x, y, Bootstrap(UNITS), Bootstrap(6)) for x, y in pairs}
    assert together(["a", "b", "c"], found) == [
        "Not beaten by any: a; b and c are beaten by one that loses less at no more L0.",
        "3 intervals of 95 % are looked at, of which fewer than one would miss 0 by chance alone.",
    ]
    for one in found.values():
        for of in one.values():
            of["interval"] = None
    assert together(["a", "b", "c"], found) == []


def test_of_several_those_are_named_that_no_other_beats() -> None:
    saes = {"a": sae("a"), "b": sae("b", lost=1.5), "c": sae("c", lost=0.5, l0=20.0), "d": sae("d", lost=0.6, l0=25.0)}
    names = list(saes)
    pairs = {(x, y): of(saes[x], saes[y])[0] for n, x in enumerate(names) for y in names[n + 1 :]}
    said = together(names, pairs)
    assert said[0] == "Not beaten by any: a and c; b and d are beaten by one that loses less at no more L0."
    assert said[1].startswith("18 intervals of 95 % are looked at, of which about 1 would miss 0")
    assert together(names[:2], {("a", "b"): pairs["a", "b"]}) == []
