"""What start-mistudio.sh asks: where the studio belongs, and who answers there.

Prints five lines: its URL, what the client is to be told (the UNIX socket where the URL wants a token), its data
folder, the data folder of the miStudio that has the port (empty if none has), and who has the port: ``nobody``,
``ours``, ``studio`` (a miStudio with other data) or ``program``.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from typing import Any

from mistudiod import listen
from mistudiod.paths import Paths
from mistudiod.settings import Settings, SettingsError, is_loopback, load


def main() -> int:
    try:
        settings, _ = load({}, os.environ)
        if settings.port == 0:
            raise SettingsError("MISTUDIO_PORT is 0; the start script needs a port that it can find again")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 78
    address, scheme = listen.here(settings), "http" if is_loopback(settings.listen) else "https"
    url = f"{scheme}://[{address}]:{settings.port}" if ":" in address else f"{scheme}://{address}:{settings.port}"
    holder, data = _holder(settings)
    host = url if is_loopback(settings.listen) else f"unix:{_socket(settings)}"
    sys.stdout.write(f"{url}\n{host}\n{os.path.realpath(settings.data)}\n{data}\n{holder}\n")
    return 0


def _holder(settings: Settings) -> tuple[str, str]:
    try:
        status = _status(listen.connection(settings, limit_s=3))
        if _wants_a_token(status):
            return _by_socket(settings)
    except ConnectionRefusedError:
        return "nobody", ""
    except (OSError, http.client.HTTPException, ValueError):
        return "program", ""
    if not isinstance(status, dict) or status.get("name") != "mistudio":
        return "program", ""
    data = os.path.realpath(str(status.get("data", "")))
    return ("ours" if data == os.path.realpath(settings.data) else "studio"), data


def _wants_a_token(status: Any) -> bool:
    error = status.get("error") if isinstance(status, dict) else None
    return isinstance(error, dict) and error.get("code") == "unauthorized"


def _by_socket(settings: Settings) -> tuple[str, str]:
    """A miStudio that tells strangers nothing: if it has our data its UNIX socket says so."""
    try:
        status = _status(UnixConnection(_socket(settings)))
    except (OSError, http.client.HTTPException, ValueError):
        return "studio", "another folder"
    return "ours", os.path.realpath(str(status["data"]))


def _socket(settings: Settings) -> str:
    return str(Paths(settings.data).socket)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=3)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _status(connection: http.client.HTTPConnection) -> Any:
    try:
        connection.request("GET", "/api/status")
        return json.loads(connection.getresponse().read(1 << 20))
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
