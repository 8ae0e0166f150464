"""Write text while directions are added to the residual stream."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from mistudiod.engine.hooks import HookFn, hooked
from mistudiod.engine.lm import LM


def prompt_ids(lm: LM, prompt: str) -> Tensor:
    """The prompt as the SAE's training windows began: BOS, when the model has one, then the text. (1, T) int64."""
    tokenizer = lm.tokenizer
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return torch.tensor([[bos, *ids] if bos is not None else ids], device=lm.device)


@torch.no_grad()
def write(
    lm: LM, ids: Tensor, max_tokens: int, temperature: float, seed: int, edits: dict[str, HookFn] | None = None
) -> Tensor:
    """At most ``max_tokens`` tokens that continue ids (1, T), with ``edits`` at their hooks: (n,) int64.

    Temperature 0 takes the likeliest token. The same seed draws the same numbers whatever the edits.
    """
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    eos = lm.tokenizer.eos_token_id
    with ExitStack() as stack:
        if edits:
            stack.enter_context(hooked(lm.model, edits))
        out = lm.model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, pad_token_id=eos, **sampling
        )
    written: Tensor = out[0, ids.shape[1] :]
    return written[written != eos] if eos is not None else written


def adding(direction: Tensor) -> HookFn:
    """Adds ``direction`` (d_model,) to every position but the first of a prompt.

    That is BOS: no SAE of ours has seen it, and its huge activation would drown the change or be broken by it.
    """

    def edit(x: Tensor) -> Tensor:  # (B, T, d_model); T is 1 once the prompt is in the KV cache
        changed = x + direction.to(x.dtype)
        if x.shape[1] > 1:
            changed[:, 0] = x[:, 0]
        return changed

    return edit
