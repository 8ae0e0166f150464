"""What the measures of a trained SAE mean, in plain words and with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MANY_DEAD = 0.1  # share of latents
MANY_DENSE = 0.05  # share of latents that fire on more than a tenth of the tokens
L0_OFF = 0.1  # share of k
HIGH_FVU = 0.4
LITTLE_RECOVERED = 0.9  # of what mean ablation costs
SHRUNK = 0.9  # ratio of norms
MANY_OUTLIERS = 0.01  # share of tokens
COPIES = 0.9  # cosine of a decoder row with its nearest other one
FEW_DOCUMENTS = 40  # of fewer, an interval of 95 % holds the truth less often than that
FEW_TOKENS = 10_000  # held out: the figures are rough


def verdict(measures: Mapping[str, Any]) -> list[str]:
    """Sentences about ``measures``, as ``train_measure`` makes them; a good one when there is nothing to say.

    A measure that is missing or None is not spoken of.
    """
    found = [sentence for check in _CHECKS if (sentence := check(measures))] or [_good(measures)]
    return found + ([few] if (few := _few(measures)) else [])


def evaluated(found: Mapping[str, Any]) -> list[str]:
    """Sentences about an evaluation, as ``worker.evaluate`` makes it."""
    figures, tokens, left_out = found["figures"], found["tokens"], found["outliers_left_out"]
    measures = {name: one["value"] for name, one in figures.items() if name != "dead"}  # training has another word
    sentences = verdict(measures | {"outliers": left_out / (tokens + left_out)})
    capped = tokens > found["asked"] / 2  # or else the text has no more
    if tokens < FEW_TOKENS:
        more = "ask for more (--tokens)" if capped else "tokenize more text"
        sentences.append(f"it was measured on {tokens:,} held-out tokens only, so the figures are rough: {more}")
    for name, what in (("pca", f"{found.get('components')} principal components"), ("random", "random directions")):
        interval = figures.get(f"{name}_margin", {}).get("interval")
        if interval and interval[0] <= 0 <= interval[1]:
            sentences.append(f"on this text its FVU cannot be told from that of {what}")
    if figures["dead"]["value"] >= MANY_DEAD:
        more = "more of them (--tokens)" if capped else "more held-out text"
        sentences.append(
            f"{_percent(figures['dead']['value'])} of the latents never fired on these {tokens:,} tokens: {more} would "
            "tell the rare ones from the dead"
        )
    units, least = found["documents"]["units"], found["documents"]["least"]
    if units < least:
        sentences.append(
            f"no intervals: they come of drawing documents anew, and of the {units} here too few differ; tokenize text "
            f"with {least} held-out documents or more"
        )
    elif units < FEW_DOCUMENTS:
        sentences.append(f"the intervals come of {units} documents only, so they are rough, and rather too narrow")
    return sentences


def _dead(of: Mapping[str, Any]) -> str | None:
    dead = of.get("dead")
    if dead is None or dead < MANY_DEAD:
        return None
    return f"{_percent(dead)} of the latents are dead: train longer, or choose a smaller width"


def _baselines(of: Mapping[str, Any]) -> str | None:
    fvu = of.get("fvu")
    if fvu is None:
        return None
    if beaten := _no_better(of, "random"):
        return f"{beaten} random directions: it has learned nothing; train longer, or with another learning rate"
    if beaten := _no_better(of, "pca"):
        return f"{beaten} as many principal components as latents fire: train longer, or choose a larger width"
    if fvu > HIGH_FVU:
        return f"FVU is {fvu:.3f}: much is not rebuilt; train longer, or choose a larger width or k"
    return None


def _no_better(of: Mapping[str, Any], name: str) -> str | None:
    """That the FVU of a baseline is no larger. Where there is a margin, it decides: a baseline may be of fewer tokens
    than ``fvu``, its margin is of the same ones."""
    fvu, baseline, same = of["fvu"], of.get(f"{name}_fvu"), ""
    if baseline is not None and (margin := of.get(f"{name}_margin")) is not None:
        fvu, same = baseline - margin, " on the same tokens"
    if baseline is None or fvu < baseline:
        return None
    return f"FVU is {fvu:.3f}{same}, no better than the {baseline:.3f} of"


def _sparsity(of: Mapping[str, Any]) -> str | None:
    l0, asked = of.get("l0"), of.get("asked_l0")
    if l0 is None or not asked or abs(l0 - asked) <= L0_OFF * asked:
        return None
    why = "fewer latents have something to say; choose a smaller k or a larger width" if l0 < asked else "train longer"
    return f"L0 is {l0:.3g} where {asked} was asked: {why}"


def _dense(of: Mapping[str, Any]) -> str | None:
    dense = of.get("dense")
    if dense is None or dense < MANY_DENSE:
        return None
    return f"{_percent(dense)} of the latents fire on over a tenth of the tokens: choose a smaller k or a larger l1"


def _loss(of: Mapping[str, Any]) -> str | None:
    recovered, delta = of.get("ce_recovered_mean"), of.get("ce_delta")
    if recovered is None or delta is None or recovered >= LITTLE_RECOVERED:
        return None
    return (
        f"read through it, the model's loss rises by {delta:.3f} nats, and {_percent(max(recovered, 0.0))} of what the "
        "hook is worth is kept: train longer, or choose a larger width or k"
    )


def _shrinkage(of: Mapping[str, Any]) -> str | None:
    ratio = of.get("l2_ratio")
    if ratio is None or ratio >= SHRUNK:
        return None
    return (
        f"what it rebuilds has {_percent(ratio)} of the norm that it should have: choose a smaller l1, or another "
        "architecture"
    )


def _copies(of: Mapping[str, Any]) -> str | None:
    cosine = of.get("decoder_cosine")
    if cosine is None or cosine < COPIES:
        return None
    return f"latents come in copies (a cosine of {cosine:.2f} with the nearest other one): choose a smaller width"


def _outliers(of: Mapping[str, Any]) -> str | None:
    share = of.get("outliers")
    if share is None or share < MANY_OUTLIERS:
        return None
    return f"{_percent(share)} of the tokens were left out as outliers: look at them, or train with outliers"


def _few(of: Mapping[str, Any]) -> str | None:
    tokens = of.get("held_out_tokens")
    if tokens is None or tokens >= FEW_TOKENS:
        return None
    return f"it was measured on {tokens} held-out tokens only, so the figures are rough: tokenize more text"


def _good(of: Mapping[str, Any]) -> str:
    facts = []
    if of.get("fvu") is not None:
        facts.append(f"{_percent(1 - of['fvu'])} of the variance is rebuilt")
    if of.get("l0") is not None:
        facts.append(f"by {of['l0']:.3g} latents a token")
    if of.get("ce_delta") is not None:
        facts.append(f"at a cost of {of['ce_delta']:.3f} nats of the model's loss")
    return f"This is a good SAE: {' '.join(facts)}" if facts else "Nothing was measured"


def _percent(share: float) -> str:
    """As 22 %; a share that would look like none or all of it keeps its digits."""
    return f"{100 * share:.0f} %" if 0.01 <= share <= 0.99 or share in (0, 1) else f"{100 * share:.3g} %"


_CHECKS = (_dead, _baselines, _sparsity, _dense, _loss, _shrinkage, _copies, _outliers)
