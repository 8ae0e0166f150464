"""What is done to features, as a command line says it: ``1234:+2``, ``7:clamp=1.5``, ``7:ablate``, ``sae/12:-1``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

Edit = dict[str, Any]
_SHAPE = re.compile(r"(?:([A-Za-z0-9][\w.-]*)/)?([0-9]+)(?::(.*))?", re.DOTALL)
_OPS = ("clamp", "scale", "ablate")


def parse(text: str, sae: str = "SAE") -> Edit:
    """``{"feature", "strength", "op", "sae"}``, as far as it is said. Raises ValueError.

    ``sae`` is the name in which a label would be looked for.
    """
    found = _SHAPE.fullmatch(text.strip())
    if not found:
        raise ValueError(_no_feature(text, sae))
    named, feature, what = found.groups()
    edit: Edit = {"feature": int(feature), **({"sae": named} if named else {})}
    if what is None:
        return {**edit, "strength": 1.0}
    op, given, number = what.partition("=")
    if op == "ablate" and not given:
        return {**edit, "op": "ablate"}
    if op in _OPS:
        if op == "ablate" or not given:
            shape = f"{feature}:ablate" if op == "ablate" else f"{feature}:{op}=1.5"
            raise ValueError(f"{text!r}: {op} takes {'no' if op == 'ablate' else 'a'} number, as in {shape}")
        return {**edit, "op": op, "strength": _number(number, text, f"{feature}:{op}=1.5")}
    if given:
        raise ValueError(f"{text!r}: {op!r} is none of {', '.join(_OPS)}; {feature}:+2 adds")
    return {**edit, "strength": _number(what, text, f"{feature}:+2")}


def _number(said: str, text: str, example: str) -> float:
    try:
        number = float(said)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r}: {said!r} is no strength; give a number, as in {example}")
    return number


def _no_feature(text: str, sae: str) -> str:
    if found := re.fullmatch(r"\s*([0-9]+)\s*=\s*([-+.0-9]+)\s*", text):
        return f"{text!r}: a strength stands behind a colon, as in {found[1]}:{found[2]}"
    if any(c.isalpha() for c in text):
        return f'{text!r} is no number of a feature; to find it by its label: mistudio feature search {sae} "{text}"'
    return f"{text!r} is no feature and strength, such as 1234:+2, 7:clamp=1.5, 7:ablate or other-sae/12:-1"


def said(edit: Mapping[str, Any], sae: str | None = None) -> str:
    """As ``parse`` reads it; the name of its SAE stands before it unless that is ``sae``."""
    own = edit.get("sae")
    where = f"{own}/" if own and own != sae else ""
    return f"{where}{edit['feature']}:{_done(edit)}"


def _done(edit: Mapping[str, Any]) -> str:
    op, strength = edit.get("op", "add"), edit.get("strength", 1.0) + 0.0  # no -0
    if op == "ablate":
        return "ablate"
    return f"{strength:+g}" if op == "add" else f"{op}={strength:g}"


def joined(edits: Iterable[Mapping[str, Any]], sae: str | None = None) -> str:
    return " ".join(said(one, sae) for one in edits)
