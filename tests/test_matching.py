"""Features of two SAEs matched by what they write, against every cosine computed at once."""

from __future__ import annotations

import resource
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from mistudiod.engine import matching as m
from mistudiod.engine.matching import Side, best_matches, histogram, matching, moved, random_cosines


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def side(W_dec: Tensor, dead: tuple[int, ...] = ()) -> Side:
    """The later a row, the more it fires."""
    density = torch.arange(1, len(W_dec) + 1, dtype=torch.float64) / (2 * len(W_dec))
    density[list(dead)] = 0
    return Side(W_dec, density)


def found(a: Side, b: Side) -> Any:
    return matching(a, b)


@pytest.mark.parametrize("tile", [(1_024, 8_192), (3, 5), (1, 1)])
def test_every_row_finds_its_best_in_the_other_both_ways(
    monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]
) -> None:
    monkeypatch.setattr(m, "_ROWS", tile[0])
    monkeypatch.setattr(m, "_COLUMNS", tile[1])
    a, b = rows(17, 6, 0), rows(23, 6, 1)
    cosines = normalize(a.double()) @ normalize(b.double()).t()
    told: list[int] = []
    in_b, in_a = best_matches(a, b, told.append)
    assert torch.equal(in_b.index, cosines.argmax(1))
    assert torch.equal(in_a.index, cosines.argmax(0))
    torch.testing.assert_close(in_b.cosine, cosines.amax(1).float())
    torch.testing.assert_close(in_a.cosine, cosines.amax(0).float())
    assert told[-1] == 17


