"""How the service is: what systemd says, where its studio is, and what its unit keeps from it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mistudio.api import Client
from mistudio.errors import ApiError, NoService, Unreachable, VersionMismatch
from mistudio.service import manifest
from mistudio.service.place import DATA, HOMES, UNIT, Place

_ANSWER_S = 60.0
NOT_HERE = "not started here"
_ASKED = (
    "ActiveState", "SubState", "UnitFileState", "StatusText", "ActiveEnterTimestamp", "DropInPaths", "ProtectHome",
    "IPAddressDeny", "Result",
)  # fmt: skip


def state(place: Place) -> dict[str, Any]:
    """Raises NoService when there is none."""
    held = manifest.read(place)
    if held is None:
        raise NoService("miStudio is not installed as a service here: mistudio service install")
    found = place.properties(UNIT, *_ASKED) if place.live else {}
    active = found.get("ActiveState")
    said: dict[str, Any] = {
        "state": active or NOT_HERE,
        "since": found.get("ActiveEnterTimestamp") or None if active == "active" else None,
        "starts_at_boot": found.get("UnitFileState") == "enabled" if found else None,
        "says": found.get("StatusText") or None,
        "version": held.version,
        "installed_wholly": held.complete,
    }
    if active == "failed":
        said["failed_with"] = found.get("Result")
    with contextlib.suppress(NoService), client(place) as studio:
        said |= where(studio, held.choices.get("listen", "local"))
    said["drop_ins"] = [Path(path).name for path in found.get("DropInPaths", "").split()]
    return said | {"cannot_see": hidden(found, held.choices.get("allow", []))}


def hidden(properties: Mapping[str, str], shown: Sequence[str]) -> list[str]:
    """What the unit keeps from the studio, in words; ``shown``: folders that it was let read."""
    unseen = []
    if properties.get("ProtectHome", "no") not in ("no", ""):
        unseen = [", ".join(HOMES) + (f", but for {', '.join(shown)}" if shown else "")]
    return unseen + (["what lies beyond the local network"] if properties.get("IPAddressDeny") else [])


def client(place: Place) -> Client:
    """Of the service's studio, by a socket that asks for no token. Raises NoService when none answers."""
    if place.home is not None:
        hosts: list[str | None] = [None]
    else:
        sockets = [place.at(path) for path in ("/run/mistudio/api.sock", f"{DATA}/mistudiod.sock")]
        hosts = [f"unix:{path}" for path in sockets if path.is_socket()]
    error: Exception | str = "it has no socket yet"
    for host in hosts:
        studio = Client(host, None if host else "local")
        try:
            studio.status()
            return studio
        except (Unreachable, TimeoutError, ApiError, VersionMismatch) as caught:
            studio.close()
            error = caught
    raise NoService(f"the studio does not answer: {error}")


def wait(place: Place) -> Client:
    """Until it answers. Raises NoService."""
    until = time.monotonic() + _ANSWER_S
    while True:
        try:
            return client(place)
        except NoService as error:
            if time.monotonic() > until:
                user = "" if place.home is None else "--user "
                raise NoService(f"{error}; what it said: journalctl {user}-u mistudiod -n 30") from None
        time.sleep(0.2)


def where(studio: Client, listen: str) -> dict[str, Any]:
    """The address for a browser, and where the data is."""
    port = next(one["value"] for one in studio.settings() if one["name"] == "port")
    url = f"http://127.0.0.1:{port}" if listen == "local" else f"https://{socket.gethostname()}:{port}"
    return {"url": url, "data": studio.status()["data"]}


def linger_hint(place: Place) -> str | None:
    """A user's service ends with the last session of that user, unless he lingers."""
    user = os.environ.get("USER") or str(os.geteuid())
    if place.home is None or place.at(f"/var/lib/systemd/linger/{user}").exists():
        return None
    return "it ends when you log out; to have it run from boot on: sudo loginctl enable-linger " + user
