"""An extraction against plain loops over every token and latent."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mistudiod.engine import encode, native
from mistudiod.engine.bank import COUNTS, KEPT, TOKENS, Bank, write_tokens
from mistudiod.engine.encode import Encoder
from mistudiod.engine.evidence import Asked, choose, strongest
from mistudiod.engine.extract import Text, read_text, spread
from mistudiod.engine.feature_record import BAND, NEAR, RANDOM, TOP, FeatureRecord
from mistudiod.engine.harvest import Harvest, NoActivations
from mistudiod.engine.mapped import Mapped
from mistudiod.engine.measure import measure
from mistudiod.engine.merge import TILE_ENTRIES, merge, tile_entries
from mistudiod.engine.neighbours import decoder_neighbours
from mistudiod.engine.records import COFIRING, NEAR_MISSES, Records
from mistudiod.engine.rules import GatedRule, JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.shards import KEPT_OPEN, Shards
from mistudiod.engine.tokens import MANIFEST, TokenWindows
from mistudiod.pages import EDGES, is_held_out
from mistudiod.paths import publish

D_IN, D_SAE, T, VOCABULARY = 12, 40, 8, 50
BOS, OUTLIER = 0, 49
RULES = ("topk", "jumprelu", "standard", "gated")


class RandomWindows:
    """Window w begins with BOS and holds ids drawn for it; one in thirty is an outlier, one in forty BOS again."""

    context = T

    def rows(self, indices: Any) -> NDArray[np.int64]:
        rows = [np.random.default_rng([5, int(number)]).integers(1, VOCABULARY - 1, T) for number in indices]
        found = np.stack(rows) if rows else np.empty((0, T), np.int64)
        odd = [np.random.default_rng([6, int(number)]).random(T) for number in indices]
        for row, one in zip(found, odd, strict=True):
            row[one < 1 / 30] = OUTLIER
            row[one > 39 / 40] = BOS
            row[0] = BOS
        return found

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return rows == BOS


def forward(ids: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    table, position = (torch.randn(n, D_IN, generator=generator) for n in (VOCABULARY, T))
    table[OUTLIER] *= 100
    return table[ids] + 0.5 * position


def make_sae(rule: str, seed: int = 0, centred: bool = True, d_sae: int = D_SAE) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    made: dict[str, Rule] = {
        "topk": TopKRule(4),
        "jumprelu": JumpReLURule(2 + draw(d_sae)),
        "standard": ReLURule(),
        "gated": GatedRule(-4 + draw(d_sae), draw(d_sae), 0.3 * draw(d_sae)),
    }
    b_enc = made[rule].b_gate if rule == "gated" else 0.3 * draw(d_sae) - (2 if rule == "standard" else 0)
    b_enc[-3:] = -1000  # these never fire
    if rule == "gated":
        made["gated"] = GatedRule(b_enc, made["gated"].b_mag, made["gated"].r_mag)
    return SparseAutoencoder(draw(D_IN, d_sae), b_enc, draw(d_sae, D_IN), 0.1 * draw(D_IN), made[rule], centred=centred)


def text_of(windows: int = 200, tokens: int = 400, norms: tuple[float, ...] | None = (50.0,)) -> Text:
    harvest = Harvest(RandomWindows(), forward, [D_IN], lm_tokens=5 * T, outlier_norms=norms)
    return Text(harvest, spread(windows, T, tokens), slice(0, D_IN))


@dataclass
class Found:
    """An extraction, and the same as a dense matrix, from the shards."""

    shards: Shards
    bank: Bank
    records: list[FeatureRecord]
    dense: NDArray[np.float32]  # (places, d_sae)
    counted: NDArray[np.bool_]  # (places,)
    ids: NDArray[np.int64]  # (places,)
    for_labels: NDArray[np.bool_]  # (places,)
    asked: Asked


def extracted(
    folder: Path, text: Text, sae: SparseAutoencoder, asked: Asked, most: int = 10**6, tile: int = TILE_ENTRIES
) -> Found:
    shards = Shards(folder / "shards", sae.d_sae, {"of": "this"}, publish)
    read_text(text, sae, shards, lambda done: None, lambda entries: None, most)
    return found_in(folder, text, sae, asked, shards, tile)


def found_in(
    folder: Path, text: Text, sae: SparseAutoencoder, asked: Asked, shards: Shards, tile: int = TILE_ENTRIES
) -> Found:
    dtype = np.dtype("<u2")
    write_tokens(text.harvest.windows, text.numbers, dtype, folder, lambda done: None)
    tokens, counts = Mapped(folder / TOKENS, dtype), Mapped(folder / "shards" / COUNTS, "<u4")
    for_labels = np.array([not is_held_out(number) for number in text.numbers.tolist()])
    bank = Bank(tokens, counts, VOCABULARY, for_labels, lambda done: None)
    merge(shards, asked, tokens, VOCABULARY, for_labels, folder, folder, lambda done: None, tile)
    neighbours = decoder_neighbours(sae.W_dec, 16)
    made = Records(asked, (2, 3), bank, folder, folder, folder / "shards", neighbours)
    records = [made.record(feature) for feature in range(sae.d_sae)]
    dense = np.zeros((text.places, sae.d_sae), np.float32)
    for part in shards.of(0, sae.d_sae):
        dense[part.places, np.repeat(np.arange(sae.d_sae), np.diff(part.edges))] = part.values
    kept = np.repeat(for_labels, asked.context)
    return Found(shards, bank, records, dense, counts.array > 0, tokens.array.astype(np.int64), kept, asked)


def plain(text: Text, sae: SparseAutoencoder) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """All latents at all places, zero where the token does not count; and which count."""
    rows = RandomWindows().rows(text.numbers)
    x = forward(torch.from_numpy(rows)).bfloat16().float().flatten(0, 1)
    counts = (rows.ravel() != BOS) & (rows.ravel() != OUTLIER)
    dense = sae.encode(x).numpy()
    dense[~counts] = 0
    return dense, counts


# -- what fires ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_what_fires_is_what_the_sae_encodes(
    rule: str, centred: bool, library: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library and native.library() is None:
        pytest.skip("no C compiler here")
    if not library:
        monkeypatch.setattr(native, "library", lambda: None)
    text, sae = text_of(), make_sae(rule, centred=centred)
    found = extracted(tmp_path, text, sae, Asked(3, T), most=300)
    assert len(found.shards.whole) > 1
    dense, counts = plain(text, sae)
    assert (found.counted == counts).all()
    np.testing.assert_allclose(found.dense, dense, atol=1e-4)
    assert ((found.dense > 0) == (dense > 0)).all()
    outliers = sum(shard.outliers for shard in found.shards.whole)
    assert outliers == (found.ids == OUTLIER).sum() > 0
    assert sum(shard.tokens for shard in found.shards.whole) == counts.sum()


@given(st.integers(1, 40), st.integers(1, 70), st.floats(-1, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_what_is_above_its_limit_is_found_at_any_width(rows: int, width: int, limit: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, limits = torch.randn(rows, width, generator=generator), torch.full((width,), limit)
    z[generator.initial_seed() % rows, 0] = torch.nan
    expected = encode._taken(z, limits, None)
    if (library := native.library()) is None:
        pytest.skip("no C compiler here")
    for one, other in zip(encode._taken(z, limits, library), expected, strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_l0_is_that_of_the_evaluation_of_the_same_tokens(rule: str, tmp_path: Path) -> None:
    text, sae = text_of(tokens=1_600), make_sae(rule)
    shards = Shards(tmp_path / "shards", D_SAE, {}, publish)
    read_text(text, sae, shards, lambda done: None, lambda entries: None)
    batches = list(text.harvest.batches(text.numbers))
    measured = measure(sae, ((x, x) for x in batches))
    entries, tokens = (sum(getattr(shard, name) for shard in shards.whole) for name in ("entries", "tokens"))
    assert (tokens, entries / tokens) == (measured.tokens, pytest.approx(measured.l0, abs=1e-12))
    assert shards.fired().tolist() == measured.fired.tolist()


def test_a_row_has_one_block_at_least_and_blocks_are_bounded() -> None:
    sae = make_sae("standard")
    encoder = Encoder(sae)
    encoder.rows = 3
    x = torch.randn(10, D_IN, generator=torch.Generator().manual_seed(0))
    blocks = list(encoder.blocks(x))
    assert [len(block.counts) for block in blocks] == [3, 3, 3, 1]
    assert sum(int(block.counts.sum()) for block in blocks) == int((sae.encode(x) > 0).sum())


@pytest.mark.parametrize(("d_sae", "rows"), [(1 << 18, 64), (1 << 20, 16), (1 << 25, 1)])
def test_of_a_wide_sae_fewer_tokens_are_encoded_together(d_sae: int, rows: int) -> None:
    wide = torch.zeros(1).expand  # of zeros that take no memory
    sae = SparseAutoencoder(wide(D_IN, d_sae), wide(d_sae), wide(d_sae, D_IN), wide(D_IN), ReLURule())
    assert Encoder(sae).rows == rows


def test_activations_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    text, sae = text_of(norms=None), make_sae("standard")
    text.harvest.forward = lambda ids: forward(ids) * torch.nan
    with pytest.raises(NoActivations, match="not all finite"):
        read_text(text, sae, Shards(tmp_path, D_SAE, {}, publish), lambda done: None, lambda entries: None)


@pytest.mark.parametrize("rule", RULES)
def test_features_that_are_not_finite_are_refused_before_a_shard_holds_them(rule: str, tmp_path: Path) -> None:
    text, sae = text_of(), make_sae(rule)
    sae.W_enc[:, 3] *= 1e38
    shards = Shards(tmp_path, D_SAE, {}, publish)
    with pytest.raises(NoActivations, match="the SAE makes of the activations"):
        read_text(text, sae, shards, lambda done: None, lambda entries: None, 100)


# -- what is kept of a feature ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_counts_sums_and_histograms_are_those_of_a_plain_loop(rule: str, tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(tokens=1_600), make_sae(rule), Asked(3, T), most=500, tile=700)
    edges = np.array(EDGES)
    for feature, record in enumerate(found.records):
        values = found.dense[:, feature][found.dense[:, feature] > 0].astype(np.float64)
        assert record.fired == len(values)
        assert record.total == pytest.approx(values.sum(), rel=1e-12)
        assert record.squares == pytest.approx((values**2).sum(), rel=1e-12)
        assert record.maximum == (values.max() if len(values) else 0)
        bins = np.clip(np.searchsorted(edges, values, "right") - 1, 0, 63)
        assert record.histogram.tolist() == np.bincount(bins, minlength=64).tolist()
    assert [record.fired for record in found.records[-3:]] == [0, 0, 0], "features that never fire are kept"


def plain_windows(found: Found, feature: int) -> list[tuple[int, int, float]]:
    """Windows in which it fires, in order: row, position of its maximum, and that."""
    windows = []
    for row, values in enumerate(found.dense[:, feature].reshape(-1, T)):
        if values.max() > 0:
            windows.append((row, int(values.argmax()), float(values.max())))
    return windows


@pytest.mark.parametrize("tile", [1, 700, TILE_ENTRIES])
@pytest.mark.parametrize("rule", RULES)
def test_top_examples_are_the_strongest_windows_each_by_its_peak(rule: str, tile: int, tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(tokens=1_600), make_sae(rule), Asked(5, T), most=400, tile=tile)
    for feature, record in enumerate(found.records):
        windows = plain_windows(found, feature)
        expected = sorted(windows, key=lambda one: (-one[2], one[0]))[:5]
        examples = record.examples
        top = examples.kind == TOP
        assert list(zip(*(a[top].tolist() for a in (examples.row, examples.peak, examples.value)), strict=True)) \
            == expected  # fmt: skip
        assert top[: len(expected)].all(), "the strongest come first"
        check_bands(examples, windows, {row for row, _, _ in expected}, record.maximum)
        rows = examples.row.tolist()
        assert len(set(rows)) == len(rows), "every example is of another window"


def check_bands(examples: Any, windows: list[tuple[int, int, float]], top: set[int], maximum: float) -> None:
    in_band: list[set[int]] = [set() for _ in range(5)]
    for row, _, value in windows:
        if row not in top:
            in_band[min(4, int(value / maximum * 5))].add(row)
    banded = set()
    for band in range(5):
        rows = examples.row[(examples.kind == BAND) & (examples.band == band)].tolist()
        assert set(rows) <= in_band[band]
        assert len(rows) == min(2, len(in_band[band]))
        banded |= set(rows)
    random = examples.row[examples.kind == RANDOM].tolist()
    left = [row for row, _, _ in windows if row not in top | banded]
    assert len(random) == min(6, len(left))
    for n, row in enumerate(random):  # one of each sixth
        assert row in left[n * len(left) // len(random) : (n + 1) * len(left) // len(random)]


def test_examples_show_the_tokens_that_were_read_with_every_activation_among_them(tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(), make_sae("standard"), Asked(3, T), most=500)
    for feature, record in enumerate(found.records):
        examples, tokens, fires = record.examples, 0, 0
        for n in range(len(examples.row)):
            start = int(examples.row[n]) * T
            first, length, peak = (int(a[n]) for a in (examples.first, examples.length, examples.peak))
            assert (first, first + length) == (max(0, peak - 2), min(T, peak + 4))
            shown = slice(start + first, start + first + length)
            assert examples.tokens[tokens : tokens + length].tolist() == found.ids[shown].tolist()
            values = np.zeros(length, np.float32)
            count = int(examples.fires[n])
            values[examples.where[fires : fires + count]] = examples.values[fires : fires + count]
            assert values.tolist() == found.dense[shown, feature].tolist()
            assert examples.value[n] == found.dense[start + peak, feature]
            tokens, fires = tokens + length, fires + count
        assert (tokens, fires) == (len(examples.tokens), len(examples.values))


def test_tokens_on_which_a_feature_fires_most_are_counted_and_so_is_how_often_they_were_read(tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(tokens=1_600), make_sae("jumprelu"), Asked(3, T), most=500, tile=1)
    read = np.bincount(found.ids[found.counted], minlength=VOCABULARY)
    assert read[OUTLIER] == read[BOS] == 0
    for feature, record in enumerate(found.records):
        counts = np.bincount(found.ids[found.dense[:, feature] > 0], minlength=VOCABULARY)
        expected = sorted(np.flatnonzero(counts).tolist(), key=lambda one: (-counts[one], one))[:10]
        assert record.tokens.tolist() == expected
        assert record.tokens_fired.tolist() == counts[expected].tolist()
        assert record.tokens_read.tolist() == read[expected].tolist()


def test_what_labels_are_made_from_is_counted_without_the_windows_that_score_them(tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(tokens=1_600), make_sae("jumprelu"), Asked(3, T), most=500, tile=1)
    assert 0.2 < found.for_labels.mean() < 0.8
    read = np.bincount(found.ids[found.counted & found.for_labels], minlength=VOCABULARY)
    for feature, record in enumerate(found.records):
        fires = (found.dense[:, feature] > 0) & found.for_labels
        counts = np.bincount(found.ids[fires], minlength=VOCABULARY)
        expected = sorted(np.flatnonzero(counts).tolist(), key=lambda one: (-counts[one], one))[:10]
        assert record.label_fired == fires.sum()
        assert record.label_tokens.tolist() == expected
        assert record.label_tokens_fired.tolist() == counts[expected].tolist()
        assert record.label_tokens_read.tolist() == read[expected].tolist()


def test_features_that_fire_together_have_their_exact_jaccard_where_all_tokens_are_looked_at(tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(tokens=1_000), make_sae("topk"), Asked(3, T), most=500)
    fires = found.dense > 0
    looked = 0
    for feature, record in enumerate(found.records):
        if not 0 < record.fired <= 128:
            continue
        looked += 1
        both = (fires & fires[:, [feature]]).sum(0)
        jaccard = both / (fires | fires[:, [feature]]).sum(0).clip(1)
        others = [one for one in range(D_SAE) if one != feature and both[one]]
        expected = sorted(others, key=lambda one: (-jaccard[one], one))[:COFIRING]
        assert record.cofiring.tolist() == expected
        np.testing.assert_allclose(record.cofiring_jaccard, jaccard[expected], rtol=1e-6)
        np.testing.assert_allclose(record.cofiring_share, both[expected] / record.fired, rtol=1e-6)
    assert looked > 10


def test_features_that_fire_together_are_estimated_from_a_spread_of_tokens(tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(20_000, 40_000), make_sae("standard"), Asked(3, T))
    fires = found.dense > 0
    errors = []
    for feature, record in enumerate(found.records):
        if record.fired > 1_000:
            both = (fires[:, record.cofiring] & fires[:, [feature]]).sum(0)
            jaccard = both / (fires[:, record.cofiring] | fires[:, [feature]]).sum(0)
            errors += np.abs(jaccard - record.cofiring_jaccard).tolist()
    assert len(errors) > 50
    assert np.mean(errors) < 0.05


def test_an_sae_of_which_half_the_latents_fire_on_a_token_is_extracted_like_any_other(tmp_path: Path) -> None:
    sae = make_sae("standard", d_sae=1_200)
    sae.b_enc[:-3] = 0
    text = text_of(tokens=800)
    found = extracted(tmp_path, text, sae, Asked(3, T), most=100_000, tile=150_000)
    dense, _ = plain(text, sae)
    assert (found.dense > 0).sum() > 500 * found.counted.sum()
    assert len(found.shards.whole) > 2
    assert [record.fired for record in found.records] == (dense > 0).sum(0).tolist()
    for feature in range(0, 1_200, 60):
        record = found.records[feature]
        fires = found.dense > 0
        both = (fires[:, record.cofiring] & fires[:, [feature]]).sum(0) / max(record.fired, 1)
        assert np.abs(both - record.cofiring_share).max(initial=0) < 0.35, "from a quarter of the tokens"


@pytest.mark.parametrize("rule", RULES)
def test_near_misses_are_windows_in_which_the_feature_never_fires(rule: str, tmp_path: Path) -> None:
    found = extracted(tmp_path, text_of(tokens=1_600), make_sae(rule), Asked(3, T))
    by_token = 0
    for feature, record in enumerate(found.records):
        examples = record.examples
        near = examples.kind == NEAR
        rows, peaks = examples.row[near], examples.peak[near]
        assert not (found.dense.reshape(-1, T, D_SAE)[rows, :, feature] > 0).any()
        assert len(set(rows.tolist())) == len(rows) <= NEAR_MISSES
        assert (examples.value[near] == 0).all()
        assert (examples.fires[near] == 0).all()
        assert found.counted[rows * T + peaks].all(), "it could have fired there"
        by_token += int(np.isin(found.ids[rows * T + peaks], record.tokens[:4]).sum())
        if record.fired and (found.dense[:, feature].reshape(-1, T).max(1) == 0).sum() > 100:
            assert len(rows) == NEAR_MISSES
    assert by_token > 20, "some are where its tokens are"


def test_decoder_neighbours_are_handed_on(tmp_path: Path) -> None:
    sae = make_sae("topk")
    found = extracted(tmp_path, text_of(), sae, Asked(3, T))
    unit = torch.nn.functional.normalize(sae.W_dec)
    cosines = (unit @ unit.t()).fill_diagonal_(-2)
    assert [int(record.decoder[0]) for record in found.records] == cosines.argmax(1).tolist()


@given(st.lists(st.integers(1, 50).map(float), min_size=1, max_size=120), st.integers(1, 30), st.integers(0, 10**6))
@settings(deadline=None, max_examples=200)
def test_windows_are_chosen_once_each_however_many_are_equal(values: list[float], top: int, feature: int) -> None:
    chosen, kinds, bands = choose(np.array(values, np.float32), Asked(top, T), feature)
    assert len(set(chosen.tolist())) == len(chosen) <= Asked(top, T).examples
    assert len(chosen) == min(len(values), len(chosen))
    order = sorted(range(len(values)), key=lambda one: (-values[one], one))
    assert chosen[kinds == TOP].tolist() == order[:top]
    assert (bands[kinds != BAND] == 0).all()
    again = choose(np.array(values, np.float32), Asked(top, T), feature)
    assert [one.tolist() for one in again] == [chosen.tolist(), kinds.tolist(), bands.tolist()]


@given(st.lists(st.integers(-5, 5), max_size=50), st.integers(1, 20))
def test_the_strongest_come_first_and_of_equals_the_earlier(values: list[int], most: int) -> None:
    expected = sorted(range(len(values)), key=lambda one: (-values[one], one))[:most]
    assert strongest(np.array(values), most).tolist() == expected


def mapped(path: Path, numbers: NDArray[Any]) -> Mapped:
    numbers.tofile(path)
    return Mapped(path, numbers.dtype)


@given(st.integers(1, 3_000), st.integers(1, 20), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_the_bank_keeps_places_of_every_token_spread_over_the_text(
    tmp_path_factory: pytest.TempPathFactory, places: int, vocabulary: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("bank")
    generator = np.random.default_rng(seed)
    tokens, counts = generator.integers(0, vocabulary, places), generator.integers(0, 2, places).astype(np.uint32)
    files = mapped(folder / TOKENS, tokens), mapped(folder / COUNTS, counts)
    bank = Bank(*files, vocabulary, np.ones(places, np.bool_), lambda done: None)
    for token in range(vocabulary):
        there = np.flatnonzero((tokens == token) & (counts > 0)).tolist()
        kept = bank.places(token).tolist()
        assert bank.read[token] == len(there)
        expected = [there[-(-n * len(there) // KEPT)] for n in range(KEPT)] if len(there) > KEPT else there
        assert kept == expected


def resident(folder: Path) -> int:
    """Bytes of the files of a folder that this process has in memory."""
    found = re.findall(
        rf"{re.escape(str(folder))}/.*\n(?:\w+:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text()
    )
    return 1024 * sum(map(int, found))


def test_memory_of_what_was_looked_at_does_not_grow_with_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, heard, held = 3_000_000, [], []
    tokens = mapped(tmp_path / TOKENS, np.arange(places, dtype=np.uint32) & np.uint32(0xFFFF))
    counts = mapped(tmp_path / COUNTS, np.ones(places, np.uint32))
    tokens.array.max(), counts.array.max()
    assert resident(tmp_path) > 22 << 20

    def hear(done: int) -> None:
        heard.append(done)
        held.append(resident(tmp_path))

    Bank(tokens, counts, 1 << 16, np.ones(places // 100, np.bool_), hear)
    assert heard == sorted(heard)
    assert (len(heard), heard[-1]) == (2 * 12, 2 * places)
    assert max(held) < 1 << 20  # at each piece's end
    facts = {"context": 100, "train_windows": places // 100, "held_out_windows": 0, "special_ids": [], "dtype": "<u4"}
    (tmp_path / MANIFEST).write_text(json.dumps(facts))
    monkeypatch.setattr("mistudiod.engine.tokens.FORGET_EVERY", 100_000)
    windows, most = TokenWindows(tmp_path), 0
    for start in range(0, places // 100, 500):
        windows.rows(np.arange(start, min(start + 500, places // 100)))
        most = max(most, resident(tmp_path))
    assert most < 8 << 20  # a kernel may map megabytes around what is looked at


# -- shards ----------------------------------------------------------------------------------------------------------


def as_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


@pytest.mark.parametrize("rule", RULES)
def test_many_shards_and_small_tiles_are_one_shard_and_one_tile(rule: str, tmp_path: Path) -> None:
    text, sae, asked = text_of(tokens=1_600), make_sae(rule), Asked(4, T)
    found = []
    for name, most, tile in (("one", 10**6, TILE_ENTRIES), ("many", 150, 1_600)):
        (tmp_path / name).mkdir()
        found.append(extracted(tmp_path / name, text, sae, asked, most, tile))
    assert len(found[0].shards.whole) == 1
    assert len(found[1].shards.whole) > 5
    assert as_bytes(tmp_path / "one") == as_bytes(tmp_path / "many")
    for one, other in zip(found[0].records, found[1].records, strict=True):
        assert json.dumps(as_lists(one)) == json.dumps(as_lists(other))


def as_lists(record: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else as_lists(value) if hasattr(value, "kind") else value
        for name, value in vars(record).items()
    }


class Killed(BaseException):
    """What ends a reading."""


@given(cuts=st.lists(st.integers(1, 6), min_size=1, max_size=4), most=st.integers(30, 600))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_reading_that_is_cut_off_goes_on_with_the_next_shard_and_ends_the_same(
    cuts: list[int], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, sae, asked = text_of(tokens=800), make_sae("jumprelu"), Asked(3, T)
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    extracted(whole, text, sae, asked, most)
    for after in cuts:
        left = after

        def closed(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        try:
            read_text(text, sae, Shards(broken / "shards", D_SAE, {"of": "this"}, publish), lambda done: None, closed,
                      most)  # fmt: skip
        except Killed:
            with (broken / "shards" / "active.bin").open("ab") as file:  # what a next shard had begun with
                file.write(b"left over")
            (broken / "shards" / ".partial-00099").mkdir()
    extracted(broken, text, sae, asked, most)
    assert as_bytes(broken) == as_bytes(whole)
    assert as_bytes(broken / "shards") == as_bytes(whole / "shards")
    names = sorted(path.relative_to(whole) for path in whole.rglob("*.bin"))
    assert names == sorted(path.relative_to(broken) for path in broken.rglob("*.bin"))
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def test_shards_of_something_else_are_not_gone_on_with(tmp_path: Path) -> None:
    text, sae = text_of(), make_sae("standard")
    read_text(text, sae, Shards(tmp_path, D_SAE, {"sae": "one"}, publish), lambda done: None, lambda entries: None)
    assert Shards(tmp_path, D_SAE, {"sae": "one"}, publish).whole
    assert not Shards(tmp_path, D_SAE, {"sae": "other"}, publish).whole


def test_a_tile_of_many_shards_is_larger_and_their_files_are_not_opened_for_each(tmp_path: Path) -> None:
    assert [tile_entries(shards) for shards in (1, 512, 1_024, 10**6)] == [2 << 20, 2 << 20, 4 << 20, 16 << 20]
    text, sae = text_of(), make_sae("standard")
    shards = Shards(tmp_path, D_SAE, {}, publish)
    read_text(text, sae, shards, lambda done: None, lambda entries: None, 100)
    before = opened(tmp_path)
    for latent in range(D_SAE):
        assert sum(len(part.places) for part in shards.of(latent, latent + 1)) == shards.fired()[latent]
    assert opened(tmp_path) == before + 3 * min(len(shards.whole), KEPT_OPEN)
    del shards
    assert opened(tmp_path) == before


def opened(folder: Path) -> int:
    """How many files of that folder this process has open; what else it has is of other tests too."""
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the list itself has been closed
            count += os.readlink(one).startswith(f"{folder}/")
    return count


def test_a_text_of_special_tokens_only_has_no_entries(tmp_path: Path) -> None:
    text = text_of()
    text.harvest.windows.special_mask = lambda rows: rows >= 0  # type: ignore[attr-defined]
    found = extracted(tmp_path, text, make_sae("topk"), Asked(3, T))
    assert not found.counted.any()
    assert {record.fired for record in found.records} == {0}
    assert {len(record.examples.row) for record in found.records} == {0}


def test_evenly_spread_windows_are_different_ones_from_the_first_to_the_last() -> None:
    assert spread(10, 8, 24).tolist() == [0, 4, 9]
    assert spread(10, 8, 10**6).tolist() == list(range(10))
    assert spread(10**6, 128, 10**6).tolist() == sorted(set(spread(10**6, 128, 10**6).tolist()))
