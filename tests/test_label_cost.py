"""What asking will cost, said before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from feature_pages import PlainPages, definitions

from mistudiod.labelling import prompt
from mistudiod.labelling.cost import estimate, lane_of, price, thinks, tokens_of
from mistudiod.specs import Label, Score

OPENAI = {"name": "openai", "url": "https://api.openai.com/v1", "on_this_machine": False}
HERE = {"name": "ollama", "url": "http://127.0.0.1:11434/v1", "on_this_machine": True}
TEMPLATE = prompt.DEFAULT.read_text()
PAGES = PlainPages({index: definitions(index) for index in range(100)})


def label(**fields: Any) -> Label:
    return Label.model_validate({"sae": "s", "endpoint": "openai", "model": "gpt-4o-mini", "top": 100, **fields})


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-4o-mini", (0.15, 0.6)),
        ("gpt-4o-mini-2024-07-18", (0.15, 0.6)),
        ("gpt-4o-2024-05-13", (5, 15)),
        ("gpt-4o-2099-01-01", None),
        ("gpt-4o-mini-audio", None),
        ("m", None),
    ],
)
def test_prices_of_well_known_models_are_known(model: str, known: tuple[float, float] | None) -> None:
    assert price(label(model=model), OPENAI) == known


@pytest.mark.parametrize(
    "url",
    [
        *("http://192.168.1.7:8000/v1", "http://gpubox:8000/v1", "http://gpu.lan/v1", "http://[fd12::1]/v1"),
        *("http://a.internal/v1", "http://a.home.arpa/v1", "http://a.localhost/v1"),
    ],
)
def test_what_stands_on_this_network_costs_nothing(url: str) -> None:
    assert price(label(), {"name": "box", "url": url, "on_this_machine": False}) == (0, 0)


def test_elsewhere_nobody_knows_the_price_until_it_is_given() -> None:
    elsewhere = {"name": "router", "url": "https://openrouter.ai/api/v1", "on_this_machine": False}
    assert price(label(), elsewhere) is None
    assert price(label(price_in=1), elsewhere) == (1, 0)
    assert price(label(price_in=1, price_out=3), OPENAI) == (1, 3)


def test_models_that_think_are_known_by_name() -> None:
    assert all(
        map(thinks, ["o1", "o3-mini", "o4-mini", "gpt-5", "gpt-5-mini", "openai/gpt-5.1", "deepseek-r1:8b", "qwq"])
    )
    assert not any(map(thinks, ["gpt-4o", "gpt-4.1-nano", "llama3.2:3b", "qwen3:4b", "foo1"]))


def some(count: int, methods: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Features as the daemon says that they are left to do."""
    return [{"index": index, **({} if methods is None else {"methods": methods})} for index in range(count)]


def test_an_estimate_is_near_to_what_the_questions_are() -> None:
    found = estimate(label(), PAGES, some(100), TEMPLATE, OPENAI)
    text = "".join(message["content"] for message in prompt.build(definitions(), TEMPLATE))
    others = sum(not char.isascii() for char in text)  # shown line breaks and the like
    assert (found["features"], found["calls"], found["endpoint"], found["model"]) == (100, 100, "openai", "gpt-4o-mini")
    assert found["prompt_tokens"] == pytest.approx(100 * ((len(text) - others) / 3.6 + others), rel=0.01)
    assert found["cost_usd"] == pytest.approx((0.15 * found["prompt_tokens"] + 0.6 * found["answer_tokens"]) / 1e6)
    assert (found["lane"], found["url"]) == ("io", OPENAI["url"])
    assert estimate(label(model="o4-mini"), PAGES, some(100), TEMPLATE, OPENAI)["answer_tokens"] > 50_000
    assert estimate(label(model="strange"), PAGES, some(100), TEMPLATE, OPENAI)["cost_usd"] is None


def test_without_an_llm_nothing_is_asked() -> None:
    found = estimate(label(endpoint="tokens"), PAGES, some(100), TEMPLATE, None)
    assert (found["calls"], found["prompt_tokens"], found["cost_usd"], found["lane"]) == (0, 0, 0, "io")
    assert (found["endpoint"], found["url"], found["model"]) == ("tokens", None, None)


def test_no_features_cost_nothing() -> None:
    found = estimate(label(), PAGES, [], TEMPLATE, OPENAI)
    assert (found["calls"], found["prompt_tokens"], found["cost_usd"]) == (0, 0, 0)


def test_scoring_asks_several_times_of_each_feature() -> None:
    spec = Score.model_validate(
        {
            "sae": "s",
            "methods": ["tokens", "detection", "fuzzing"],
            "endpoint": "openai",
            "model": "gpt-4o",
            "examples": 20,
        }
    )
    found = estimate(spec, PAGES, some(10, spec.methods), "", OPENAI)
    assert found["calls"] == 10 * 2 * 8
    assert estimate(spec, PAGES, some(10, ["fuzzing"]), "", OPENAI)["calls"] == 10 * 8  # the rest has been done
    assert 250 * 160 < found["prompt_tokens"] < 700 * 160


def test_an_endpoint_on_this_machine_takes_the_gpu_lane_unless_it_shares() -> None:
    assert lane_of(label(), HERE)[0] == "gpu"
    assert lane_of(label(share_gpu=True), HERE)[0] == "io"
    assert lane_of(label(), OPENAI)[0] == "io"


def test_tokens_are_guessed_to_the_dear_side() -> None:
    assert tokens_of("") == 1
    assert tokens_of("a" * 3600) == 1001
    assert tokens_of("語" * 1000) == 1001
    assert tokens_of("語" * 1000 + "a" * 3600) == 2001
