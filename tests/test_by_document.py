"""Documents of held-out tokens are told from each other, and intervals come from drawing whole documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mistudiod.engine.by_document import (
    LEAST_UNITS,
    RESAMPLES,
    Bootstrap,
    Documents,
    Figure,
    Interval,
    LossSums,
    Sums,
    difference,
    ratio,
    without_empty,
)
from mistudiod.engine.documents import Pieces, digest_of
from mistudiod.engine.packing import Layout, pack
from mistudiod.engine.tokens import MANIFEST, TokenWindows, Vocabulary

SPECIAL = 3  # ids below are special; token SPECIAL + d is of document d, whatever its place
BOS, EOS = 1, 2


def tokenized(
    folder: Path, lengths: list[int], bos: int | None = BOS, eos: int | None = EOS, **layout: Any
) -> tuple[TokenWindows, dict[str, Any]]:
    """Held-out documents of so many tokens, each with a token of its own, and one document to train on."""
    folder.mkdir()
    sides, lengths = [False, *[True] * len(lengths)], [200, *lengths]
    n = len(lengths)
    pieces = Pieces(
        np.repeat(np.arange(n, dtype=np.uint32) + SPECIAL, lengths), lengths, [False] * n, list(sides),
        [digest_of(bytes([i % 256, i // 256])) for i in range(n)], lengths, lengths, [0] * n, [True] * n, [False] * n,
    )  # fmt: skip
    special = tuple(i for i in (bos, eos) if i is not None)
    known = Vocabulary(SPECIAL + n, bos, eos, padding=0 if special else None, special_ids=(0, *special))
    pack([pieces], n, known, Layout(bos="never" if bos is None else "always", **layout), folder, {})
    return TokenWindows(folder), json.loads((folder / MANIFEST).read_text())


def told(windows: TokenWindows, manifest: dict[str, Any], chosen: np.ndarray, **more: Any) -> tuple[Documents, Any]:
    """The numbering, and of each text token of the chosen windows its true document and its unit."""
    held_out = range(windows.train, windows.train + windows.held_out)
    documents = Documents(windows, held_out, chosen, manifest, **more)
    rows, units = windows.rows(chosen), documents.rows(chosen)
    text = ~windows.special_mask(rows)
    return documents, (rows[text], units[text])


def lengths(seed: int, n: int = 60, most: int = 40) -> list[int]:
    return [int(one) for one in np.random.default_rng(seed).integers(1, most, n)]


def held_out(windows: TokenWindows, every: int = 1) -> np.ndarray:
    return np.arange(windows.train, windows.train + windows.held_out, every)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("bos", "eos"), [(BOS, EOS), (None, EOS), (EOS, EOS)], ids=["bos", "no bos", "bos is eos"])
def test_packed_documents_are_told_by_their_separators_however_few_windows_are_chosen(
    tmp_path: Path, bos: int | None, eos: int, every: int
) -> None:
    for seed in range(4):
        windows, manifest = tokenized(tmp_path / str(seed), lengths(seed), bos, eos, context=8)
        documents, (truth, units) = told(windows, manifest, held_out(windows, every))
        assert documents.unit == "document"
        assert documents.units == documents.documents == len(set(truth))
        assert (np.unique(truth, return_inverse=True)[1] == units).all()


def test_a_corpus_that_is_one_document_is_one_unit(tmp_path: Path) -> None:
    windows, manifest = tokenized(tmp_path / "t", [500], context=8)
    documents, (_, units) = told(windows, manifest, held_out(windows))
    assert documents.units == 1
    assert set(units) == {0}


@pytest.mark.parametrize("stride", [0, 3])
@pytest.mark.parametrize("bos", [BOS, None])
def test_padded_documents_are_told_by_their_padding_and_never_parted(
    tmp_path: Path, bos: int | None, stride: int
) -> None:
    for seed in range(4):
        windows, manifest = tokenized(tmp_path / str(seed), lengths(seed), bos, context=8, packing=False, stride=stride)
        _, (truth, units) = told(windows, manifest, held_out(windows))
        body = 8 - (bos is not None)
        for document in np.unique(truth):
            assert len(set(units[truth == document])) == 1
        for one, next_one in zip(np.unique(truth)[:-1], np.unique(truth)[1:], strict=True):
            together = set(units[truth == one]) == set(units[truth == next_one])
            size = lengths(seed)[one - SPECIAL - 1]
            assert together == (not stride and size % body == 0)


def test_documents_without_a_separator_are_taken_as_runs_of_windows(tmp_path: Path) -> None:
    windows, manifest = tokenized(tmp_path / "t", [20] * 100, None, None, context=8)
    documents, (_, units) = told(windows, manifest, held_out(windows))
    assert documents.unit == "run"
    sizes = np.bincount(units)
    assert (sizes[:-1] >= 3 * 20).all()
    assert (np.diff(units) >= 0).all()


def test_of_more_documents_than_have_room_neighbours_are_taken_together(tmp_path: Path) -> None:
    windows, manifest = tokenized(tmp_path / "t", lengths(0), context=8)
    documents, (truth, units) = told(windows, manifest, held_out(windows), most=12)
    assert documents.documents == len(set(truth))
    assert documents.units == 12 == len(set(units))
    for document in set(truth):
        assert len(set(units[truth == document])) == 1


def sums_of(y: np.ndarray, y_hat: np.ndarray, z: np.ndarray, of: np.ndarray, units: int, shift: float = 0.3) -> Sums:
    """By a loop over tokens."""
    found = {name: np.zeros(units) for name in Sums.__dataclass_fields__} | {"about": np.zeros((units, y.shape[1]))}
    for t, u in enumerate(of):
        norm, norm_hat = np.linalg.norm(y[t]), np.linalg.norm(y_hat[t])
        one = {
            "tokens": 1, "squares": ((y[t] - shift) ** 2).sum(), "about": y[t] - shift,
            "lost": ((y[t] - y_hat[t]) ** 2).sum(), "cosine": y[t] @ y_hat[t] / norm / norm_hat,
            "l2_ratio": norm_hat / norm, "rebuilt": norm_hat**2, "products": y[t] @ y_hat[t],
            "l0": (z[t] > 0).sum(), "l1": z[t].sum(),
        }  # fmt: skip
        for name, value in one.items():
            found[name][u] += value
    return Sums(**found)


def interval(bootstrap: Bootstrap, figure: Figure) -> Interval:
    found = bootstrap.interval(figure)
    assert found is not None
    return found


def some_text(units: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(units), random.integers(1, 9, units))
    y = random.normal(size=(len(of), 5)) + random.normal(size=(units, 5))[of] + 2
    return y, y + random.normal(size=y.shape) * 0.3, np.maximum(random.normal(size=(len(of), 7)), 0), of


def test_the_figures_of_a_draw_are_those_of_the_text_that_it_makes() -> None:
    y, y_hat, z, of = some_text(20)
    sums, bootstrap = sums_of(y, y_hat, z, of, 20), Bootstrap(20)
    for weights in bootstrap.drawn[:30]:
        t = np.concatenate([np.flatnonzero(of == u) for u in np.repeat(np.arange(20), weights)])
        norms = np.linalg.norm(y[t], axis=1), np.linalg.norm(y_hat[t], axis=1)
        expected = {
            "fvu": ((y[t] - y_hat[t]) ** 2).sum() / ((y[t] - y[t].mean(0)) ** 2).sum(),
            "cosine": ((y[t] * y_hat[t]).sum(1) / norms[0] / norms[1]).mean(),
            "l2_ratio": (norms[1] / norms[0]).mean(),
            "bias": (y_hat[t] ** 2).sum() / (y[t] * y_hat[t]).sum(),
            "l0": (z[t] > 0).sum(1).mean(),
            "l1": z[t].sum(1).mean(),
        }
        found = {name: figure(weights[None].astype(float))[0] for name, figure in sums.figures().items()}
        assert found == pytest.approx(expected, rel=1e-12)


def test_an_interval_holds_the_middle_of_all_draws_and_is_the_same_every_time() -> None:
    y, y_hat, z, of = some_text(40)
    figure = sums_of(y, y_hat, z, of, 40).figures()["fvu"]
    found = np.sort([figure(weights[None].astype(float))[0] for weights in Bootstrap(40).drawn])
    low, high = interval(Bootstrap(40), figure)
    assert len(found) == RESAMPLES
    assert (found < low).sum() == (found > high).sum() == 25
    assert low < Bootstrap(40).value(figure) < high
    assert Bootstrap(40).interval(figure) == (low, high)


def test_losses_of_a_draw_are_those_of_its_documents() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(0, 9, 30).astype(float)
    clean, spliced, kl, zero, mean = (random.random(30) * tokens + i * tokens for i in (1, 2, 0, 5, 4))
    (sums,) = without_empty(LossSums(tokens, clean, spliced, kl, zero, mean))
    assert len(sums.tokens) == (tokens > 0).sum()
    weights = Bootstrap(len(sums.tokens)).drawn[7]
    one = {name: np.repeat(getattr(sums, name), weights).sum() for name in LossSums.__dataclass_fields__}
    found = {name: figure(weights[None].astype(float))[0] for name, figure in sums.figures().items()}
    assert found == pytest.approx(
        {
            "ce_clean": one["clean"] / one["tokens"],
            "ce_delta": (one["spliced"] - one["clean"]) / one["tokens"],
            "ce_recovered_zero": (one["zero"] - one["spliced"]) / (one["zero"] - one["clean"]),
            "ce_recovered_mean": (one["mean"] - one["spliced"]) / (one["mean"] - one["clean"]),
            "kl": one["kl"] / one["tokens"],
            "ce_zero": (one["zero"] - one["clean"]) / one["tokens"],
            "ce_mean": (one["mean"] - one["clean"]) / one["tokens"],
        }
    )


@pytest.mark.parametrize("kind", ["mean", "fvu"])
def test_an_interval_of_95_percent_holds_the_truth_about_that_often(kind: str) -> None:
    """Documents differ from each other far more than the tokens of one do."""
    random, held, trials, units = np.random.default_rng(0), 0, 200, 80

    def text(units: int) -> Sums:
        tokens = random.integers(5, 50, units).astype(float)
        level = random.normal(size=(units, 3))
        spread = random.chisquare(3 * tokens) * 0.2
        lost = tokens * random.gamma(2, 0.1, units)
        about = level * tokens[:, None] + random.normal(size=(units, 3)) * np.sqrt(tokens * 0.2)[:, None]
        squares = np.square(about).sum(1) / tokens + spread
        zeros = np.zeros(units)
        return Sums(tokens, squares, about, lost, zeros, zeros, zeros, zeros, lost, zeros)

    def figure(sums: Sums) -> Any:
        return sums.fvu if kind == "fvu" else ratio(sums.l0, sums.tokens)

    truth = figure(text(200_000))(np.ones((1, 200_000)))[0]
    for _ in range(trials):
        low, high = interval(Bootstrap(units), figure(text(units)))
        held += low <= truth <= high
    assert 0.90 * trials <= held <= 0.99 * trials


def test_a_difference_of_two_saes_is_far_surer_than_either() -> None:
    y, y_hat, z, of = some_text(40)
    worse = y + (y_hat - y) * 1.1
    one, other = (sums_of(y, each, z, of, 40).figures()["fvu"] for each in (worse, y_hat))
    low, high = interval(Bootstrap(40), difference(one, other))
    assert low > 0
    alone = interval(Bootstrap(40), one)
    assert high - low < (alone[1] - alone[0]) / 2


def test_there_is_no_interval_of_too_few_documents_nor_of_a_figure_that_a_draw_lacks() -> None:
    ones = np.ones(LEAST_UNITS)
    assert Bootstrap(LEAST_UNITS - 1).interval(ratio(ones[1:], ones[1:])) is None
    assert Bootstrap(LEAST_UNITS).interval(ratio(ones, ones)) == (1.0, 1.0)
    rare = np.eye(LEAST_UNITS)[0]
    assert Bootstrap(LEAST_UNITS).interval(ratio(ones, rare)) is None
    assert Bootstrap(0).interval(ratio(ones[:0], ones[:0])) is None


def test_only_documents_of_which_no_token_counts_are_taken_out() -> None:
    full, losses = sums_of(*some_text(20), 20), LossSums(*np.ones((6, 20)))
    same = without_empty(full, losses)
    assert same[0] is full
    assert same[1] is losses
    wider = sums_of(*some_text(20), 23)
    (cut,) = without_empty(wider)
    for name in Sums.__dataclass_fields__:
        assert np.array_equal(getattr(cut, name), getattr(full, name))
