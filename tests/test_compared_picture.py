"""The picture of a comparison: SVG that stands by itself, with every SAE in it; and what is said of it in text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from mistudio.cli import main
from mistudio.compared import show_compared
from mistudio.compared_picture import drawn
from mistudio.svg import SERIES, Plot, padded, round_ticks

NAMES = ["pico", "pico@2000", "<other>&", "d", "e", "f", "g", "h"]
HOOK = "blocks.3.hook_resid_post"
DIFFERENCES = {name: {"value": 0.1, "interval": None, "least": 1e-6} for name in ("l0", "fvu", "ce_delta", "kl")}
SVG = "{http://www.w3.org/2000/svg}"


def figure(value: float, width: float) -> dict[str, Any]:
    return {"value": value, "interval": [value - width, value + width]}


def one(number: int) -> dict[str, Any]:
    random.seed(number)
    latents = [random.randint(0, 80) for _ in range(12)]
    figures = {"fvu": figure(0.2 + number / 30, 0.01), "l0": figure(32 + number, 0.5), "cosine": figure(0.9, 0.01)}
    figures |= {"ce_delta": figure(0.1 + number / 50, 0.02), "kl": figure(0.1, 0.01)}
    figures |= {"ce_recovered_zero": figure(0.98, 0.01)}
    figures |= {"alive": {"value": 0.9, "interval": None}, "dense": {"value": 0.01, "interval": None}}
    return {
        "sae": NAMES[number], "width": 1_000, "hook": HOOK, "hook_out": HOOK, "figures": figures,
        "density": {"log10_edges": [n / 2 for n in range(-12, 1)], "latents": latents, "never": 1_000 - sum(latents)},
    }  # fmt: skip


def side(number: int) -> dict[str, Any]:
    random.seed(number)
    unmatched = [{"feature": n, "density": 0.25 / n, "nearest": n, "cosine": 0.5} for n in range(1, 9)]
    return {
        "alive": 900, "mean": 0.62, "matched": 0.41, "closely": 0.2, "unmatched": unmatched,
        "histogram": [random.randint(0, 90) for _ in range(20)],
        "random": {"mean": 0.31, "high": 0.44, "histogram": [0] * 4 + [100, 800, 124] + [0] * 13},
    }  # fmt: skip


def result(count: int) -> dict[str, Any]:
    matching = {"pairs": 500, "pairs_matched": 350, "pairs_closely": 150, "edges": [n / 20 for n in range(21)]}
    pairs = [
        {
            "a": NAMES[a], "b": NAMES[b], "differences": DIFFERENCES, "verdict": [f"{NAMES[a]} has the lower FVU."],
            "matching": {**matching, "a_in_b": side(a), "b_in_a": side(b)}, "moved": None, "unmatched_because": None,
        }
        for a in range(count)
        for b in range(a + 1, count)
    ]  # fmt: skip
    return {
        "saes": [one(n) for n in range(count)], "pairs": pairs, "verdict": [], "notes": [], "model": "pico",
        "tokens": 9_000, "ce_tokens": 4_000, "documents": 120, "unit": "document", "tokenization": "t", "seconds": 4.2,
    }  # fmt: skip


def texts(svg: str) -> list[str]:
    return ["".join(found.itertext()) for found in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("count", [2, 3, SERIES])
def test_every_sae_is_in_the_picture_with_a_sign_of_its_own(count: int) -> None:
    svg = drawn(result(count))
    root = ElementTree.fromstring(svg)
    assert set(NAMES[:count]) <= set(texts(svg))
    signs = [found.get("class", "") for found in root.iter() if "mark" in found.get("class", "")]
    for number in range(count):
        assert signs.count(f"c{number} mark") == 3  # in the legend, and in two plots
    dashes = {found.get("stroke-dasharray") for found in root.iter(f"{SVG}polyline")}
    assert len(dashes) == count
    assert sum(found.get("class") == "floor" for found in root.iter(f"{SVG}polygon")) == 1


def test_the_picture_is_one_file_for_light_and_dark() -> None:
    svg = drawn(result(2))
    assert "prefers-color-scheme:dark" in svg
    for reference in ("href", "url(", "@import", "<script", "<image"):
        assert reference not in svg
    assert svg.count("http") == 1  # the namespace


def test_axes_have_names_and_units() -> None:
    said = texts(drawn(result(2)))
    assert {"FVU (share of variance lost)", "ΔCE (nats a token)", "L0 (latents that fire on a token)"} <= set(said)
    assert {"share of latents", "share of alive features", "never", "10⁻³"} <= set(said)


def test_what_was_not_measured_or_matched_is_left_out() -> None:
    found = result(2)
    for sae in found["saes"]:
        for of in sae["figures"].values():
            of["interval"] = None
    found["pairs"][0]["matching"] = None
    found["saes"][1]["hook_out"] = "blocks.4.hook_resid_post"
    found["pairs"][0]["differences"] = {name: of for name, of in DIFFERENCES.items() if name != "fvu"}
    said = texts(drawn(found))
    assert not any(text.startswith(("Features found again", "Bars are")) for text in said)


def test_an_fvu_that_is_not_compared_with_that_of_the_first_is_left_out() -> None:
    """As of one that reads the text with BOS, at the same hook."""
    found = result(3)
    for pair in found["pairs"]:
        if NAMES[2] in (pair["a"], pair["b"]):
            pair["differences"] = {name: of for name, of in DIFFERENCES.items() if name != "fvu"}
    root = ElementTree.fromstring(drawn(found))
    signs = [sign.get("class", "") for sign in root.iter() if "mark" in sign.get("class", "")]
    assert [signs.count(f"c{number} mark") for number in range(3)] == [3, 3, 2]


def test_places_are_where_the_axes_say() -> None:
    plot = Plot((100, 50, 200, 100), (0, 10), (-1, 1), "title", ("x", "y"))
    assert plot.place(0, -1) == (100, 150)
    assert plot.place(10, 1) == (300, 50)
    assert plot.place(5, 0) == (200, 100)


@pytest.mark.parametrize(
    ("range_", "said"),
    [
        ((0, 1), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((0.197, 0.246), ["0.20", "0.21", "0.22", "0.23", "0.24"]),
        ((-3, 42), ["0", "10", "20", "30", "40"]),
        ((-0.02, 0.02), ["−0.02", "−0.01", "0.00", "0.01", "0.02"]),
        ((0, 1_900_000), ["0", "500000", "1000000", "1500000"]),
    ],
)
def test_ticks_are_round_numbers(range_: tuple[float, float], said: list[str]) -> None:
    assert [text for _, text in round_ticks(range_)] == said


@pytest.mark.parametrize("values", [[3.0], [0.0], [2.0, 2.0], [-1.0, 4.0]])
def test_there_is_room_around_values(values: list[float]) -> None:
    low, high = padded(values)
    assert low < min(values)
    assert high > max(values)


def test_a_comparison_is_told_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(2)
    found["notes"] = ["pico@2000: its threshold was chosen"]
    found["pairs"][0]["moved"] = {
        "lineage": "training", "alive_in_both": 880, "mean": 0.93, "median": 0.97, "matched": 0.95, "closely": 0.8,
        "born": 4, "died": 7, "changed": [{"feature": 12, "cosine": 0.11, "density_a": 0.1, "density_b": 0.2}],
    }  # fmt: skip
    show_compared(found)
    said = capsys.readouterr().out
    assert "0.200 (0.190 – 0.210)" in said
    assert said.split("\n")[0].split() == ["pico", "pico@2000"]
    assert "on 9,000 held-out tokens of t, 120 documents" in said
    assert "pico@2000: its threshold was chosen" in said
    assert "of pico's 900 alive features 41% are in pico@2000 (cosine above 0.7), 20% closely (0.9)" in said
    assert "best cosine 0.62 on average, at random 0.31" in said
    assert "500 pairs are each other's best, 350 of them above 0.7, 150 above 0.9" in said
    assert "fire most and are only in pico: 1 (25%), 2 (12%)" in said
    assert "7 are alive in pico alone, 4 in pico@2000 alone" in said
    assert "turned most, with cosine: 12 (0.11)" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a"], "a alone cannot be compared: name another SAE as well"),
        (["a", "b", "--picture", "x.png"], "x.png is not FILE.svg"),
        (["a", "b", "--picture", "x.svg", "--detach"], "leave out one of them"),
        (["a", "b", "--picture", "nowhere/x.svg"], "nowhere/x.svg cannot be written: there is no folder"),
    ],
)
def test_bad_command_lines_are_refused_before_any_work(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["-H", f"unix:{tmp_path}/none", "sae", "compare", *arguments])
    assert said.exit_code == 2
    assert sentence in said.stderr
