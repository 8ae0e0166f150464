"""What an SAE is trained on: looked at before anything is loaded or written, with what the spec leaves open."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mistudiod.engine import checkpoint
from mistudiod.engine.lm import PASS_TOKENS
from mistudiod.engine.precision import DTYPES
from mistudiod.engine.tokens import TokenWindows
from mistudiod.facts import ModelFacts, UnknownHook, UnknownModel, check_hook, read_facts
from mistudiod.mixing import BUFFER_TOKENS
from mistudiod.paths import require_space
from mistudiod.specs import Train
from mistudiod.worker.link import Link, Refused

HELD_OUT_TOKENS = 100_000  # to measure on, when there are as many
STORED = {str(DTYPES[name]).removeprefix("torch."): name for name in ("fp32", "bf16", "fp16")}


@dataclass(frozen=True)
class Chosen:
    """What the spec may leave open: as a person set it, as the plan has chosen it, else as is usual."""

    precision: str
    forward_tokens: int
    buffer_tokens: int
    micro_tokens: int


@dataclass(frozen=True)
class Source:
    """What is trained on: windows of tokens, the model that reads them, and what it is read at."""

    tokenization: dict[str, Any]  # tokenization.json
    model: dict[str, Any]  # model.json
    windows: TokenWindows
    widths: tuple[int, ...]  # of the hooks, whose activations lie side by side: what is read, what is rebuilt
    held_out_tokens: int  # to measure on
    device: torch.device
    chosen: Chosen

    @property
    def d_in(self) -> int:
        return self.widths[0]

    @property
    def d_out(self) -> int:
        return self.widths[-1]

    @property
    def read(self) -> slice:
        """The columns of what is read."""
        return slice(0, self.d_in)

    @property
    def rebuilt(self) -> slice:
        """The columns of what is rebuilt: the same, but for a transcoder."""
        return slice(sum(self.widths[:-1]), sum(self.widths))


def find_source(spec: Train, link: Link) -> Source:
    """Check all that can be checked before anything is loaded or written; raises Refused, DiskFull."""
    folder = link.paths.artifact("tokenization", spec.tokenization)
    if not (folder / "tokenization.json").is_file():
        raise Refused(f"there is no tokenization called {spec.tokenization}: tokenize first", field="tokenization")
    tokenization = json.loads((folder / "tokenization.json").read_text())
    registered = link.paths.artifact("model", tokenization["model"]) / "model.json"
    if not registered.is_file():
        raise Refused(
            f"the model {tokenization['model']} of the tokenization {spec.tokenization} is not here: add it again",
            field="tokenization",
        )
    model = json.loads(registered.read_text())
    try:
        facts = read_facts(Path(model["path"]))
        windows = TokenWindows(folder)
    except (UnknownModel, ValueError) as error:
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
    require_space(link.paths.data, (checkpoint.KEPT + 1) * state_bytes(spec, widths))
    # Half precision is slow on most CPUs; on a GPU it is what the model was made for.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored = facts.quantized or ("fp32" if device.type == "cpu" else STORED.get(facts.dtype, "fp32"))
    usual = {
        "precision": stored,
        "forward_tokens": PASS_TOKENS[device.type],
        "buffer_tokens": BUFFER_TOKENS,
        "micro_tokens": spec.batch_tokens,
    }
    return Source(tokenization, model, windows, widths, held_out_tokens, device, _chosen(spec, link, usual))


def _widths(spec: Train, facts: ModelFacts) -> tuple[int, ...]:
    """Of the hooks; raises Refused, naming the field."""
    found = []
    for field, hook in zip(("hook", "hook_out"), spec.hooks, strict=False):
        try:
            found.append(check_hook(facts, hook))
        except UnknownHook as error:
            raise Refused(str(error), field=field) from error
    return tuple(found)


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


def state_bytes(spec: Train, widths: tuple[int, ...]) -> int:
    """Of one checkpoint: the parameters, Adam's two moments of each, and a counter of each latent; all but exactly."""
    [one] = spec.saes()
    return 3 * 4 * one.parameters(widths[0], widths[-1]) + 8 * one.width
