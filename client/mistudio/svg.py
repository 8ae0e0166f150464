"""Plots as SVG in plain Python: one file by itself, for light and dark; shape and dash tell as much as colour does."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence

Range = tuple[float, float]
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, width, height of the area that is plotted in
SERIES = 8  # that can be told apart
TICKS = 5  # about so many on an axis
_LIGHT = ("#0072b2", "#c44e00", "#00805d", "#a8457f", "#7a6a00", "#1b1b1b", "#8a5a44", "#6a4fb3")
_DARK = ("#5cb8f0", "#ff9a52", "#35d0a0", "#eda3cb", "#e8d34a", "#f5f5f5", "#d9ab98", "#b9a5ff")
_DASHES = ("", "7 3", "2 2", "9 3 2 3", "4 4", "12 4", "2 5", "6 2 2 2 2 2")
_R = 5.0  # of a marker, in pixels


def document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """``parts`` are elements; the text is that of a whole file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
            f'height="{_n(height)}" role="img">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_style()}</style>",
            f'<rect class="page" width="{_n(width)}" height="{_n(height)}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, said: str, style: str = "", turned: bool = False) -> str:
    """``style``: of end, middle, bold, soft, small."""
    turn = f' transform="rotate(-90 {_n(x)} {_n(y)})"' if turned else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{style}"{turn}>{html.escape(said)}</text>'


def marker(number: int, x: float, y: float) -> str:
    """The sign of a series at a place."""
    kind, style = number % SERIES, f'class="c{number % SERIES} mark"'
    if kind == 0:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(_R)}" {style}/>'
    corners = [(x + _R * px, y + _R * py) for px, py in _SHAPES[kind]]
    joined = " ".join(f"{_n(px)},{_n(py)}" for px, py in corners)
    return f'<polygon points="{joined}" {style}/>'


def line(points: Sequence[Point], number: int) -> str:
    """Of a series, in pixels."""
    dash = _DASHES[number % SERIES]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return f'<polyline points="{joined}" class="c{number % SERIES} line"{dashed}/>'


