"""A daemon in a process of its own, for what talks to one from outside: ``python tests/studio.py DATA WORKER …``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
Process = subprocess.Popen[str]


@contextmanager
def running(
    data: Path, worker: str = "fake_worker.py", port: int = 0, environ: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[str]:
    """The URL of a studio that ends with the block."""
    process, url = started(data, worker, port, environ, **settings)
    try:
        yield url
    finally:
        end(process, signal.SIGTERM)


def started(
    data: Path, worker: str = "fake_worker.py", port: int = 0, environ: Mapping[str, str] | None = None, **settings: Any
) -> tuple[Process, str]:
    # Only what a test asks for: no proxy, no host, no settings of the person who runs the tests.
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ = {**known, "PYTHONPATH": str(ROOT), **(environ or {})}
    command = [sys.executable, str(HERE / "studio.py"), str(data), str(HERE / worker), str(port), json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, "the studio did not start"
    return process, url


def end(process: Process, number: signal.Signals) -> None:
    process.send_signal(number)
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()


@contextmanager
def proxied(url: str) -> Iterator[str]:
    """A proxy that says that it is one, in front of a studio: behind it nobody is the studio's own user.

    It has a token, and passes on whatever comes.
    """
    import httpx

    made = httpx.post(f"{url}/api/tokens", json={"name": "proxy", "scope": "admin"}, trust_env=False).json()
    said = {"X-Forwarded-For": "10.0.0.9", "Authorization": f"Bearer {made['token']}"}

    class Proxy(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = {**{k: v for k, v in self.headers.items() if k != "Host"}, **said}
            content = self.rfile.read(length) if length else None
            with (
                httpx.Client(trust_env=False, timeout=60) as http,
                http.stream(self.command, url + self.path, headers=asked, content=content) as answer,
            ):
                self.send_response(answer.status_code)
                self.end_headers()
                with contextlib.suppress(ConnectionError, httpx.TransportError):  # one of the two has gone
                    for chunk in answer.iter_raw():
                        self.wfile.write(chunk)

        do_GET = do_POST = do_PUT = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:  # a server that a failed test leaves would keep the process of all tests from its end
            server.shutdown()
        thread.join()


async def serve(data: Path, worker: Path, port: int, given: dict[str, Any]) -> None:
    from aiohttp import web

    from mistudiod.app import make_app
    from mistudiod.settings import Settings

    settings = Settings(data=data, stop_grace_s=1.0, term_grace_s=1.0, **given)
    runner = web.AppRunner(make_app(settings, (sys.executable, str(worker))), handler_cancellation=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await runner.setup()
    await web.TCPSite(runner, settings.listen, port, shutdown_timeout=2.0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))
