"""The panel Features where something is amiss: addresses that name nothing, refusals, slow and double answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import IN_A_BROWSER, PHONE, OpenPage, call, expect, go_to, section, serious
from many_features import make_many
from studio import running

pytestmark = IN_A_BROWSER
FEATURES = "/api/saes/wide/features"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(make_many(tmp_path_factory.mktemp("odd") / "data", 300)) as url:
        yield url


def grid(page: Any) -> Any:
    return page.get_by_role("grid", name="Features")


def test_an_address_that_names_nothing_says_so_and_leads_out(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide/5/x")
    expect(page.get_by_text("wide has no feature x: features have numbers.")).to_be_visible()
    page.goto(f"{many}/#/features/wide?filter=foo")
    expect(page.get_by_text("there is no filter 'foo'")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.get_by_text("300 features", exact=True)).to_be_visible()
    page.goto(f"{many}/#/features/wide/5?at=x")
    expect(page.get_by_role("link", name="Next")).to_have_attribute("href", "#/features/wide/6")
    page.goto(f"{many}/#/features/wide?q=a&filter=token:b")  # nothing narrows the list unseen
    expect(page.get_by_role("list", name="Filters")).to_contain_text("fires on “b”")


def test_a_list_that_is_refused_keeps_what_is_typed_and_comes_again(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide")
    expect(page.get_by_text("300 features", exact=True)).to_be_visible()
    page.route("**/features?*", lambda route: route.fulfill(status=429, json={"error": {"code": "x", "message": "no"}}))
    search = page.get_by_role("searchbox", name="Search")
    search.fill("a word")
    expect(page.get_by_role("alert")).to_contain_text("no")
    expect(search).to_be_focused()
    expect(search).to_have_value("a word")
    search.fill("")
    page.unroute("**/features?*")
    page.get_by_role("button", name="Try again").click()
    expect(grid(page).get_by_role("row").nth(1).get_by_role("link")).to_have_text(re.compile(r"\d+"))
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_slow_answer_is_kept_once_and_takes_the_eye_nowhere(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide/5")
    said, marks = section(page, "Label"), section(page, "Your marks")
    marks.get_by_role("button", name="Write a note").click()
    marks.get_by_label("Note").fill("a note")
    said.get_by_role("button", name="Write one").click()
    label = said.get_by_role("textbox", name="Label")
    label.fill("one")
    call(many, f"{FEATURES}/7/label", {"text": "of another"}, "PUT")  # the page hears of it, and looks anew
    page.wait_for_timeout(500)
    expect(label).to_be_focused()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.route("**/5/label", lambda route: (page.wait_for_timeout(300), route.continue_()))
    said.get_by_role("button", name="Keep").dblclick()
    expect(said.get_by_role("button", name="Change")).to_be_focused()
    assert len(sent) == 1
    expect(marks.get_by_label("Note")).to_have_value("a note")
    page.route("**/features/5", lambda route: route.fulfill(status=429, json={"error": {"code": "x", "message": "no"}}))
    marks.get_by_label("Put into the list").fill("mine")
    marks.get_by_role("button", name="Add to list").click()
    expect(marks.get_by_role("alert")).to_have_text("no")
    expect(marks.get_by_label("Note")).to_have_value("a note")  # nothing typed is lost


def test_pages_of_places_are_shown_once_each(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide/5")
    place = {"row": 1, "window": 1, "texts": ["a"], "peak": 0, "value": 1.0}

    def answer(route: Any) -> None:
        first = 50 if "cursor=" in route.request.url else 0
        found = [place | {"position": n} for n in range(first, first + 50)]
        page.wait_for_timeout(200)
        route.fulfill(json={"occurrences": found, "total": 200, "next": "50-200"})

    page.route("**/occurrences?*", answer)
    places = section(page, "Every place")
    places.get_by_role("button", name="Find them").click()
    expect(places.get_by_role("listitem")).to_have_count(50)
    places.get_by_role("button", name="Show more").dblclick()
    expect(places.get_by_role("listitem")).to_have_count(100)
    page.unroute("**/occurrences?*")
    page.route("**/occurrences?*", lambda route: route.abort())
    places.get_by_role("button", name="Show more").click()
    expect(places.get_by_role("alert")).to_be_visible()
    expect(places.get_by_role("listitem")).to_have_count(100)


def test_style_sheets_of_other_panels_change_nothing(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide?filter=max>0")
    chosen = page.get_by_role("list", name="Filters")
    expect(grid(page).get_by_role("row").nth(1).get_by_role("link")).to_be_visible()
    before = chosen.bounding_box()
    for panel in ("Steering", "Datasets", "Training"):
        go_to(page, panel)
    page.goto(f"{many}/#/features/wide?filter=max>0")
    expect(grid(page).get_by_role("row").nth(1).get_by_role("link")).to_be_visible()
    assert chosen.bounding_box() == before


def test_anybody_can_read_it_and_a_phone_shows_features_at_once(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide", color_scheme="light")
    for place in ("", "/5", "/5/6"):
        page.goto(f"{many}/#/features/wide{place}")
        expect(page.get_by_role("heading", level=2)).to_contain_text("Feature")
        page.wait_for_load_state("networkidle")
        assert serious(page) == []
    page = open_page(many, "features/wide", viewport=PHONE)
    expect(grid(page).get_by_role("row").nth(1)).to_be_in_viewport()
    expect(page.get_by_role("combobox", name="Order")).to_be_hidden()
    page.get_by_text("More filters").click()
    expect(page.get_by_role("combobox", name="Order")).to_be_visible()
