"""A steering on a terminal: what was done, the texts beside their baselines, and what that did, measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mistudio import edits, human
from mistudio.beside import WIDE, columns, half, indented, marked, plain, wrapped
from mistudio.grids import HEAD, fitted, grid
from mistudio.output import Canvas, Line
from mistudio.visible import cut, visible

Result = Mapping[str, Any]
Text = Mapping[str, Any]
Labels = Mapping[tuple[str, int], str]  # of a feature of an SAE
_PROMPT_CELLS = 300
_MOST_COLUMNS = 3  # of activations, in the table of a sweep


def lines(result: Result, labels: Labels, canvas: Canvas) -> Iterator[Line]:
    yield from _about(result, labels, canvas)
    samples = result["baselines"]
    for n, baseline in enumerate(samples):
        ones = [one for one in result["steered"] if one["sample"] == baseline["sample"]]
        yield []
        if len(samples) > 1:
            yield [(f"SAMPLE {n + 1} OF {len(samples)}", HEAD)]
        if len(ones) == 1:
            yield from pair(baseline, ones[0], result["sae"], canvas)
        else:
            yield from _sweep(baseline, ones, result["sae"], canvas)


def _about(result: Result, labels: Labels, canvas: Canvas) -> Iterator[Line]:
    """The text that was given, and what was done to the features."""
    said = prompt_of(result["prompt"])
    yield [("prompt   ", "dim"), (visible(cut(said, _PROMPT_CELLS)), "")]
    where = f"{result['model']}, {result['precision']} on {result['device']}, seed {result['seed']}"
    yield [("model    ", "dim"), (visible(where), "")]
    yield []
    rows = [_edit(one, result["sae"], labels) for one in result["edits"]]
    has_label = any(row[-1] for row in rows)
    header = ["FEATURE", "FORMULA", "AT", "WHERE", "MAX", "LABEL"]
    yield from grid(header if has_label else header[:-1], rows if has_label else [row[:-1] for row in rows], canvas)


def _edit(one: Result, sae: str, labels: Labels) -> list[str]:
    name = str(one["feature"]) if one["sae"] == sae else f"{one['sae']}/{one['feature']}"
    label = visible(labels.get((one["sae"], one["feature"]), ""))
    return [name, visible(one["formula"]), one["hook"], one["scope"], human.number(one["maximum"], 2), label]


def prompt_of(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """A prompt, or a conversation, as one text."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{one['role']}: {one['content']}" for one in prompt)


def pair(baseline: Text, one: Text, sae: str, canvas: Canvas) -> Iterator[Line]:
    """Left the baseline and right the steered text, where there is room, and below what that did."""
    heads = "BASELINE", f"STEERED  {edits.joined(one['strengths'], sae)}"
    yield from beside(heads, baseline["text"], one["text"], canvas)
    yield []
    yield from _measures(one, baseline, sae, canvas)


def beside(heads: tuple[str, str], left: str, right: str, canvas: Canvas) -> Iterator[Line]:
    """Two texts; the words that only the second has are marked."""
    if canvas.width is None or canvas.width < WIDE:
        yield from _block(heads[0], left, None, canvas)
        yield []
        yield from _block(heads[1], right, left, canvas)
        return
    cells = half(canvas.width)
    sides = [[(cut(head, cells), HEAD)] for head in heads]
    yield from columns(
        [sides[0], *wrapped(plain(left), cells)], [sides[1], *wrapped(marked(right, left), cells)], cells
    )


def _block(head: str, text: str, baseline: str | None, canvas: Canvas) -> Iterator[Line]:
    yield fitted([(head, HEAD)], canvas)
    cells = None if canvas.width is None else max(canvas.width - 4, 20)
    yield from indented(wrapped(plain(text) if baseline is None else marked(text, baseline), cells))