@pytest.mark.parametrize("tile", [(1_024, 8_192), (2, 2)])
def test_of_equal_cosines_the_first_counts(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    monkeypatch.setattr(m, "_ROWS", tile[0])
    monkeypatch.setattr(m, "_COLUMNS", tile[1])
    axes = torch.eye(4)
    in_b, in_a = best_matches(axes[[0, 1, 1, 2]], axes[[3, 2, 2, 1, 1, 0]])
    assert in_b.index.tolist() == [5, 3, 3, 1]
    assert in_a.index.tolist() == [0, 3, 3, 1, 1, 0]  # of the fourth axis there is nothing: all are as far, the first
    assert in_a.cosine.tolist() == [0, 1, 1, 1, 1, 1]


def test_rows_of_zeros_match_nothing() -> None:
    a, b = rows(5, 4, 0), rows(6, 4, 1)
    a[2], b[0] = 0, 0
    in_b, in_a = best_matches(a, b)
    assert (int(in_b.index[2]), float(in_b.cosine[2])) == (-1, 0)
    assert (int(in_a.index[0]), float(in_a.cosine[0])) == (-1, 0)
    assert 0 not in in_b.index
    assert 2 not in in_a.index
    nothing, _ = best_matches(a, torch.zeros(3, 4))
    assert set(nothing.index.tolist()) == {-1}


def test_lengths_of_rows_do_not_matter() -> None:
    a, b = rows(9, 5, 0), rows(9, 5, 1)
    one, other = best_matches(a, b)[0], best_matches(a * 7, b * torch.arange(1, 10)[:, None])[0]
    assert torch.equal(one.index, other.index)
    torch.testing.assert_close(one.cosine, other.cosine)


def test_a_permuted_copy_is_found_row_by_row() -> None:
    a = rows(300, 24, 0)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    result = found(side(a), side(a[order] * 3))
    assert result["pairs"] == result["pairs_matched"] == result["pairs_closely"] == 300
    assert result["a_in_b"]["mean"] == pytest.approx(1)
    assert result["a_in_b"]["unmatched"] == result["b_in_a"]["unmatched"] == []
    assert all(order[pair["b"]] == pair["a"] for pair in result["best_pairs"])
    assert torch.equal(order[best_matches(a, a[order])[0].index], torch.arange(300))


def test_dead_features_are_neither_counted_nor_paired() -> None:
    a = rows(40, 12, 0)
    result = found(side(a, dead=(3, 4)), side(a, dead=(4, 5)))
    assert result["a_in_b"]["alive"] == result["b_in_a"]["alive"] == 38
    assert result["pairs"] == 37
    assert not {3, 4, 5} & {pair["a"] for pair in result["best_pairs"]}
    dead = found(side(a, dead=tuple(range(40))), side(a))
    assert (dead["pairs"], dead["pairs_mean"], dead["a_in_b"]["mean"], dead["best_pairs"]) == (0, None, None, [])


def test_what_is_not_found_again_is_listed_by_how_often_it_fires() -> None:
    a, b = rows(60, 32, 0), rows(60, 32, 1)
    b[:20] = a[:20]
    result = found(side(a), side(b))["a_in_b"]
    assert [one["feature"] for one in result["unmatched"]] == list(range(59, 59 - m.LISTED, -1))
    assert result["matched"] == pytest.approx(20 / 60)
    cosines = (normalize(a) @ normalize(b).t())[59]
    assert result["unmatched"][0]["nearest"] == cosines.argmax()
    assert result["unmatched"][0]["cosine"] == pytest.approx(float(cosines.max()), abs=1e-6)
    assert result["unmatched"][0]["density"] == 0.5


def test_pairs_are_each_others_best() -> None:
    a, b = rows(50, 8, 0), rows(70, 8, 1)
    cosines = normalize(a) @ normalize(b).t()
    mutual = {(i, int(row.argmax())) for i, row in enumerate(cosines) if cosines[:, row.argmax()].argmax() == i}
    result = found(side(a), side(b))
    assert result["pairs"] == len(mutual)
    assert {(pair["a"], pair["b"]) for pair in result["best_pairs"]} <= mutual
    assert result["pairs_mean"] == pytest.approx(float(torch.stack([cosines[i, j] for i, j in mutual]).mean()))


def test_random_dictionaries_find_as_much_of_each_other_as_the_floor_says() -> None:
    a, b = side(rows(800, 16, 5)), side(rows(400, 16, 6))
    result = found(a, b)
    for way in ("a_in_b", "b_in_a"):
        assert result[way]["mean"] == pytest.approx(result[way]["random"]["mean"], abs=0.02)
        assert result[way]["mean"] < result[way]["random"]["high"]
        assert sum(result[way]["random"]["histogram"]) == m.RANDOM_ROWS
    wider = random_cosines(10_000, 16)
    assert wider.mean() > random_cosines(100, 16).mean()
    assert torch.equal(wider, random_cosines(10_000, 16))


class Draws(TorchDispatchMode):
    """How many times numbers are drawn."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "randn" in str(func)
        return func(*args, **(kwargs or {}))


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        each = made if isinstance(made, (tuple, list)) else [made]
        self.numbers = max(self.numbers, *(one.numel() for one in each if isinstance(one, Tensor)), 0)
        return made


def test_the_floor_of_one_width_is_worked_out_once_and_said_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_floors", {})
    a, b, c = (side(rows(n, 6, n)) for n in (31, 31, 37))
    with Draws() as draws:
        first = found(a, b)
    assert draws.count == 2  # directions to look for, and one block of those to look in
    with Draws() as draws:
        again = [found(a, b), found(b, c), found(c, a)]
    assert draws.count == 2
    assert again[0] == first
    floors = [pair[way]["random"] for pair in (first, *again) for way in ("a_in_b", "b_in_a")]
    assert len({id(one) for one in floors}) == len({id(one["histogram"]) for one in floors}) == 8
    for pair, widths in zip(again, [(31, 31), (37, 31), (31, 37)], strict=True):
        for way, width in zip(("a_in_b", "b_in_a"), widths, strict=True):
            assert pair[way]["random"]["mean"] == float(random_cosines(width, 6).mean())


def test_a_stop_is_heard_while_the_floor_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_floors", {})
    monkeypatch.setattr(m, "_COLUMNS", 8)
    a, b, heard = side(rows(20, 6, 0)), side(rows(40, 6, 1)), list[int]()

    def stopping(done: int) -> None:
        heard.append(done)
        if len(heard) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matching(a, b, stopping)
    assert heard == [20, 20, 20, 20]  # its rows, and then the blocks of the first floor
    assert found(a, b)["a_in_b"]["random"]["mean"] == float(random_cosines(40, 6).mean())


def test_decoders_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="the one writes 8 numbers, the other 12: that is not one space"):
        best_matches(rows(5, 8, 0), rows(5, 12, 0))


def test_rows_that_turned_are_told_from_those_that_stayed() -> None:
    a = rows(30, 16, 0)
    b = a * 2
    b[7] = a[8]
    result: Any = moved(side(a, dead=(1, 2)), side(b, dead=(2, 3)))
    assert (result["alive_in_both"], result["born"], result["died"]) == (27, 1, 1)
    assert result["changed"][0]["feature"] == 7
    assert result["changed"][0]["cosine"] == pytest.approx(
        float(normalize(a[7], dim=0) @ normalize(a[8], dim=0)), abs=1e-6
    )
    assert result["median"] == pytest.approx(1)
    assert result["closely"] == pytest.approx(26 / 27)
    nothing: Any = moved(side(a, dead=tuple(range(30))), side(b))
    assert (nothing["mean"], nothing["changed"], nothing["born"]) == (None, [], 30)


def test_cosines_are_counted_in_twentieths() -> None:
    assert histogram(torch.tensor([-0.4, 0.0, 0.049, 0.05, 0.99, 1.0])) == [3, 1] + [0] * 17 + [2]


def test_no_more_cosines_are_made_at_once_than_a_tile_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_ROWS", 16)
    monkeypatch.setattr(m, "_COLUMNS", 100)
    a, b = rows(300, 4, 0), rows(200, 4, 1)
    with Largest() as largest:
        best_matches(a, b)
    assert 0 < largest.numbers <= 1_600


def test_the_matrix_of_all_cosines_is_never_in_memory() -> None:
    a, b = rows(20_000, 4, 0), rows(20_000, 4, 1)  # 1.6 GB of cosines
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # what came before may hide what comes
    best_matches(a, b)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
