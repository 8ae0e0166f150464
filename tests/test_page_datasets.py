"""Datasets and tokenizations in the page: brought in from four places, read, cut into tokens; every number true."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from browsing import IN_A_BROWSER, OpenPage, Page, call, dataset, expect, section, until
from hub import Hub, served_hub  # noqa: F401
from studio import end, running, started

pytestmark = IN_A_BROWSER

MARKUP = "<img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"


def dialog(page: Page) -> Any:
    return page.get_by_role("dialog")


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


# -- adding ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hubbed(hub: Hub, tmp_path: Path) -> Iterator[str]:
    """A studio whose Hub is the tests' own: ``org/stories`` of two splits, ``org/closed`` for those with access."""
    folder = tmp_path / "stories"
    (folder / "data").mkdir(parents=True)
    for split, rows in (("train", 30), ("test", 12)):
        lines = [json.dumps({"title": f"t{n}", "text": f"{split} story {n} {MARKUP}"}) for n in range(rows)]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines))
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    hub.add_dataset("org/stories", folder)
    hub.add_dataset("org/closed", folder, gated=True)
    hub.allow("hf_member", "org/closed")
    with running(tmp_path / "data", "real_worker.py", environ=hub.environ(tmp_path / "hf")) as url:
        yield url


def test_a_dataset_of_the_hub_is_looked_at_before_a_part_of_it_is_chosen(
    hubbed: str,
    hub: Hub,
    open_page: OpenPage,
) -> None:
    page = open_page(hubbed, "datasets")
    button(page, "Add dataset").click()
    page.get_by_label("Where it comes from").fill("org/stories")
    button(page, "Preview").click()
    found = page.get_by_role("group", name="What is there")
    expect(found).to_contain_text("cc0-1.0", timeout=60_000)
    seen = call(hubbed, "/api/datasets/preview", {"source": "org/stories"})
    expect(found).to_contain_text(seen["revision"][:12])
    expect(found.get_by_role("listitem").first).to_have_text(f"train story 0 {MARKUP}")
    assert page.locator("dialog img").count() == 0
    page.get_by_label("Split").select_option("test")
    expect(found.get_by_role("listitem").first).to_have_text(f"test story 0 {MARKUP}", timeout=60_000)
    page.get_by_label("Column that holds the text").select_option("title")
    expect(found.get_by_role("listitem").first).to_have_text("t0")
    page.get_by_label("Documents at most").fill("5")
    dialog(page).get_by_role("button", name="Add").click()
    expect(page.get_by_role("table", name="Datasets")).to_contain_text("stories", timeout=60_000)
    made = call(hubbed, "/api/datasets/stories")
    assert (made["rows"], made["split"], made["text_column"], made["is_cut"]) == (5, "test", "title", True)

    button(page, "Add dataset").click()
    page.get_by_label("Where it comes from").fill("org/closed")
    button(page, "Preview").click()
    alert = dialog(page).get_by_role("alert")
    expect(alert).to_contain_text("org/closed is gated", timeout=60_000)
    link = alert.get_by_role("link").first
    expect(link).to_have_attribute("href", f"{hub.url}/datasets/org/closed")
    expect(link).to_have_attribute("target", "_blank")
    page.get_by_label("Token of the Hub").fill("hf_member")
    button(page, "Keep the token").click()
    expect(found).to_contain_text("cc0-1.0", timeout=60_000)
    assert [one["name"] for one in call(hubbed, "/api/secrets")["secrets"]] == ["hf"]


def test_files_of_the_browser_are_sent_in_parts_looked_at_and_taken_back(tmp_path: Path, open_page: OpenPage) -> None:
    stories = tmp_path / "stories.jsonl"
    stories.write_text("\n".join(json.dumps({"text": f"story {n} {MARKUP}"}) for n in range(40)))
    large = tmp_path / "large.txt"
    large.write_text("word " * 1_200_000)  # two parts
    with running(tmp_path / "data", "real_worker.py") as url:
        page = open_page(url, "datasets")
        button(page, "Add dataset").click()
        page.get_by_label("This browser").check()
        sent: list[str] = []

        def once_cut(route: Any) -> None:
            sent.append(route.request.url)
            route.abort() if len(sent) == 2 else route.continue_()

        page.route("**/api/uploads/*?*", once_cut)
        page.get_by_label("Files").set_input_files([stories, large])
        expect(page.get_by_text("All of it is on the studio's machine.")).to_be_visible()
        assert len(sent) == 4  # three parts, one of them twice
        expect(page.get_by_label("What to call it")).to_have_value("stories")
        upload = call(url, "/api/uploads")["uploads"][0]
        assert upload["complete"] and upload["bytes"] == stories.stat().st_size + large.stat().st_size
        with page.expect_response(lambda answer: answer.request.method == "DELETE"):
            button(page, "Take it back").click()
        expect(page.get_by_label("Files")).to_be_visible()
        assert call(url, "/api/uploads")["uploads"] == []

        page.get_by_label("Files").set_input_files([stories])
        expect(page.get_by_text("All of it is on the studio's machine.")).to_be_visible()
        button(page, "Preview").click()
        found = page.get_by_role("group", name="What is there")
        expect(found.get_by_role("listitem").first).to_have_text(f"story 0 {MARKUP}")
        dialog(page).get_by_role("button", name="Add").click()
        page.get_by_role("table", name="Datasets").get_by_role("link", name="stories").click()
        expect(page.get_by_role("listitem", name="Row 0", exact=True)).to_contain_text(f"story 0 {MARKUP}")
        assert call(url, "/api/datasets/stories")["rows"] == 40
        assert page.locator("main img").count() == 0 and page.title() == "miStudio"


