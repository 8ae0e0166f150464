"""The panel Features in Chromium: the list of very many, a feature, a text, labels that come while one looks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, OpenPage, call, expect, section, submit, until
from made_data import SAE
from many_features import WIDTH, make_many
from openai_server import OpenAIServer, error, label, served_openai  # noqa: F401, the fixture openai_server
from studio import running

pytestmark = IN_A_BROWSER
FEATURES = f"/api/saes/{SAE}/features"
LOADS_MS = 90_000  # a model and an SAE into memory, on a machine that has other work too
LABELS_FROM = 3  # more questions than this are answered


def grid(page: Any) -> Any:
    return page.get_by_role("grid", name="Features")


def indices(page: Any) -> list[int]:
    """Numbers of the features that are drawn, from the top."""
    rows = grid(page).get_by_role("row").all()
    found = [(int(row.get_attribute("aria-rowindex") or 0), row.get_by_role("link")) for row in rows[1:]]
    return [int(link.inner_text()) for _, link in sorted(found, key=lambda one: one[0]) if link.count()]


def ended(url: str, kind: str) -> Any:
    """The newest job of a kind, once it is done."""
    newest = next(job for job in call(url, "/api/jobs")["jobs"] if job["kind"] == kind)
    return until(url, newest["id"], "done")


def active(page: Any) -> Any:
    return grid(page).get_by_role("row", selected=True)


# -- the list --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(make_many(tmp_path_factory.mktemp("many") / "data")) as url:
        yield url


def test_131072_features_are_scrolled_with_few_rows_and_few_pages_at_hand(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/features?" in request.url else None)
    expect(page.get_by_text("131,072 features", exact=True)).to_be_visible()
    expect(grid(page)).to_have_attribute("aria-rowcount", str(WIDTH + 1))
    expected = call(many, "/api/saes/wide/features?sort=-max&limit=5")["features"]
    expect(grid(page).get_by_role("row").nth(5).get_by_role("link")).to_be_visible()
    assert indices(page)[:5] == [one["index"] for one in expected]
    box = grid(page).bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    for _ in range(20):
        page.mouse.wheel(0, 500)
    for part in range(1, 61):  # the bar is dragged to many places
        page.evaluate("(part) => { const grid = document.querySelector('[role=grid]');"
                      " grid.scrollTop = grid.scrollHeight * part; }", part / 61)  # fmt: skip
        if part % 2:
            page.wait_for_timeout(100)
        assert grid(page).get_by_role("row").count() < 60
    seen = len(asked)
    assert seen < 200  # three pages at most of each place where the eye may have rested: all of it is 2,622
    grid(page).focus()
    page.keyboard.press("End")
    last = call(many, f"/api/saes/wide/features?sort=-max&limit=1&cursor={WIDTH - 1}")["features"][0]
    expect(active(page)).to_contain_text(str(last["index"]))
    expect(active(page)).to_have_attribute("aria-rowindex", str(WIDTH + 1))
    page.keyboard.press("Home")
    expect(active(page)).to_contain_text(str(expected[0]["index"]))
    assert any("cursor=0" in url for url in asked[seen:])  # it was not kept all the while
    for _ in range(4):
        page.keyboard.press("j")
    expect(active(page)).to_contain_text(str(expected[4]["index"]))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Feature {expected[4]['index']} of wide")).to_be_visible()
    expect(page.get_by_text("5 of 131,072 in the list")).to_be_visible()


def test_a_list_that_is_dragged_on_asks_for_nothing_that_went_by(many: str, open_page: OpenPage) -> None:
    page = open_page(many, "features/wide?sort=index")
    expect(grid(page).get_by_role("row").nth(3)).to_contain_text("2")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/features?" in request.url else None)
    page.evaluate("""() => {  // at one go, so that a slow machine does not let it rest between
      const grid = document.querySelector("[role=grid]");
      for (let n = 1; n <= 60; n++) {
        grid.scrollTop = 36 * 1000 * n;
        grid.dispatchEvent(new Event("scroll"));
      }
    }""")
    expect(grid(page).get_by_role("link", name="60000", exact=True)).to_be_visible()
    assert len(asked) <= 8
    number = page.get_by_role("spinbutton", name="Number")
    number.fill("131071")
    number.press("Enter")
    expect(page.get_by_role("heading", name="Feature 131071 of wide")).to_be_visible()
    page.go_back()
    expect(grid(page).get_by_role("link", name="60000", exact=True)).to_be_visible()  # as it was left


def test_the_list_is_narrowed_and_sorted_as_the_studio_does_it(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, f"features/{SAE}")
    expect(page.get_by_text("512 features", exact=True)).to_be_visible()
    page.get_by_role("columnheader", name="Fires on").get_by_role("button").click()
    expect(page.get_by_role("columnheader", name="Fires on")).to_have_attribute("aria-sort", "descending")
    page.get_by_text("More filters").click()
    page.get_by_role("group", name="Fires on").get_by_role("spinbutton", name="less than").fill("1")
    page.keyboard.press("Tab")
    page.get_by_role("combobox", name="Show", exact=True).select_option("alive")
    expect(page.get_by_role("list", name="Filters")).to_contain_text("fires on less than 1.0%")
    found = call(made_studio, f"{FEATURES}?sort=-density&filter=alive%20density%3C0.01&limit=5")
    expect(page.get_by_text(f"{found['total']} of 512 features")).to_be_visible()
    expect(grid(page)).to_have_attribute("aria-rowcount", str(found["total"] + 1))
    expect(grid(page).get_by_role("row").nth(1)).to_contain_text(found["features"][0]["label"]["text"])
    assert indices(page)[:5] == [one["index"] for one in found["features"]]
    page.reload()  # all of it stands in the address
    expect(page.get_by_text(f"{found['total']} of 512 features")).to_be_visible()
    page.get_by_role("searchbox", name="Search").fill("zzz nothing")
    expect(page.get_by_text("No feature is whose label has “zzz nothing”, and alive")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("512 features", exact=True)).to_be_visible()
    page.get_by_role("combobox", name="Search in").select_option("tokens")
    page.get_by_role("searchbox", name="Search").fill("import")
    total = call(made_studio, f'{FEATURES}?filter=token:"import"')["total"]
    expect(page.get_by_text(f"{total} of 512 features")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export (JSON lines)").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 512


# -- a feature -------------------------------------------------------------------------------------------------------


def test_a_feature_says_of_itself_what_the_studio_knows(made_studio: str, open_page: OpenPage) -> None:
    listed = call(made_studio, f"{FEATURES}?sort=-typical&limit=3")["features"]
    index = listed[1]["index"]
    found = call(made_studio, f"{FEATURES}/{index}")
    page = open_page(made_studio, f"features/{SAE}/{index}?sort=-typical&at=1")
    does = section(page, "What it does")
    expect(does).to_contain_text(f"Times{found['fired']:,}")
    expect(does).to_contain_text(f"Max{found['max']:.2f}")
    for name, end in (("Promotes", "top"), ("Suppresses", "bottom")):
        values = [f"{one['value']:.2f}" for one in found["logits"][end][:10]]
        shown = does.get_by_role("list", name=name).get_by_role("listitem")
        assert [text.split("\n")[-1] for text in shown.all_inner_texts()] == values
    top = found["examples"][0]
    example = section(page, "Strongest").get_by_role("listitem").first
    expect(example).to_contain_text(f"{top['max']:.2f}")
    peak = example.locator("[tabindex='0']")  # the one Tab stop of a text
    expect(peak).to_have_text(re.sub(r" *\n[ \n]*", " ↵ ", top["texts"][top["peak"]]))
    peak.focus()
    assert (
        peak.evaluate("(one) => getComputedStyle(one, '::after').content") == f'"{top["activations"][top["peak"]]:.2f}"'
    )
    example.get_by_role("button", name="Whole").click()
    whole = call(made_studio, f"{FEATURES}/{index}/windows/{top['row']}")
    expect(example.get_by_role("button", name="Less")).to_be_visible()
    page.get_by_label("Line breaks").check()
    expect(example.get_by_role("paragraph").first).to_have_text(
        "".join(whole["texts"]).replace("\n", "↵\n"), use_inner_text=True
    )
    page.get_by_role("button", name="Find them").click()
    expect(section(page, "Every place")).to_contain_text(f"{found['fired']:,} places, in the order of the text")
    page.keyboard.press("]")
    expect(page.get_by_role("heading", name=f"Feature {listed[2]['index']} of {SAE}")).to_be_visible()
    expect(page.get_by_text("3 of 512 in the list")).to_be_visible()
    page.keyboard.press("[")
    page.keyboard.press("[")
    expect(page.get_by_role("heading", name=f"Feature {listed[0]['index']} of {SAE}")).to_be_visible()
    other = call(made_studio, f"{FEATURES}/{listed[0]['index']}")["neighbours"]["decoder"][0]
    page.get_by_role("link", name=f"Compare with {other['index']}").first.click()
    expect(page.get_by_text(f"The cosine of their directions is {other['cosine']:.3f}.")).to_be_visible()


def test_a_label_is_changed_taken_back_marked_and_put_into_a_list(made_studio: str, open_page: OpenPage) -> None:
    index = call(made_studio, f"{FEATURES}?sort=-typical&limit=1")["features"][0]["index"]
    at = f"{FEATURES}/{index}"
    first = call(made_studio, at)["label"]
    page = open_page(made_studio, f"features/{SAE}/{index}")
    said = section(page, "Label")
    expect(said).to_contain_text("by its tokens")
    said.get_by_role("button", name="Change").click()
    said.get_by_label("Label", exact=True).fill("<b>mine</b>")
    page.route("**/label", lambda route: route.fulfill(status=429, json={"error": {"code": "x", "message": "not now"}}))
    said.get_by_role("button", name="Keep").click()
    expect(said.get_by_role("alert")).to_have_text("not now")
    expect(said.get_by_label("Label", exact=True)).to_have_value("<b>mine</b>")  # nothing typed is lost
    page.unroute("**/label")
    said.get_by_label("Label", exact=True).press("Enter")
    expect(said).to_contain_text("<b>mine</b>")
    expect(said).to_contain_text("by a person")
    assert call(made_studio, at)["label"]["text"] == "<b>mine</b>"
    said.get_by_text("Another label").click()
    said.get_by_role("button", name="Take instead").click()
    expect(said).to_contain_text("accepted")
    assert call(made_studio, at)["label"]["id"] == first["id"]
    marks = section(page, "Your marks")
    marks.get_by_role("button", name="Star").click()
    expect(marks.get_by_role("button", name="Starred")).to_have_attribute("aria-pressed", "true")
    marks.get_by_role("button", name="Write a note").click()
    marks.get_by_label("Note").fill("look again")
    marks.get_by_role("button", name="Keep").click()
    marks.get_by_label("Put into the list").fill("two words")
    marks.get_by_role("button", name="Add to list").click()
    expect(marks.get_by_role("link", name="two-words")).to_be_visible()
    assert call(made_studio, at)["marks"] == {"starred": True, "note": "look again", "lists": ["two-words"]}
    marks.get_by_role("link", name="two-words").click()
    expect(page.get_by_text("1 of 512 features")).to_be_visible()
    expect(grid(page).get_by_role("row").nth(1).get_by_role("link")).to_be_visible()
    assert indices(page) == [index]


def test_a_text_is_read_across_all_features_and_shades_each_of_them(made_studio: str, open_page: OpenPage) -> None:
    text = "def read(path):\n    return open(path)"
    page = open_page(made_studio, f"features/{SAE}/inspect")
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Inspect").click()
    expect(page.get_by_role("group", name="Tokens of the text")).to_be_visible(timeout=LOADS_MS)
    found = ended(made_studio, "inspect")["result"]
    strongest = section(page, "Strongest features of the text").get_by_role("listitem")
    expect(strongest.first).to_contain_text(f"{found['pooled'][0]['max']:.2f}")
    expect(strongest.first.get_by_role("link")).to_have_attribute(
        "aria-label", f"Open feature {found['pooled'][0]['index']}"
    )
    n = next(n for n, one in enumerate(found["tokens"]) if one["text"] == " return")
    page.get_by_role("group", name="Tokens of the text").get_by_role("button", name="return").click()
    on = section(page, "Features on ␣return").get_by_role("listitem")
    expect(on).to_have_count(min(len(found["tokens"][n]["features"]), 30))
    best = found["tokens"][n]["features"][0]
    expect(on.first).to_contain_text(f"{best['value']:.2f}")
    on.first.get_by_role("button", name=f"Shade by {best['index']}").click()
    expect(page.get_by_role("button", name="return").first).to_have_attribute("data-value", f"{best['value']:.2f}")
    on.first.get_by_role("link").click()
    tried = section(page, "Try your own text")
    expect(tried.get_by_role("list", name="Your texts")).to_contain_text(f"{best['value']:.2f}")


def test_a_text_waits_its_turn_while_a_job_has_the_gpu(made_studio: str, open_page: OpenPage) -> None:
    job = submit(made_studio, kind="extract", sae=SAE, tokens=400_000)
    until(made_studio, job, "running")
    page = open_page(made_studio, f"features/{SAE}/inspect")
    page.get_by_label("Text", exact=True).fill("import os")
    page.get_by_role("button", name="Inspect").click()
    expect(page.get_by_role("alert")).to_contain_text(f"job {job} (extract {SAE}")
    page.get_by_role("button", name="Read it when the GPU is free").click()
    expect(page.get_by_text("reads it when the GPU is free")).to_be_visible()
    call(made_studio, f"/api/jobs/{job}/stop", {})
    expect(section(page, "Strongest features of the text").get_by_role("listitem").first).to_be_visible(
        timeout=LOADS_MS
    )


# -- labels and scores -----------------------------------------------------------------------------------------------


@pytest.fixture
def asking_studio(made_data: Path, tmp_path: Path, openai_server: OpenAIServer) -> Iterator[str]:
    """A studio that may ask the stand-in for an LLM, and whose features have no labels but those of tokens."""
    data = Path(shutil.copytree(made_data, tmp_path / "data"))
    with running(data, "real_worker.py", endpoints=f"ours={openai_server.url}") as url:
        yield url


def test_labels_come_into_the_list_while_one_looks_and_what_failed_is_tried_again(
    asking_studio: str, openai_server: OpenAIServer, open_page: OpenPage
) -> None:
    openai_server.always = lambda body: (
        label("closes a bracket") if len(openai_server.seen) > LABELS_FROM else error(400, "too long")
    )
    page = open_page(asking_studio, f"features/{SAE}?sort=-typical")
    page.get_by_role("button", name="Label features").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Who is asked").select_option("ours")
    dialog.get_by_label("Model").fill("m")
    dialog.get_by_label("Which features").select_option("top")
    dialog.get_by_label("How many").fill("20")
    spec = {"kind": "label", "sae": SAE, "endpoint": "ours", "model": "m", "top": 20}
    takes = call(asking_studio, f"/api/saes/{SAE}/labels/estimate", {"spec": spec})
    expect(dialog.get_by_role("status", name="What it takes")).to_contain_text(
        f"20 features to do · 20 questions · about {takes['prompt_tokens'] + takes['answer_tokens']:,} tokens"
    )
    expect(dialog.get_by_role("status", name="What it takes")).to_contain_text("it costs nothing")
    dialog.get_by_text("See the very question").click()
    strongest = call(asking_studio, f"{FEATURES}?sort=-typical&limit=1")["features"][0]["index"]
    question = call(asking_studio, f"{FEATURES}/{strongest}/prompt")["messages"][-1]["content"]
    expect(dialog.get_by_label("Message of the user").last).to_have_text(question, use_inner_text=True)
    dialog.get_by_role("button", name="Label", exact=True).click()
    expect(grid(page).get_by_role("row").filter(has_text="closes a bracket").first).to_be_visible()
    wrong = section(page, "At work on these features")
    expect(wrong).to_contain_text("Labels features: only partly done")
    expect(wrong).to_contain_text("too long")
    wrong.get_by_role("button", name="Show the failed ones").click()
    expect(page.get_by_text(f"{LABELS_FROM} of 512 features")).to_be_visible()
    expect(page.get_by_role("list", name="Why labels failed")).to_contain_text(f"{LABELS_FROM}: ")
    expect(page.get_by_role("list", name="Why labels failed")).to_contain_text("too long")
    page.get_by_role("button", name="Try these again").click()
    expect(page.get_by_text("No feature is whose label failed.")).to_be_visible()
    assert call(asking_studio, f"{FEATURES}?filter=provider:ours")["total"] == 20
    expect(wrong).to_have_count(0)


def test_scores_are_asked_for_with_their_price_and_stand_at_the_label(asking_studio: str, open_page: OpenPage) -> None:
    page = open_page(asking_studio, f"features/{SAE}?sort=-typical")
    page.get_by_role("button", name="Score labels").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Which features").select_option("top")
    dialog.get_by_label("How many").fill("5")
    expect(dialog.get_by_role("status", name="What it takes")).to_contain_text("5 features to do")
    dialog.get_by_label("Detection: a judge").check()
    expect(dialog.get_by_role("status", name="What it takes")).to_contain_text("Name the model")
    dialog.get_by_label("Detection: a judge").uncheck()
    dialog.get_by_role("button", name="Score", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    first = call(asking_studio, f"{FEATURES}?sort=-typical&limit=1")["features"][0]["index"]
    job = ended(asking_studio, "score")
    score = float(call(asking_studio, f"{FEATURES}?filter=index:{first}")["features"][0]["score"])
    assert job["spec"]["methods"] == ["tokens"]
    expect(grid(page).get_by_role("row").nth(1)).to_contain_text(f"{score:.2f}")
    grid(page).get_by_role("link", name=str(first), exact=True).click()
    expect(page.get_by_role("table", name="Scores").get_by_role("row").nth(1)).to_contain_text(f"{score:.2f}")


def test_features_are_extracted_by_mouse_where_there_are_none(made_studio: str, open_page: OpenPage) -> None:
    call(made_studio, f"/api/saes/{SAE}/rename", {"name": "renamed"})
    page = open_page(made_studio, "features/renamed")
    page.get_by_role("button", name="Extract again").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Tokens to read").fill("20000")
    expect(dialog.get_by_role("status")).to_contain_text("as fast as the last one went")
    dialog.get_by_role("button", name="Extract", exact=True).click()
    expect(section(page, "At work on these features")).to_contain_text("Extracts features")
    expect(section(page, "At work on these features")).to_have_count(0, timeout=LOADS_MS)
    job = ended(made_studio, "extract")
    assert (job["kind"], job["state"], job["spec"]["tokens"]) == ("extract", "done", 20_000)
    newest = call(made_studio, "/api/saes/renamed/features?sort=-max&limit=1")
    assert newest["extraction"] == str(job["id"])
    expect(grid(page).get_by_role("row").nth(1)).to_contain_text(str(newest["features"][0]["index"]))


@pytest.mark.parametrize("place", ["", "/5", "/inspect", "/5/6"])
def test_on_a_phone_nothing_sticks_out(many: str, open_page: OpenPage, place: str) -> None:
    page = open_page(many, f"features/wide{place}", viewport={"width": 390, "height": 844})
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
