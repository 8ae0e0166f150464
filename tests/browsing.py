"""The web page in Chromium, before a real daemon: what tests of the page share."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_data import made_once
from studio import running

WEB = Path(__file__).parent.parent / "web"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
expect: Any = None
sync_playwright: Any = None
with contextlib.suppress(ImportError):
    from playwright.sync_api import expect, sync_playwright
Page = Any
OpenPage = Callable[..., Page]

# What a module of such tests is marked with: ``pytestmark = IN_A_BROWSER``.
IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.timeout(1200),  # the first that needs the made data makes them, and the other process waits for it
    pytest.mark.skipif(sync_playwright is None, reason="the package playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt install chromium)"),
    pytest.mark.skipif(
        not (WEB / "vendor" / "preact.js").is_file(), reason="web/vendor is missing: pip install -e . makes it"
    ),
]

PHONE = {"width": 390, "height": 844}
HOOK = "blocks.3.hook_resid_post"
WAIT_MS = 20_000
# What Chromium itself says when a studio does not answer, or refuses what was asked on purpose.
EXPECTED = re.compile(r"Failed to load resource: (net::ERR_|the server responded with a status of (400|404|409|429))")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[OpenPage]:
    """Open a studio's page; at the end none has complained, but of what was expected, nor asked anything of anybody
    else."""
    said: list[str] = []
    asked: set[str] = set()
    contexts, urls = [], []

    def visit(url: str, place: str = "jobs", expected: re.Pattern[str] = EXPECTED, **options: Any) -> Page:
        contexts.append(context := chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}))
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: said.extend([message.text] if is_bad(message, expected) else []))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        urls.append(url)
        page.goto(f"{url}/#/{place}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == [], said
    assert {url for url in asked if not url.startswith((*urls, "data:"))} == set()


def is_bad(message: Any, expected: re.Pattern[str]) -> bool:
    return message.type in ("error", "warning") and not expected.match(message.text)


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A data folder with an SAE, its features and labels (``made_data.py``). Nobody may write to it."""
    own = tmp_path_factory.getbasetemp()
    return made_once(own if worker_id == "master" else own.parent)


@pytest.fixture
def made_studio(made_data: Path, tmp_path: Path) -> Iterator[str]:
    """A studio with real workers on a copy of that folder."""
    with running(Path(shutil.copytree(made_data, tmp_path / "data")), "real_worker.py") as url:
        yield url


def call(url: str, path: str, body: object = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def submit(url: str, **spec: Any) -> int:
    return int(call(url, "/api/jobs", {"spec": spec})["id"])


def dataset(url: str, name: str, source: str = "/text/stories.jsonl") -> int:
    return submit(url, kind="add_dataset", source=source, name=name)


def training(url: str, name: str = "stories-l3") -> int:
    submit(url, kind="add_model", source="/models/pico", name="pico")
    dataset(url, "stories")
    submit(url, kind="tokenize", dataset="stories", model="pico", name="stories-pico")
    return submit(url, kind="train", tokenization="stories-pico", hook=HOOK, name=name)


def until(url: str, job: int, state: str) -> Any:
    for _ in range(400):
        found = call(url, f"/api/jobs/{job}")
        if found["state"] == state:
            return found
        time.sleep(0.05)
    raise AssertionError(f"job {job} is {found['state']}, not {state}")


def section(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name)


def row(page: Page, list_name: str, text: str) -> Any:
    return section(page, list_name).get_by_role("listitem").filter(has_text=text)


def known(page: Page, signal_name: str) -> Any:
    """What the page knows, as JSON: more than it shows, to the last digit."""
    return page.evaluate(
        "async (name) => { const { value } = (await import('/state.js'))[name];"
        " return JSON.parse(JSON.stringify(value instanceof Map ? [...value] : value)); }",
        signal_name,
    )


def known_artifacts(page: Page, noun: str) -> Any:
    return page.evaluate(
        "async (noun) => JSON.parse(JSON.stringify([...(await import('/state.js')).artifacts[noun].value]))", noun
    )


def go_to(page: Page, panel: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=panel, exact=True).click()
    expect(page.get_by_role("main").get_by_role("heading", level=2).first).to_contain_text(panel)


# -- what anybody can read ---------------------------------------------------------------------------------------------

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


def serious(page: Any) -> list[str]:
    """What axe finds that keeps somebody from using the page as it is now; with the first elements of each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    # Rows are alike: the first of each list stand for all.
    found = page.evaluate(
        "async (runOnly) => (await axe.run({ exclude: ['tbody tr:nth-child(n+6)', 'ul.rows > li:nth-child(n+6)'] },"
        " { runOnly, resultTypes: ['violations'], preload: false })).violations",
        RULES,
    )
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {[node['html'][:160] for node in one['nodes'][:3]]}" for one in bad]


def _axe() -> str:
    try:
        import axe_playwright_python
    except ImportError:
        return ""
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


AXE = _axe()