def test_an_upload_goes_on_when_the_studio_was_killed_in_between_and_a_cancelled_one_leaves_nothing(
    tmp_path: Path, open_page: OpenPage
) -> None:
    (tmp_path / "large.txt").write_text("word " * 3_000_000)  # four parts
    daemon, url = started(tmp_path / "data", "paced_worker.py")
    try:
        page = open_page(url, "datasets")
        button(page, "Add dataset").click()
        page.get_by_label("This browser").check()
        offsets: list[int] = []

        def killed(route: Any) -> None:
            nonlocal daemon
            offsets.append(int(route.request.url.rpartition("=")[2]))
            if len(offsets) == 3:
                end(daemon, signal.SIGKILL)
                daemon, _ = started(tmp_path / "data", "paced_worker.py", int(url.rpartition(":")[2]))
                route.abort()
            else:
                route.continue_()

        page.route("**/api/uploads/*?*", killed)
        page.get_by_label("Files").set_input_files([tmp_path / "large.txt"])
        expect(page.get_by_text("All of it is on the studio's machine.")).to_be_visible()
        assert [at >> 22 for at in offsets] == [0, 1, 2, 2, 3]
        (upload,) = call(url, "/api/uploads")["uploads"]
        assert upload["complete"]
        # The same file again, while the first is still being taken back: sent anew, and not lost with the first.
        page.unroute("**/api/uploads/*?*")
        page.route("**/api/uploads/*", lambda route: (time.sleep(route.request.method == "DELETE"), route.continue_()))
        button(page, "Take it back").click()
        page.get_by_label("Files").set_input_files([tmp_path / "large.txt"])
        expect(page.get_by_text("All of it is on the studio's machine.")).to_be_visible()
        (anew,) = call(url, "/api/uploads")["uploads"]
        assert anew["complete"] and anew["id"] != upload["id"]
        page.unroute("**/api/uploads/*")
        with page.expect_response(lambda answer: answer.request.method == "DELETE"):
            button(page, "Take it back").click()
        # Taken back before the studio has answered that there is one.
        page.route("**/api/uploads", lambda route: (time.sleep(route.request.method == "POST"), route.continue_()))
        with page.expect_response(lambda answer: answer.request.method == "DELETE"):
            with page.expect_request(lambda request: request.method == "POST"):
                page.get_by_label("Files").set_input_files([tmp_path / "large.txt"])
            page.keyboard.press("Escape")
        assert call(url, "/api/uploads")["uploads"] == []
    finally:
        end(daemon, signal.SIGTERM)


def test_an_answer_about_another_source_is_dropped_and_what_is_wrong_is_said_somewhere(
    tmp_path: Path, open_page: OpenPage
) -> None:
    def seen(route: Any) -> None:
        source = route.request.post_data_json["source"]
        time.sleep(source == "a/slow")
        configs = {"config": source, "configs": [source, "other"], "split": "train", "splits": ["train"]}
        route.fulfill(json={"source": source, **configs, "text_columns": ["text"], "columns": [], "rows": []})

    wrong = {"error": {"code": "invalid", "message": "config: is no such", "fields": {"config": "is no such"}}}
    with running(tmp_path / "data", "paced_worker.py") as url:
        page = open_page(url, "datasets")
        page.route("**/api/datasets/preview", seen)
        page.route("**/api/jobs", lambda route: route.fulfill(status=400, json=wrong))
        button(page, "Add dataset").click()
        source = page.get_by_label("Where it comes from")
        source.fill("a/slow")
        with page.expect_response("**/preview"):
            button(page, "Preview").click()
            source.fill("a/other")
        expect(button(page, "Preview")).to_be_enabled()
        expect(page.get_by_role("group", name="What is there")).to_have_count(0)
        dialog(page).get_by_role("button", name="Add").click()
        expect(dialog(page).get_by_role("alert")).to_have_text("config: is no such")
        button(page, "Preview").click()
        expect(page.get_by_label("Configuration")).to_have_value("a/other")
        dialog(page).get_by_role("button", name="Add").click()
        expect(dialog(page).get_by_role("alert")).to_have_text("is no such")
        page.get_by_text("It is private or gated").click()
        page.get_by_label("Token of the Hub").fill("hf_x")
        with page.expect_request("**/api/secrets/hf"):
            page.get_by_label("Token of the Hub").press("Enter")  # keeps the token, and sends no form
        expect(dialog(page)).to_be_visible()


