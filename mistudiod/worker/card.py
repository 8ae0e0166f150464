"""The card of an SAE that is given to others: README.md, from what was measured and from nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mistudiod.specs import is_hub_id
from mistudiod.worker.card_again import again, origin
from mistudiod.worker.card_loading import as_code, loading
from mistudiod.worker.licence import on_card
from mistudiod.worker.shared import LABELS, SPARSITY, Shared, licence_of

# Of the figures that there are: key, name, how it is written.
_FIGURES = (
    ("fvu", "FVU, the share of the variance that is not rebuilt", "{:.4g}"),
    ("l0", "L0, latents that fire on a token", "{:.1f}"),
    ("ce_delta", "ΔCE, what the language model loses with what is rebuilt, nats a token", "{:+.4f}"),
    ("ce_recovered_zero", "of what zeros in its place cost, recovered", "{:.1%}"),
    ("ce_recovered_mean", "of what the mean in its place costs, recovered", "{:.1%}"),
    ("alive", "latents that fired on the held-out text", "{:.1%}"),
    ("dead", "latents that training counted as dead", "{:.1%}"),
    ("dense", "latents that fire on more than a tenth of the tokens", "{:.1%}"),
    ("cosine", "cosine of what is rebuilt with what was read", "{:.4f}"),
    ("pca_fvu", "FVU of as many principal components", "{:.4g}"),
    ("random_fvu", "FVU of a random dictionary of the same width and k", "{:.4g}"),
)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#!&~])")


def card(shared: Shared, layout: str, notes: Sequence[str]) -> str:
    """The text of README.md. ``layout``: in which the SAE lies beside it; ``notes``: what was done to write it so."""
    parts = [
        _front(shared, layout),
        f"# {_plain(shared.name)}",
        _what(shared),
        _table("What it is", _identity(shared)),
        *_measured(shared),
        *_declared(shared),
        _bullets("Written in this layout", notes),
        "## How to load it\n\n" + loading(shared, layout),
        again(shared),
        _licence(shared),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(shared: Shared, layout: str) -> str:
    """What the Hub reads; JSON is YAML."""
    library = ["saelens"] if layout == "saelens" else []
    about: dict[str, Any] = {
        "library_name": library[0] if library else None,
        "tags": ["sparse-autoencoder", *library, "mistudio"],
        "base_model": shared.hub_model,
        **on_card(licence_of(shared.imported or {})),
    }
    source = shared.dataset.get("source")
    if isinstance(source, str) and is_hub_id(source):
        about["datasets"] = [source]
    lines = [f"{key}: {json.dumps(value)}" for key, value in about.items() if value]
    return "\n".join(["---", *lines, "---"])


def _what(shared: Shared) -> str:
    about, kind = shared.about, "transcoder" if shared.sae.transcodes else "autoencoder"
    there = f" and rebuilds `{as_code(about.hook_out)}`" if shared.sae.transcodes else ""
    return (
        f"A sparse {kind} of {shared.sae.d_sae:,} latents ({shared.sae.rule.name}) that reads "
        f"`{as_code(about.hook)}`{there} of {_plain(about.model or 'a model whose name is not known')}."
    )


def _identity(shared: Shared) -> Iterator[tuple[str, object]]:
    recipe, sae, imported = shared.recipe, shared.sae, shared.imported
    text = recipe.get("tokenization") or {}
    yield "model", shared.hub_model or shared.model.get("name")
    yield "hook", shared.about.hook
    if sae.transcodes:
        yield "hook of what it rebuilds", shared.about.hook_out
    yield "width", f"{sae.d_sae:,} latents of {sae.d_in:,} numbers"
    yield "k", getattr(sae.rule, "k", None) or (recipe.get("k") if imported is None else None)
    source = shared.dataset.get("source")
    yield "text", source if isinstance(source, str) and is_hub_id(source) else text.get("dataset")
    yield "context, tokens", sae.metadata.get("context_size")
    if imported is None:
        yield "trained as", recipe.get("architecture")
        yield "trained on, tokens", _count(recipe.get("tokens"))
    else:
        yield "from", _from(imported)
    labels = f"{len(shared.labels):,} of {sae.d_sae:,} features have a label ({LABELS})" if shared.labels else None
    yield "labels", labels
    yield "firing shares", SPARSITY if (shared.folder / SPARSITY).is_file() else None
    yield "sha256 of the weights in the studio", shared.sha256


def _from(imported: dict[str, Any]) -> str | None:
    """A repository of the Hub, what of it, which commit; a path or an upload is nobody else's affair."""
    repo, path = origin(imported)
    revision = imported.get("revision")
    return repo and f"{repo}{f' {path}' if path else ''}{f' at {revision}' if revision else ''}"


