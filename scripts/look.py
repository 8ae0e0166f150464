"""What start-mistudio.sh asks: where the studio belongs, and who answers there.

Prints four lines: its URL, its data folder, the data folder of the miStudio that has the port (empty if none has), and
who has the port: ``nobody``, ``ours``, ``studio`` (a miStudio with other data) or ``program``.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from typing import Any

from mistudiod.settings import Settings, SettingsError, load

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def main() -> int:
    try:
        settings, _ = load({}, os.environ)
        if settings.port == 0:
            raise SettingsError("MISTUDIO_PORT is 0; the start script needs a port that it can find again")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 78
    address = ANY_ADDRESS.get(settings.listen, settings.listen)
    url = f"http://[{address}]:{settings.port}" if ":" in address else f"http://{address}:{settings.port}"
    holder, data = _holder(address, settings)
    sys.stdout.write(f"{url}\n{os.path.realpath(settings.data)}\n{data}\n{holder}\n")
    return 0


def _holder(address: str, settings: Settings) -> tuple[str, str]:
    try:
        status = _status(address, settings.port)
    except ConnectionRefusedError:
        return "nobody", ""
    except (OSError, http.client.HTTPException, ValueError):
        return "program", ""
    if not isinstance(status, dict) or status.get("name") != "mistudio":
        return "program", ""
    data = os.path.realpath(str(status.get("data", "")))
    return ("ours" if data == os.path.realpath(settings.data) else "studio"), data


def _status(address: str, port: int) -> Any:
    connection = http.client.HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", "/api/status")
        return json.loads(connection.getresponse().read(1 << 20))
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
