"""A studio for each test: the real application on a real port, with a data folder of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from browsing import chromium, made_data, made_studio, open_page  # noqa: F401 (fixtures of every test of the page)
from hypothesis import HealthCheck, settings
from ports import free_port

from mistudiod.api import answers
from mistudiod.api.table import ROUTES
from mistudiod.app import make_app
from mistudiod.redact import PROCESS
from mistudiod.settings import Settings

_WORKER_TESTS = re.compile(
    r"^ *(?:from|import) (?:torch|numpy|transformers|safetensors|pyarrow|datasets|huggingface_hub|hub |openai\b"
    r"|mistudiod\.engine|mistudiod\.demo|mistudiod\.worker(?: import|\.(?!link|redacted))|tiny_models|run_job"
    r"|text_sources|planted|tests\.drills)",
    re.MULTILINE,
)  # fmt: skip
# Daemon and client are tested without torch too: ./run-tests.sh pythons.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if find_spec("torch") is None and _WORKER_TESTS.search(path.read_text())
]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does that to what it starts in the background, and
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the processes that tests interrupt would inherit it
# How long an example takes is the machine's affair: one that stood still for 0.2 s would be an error by default.
_PATIENT = {"deadline": None, "suppress_health_check": (*settings().suppress_health_check, HealthCheck.too_slow)}
settings.register_profile("patient", settings(), **_PATIENT)
settings.load_profile("patient")
FAKE_WORKER = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))
ENDED = {"done", "failed", "stopped", "paused", "partial"}


def hold_to_its_model(method: str, path: str, status: int, body: Any) -> None:
    """Whatever a test asks, the answer is as the OpenAPI document says."""
    if status >= 400:
        answers.Error.model_validate(body)
        return
    route = next(one for one in ROUTES if one.method == method and _PATTERNS[one.template].fullmatch(path))
    assert status == route.status or "Idempotency-Key" in route.headers, (method, path, status)
    assert route.answer is not None, (method, path)
    route.answer.model_validate(body, strict=False)


_PATTERNS = {one.template: re.compile(re.sub(r"\{\w+\}", "[^/?]+", one.template) + r"(\?.*)?") for one in ROUTES}


class Studio:
    """The application and an HTTP session for it."""

    def __init__(self, server: TestServer, session: ClientSession, data: Path) -> None:
        self.server, self.session, self.data = server, session, data
        self.app = server.app

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.server.make_url(path), **options) as response:
            if response.content_type != "application/json":
                return response.status, await response.text()
            body = await response.json()
            hold_to_its_model(method, path, response.status, body)
            return response.status, body

    async def get(self, path: str) -> Any:
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def submit(self, spec: dict[str, Any], **options: Any) -> Any:
        status, body = await self.call("POST", "/api/jobs", json={"spec": spec, **options})
        assert status == 201, body
        return body

    async def act(self, job: int, what: str) -> Any:
        status, body = await self.call("POST", f"/api/jobs/{job}/{what}")
        assert status == 200, body
        return body

    async def until(self, job: int, states: set[str] | str = ENDED, limit_s: float = 60.0) -> Any:
        """The job once it is in one of the states."""
        wanted = {states} if isinstance(states, str) else states
        for _ in range(int(limit_s / 0.02)):
            found = await self.get(f"/api/jobs/{job}")
            if found["state"] in wanted:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"job {job} is {found['state']}, not {wanted}: {found}")


def dataset(name: str, **fields: Any) -> dict[str, Any]:
    """A job for the fake worker: its name is what it does."""
    return {"kind": "add_dataset", "source": "/text", "name": name, **fields}


def train(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "train", "name": name, "tokenization": "t", "hook": "blocks.0.hook_resid_post", **fields}


OpenStudio = Callable[..., Awaitable[Studio]]


@pytest.fixture(scope="module", autouse=True)
def known_secrets() -> Iterator[None]:
    """What one file of tests has kept as a secret, a path say, is not starred out of what another's studio says."""
    before = vars(PROCESS).copy()
    yield
    vars(PROCESS).update(before)


@pytest.fixture
def port() -> int:
    """Where a studio can be started again: nobody takes it after the first one's end."""
    return free_port()


@pytest.fixture
async def open_studio(tmp_path: Path) -> AsyncIterator[OpenStudio]:
    """Start a studio; again after ``await studio.server.close()`` on the same data for a restart."""
    opened: list[Studio] = []

    async def start(**settings: Any) -> Studio:
        data = tmp_path / "data"
        options = {"stop_grace_s": 0.5, "term_grace_s": 0.5, **settings}
        server = TestServer(make_app(Settings(data=data, **options), FAKE_WORKER))
        await server.start_server()
        opened.append(Studio(server, ClientSession(), data))
        return opened[-1]

    yield start
    for studio in opened:
        await studio.session.close()
        await studio.server.close()


@pytest.fixture
async def studio(open_studio: OpenStudio) -> Studio:
    return await open_studio()


async def standstill(ask: Callable[[], Awaitable[Any]], limit_s: float) -> float:
    """For how long at most the event loop does not come to anything else while that is asked, s.

    The best of ten times, unless it is below the limit sooner: what holds the loop up does so each time, a machine that
    has something else to do does not.
    """
    found = []
    for _ in range(10):
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - before)

        watcher = asyncio.create_task(watch())
        await ask()
        watcher.cancel()
        found.append(longest)
        if longest < limit_s:
            break
    return min(found)


def put_artifact(data: Path, noun_folder: str, name: str, file: str, info: str = "{}") -> Path:
    folder = data / noun_folder / name
    folder.mkdir(parents=True)
    (folder / file).write_text(info)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test logged may hold half a character, which cannot be sent from one process to another."""
    return _sendable((yield))


def _sendable(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {_sendable(name): _sendable(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(map(_sendable, data))
    return data
