"""Every panel of the page when there is nothing, before the answers come, with very much, and when things fail."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, PHONE, OpenPage, call, dataset, expect, serious, training, until
from studio import Process, end, running, started

pytestmark = IN_A_BROWSER

DESK = {"width": 1280, "height": 800}
MANY = 300  # SAEs and datasets
JOBS = 200
FAILURE = {"error": {"code": "internal", "message": "the disk does not answer"}}
A_500 = re.compile(r"Failed to load resource: (net::ERR_|the server responded with a status of 500)")

# Panel: its heading, what an empty studio says in it, what a full one does.
PANELS = {
    "datasets": ("Datasets", r"yet", rf"Datasets {MANY + 1}"),
    "models": ("Models", r"yet", r"Models 1"),
    "saes": ("SAEs", r"yet", rf"SAEs {MANY + 1}"),
    "training": ("Training", r"yet", r"stories-l3"),
    "features": ("Features", r"yet", r"Features"),
    "steering": ("Steering", r"yet", r"Steering"),
    "system": ("System", r"No job runs", r"No job runs"),
    "jobs": ("Jobs", r"Nothing has run yet", r"Ended \d+ and older"),
}


# -- what is looked at in every state ----------------------------------------------------------------------------------


def goes_to(page: Any, panel: str) -> Any:
    page.evaluate("(place) => { location.hash = place; }", f"#/{panel}")
    main = page.get_by_role("main")
    expect(main.get_by_role("heading", level=2).first).to_contain_text(PANELS[panel][0])
    return main


LOOKS = {"light": PHONE, "dark": DESK}


def is_well(page: Any, what: str, *schemes: str) -> None:
    """Nothing sticks out on a phone, and axe finds nothing serious, in the dark and in the light."""
    page.set_viewport_size(PHONE)
    # A chart takes its new width with the next frame.
    width = "requestAnimationFrame(() => setTimeout(() => told(document.documentElement.scrollWidth)))"
    assert page.evaluate(f"new Promise((told) => {width})") <= PHONE["width"], what
    for scheme in schemes or LOOKS:
        page.set_viewport_size(LOOKS[scheme])
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == [], f"{what}, {scheme}"


# -- nothing -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "data", "telling_worker.py") as url:
        yield url


def test_an_empty_studio_says_in_every_panel_what_will_be_there(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    for panel, (_, empty, _) in PANELS.items():
        main = goes_to(page, panel)
        expect(main).to_contain_text(re.compile(empty))
        if panel != "system":
            expect(main.get_by_text(re.compile(r"^mistudio \w+")).first).to_be_visible()
        is_well(page, panel)


def test_before_the_answers_come_nothing_is_said_to_be_missing(studio: str, open_page: OpenPage) -> None:
    until(studio, training(studio), "done")
    page = open_page(studio, "about:blank")
    held: list[Any] = []
    page.route("**/api/*", lambda route: held.append(route))
    for panel in PANELS:
        page.goto(f"{studio}/#/{panel}")
        page.reload()
        expect(page.get_by_text("Asking the studio how things stand.")).to_be_visible()
        assert "yet" not in page.get_by_role("main").inner_text()
    is_well(page, "loading")
    page.unroute("**/api/*")
    page.reload()
    expect(page.get_by_role("heading", level=2)).to_contain_text("Jobs")
    # Once it has come, what a panel itself asks for may wait.
    page.route("**/api/**", lambda route: held.append(route))
    for panel in PANELS:
        assert "yet" not in goes_to(page, panel).inner_text(), panel
        is_well(page, f"{panel}, whose answers wait", "dark")


def test_a_studio_that_fails_is_said_to_fail_and_not_to_be_empty(studio: str, open_page: OpenPage) -> None:
    until(studio, training(studio), "done")
    page = open_page(studio, "about:blank", expected=A_500)
    page.route("**/api/*", lambda route: route.fulfill(status=500, json=FAILURE))
    for panel in PANELS:
        page.goto(f"{studio}/#/{panel}")
        page.reload()
        expect(page.get_by_role("main")).to_contain_text("It says: the disk does not answer.")
        assert "yet" not in page.get_by_role("main").inner_text()
    is_well(page, "failed")
    page.unroute("**/api/*")
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("Jobs")
    page.route(re.compile("/api/(?!events)"), lambda route: route.fulfill(status=500, json=FAILURE))
    for panel in PANELS:
        assert "yet" not in goes_to(page, panel).inner_text(), panel
        is_well(page, f"{panel}, whose answers fail", "light")


# -- very much ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with very much in it: what a few jobs have left, many times."""
    data = tmp_path_factory.mktemp("full") / "data"
    with running(data, "telling_worker.py") as url:
        until(url, dataset(url, "fail", "/text/nowhere"), "failed")
        until(url, training(url), "done")
    for folder, made in (("saes", "stories-l3"), ("datasets", "stories")):
        for n in range(MANY):
            shutil.copytree(data / folder / made, data / folder / f"{made}-{n}")
    database = sqlite3.connect(data / "mistudio.db")
    columns = "kind, lane, spec, state, priority, created_at, started_at, ended_at, progress, result, error"
    with database:
        for n in range(JOBS):
            database.execute(f"insert into jobs ({columns}) select {columns} from jobs where id = ?", (1 + n % 2 * 4,))
    database.close()
    return data


