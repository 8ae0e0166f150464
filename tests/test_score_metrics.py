"""Balanced accuracy, AUROC and their intervals, held to known values, to brute force and to what 95 % means."""

from __future__ import annotations

import math
from itertools import product
from random import Random

import pytest

from mistudiod.labelling.metrics import (
    Estimate,
    Verdict,
    auroc,
    balanced_accuracy,
    mean,
    measure,
    wilson,
)


def test_the_interval_of_a_proportion_is_the_published_one() -> None:
    # Newcombe 1998, Statist. Med. 17, 857-872, table I, method 3.
    for hits, of, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        found = wilson(hits, of)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_the_interval_of_a_balanced_accuracy_is_newcombes_of_a_difference() -> None:
    # Newcombe 1998, Statist. Med. 17, 873-890, table II, method 10: 56/70 - 48/80 is 0.0524 to 0.3339. A false alarm
    # rate of 48/80 is a specificity of 32/80, and recall + specificity - 1 is that difference.
    found = balanced_accuracy(56, 70, 32, 80)
    assert round(2 * found.low - 1, 4) == 0.0524
    assert round(2 * found.high - 1, 4) == 0.3339
    assert found.value == pytest.approx((56 / 70 + 32 / 80) / 2)


def test_auroc_counts_pairs_and_half_of_the_ties() -> None:
    random = Random(1)
    for _ in range(50):
        positives = [float(random.randint(0, 6)) for _ in range(random.randint(1, 12))]
        negatives = [float(random.randint(0, 5)) for _ in range(random.randint(1, 12))]
        pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p, n in product(positives, negatives)]
        assert auroc(positives, negatives).value == pytest.approx(sum(pairs) / len(pairs))


def test_no_interval_is_without_width_and_each_holds_its_value() -> None:
    for n in (1, 5, 20, 200):
        perfect, hopeless = auroc([1.0] * n, [0.0] * n), auroc([0.0] * n, [1.0] * n)
        assert perfect.value == perfect.high == 1.0 and perfect.low < 1.0
        assert hopeless.value == hopeless.low == 0.0 and hopeless.high > 0.0
        assert hopeless.high == pytest.approx(1 - perfect.low)
        for hits, rejections in product(range(0, n + 1, max(1, n // 5)), repeat=2):
            found = balanced_accuracy(hits, n, rejections, n)
            assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
    assert auroc([1.0] * 200, [0.0] * 200).low > auroc([1.0] * 20, [0.0] * 20).low > auroc([1.0] * 5, [0.0] * 5).low


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == auroc([], [1.0]) == Estimate(0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="no estimates"):
        mean([])


def test_the_interval_of_a_balanced_accuracy_holds_the_true_one_95_times_in_100() -> None:
    """Exactly: over all outcomes of 20 and 20 examples with their probabilities."""
    n = 20
    found = {pair: balanced_accuracy(pair[0], n, pair[1], n) for pair in product(range(n + 1), repeat=2)}
    coverages = []
    for recall, specificity in product((0.5, 0.7, 0.85, 0.95), repeat=2):
        truth = (recall + specificity) / 2
        chance = [[math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)] for p in (recall, specificity)]
        coverages.append(
            sum(chance[0][a] * chance[1][b] for (a, b), one in found.items() if one.low <= truth <= one.high)
        )
    assert min(coverages) > 0.915  # outcomes are few; the mean is what is promised
    assert 0.945 < sum(coverages) / len(coverages) < 0.975


def test_the_interval_of_an_auroc_holds_the_true_one_95_times_in_100() -> None:
    random, runs, n = Random(7), 600, 20
    for distance in (0.0, 1.0, 2.0, 3.0):
        truth = 0.5 * (1 + math.erf(distance / 2))  # P(N(distance, 1) > N(0, 1))
        hits = 0
        for _ in range(runs):
            positives = [random.gauss(distance, 1) for _ in range(n)]
            one = auroc(positives, [random.gauss(0, 1) for _ in range(n)])
            hits += one.low <= truth <= one.high
        assert 0.92 < hits / runs <= 1.0, distance


def test_the_interval_of_a_mean_over_features_holds_the_true_one_95_times_in_100() -> None:
    random, runs, n = Random(3), 500, 20
    rates = [(0.6, 0.9), (0.95, 0.95), (0.5, 0.5), (0.8, 0.97), (0.3, 0.99)] * 3
    truth = sum(a + b for a, b in rates) / 2 / len(rates)
    hits = 0
    for _ in range(runs):
        one = mean(
            [
                balanced_accuracy(
                    sum(random.random() < a for _ in range(n)), n, sum(random.random() < b for _ in range(n)), n
                )
                for a, b in rates
            ]
        )
        hits += one.low <= truth <= one.high
        assert one.high - one.low < 0.1  # far narrower than of one feature
    assert 0.92 < hits / runs < 0.99


def test_verdicts_are_counted() -> None:
    found = measure(
        [Verdict(90, True)] * 6
        + [Verdict(10, True)] * 2
        + [Verdict(50, False)]
        + [Verdict(49.9, False)] * 5
        + [Verdict(None, True), Verdict(None, False), Verdict(None, False)]
    )
    assert (found.tp, found.fn, found.fp, found.tn, found.failed, found.examples) == (6, 2, 1, 5, 3, 17)
    assert found.accuracy.value == pytest.approx((6 / 9 + 5 / 8) / 2)
    assert found.record()["examples"] == 17


def test_a_judge_that_answers_only_what_is_easy_never_does_better_than_one_that_tries() -> None:
    random = Random(5)
    for _ in range(200):
        tries = [Verdict(float(random.randint(0, 100)), random.random() < 0.5) for _ in range(20)]
        easy = [Verdict(None, one.fires) if random.random() < 0.4 else one for one in tries]
        all_of, some = measure(tries), measure(easy)
        assert some.accuracy.value <= all_of.accuracy.value
        assert some.auroc.value <= all_of.auroc.value
        assert some.examples == all_of.examples


def test_who_says_the_same_of_everything_is_worth_one_half() -> None:
    for belief in (0.0, 50.0, 100.0):
        found = measure([Verdict(belief, True)] * 20 + [Verdict(belief, False)] * 20)
        assert found.accuracy.value == found.auroc.value == 0.5
        assert found.accuracy.low < 0.5 < found.accuracy.high
