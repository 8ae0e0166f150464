"""The cfg.json of a SAELens 6 folder, and which tensors go with it: what our canonical form can be read from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from mistudiod.engine.norms import NORMS
from mistudiod.engine.rules import RULES, GatedRule, Rule, TopKRule

# SAELens' name → the rule, whether it is a transcoder, whether that has a skip.
ARCHITECTURES: dict[str, tuple[type[Rule], bool, bool]] = {
    **{name: (rule, False, False) for name, rule in RULES.items()},
    "transcoder": (RULES["standard"], True, False),
    "skip_transcoder": (RULES["standard"], True, True),
    "jumprelu_transcoder": (RULES["jumprelu"], True, False),
    "jumprelu_skip_transcoder": (RULES["jumprelu"], True, True),
    "topk_transcoder": (RULES["topk"], True, False),
    "topk_skip_transcoder": (RULES["topk"], True, True),
}
UNKNOWN_TO_SAELENS = ("topk_transcoder", "topk_skip_transcoder")  # our names, in the same layout


def architecture_of(rule: type[Rule], transcodes: bool, skips: bool, centred: bool) -> str:
    """SAELens' name: of a transcoder it is that of the rule, of ReLU none, and whether it has a skip."""
    if not transcodes:
        return rule.name
    named = {"standard": "", "jumprelu": "jumprelu_", "topk": "topk_"}.get(rule.name)
    if named is None or centred:
        raise ValueError(f"there is no form for a {rule.name} transcoder of this kind")
    return f"{named}{'skip_' if skips else ''}transcoder"


def read_config(path: Path) -> dict[str, object]:
    """cfg.json, of an architecture known here; ValueError, one sentence, for anything else."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} is not an SAE: it has no cfg.json") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    check_config(config, str(path))
    return config


def check_config(config: Mapping[str, object], at: str) -> None:
    """Raises ValueError, one sentence, when the canonical form has no room for what it says."""
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        named, known = json.dumps(architecture)[:100], ", ".join(ARCHITECTURES)
        raise ValueError(f"{at} has architecture {named}, and only {known} are understood")
    transcodes = ARCHITECTURES[architecture][1]
    # any other value would be ignored, and the activations wrong
    allowed = {"normalize_activations": NORMS[:1] if transcodes else NORMS, "reshape_activations": ("none",)}
    for name, values in allowed.items():
        found = config.get(name, "none")
        if found not in values:
            known = " or ".join(json.dumps(value) for value in values)
            raise ValueError(f"{at} has {name} {json.dumps(found)}, and only {known} is understood")


def shapes_of(config: Mapping[str, object], at: str) -> dict[str, tuple[int, ...]]:
    """The tensors that a checked config asks for."""
    rule, transcodes, skips = ARCHITECTURES[str(config["architecture"])]
    d_in, d_sae = (size_of(config, name, at) for name in ("d_in", "d_sae"))
    d_out = size_of(config, "d_out", at) if transcodes else d_in
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,)}
    shapes |= dict.fromkeys((() if rule is GatedRule else ("b_enc",)) + rule.tensors, (d_sae,))
    if skips:
        shapes["W_skip"] = (d_out, d_in)
    return shapes


def rule_of(config: Mapping[str, object], weights: Mapping[str, Tensor], at: str) -> Rule:
    """The rule of a checked config, with its tensors out of the weights."""
    rule = ARCHITECTURES[str(config["architecture"])][0]
    if rule is TopKRule:
        k, d_sae = size_of(config, "k", at), size_of(config, "d_sae", at)
        if k > d_sae:
            raise ValueError(f"{at} has k {k}, more than its d_sae {d_sae}")
        return TopKRule(k)
    return rule(**{one.name: weights[one.name] for one in fields(rule)})


def size_of(config: Mapping[str, object], name: str, at: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{at} has {name} {json.dumps(value)}, which must be a whole number above 0")
    return value
