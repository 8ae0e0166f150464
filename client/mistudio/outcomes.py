"""What jobs that make nothing have found, each kind as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mistudio import human, output
from mistudio.feature_page import interval

Result = Mapping[str, Any]


def show_labelled(result: Result) -> None:
    """How many features have got a label, and why the others have none."""
    _show_partial(result)
    output.record(
        {
            "labelled": human.count(result["labelled"]),
            "unclear": human.count(result["unclear"]),
            "failed": human.count(result["failed"]),
            **_spent(result),
        }
    )
    _show_failures(result)


def show_scored(result: Result) -> None:
    """What the labels as a whole are worth, by each method."""
    _show_partial(result)
    output.record({"scored": human.count(result["scored"]), "failed": human.count(result["failed"]), **_spent(result)})
    _show_failures(result)
    show_worth(result["methods"])


def show_worth(methods: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each method: the mean over all labels, with its interval of 95 %."""
    header = ["METHOD", "LABELS", "BALANCED ACCURACY", "ABOVE 0.7", "ANSWERS FAILED"]
    rows = [
        [
            method, human.count(worth["features"]), interval(worth, "mean"), human.share(worth["share_above_0_7"]),
            human.count(worth["failed"]),
        ]
        for method, worth in methods.items()
    ]  # fmt: skip
    if rows:
        output.text("")
        output.table(header, rows)


def _show_partial(result: Result) -> None:
    if result.get("partial"):
        output.text(result["partial"])


def _spent(result: Result) -> dict[str, str]:
    asked, answered = result.get("prompt_tokens"), result.get("answer_tokens")
    if not asked:
        return {}
    cost = result.get("cost_usd")
    return {
        "tokens": f"{human.count(asked)} asked, {human.count(answered)} answered",
        "cost": human.UNKNOWN if cost is None else f"US$ {cost:.4g}",
    }


def _show_failures(result: Result) -> None:
    for reason, count in (result.get("reasons") or {}).items():
        output.text(f"  {human.count(count)} failed: {reason}")


OF_KIND: dict[str, Callable[[Result], None]] = {"label": show_labelled, "score": show_scored}
