"""Texts that labels are scored by: held out, balanced, of all strengths, half of the silent ones hard."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import Rule, fires_after, fires_on, plant, words

from mistudiod.labelling.held_out import AROUND, FEWEST, Drawn, HeldOut, Text, TooFew
from mistudiod.pages import Pages, is_held_out

VOCABULARY = words(60)
AFTER, DENSE, DEAD, RARE = 40, 41, 42, 43
RULES: list[Rule] = [*(fires_on(n) for n in range(40)), fires_after(4, 5), fires_on(*range(0, 60, 2)), fires_on(59)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    def rarely(rows):  # type: ignore[no-untyped-def]
        return (rows == 7) & (rows[:, :1] == 7)  # only in windows that begin with it

    return plant(tmp_path_factory.mktemp("planted") / "1", VOCABULARY, [*RULES, rarely])


@pytest.fixture(scope="module")
def without_postings(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    return plant(tmp_path_factory.mktemp("planted") / "1", VOCABULARY, RULES, postings=False)


def all_of(drawn: Drawn) -> list[Text]:
    return [*drawn.fires, *drawn.silent, *drawn.more]


def activations(pages: Pages, feature: int) -> dict[tuple[int, int], float]:
    """By row and position."""
    ordinals, values = pages.postings(feature)
    return {divmod(at, pages.manifest["context"]): value for at, value in zip(ordinals, values, strict=True)}  # type: ignore[misc]


def test_no_window_of_a_labels_evidence_is_in_its_score(pages: Pages, without_postings: Pages) -> None:
    for store, features in ((pages, [*range(40), AFTER]), (without_postings, [AFTER])):
        held = HeldOut(store, 0)
        for feature in features:
            examples = store.page(feature)["examples"]
            evidence = {one["window"] for one in examples if not one["held_out"]}
            scored = {text.window for text in all_of(held.draw(feature, 20))}
            assert len(evidence) > 5 and not evidence & scored
            assert all(map(is_held_out, scored))


def test_texts_are_balanced_and_each_of_another_window(pages: Pages) -> None:
    held = HeldOut(pages, 0)
    for feature in (0, 17, AFTER):
        drawn = held.draw(feature, 20)
        assert (len(drawn.fires), len(drawn.silent)) == (20, 20) and 0 < len(drawn.more) <= 10
        assert len({text.window for text in all_of(drawn)}) == len(all_of(drawn))


def test_what_a_text_says_of_itself_is_so(pages: Pages) -> None:
    held = HeldOut(pages, 0)
    for feature in (3, AFTER):
        fires = activations(pages, feature)
        drawn = held.draw(feature, 20)
        for text in all_of(drawn):
            ids = pages.ids(text.row)
            starts = [at for at in range(len(ids)) if tuple(ids[at : at + len(text.ids)]) == text.ids]
            found = [
                {
                    at - start: fires[text.row, at]
                    for at in range(start, start + len(text.ids))
                    if (text.row, at) in fires
                }
                for start in starts
            ]
            assert text.fires in found
            assert text.window == pages.window(text.row)
            assert text.place <= AROUND and len(text.ids) - text.place <= AROUND + 1
        for text in drawn.fires + drawn.more:
            assert text.fires[text.place] == max(value for (row, _), value in fires.items() if row == text.row)
        for text in drawn.silent:
            assert not text.fires and text.row not in {row for row, _ in fires}


def test_texts_are_of_all_strengths(pages: Pages) -> None:
    held = HeldOut(pages, 0)
    fires = activations(pages, 3)
    rows = {row for row, _ in fires if is_held_out(pages.window(row))}
    strengths = sorted(max(value for (row, _), value in fires.items() if row == one) for one in rows)
    ranks = sorted(strengths.index(text.fires[text.place]) for text in held.draw(3, 10).fires)
    assert [10 * rank // len(strengths) for rank in ranks] == pytest.approx(list(range(10)), abs=1)


def test_half_of_the_silent_texts_are_hard(pages: Pages) -> None:
    drawn = HeldOut(pages, 0).draw(AFTER, 20)
    why = [text.why for text in drawn.silent]
    assert why.count("random") == 10
    assert all(why.count(kind) >= 2 for kind in ("near", "neighbour", "token"))
    for text in drawn.silent:
        if text.why in ("near", "token"):
            assert text.ids[text.place] == 5  # the token is right, what comes before it is not


def test_a_seed_always_draws_the_same_and_another_one_others(pages: Pages) -> None:
    for feature in (3, AFTER):
        first, again, other = (HeldOut(pages, seed).draw(feature, 20) for seed in (1, 1, 2))
        assert first == again != other
    held = HeldOut(pages, 1)
    held.draw(9, 5)
    assert held.draw(3, 20) == HeldOut(pages, 1).draw(3, 20)  # whatever was drawn before


def test_without_postings_the_held_out_examples_of_the_page_must_do(without_postings: Pages) -> None:
    drawn = HeldOut(without_postings, 0).draw(AFTER, 20)
    held = {(one["row"], one["kind"] == "near") for one in without_postings.page(AFTER)["examples"] if one["held_out"]}
    assert len(drawn.fires) == len(drawn.silent) >= FEWEST
    assert {(text.row, not text.fires) for text in all_of(drawn)} <= held
    with pytest.raises(TooFew, match="--postings"):
        HeldOut(without_postings, 0).draw(3, 20)  # has no near misses


def test_a_feature_that_cannot_be_scored_says_why(pages: Pages) -> None:
    held = HeldOut(pages, 0)
    for feature, why in [(DEAD, "never fires"), (RARE, "fewer than 5 held-out"), (DENSE, "nearly everywhere")]:
        with pytest.raises(TooFew, match=why):
            held.draw(feature, 20)


def test_of_a_feature_in_every_window_texts_between_its_firings_are_drawn(tmp_path: Path) -> None:
    store = plant(tmp_path / "1", words(60), [lambda rows: (rows == 1) | (rows == rows[:, :1])], context=256)
    drawn = HeldOut(store, 0).draw(0, 20)
    assert len(drawn.silent) == 20
    assert any(text.row in {row for row, _ in activations(store, 0)} for text in drawn.silent)
    assert not any(text.fires for text in drawn.silent)


def test_tokens_that_are_no_text_are_not_shown_and_no_text_is_about_one(pages: Pages) -> None:
    held = HeldOut(pages, 0, special=(8, 9))
    for text in all_of(held.draw(3, 20)):
        assert not {8, 9} & set(text.ids)
    for text in held.draw(3, 20).fires:
        assert text.ids[text.place] == 3 and set(text.fires) == {at for at, id in enumerate(text.ids) if id == 3}
