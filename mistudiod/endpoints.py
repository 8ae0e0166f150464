"""Whom labels and scores may be asked of: the setting ``endpoints``, and addresses that are never asked. Pure.

Where features are uploaded to, the setting ``neuronpedia_url``, is held to the same rules.

An endpoint is what speaks the API of OpenAI: OpenAI itself, Ollama, vLLM and others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT = "ollama=http://127.0.0.1:11434/v1,openai=https://api.openai.com/v1"
KEYLESS = "tokens"  # the endpoint that is none
RESERVED = (KEYLESS, "person", "neuronpedia")  # who gives labels besides endpoints
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,62}[a-z0-9_])?)*")
_SECRET = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}(:[0-9]{1,5})?")  # the rule of secret.NAME
_URL_CHARS, _MODEL_CHARS = 500, 200
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where machines are told their secrets by the cloud that they run in.
_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog"})
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "fd00:ec2::254", "fd00:ec2::23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
_LAN = (".local", ".lan", ".localhost", ".home.arpa", ".internal")  # names that only a network of one's own gives
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Endpoint:
    """``url`` is the base of its API, without a slash at the end."""

    name: str
    url: str

    @property
    def host(self) -> str:
        """A name in lower case or an address, without brackets."""
        return _host(urlsplit(self.url).hostname or "")

    @property
    def is_near(self) -> bool:
        """Whether it can only be this machine or one of the local network."""
        return _is_near(self.host)

    @property
    def secret_name(self) -> str | None:
        """What its secret is called; None when the host's name cannot be that of a secret."""
        if self.name == "openai":
            return "openai"
        port = urlsplit(self.url).port
        name = f"{self.host}:{port}" if port is not None else self.host
        return name if _SECRET.fullmatch(name) else None


def parse(text: str) -> dict[str, Endpoint]:
    """The endpoints of a setting: ``name=URL``, separated by commas. Raises ValueError, one sentence."""
    found: dict[str, Endpoint] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, url = part.partition("=")
        name, url = name.strip(), url.strip()
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"{part[:100]!r} is no endpoint: write name=URL, the name in lower case, as {DEFAULT}")
        if name in RESERVED:
            raise ValueError(f"no endpoint can be named {name!r}, which stands for labels without one: choose another")
        if name in found:
            raise ValueError(f"the endpoint {name!r} is given twice: name one of them otherwise")
        found[name] = Endpoint(name, _checked(name, url))
    return found


def neuronpedia(url: str) -> Endpoint:
    """The Neuronpedia of a setting. Raises ValueError, one sentence."""
    return Endpoint("neuronpedia", _checked("neuronpedia", url.strip()))


def check_name(text: str) -> str:
    """Raises ValueError for what can be no endpoint's name."""
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text[:100]!r} is no endpoint's name, as openai or ollama; {KEYLESS} is for labels without one"
        )
    return text


def check_model(text: str) -> str:
    """Raises ValueError for what no endpoint can call a model."""
    if len(text) > _MODEL_CHARS or not text.isprintable():
        raise ValueError(f"the name of a model is one line of {_MODEL_CHARS} characters at most")
    return text


def missing(name: str, known: Mapping[str, Endpoint]) -> str:
    """Why a job cannot ask an endpoint."""
    there = f"there are {', '.join(sorted(known))}" if known else "there is none"
    return f"there is no endpoint {name!r}: {there}; an admin adds others to the setting endpoints"


def refused_address(address: str | Address) -> str | None:
    """Why nothing at an address is ever asked, in one sentence; None when it may be.

    A worker asks this of what a host's name stands for, at the time when it connects.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0] if isinstance(address, str) else address)
    except ValueError:
        return f"{address!r} is no address"
    for one in (found, *_within(found)):
        if why := _refused(one):
            return f"{address} {why}, and no endpoint is asked there"
    return None


def is_lan_name(host: str) -> bool:
    """Whether a host's name can only be that of a machine nearby."""
    return "." not in host or host.endswith(_LAN)


def _checked(name: str, url: str) -> str:
    """The URL without a slash at its end. What a message shows of it has no user's name or password in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"the URL of the endpoint {name!r} cannot be read: give one such as {_EXAMPLE}") from None
    if "@" in parts.netloc:
        raise ValueError(
            f"the URL of the endpoint {name!r} has a user or password in it: leave them out; its key is a secret"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"the endpoint {name!r} needs a URL with http or https and a host, such as {_EXAMPLE}")
    if "?" in url or "#" in url or len(url) > _URL_CHARS or re.search(r"[^!-~]|[\\\"<>`{}|^]", url):
        raise ValueError(
            f"the URL of the endpoint {name!r} must be an address and a path, such as {_EXAMPLE}: without query, "
            f"fragment or spaces, of {_URL_CHARS} characters at most"
        )
    _check_host(name, _host(parts.hostname), parts.scheme)
    return url.rstrip("/")


_EXAMPLE = "http://127.0.0.1:11434/v1"


def _check_host(name: str, host: str, scheme: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        last = host.rpartition(".")[2]
        if not _HOST.fullmatch(host) or len(host) > 253 or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
            raise ValueError(f"the endpoint {name!r} has no host that can be read: {host[:100]!r}") from None
        if host in _METADATA_HOSTS:
            raise ValueError(
                f"the endpoint {name!r} is at {host}, where a cloud keeps keys: it is never asked"
            ) from None
    else:
        if why := refused_address(address):
            raise ValueError(f"the endpoint {name!r} cannot be used: {why}")
    if scheme == "http" and not _is_near(host):
        raise ValueError(
            f"the endpoint {name!r} at {host} needs https: without it keys and texts would cross the internet for all "
            "to read; http is for this machine and the local network (private addresses, plain names, .local and .lan)"
        )


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return is_lan_name(host)
    return address.is_loopback or any(address in network for network in _PRIVATE)


def _host(hostname: str) -> str:
    return hostname.lower().removesuffix(".")


def _within(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
    if address in _NAT64 or int(address) >> 32 == 0:  # the latter: IPv4-compatible, ::a.b.c.d
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [] if address.is_loopback else found


def _refused(address: Address) -> str | None:
    if address in _METADATA:
        return "is where a cloud keeps its machines' keys"
    if address.is_link_local:
        return "is a link-local address"
    if address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return "stands for many machines"
    if address.is_unspecified or (address.version == 4 and (int(address) >> 24 == 0 or address.is_reserved)):
        return "stands for no machine"
    return None
