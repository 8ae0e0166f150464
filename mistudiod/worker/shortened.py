"""What a worker says, cut to what a line may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mistudiod.events import (
    MAX_EXPLANATION_CHARS,
    MAX_FEATURES,
    MAX_LABEL_CHARS,
    MAX_LABELS,
    MAX_LIVE_BYTES,
    MAX_REASON_CHARS,
    MAX_TEXT_CHARS,
    MAX_WINDOWS,
    Live,
    LiveFeature,
    NewLabel,
    NoLabel,
    Window,
    to_line,
)

_LABELS_BYTES = 520_000  # of a line of them, what is said of all of them aside


def live(sae: str | None, step: int, features: Sequence[Mapping[str, Any]]) -> Live:
    """Texts that are too long for a line are cut on their far sides from the token."""
    chars = MAX_TEXT_CHARS
    while len(to_line(event := _live(sae, step, features, chars))) > MAX_LIVE_BYTES:
        chars //= 2
    return event


def _live(sae: str | None, step: int, features: Sequence[Mapping[str, Any]], chars: int) -> Live:
    def shortened(window: Mapping[str, Any]) -> Window:
        before, token, after = (_whole(str(window[name])) for name in ("before", "token", "after"))
        return Window(value=window["value"], before=before[-chars:], token=token[:chars], after=after[:chars])

    shown = [
        LiveFeature(
            feature=one["feature"],
            density=one["density"],
            windows=[shortened(window) for window in one["windows"][:MAX_WINDOWS]],
        )
        for one in features[:MAX_FEATURES]
    ]
    return Live(sae=sae, step=step, features=shown)


def label(one: Mapping[str, Any]) -> NewLabel | NoLabel:
    if "error" in one:
        return NoLabel(feature=one["feature"], error=_whole(one["error"])[:MAX_REASON_CHARS])
    explanation = one.get("explanation")
    texts: dict[str, str | None] = {"text": _whole(one["text"])[:MAX_LABEL_CHARS]}
    texts["explanation"] = explanation and _whole(explanation)[:MAX_EXPLANATION_CHARS]
    return NewLabel(**{**one, **texts})


def in_lines(labels: list[NewLabel | NoLabel]) -> Iterator[list[NewLabel | NoLabel]]:
    """As many at once as a line may have."""
    some: list[NewLabel | NoLabel] = []
    size = 0
    for one in labels:
        bytes_ = len(to_line(one))
        if some and (len(some) == MAX_LABELS or size + bytes_ > _LABELS_BYTES):
            yield some
            some, size = [], 0
        some.append(one)
        size += bytes_
    if some:
        yield some


def _whole(text: str) -> str:
    """A token may be half of a character: what no encoding takes becomes a question mark."""
    return text.encode(errors="replace").decode()
