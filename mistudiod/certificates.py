"""What an SAE's certificate says in short, for as long as the SAE is the one that was certified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

CERTIFICATE = "certificate.json"  # beside an SAE's recipe
_SHOWN = ("at", "holds", "verdict", "best", "tokens", "tokenization", "repaired")


def in_short(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Of the content of certificate.json; ``sha256`` is that of the SAE's files which it is about, by name."""
    of_all = certificate.get("sha256")
    named = of_all.get("sae") if isinstance(of_all, dict) else None
    hashed = named.items() if isinstance(named, dict) else ()
    sha256 = {name: value for name, value in hashed if Path(name).name == name}
    return {name: certificate.get(name) for name in _SHOWN} | {"sha256": sha256}


def as_it_stands(short: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same, of an SAE in ``folder``; where its files are others by now, only that."""
    if _unchanged(folder, short.get("sha256") or {}):
        return short
    said = f"its files were changed after it was certified: mistudio sae certify {folder.name} certifies it anew"
    return {"at": short.get("at"), "holds": "changed", "verdict": [said]}


def _unchanged(folder: Path, sha256: Mapping[str, Any]) -> bool:
    """A file that nothing has touched since it was certified is not read: its ctime, which nobody can set, is older."""
    try:
        certified = (folder / CERTIFICATE).stat().st_ctime_ns
        for name, known in sha256.items():
            at, path = (folder / name).stat(), folder / name
            if at.st_ctime_ns > certified and _sha256(path, at.st_size, at.st_ctime_ns) != known:
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
