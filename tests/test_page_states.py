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
from browsing import IN_A_BROWSER, OpenPage, call, dataset, expect, training, until
from studio import Process, end, running, started

pytestmark = IN_A_BROWSER

PHONE = {"width": 390, "height": 844}
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
    "training": ("Training", r"yet", r"Train SAE stories-l3"),
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


def is_well(page: Any, what: str) -> None:
    """Nothing sticks out on a phone, and axe finds nothing serious, in the dark and in the light."""
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], what
    for scheme, size in (("light", PHONE), ("dark", DESK)):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == [], f"{what}, {scheme}"


def serious(page: Any) -> list[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = page.evaluate(
        "async () => (await axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] },"
        " { resultTypes: ['violations'] })).violations"
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


# -- nothing -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "data", "paced_worker.py") as url:
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
    for route in held[-7:]:
        route.continue_()
    expect(page.get_by_role("heading", level=2)).to_contain_text("Jobs")
    # Once it has come, what a panel itself asks for may wait.
    page.route("**/api/**", lambda route: held.append(route))
    for panel in PANELS:
        assert "yet" not in goes_to(page, panel).inner_text(), panel
        is_well(page, f"{panel}, whose answers wait")


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
        is_well(page, f"{panel}, whose answers fail")


# -- very much ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with very much in it: what a few jobs have left, many times."""
    data = tmp_path_factory.mktemp("full") / "data"
    with running(data, "paced_worker.py") as url:
        until(url, dataset(url, "markup", "/text/nowhere"), "failed")
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
    process, url = started(full, "paced_worker.py")
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
        is_well(page, panel)
    total = len(call(url, "/api/jobs?limit=1000")["jobs"])
    page.get_by_role("button", name="Fetch older jobs").click()
    expect(page.get_by_role("heading", name=re.compile("Ended"))).to_have_text(f"Ended {total}")
    end(processes[-1], signal.SIGKILL)
    for panel, (_, _, words) in PANELS.items():
        main = goes_to(page, panel)
        expect(main.get_by_text("No connection to the studio since")).to_be_visible()
        if panel != "jobs":
            expect(main).to_contain_text(re.compile(words))
        is_well(page, f"{panel}, disconnected")
    processes.append(started(full, "paced_worker.py", int(url.rpartition(":")[2]))[0])
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


# -- by keyboard alone -------------------------------------------------------------------------------------------------


def tab_to(page: Any, role: str, name: str) -> None:
    wanted = page.get_by_role(role, name=name, exact=True).first
    expect(wanted).to_be_visible()
    for _ in range(60):
        if wanted.evaluate("(one) => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not come to {name}")


def test_from_an_empty_studio_to_a_training_by_keyboard_alone(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "")
    keys = page.keyboard
    expect(page.get_by_role("heading", name="Datasets")).to_be_focused()
    for panel, source, name in (("m", "/models/pico", "pico"), ("d", "/text/stories.jsonl", "stories")):
        keys.type(f"g{panel}n")
        expect(page.get_by_role("dialog").get_by_role("textbox").first).to_be_focused()
        keys.type(source)
        keys.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("table").get_by_role("cell", name=name, exact=True).first).to_be_visible()
    tab_to(page, "button", "Tokenize stories")
    keys.press("Enter")
    tab_to(page, "button", "Tokenize")
    keys.press("Enter")
    expect(page.get_by_role("table", name="Tokenizations")).to_contain_text("stories-pico")
    keys.type("gt")
    expect(page.get_by_role("heading", name="Training")).to_be_visible()
    keys.type("n")
    tab_to(page, "button", "Train")
    keys.press("Enter")
    expect(page.get_by_role("contentinfo")).to_contain_text("Train SAE")
    assert [job["spec"]["tokenization"] for job in call(studio, "/api/jobs")["jobs"] if job["kind"] == "train"] == [
        "stories-pico"
    ]


def test_keys_are_listed_do_what_the_list_says_and_can_be_switched_off(studio: str, open_page: OpenPage) -> None:
    until(studio, dataset(studio, "stories"), "done")
    page = open_page(studio, "system")
    keys = page.keyboard
    heading = page.get_by_role("main").get_by_role("heading", level=2)
    expect(heading).to_contain_text("System")
    for letter, panel in (("a", "SAEs"), ("t", "Training"), ("f", "Features"), ("s", "Steering"), ("j", "Jobs")):
        keys.type(f"g{letter}")
        expect(heading).to_contain_text(panel)
    keys.type("j")
    expect(page.get_by_role("main").get_by_role("link", name="stories", exact=True)).to_be_focused()
    keys.press("Enter")
    expect(heading).to_have_text("Add dataset stories")
    keys.press("Control+g")
    keys.type("m")
    expect(heading).to_have_text("Add dataset stories")
    keys.type("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next row")
    is_well(page, "the list of keys")
    keys.type("gm")
    expect(heading).to_have_text("Add dataset stories")
    page.get_by_role("checkbox", name="On, except while something is typed").uncheck()
    keys.press("Escape")
    page.reload()
    expect(heading).to_have_text("Add dataset stories")
    keys.type("gm?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(heading).to_have_text("Add dataset stories")
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("checkbox")).not_to_be_checked()


# -- how it looks ------------------------------------------------------------------------------------------------------


def test_a_theme_that_was_chosen_holds_against_the_systems_and_is_remembered(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    assert page.evaluate(ground) == "rgb(14, 17, 22)"
    page.get_by_label("Theme").select_option("Light")
    assert page.evaluate(ground) == "rgb(246, 247, 249)"
    # Before any module has run, so that nothing flashes.
    page.route("**/main.js", lambda route: route.abort())
    page.reload(wait_until="domcontentloaded")
    assert page.evaluate(ground) == "rgb(246, 247, 249)"
    page.unroute("**/main.js")
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("light")
    page.get_by_label("Theme").select_option("Auto")
    assert page.evaluate(ground) == "rgb(14, 17, 22)"
    assert page.evaluate("localStorage.getItem('theme')") is None
    colour = "import('/ui/colour.js').then(({ colour }) => colour('--series-1'))"
    assert page.evaluate(colour) == "rgb(110, 168, 254)"


def test_a_word_is_explained_on_hover_and_focus(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "datasets")
    word = page.get_by_role("region", name="New here?").get_by_text("activations", exact=True)
    tip = page.get_by_role("tooltip")
    word.hover()
    expect(tip).to_have_text(re.compile("The vector of numbers"))
    page.keyboard.press("Escape")
    expect(tip).to_have_count(0)
    word.focus()
    expect(tip).to_be_visible()
    expect(word).to_have_accessible_description(re.compile("The vector of numbers"))
    page.keyboard.press("Tab")
    expect(tip).to_have_text(re.compile("One of an SAE's directions"))
    page.set_viewport_size(PHONE)
    page.keyboard.press("Tab")
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


# -- what is kept in memory --------------------------------------------------------------------------------------------


def test_a_session_that_holds_the_gpu_is_said_and_can_be_ended(studio: str, open_page: OpenPage) -> None:
    until(studio, training(studio), "done")
    page = open_page(studio, "models")
    bar = page.get_by_role("contentinfo")
    expect(bar).to_contain_text("Nothing runs")
    session = call(studio, "/api/session", {"model": "pico", "saes": ["stories-l3"]}, "POST")
    assert session["state"] == "ready"
    expect(bar).to_contain_text("pico with 1 SAE is kept in memory for steering")
    bar.get_by_role("button", name="End the session").click()
    expect(bar).to_contain_text("Nothing runs")
    assert call(studio, "/api/session")["session"] is None
