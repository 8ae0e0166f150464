"""Whether a host is this machine: then what listens there works on this machine's GPU."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from mistudiod.endpoints import is_lan_name

_SIOCGIFADDR = 0x8915  # Linux: the address of an interface
_IPV6 = Path("/proc/net/if_inet6")
_AWAY = ("192.0.2.1", 9)  # an address that is nobody's (RFC 5737)
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


def outward() -> str:
    """The address by which this machine goes out, and others nearby reach it; its name when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(_AWAY)  # which sends nothing
            return str(one.getsockname()[0])
        except OSError:
            return socket.gethostname().lower()


def all_of_them() -> list[str]:
    """The addresses of this machine's interfaces, loopback and link-local ones left out (Linux)."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # one that has no IPv4
                asked = fcntl.ioctl(one, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(ipaddress.ip_address(asked[20:24]))
    with contextlib.suppress(OSError):
        for line in _IPV6.read_text().splitlines():
            found.append(ipaddress.ip_address(bytes.fromhex(line.split()[0])))
    return [str(address) for address in found if not address.is_loopback and not address.is_link_local]


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
