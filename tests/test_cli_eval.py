"""What ``mistudio sae eval`` prints."""

from __future__ import annotations

from typing import Any

import pytest
from mistudio.evaluated import latest, show_evaluated


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "interval": None if low is None else [low, high]}


def result(**changes: Any) -> dict[str, Any]:
    figures = {
        "fvu": figure(0.1234, 0.12, 0.13),
        "pca_fvu": figure(0.5),
        "random_fvu": figure(0.4),
        "l0": figure(32.04, 31, 33),
        "alive": figure(0.99),
        "ce_delta": figure(None),
    }
    made = {
        "figures": figures,
        "density": {"log10_edges": [-1.0, -0.5, 0.0], "latents": [3, 1], "never": 2},
        "verdict": ["it is <b>good</b>"],
        "tokens": 20_000,
        "ce_tokens": None,
        "components": 32,
        "directions": 32,
        "documents": {"unit": "document", "count": 15, "units": 15, "ce_units": 0, "least": 10},
        "tokenization": "python-pico",
        "seconds": 12.0,
        "probes": None,
    }
    return made | changes


def test_a_figure_stands_beside_its_interval_and_one_that_is_not_known_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_evaluated(result())
    out = capsys.readouterr().out
    fvu = next(line for line in out.splitlines() if line.startswith("FVU"))
    assert "0.123" in fvu and "0.120 to 0.130" in fvu and "32 principal components 0.500" in fvu
    assert "ΔCE" not in out and "it is <b>good</b>" in out and "ANSWERED RIGHTLY BY" not in out


def test_probes_are_a_row_for_each_question_and_their_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = {"all": figure(0.97), "latents 1": figure(0.74), "numbers 1": figure(0.668), "latents 5": figure(0.883),
                "numbers 5": figure(0.798)}  # fmt: skip
    probes = {"said": ["absorption: 12 %"], "probing": {"tasks": [{"name": "word begins", "accuracy": accuracy}]}}
    show_evaluated(result(probes=probes))
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("word begins"))
    assert row.split()[2:] == ["74%", "67%", "88%", "80%", "97%"]
    assert "absorption: 12 %" in out


def test_where_probes_were_not_possible_their_sentence_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_evaluated(result(probes={"said": ["too little text"], "probing": None, "absorption": None}))
    assert "too little text" in capsys.readouterr().out


def test_a_list_shows_the_newest_figure() -> None:
    assert latest({"fvu": 0.2}, "fvu") == 0.2
    assert latest({"fvu": 0.2, "evaluation": {"figures": {"fvu": figure(0.1)}}}, "fvu") == 0.1
