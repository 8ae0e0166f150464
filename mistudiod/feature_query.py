"""Which features are asked for, and in which order: filters and sorts over all features of a store. Standard library.

Each condition becomes a mask, a byte a feature; the stored order is walked and what all masks let through is left.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from typing import Any, TypeVar

from mistudiod.pages import Pages

STORED = ("index", "density", "max", "typical", "token")  # sorts that the store knows
SORTS = (*STORED, "label", "score")
FILTERS = (
    "dead, alive, labelled, unlabelled, failed, starred, density<N, density>N, max<N, max>N, score<N, score>N, "
    'provider:NAME, list:NAME, token:TEXT, token:"TEXT" and index:N,N'
)
_TERM = re.compile(r'\s*([a-z]+)(?:([:<>])("(?:[^"\\]|\\.)*"|[^\s"]\S*))?(?=\s|$)', re.DOTALL)
_LABELS: dict[str, dict[str, Any]] = {
    "labelled": {"labelled": True},
    "unlabelled": {"labelled": False},
    "failed": {"failed": True},
    "starred": {"starred": True},
}
_BLOCK = 1 << 14  # values looked at without a pause: other threads wait for so many
Test = Callable[[Any], bool]
Features = TypeVar("Features", Sequence[int], set[int])


@dataclass(frozen=True)
class Filter:
    """``store``: (what, sign, value) that a store can tell; ``labels``: what ``Labels.matching`` is asked."""

    store: list[tuple[str, str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)


def parse_sort(text: str) -> tuple[str, bool]:
    """What to sort by, and whether from the largest. Raises ValueError, one sentence."""
    key = text.removeprefix("-")
    if key not in SORTS:
        raise ValueError(
            f"there is no sort {text[:50]!r}; sorts are {', '.join(SORTS)}, with - in front for the reverse"
        )
    return key, text != key


def parse_filter(text: str) -> Filter:
    """Terms with spaces between; all must hold. Raises ValueError, one sentence."""
    found, at, text = Filter(), 0, text.rstrip()
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            raise _unknown(text[at:])
        at = match.end()
        name, sign, value = match.groups()
        if sign is None and name in _LABELS:
            found.labels.append(_LABELS[name])
        elif sign is None and name in ("dead", "alive"):
            found.store.append((name, "", None))
        elif sign == ":" and name == "token":
            found.store.append((name, sign, _text(value)))
        elif sign == ":" and name == "index":
            found.store.append((name, sign, _indices(match[0], value)))
        elif sign == ":" and name in ("provider", "list"):
            found.labels.append({{"list": "list_name"}.get(name, name): _text(value)})
        elif sign in ("<", ">") and name == "score":
            found.labels.append({"score": (sign, _number(match[0], value))})
        elif sign in ("<", ">") and name in ("density", "max"):
            found.store.append((name, sign, _number(match[0], value)))
        else:
            raise _unknown(match[0])
    return found


def select(
    pages: Pages, sort: tuple[str, bool], store: Iterable[tuple[str, str, Any]] = (),
    among: Iterable[set[int]] = (), known: Sequence[int] = (),
) -> Sequence[int]:  # fmt: skip
    """The features that fulfil all conditions, in their order.

    ``among``: sets of features, of which a feature must be in each. ``known``: of a sort by label or score the features
    that have one, in ascending order. What has nothing to sort by is last either way, by index: dead features by
    density, max, typical and token, those without a label or score.
    """
    masks = [_mask(pages, *condition) for condition in store]
    masks += [_mask_of(_within(found, pages.d_sae), pages.d_sae) for found in among]
    order = _order(pages, *sort, _within(known, pages.d_sae))
    if not masks:
        return order
    whole = int.from_bytes(masks[0], "little")
    for mask in masks[1:]:
        whole &= int.from_bytes(mask, "little")
    passed = whole.to_bytes(pages.d_sae, "little")
    return array("I", (index for index in order if passed[index]))  # a list of them would be nine times as large


def _within(features: Features, d_sae: int) -> Features | list[int]:
    """Without those that the SAE has not: labels may be of another one that had this name."""
    return features if max(features, default=0) < d_sae else [index for index in features if index < d_sae]


def _order(pages: Pages, key: str, reverse: bool, known: Iterable[int]) -> Sequence[int]:
    if key == "index":
        return range(pages.d_sae - 1, -1, -1) if reverse else range(pages.d_sae)
    if key not in STORED:
        has = _mask_of(known, pages.d_sae)
        found = array("I", known)
        if reverse:
            found.reverse()
        found.extend(compress(range(pages.d_sae), map(not_, has)))
        return found
    order, fired = pages.order(key), pages.columns["fired"]
    if reverse == (key != "token"):  # as it is stored: numbers from the largest, texts from the smallest
        return order
    alive = bisect_left(order, True, key=lambda index: not fired[index])
    found = array("I", order[:alive])
    found.reverse()
    found.extend(order[alive:])
    return found


def _mask(pages: Pages, name: str, sign: str, value: Any) -> bytes | bytearray:
    if name == "token":
        return _mask_of(pages.with_token(value), pages.d_sae)
    if name == "index":
        return _mask_of((index for index in value if index < pages.d_sae), pages.d_sae)
    fired = pages.columns["fired"]
    if name in ("dead", "alive"):
        return _tested(fired, (0).__eq__ if name == "dead" else (0).__lt__)
    if name == "max":
        return _tested(pages.columns["max"], value.__gt__ if sign == "<" else value.__lt__)
    # How often a feature must fire for its density to be at least, or above, the value.
    counts, bisect = range(pages.tokens + 1), bisect_left if sign == "<" else bisect_right
    least: int = bisect(counts, value, key=lambda count: count / max(pages.tokens, 1))
    return _tested(fired, least.__gt__ if sign == "<" else least.__le__)


def _tested(column: Any, test: Test) -> bytes:
    return b"".join(bytes(map(test, column[n : n + _BLOCK])) for n in range(0, len(column), _BLOCK))


def _mask_of(features: Iterable[int], d_sae: int) -> bytearray:
    mask = bytearray(d_sae)
    for index in features:
        mask[index] = 1
    return mask


def _text(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        text = str(json.loads(value, strict=False))
        text.encode()  # which half a surrogate pair cannot be
    except ValueError:
        raise ValueError(f"{value[:50]} is no text: a quoted one is written as in JSON") from None
    return text


def _number(term: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the filter {term.strip()[:50]!r} needs a number, such as 0.01 or 1e-5")
    return number


def _indices(term: str, value: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,10}(,[0-9]{1,10})*", value):
        raise ValueError(f"the filter {term.strip()[:50]!r} needs numbers of features, such as index:5,12")
    return [int(index) for index in value.split(",")]


def _unknown(term: str) -> ValueError:
    return ValueError(f"there is no filter {term.strip()[:50]!r}; filters are {FILTERS}")
