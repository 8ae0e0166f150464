"""What asking costs: prices of well-known models, and tokens guessed from characters as long as nobody counts them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from mistudiod.endpoints import is_lan_name
from mistudiod.labelling import prompt
from mistudiod.specs.label import KEYLESS, Asking, Label, Score

# Of English with code in it, by the tokenizers of well-known LLMs; rounded to the dear side. Of other scripts many a
# character is a token of its own.
CHARS_PER_TOKEN = 3.6
PRICES_OF = "June 2026"
# US$ for a million tokens of questions and of answers, OpenAI's of PRICES_OF; price_in and price_out of a spec win.
# Only these names have a price: another snapshot or variant may have another.
PRICES: dict[str, tuple[float, float]] = {
    "gpt-3.5-turbo": (0.50, 1.50),
    "gpt-4-turbo": (10.00, 30.00),
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-2024-05-13": (5.00, 15.00),
    "gpt-4o-mini": (0.15, 0.60),
    "gpt-5": (1.25, 10.00),
    "gpt-5-mini": (0.25, 2.00),
    "gpt-5-nano": (0.05, 0.40),
    "gpt-5.1": (1.25, 10.00),
    "gpt-5.2": (1.75, 14.00),
    "gpt-5.4": (2.50, 15.00),
    "gpt-5.4-mini": (0.75, 4.50),
    "gpt-5.4-nano": (0.20, 1.25),
    "o1": (15.00, 60.00),
    "o3": (2.00, 8.00),
    "o3-mini": (1.10, 4.40),
    "o4-mini": (1.10, 4.40),
}
# Snapshots that cost what the model does whose name they begin with.
_SNAPSHOTS = {
    "gpt-3.5-turbo": ("0125",),
    "gpt-4-turbo": ("2024-04-09",),
    "gpt-4.1": ("2025-04-14",),
    "gpt-4.1-mini": ("2025-04-14",),
    "gpt-4.1-nano": ("2025-04-14",),
    "gpt-4o": ("2024-08-06", "2024-11-20"),
    "gpt-4o-mini": ("2024-07-18",),
    "gpt-5": ("2025-08-07",),
    "gpt-5-mini": ("2025-08-07",),
    "gpt-5-nano": ("2025-08-07",),
    "gpt-5.1": ("2025-11-13",),
    "gpt-5.2": ("2025-12-11",),
    "o1": ("2024-12-17",),
    "o3": ("2025-04-16",),
    "o3-mini": ("2025-01-31",),
    "o4-mini": ("2025-04-16",),
}
_ALIASES = {f"{model}-{date}": model for model, dates in _SNAPSHOTS.items() for date in dates}
_OPENAI = "api.openai.com"
_THINKS = re.compile(r"(^|/)(o\d|gpt-5|gpt-oss|deepseek-r1|qwq)|thinking|reasoning", re.IGNORECASE)

_SAMPLED = 16  # features whose questions are written to see how long they are
_ANSWER_TOKENS, _THOUGHT_TOKENS = 90, 700  # of a label, as answers have; of a model that thinks first
_JUDGED_AT_ONCE, _JUDGE_TOKENS, _VERDICT_TOKENS = 5, 306, 25  # texts of one question; instructions and label; numbers
_JUDGED_AROUND = 16  # tokens of a judged text on either side of the one that it is about


class Read(Protocol):
    """A feature store, as far as it is needed here."""

    def page(self, index: int, /) -> Mapping[str, Any]: ...


def thinks(model: str) -> bool:
    """Whether a model is known by its name to think before it answers, in tokens that count."""
    return bool(_THINKS.search(model))


def tokens_of(text: str) -> int:
    """About how many tokens a text has: one for each character that is not ASCII, fewer for those that are."""
    plain = len(text.encode("ascii", "ignore"))
    return int(plain / CHARS_PER_TOKEN) + (len(text) - plain) + 1


def price(spec: Asking, endpoint: Mapping[str, Any]) -> tuple[float, float] | None:
    """US$ for a million tokens of questions and of answers; None when nobody knows.

    ``endpoint``: ``{"name", "url", "on_this_machine"}``; one on this machine or network costs nothing. When the spec
    says one of the prices, the other is 0 unless it says that too.
    """
    if spec.price_in is not None or spec.price_out is not None:
        return spec.price_in or 0.0, spec.price_out or 0.0
    host = urlsplit(endpoint["url"]).hostname or ""
    if endpoint["on_this_machine"] or _is_on_this_network(host):
        return 0.0, 0.0
    model = spec.model or ""
    return PRICES.get(_ALIASES.get(model, model)) if host == _OPENAI else None


def _is_on_this_network(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return is_lan_name(host)


def cost_usd(prices: tuple[float, float], prompt_tokens: float, answer_tokens: float) -> float:
    return (prices[0] * prompt_tokens + prices[1] * answer_tokens) / 1_000_000


def estimate(
    spec: Label | Score,
    pages: Read,
    features: Sequence[Mapping[str, Any]],
    template: str,
    endpoint: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What asking about these features will take, about; nothing where no LLM is asked.

    ``{"features", "calls", "prompt_tokens", "answer_tokens", "cost_usd" (None: nobody knows), "lane", "why",
    "endpoint", "url", "model"}``. ``features``: what is left, ``[{"index"}]``, with the ``"methods"`` of a scoring.
    ``endpoint``: as ``price`` wants it; None for the provider tokens. Raises ValueError as ``prompt.check`` does.
    """
    calls = prompt_tokens = answer_tokens = 0
    prices: tuple[float, float] | None = (0.0, 0.0)
    if endpoint:
        asked, answer = _question(spec, pages, [one["index"] for one in features], template)
        calls = sum(_calls(spec, one) for one in features)
        prompt_tokens = calls * asked
        answer_tokens = calls * (answer + (_THOUGHT_TOKENS if thinks(spec.model or "") else 0))
        prices = price(spec, endpoint)
    lane, why = lane_of(spec, endpoint)
    return {
        "features": len(features),
        "calls": calls,
        "prompt_tokens": prompt_tokens,
        "answer_tokens": answer_tokens,
        "cost_usd": None if prices is None else round(cost_usd(prices, prompt_tokens, answer_tokens), 6),
        "lane": lane,
        "why": why,
        "endpoint": endpoint["name"] if endpoint else KEYLESS,
        "url": endpoint["url"] if endpoint else None,
        "model": spec.model if endpoint else None,
    }


