"""What jobs that make nothing have found, each kind as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mistudio import human, output
from mistudio.feature_page import interval

Result = Mapping[str, Any]
_WORTH: dict[str, tuple[str, Callable[[Result], object]]] = {  # the field that a column is of, and how it is shown
    "METHOD": ("method", lambda one: one["method"]),
    "JUDGE": ("judge", lambda one: one["judge"]),
    "LABELS": ("features", lambda one: human.count(one["features"])),
    "BALANCED ACCURACY": ("mean", lambda one: interval(one, "mean")),
    "ABOVE 0.7": ("share_above_0_7", lambda one: human.share(one["share_above_0_7"])),
    "ANSWERS FAILED": ("failed", lambda one: human.count(one["failed"])),
}


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
    show_worth([{"method": method, **worth} for method, worth in result["methods"].items()])


def show_worth(scores: Sequence[Result]) -> None:
    """A line for each method and judge: the mean over all labels, with its interval of 95 %."""
    columns = {title: about for title, about in _WORTH.items() if any(about[0] in one for one in scores)}
    if scores:
        output.text("")
        output.table(list(columns), [[show(one) for _, show in columns.values()] for one in scores])


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
        output.text(f"  {human.count(count)}: {reason}")


OF_KIND: dict[str, Callable[[Result], None]] = {"label": show_labelled, "score": show_scored}
