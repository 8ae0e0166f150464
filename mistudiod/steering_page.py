"""One static page of a run of steering, to be kept or shown to others: no script, nothing from elsewhere. Pure.

Whatever comes from a model, a label or a person is escaped, and characters that could move other text are made visible.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

_LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # nats, at which a bar of the strip is one step higher
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_WORD = re.compile(r"\s*\S+|\s+$")
_QUICK = 4_000_000  # pairs of words, beyond which frequent ones anchor no match: it would take seconds
_SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "samples")
_SHARES = ("repetition", "changed")
Json = Mapping[str, Any]
Labels = Mapping[tuple[str, int], str | None]


def render(steering: Json, labels: Sequence[Json]) -> str:
    """The page. ``steering``: as the history gives it; ``labels``: ``{"sae", "feature", "label"}`` of its features."""
    result, known = steering["result"], {(one["sae"], one["feature"]): one["label"] for one in labels}
    style = _style()
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    title = f"Steering {steering['id']}: {steering['sae']} on {steering['model']}"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{sha256}'">""",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{shown(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>",
        f"<h1>{shown(title)}</h1>",
        *_about(steering),
        "<h2>What was asked</h2>",
        *_prompt(steering["spec"]),
        "<h2>What was done to the model</h2>",
        *_edits(result["edits"], known),
        *_samples(result, known),
        "<h2>Settings and origin</h2>",
        _list(_settings(steering)),
        '<p class="soft">Perplexity is that of the model without an edit. KL is KL(steered || unsteered), read on the '
        "steered text. Strengths of add and clamp are counted in the feature's own largest activation.</p>",
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def shown(text: object) -> str:
    """Text as HTML; control characters and those that turn the direction of writing can be seen, and do nothing."""
    return html.escape("".join(map(_visible, str(text))))


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or (0x20 <= code < 0x7F):
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if 0xD800 <= code < 0xE000:
        return "\ufffd"
    return f"\u27e8U+{code:04X}\u27e9" if code < 0xA0 or character in _BIDI else character


@functools.cache
def _style() -> str:
    return Path(__file__).with_suffix(".css").read_text("utf-8")


def _about(steering: Json) -> Iterator[str]:
    star = " · starred" if steering["starred"] else ""
    yield f'<p class="soft">Run at {shown(steering["created_at"])}{star}</p>'
    if steering["note"]:
        yield f'<p class="note" dir="auto">{shown(steering["note"])}</p>'


def _prompt(spec: Json) -> Iterator[str]:
    for message in spec["messages"] or [{"role": "prompt", "content": spec["prompt"]}]:
        yield f'<div class="prompt"><p class="soft">{shown(message["role"])}</p>'
        yield f'<p class="text" dir="auto">{shown(message["content"])}</p></div>'


def _edits(edits: Sequence[Json], labels: Labels) -> Iterator[str]:
    names = ("Feature", "Label", "Edit", "Where", "Hook", "Largest activation", "Formula")
    yield (
        '<div class="wide"><table><thead><tr>' + "".join(f"<th>{name}</th>" for name in names) + "</tr></thead><tbody>"
    )
    for edit in edits:
        label = labels.get((edit["sae"], edit["feature"]))
        cells = (
            f"{shown(edit['sae'])}/{shown(edit['feature'])}",
            f'<span class="text">{shown(label)}</span>' if label else "",
            shown(_strength(edit)),
            shown(edit["scope"]),
            f"<code>{shown(edit['hook'])}</code>",
            _number(edit["maximum"]),
            f"<code>{shown(edit['formula'])}</code>",
        )
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div>"


def _samples(result: Json, labels: Labels) -> Iterator[str]:
    for number, baseline in enumerate(result["baselines"], 1):
        steered = [one for one in result["steered"] if one["sample"] == baseline["sample"]]
        several = f": sample {number}" if len(result["baselines"]) > 1 else ""
        yield f'<h2>Baseline and steered{several}</h2>\n<div class="texts">'
        lost = _differing(steered[0]["text"], baseline["text"])  # with several steered texts each lacks other words
        yield _article("Baseline", baseline, _marked(lost, "del") if len(steered) == 1 else shown(baseline["text"]))
        for one in steered:
            title = ", ".join(f"{_strength(edit)} · {_called(edit, labels)}" for edit in one["strengths"])
            yield _article(title, one, _marked(_differing(baseline["text"], one["text"]), "mark"))
        yield "</div>"
    yield _legend()


def _article(title: str, text: Json, words: str) -> str:
    is_steered = "variant" in text
    parts = [
        f'<article class="{"steered" if is_steered else "baseline"}"><h3>{shown(title)}</h3>',
        f'<p class="text" dir="auto">{words}</p>',
        *(f'<p class="warn">No effect: {shown(one["message"])}</p>' for one in text.get("no_effect") or ()),
        _strip(text) if text.get("kl_tokens") else "",
        _list(_measures(text)),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _differing(old: str, new: str) -> list[tuple[str, bool]]:
    """The words of ``new``, each with the space before it, and whether the other text lacks it there."""
    a, b = _WORD.findall(old), _WORD.findall(new)
    x, y = ([word.strip() for word in words] for words in (a, b))
    matcher = SequenceMatcher(None, x, y, autojunk=len(x) * len(y) > _QUICK)
    same = {n for block in matcher.get_matching_blocks() for n in range(block.b, block.b + block.size)}
    return [(word, n not in same) for n, word in enumerate(b)]


def _marked(words: Sequence[tuple[str, bool]], tag: str) -> str:
    found: list[str] = []
    for word, differs in words:
        bare = word.lstrip()
        space = word[: len(word) - len(bare)]
        found.append(shown(space) + (f"<{tag}>{shown(bare)}</{tag}>" if differs and bare else shown(bare)))
    return "".join(found).replace(f"</{tag}> <{tag}>", " ")  # words in a row are one mark


def _strip(text: Json) -> str:
    """A bar for each token; where its KL is not finite, a gap that says so."""
    bars = []
    for token, kl in zip(text["tokens"], text["kl_tokens"], strict=False):
        level, said = ("", "not finite") if kl is None else (f"k{bisect_right(_LEVELS, kl)}", f"{kl:.3g} nats")
        bars.append(f'<i class="{level}" title="{shown(token)}: {said}"></i>')
    most = max((kl for kl in text["kl_tokens"] if kl is not None), default=0.0)
    about = f"KL of each token, {most:.3g} nats at the most"
    return f'<div class="strip" role="img" aria-label="{about}">{"".join(bars)}</div>'


def _legend() -> str:
    steps = [f"below {_LEVELS[0]:g}", *(f"from {level:g}" for level in _LEVELS)]
    bars = "".join(
        f'<span><span class="strip"><i class="k{n}"></i></span>{step}</span>' for n, step in enumerate(steps)
    )
    return f'<p class="legend"><span>KL of each token, in nats:</span>{bars}</p>'


def _measures(text: Json) -> Iterator[tuple[str, object]]:
    """What was computed; what was not is left out."""
    named = {
        "kl": "KL, nats", "perplexity": "Perplexity", "repetition": "Repetition", "changed": "Changed tokens",
        "change_ratio": "‖change‖ / ‖h‖",
    }  # fmt: skip
    for name, title in named.items():
        if text.get(name) is not None:
            yield title, f"{text[name]:.0%}" if name in _SHARES else _number(text[name])
    after = {(one["sae"], one["feature"]): one for one in text.get("steered_activations") or ()}
    for one in text["activations"]:
        key, edited = (one["sae"], one["feature"]), after.get((one["sae"], one["feature"]))
        said = f"mean {_number(one['mean'])}, largest {_number(one['max'])}"
        if edited:
            said += f"; after the edit {_number(edited['mean'])}, {_number(edited['max'])}"
        yield f"Feature {key[1]}", said
    yield "Ends", {"stop": "by itself", "length": "at the limit of tokens"}.get(text["finish"], text["finish"])


def _settings(steering: Json) -> Iterator[tuple[str, object]]:
    spec, result = steering["spec"], steering["result"]
    for name in ("sae", "model", "precision", "device"):
        yield name, result[name]
    for name in _SETTINGS:
        yield name, spec[name]
    if spec["sweep"]:
        yield "sweep", ", ".join(f"{factor:g}" for factor in spec["sweep"])
    for name, value in result["made"].items():
        if isinstance(value, Mapping):
            yield from ((f"{name} of {key}", one) for key, one in value.items())
        elif value is not None:
            yield name, value


def _list(pairs: Iterator[tuple[str, object]]) -> str:
    return "<dl>" + "".join(f"<dt>{shown(name)}</dt><dd>{shown(value)}</dd>" for name, value in pairs) + "</dl>"


def _called(edit: Json, labels: Labels) -> str:
    label = labels.get((edit["sae"], edit["feature"]))
    return f"{edit['feature']} ({label})" if label else str(edit["feature"])


def _strength(edit: Json) -> str:
    strength = f"{edit['strength']:g}".replace("-", "\u2212")
    plus = "+" if edit["strength"] > 0 else ""
    said = {"add": plus + strength, "clamp": f"set to {strength}", "scale": f"times {strength}", "ablate": "ablated"}
    return said[edit["op"]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