def _measured(shared: Shared) -> Iterator[str]:
    """What was measured here: at the end of the training, when it was certified, and when it was evaluated."""
    trained, certified, evaluated = shared.recipe, shared.certificate, shared.evaluation
    if trained.get("fvu") is not None:
        tokens = _count(trained.get("held_out_tokens"))
        yield _table(
            "Measured", _figures(trained), f"On {tokens} held-out tokens, when its training ended." if tokens else ""
        )
        yield _bullets("", trained.get("verdict") or [])
    declared = certified.get("declared")
    if isinstance(declared, dict):
        on = f"On {_count(certified.get('tokens'))} held-out tokens, as it lies here"
        yield _table(
            "Certificate", _figures(declared), f"{on}, {certified.get('at') or 'at a time that is not known'}."
        )
        yield _bullets("", certified.get("verdict") or [])
    if isinstance(figures := evaluated.get("figures"), dict):
        on = f"On {_count(evaluated.get('tokens'))} held-out tokens; between brackets 95 % intervals by document"
        yield _table(
            "Evaluation", _intervals(figures), f"{on}, {evaluated.get('at') or 'at a time that is not known'}."
        )
        yield _bullets("", evaluated.get("verdict") or [])
    if trained.get("fvu") is None and not isinstance(declared, dict) and not figures:
        yield "## Measured\n\nNothing has been measured of it here."


def _figures(found: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for key, name, form in _FIGURES:
        value = found.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, form.format(value)


def _intervals(figures: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for key, name, form in _FIGURES:
        found = figures.get(key) or {}
        if key != "dead" and found.get("value") is not None:  # of an evaluation it is what alive leaves
            ends = found.get("interval")
            between = f" ({form.format(ends[0])} to {form.format(ends[1])})" if ends else ""
            yield name, form.format(found["value"]) + between


def _declared(shared: Shared) -> Iterator[str]:
    """What its maker says, which is not what was measured."""
    imported = shared.imported or {}
    declared = imported.get("declared")
    if isinstance(declared, dict) and any(value is not None for value in declared.values()):
        yield _table("Declared by its maker, not measured here", iter(declared.items()))
    yield _bullets("How it was read", imported.get("notes") or [])


def _licence(shared: Shared) -> str:
    said = licence_of(shared.imported or {})
    sae = f"Its maker's licence is {_plain(said)}." if said else "No licence of the SAE itself is stated."
    others = [("model", shared.model), ("text", shared.dataset)]
    of = [f"The licence of the {what} is {_plain(found)}." for what, about in others if (found := licence_of(about))]
    return "## Licence\n\n" + " ".join([sae, *of])


def _table(title: str, rows: Iterator[tuple[str, object]], before: str = "") -> str:
    lines = [f"| {_plain(name)} | {_plain(str(value))} |" for name, value in rows if value is not None]
    if not lines:
        return ""
    return "\n\n".join(part for part in (f"## {title}", before, "\n".join(["| | |", "|---|---|", *lines])) if part)


def _bullets(title: str, sentences: Sequence[object]) -> str:
    if not sentences:
        return ""
    lines = "\n".join(f"- {_plain(str(one))}" for one in sentences)
    return f"## {title}\n\n{lines}" if title else lines


def _plain(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would read as its own."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return _SPECIAL.sub(r"\\\1", " ".join(shown.split())[:500])


def _count(n: object) -> str | None:
    return f"{n:,}" if isinstance(n, int) and not isinstance(n, bool) else None
