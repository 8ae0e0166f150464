"""What steered texts are answered with: the texts, what is measured of each, why an edit did nothing, and what made it
all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mistudiod.engine.edits import Change, Effect, first, formula
from mistudiod.engine.write import Text
from mistudiod.events import MAX_LINE_BYTES
from mistudiod.specs import Steer
from mistudiod.vocabulary import whole_texts
from mistudiod.worker.link import Refused
from mistudiod.worker.loaded import Loaded

if TYPE_CHECKING:
    from mistudiod.worker.steering import Order

_RESULT_BYTES = MAX_LINE_BYTES - 65_536
_DIGITS = 6


def made_of(
    spec: Steer,
    order: Order,
    texts: Sequence[Text],
    measured: Sequence[dict[str, Any]],
    loaded: Loaded,
    seconds: float,
    rows_at_once: int,
) -> dict[str, Any]:
    """The result. Texts are in the order of the rows: of each sample the baseline, then the variants.

    Raises Refused when it is larger than a line.
    """
    each, strengths = len(order.variants), spec.strengths()
    shown = [_text(row // each, texts[row], measured[row], loaded) for row in range(order.rows)]
    steered = []
    for row in range(order.rows):
        variant = row % each - 1
        if variant >= 0:
            edits = zip(strengths[variant], order.variants[variant + 1], strict=True)
            steered.append(
                shown[row]
                | {
                    "variant": variant,
                    "strengths": [
                        {"sae": change.name, **edit.model_dump(include={"feature", "op", "scope"}),
                         "strength": shortened(edit.strength)}
                        for edit, change in edits
                    ],
                    "change_ratio": shortened(_ratio(texts[row].effects)),
                    "no_effect": no_effect(order, variant + 1, [texts[row]]),
                }
            )  # fmt: skip
    tokens = sum(len(text.ids) for text in texts)
    baselines = shown[::each]
    hashes = {change.name: loaded.saes[change.name].sha256 for change in order.variants[1]}
    result = {
        "sae": spec.sae,
        "model": loaded.name,
        "precision": loaded.lm.precision,
        "device": loaded.lm.device.type,
        "prompt": spec.prompt if spec.prompt is not None else loaded.lm.tokenizer.decode(order.ids),
        "prompt_tokens": len(order.ids),
        "seed": spec.seed,
        "edits": _edits(spec, order.variants[1]),
        "baseline": baselines[0],
        "baselines": baselines,
        "steered": steered,
        "made": loaded.made() | {"sae_sha256": hashes, "rows_at_once": rows_at_once},
        "seconds": shortened(seconds),
        "tokens_per_s": shortened(tokens / seconds) if seconds else None,
    }
    require_room(result)
    return result


def no_effect(order: Order, variant: int, texts: Sequence[Text]) -> list[dict[str, Any]] | None:
    """Why changes of a variant that were to do something have changed nothing in any of its texts; None: all have."""
    found = []
    for n, change in enumerate(order.variants[variant]):
        if (change.op, change.strength) in (("add", 0), ("scale", 1)) or any(
            text.effects[n].positions for text in texts
        ):
            continue
        reason, message = _reason(change, any(_scoped(change, order, text) for text in texts))
        found.append({"sae": change.name, "feature": change.feature, "reason": reason, "message": message})
    return found or None


def require_room(result: object) -> None:
    """Raises Refused when a line has no room for it."""
    if len(json.dumps(result, ensure_ascii=False).encode(errors="replace")) > _RESULT_BYTES:
        raise Refused(
            "what was written is longer than one answer may be: ask for fewer tokens, samples or strengths",
            "max_tokens",
        )


def shortened(value: Any) -> Any:
    """With six digits of every number that is measured."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    return [shortened(one) for one in value] if isinstance(value, list) else value


def _text(sample: int, text: Text, measured: dict[str, Any], loaded: Loaded) -> dict[str, Any]:
    tokens = whole_texts(loaded.texts[token] for token in text.ids)
    written = {"sample": sample, "text": "".join(tokens), "ids": text.ids, "tokens": tokens, "finish": text.finish}
    return written | shortened(measured)


def _edits(spec: Steer, variant: Sequence[Change]) -> list[dict[str, Any]]:
    """As they are asked for, before any sweep."""
    found = []
    for edit, one in zip(spec.steering, variant, strict=True):
        change = replace(one, strength=edit.strength)
        found.append(
            {
                "sae": change.name,
                "feature": change.feature,
                "op": change.op,
                "strength": shortened(change.strength),
                "scope": change.scope,
                "hook": change.hook_out,
                "maximum": shortened(change.maximum),
                "formula": formula(change),
            }
        )
    return found


def _ratio(effects: Sequence[Effect]) -> float | None:
    """By how much of its norm h is changed, the mean over what was changed: None when nothing was."""
    h = sum(effect.h for effect in effects)
    return sum(effect.change for effect in effects) / h if h else None


def _scoped(change: Change, order: Order, text: Text) -> bool:
    """Whether a token of those that went through the model lies where the change was to be made."""
    read = [*order.ids.tolist(), *(text.ids if text.finish == "stop" else text.ids[:-1])]
    return any(token not in order.special_ids for token in read[first(change.scope, len(order.ids)) :])


def _reason(change: Change, scoped: bool) -> tuple[str, str]:
    """dead, no token, inactive or too small; and a sentence."""
    feature = f"feature {change.feature} of {change.name}"
    if not change.maximum > 0:
        return "dead", f"{feature} is dead: it fires nowhere that is known, so there is nothing to {change.op}"
    if not scoped:
        return "no token", f"{feature} was not changed: no token was read in the scope {change.scope}"
    if change.scope == "active" or not change.constant:
        return (
            "inactive",
            f"{feature} fires on no token in the scope {change.scope}, so there was nothing to {change.op}",
        )
    return "too small", f"{feature} was changed by less than the model's precision can tell: take a larger strength"
