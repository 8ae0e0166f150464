"""What an SAE is trained on: looked at before anything is loaded or written, with what the spec leaves open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mistudiod.engine.lm import PASS_TOKENS
from mistudiod.engine.precision import DTYPES
from mistudiod.engine.tokens import TokenWindows
from mistudiod.facts import ModelFacts, UnknownHook, UnknownModel, check_hook, read_facts
from mistudiod.mixing import BUFFER_TOKENS
from mistudiod.specs import One, Train
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.recipe import sha256_of

HELD_OUT_TOKENS = 100_000  # to measure on, when there are as many
SMALL_FILES_BYTES = 1 << 20  # beside the weights of an SAE
STORED = {str(DTYPES[name]).removeprefix("torch."): name for name in ("fp32", "bf16", "fp16")}


@dataclass(frozen=True)
class Chosen:
    """What the spec may leave open: as a person set it, as the plan has chosen it, else as is usual."""

    precision: str
    forward_tokens: int
    buffer_tokens: int
    micro_tokens: int
    saes_at_once: int  # of a grid, in one pass over the text
    whole_model: bool  # with all blocks and the head, for its loss


@dataclass(frozen=True)
class Source:
    """What is trained on: windows of tokens, the model that reads them, and what it is read at."""

    tokenization: dict[str, Any]  # tokenization.json
    model: dict[str, Any]  # model.json
    windows: TokenWindows
    widths: dict[str, int]  # of the hooks that are read, whose activations lie side by side in this order
    hook: str  # of one autoencoder: what it reads
    hook_out: str | None  # and what it rebuilds, when that is something else
    held_out_tokens: int  # to measure on
    device: torch.device
    chosen: Chosen

    def of(self, ones: Sequence[One]) -> Source:
        """What a pass reads that trains these and no others."""
        hooks = dict.fromkeys(hook for one in ones for hook in (one.hook, one.hook_out) if hook)
        widths = {hook: width for hook, width in self.widths.items() if hook in hooks}
        return replace(self, widths=widths, hook=ones[0].hook, hook_out=ones[0].hook_out)

    def as_seen_by(self, one: One) -> Source:
        """The same, and the columns of this one."""
        return replace(self, hook=one.hook, hook_out=one.hook_out)

    @property
    def hooks(self) -> list[str]:
        return list(self.widths)

    @property
    def d_in(self) -> int:
        return self.widths[self.hook]

    @property
    def d_out(self) -> int:
        return self.widths[self.hook_out or self.hook]

    @property
    def read(self) -> slice:
        """The columns of what is read."""
        return self.columns(self.hook)

    @property
    def rebuilt(self) -> slice:
        """The columns of what is rebuilt: the same, but for a transcoder."""
        return self.columns(self.hook_out or self.hook)

    def columns(self, hook: str) -> slice:
        start = sum(self.widths[before] for before in self.hooks[: self.hooks.index(hook)])
        return slice(start, start + self.widths[hook])

    def state_bytes(self, ones: Sequence[One]) -> int:
        """Of a checkpoint of these: parameters, Adam's two moments of each, a counter of each latent; all but exact."""
        return sum(12 * self._parameters(one) + 8 * one.width for one in ones)

    def sae_bytes(self, one: One) -> int:
        """Of the folder of this one."""
        return 4 * self._parameters(one) + 4 * one.width + SMALL_FILES_BYTES

    def _parameters(self, one: One) -> int:
        return one.parameters(self.widths[one.hook], self.widths[one.hook_out or one.hook])


