"""What an SAE's certificate and evaluation say in short, for as long as the SAE is the one that they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

BESIDE = {"certificate": "certificate.json", "evaluation": "evaluation.json"}  # an SAE's recipe
_SHOWN = {
    "certificate": ("at", "holds", "verdict", "best", "tokens", "tokenization", "repaired"),
    "evaluation": ("at", "verdict", "tokens", "tokenization", "documents"),
}
_FIGURES = ("fvu", "l0", "alive", "ce_delta", "ce_recovered_mean")  # of an evaluation
_AGAIN = {"certificate": ("certified", "certify"), "evaluation": ("evaluated", "eval")}


def in_short(what: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Of the content of a file of ``BESIDE``; ``sha256`` is that of the SAE's files which it is about, by name."""
    of_all = found.get("sha256")
    named = of_all.get("sae") if isinstance(of_all, dict) else None
    hashed = named.items() if isinstance(named, dict) else ()
    short = {name: found.get(name) for name in _SHOWN[what]}
    if what == "evaluation" and isinstance(figures := found.get("figures"), dict):
        short["figures"] = {name: figures.get(name) for name in _FIGURES}
    return short | {"sha256": {name: value for name, value in hashed if Path(name).name == name}}


def as_it_stands(what: str, short: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same, of an SAE in ``folder``; where its files are others by now, only that."""
    if _unchanged(folder, BESIDE[what], short.get("sha256") or {}):
        return short
    done, command = _AGAIN[what]
    said = f"its files were changed after it was {done}: mistudio sae {command} {folder.name} does it anew"
    return {"at": short.get("at"), "verdict": [said], **({"holds": "changed"} if what == "certificate" else {})}


def _unchanged(folder: Path, beside: str, sha256: Mapping[str, Any]) -> bool:
    """A file that nothing has touched since then is not read: its ctime, which nobody can set, is older."""
    try:
        then = (folder / beside).stat().st_ctime_ns
        for name, known in sha256.items():
            at, path = (folder / name).stat(), folder / name
            if at.st_ctime_ns > then and _sha256(path, at.st_size, at.st_ctime_ns) != known:
                return False
    except OSError:
        return False
    return True


@lru_cache(maxsize=1024)
def _sha256(path: Path, _size: int, _ctime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
