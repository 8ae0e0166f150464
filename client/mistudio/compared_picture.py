"""The picture of a comparison: what each SAE loses at how many latents, how often latents fire, what is found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mistudio import human
from mistudio.svg import Plot, Range, document, line, marker, padded, text

Json = Mapping[str, Any]
_WIDE, _LEFT = 1000, 70
_PLOT_WIDE, _PLOT_HIGH, _ACROSS, _DOWN = 390, 250, 490, 350  # of a plot; from one to the next
_ROW = 22  # of the legend
_NAME_LETTERS = 60
_NEVER = -6.8  # where the bin of those that never fire begins, log10
_DIGITS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def drawn(result: Json) -> str:
    """SVG, a whole file, of what a job of comparing has found."""
    saes = result["saes"]
    top = 64 + _ROW * len(saes)
    title = f"{len(saes)} SAEs of {result['model']} on {human.count(result['tokens'])} held-out tokens"
    parts = [text(_LEFT - 46, 34, title, "bold"), *_legend(saes)]
    boxes = [
        (_LEFT + _ACROSS * column, top + 26 + _DOWN * row, _PLOT_WIDE, _PLOT_HIGH)
        for row in (0, 1)
        for column in (0, 1)
    ]
    lost = _against_l0(result, "fvu", boxes[0], "FVU against L0", "FVU (share of variance lost)")
    costs = _against_l0(result, "ce_delta", boxes[1], "Cost to the model against L0", "ΔCE (nats a token)")
    for plot in (lost, costs, _densities(saes, boxes[2]), _cosines(result, boxes[3])):
        parts += plot.parts if plot else ()
    bars = "Bars are 95 % intervals over documents. " if any(_interval(one, "fvu") for one in saes) else ""
    parts.append(text(_LEFT - 46, top + 2 * _DOWN + 16, bars + _footnote(result), "soft small"))
    return document(_WIDE, top + 2 * _DOWN + 36, title, parts)


def _legend(saes: Sequence[Json]) -> Iterator[str]:
    for number, one in enumerate(saes):
        y = 62 + _ROW * number
        yield line([(_LEFT - 46, y - 4), (_LEFT - 6, y - 4)], number)
        yield marker(number, _LEFT - 26, y - 4)
        name = one["sae"]
        yield text(_LEFT + 4, y, name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…")
        alive = human.share(_value(one, "alive"))
        said = f"{human.count(one['width'])} latents, {alive} alive, at {one['hook']}"
        yield text(_WIDE - 30, y, said, "end soft")


def _against_l0(result: Json, name: str, box: Any, title: str, axis: str) -> Plot | None:
    """None where no SAE has such a figure. FVU only of the first one and of those whose FVU is compared with its."""
    first = result["saes"][0]["sae"]
    apart = {pair["b"] for pair in result["pairs"] if pair["a"] == first and name not in pair["differences"]}
    shown = [
        (number, one)
        for number, one in enumerate(result["saes"])
        if _value(one, name) is not None and one["sae"] not in apart
    ]
    if not shown:
        return None
    ends = {
        of: padded([x for _, one in shown for x in (_value(one, of), *(_interval(one, of) or ()))])
        for of in ("l0", name)
    }
    plot = Plot(box, ends["l0"], ends[name], title, ("L0 (latents that fire on a token)", axis))
    plot.ticks()
    for number, one in shown:
        plot.point(number, _value(one, "l0"), _value(one, name), _interval(one, "l0"), _interval(one, name))
    return plot


def _densities(saes: Sequence[Json], box: Any) -> Plot:
    edges = [_NEVER, *saes[0]["density"]["log10_edges"]]
    shares = [[n / one["width"] for n in (one["density"]["never"], *one["density"]["latents"])] for one in saes]
    most = max(max(some) for some in shares)
    plot = Plot(
        box,
        (edges[0], 0),
        (0, most * 1.08),
        "How often latents fire",
        ("share of tokens (logarithmic)", "share of latents"),
    )
    decades = [(float(n), f"10{str(n).translate(_DIGITS)}" if n else "1") for n in range(-6, 1)]
    plot.ticks(x=[((edges[0] + edges[1]) / 2, "never"), *decades[1:]])
    for number, some in enumerate(shares):
        plot.steps(edges, some, number)
    return plot


def _cosines(result: Json, box: Any) -> Plot | None:
    """Best cosines of each with the first; of two both ways. None where nothing was matched."""
    found = _sides(result)
    if not found:
        return None
    edges = found[0][3]
    first, floors = result["saes"][0]["sae"], [_shares(side["random"]["histogram"]) for _, side, _, _ in found]
    shares = [_shares(side["histogram"]) for _, side, _, _ in found]
    floor = [max(some) for some in zip(*floors, strict=True)]
    most = max(max(some) for some in (floor, *shares))
    about = "each other" if len(result["saes"]) == 2 else _short(first)
    names = "cosine of a decoder row with its best match", "share of alive features"
    plot = Plot(box, (0, 1), (0, most * 1.08), f"Features found again in {about}", names)
    plot.steps(edges, floor, None)
    plot.ticks()
    for (number, _, _, _), some in zip(found, shares, strict=True):
        plot.steps(edges, some, number)
    return plot


def _sides(result: Json) -> list[tuple[int, Json, Json, Sequence[float]]]:
    """Number of an SAE, how its features are found in the other one, the pair, the edges."""
    names = [one["sae"] for one in result["saes"]]
    found = []
    for pair in result["pairs"]:
        if pair["matching"] and pair["a"] == names[0]:
            edges = pair["matching"]["edges"]
            if len(names) == 2:
                found.append((0, pair["matching"]["a_in_b"], pair, edges))
            found.append((names.index(pair["b"]), pair["matching"]["b_in_a"], pair, edges))
    return found


def _footnote(result: Json) -> str:
    return "Grey: what directions at random find in a dictionary at random of the same width." if _sides(result) else ""


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def _value(one: Json, name: str) -> Any:
    return one["figures"][name]["value"] if one["figures"].get(name) else None


def _interval(one: Json, name: str) -> Range | None:
    found = (one["figures"].get(name) or {}).get("interval")
    return None if found is None else (found[0], found[1])


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
