"""What asking costs: prices of well-known models, and tokens guessed from characters as long as nobody counts them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mistudiod.specs.label import Asking

CHARS_PER_TOKEN = 3.6  # of English with code in it, by the tokenizers of well-known LLMs; rounded to the dear side
PRICES_OF = "June 2026"
# US$ for a million tokens of questions and of answers, OpenAI's of PRICES_OF; price_in and price_out of a spec win.
PRICES: dict[str, tuple[float, float]] = {
    "gpt-3.5-turbo": (0.50, 1.50),
    "gpt-4-turbo": (10.00, 30.00),
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
    "gpt-4o": (2.50, 10.00),
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
_OPENAI = "api.openai.com"
_HOME = (".local", ".lan", ".home.arpa", ".internal")  # names that only a network of one's own gives
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")  # a snapshot costs what its model does
_THINKS = re.compile(r"(^|/)(o\d|gpt-5|gpt-oss|deepseek-r1|qwq)|thinking|reasoning", re.IGNORECASE)


def thinks(model: str) -> bool:
    """Whether a model is known by its name to think before it answers, in tokens that count."""
    return bool(_THINKS.search(model))


def tokens_of(chars: int) -> int:
    return int(chars / CHARS_PER_TOKEN) + 1


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
    return PRICES.get(_DATED.sub("", spec.model or "")) if host == _OPENAI else None


def _is_on_this_network(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(_HOME)


def cost_usd(prices: tuple[float, float], prompt_tokens: float, answer_tokens: float) -> float:
    return (prices[0] * prompt_tokens + prices[1] * answer_tokens) / 1_000_000
