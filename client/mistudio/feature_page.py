"""A feature's page on a terminal: what it is called, how it fires, on what, and where."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mistudio import histograms, human, ranges
from mistudio.examples import in_context, in_line, left_of, whole
from mistudio.grids import HEAD, fitted, grid
from mistudio.output import Canvas, Line
from mistudio.visible import cut, quoted, visible

Page = Mapping[str, Any]
TOKENS = 10  # rows of tokens and neighbours
NEIGHBOURS = 5
_TOKEN_CELLS, _LABEL_CELLS = 22, 44
_VALUE_CELLS = 9
_NARROWEST = 20
_BANDS = 5  # of equal width, up to the strongest
_KINDS = {
    "top": "STRONGEST, each of another window",
    "band": "FROM {low:.2f} TO {high:.2f}",
    "random": "RANDOM ones on which it fires",
    "near": "NEAR MISSES, on which it does not fire",
}


def lines(page: Page, labels: Mapping[int, str], canvas: Canvas) -> Iterator[Line]:
    """``labels`` of other features, by their index."""
    yield from _about(page, canvas)
    yield from _below("ACTIVATIONS", [[(line, "cyan")] for line in _histogram(page, canvas)])
    yield from _spaced(tokens(page, canvas))
    yield from _spaced(neighbours(page, labels, canvas, NEIGHBOURS))
    for kind, band, examples in _groups(page["examples"]):
        top = page["max"] or 0.0
        title = _KINDS[kind].format(low=top * (band or 0) / _BANDS, high=top * ((band or 0) + 1) / _BANDS)
        yield from _below(title, list(_examples(examples, top, canvas)))


def _about(page: Page, canvas: Canvas) -> Iterator[Line]:
    facts = _facts(page)
    wide = max(map(len, facts)) + 4
    for name, value in facts.items():
        style = "bold" if name in ("feature", "label") else ""
        yield fitted([(name.ljust(wide), "dim"), (visible(value), style)], canvas)


def _facts(page: Page) -> dict[str, str]:
    """In a few words what it is; only what there is to say."""
    label, marks = page["label"] or {}, page["marks"]
    said = {
        "feature": f"{page['index']} of {page['sae']}" + ", starred ★" * bool(marks["starred"]),
        "label": label.get("text") or human.UNKNOWN,
        "explanation": label.get("explanation"),
        "by": label and origin(label),
        "score": "; ".join(map(score, newest((page["score"] or {}).get("scores", ())))),
        "lists": ", ".join(marks["lists"]),
        "note": marks["note"],
    }
    return {name: text for name, text in said.items() if text} | _firing(page)


def _firing(page: Page) -> dict[str, str]:
    if page["dead"]:
        return {"fires on": "no token at all: it is dead"}
    values = {name: human.number(page[name], 2) for name in ("max", "mean", "std", "typical")}
    return {
        "fires on": f"{human.density(page['density'])} of the tokens, {human.count(page['fired'])} of them",
        "activation": ", ".join(f"{name} {value}" for name, value in values.items()),
        **({"steering": ranges.sentence(page["range"])} if page.get("range") else {}),
    }


def origin(label: Page) -> str:
    """Who gave a label, how sure they are, and what has become of it."""
    who = label["provider"] + (f" ({label['model']})" if label.get("model") else "")
    sure = label.get("confidence")
    said = [who, None if sure is None else f"{human.share(sure)} sure", label.get("status")]
    return ", ".join(part for part in said if part)


def newest(scores: Iterable[Page]) -> list[Page]:
    """Of each method and judge the newest, of scores that begin with the newest."""
    found: dict[tuple[str, str | None], Page] = {}
    for one in scores:
        found.setdefault((one["method"], one["judge"]), one)
    return list(found.values())


def score(one: Page) -> str:
    """``0.82 (0.71 – 0.90) by fuzzing, gpt-4o-mini``."""
    who = f"{one['method']}, {one['judge']}" if one.get("judge") else one["method"]
    return f"{interval(one)} by {who}"


def interval(one: Page, value: str = "balanced_accuracy", low: str = "low", high: str = "high") -> str:
    if one.get(value) is None:
        return human.UNKNOWN
    if one.get(low) is None or one.get(high) is None:
        return human.number(one[value], 2)
    return f"{human.number(one[value], 2)} ({human.number(one[low], 2)} – {human.number(one[high], 2)})"


def _histogram(page: Page, canvas: Canvas) -> list[str]:
    found = page["histogram"]
    return histograms.drawn(found["counts"], found["edges"], canvas.width)


def tokens(page: Page, canvas: Canvas) -> Iterator[Line]:
    """What it promotes and suppresses, and the tokens on which it fires, side by side."""
    logits = page["logits"]
    columns: list[tuple[tuple[str, str], list[tuple[str, str]]]] = []
    if logits:
        columns += [
            (("PROMOTES", ""), [_token(one, f"{one['value']:+.2f}") for one in logits["top"]]),
            (("SUPPRESSES", ""), [_token(one, f"{one['value']:+.2f}") for one in logits["bottom"]]),
        ]
    if page["tokens"]:
        fired = [_token(one, f"{human.share(one['share'])} · {human.share(one['rate'])}") for one in page["tokens"]]
        columns.append((("FIRES ON", "SHARE · RATE"), fired))
    if columns:
        header = [cell for head, _ in columns for cell in head]
        rows = itertools.zip_longest(*(cells[:TOKENS] for _, cells in columns), fillvalue=("", ""))
        sides = "".join("ll" if head[1] else "lr" for head, _ in columns)
        yield from grid(header, [[cell for pair in row for cell in pair] for row in rows], canvas, sides)


def _token(one: Page, value: str) -> tuple[str, str]:
    return cut(quoted(one["text"]), _TOKEN_CELLS), value


def neighbours(page: Page, labels: Mapping[int, str], canvas: Canvas, most: int | None = None) -> Iterator[Line]:
    """Those whose decoder rows are nearest, and those that fire together with it."""
    found = page["neighbours"]

    def row(one: Page, *values: str) -> list[str]:
        return [str(one["index"]), *values, cut(visible(labels.get(one["index"], "")), _LABEL_CELLS)]

    near = [row(one, f"{one['cosine']:.2f}") for one in found["decoder"][:most]]
    together = [row(one, human.share(one["share"]), f"{one['jaccard']:.2f}") for one in found["cofiring"][:most]]
    if near:
        yield from grid(["POINTS LIKE", "COSINE", "LABEL"], near, canvas, "rrl")
    if near and together:
        yield []
    if together:
        yield from grid(["FIRES WITH", "OF ITS FIRINGS", "JACCARD", "LABEL"], together, canvas, "rrrl")


def compared(found: Page, canvas: Canvas) -> Iterator[Line]:
    """Two features side by side, how alike they are, and where in the text both fire."""
    sides = [_row(found[which]) for which in "ab"]
    half = None if canvas.width is None else max((canvas.width - 20) // 2, _NARROWEST)
    rows = [[name, *(_clipped(side[name], half) for side in sides)] for name in sides[0]]
    yield from grid(["", "A", "B"], rows, canvas)
    alike = [
        ("cosine of their directions", human.number(found["cosine"], 2)),
        ("tokens on which both fire", human.count(found["both"])),
        ("of those on which one fires", human.share(found["jaccard"])),
    ]
    yield []
    yield from grid(["HOW ALIKE", ""], alike, canvas)
    if found["shared"]:
        room = None if canvas.width is None else max(canvas.width - 2 * (_VALUE_CELLS + 3), _NARROWEST)
        shared = [
            [human.number(one["a"], 2), human.number(one["b"], 2), in_context(one, room)] for one in found["shared"]
        ]
        yield []
        yield from grid(["A", "B", "WHERE BOTH FIRE"], shared, canvas, "rrl")


def _row(one: Page) -> dict[str, str]:
    return {
        "feature": f"{one['index']}" + " ★" * bool(one["starred"]),
        "label": one["label"]["text"] if one["label"] else human.UNKNOWN,
        "by": origin(one["label"]) if one["label"] else human.UNKNOWN,
        "score": human.number(one["score"], 2),
        "tokens": ", ".join(map(quoted, one["tokens"])) or human.UNKNOWN,
        "fires on": human.density(one["density"]),
        "max": human.number(one["max"], 2),
        "typical": human.number(one["typical"], 2),
    }


def _clipped(text: str, cells: int | None) -> str:
    return visible(text) if cells is None else cut(visible(text), cells)


def _groups(examples: Sequence[Page]) -> Iterator[tuple[str, int | None, list[Page]]]:
    """By kind; bands from the strongest."""
    order = list(_KINDS)
    ordered = sorted(examples, key=lambda one: (order.index(one["kind"]), -(one["band"] or 0)))
    for (kind, band), group in itertools.groupby(ordered, key=lambda one: (one["kind"], one["band"])):
        yield kind, band, list(group)


def _examples(examples: Sequence[Page], top: float, canvas: Canvas) -> Iterator[Line]:
    if canvas.width is None:
        for one in examples:
            yield [(f"{one['kind']:6} {human.number(one['max'], 2):>{_VALUE_CELLS}}  {whole(one)}", "")]
        return
    cells = max(canvas.width - _VALUE_CELLS - 2, _NARROWEST)
    left = left_of(examples, cells)
    for one in examples:
        value = human.number(one["max"], 2)
        yield [(f"{value:>{_VALUE_CELLS}}  ", "dim"), *in_line(one, top, canvas, cells, left)]


def _below(title: str, body: Sequence[Line]) -> Iterator[Line]:
    if body:
        yield from ([], [(title, HEAD)], *body)


def _spaced(body: Iterator[Line]) -> Iterator[Line]:
    shown = list(body)
    if shown:
        yield from ([], *shown)