class Plot:
    """Two axes with ticks and names, and what is drawn between them, in the units of the axes."""

    def __init__(self, box: Box, x: Range, y: Range, title: str, names: tuple[str, str]) -> None:
        self.box, self._x, self._y = box, x, y
        left, top, width, height = box
        self.parts = [text(left, top - 12, title, "bold")]
        self.parts.append(text(left + width / 2, top + height + 38, names[0], "middle soft"))
        self.parts.append(text(left - 48, top + height / 2, names[1], "middle soft", turned=True))

    def place(self, x: float, y: float) -> Point:
        left, top, width, height = self.box
        (x0, x1), (y0, y1) = self._x, self._y
        return left + width * (x - x0) / (x1 - x0), top + height * (y1 - y) / (y1 - y0)

    def ticks(
        self,
        x: Sequence[tuple[float, str]] | None = None,
        y: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        """Round numbers when none are given; lines go across from those of y."""
        left, top, width, height = self.box
        bottom = top + height
        for value, said in round_ticks(self._y) if y is None else y:
            at = self.place(self._x[0], value)[1]
            self.parts.append(
                f'<line class="grid" x1="{_n(left)}" x2="{_n(left + width)}" y1="{_n(at)}" y2="{_n(at)}"/>'
            )
            self.parts.append(text(left - 8, at + 4, said, "end small"))
        for value, said in round_ticks(self._x) if x is None else x:
            at = self.place(value, self._y[0])[0]
            self.parts.append(
                f'<line class="axis" x1="{_n(at)}" x2="{_n(at)}" y1="{_n(bottom)}" y2="{_n(bottom + 4)}"/>'
            )
            self.parts.append(text(at, bottom + 18, said, "middle small"))
        self.parts.append(f'<path class="axis" d="M{_n(left)} {_n(top)}V{_n(bottom)}H{_n(left + width)}"/>')

    def point(self, number: int, x: float, y: float, x_interval: Range | None, y_interval: Range | None) -> None:
        """A marker with bars that reach over the intervals."""
        for interval, across in ((x_interval, True), (y_interval, False)):
            if interval:
                ends = [self.place(end, y) if across else self.place(x, end) for end in interval]
                self.parts += _bar(number, ends[0], ends[1], across)
        self.parts.append(marker(number, *self.place(x, y)))

    def steps(self, edges: Sequence[float], heights: Sequence[float], number: int | None) -> None:
        """A histogram's outline as a series; as a grey area when it is none."""
        points = [self.place(edges[0], 0)]
        for start, end, height in zip(edges, edges[1:], heights, strict=False):
            points += [self.place(start, height), self.place(end, height)]
        points.append(self.place(edges[-1], 0))
        if number is None:
            joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
            self.parts.append(f'<polygon points="{joined}" class="floor"/>')
        else:
            self.parts.append(line(points, number))


def padded(values: Sequence[float], share: float = 0.12) -> Range:
    """A range around values with room on both sides; around equal ones a tenth of them."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) / 10 or 1.0
    return low - room, high + room


def round_ticks(range_: Range) -> list[tuple[float, str]]:
    """Multiples of 1, 2 or 5 times a power of ten, about TICKS of them, as they are written."""
    rough = (range_[1] - range_[0]) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.99)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(range_[0] / step - 1e-9), math.floor(range_[1] / step + 1e-9)
    return [(n * step, f"{n * step:.{digits}f}".replace("-", "−")) for n in range(first, last + 1)]


def _bar(number: int, start: Point, end: Point, across: bool) -> Iterator[str]:
    """A line with short strokes at its ends."""
    style = f'class="c{number % SERIES} line"'
    dx, dy = (0.0, 3.5) if across else (3.5, 0.0)
    yield _stroke(start, end, style)
    for x, y in (start, end):
        yield _stroke((x - dx, y - dy), (x + dx, y + dy), style)


def _stroke(start: Point, end: Point, style: str) -> str:
    return f'<line x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}" {style}/>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _regular(corners: int, turned: float = 0.0) -> list[Point]:
    angles = (math.tau * n / corners + math.radians(turned) for n in range(corners))
    return [(1.15 * math.sin(angle), -1.15 * math.cos(angle)) for angle in angles]


def _cross(turned: bool) -> list[Point]:
    arm, half = 1.2, 0.38
    quarter = [(half, -arm), (half, -half), (arm, -half)]
    turn: Callable[[Point], Point] = lambda point: (-point[1], point[0])  # noqa: E731 - a quarter to the right
    corners, part = [], quarter
    for _ in range(4):
        corners += part
        part = [turn(point) for point in part]
    cos = math.sqrt(0.5)
    return [(cos * (x - y), cos * (x + y)) for x, y in corners] if turned else corners


_SHAPES: dict[int, list[Point]] = {
    1: _regular(4, 45),
    2: _regular(3),
    3: _regular(4),
    4: _regular(3, 180),
    5: _cross(False),
    6: _cross(True),
    7: _regular(6),
}


def _style() -> str:
    def colours(of: Sequence[str]) -> str:
        return "".join(f".c{n}.line{{stroke:{one}}}.c{n}.mark{{fill:{one}}}" for n, one in enumerate(of))

    def page(back: str, ink: str, soft: str, grid: str, floor: str) -> str:
        return (
            f".page{{fill:{back}}}text{{fill:{ink}}}.soft{{fill:{soft}}}.grid{{stroke:{grid}}}"
            f".axis{{stroke:{soft}}}.floor{{fill:{floor}}}.mark{{stroke:{back}}}"
        )

    light = page("#fff", "#1b1b1b", "#595959", "#e4e4e4", "#d0d0d0") + colours(_LIGHT)
    dark = page("#16181c", "#ececec", "#a9adb5", "#2e3238", "#4a4f57") + colours(_DARK)
    return (
        "text{font:13px system-ui,sans-serif}.small{font-size:12px}.bold{font-weight:600;font-size:14px}"
        ".end{text-anchor:end}.middle{text-anchor:middle}.line,.axis{fill:none}.line{stroke-width:1.8}"
        f".mark{{stroke-width:1}}{light}@media (prefers-color-scheme:dark){{{dark}}}"
    )