def find_source(spec: Train, link: Link) -> Source:
    """Check all that can be checked before anything is loaded or written; raises Refused."""
    folder = link.paths.artifact("tokenization", spec.tokenization)
    if not (folder / "tokenization.json").is_file():
        raise Refused(f"there is no tokenization called {spec.tokenization}: tokenize first", field="tokenization")
    tokenization = json.loads((folder / "tokenization.json").read_text())
    model, facts = _model(spec, tokenization, link)
    try:
        windows = TokenWindows(folder)
    except ValueError as error:
        raise Refused(str(error), field="tokenization") from error
    widths = _widths(spec, facts)
    if _text_tokens(windows, range(windows.train), spec.batch_tokens) < spec.batch_tokens:
        raise Refused(
            f"the tokenization {spec.tokenization} has fewer training tokens than one batch of {spec.batch_tokens}: "
            "ask for a smaller batch or tokenize more text",
            field="batch_tokens",
        )
    held_out_tokens = _text_tokens(windows, held_out_windows(windows), HELD_OUT_TOKENS)
    if held_out_tokens < 2:
        raise Refused(
            f"the tokenization {spec.tokenization} has no held-out text to measure on: tokenize more text",
            field="tokenization",
        )
    # Half precision is slow on most CPUs; on a GPU it is what the model was made for.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored = facts.quantized or ("fp32" if device.type == "cpu" else STORED.get(facts.dtype, "fp32"))
    usual = {
        "precision": stored,
        "forward_tokens": PASS_TOKENS[device.type],
        "buffer_tokens": BUFFER_TOKENS,
        "micro_tokens": spec.batch_tokens,
        "saes_at_once": len(spec.saes()),
        "whole_model": False,
    }
    chosen = _chosen(spec, link, usual)
    return Source(tokenization, model, windows, widths, spec.hook[0], spec.hook_out, held_out_tokens, device, chosen)


def _model(spec: Train, tokenization: dict[str, Any], link: Link) -> tuple[dict[str, Any], ModelFacts]:
    """model.json of the model that the tokenization is for, and what its folder says. Raises Refused."""
    name, text = tokenization["model"], spec.tokenization
    registered = link.paths.artifact("model", name) / "model.json"
    if not registered.is_file():
        raise Refused(f"the model {name} of the tokenization {text} is not here: add it again", "tokenization")
    model = json.loads(registered.read_text())
    try:
        facts = read_facts(Path(model["path"]))
    except (UnknownModel, ValueError) as error:
        raise Refused(str(error), field="tokenization") from error
    made_with, tokenizer = tokenization.get("tokenizer_sha256"), Path(model["path"]) / "tokenizer.json"
    # Version 0.3 did not write it down; without a tokenizer the model cannot be loaded, which is said then.
    if made_with and tokenizer.is_file() and sha256_of(tokenizer) != made_with:
        raise Refused(
            f"the tokenization {text} was made with another tokenizer than the model {name} has now: tokenize again",
            "tokenization",
        )
    return model, facts


def _widths(spec: Train, facts: ModelFacts) -> dict[str, int]:
    """Of the hooks; raises Refused, naming the field."""
    found = {}
    for hook in spec.hooks:
        try:
            found[hook] = check_hook(facts, hook)
        except UnknownHook as error:
            raise Refused(str(error), field="hook" if hook in spec.hook else "hook_out") from error
    if spec.hook_out and found[spec.hook[0]] != found[spec.hook_out]:
        raise Refused(
            f"a transcoder's two hooks must be of one width: {spec.hook[0]} has {found[spec.hook[0]]} and "
            f"{spec.hook_out} has {found[spec.hook_out]}",
            field="hook_out",
        )
    return found


def _chosen(spec: Train, link: Link, usual: dict[str, Any]) -> Chosen:
    found = dict(usual)
    for name in usual:
        given = getattr(spec, name)
        found[name] = link.choices.get(name, usual[name]) if given in (None, "auto") else given
    return Chosen(**found)


def held_out_windows(windows: TokenWindows) -> range:
    return range(windows.train, windows.train + windows.held_out)


def _text_tokens(windows: TokenWindows, numbers: range, enough: int) -> int:
    """How many tokens of the windows ``numbers`` are not special; counts no further than ``enough``."""
    found = 0
    for start in range(0, len(numbers), 1024):
        found += int((~windows.special_mask(windows.rows(numbers[start : start + 1024]))).sum())
        if found >= enough:
            return enough
    return found
