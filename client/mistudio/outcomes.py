"""What jobs have found about features, each kind as a person reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mistudio import human, inspected, output, steered
from mistudio.certified import show_certified
from mistudio.compared import show_compared
from mistudio.evaluated import show_evaluated
from mistudio.feature_page import interval

Result = Mapping[str, Any]
_THERE = {"new": "no", "same": "the same", "other": "another"}
_WORTH: dict[str, tuple[str, Callable[[Result], object]]] = {  # the field that a column is of, and how it is shown
    "METHOD": ("method", lambda one: one["method"]),
    "JUDGE": ("judge", lambda one: one["judge"]),
    "LABELS": ("features", lambda one: human.count(one["features"])),
    "BALANCED ACCURACY": ("mean", lambda one: interval(one, "mean")),
    "ABOVE 0.7": ("share_above_0_7", lambda one: human.share(one["share_above_0_7"])),
    "ANSWERS FAILED": ("failed", lambda one: human.count(one["failed"])),
}


def show_extracted(result: Result) -> None:
    """What an extraction has read and found; its manifest has more, which is no news to a person."""
    skipped = {f"  left out, {why}": human.count(n) for why, n in (result.get("skipped") or {}).items() if n}
    output.record(
        {
            "sae": result["sae"],
            "extraction": result["id"],
            "text": result.get("tokenization"),
            "tokens": human.count(result.get("tokens")),
            **skipped,
            "features": human.count(result.get("features")),
            "  dead": human.count(result.get("dead")),
            "L0": human.number(result.get("l0"), 1),
            "time": human.duration(result.get("seconds")),
            "tokens/s": human.count(result.get("tokens_per_s")),
        }
    )


def show_inspected(result: Result, labels: Mapping[int, str] = MappingProxyType({})) -> None:
    """``labels`` of features, by their index."""
    output.painted(inspected.lines(result, labels, output.canvas()))


def show_steered(result: Result) -> None:
    output.painted(steered.lines(result, {}, output.canvas()))


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
    counts = {name: human.count(result.get(name, 0)) for name in ("scored", "unscored", "failed")}
    output.record({**counts, **_spent(result)})
    _show_failures(result)
    show_worth([{"method": method, **worth} for method, worth in result["methods"].items()])


def show_published(result: Result, say: Callable[[str], None] = output.text) -> None:
    """What is, or after a dry run would be, where; of a dry run the card too."""
    would_be = "would be " if result["dry_run"] else ""
    if card := result.get("card"):
        for line in [*card.rstrip("\n").split("\n"), "──"]:
            say(line)
    output.record(
        {
            "repository": result["url"] + f" ({would_be}made)" * bool(result["made"]),
            "seen by": "those who may see it (private)" if result["private"] else "everybody",
            f"{would_be}sent": human.size(result["sent_bytes"]),
            **({"commit": result["commit"]} if result.get("commit") else {}),
        },
        say,
    )
    rows = [[one["file"], human.size(one["bytes"]), _THERE[one["state"]]] for one in result["files"]]
    output.table(["FILE", "SIZE", "THERE BEFORE"], rows, say)


def show_uploaded(result: Result) -> None:
    """Where features are, and how many have no place there."""
    output.record(
        {
            "uploaded": result["url"],
            "features": human.count(result["features"]),
            "  dead, left out": human.count(result["dead"]),
            "labels": human.count(result["labels"]),
            "requests": human.count(result["requests"]),
        }
    )


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


def show_exported(result: Result) -> None:
    """Where it lies, here when it was brought, and what was folded or has no place there."""
    output.text(result.get("folder") or result["path"])
    for note in result["notes"]:
        output.note(note)


OF_KIND: dict[str, Callable[[Result], None]] = {
    "certify": show_certified,
    "compare": show_compared,
    "evaluate": show_evaluated,
    "export": show_exported,
    "extract": show_extracted,
    "inspect": show_inspected,
    "label": show_labelled,
    "push": show_published,
    "score": show_scored,
    "steer": show_steered,
    "upload": show_uploaded,
}
