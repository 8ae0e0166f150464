"""Whether a host is this machine: then what listens there works on this machine's GPU."""

from __future__ import annotations

import ipaddress
import socket

from mistudiod.endpoints import is_lan_name

_DOCKERS = "host.docker.internal"  # as a container calls the machine that it runs on


def is_this_machine(host: str) -> bool:
    """For a loopback address or name, and for an address that one of this machine's interfaces has.

    The name of a machine nearby is looked up, which may take seconds: call it from a thread. A name of the internet is
    not: it is elsewhere.
    """
    name = socket.gethostname().lower()
    if host in ("localhost", _DOCKERS, name, f"{name}.local", f"{name}.lan") or host.endswith(".localhost"):
        return True
    try:
        return _is_own(str(ipaddress.ip_address(host)))
    except ValueError:
        return is_lan_name(host) and any(map(_is_own, _addresses(host)))


def _addresses(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # nobody knows it now
        return set()
    return {str(address[4][0]).partition("%")[0] for address in found}


def _is_own(address: str) -> bool:
    found = ipaddress.ip_address(address)
    if found.is_loopback:
        return True
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((address, 0))  # which only a machine that has the address can do
    except OSError:
        return False
    return True
