"""What a shell offers while a command is typed: names and ids from the studio, in a moment or not at all.

It speaks HTTP through the standard library: httpx takes longer to import than a person waits for a Tab.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.shell_completion import CompletionItem

from mistudio import contexts, routes
from mistudio.address import UNIX, Address, find
from mistudio.errors import WrongCertificate
from mistudiod.socket_path import reachable

BUDGET_S = 0.3
_NOTHING_OFFERED = (OSError, ValueError, KeyError, TypeError, WrongCertificate)
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def named(noun: str) -> Completer:
    """The names of what there is of a noun."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = _asked(context, routes.request("artifacts", noun=noun)[1], f"{noun}s")
        return _beginning(incomplete, [(one["name"], "") for one in found])

    return complete


def jobs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    found = _asked(context, routes.request("jobs")[1], "jobs")
    return _beginning(incomplete, [(str(one["id"]), f"{one['kind']}, {one['state']}") for one in found])


def contexts_known(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        known = contexts.read(os.environ).known
    except ValueError:
        return []
    hosts = {contexts.LOCAL: "this machine", **{name: one.host for name, one in known.items()}}
    return _beginning(incomplete, list(hosts.items()))


def _beginning(incomplete: str, words: list[tuple[str, str]]) -> list[CompletionItem]:
    return [CompletionItem(word, help=about or None) for word, about in words if word.startswith(incomplete)]


def _asked(context: click.Context, path: str, what: str) -> list[dict[str, Any]]:
    from mistudio.options import Call

    call = context.ensure_object(Call)
    found: list[dict[str, Any]] = []

    def ask() -> None:
        from http.client import HTTPException

        # Nothing is offered then; what is wrong will be said when the command is run.
        with contextlib.suppress(*_NOTHING_OFFERED, HTTPException):
            found.extend(_get(find(call.host, call.context, os.environ), path)[what])

    asking = threading.Thread(target=ask, daemon=True)  # does not keep the process when time is up
    asking.start()
    asking.join(BUDGET_S)
    return list(found)


def _get(address: Address, path: str) -> Any:
    from http.client import HTTPConnection, HTTPSConnection

    url = urlsplit(address.url)
    if url.scheme == UNIX.removesuffix(":"):
        connection = HTTPConnection("localhost", timeout=BUDGET_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(BUDGET_S)
        with reachable(Path(url.path)) as name:
            connection.sock.connect(name)
    else:
        host, port = url.hostname or "", url.port
        if address.fingerprint:
            from mistudio.pinned import Pinned

            pinned = Pinned(address.url, address.fingerprint)
            connection = HTTPSConnection(host, port, timeout=BUDGET_S, context=pinned)
        else:
            kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
            connection = kind(host, port, timeout=BUDGET_S)
        path = url.path + path
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    try:
        connection.request("GET", path, headers=headers)
        return json.load(connection.getresponse())
    finally:
        connection.close()