def test_what_is_sent_goes_with_a_dialog_that_is_closed(tmp_path: Path, open_page: OpenPage) -> None:
    (tmp_path / "a.txt").write_text("text")
    with running(tmp_path / "data", "paced_worker.py") as url:
        page = open_page(url, "datasets")
        button(page, "Add dataset").click()
        page.get_by_label("This browser").check()
        page.get_by_label("Files").set_input_files([tmp_path / "a.txt"])
        expect(page.get_by_text("All of it is on the studio's machine.")).to_be_visible()
        with page.expect_response(lambda answer: answer.request.method == "DELETE"):
            page.keyboard.press("Escape")
        assert call(url, "/api/uploads")["uploads"] == []


def test_what_is_on_its_way_and_what_has_failed_stands_in_the_panel(tmp_path: Path, open_page: OpenPage) -> None:
    with running(tmp_path / "data", "paced_worker.py") as url:
        failed = dataset(url, "markup", "/text/x.jsonl")
        until(url, failed, "failed")
        going = dataset(url, "slow")
        page = open_page(url, "datasets")
        coming = section(page, "Datasets on their way")
        expect(coming.get_by_role("article", name="Add dataset slow")).to_contain_text("1 of 2")
        expect(coming).to_contain_text("no text in <img")
        expect(button(page, f"Try again job {failed}")).to_be_visible()
        button(page, f"Dismiss job {failed}").click()
        expect(coming).not_to_contain_text("no text in")
        button(page, f"Stop job {going}").click()
        expect(coming).to_have_count(0)


# -- what there is ---------------------------------------------------------------------------------------------------


def test_a_dataset_is_read_from_all_over_and_one_by_one(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "datasets")
    cells = page.get_by_role("table", name="Datasets").get_by_role("row").nth(1).get_by_role("cell")
    made, tokens = call(made_studio, "/api/datasets/python"), call(made_studio, "/api/tokenizations/python-pico")
    expect(cells.nth(2)).to_have_text(f"{made['rows']:,}")
    expect(cells.nth(4)).to_have_text(f"{tokens['tokens']:,}")
    expect(cells.nth(5)).to_have_text("python-pico")
    page.get_by_role("table", name="Datasets").get_by_role("link", name="python", exact=True).click()
    expect(page.get_by_role("heading", level=2)).to_be_focused()
    sample = call(made_studio, "/api/datasets/python/sample?rows=10&chars=500")
    for row in sample["rows"]:
        shown = page.get_by_role("listitem", name=f"Row {row['row']}", exact=True)
        expect(shown).to_contain_text(f"{row['characters']:,} characters")
        expect(shown).to_contain_text(row["name"])
    button(page, "One by one").click()
    button(page, "Next").click()
    expect(page.get_by_text("Rows 10 to 19 of 300; the first is 0")).to_be_visible()
    assert page.url.endswith("#/datasets/python?row=10")
    page.reload()
    (row,) = call(made_studio, "/api/datasets/python/sample?rows=1&offset=11&chars=20000")["rows"]
    shown = page.get_by_role("listitem", name="Row 11", exact=True)
    shown.get_by_role("button", name=re.compile("Show (all|the first)")).click()
    expect(shown.get_by_role("button", name="Show less")).to_be_visible()
    assert row["text"] in shown.inner_text()
    page.get_by_label("Row", exact=True).fill("299")
    page.get_by_label("Row", exact=True).press("Enter")
    expect(page.get_by_text("Rows 299 to 299 of 300; the first is 0")).to_be_visible()
    expect(button(page, "Next")).to_be_disabled()


def test_deleting_a_dataset_names_what_needs_it_and_shows_the_refusal(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "datasets/python")
    button(page, "Delete the dataset python").click()
    expect(dialog(page)).to_contain_text("which need it: python-pico")
    dialog(page).get_by_role("button", name="Delete").click()
    with pytest.raises(HTTPError) as refused:
        call(made_studio, "/api/datasets/python", method="DELETE")
    expect(page.get_by_role("alert")).to_have_text(json.load(refused.value)["error"]["message"])


