"""What features are extracted from: the text, the model that reads it, and which of its tokens count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.extract import Text, spread
from mistudiod.engine.harvest import Harvest, outlier_norms
from mistudiod.engine.lm import LM, PASS_TOKENS
from mistudiod.engine.tokens import MANIFEST, TokenWindows
from mistudiod.facts import ModelFacts, UnknownHook, UnknownModel, check_hook, read_facts
from mistudiod.specs import Extract
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.recipe import sha256_of
from mistudiod.worker.trained import Trained

MOST_PLACES = 2**32 - 1  # they are counted in 32 bits
Norms = dict[str, float]  # by hook, beyond which a token is an outlier


@dataclass(frozen=True)
class Source:
    """A tokenization, checked against the SAE's model before anything is loaded."""

    trained: Trained
    name: str
    tokenization: dict[str, Any]  # tokenization.json
    windows: TokenWindows
    facts: ModelFacts


def find_source(spec: Extract, trained: Trained, link: Link) -> Source:
    """Raises Refused."""
    name = spec.tokenization or trained.recipe["spec"].get("tokenization")
    if name is None:
        raise Refused(
            f"{spec.sae} was brought in and says nothing of a text: name one that is tokenized for "
            f"{trained.model['name']}, with --tokenization",
            "tokenization",
        )
    folder = link.paths.artifact("tokenization", name)
    try:
        windows = TokenWindows(folder)
        tokenization = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        missing = f"the tokenization {name} that the SAE was trained on is not here: {error}"
        raise Refused(str(error) if spec.tokenization else missing, _field(spec)) from error
    check_tokenizer(name, tokenization, trained, _field(spec))
    try:
        facts = read_facts(Path(trained.model["path"]))
        width = check_hook(facts, trained.hook)
    except (UnknownModel, UnknownHook, ValueError) as error:
        raise Refused(str(error), "sae") from error
    if width != trained.sae.d_in:
        raise Refused(f"{spec.sae} reads {trained.sae.d_in} numbers, and {trained.hook} has {width}", "sae")
    if windows.context > facts.context:
        raise Refused(
            f"the windows of {name} have {windows.context} tokens, and {trained.model['name']} reads only "
            f"{facts.context}: tokenize with a context of {facts.context} or less",
            _field(spec),
        )
    if not windows.train:
        raise Refused(f"the tokenization {name} has no training windows: tokenize more text", _field(spec))
    if min(spec.tokens, windows.train * windows.context) + windows.context > MOST_PLACES:
        raise Refused(f"one extraction reads {MOST_PLACES:,} tokens at most: ask for fewer", "tokens")
    return Source(trained, name, tokenization, windows, facts)


def _field(spec: Extract) -> str:
    return "tokenization" if spec.tokenization else "sae"


def check_tokenizer(name: str, tokenization: dict[str, Any], trained: Trained, field: str) -> None:
    """Raises Refused unless the text is in the tokens that the SAE's model reads."""
    made_with, tokenizer = tokenization.get("tokenizer_sha256"), Path(trained.model["path"]) / "tokenizer.json"
    if made_with and tokenizer.is_file():
        same = made_with == sha256_of(tokenizer)
    else:  # version 0.3 did not write it down
        same = tokenization["model"] == trained.model["name"]
    if not same:
        raise Refused(
            f"the tokenization {name} was made with another tokenizer than that of {trained.model['name']}, the SAE's "
            f"model: tokenize the text for {trained.model['name']}",
            field,
        )


def hooks_read(trained: Trained) -> list[str]:
    """Those by whose values outliers were told in training and evaluation, of a pass all; first the SAE's own."""
    known = trained.recipe["resolved"].get("outlier_norms")
    hooks = list(known) if known else [trained.hook, trained.hook_out]
    return list(dict.fromkeys([trained.hook, *hooks])) if leaves_out(trained) else [trained.hook]


def text_of(spec: Extract, source: Source, lm: LM, link: Link) -> Text:
    """Evenly spread training windows, as many as hold ``spec.tokens``, as evaluation reads them."""
    trained, windows = source.trained, source.windows
    hooks = hooks_read(trained)
    widths = {hook: check_hook(source.facts, hook) for hook in hooks}
    usual = PASS_TOKENS[trained.device.type]
    lm_tokens = min(usual, trained.recipe["resolved"].get("forward_tokens", usual))

    def forward(ids: Tensor) -> Tensor:
        values = lm.activations_at(ids, hooks)
        return values[0] if len(values) == 1 else torch.cat(values, dim=-1)

    harvest = Harvest(windows, forward, list(widths.values()), trained.device, lm_tokens)
    if leaves_out(trained):
        norms = known_norms(trained) or _norms(trained, harvest, hooks)
        harvest.outlier_norms = tuple(norms.get(hook, torch.inf) for hook in hooks)
    return Text(harvest, spread(windows.train, windows.context, spec.tokens), slice(0, widths[trained.hook]))


def known_norms(trained: Trained) -> Norms:
    """Those that the training has written down: none where outliers count, nor before version 0.5."""
    return (trained.recipe["resolved"].get("outlier_norms") or {}) if leaves_out(trained) else {}


def leaves_out(trained: Trained) -> bool:
    """Before version 0.4 outliers were like any other token."""
    return not trained.recipe["spec"].get("outliers", True)


def _norms(trained: Trained, harvest: Harvest, hooks: list[str]) -> Norms:
    """As a training finds them, in the first tokens that it reads: its recipe did not say until version 0.5."""
    recipe = trained.recipe
    how = recipe["spec"]["batch_tokens"], recipe["resolved"]["data_seed"], recipe["resolved"]["buffer_tokens"]
    windows = harvest.windows
    assert isinstance(windows, TokenWindows)
    sample = ActivationBatches(harvest, windows.train, *how).sample()
    return dict(zip(hooks, outlier_norms(sample, harvest.widths), strict=True))
