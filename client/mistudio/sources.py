"""Whose file is it? A path given to the client is on the client's machine, wherever the studio is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistudio import names

if TYPE_CHECKING:
    from mistudio.api import Client

_NO_PATHS = ("builtin:", "upload:")


def settled(client: Client, source: str, name: str, told: Callable[[int, int], None] | None = None) -> str:
    """The source as the studio takes it: a path that it can read in place, else what has been uploaded to it.

    ``told`` hears how many bytes of how many have been uploaded. Raises FileNotFoundError when the path is not there,
    and what ``mistudio.upload.send`` raises.
    """
    found = _in_place(client, source)
    if found is not None:
        return found
    from mistudio import upload

    return upload.send(client, Path(source).expanduser(), name, told)


def looked_at(client: Client, source: str, noun: str = "dataset") -> str:
    """As ``settled``, but nothing is uploaded for a look: raises ValueError for what the studio cannot read here."""
    found = _in_place(client, source)
    if found is None:
        after = "sample shows what came" if noun == "dataset" else "show says what it is"
        raise ValueError(
            f"the studio cannot read {source} here: mistudio {noun} add uploads it, and mistudio {noun} {after}; "
            "a path on the studio's own machine takes --remote-path"
        )
    return found


def settled_sae(client: Client, source: str, name: str, told: Callable[[int, int], None] | None = None) -> str:
    """As ``settled``, of the source of an SAE: what is named in it behind a colon stays. What is uploaded of a folder
    lies in one of its name, for names of published folders say which model, layer and k are meant.
    """
    place, path = sae_parts(source)
    if place.startswith(_NO_PATHS):
        return source
    found = _in_place(client, place)
    if found is None:
        from mistudio import upload

        here = Path(os.path.abspath(Path(place).expanduser()))
        within = here.name if here.is_dir() and not here.name.startswith(".") else ""  # hidden ones nobody looks into
        found = upload.send(client, here, name, told, within)
        path = "/".join(part for part in (within, (path or "").strip("/")) if part not in ("", ".")) or None
    return found if path is None or found == source else f"{found}:{path}"


def looked_at_sae(client: Client, source: str) -> str:
    """As ``looked_at``, of the source of an SAE."""
    place, path = sae_parts(source)
    found = source if place.startswith(_NO_PATHS) else _in_place(client, place)
    if found is None:
        raise ValueError(
            f"the studio cannot read {place} here: mistudio sae add uploads it, and lists what it holds when one is to "
            "be named; a path on the studio's own machine takes --remote-path"
        )
    return found if path is None or found == source else f"{found}:{path}"


def sae_parts(source: str) -> tuple[str, str | None]:
    """Repository, upload or path, and what is named in it; None when nothing is."""
    from mistudiod.specs import sae_file, sae_place

    place, path = sae_place(source)
    return sae_file(source) if path is None or os.path.lexists(source) else (place, path)


def _in_place(client: Client, source: str) -> str | None:
    """The source as a studio takes it that can read it where it is; None when it has to be uploaded."""
    if source.startswith(_NO_PATHS):
        return source
    from mistudiod.specs import is_hub_id

    path = Path(source).expanduser()
    if is_hub_id(source) and not path.exists() and path.suffix.lower() not in names.ENDINGS | names.SAE_ENDINGS:
        return source
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file or folder {source} on this machine; if it is on the studio's, say --remote-path "
            "(in Python remote=True)"
        )
    return os.path.abspath(path) if _reads_our_files(client.status()) else None


def _reads_our_files(status: dict[str, Any]) -> bool:
    """Whether the studio runs as this user on this machine; through a tunnel only the machine's mark tells."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return False
    return bool(status["same_user"]) and status["machine"] == hashlib.sha256(boot_id.encode()).hexdigest()[:16]
