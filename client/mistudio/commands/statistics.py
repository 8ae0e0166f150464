"""What there is to see of one tokenization: what was kept of the text, how long documents are, which tokens come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mistudio import human, output
from mistudio.api import Artifact

_BAR = 30  # characters of the longest
# Why documents were dropped, by the option that says so.
_REASONS = {
    "empty": "without a token",
    "shortest": "too short (--shortest)",
    "longest": "too long (--longest)",
    "drop_duplicates": "there before (--drop-duplicates)",
    "max_unprintable": "not printable (--max-unprintable)",
    "must_match": "without the pattern (--must-match)",
    "must_not_match": "with the pattern (--must-not-match)",
}


def show_statistics(tokenization: Artifact) -> None:
    output.record(_about(tokenization))
    if histogram := tokenization.get("length_histogram"):
        output.text("")
        output.table(["TOKENS OF A DOCUMENT", "DOCUMENTS", ""], _lengths(histogram))
    most, least = tokenization.get("most_frequent") or [], tokenization.get("least_frequent") or []
    if most:
        output.text("")
        header = ["MOST FREQUENT", "TIMES", "LEAST FREQUENT", "TIMES"]
        output.table(header, [[*_times(one), *_times(other)] for one, other in zip(most, least, strict=True)])


def _about(t: Artifact) -> dict[str, object]:
    dropped = {_REASONS.get(reason, reason): human.count(n) for reason, n in (t.get("dropped") or {}).items()}
    return {
        "name": t["name"],
        "id": t["id"],
        "dataset": t.get("dataset"),
        "model": t.get("model"),
        "documents": f"{human.count(t.get('documents'))} kept of {human.count(t.get('documents_read'))}",
        **{f"  dropped, {reason}": n for reason, n in dropped.items()},
        "tokens": human.count(t.get("tokens")),
        "windows": f"{human.count(t.get('windows'))} of {human.count(t.get('context'))} tokens",
        "  held out": human.count(t.get("held_out_windows")),
        "bytes per token": human.number(t.get("bytes_per_token"), 2),
        "vocabulary covered": human.share(t.get("vocabulary_covered")),
        "unknown tokens": human.share(t.get("unknown_share")),
        "on disk": human.size(t.get("size_bytes")),
        "folder": t["folder"],
        "job": t["job"],
    }


def _lengths(histogram: list[dict[str, Any]]) -> Iterator[list[str]]:
    """A line for each power of two, from the first that a document has."""
    most = max(one["documents"] for one in histogram)
    begun = False
    for one in histogram:
        begun = begun or one["documents"] > 0
        if begun:
            first, n = one["from_tokens"], one["documents"]
            span = human.count(first) if first == 1 else f"{human.count(first)} – {human.count(2 * first - 1)}"
            yield [span, human.count(n), "█" * -(-_BAR * n // most)]


def _times(token: dict[str, Any]) -> list[str]:
    shown = token["text"].replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return [f"'{shown}'", human.count(token["count"])]
