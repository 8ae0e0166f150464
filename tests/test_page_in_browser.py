"""The web page in Chromium, before a real daemon: what a person sees, and that it is true."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import (
    HOOK,
    IN_A_BROWSER,
    WEB,
    OpenPage,
    call,
    dataset,
    expect,
    go_to,
    known,
    known_artifacts,
    row,
    section,
    training,
    until,
)
from paced_worker import MARKUP
from studio import end, running, started

pytestmark = IN_A_BROWSER


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "data", "paced_worker.py") as url:
        yield url


# -- what is there ---------------------------------------------------------------------------------------------------


def test_an_empty_studio_says_how_to_begin(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    expect(section(page, "Running")).to_contain_text("Nothing has run yet")
    expect(section(page, "Running").get_by_text("mistudio demo", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="Waiting")).to_have_count(0)
    expect(section(page, "The studio's machine")).to_contain_text(re.compile(r"CPU\d+%"))
    assert page.title() == "miStudio"


def test_a_training_is_followed_from_queued_to_done(studio: str, open_page: OpenPage, tmp_path: Path) -> None:
    page, hold = open_page(studio), tmp_path / "data" / "hold"
    expect(section(page, "Running")).to_contain_text("Nothing has run yet")
    hold.write_text("add_dataset")
    job = training(studio)
    expect(row(page, "Waiting", "Train SAE stories-l3")).to_contain_text("Queued behind job")
    hold.write_text("train")
    card = section(page, "Running").get_by_role("article", name="Train SAE stories-l3")
    expect(card).to_contain_text(re.compile(r"train [\d,]+ of 409,600 tokens · 25,000 tokens/s"))
    expect(card.get_by_role("progressbar")).to_have_attribute("value", re.compile(r"0\.\d"))
    expect(card).to_contain_text(re.compile(r"FVU\s*0\.\d{3}"))
    expect(page).to_have_title(re.compile(r"^[\d.]+% · Train SAE stories-l3 · miStudio"))
    hold.unlink()
    ended = until(studio, job, "done")
    expect(row(page, "Ended", "Train SAE stories-l3")).to_contain_text(
        f"FVU {ended['result']['fvu']:.3f} at L0 {ended['result']['l0']:.1f}"
    )
    expect(section(page, "Running")).to_contain_text("Nothing is running")
    go_to(page, "SAEs")
    cells = page.get_by_role("table", name="SAEs").get_by_role("row").nth(1).get_by_role("cell")
    expect(cells).to_have_text(
        [
            *("stories-l3", f"pico {HOOK}", "2,048 k 32", "31.0", "0.065", "—", "13%"),
            *(re.compile(text) for text in (r"not certified\s+not evaluated", "none yet|—", "trained here")),
            "Delete",
        ]
    )
    assert page.title() == "miStudio"


def test_what_is_told_aloud_is_each_state_once(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    expect(section(page, "Running")).to_contain_text("Nothing has run yet")
    page.evaluate(
        "() => { window.told = []; new MutationObserver(() => told.push(said.textContent))"
        ".observe(said, { childList: true, characterData: true, subtree: true }); }"
    )
    until(studio, training(studio), "done")
    expect(page.locator("#said")).to_have_text("Train SAE stories-l3: done.")
    told = " ".join(page.evaluate("told"))
    assert re.findall(r"Train SAE stories-l3: (\w+)", told) == ["queued", "running", "done"]


def test_what_went_wrong_comes_first_and_is_text_whatever_it_holds(studio: str, open_page: OpenPage) -> None:
    source = "/text/<img src=x onerror=\"document.title='owned'\">"
    until(studio, dataset(studio, "markup", source), "failed")
    until(studio, dataset(studio, "good"), "done")
    page = open_page(studio)
    first = section(page, "Ended").get_by_role("listitem").first
    expect(first).to_contain_text("Add dataset markup")
    expect(first).to_contain_text("Failed after")
    expect(first).to_contain_text(MARKUP)
    expect(first).to_contain_text(source)
    assert page.locator("#studio :is(img:not([src='/icon.svg']), main b)").count() == 0
    assert page.title() == "miStudio"


# -- what can be done ------------------------------------------------------------------------------------------------


def test_a_job_is_paused_resumed_stopped_and_tried_again_from_the_page(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    job = dataset(studio, "slow")
    card = section(page, "Running").get_by_role("article", name="Add dataset slow")
    expect(card).to_contain_text("1 of 2")
    page.get_by_role("button", name=f"Pause job {job}").click()
    expect(row(page, "Waiting", "slow")).to_contain_text("Paused at 50%")
    page.get_by_role("button", name=f"Resume job {job}").click()
    expect(card).to_contain_text("1 of 2")
    page.get_by_role("button", name=f"Stop job {job}").click()
    expect(row(page, "Ended", "slow")).to_contain_text("Stopped after")
    assert call(studio, f"/api/jobs/{job}")["state"] == "stopped"
    page.get_by_role("button", name=f"Try again job {job}").press("Enter")
    expect(card).to_be_visible()
    page.get_by_role("button", name=f"Stop job {job}").click()
    expect(row(page, "Ended", "slow")).to_contain_text("Stopped after")


def test_a_refusal_is_shown_at_its_job_until_something_happens_to_it(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    job = dataset(studio, "slow")
    refusal = {"error": {"code": "conflict", "message": "job 1 is <b>busy</b>"}}
    page.route("**/stop", lambda route: route.fulfill(status=409, json=refusal))
    page.get_by_role("button", name=f"Stop job {job}").click()
    expect(page.get_by_role("alert")).to_have_text("job 1 is <b>busy</b>")
    page.unroute("**/stop")
    page.get_by_role("button", name=f"Stop job {job}").click()
    expect(row(page, "Ended", "slow")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


# -- the line to the studio ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_two_pages_and_the_command_line_agree_after_a_restart_to_the_last_number(
    tmp_path: Path, open_page: OpenPage, how: signal.Signals
) -> None:
    daemon, url = started(tmp_path / "data", "paced_worker.py")
    hold = tmp_path / "data" / "hold"
    hold.write_text("train")
    try:
        first, second = open_page(url), open_page(url, viewport={"width": 390, "height": 844}, color_scheme="light")
        job = training(url)
        cli = subprocess.Popen(
            [sys.executable, "-m", "mistudio.cli", "-H", url, "--json", "job", "watch", str(job)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(WEB.parent / "client")},
        )  # fmt: skip
        for page in (first, second):
            expect(section(page, "Running")).to_contain_text("FVU")
        listened_to(url, 3)  # else the command may find nobody there
        end(daemon, how)
        for page in (first, second):
            expect(page.get_by_text("No connection to the studio since")).to_be_visible()
            expect(page.get_by_role("button", name=f"Stop job {job}")).to_be_disabled()
        hold.unlink()
        daemon, _ = started(tmp_path / "data", "paced_worker.py", int(url.rpartition(":")[2]))
        for page in (first, second):
            expect(page.get_by_text("No connection to the studio since")).to_have_count(0)
            expect(row(page, "Ended", "Train SAE stories-l3")).to_contain_text("Done in")
        ended, saes = call(url, f"/api/jobs/{job}"), call(url, "/api/saes")["saes"]
        assert ended["attempts"] == 2
        assert json.loads(cli.communicate(timeout=30)[0]) == ended
        for page in (first, second):
            assert dict(known(page, "jobs"))[job] == ended
            assert [{**sae, "noun": "sae"} for _, sae in known_artifacts(page, "sae")] == [
                {**sae, "noun": "sae"} for sae in saes
            ]
        shown = [
            row(page, "Ended", "Train SAE stories-l3").locator(".outcome").inner_text() for page in (first, second)
        ]
        assert shown[0] == shown[1]
    finally:
        end(daemon, signal.SIGTERM)


def listened_to(url: str, streams: int) -> None:
    """Wait until so many hear its events."""
    for _ in range(600):
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            if f"\nmistudio_event_streams {streams}" in answer.read().decode():
                return
        time.sleep(0.05)
    raise AssertionError(f"there are no {streams} streams of events")


def test_a_page_that_was_open_shows_another_studio_that_took_the_others_place(
    tmp_path: Path, open_page: OpenPage
) -> None:
    with running(tmp_path / "one") as url:
        page = open_page(url)
        until(url, dataset(url, "old"), "done")
        expect(row(page, "Ended", "old")).to_be_visible()
    expect(page.get_by_text("No connection")).to_be_visible()
    with running(tmp_path / "two", port=int(url.rpartition(":")[2])):
        expect(section(page, "Running")).to_contain_text("Nothing has run yet")
        until(url, dataset(url, "new"), "done")
        expect(row(page, "Ended", "new")).to_be_visible()
        expect(row(page, "Ended", "old")).to_have_count(0)


def test_a_stream_that_is_refused_is_asked_for_again_and_the_studios_reason_shown(
    studio: str, open_page: OpenPage
) -> None:
    page = open_page(studio)
    expect(section(page, "Running")).to_be_visible()
    refusal = {"error": {"code": "too_many", "message": "too many streams are open"}}
    page.route("**/api/**", lambda route: route.fulfill(status=429, json=refusal))
    page.evaluate("import('/events.js').then(({ open }) => open())")
    expect(page.get_by_text("It says: too many streams are open.")).to_be_visible()
    page.unroute("**/api/**")
    expect(page.get_by_text("No connection")).to_have_count(0)
    until(studio, dataset(studio, "later"), "done")
    expect(row(page, "Ended", "later")).to_be_visible()


def test_a_hidden_page_lets_the_line_go_and_is_right_when_it_is_seen_again(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    expect(section(page, "Running")).to_be_visible()
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    until(studio, dataset(studio, "unseen"), "done")
    page.wait_for_timeout(300)
    assert known(page, "jobs") == []
    page.evaluate(hide, False)
    expect(row(page, "Ended", "unseen")).to_contain_text("Done in")
    expect(page.get_by_text("No connection")).to_have_count(0)


def test_a_queue_longer_than_a_page_of_jobs_is_shown_whole(studio: str, open_page: OpenPage) -> None:
    first = dataset(studio, "slow")
    until(studio, first, "running")
    for n in range(105):
        call(studio, "/api/jobs", {"spec": {"kind": "add_dataset", "source": "/x", "name": f"n{n}"}, "after": [first]})
    page = open_page(studio)
    expect(section(page, "Running").get_by_role("article", name="Add dataset slow")).to_be_visible()
    expect(section(page, "Waiting").get_by_role("heading")).to_have_text("Waiting 105")
    page.get_by_role("link", name="n104", exact=True).click()  # far down in the list
    expect(page.get_by_role("heading", name="Add dataset n104")).to_be_visible()
    assert page.evaluate("scrollY") == 0


# -- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone_nothing_sticks_out_and_buttons_are_large_enough(
    studio: str, open_page: OpenPage, scheme: str
) -> None:
    until(studio, training(studio, "a-very-long-name-of-an-autoencoder-that-somebody-has-chosen"), "done")
    until(studio, dataset(studio, "markup", "/text/" + "a" * 300), "failed")
    dataset(studio, "slow")
    page = open_page(studio, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    expect(section(page, "Running").get_by_role("article")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert min(box["height"] for box in (b.bounding_box() for b in page.get_by_role("button").all()) if box) >= 40
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
    assert light == (scheme == "light")


def test_the_keyboard_reaches_every_button_and_shows_where_it_is(studio: str, open_page: OpenPage) -> None:
    until(studio, dataset(studio, "markup"), "failed")
    job = dataset(studio, "slow")
    page = open_page(studio, color_scheme="light")
    for name in (f"Pause job {job}", f"Stop job {job}", f"Try again job {job - 1}"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    for role, name in (
        ("link", "slow"),
        ("button", f"Pause job {job}"),
        ("button", f"Stop job {job}"),
        ("link", "markup"),
        ("button", f"Open log of job {job - 1}"),
        ("button", f"Try again job {job - 1}"),
    ):
        page.keyboard.press("Tab")
        button = page.get_by_role("main").get_by_role(role, name=name)
        expect(button).to_be_focused()
        assert button.evaluate("(b) => getComputedStyle(b).outline") == "rgb(11, 95, 208) solid 2px"


def test_the_page_has_its_landmarks_and_each_panel_its_heading(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio)
    expect(section(page, "Running")).to_be_visible()
    expect(page.get_by_role("banner").get_by_role("heading", level=1)).to_have_text("miStudio")
    expect(page.get_by_role("contentinfo")).to_contain_text("Nothing runs")
    for panel in ("Datasets", "Models", "SAEs", "Training", "Features", "Steering", "System"):
        go_to(page, panel)
        expect(page.get_by_role("main").get_by_role("heading", level=2)).to_have_count(1)
        expect(page.get_by_role("main").get_by_role("heading", level=2)).to_be_focused()
        page.reload()
        expect(page.get_by_role("main").get_by_role("heading", level=2)).to_contain_text(panel)


# -- panels ----------------------------------------------------------------------------------------------------------


def test_a_model_a_dataset_and_its_tokens_are_made_by_mouse(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "models")
    page.get_by_role("button", name="Add model").click()
    page.get_by_label("Where it comes from").fill("/models/pico")
    expect(page.get_by_label("What to call it")).to_have_value("pico")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    expect(page.get_by_role("table", name="Models")).to_contain_text("pico")
    go_to(page, "Datasets")
    page.get_by_role("button", name="Add dataset").click()
    page.get_by_label("Where it comes from").fill("/text/stories.jsonl")
    expect(page.get_by_label("What to call it")).to_have_value("stories")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    page.get_by_role("button", name="Tokenize stories").click()
    expect(page.get_by_label("What to call it")).to_have_value("stories-pico")
    page.get_by_role("dialog").get_by_role("button", name="Tokenize").click()
    expect(page.get_by_role("table", name="Tokenizations")).to_contain_text("stories-pico")
    spec = next(job["spec"] for job in call(studio, "/api/jobs")["jobs"] if job["kind"] == "tokenize")
    assert (spec["dataset"], spec["model"], spec["context"]) == ("stories", "pico", 128)


def test_what_is_wrong_with_a_field_stands_at_the_field_and_what_was_typed_stays(
    studio: str, open_page: OpenPage
) -> None:
    page = open_page(studio, "datasets")
    page.get_by_role("button", name="Add dataset").click()
    page.get_by_label("Where it comes from").fill("/text/stories.jsonl")
    page.get_by_label("What to call it").fill("no/name")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("must be 1 to 64 letters")
    expect(page.get_by_label("What to call it")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Where it comes from")).to_have_value("/text/stories.jsonl")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert call(studio, "/api/jobs")["jobs"] == []


def test_deleting_asks_first_says_what_goes_and_shows_a_refusal(studio: str, open_page: OpenPage) -> None:
    until(studio, training(studio), "done")
    page = open_page(studio, "models")
    page.get_by_role("button", name="Delete the model pico").click()
    expect(page.get_by_role("dialog")).to_contain_text("What was made with it has to go first")
    page.get_by_role("button", name="Keep").click()
    assert [one["name"] for one in call(studio, "/api/models")["models"]] == ["pico"]
    go_to(page, "SAEs")
    page.get_by_role("button", name="Delete the SAE stories-l3").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No SAE is here yet")).to_be_visible()
    assert call(studio, "/api/saes")["saes"] == []


def test_a_first_visit_goes_the_whole_way_with_one_click(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "")
    page.get_by_role("button", name="Try it on the bundled model").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(row(page, "Ended", "Train SAE pico-demo")).to_be_visible()
    kinds = [job["kind"] for job in reversed(call(studio, "/api/jobs")["jobs"])]
    assert kinds == ["add_model", "add_dataset", "tokenize", "train", "extract", "label", "score"]
    go_to(page, "Datasets")
    expect(page.get_by_role("button", name="Try it on the bundled model")).to_have_count(0)


def test_a_training_is_opened_and_its_charts_say_what_the_studio_measured(studio: str, open_page: OpenPage) -> None:
    job = training(studio)
    until(studio, job, "done")
    page = open_page(studio, f"training/{job}")
    chart = page.get_by_role("figure", name="FVU")
    chart.get_by_text("Show data").click()
    metrics = call(studio, f"/api/jobs/{job}/metrics")["metrics"]
    newest = [one for one in metrics if "fvu" in one["values"]][-1]
    expect(chart.get_by_role("row").last).to_have_text(f"{newest['step']}{newest['values']['fvu']:.3f}")
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_role("status")).to_contain_text("does the same, as stories-l3-2")


def test_the_first_load_is_light_and_asks_for_little(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "")
    expect(page.get_by_role("heading", name="Datasets")).to_be_visible()
    loads = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".map((one) => [one.name, one.transferSize])"
    )
    files = [(name, size) for name, size in loads if "/api/" not in name]
    assert len(files) <= 45, [name for name, _ in files]
    assert sum(size for _, size in files) <= 100 * 1000


def test_features_can_be_extracted_where_there_are_none_and_not_where_the_studio_failed(
    studio: str, open_page: OpenPage
) -> None:
    until(studio, training(studio), "done")
    page = open_page(studio, "features/stories-l3")
    extract = page.get_by_role("button", name="Extract the features of stories-l3")
    expect(extract).to_be_visible()
    failure = {"error": {"code": "conflict", "message": "the disk does not answer"}}
    page.route("**/features?*", lambda route: route.fulfill(status=429, json=failure))
    page.reload()
    expect(page.get_by_text("the disk does not answer")).to_be_visible()
    expect(extract).to_have_count(0)
