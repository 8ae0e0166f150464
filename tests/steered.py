"""SAEs of every rule with random weights, changes of their features, and a batch passed under changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tiny_models import D_MODEL, VOCABULARY
from torch import Tensor

from mistudiod.engine.edits import Change, Changing
from mistudiod.engine.lm import LM
from mistudiod.engine.rules import GatedRule, JumpReLURule, ReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder

D_SAE, HOOK = 40, "blocks.1.hook_resid_post"
RULE_NAMES = ("topk", "standard", "jumprelu", "gated")
SPECIAL = [0]


@dataclass(frozen=True)
class Chosen:
    """How tokens are chosen, as a spec says it."""

    max_tokens: int = 12
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


def sae_of(rule: str = "standard", d_in: int = D_MODEL, d_out: int | None = None, seed: int = 0) -> SparseAutoencoder:
    """Each feature fires on about half of the tokens, of topk on a fifth; rows of W_dec have other norms than 1."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    b_gate = 0.1 * random(D_SAE)
    rules: dict[str, Rule] = {
        "topk": TopKRule(8),
        "standard": ReLURule(),
        "jumprelu": JumpReLURule(0.3 + 0.1 * random(D_SAE).abs()),
        "gated": GatedRule(b_gate, 0.1 * random(D_SAE), 0.1 * random(D_SAE)),
    }
    b_enc = b_gate if rule == "gated" else 0.1 * random(D_SAE)
    W_enc, W_dec = random(d_in, D_SAE) / d_in**0.5, random(D_SAE, d_out or d_in)
    b_dec = 0.1 * random(d_out or d_in)
    transcodes = d_out is not None
    return SparseAutoencoder(W_enc, b_enc, W_dec, b_dec, rules[rule], centred=not transcodes, transcodes=transcodes)


def change(sae: SparseAutoencoder, op: str = "add", strength: float = 1.0, **given: Any) -> Change:
    hook = given.pop("hook", HOOK)
    usual: dict[str, Any] = {"name": "s", "hook_out": hook, "feature": 3, "maximum": 2.5, "scope": "all"}
    return Change(sae=sae, hook=hook, op=op, strength=strength, **usual | given)


def some_ids(rows: int = 2, tokens: int = 12, seed: int = 1) -> Tensor:
    """BOS first, another special token among the others."""
    ids = torch.randint(1, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = ids[:, 5] = 0
    return ids


def delta(change: Change, a: float, position: int, prompt_tokens: int, token: int) -> float:
    """By what the row of W_dec is multiplied at one position, by the words of the definition."""
    there = {"all": True, "generated": position >= prompt_tokens, "active": a > 0}
    scope = change.scope
    if token in SPECIAL or not (position >= int(scope[5:]) if scope.startswith("from:") else there[scope]):
        return 0.0
    s, m = change.strength, change.maximum
    return {"add": s * m, "clamp": s * m - a, "scale": (s - 1) * a, "ablate": -a}[change.op]


def deltas(changes: Sequence[Change], x: Tensor, ids: Tensor, prompt_tokens: int) -> Tensor:
    """What is added to one row by changes of SAEs that read x (T, d_in), of tokens ids (T,): (T, d_out)."""
    total = torch.zeros(len(ids), changes[0].sae.d_out if changes else x.shape[1], dtype=torch.float64)
    for one in changes:
        a = one.sae.encode(x.float())[:, one.feature].tolist()
        for position, token in enumerate(ids.tolist()):
            total[position] += delta(one, a[position], position, prompt_tokens, token) * one.sae.W_dec[one.feature]
    return total


@torch.no_grad()
def passed(lm: LM, ids: Tensor, rows: Sequence[Sequence[Change]], prompt_tokens: int = 8) -> tuple[Tensor, Changing]:
    """Logits of one whole pass under changes, without a cache."""
    with Changing(lm, rows, SPECIAL) as changing:
        changing.at(ids, 0, prompt_tokens)
        logits = lm.model(ids, use_cache=False).logits
        changing.check()
    return logits, changing
