"""Examples of a feature as lines: the token that an example is about marked, and always to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mistudio.output import Canvas
from mistudio.visible import CUT, cut, cut_before, visible, width, within

Part = tuple[str, str]
Example = Mapping[str, Any]

_SHADES = ("on #fff4d6", "on #ffe08a", "on #ffc04d", "on #ff9a3c", "on #ff6f3c")  # from weak to strong
PEAK = "bold underline"
_BEFORE, _AFTER = 12, 6  # tokens around the peak where a line has no end of its own
_LEFT_SHARE = 0.6  # of a line, for what comes before the peak: a feature can see nothing else
_BRACKETS = 4  # cells of 【】


def shade(value: float, top: float) -> str:
    """The style of a token on which a feature is so strong; ``top`` is the strongest there is."""
    if value <= 0 or top <= 0:
        return ""
    return "black " + _SHADES[min(int(value / top * len(_SHADES)), len(_SHADES) - 1)]


def parted(example: Example, top: float) -> tuple[list[Part], list[Part], list[Part]]:
    """What comes before the peak, the peak, and what comes after, each token shaded by how strong it is.

    A place in the text is an example too, of which only the texts and the peak are known.
    """
    texts = example["texts"]
    values = example.get("activations") or [0.0] * len(texts)
    parts = [(visible(text), shade(value, top)) for text, value in zip(texts, values, strict=True)]
    peak = example["peak"]
    after = peak + 1
    while after < len(parts) and not parts[after - 1][0]:  # half a character: it stands with its last token
        after += 1
    text = "".join(part for part, _ in parts[peak:after])
    return parts[:peak], [(text, f"{parts[peak][1]} {PEAK}".strip())], parts[after:]


def in_line(example: Example, top: float, canvas: Canvas, cells: int, left: int) -> list[Part]:
    """An example in so many cells, its peak beginning ``left`` cells from the edge: peaks stand below each other."""
    before, [peak], after = parted(example, top)
    if not canvas.colours:
        peak = (f"【{cut(peak[0], cells - left - _BRACKETS)}】", "")
    else:
        peak = (cut(peak[0], cells - left), peak[1])
    before = last(before, left)
    space = left - sum(width(text) for text, _ in before)
    return [(" " * space, ""), *before, peak, *first(after, cells - left - width(peak[0]))]


def whole(example: Example) -> str:
    """All of an example, its peak in 【brackets】."""
    before, [(peak, _)], after = parted(example, 0)
    return "".join([*(text for text, _ in before), f"【{peak}】", *(text for text, _ in after)])


def in_context(example: Example, cells: int | None = None) -> str:
    """A few tokens around the peak, that in 【brackets】; no more than fit in so many cells."""
    before, [(peak, _)], after = parted(example, 0)
    lead, tail = _joined(before[-_BEFORE:]), _joined(after[:_AFTER])
    if cells is not None:
        peak = cut(peak, max(cells - _BRACKETS, 1))
        room = max(cells - width(peak) - _BRACKETS, 0)
        right = min(width(tail), room - min(width(lead), int(room * _LEFT_SHARE)))
        lead, tail = cut_before(lead, room - right) if room > right else "", cut(tail, right) if right else ""
    return f"{lead}【{peak}】{tail}"


def left_of(examples: Sequence[Example], cells: int) -> int:
    """Where peaks begin so that most of what comes before them is seen: as far to the right as any needs."""
    longest = max((sum(width(text) for text, _ in parted(one, 0)[0]) for one in examples), default=0)
    return min(longest, int(cells * _LEFT_SHARE))


def _joined(parts: Sequence[Part]) -> str:
    return "".join(text for text, _ in parts)


def first(parts: Sequence[Part], cells: int) -> list[Part]:
    """The beginning of a line that is too long."""
    if sum(width(text) for text, _ in parts) <= cells:
        return list(parts)
    kept: list[Part] = []
    room = cells - 1
    for text, style in parts:
        kept.append((within(text, room), style))
        room -= width(kept[-1][0])
        if kept[-1][0] != text:
            break
    return [*kept, (CUT, "")] if cells > 0 else []


def last(parts: Sequence[Part], cells: int) -> list[Part]:
    """The end of a line that is too long."""
    flipped = first([(text[::-1], style) for text, style in reversed(parts)], cells)
    return [(text[::-1], style) for text, style in reversed(flipped)]
