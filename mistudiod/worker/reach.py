"""Whether a server of a setting can be reached, found out before anything is sent to it.

A name may stand for another address at each connection: of each the other end is looked at.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

from mistudiod.endpoints import refused_address
from mistudiod.worker.link import Refused

ENDPOINTS, NEURONPEDIA = "endpoints", "neuronpedia_url"  # the settings
_FIELDS = {ENDPOINTS: "endpoint"}  # of a spec, that names what a setting has
_CONNECT_S = 10.0


async def reach(name: str, url: str, setting: str = ENDPOINTS) -> None:
    """Connect once. Raises Refused with one sentence: no such host, an address that is refused, nobody listening."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    addresses = await _resolved(name, url, host, port, setting)
    for address in addresses:
        _check(name, host, address, setting)
    problem = "it does not answer"
    for address in addresses:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_S)
        except asyncio.TimeoutError:
            problem = f"no connection within {_CONNECT_S:.0f} s"
        except OSError as error:
            problem = "connection refused" if isinstance(error, ConnectionRefusedError) else error.strerror or problem
        else:
            writer.transport.abort()
            return
    hint = "start it (ollama serve), or" if name == "ollama" else "start it, or"
    raise Refused(
        f"{name} does not answer at {url} ({problem}): {hint} correct its address in the setting {setting}",
        field=_FIELDS.get(setting),
    )


async def check_peer(name: str, stream: Any, setting: str = ENDPOINTS) -> None:
    """Of a connection of the HTTP client, on which nothing has been sent. Raises Refused when it is with an address
    that is refused; the connection is closed then.
    """
    peer = stream.get_extra_info("server_addr")
    try:
        _check(name, "its host", str(peer[0]) if peer else "nobody", setting)
    except Refused:
        await stream.aclose()
        raise


def _check(name: str, host: str, address: str, setting: str) -> None:
    if why := refused_address(address):
        raise Refused(
            f"{name} cannot be asked, for {host} is not where an endpoint can be: {why}", field=_FIELDS.get(setting)
        )


async def _resolved(name: str, url: str, host: str, port: int, setting: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(
            f"{name} cannot be reached: there is no host {host} ({error.strerror}); correct {url} in the setting "
            f"{setting}, or see whether this machine is online",
            field=_FIELDS.get(setting),
        ) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
