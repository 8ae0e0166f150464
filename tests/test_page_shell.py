"""What is around the panels of the page: keys, themes, explained words, and the bar that says what runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, PHONE, OpenPage, call, dataset, expect, serious, training, until
from studio import running

pytestmark = IN_A_BROWSER


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "data", "paced_worker.py") as url:
        yield url


# -- by keyboard alone -------------------------------------------------------------------------------------------------


def tab_to(page: Any, role: str, name: str) -> None:
    tab_until(page, page.get_by_role(role, name=name, exact=True).first, name)


def tab_until(page: Any, wanted: Any, name: str) -> None:
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
        keys.type(f"g{panel}")
        expect(page.get_by_role("heading", name={"m": "Models", "d": "Datasets"}[panel])).to_be_focused()
        keys.type("n")
        if panel == "d":
            expect(page.get_by_role("dialog").get_by_label("Where it comes from")).to_be_focused()
            keys.press("Shift+Tab")
            expect(page.get_by_role("radio", name="The Hub")).to_be_focused()
            keys.press("ArrowDown")  # to a file of the studio's machine
        tab_until(page, page.get_by_role("dialog").get_by_label("Where it comes from"), "where it comes from")
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
    expect(page.get_by_role("heading", name="Training")).to_be_focused()
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
    expect(heading).to_be_focused()
    keys.type("j")
    expect(page.get_by_role("main").get_by_role("link", name="stories", exact=True)).to_be_focused()
    keys.press("Enter")
    expect(heading).to_have_text("Add dataset stories")
    keys.press("Control+g")
    keys.type("m")
    expect(heading).to_have_text("Add dataset stories")
    keys.type("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next row")
    assert serious(page) == []
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


def test_in_the_list_of_features_each_key_does_one_thing_and_g_leads_out_of_it(
    made_studio: str, open_page: OpenPage
) -> None:
    page = open_page(made_studio, "datasets")
    keys = page.keyboard
    expect(page.get_by_role("table", name="Datasets")).to_be_visible()
    keys.type("gf")
    expect(page.get_by_role("grid").get_by_role("row").nth(5)).to_be_visible()
    own = "[...document.styleSheets].filter((one) => !one.disabled).map(({ href }) => href.split('/').at(-1))"
    assert page.evaluate(own) == ["tokens.css", "base.css", "shell.css", "ui.css", "features.css"]
    for at, key in enumerate("jjjk"):
        keys.type(key)
        expect(page).to_have_url(re.compile(rf"at={[0, 1, 2, 1][at]}$"))
    listed = call(made_studio, "/api/saes/pico-small/features?sort=-max&limit=4")["features"]
    keys.press("Enter")
    for key, row in (("", 1), ("]", 2), ("]", 3), ("[", 2)):
        keys.type(key)
        expect(page).to_have_url(re.compile(rf"/pico-small/{listed[row]['index']}\?"))
        expect(page.get_by_text(f"{row + 1} of 512 in the list")).to_be_visible()  # until then no key leads on
    page.get_by_role("link", name="All features").click()
    page.get_by_role("grid").focus()
    keys.type("gj")
    expect(page.get_by_role("heading", name="Jobs")).to_be_focused()
    page.goto(f"{made_studio}/#/jobs/abc")
    expect(page.get_by_role("alert")).to_have_text("Jobs have numbers, and this is none.")


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


def test_what_runs_is_said_in_every_panel_and_stopping_it_asks_when_much_would_be_lost(
    studio: str, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(studio, "models")
    bar = page.get_by_role("contentinfo")
    expect(bar).to_contain_text("Nothing runs")
    (tmp_path / "data" / "hold").write_text("train")
    job = training(studio)
    call(studio, "/api/jobs", {"spec": {"kind": "add_dataset", "source": "/x", "name": "later"}, "after": [job]})
    expect(bar).to_contain_text(re.compile(r"Train SAE stories-l3 train · [\d,]+ of 409,600 tokens · FVU 0\.\d{3} · "))
    expect(bar.get_by_role("link", name="1 waits")).to_be_visible()
    link = page.get_by_role("navigation").get_by_role("link", name="Training", exact=True)
    expect(link).to_have_accessible_description("a job runs")
    late = "(button) => import('/state.js').then(({ sample }) => {"
    late += " sample.value = { ...sample.value, at: new Date(Date.now() + 60_000).toISOString() }; button.click(); })"
    bar.get_by_role("button", name="Stop what runs").evaluate(late)
    sure = page.get_by_role("dialog", name=f"Stop job {job}, Train SAE stories-l3?")
    expect(sure).to_contain_text("its checkpoint is kept")
    sure.get_by_role("button", name="Stop").click()
    until(studio, job, "stopped")
    expect(sure).to_have_count(0)
    expect(link).not_to_have_accessible_description("a job runs")
    expect(bar).not_to_contain_text("stories-l3")
