"""What is said of measures, in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from mistudiod.engine.verdict import evaluated, verdict

GOOD: dict[str, Any] = {
    "fvu": 0.123,
    "pca_fvu": 0.4,
    "random_fvu": 0.5,
    "l0": 31.8,
    "asked_l0": 32,
    "dead": 0.01,
    "dense": 0.001,
    "l2_ratio": 0.97,
    "decoder_cosine": 0.4,
    "outliers": 0.0001,
    "ce_delta": 0.082,
    "ce_recovered_mean": 0.97,
    "held_out_tokens": 100_000,
}


def test_a_good_sae_gets_one_good_sentence() -> None:
    assert verdict(GOOD) == [
        "This is a good SAE: 88 % of the variance is rebuilt by 31.8 latents a token at a cost of 0.082 nats of the "
        "model's loss"
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dead": 0.22}, "22 % of the latents are dead: train longer, or choose a smaller width"),
        ({"fvu": 0.41, "random_fvu": None}, "FVU is 0.410, no better than the 0.400 of as many principal components"),
        ({"fvu": 0.6}, "no better than the 0.500 of random directions: it has learned nothing"),
        ({"fvu": 0.45, "pca_fvu": 0.5}, "FVU is 0.450: much is not rebuilt"),
        ({"l0": 12.0}, "L0 is 12 where 32 was asked: fewer latents have something to say"),
        ({"l0": 50.5}, "L0 is 50.5 where 32 was asked: train longer"),
        ({"dense": 0.07}, "7 % of the latents fire on over a tenth of the tokens"),
        ({"ce_recovered_mean": 0.5}, "loss rises by 0.082 nats, and 50 % of what the hook is worth is kept"),
        ({"ce_recovered_mean": -0.5}, "and 0 % of what the hook is worth is kept"),
        ({"l2_ratio": 0.75}, "75 % of the norm that it should have"),
        ({"decoder_cosine": 0.95}, "latents come in copies (a cosine of 0.95"),
        ({"outliers": 0.02}, "2 % of the tokens were left out as outliers"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(changes: dict[str, Any], says: str) -> None:
    [sentence] = verdict(GOOD | changes)
    assert says in sentence and "This is a good SAE" not in sentence


@pytest.mark.parametrize(("name", "of"), [("random", "of random directions"), ("pca", "as many principal components")])
def test_an_evaluation_is_held_against_a_baseline_on_the_same_tokens_alone(name: str, of: str) -> None:
    figures = {"fvu": 0.21, "dead": 0.0, f"{name}_fvu": 0.2, f"{name}_margin": 0.01}  # on their tokens its FVU is 0.19

    def said(**changes: float) -> list[str]:
        values = {key: {"value": value, "interval": None} for key, value in (figures | changes).items()}
        documents = {"units": 100, "least": 10}
        return evaluated(
            {"figures": values, "tokens": 65_536, "outliers_left_out": 0, "asked": 65_536, "documents": documents}
        )

    assert said() == ["This is a good SAE: 79 % of the variance is rebuilt"]
    for margin, fvu in ((-0.03, "0.230"), (0.0, "0.200")):
        [sentence] = said(**{"fvu": 0.1, f"{name}_margin": margin})
        assert sentence.startswith(f"FVU is {fvu} on the same tokens, no better than the 0.200 of ") and of in sentence


def test_everything_that_is_wrong_is_said() -> None:
    assert len(verdict(GOOD | {"dead": 0.995, "dense": 0.2, "l0": 1.0})) == 3
    assert verdict(GOOD | {"dead": 0.995})[0].startswith("99.5 % of the latents")
    assert verdict(GOOD | {"dead": 1.0})[0].startswith("100 % of the latents")


def test_figures_from_few_tokens_are_said_to_be_rough() -> None:
    good, rough = verdict(GOOD | {"held_out_tokens": 120})
    assert good.startswith("This is a good SAE") and "120 held-out tokens only" in rough


def test_what_was_not_measured_is_not_spoken_of() -> None:
    assert verdict(dict.fromkeys(GOOD)) == verdict({}) == ["Nothing was measured"]
    assert verdict({"fvu": 0.1}) == ["This is a good SAE: 90 % of the variance is rebuilt"]
    assert len(verdict(GOOD | {"l0": 500.0, "asked_l0": None})) == 1
