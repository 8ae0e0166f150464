"""Proxies that are trusted to say for whom they ask (the setting ``trusted_proxies``), and what they say. Pure.

What a proxy says counts from the nearest outwards, for as long as whoever said it is trusted: the first that is not is
who asks. What that one says of others is not believed, nor even read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
UNIX = "unix"  # stands for whoever connects to the UNIX socket
_PORT = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([^:]*)(?::\d{1,5})?", re.ASCII)  # [v6], [v6]:port, v4, v4:port


@dataclass(frozen=True)
class Proxies:
    """``unix``: whatever connects to the UNIX socket and says that it asks for somebody else is trusted too."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    unix: bool = False

    def trusts(self, address: Address | None) -> bool:
        """None: the UNIX socket."""
        return self.unix if address is None else any(address in network for network in self.networks)


def parse(text: str) -> Proxies:
    """The setting: addresses and networks, and the word unix, with commas between. Raises ValueError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    networks = []
    for word in words:
        if word == UNIX:
            continue
        try:
            network = ipaddress.ip_network(word)
        except ValueError:
            raise ValueError(
                f"{word!r} is neither an address, nor a network such as 10.0.0.0/24, nor the word unix"
            ) from None
        if network.prefixlen == 0:
            raise ValueError(f"{word} is everybody: name the proxy's own address")
        networks.append(network)
    return Proxies(tuple(networks), UNIX in words)


def plain(text: str) -> Address:
    """An address without its zone; an IPv4 one that is mapped into IPv6 (::ffff:127.0.0.1) as what it is.

    Raises ValueError.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def asker(peer: Address | None, said: Sequence[str], trusted: Proxies) -> Address | None:
    """The outermost address that a trusted proxy vouches for. ``said``: X-Forwarded-For, its lines in their order.

    Raises ValueError when what a trusted one says is no address.
    """
    hops = [hop.strip() for line in said for hop in line.split(",")]
    found = peer
    while hops and trusted.trusts(found):
        found = _address(hops.pop())
    return found


def _address(hop: str) -> Address:
    try:
        return plain(hop)
    except ValueError:
        with_port = _PORT.fullmatch(hop)
        if with_port is None:
            raise
        return plain(with_port[1] or with_port[2] or "")