def _measures(one: Text, baseline: Text, sae: str, canvas: Canvas) -> Iterator[Line]:
    """Beside each figure that of the baseline, in brackets."""
    facts = {
        "KL": f"{nats(one['kl'])} nats a token",
        "perplexity": f"{perplexity(one['perplexity'])} ({perplexity(baseline['perplexity'])})",
        "repetition": f"{human.share(one['repetition'])} ({human.share(baseline['repetition'])})",
        "changed": f"{human.share(one['changed'])} of the tokens",
        "‖change‖/‖h‖": human.number(one["change_ratio"], 2),
    }
    said = "  ".join([edits.joined(one["strengths"], sae), *(f"{name} {value}" for name, value in facts.items())])
    yield from ([("  ", ""), *line] for line in wrapped(plain(said), canvas.width and canvas.width - 2))
    for own in one["activations"]:
        base = _activation(baseline, own)
        under = _activation({"activations": one["steered_activations"]}, own)
        name = f"{own['feature']}" if own["sae"] == sae else f"{own['sae']}/{own['feature']}"
        text = (
            f"feature {name} fires at {_mean(own)} in this text, {_mean(base)} in the baseline, "
            f"{_mean(under)} under the edit (mean, max)"
        )
        yield from ([("  ", ""), *line] for line in wrapped(plain(text), canvas.width and canvas.width - 2))


def _mean(own: Result | None) -> str:
    return human.UNKNOWN if own is None else f"{human.number(own['mean'], 2)}, {human.number(own['max'], 2)}"


def _means(text: Text, feature: Result) -> str:
    """Of its activation in a text, and under the edit."""
    own = _activation(text, feature)
    under = _activation({"activations": text.get("steered_activations")}, feature)
    said = human.UNKNOWN if own is None else human.number(own["mean"], 2)
    return said if under is None else f"{said} ({human.number(under['mean'], 2)})"


def _activation(text: Mapping[str, Any], of: Result) -> Result | None:
    return next(
        (one for one in text["activations"] or () if (one["sae"], one["feature"]) == (of["sae"], of["feature"])), None
    )


def _sweep(baseline: Text, ones: Sequence[Text], sae: str, canvas: Canvas) -> Iterator[Line]:
    """A text for each strength, then all of them in a table."""
    yield from _block("BASELINE", baseline["text"], None, canvas)
    for one in ones:
        yield []
        yield from _block(edits.joined(one["strengths"], sae), one["text"], baseline["text"], canvas)
    yield []
    header, rows = _table(baseline, ones, sae)
    yield from grid(header, rows, canvas, "l" + "r" * (len(header) - 1))
    about = "mean: a feature's activation over the text, as the model without an edit reads it; edited: under the edit"
    yield from ([(text, "dim") for text, _ in line] for line in wrapped(plain(about), canvas.width))


def _table(baseline: Text, ones: Sequence[Text], sae: str) -> tuple[list[str], list[list[str]]]:
    own = list(ones[0]["activations"] or ())[:_MOST_COLUMNS]
    names = [f"{one['feature']} MEAN (EDITED)" for one in own]
    header = ["STRENGTHS", "KL", "PERPLEXITY", "REPETITION", "CHANGED", "‖CHANGE‖/‖h‖", *names]
    rows = []
    for one in (baseline, *ones):
        is_steered = one is not baseline
        rows.append(
            [
                edits.joined(one["strengths"], sae) if is_steered else "baseline",
                nats(one["kl"]) if is_steered else human.UNKNOWN,
                perplexity(one["perplexity"]),
                human.share(one["repetition"]),
                human.share(one["changed"]) if is_steered else human.UNKNOWN,
                human.number(one["change_ratio"], 2) if is_steered else human.UNKNOWN,
                *(_means(one, feature) for feature in own),
            ]
        )
    return header, rows


def nats(kl: float | None) -> str:
    """Two digits that say something: ``0.0031``, ``0.48``, ``2.1``."""
    return human.UNKNOWN if kl is None else f"{kl:.2g}" if kl < 0.1 else f"{kl:.2f}"


def perplexity(value: float | None) -> str:
    return human.UNKNOWN if value is None else f"{value:.1f}" if value < 1000 else human.count(value)


def features_of(result: Result) -> dict[str, list[int]]:
    """The edited features of each SAE."""
    found: dict[str, list[int]] = {}
    for one in result["edits"]:
        found.setdefault(one["sae"], []).append(one["feature"])
    return found
