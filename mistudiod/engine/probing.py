"""How much a few latents know of questions that a text sets by itself: k-sparse probing, in a light form.

A question's tokens are drawn so that yes and no are as many. The k latents with the largest standardised difference of
means between them, on the train part, go into a logistic probe, which is tried on the test part (Gurnee et al. 2023,
arXiv:2305.01610; k of 1, 2 and 5 as in SAEBench, Karvonen et al. 2025, arXiv:2503.09532). Beside it stand the same of
the k best numbers of the activation itself, and a probe of all of them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import Bootstrap, Figure, Floats, difference, divided
from mistudiod.engine.logistic import Probe, fit, fit_chosen
from mistudiod.engine.probe_sample import Sample
from mistudiod.engine.probe_tasks import TASKS, Task

K = (1, 2, 5)
LEAST_TRAIN, LEAST_TEST = 200, 100  # tokens with the answer yes, and as many with no
MOST_TRAIN, MOST_TEST = 1_000, 500  # that are drawn, of each answer
MAJORITY = 0.5  # the accuracy of whoever always says the same, as yes and no are as many

MEANING = (
    "accuracy of a yes-or-no probe that sees only the k latents that tell most, on text it was not trained on: 0.5 is "
    "chance, 'all' is a probe of the whole activation, 'numbers' one of the k best numbers of the activation itself; "
    "latents that are no better than those have found no concept of these; an interval is of other documents or "
    "windows (the unit) to try the same probes on"
)
LIMIT = (
    "a light form, on questions that this text sets by itself: compare SAEs of one model, hook and text; do not "
    "compare with SAEBench's figures"
)


@dataclass(frozen=True)
class Drawn:
    """Tokens of a question, yes and no as many: (n,) numbers in the sample each, and their answers, 0 or 1."""

    train: NDArray[np.int64]
    train_yes: NDArray[np.int8]
    test: NDArray[np.int64]
    test_yes: NDArray[np.int8]


@dataclass(frozen=True)
class Hits:
    """What a probe said on the test part, by unit: (units,) float64 each."""

    right_yes: Floats
    right_no: Floats
    wrong_yes: Floats  # it said yes, and it was not
    wrong_no: Floats

    def accuracy(self, weights: Floats) -> Floats:
        right = weights @ (self.right_yes + self.right_no)
        return divided(right, right + weights @ (self.wrong_yes + self.wrong_no))

    def f1(self, weights: Floats) -> Floats:
        right = 2 * (weights @ self.right_yes)
        return divided(right, right + weights @ (self.wrong_yes + self.wrong_no))


def draw(sample: Sample, task: int) -> Drawn | str:
    """Of question ``task``; or in words why there are too few tokens for it."""
    answers, random = sample.answers[:, task], np.random.default_rng(zlib.crc32(TASKS[task].name.encode()))
    found = []
    for part, train, least, most in (("train", True, LEAST_TRAIN, MOST_TRAIN), ("test", False, LEAST_TEST, MOST_TEST)):
        no, yes = (np.flatnonzero((sample.train == train) & (answers == one)) for one in (0, 1))
        if min(len(yes), len(no)) < least:
            return f"the {part} part has {len(yes)} tokens with yes and {len(no)} with no; {least} of each are needed"
        size = min(len(yes), len(no), most)
        found.append(np.sort(np.concatenate([random.choice(some, size, replace=False) for some in (no, yes)])))
    train_at, test_at = found
    return Drawn(train_at, answers[train_at], test_at, answers[test_at])


def differences(sample: Sample, tokens: NDArray[np.integer], yes: NDArray[np.integer], d_sae: int) -> Floats:
    """Of each latent its mean where yes less that where no, over its deviation on all: (d_sae,); 0 of a silent one."""
    at, entries = sample.entries(tokens)
    latents, values = sample.latents[entries], sample.values[entries].astype(np.float64)
    holds = yes[at] > 0
    n, n_yes = len(tokens), int((yes > 0).sum())
    total = np.bincount(latents, values, minlength=d_sae)
    where_yes = np.bincount(latents[holds], values[holds], minlength=d_sae)
    squares = np.bincount(latents, values**2, minlength=d_sae)
    return standardised(where_yes, total, squares, n_yes, n)


def standardised(where_yes: Floats, total: Floats, squares: Floats, n_yes: int, n: int) -> Floats:
    variance = squares / n - np.square(total / n)
    apart = where_yes / max(n_yes, 1) - (total - where_yes) / max(n - n_yes, 1)
    there = variance > 1e-12 * squares / n
    return np.divide(apart, np.sqrt(variance, where=there, out=np.ones_like(total)), where=there, out=total * 0)


def best(apart: Floats, k: int) -> NDArray[np.int64]:
    """The k with the largest difference, whichever way, the largest first."""
    return np.argsort(-np.abs(apart), kind="stable")[:k]


def hits(sample: Sample, drawn: Drawn, probe: Probe, test: Tensor) -> Hits:
    """Of a probe on its inputs of the test part, (tokens, d)."""
    says, yes = probe.scores(test)[:, 0].numpy() > 0, drawn.test_yes > 0
    units = sample.units[drawn.test]

    def count(which: NDArray[np.bool_]) -> Floats:
        return np.bincount(units[which], minlength=sample.test_units).astype(np.float64)

    return Hits(count(says & yes), count(~says & ~yes), count(says & ~yes), count(~says & yes))


def probed(sample: Sample, drawn: Drawn, d_sae: int) -> tuple[dict[str, Hits], list[int]]:
    """Of one question the probes ``all``, ``latents k`` and ``numbers k``, and the latents, the best first."""
    of_latents = best(differences(sample, drawn.train, drawn.train_yes, d_sae), max(K))
    x, x_test = sample.activations(drawn.train), sample.activations(drawn.test)
    yes = drawn.train_yes.astype(np.float64)
    sums: list[Floats] = [one.numpy() for one in (torch.from_numpy(yes) @ x, x.sum(0), x.square().sum(0))]
    of_numbers = best(standardised(sums[0], sums[1], sums[2], int(yes.sum()), len(x)), max(K))
    y = torch.from_numpy(drawn.train_yes)[:, None]
    found = {"all": hits(sample, drawn, fit_chosen(x, y), x_test)}
    train, test = sample.columns(of_latents, drawn.train), sample.columns(of_latents, drawn.test)
    for k in K:
        some = of_numbers[:k]
        found[f"latents {k}"] = hits(sample, drawn, fit(train[:, :k], y), test[:, :k])
        found[f"numbers {k}"] = hits(sample, drawn, fit(x[:, some], y), x_test[:, some])
    return found, of_latents.tolist()


def mean(figures: Sequence[Figure]) -> Figure:
    """Over questions, on the same draws."""
    return lambda weights: np.mean([figure(weights) for figure in figures], axis=0)


def sparse_probing(sample: Sample, d_sae: int, heard: Callable[[int], None]) -> dict[str, Any]:
    """Every question that the sample has tokens for, JSON-ready; ``left_out`` says why of the others.

    ``heard`` is told how many questions are done.
    """
    bootstrap = Bootstrap(sample.test_units)
    tasks, left_out, all_hits = [], {}, []
    for number, task in enumerate(TASKS):
        heard(number)
        drawn = draw(sample, number)
        if isinstance(drawn, str):
            left_out[task.name] = drawn
            continue
        found, latents = probed(sample, drawn, d_sae)
        all_hits.append(found)
        tasks.append(_of_task(task, drawn, found, latents, bootstrap))
    return {
        "meaning": MEANING,
        "limit": LIMIT,
        "tokens": len(sample.x),
        "unit": sample.unit,
        "units": sample.test_units,
        "majority": MAJORITY,
        "mean": _means(all_hits, bootstrap),
        "tasks": tasks,
        "left_out": left_out,
    }


def _means(all_hits: Sequence[Mapping[str, Hits]], bootstrap: Bootstrap) -> dict[str, Any] | None:
    """Accuracy over all questions, of each probe, and by how much latents are better than numbers of the activation."""
    if not all_hits:
        return None
    means = {name: mean([found[name].accuracy for found in all_hits]) for name in all_hits[0]}
    gains = {f"gain {k}": difference(means[f"latents {k}"], means[f"numbers {k}"]) for k in K}
    return {name: with_interval(figure, bootstrap) for name, figure in {**means, **gains}.items()}


def _of_task(
    task: Task, drawn: Drawn, found: Mapping[str, Hits], latents: list[int], bootstrap: Bootstrap
) -> dict[str, Any]:
    return {
        "name": task.name,
        "question": task.sentence,
        "train_tokens": len(drawn.train),
        "test_tokens": len(drawn.test),
        "latents": latents,
        "accuracy": {name: with_interval(one.accuracy, bootstrap) for name, one in found.items()},
        "f1": {name: with_interval(one.f1, bootstrap) for name, one in found.items()},
    }


def with_interval(figure: Figure, bootstrap: Bootstrap) -> dict[str, Any]:
    """JSON-ready: the value is None where there is nothing to divide by.

    No interval where all draws are the same: of none out of a few words a bootstrap would say that it is never so.
    """
    value, interval = bootstrap.value(figure), bootstrap.interval(figure)
    if interval and interval[0] == interval[1]:
        interval = None
    return {"value": value if math.isfinite(value) else None, "interval": interval}
