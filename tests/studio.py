"""A daemon in a process of its own, for what talks to one from outside: ``python tests/studio.py DATA WORKER``."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent


@contextmanager
def running(data: Path, worker: str = "fake_worker.py", port: int = 0) -> Iterator[str]:
    """The URL of a studio that ends with the block."""
    # Only what a test asks for: no proxy, no host, no settings of the person who runs the tests.
    environ = {**{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "studio.py"), str(data), str(HERE / worker), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, "the studio did not start"
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


async def serve(data: Path, worker: Path, port: int) -> None:
    from aiohttp import web

    from mistudiod.app import make_app
    from mistudiod.settings import Settings

    settings = Settings(data=data, stop_grace_s=1.0, term_grace_s=1.0)
    runner = web.AppRunner(make_app(settings, (sys.executable, str(worker))), handler_cancellation=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=2.0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