def lane_of(spec: Asking, endpoint: Mapping[str, Any] | None) -> tuple[str, str]:
    """The lane that a job takes, and why, in one sentence."""
    if endpoint is None:
        return "io", "no LLM is asked"
    name = endpoint["name"]
    if not endpoint["on_this_machine"]:
        return "io", f"{name} is another machine"
    if spec.share_gpu:
        return "io", f"{name} is on this machine and shares its GPU, as share_gpu says"
    return (
        "gpu",
        f"{name} is on this machine and uses its GPU: it waits until no other job does, unless share_gpu is given",
    )


def _calls(spec: Label | Score, feature: Mapping[str, Any]) -> int:
    """Questions about a feature."""
    if isinstance(spec, Label):
        return 1
    return len({*feature["methods"]} - {KEYLESS}) * -(-2 * spec.examples // _JUDGED_AT_ONCE)


def _question(spec: Label | Score, pages: Read, indices: Sequence[int], template: str) -> tuple[int, int]:
    """Tokens of a question, and of its answer; over an even sample of the features."""
    step = max(1, len(indices) // _SAMPLED)
    sampled = [pages.page(index) for index in indices[::step][:_SAMPLED]]
    if isinstance(spec, Label):
        asked = (prompt.build(page, template) for page in sampled)
        lengths = [tokens_of("".join(message["content"] for message in messages)) for messages in asked]
        return _mean(lengths), _ANSWER_TOKENS
    shown = [_judged(one) for page in sampled for one in page["examples"]]
    return _JUDGE_TOKENS + _JUDGED_AT_ONCE * _mean(shown), _VERDICT_TOKENS


def _judged(one: Mapping[str, Any]) -> int:
    around = one["texts"][max(0, one["peak"] - _JUDGED_AROUND) : one["peak"] + _JUDGED_AROUND + 1]
    return tokens_of("".join(around))


def _mean(numbers: Sequence[int]) -> int:
    return round(sum(numbers) / len(numbers)) if numbers else 0