@pytest.fixture
def full_studio(full: Path) -> Iterator[tuple[list[Process], str]]:
    process, url = started(full, "telling_worker.py")
    processes = [process]
    yield processes, url
    end(processes[-1], signal.SIGTERM)


def test_a_full_studio_shows_it_and_stays_whole_when_the_line_is_cut(
    full: Path, full_studio: tuple[list[Process], str], open_page: OpenPage
) -> None:
    processes, url = full_studio
    page = open_page(url)
    for panel, (_, _, words) in PANELS.items():
        expect(goes_to(page, panel)).to_contain_text(re.compile(words))
        is_well(page, panel, "light")
    total = len(call(url, "/api/jobs?limit=1000")["jobs"])
    page.get_by_role("button", name="Fetch older jobs").click()
    expect(page.get_by_role("heading", name=re.compile("Ended"))).to_have_text(f"Ended {total}")
    end(processes[-1], signal.SIGKILL)
    for panel, (_, _, words) in PANELS.items():
        main = goes_to(page, panel)
        expect(main.get_by_text("No connection to the studio since")).to_be_visible()
        if panel != "jobs":
            expect(main).to_contain_text(re.compile(words))
        is_well(page, f"{panel}, disconnected", "dark")
    processes.append(started(full, "telling_worker.py", int(url.rpartition(":")[2]))[0])
    expect(page.get_by_text("No connection")).to_have_count(0)
    for panel, (_, _, words) in PANELS.items():
        expect(goes_to(page, panel)).to_contain_text(re.compile(words))


def test_what_failed_is_said_until_somebody_looks_with_its_log(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "models")
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    job = dataset(studio, "silent")
    until(studio, job, "failed")
    bar = page.get_by_role("contentinfo")
    expect(bar).to_contain_text("Add dataset silent")
    page.reload()
    expect(bar).to_contain_text("Failed after")
    is_well(page, "a job has failed")
    bar.get_by_role("link", name="Add dataset silent").click()
    main = page.get_by_role("main")
    expect(main).to_contain_text("Its worker's last line: last words")
    expect(main).to_contain_text(call(studio, f"/api/jobs/{job}")["error"]["message"])
    expect(bar).not_to_contain_text("Failed")
    page.get_by_role("button", name=f"Open log of job {job}").click()
    log = page.get_by_role("dialog")
    expect(log).to_contain_text("fake worker, attempt 1")
    is_well(page, "the log is open")
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Try again job {job}").click()
    expect(main).to_contain_text(f"fake worker, attempt {2}")
    assert until(studio, job, "failed")["attempts"] == 2
    assert call(studio, f"/api/jobs/{job}/log")["log"].count("fake worker") == 2
