"""The daemon's TCP ports: plain HTTP where only this machine can reach it, TLS everywhere else."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence

from aiohttp import web

from mistudiod import own_address, pairing, tls
from mistudiod.api.keys import PAIRINGS, REACH, SETTINGS, TOKENS
from mistudiod.secure_port import SecurePort
from mistudiod.settings import Settings, is_loopback
from mistudiod.tokens import Scope

log = logging.getLogger("mistudiod")
_ANY = ("0.0.0.0", "::")


class Reception:
    def __init__(self, runner: web.AppRunner, listeners: Sequence[socket.socket]) -> None:
        self._runner, self._listeners = runner, listeners
        self._secure: SecurePort | None = None
        self._beyond = [one for one in listeners if not is_loopback(_host(one))]

    def check(self, settings: Settings) -> None:
        """Raises BadCertificate, before the studio starts a job: one that cannot be reached must not."""
        if self._beyond and (pair := tls.pair(settings)).exists():
            pair.context()
            pair.fingerprint()

    async def open(self, app: web.Application) -> str:
        """Answer from now on. What is said of where: its URL. Raises BadCertificate."""
        for listener in self._listeners:
            if listener not in self._beyond:
                await web.SockSite(self._runner, listener).start()
        if not self._beyond:
            return _url("http", self._listeners[0])
        settings, server = app[SETTINGS], self._runner.server
        assert server is not None, "the application is set up"
        pair = tls.pair(settings)
        if not pair.exists():
            pair.renew()
            log.info("made a certificate for this studio: %s", pair.certificate)
        context, reach = pair.context(), app[REACH]
        reach.url, reach.fingerprint = _url("https", self._beyond[0]), pair.fingerprint()
        await _invite(app, reach.url)
        self._secure = SecurePort(self._beyond, server, context, settings.allow_public)
        log.info("other machines know this studio by its certificate %s", reach.fingerprint)
        return reach.url

    async def close(self) -> None:
        """Take no new connections."""
        if self._secure is not None:
            await self._secure.close()


async def _invite(app: web.Application, url: str) -> None:
    """A code for the first device, when none can get in yet. It is for eyes: no handler of the log's writes it down."""
    if any(not one.expired for one in await app[TOKENS].all()):
        return
    code = app[PAIRINGS].open(Scope.ADMIN)
    sys.stderr.write(
        f"No device has a token yet. This code gives one, once, within {pairing.LIFE_S // 60} minutes: {code}\n"
        f"  in a browser: {url}\n  on a command line: mistudio context add NAME {url} --pair {code}\n"
        "Later: mistudio token pair, on this machine.\n"
    )
    sys.stderr.flush()


def _host(listener: socket.socket) -> str:
    return str(listener.getsockname()[0])


def _url(scheme: str, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = own_address.outward() if host in _ANY else host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