def test_a_tokenization_shows_what_was_found_in_it(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "datasets")
    page.get_by_role("table", name="Tokenizations").get_by_role("link", name="python-pico").click()
    made = call(made_studio, "/api/tokenizations/python-pico")
    windows = page.get_by_role("table", name="Windows").get_by_role("row")
    expect(windows.nth(1)).to_contain_text(f"{made['train_windows']:,}")
    expect(windows.nth(2)).to_contain_text(f"{made['held_out_windows']:,}")
    frequent = page.get_by_role("table", name="Most frequent tokens").get_by_role("row")
    for row, token in zip(frequent.all()[1:], made["most_frequent"], strict=True):
        expect(row).to_contain_text(f"{token['id']}{token['count']:,}{100 * token['count'] / made['tokens']:.1f}"[:9])
    lengths = [one for one in made["length_histogram"] if one["documents"]]
    rows = page.get_by_role("table", name="Length of documents").get_by_role("row")
    expect(rows.filter(has_text=f"{lengths[0]['from_tokens']:,} to ").first).to_contain_text(
        str(lengths[0]["documents"])
    )
    expect(page.get_by_role("link", name="Train an SAE on it")).to_have_attribute(
        "href", "#/training/new?model=pico&tokenization=python-pico"
    )
    expect(section(page, "SAEs trained on it").get_by_role("link")).to_have_text(["pico-small"])


def test_a_text_is_seen_in_tokens_and_filters_are_tried_before_it_is_tokenized(
    made_studio: str, open_page: OpenPage
) -> None:
    page = open_page(made_studio, "datasets/python")
    button(page, "Tokenize").click()
    cut = page.get_by_role("group", name="The text in tokens")
    expect(cut).to_be_visible()
    button(page, "A text of your own").click()
    text = f"{MARKUP}\nnaïve 🙂"
    page.get_by_label("A text of your own").fill(text)
    found = call(made_studio, "/api/models/pico/tokens", {"text": text})
    expect(page.get_by_text(f"{found['tokens']} tokens · 1 special")).to_be_visible()
    tokens = cut.locator("[title]")
    assert [one.get_attribute("title") for one in tokens.all()] == [f"token {id}" for id in found["ids"]]
    assert page.locator("dialog img").count() == 0
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text(re.compile(rf"Token 2: .*id {found['ids'][1]}"))).to_be_visible()
    tokens.nth(3).hover()
    expect(page.get_by_text(re.compile(rf"Token 4: .*id {found['ids'][3]}"))).to_be_visible()

    page.get_by_text("More", exact=True).click()
    page.get_by_label("Leave out documents of fewer tokens").fill("200")
    asked = {"dataset": "python", "model": "pico", "shortest": 200}
    tried = call(made_studio, "/api/datasets/filtered", asked)
    expect(page.get_by_role("status").filter(has_text="the filters keep")).to_contain_text(
        f"Of {tried['documents']} documents the filters keep {tried['kept']} "
    )
    page.get_by_label("Leave out documents without").fill("(")
    expect(dialog(page).get_by_role("alert")).to_contain_text("is no regular expression")
    page.get_by_label("Leave out documents without").fill("import")
    page.get_by_label("What to call it").fill("long")
    page.get_by_label("Tokens at most").fill("100000")
    dialog(page).get_by_role("button", name="Tokenize").click()
    link = page.get_by_role("table", name="Tokenizations").get_by_role("link", name="long")
    expect(link).to_be_visible(timeout=60_000)
    made = call(made_studio, "/api/tokenizations/long")
    link.click()
    documents = page.get_by_role("table", name="Documents").get_by_role("row")
    expect(documents.nth(1)).to_contain_text(f"kept{made['documents']:,}")
    words = {"shortest": "fewer than 200 tokens", "must_match": "without import"}
    assert made["dropped"] and set(made["dropped"]) <= set(words)
    for reason, dropped in made["dropped"].items():
        expect(documents.filter(has_text=words[reason])).to_contain_text(f"{words[reason]}{dropped:,}")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone_nothing_sticks_out(made_studio: str, open_page: OpenPage, scheme: str) -> None:
    page = open_page(made_studio, "datasets", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    expect(page.get_by_role("table", name="Datasets")).to_be_visible()
    for place in ("datasets", "datasets/python", "datasets/tokenizations/python-pico"):
        page.goto(f"{made_studio}/#/{place}")
        expect(page.get_by_role("button", name=re.compile("^Delete")).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, place
        boxes = [one.bounding_box() for one in page.get_by_role("main").get_by_role("button").all()]
        assert min(box["height"] for box in boxes if box) >= 40, place


def test_an_unknown_address_says_so(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "datasets/none")
    expect(page.get_by_text("There is no dataset called none.")).to_be_visible()
    page.goto(f"{made_studio}/#/datasets/tokenizations/none")
    expect(page.get_by_text("There is no tokenization called none.")).to_be_visible()
