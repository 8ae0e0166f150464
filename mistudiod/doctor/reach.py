"""Where the daemon listens, and who may come in."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mistudiod import listen
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.host import text
from mistudiod.jobs import now
from mistudiod.paths import Paths
from mistudiod.settings import LAN, Settings, is_loopback

_LIMIT_S = 2.0


def port(subject: Subject) -> Finding:
    settings = subject.settings
    where, another = f"{settings.listen} port {settings.port}", "stop it, or choose another port with --port"
    holder = _holder(subject.root, Paths(settings.data).lock)
    if holder == os.getpid():
        return Finding("port", "ok", f"this daemon listens on {where}" if settings.port else "this daemon listens")
    if settings.port == 0:
        return Finding("port", "ok", "the daemon takes a free one")
    refused = _refused(settings)
    if refused is None:
        note = f"; the daemon that uses the data folder (process {holder}) listens elsewhere" if holder else ""
        return Finding("port", "ok", f"{where} is free{note}")
    if refused != errno.EADDRINUSE:
        message = f"cannot listen on {where}: {os.strerror(refused)}"
        return Finding("port", "problem", message, "choose an address of this machine and a port above 1023")
    data = _whose(settings)
    if data is None:
        return Finding("port", "problem", f"another program listens on {where}", another)
    if data == str(settings.data) or (not data and holder):
        return Finding("port", "ok", f"the daemon of this data folder listens on {where}")
    return Finding("port", "problem", f"another studio listens on {where}{f', with {data}' if data else ''}", another)


def access(subject: Subject) -> Finding:
    where = subject.settings.listen
    if is_loopback(where):
        return Finding("access", "ok", f"listens on {where}: only this machine can reach it")
    count = _tokens(Paths(subject.settings.data).database)
    if not count:
        message = f"listens on {where}, but no other machine has a token: none can use the studio"
        return Finding("access", "problem", message, "run: mistudio token pair, or listen on 127.0.0.1")
    return Finding("access", "ok", f"listens on {where}: {count} token{'s' if count > 1 else ''} can open it")


def _holder(root: Path, lock: Path) -> int | None:
    """The process that holds a lock file; read from the kernel's list, for taking it could stop a daemon's start."""
    try:
        inode = lock.stat().st_ino
    except OSError:
        return None
    for line in (text(root / "proc/locks") or "").splitlines():  # 1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None


def _refused(settings: Settings) -> int | None:
    """Why one cannot listen there, as an errno; None when one can. Bound for a moment only, and never listened on."""
    host = "0.0.0.0" if settings.listen == LAN else settings.listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, settings.port))
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno
    return None


def _whose(settings: Settings) -> str | None:
    """The data folder of the studio that answers there; "" when it wants a token first; None when it is no studio."""
    with closing(listen.connection(settings, _LIMIT_S)) as connection:
        try:
            connection.request("GET", "/api/status")
            answer = connection.getresponse()
            said: Any = json.loads(answer.read(65_536))
        except (OSError, http.client.HTTPException, ValueError, RecursionError):
            return None
    if not isinstance(said, dict):
        return None
    error = said.get("error")
    if isinstance(error, dict) and error.get("code") == "unauthorized":
        return ""
    return str(said.get("data")) if said.get("name") == "mistudio" else None


def _tokens(path: Path) -> int:
    """How many tokens are still good; 0 when there is no database, or it is older than tokens."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            query = "select count(*) from tokens where expires_at is null or expires_at > ?"
            return int(db.execute(query, (now(),)).fetchone()[0])
    except sqlite3.Error:
        return 0
