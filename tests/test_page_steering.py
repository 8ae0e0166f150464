"""The panel Steering in Chromium: what is written with features changed, and that every number is the studio's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, OpenPage, Page, call, expect, section, submit, until
from conftest import put_artifact
from made_data import SAE
from openai import DefaultHttpxClient, OpenAI
from steered_runs import SHA
from studio import running

pytestmark = IN_A_BROWSER
SLOW_MS = 120_000  # a model is loaded, by whatever the machine has
PROMPT = "def read_lines(path):"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    """With SAEs of three models, and a worker that does what a prompt tells it to."""
    data = tmp_path / "data"
    for model, sae, chat in (("m", "s", None), ("m", "t", None), ("plain", "p", False)):
        if not (data / "models" / model).exists():
            about = {"weight_bytes": {"fp32": 8_000_000, "int8": 2_000_000}, "chat_template": chat}
            put_artifact(data, "models", model, "model.json", json.dumps({"name": model, **about}))
        of = {"model": {"name": model}, "resolved": {"precision": "fp32"}, "width": 12, "sae_sha256": SHA}
        put_artifact(data, "saes", sae, "recipe.json", json.dumps(of))
    put_artifact(data, "tokens", "tok", "tokenization.json")
    with running(data, "fake_worker.py") as url:
        yield url


def edit(page: Page, feature: str) -> Any:
    return page.get_by_role("group", name=f"feature {feature}", exact=True)


def strength(page: Page, feature: str) -> Any:
    return page.get_by_label(f"Strength of feature {feature}", exact=True)


def add(page: Page, words: str) -> None:
    page.get_by_role("combobox", name="Add a feature").fill(words)
    expect(page.get_by_role("listbox", name="Features found").get_by_role("option").first).to_be_visible()
    page.get_by_role("combobox", name="Add a feature").press("Enter")


def written(page: Page, name: str) -> Any:
    return section(page, "What was written").get_by_role("article", name=name)


def query(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.evaluate("async () => (await import('/route.js')).route.value.query")
    return found


def newest(url: str, sae: str) -> Any:
    """The run that was kept last."""
    return call(url, f"/api/steerings/{call(url, f'/api/steerings?sae={sae}&limit=1')['steerings'][0]['id']}")


# -- with a real model -----------------------------------------------------------------------------------------------


def test_what_stands_on_the_page_is_what_the_model_wrote_and_the_studio_measured(
    made_studio: str, open_page: OpenPage
) -> None:
    url = made_studio
    page = open_page(url, f"steering/{SAE}")
    index = found_by_label(page, url)
    number = without_calibration(page, index)
    page.get_by_label("Prompt").fill(PROMPT)
    page.get_by_text("Sampling", exact=True).click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Tokens to write").fill("16")
    page.get_by_role("button", name="Write", exact=True).click()
    one = text_and_measures_are_those_kept(page, url)
    assert one["spec"]["steering"] == [{"feature": index, "strength": number, "op": "add", "scope": "all", "sae": SAE}]
    again = call(url, "/api/steer", {**one["spec"], "stream": False})
    assert [text["text"] for text in (*again["baselines"], *again["steered"])] == [
        text["text"] for text in (*one["result"]["baselines"], *one["result"]["steered"])
    ]
    page.reload()
    expect(written(page, "Steered").locator("p.words")).to_have_text(one["result"]["steered"][0]["text"])
    expect(page.get_by_label("Prompt")).to_have_value(PROMPT)
    downloaded(page, one)
    swept_and_taken(page, url, index)
    used_from_an_openai_client(page, url, newest(url, SAE)["result"]["steered"][-1]["text"])


def found_by_label(page: Page, url: str) -> int:
    """By words of its label, with the keys alone."""
    labelled = call(url, f"/api/saes/{SAE}/features?filter=labelled&sort=-max&limit=1")["features"][0]
    words = re.findall(r"\w+", labelled["label"]["text"])[0]
    found = call(url, f"/api/saes/{SAE}/features?q={words}&sort=-max&limit=8")["features"]
    search = page.get_by_role("combobox", name="Add a feature")
    search.fill(words)
    options = page.get_by_role("listbox", name="Features found").get_by_role("option")
    expect(options).to_have_count(len(found))
    for option, row in zip(options.all(), found, strict=True):
        expect(option).to_contain_text(f"{row['index']}{row['label']['text']}max {row['max']:.1f}")
    search.press("ArrowDown")
    search.press("ArrowUp")
    search.press("Enter")
    expect(edit(page, found[0]["index"])).to_contain_text(found[0]["label"]["text"])
    return int(found[0]["index"])


def without_calibration(page: Page, index: int) -> float:
    """It begins by itself, and takes longer than a test has: it is stopped, and a strength given."""
    expect(edit(page, str(index)).get_by_role("status")).to_contain_text("Looking for useful strengths")
    page.get_by_role("button", name=f"Stop looking for the strengths of feature {index}").click()
    expect(page.get_by_role("alert")).to_have_text(f"Feature {index}: calibration was stopped.")
    page.get_by_role("button", name="Use a wide range").click()
    expect(strength(page, str(index))).to_have_value("1")
    strength(page, str(index)).fill("1.5")
    return 1.5


def text_and_measures_are_those_kept(page: Page, url: str) -> Any:
    expect(written(page, "Steered").get_by_role("slider", name="KL of each token")).to_be_visible(timeout=SLOW_MS)
    expect(page).to_have_url(re.compile(r"run=\d+"))
    kept = newest(url, SAE)
    assert query(page)["run"] == str(kept["id"])
    (baseline,), (one,) = kept["result"]["baselines"], kept["result"]["steered"]
    assert written(page, "Baseline").locator("p.words").text_content() == baseline["text"]
    assert written(page, "Steered").locator("p.words").text_content() == one["text"] != baseline["text"]
    facts = written(page, "Steered").locator("dl")
    expect(facts).to_contain_text(f"KL{one['kl']:.2f} nats")
    expect(facts).to_contain_text(f"Perplexity{one['perplexity']:.1f}")
    strip = page.get_by_role("slider", name="KL of each token")
    strip.press("End")
    assert strip.get_attribute("aria-valuenow") == str(len(one["kl_tokens"]))
    assert strip.get_attribute("aria-valuetext").endswith(f"{one['kl_tokens'][-1]:.2f} nats")
    assert page.locator(".words .pointed").text_content() == one["tokens"][-1]
    return kept


def downloaded(page: Page, kept: Any) -> None:
    with page.expect_download() as whole:
        page.get_by_role("link", name=f"Download run {kept['id']} as JSON").click()
    assert json.loads(Path(whole.value.path()).read_text())["steering"] == kept
    with page.expect_download() as shown:
        page.get_by_role("link", name=f"Download run {kept['id']} as a page").click()
    assert shown.value.suggested_filename == f"steering-{kept['id']}.html"
    assert Path(shown.value.path()).read_text().startswith("<!doctype html>")


def swept_and_taken(page: Page, url: str, index: int) -> None:
    page.get_by_role("button", name="Sweep", exact=True).click()
    page.get_by_label("Strengths", exact=True).fill("-2, 0, 2")
    page.get_by_role("button", name="Write the sweep").click()
    table = page.get_by_role("table", name="Texts by strength")
    expect(table.get_by_role("button", name="Take strength 2", exact=True)).to_be_visible(timeout=SLOW_MS)
    kept = newest(url, SAE)
    assert kept["spec"]["sweep"] == [-2, 0, 2]
    for row, one, name in zip(
        table.get_by_role("row").all()[2:], kept["result"]["steered"], ("−2", "0", "+2"), strict=True
    ):
        cells = [row.get_by_role("rowheader").text_content(), *row.get_by_role("cell").all_text_contents()]
        measures = [f"{one['kl'] or 0:.2f}", f"{one['perplexity']:.1f}"]
        assert [cells[0], *cells[1:3], cells[4]] == [name, *measures, one["text"]]
    chart = page.get_by_role("figure", name="Perplexity by strength")
    chart.get_by_text("Show data").click()
    expect(chart.get_by_role("columnheader").first).to_have_text("Strength")
    expect(chart.get_by_role("row").last).to_contain_text(f"{kept['result']['steered'][-1]['perplexity']:.1f}")
    table.get_by_role("button", name="Take strength 2", exact=True).click()
    expect(strength(page, str(index))).to_have_value("2")
    expect(page.get_by_role("button", name="Text", exact=True)).to_have_attribute("aria-pressed", "true")


def used_from_an_openai_client(page: Page, url: str, steered: str) -> None:
    """Edits that were saved as a profile write the same elsewhere."""
    page.get_by_role("button", name="Save as profile").click()
    page.get_by_label("Name").fill("strong+2")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="Use strong+2 from any OpenAI client").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("pico:strong+2")
    expect(dialog).to_contain_text(f'base_url="{url}/v1"')
    with OpenAI(base_url=f"{url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False)) as client:
        made = client.completions.create(model="pico:strong+2", prompt=PROMPT, temperature=0, max_tokens=16)
    assert made.choices[0].text == steered


# -- sliders, edits, address -----------------------------------------------------------------------------------------


def test_edits_are_changed_by_keys_and_the_address_keeps_them(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "steering/s")
    add(page, "7")
    expect(strength(page, "7")).to_have_value("1.3")  # 0.5 nats, as the worker says
    expect(edit(page, "7")).to_contain_text("amplified: a clear effect, 0.5 to 2 nats")
    slider = page.get_by_label("feature 7: slider")
    slider.press("0")
    expect(strength(page, "7")).to_have_value("0")
    slider.press("ArrowLeft")
    expect(strength(page, "7")).to_have_value("-0.1")
    strength(page, "7").fill("8.25")
    expect(edit(page, "7")).to_contain_text("texts fall apart: it repeats itself")
    slider.dblclick(position={"x": 3, "y": 16})
    expect(strength(page, "7")).to_have_value("0")
    strength(page, "7").fill("no number")
    expect(strength(page, "7")).to_have_attribute("aria-invalid", "true")
    strength(page, "7").fill("-2")
    page.get_by_label("SAE of the feature to add").select_option("t")
    add(page, "3")
    page.get_by_label("How feature t/3 is changed").click()
    edit(page, "t/3").get_by_label("Method").select_option("ablate")
    page.get_by_label("Steer with feature t/3").uncheck()
    page.get_by_label("Prompt").fill("two\nlines & more")
    expect(page).to_have_url(re.compile("more"))
    assert query(page) == {"features": "7:-2,t/3:ablate!", "prompt": "two\nlines & more"}
    page.reload()
    expect(strength(page, "7")).to_have_value("-2")
    page.get_by_label("Steer with feature t/3").check()
    page.get_by_role("button", name="Write", exact=True).click()
    expect(written(page, "Steered")).to_contain_text("KL")
    told = {"scope": "all", "sae": "t", "feature": 3, "op": "ablate", "strength": 1}
    assert newest(studio, "s")["spec"]["steering"][1] == told


def test_a_text_does_not_wait_for_calibration(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "steering/s")
    asked: list[bool] = []

    def calibrate(route: Any) -> None:
        asked.append(len(asked) > 0)
        if asked[-1]:
            route.continue_()  # the first time it goes on until the page gives it up

    page.route("**/ranges", calibrate)
    search = page.get_by_role("combobox", name="Add a feature")
    search.fill("7")
    search.press("Enter")  # before anything was found of it
    expect(edit(page, "7").get_by_role("status")).to_contain_text("until then 1, its largest activation")
    page.get_by_label("Prompt").fill("hello")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(written(page, "Steered")).to_contain_text("KL")
    assert newest(studio, "s")["spec"]["steering"][0]["strength"] == 1
    expect(edit(page, "7")).to_contain_text("0.5 nats at")
    assert asked == [False, True]
    expect(strength(page, "7")).to_have_value("1")  # what the text was written with
    page.get_by_role("button", name="Leave out feature 7").click()
    expect(search).to_be_focused()
    add(page, "7")
    expect(strength(page, "7")).to_have_value("1.3")


def test_several_samples_and_strengths_stand_side_by_side_and_runs_are_kept_compared_and_deleted(
    studio: str, open_page: OpenPage
) -> None:
    page = open_page(studio, "steering/s?features=7:2&prompt=hello&samples=2&times=0.5, 1&max_tokens=5")
    page.get_by_role("button", name="Write", exact=True).click()
    second = page.get_by_role("group", name="Sample 2")
    expect(second.get_by_role("article")).to_have_count(3)
    expect(second.get_by_role("article", name="Steered, ok/7 +1", exact=True)).to_contain_text("t0 t1 t2 t3 t4")
    page.get_by_label("Prompt").fill("other words")
    page.get_by_role("button", name="Write", exact=True).click()
    runs = section(page, "Runs")
    expect(runs.get_by_role("listitem")).to_have_count(2)
    page.get_by_role("button", name="Star run 1").click()
    page.get_by_role("button", name="Note of run 1").click()
    page.get_by_label("Note", exact=True).fill("the first")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(runs.get_by_text("the first", exact=True)).to_be_visible()
    kept = call(studio, "/api/steerings/1")
    assert (kept["starred"], kept["note"]) == (True, "the first")
    page.get_by_label("starred only").check()
    expect(runs.get_by_role("listitem")).to_have_count(1)
    page.get_by_label("starred only").uncheck()
    page.get_by_label("Compare run 1").check()
    page.get_by_label("Compare run 2").check()
    page.get_by_role("button", name="Compare 1 and 2").click()
    rows = page.get_by_role("table", name="What was asked otherwise").get_by_role("row")
    expect(rows).to_have_count(2)
    expect(rows.last).to_have_text(re.compile("prompt.*hello.*other words"))
    page.get_by_role("link", name="Back to steering").click()
    expect(page.get_by_label("Prompt")).to_have_value("other words")
    page.get_by_role("link", name=re.compile("1 hello")).click()
    expect(page.get_by_label("Prompt")).to_have_value("hello")
    expect(page.get_by_role("group", name="Sample 2")).to_be_visible()
    page.get_by_role("button", name="Delete run 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(runs.get_by_role("listitem")).to_have_count(1)
    assert [one["id"] for one in call(studio, "/api/steerings")["steerings"]] == [1]


def test_a_conversation_goes_on_from_the_answer_that_was_chosen(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "steering/s?features=7:2&view=chat&max_tokens=3")
    page.get_by_label("Message").fill("Hello")
    page.get_by_label("Message").press("Enter")
    turns = page.get_by_role("list", name="Conversation").get_by_role("listitem")
    expect(turns.first.get_by_role("article", name="Steered")).to_contain_text("t0 t1 t2")
    turns.first.get_by_role("article", name="Baseline").get_by_role("radio").check()
    page.get_by_label("Message").fill("And then?")
    page.get_by_role("button", name="Send").click()
    expect(turns).to_have_count(2)
    kept = newest(studio, "s")
    assert [one["role"] for one in kept["spec"]["messages"]] == ["user", "assistant", "user"]
    assert [one["content"] for one in kept["spec"]["messages"]] == [
        "Hello",
        kept["result"]["baseline"]["text"],
        "And then?",
    ]
    expect(page).to_have_url(re.compile("turns=1%2C2"))
    page.reload()
    expect(turns).to_have_count(2)
    page.get_by_role("button", name="Clear").click()
    expect(turns).to_have_count(0)
    page.get_by_role("combobox", name="SAE", exact=True).select_option("p")
    page.get_by_role("button", name="Chat", exact=True).click()
    expect(page.get_by_text("plain has no chat template")).to_be_visible()


# -- when it does not go as it should --------------------------------------------------------------------------------


def test_a_job_that_has_the_gpu_is_paused_or_waited_for(studio: str, open_page: OpenPage) -> None:
    job = submit(studio, kind="train", tokenization="tok", name="train", hook="blocks.0.hook_resid_post")
    until(studio, job, "running")
    page = open_page(studio, "steering/s?features=7:2&prompt=hello&max_tokens=4")
    expect(page.get_by_role("alert")).to_contain_text(f"Feature 7: job {job} (train train")
    page.get_by_role("button", name="Use a wide range").click()
    expect(page.get_by_text("Train SAE train has the GPU: train 50%")).to_be_visible()
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text(f"job {job} (train train")
    page.get_by_role("button", name="Pause it and steer").click()
    expect(written(page, "Steered")).to_contain_text("t0 t1 t2 t3")
    expect(page.get_by_text(f"Job {job} is paused for it")).to_be_visible()
    until(studio, job, "paused")
    page.get_by_role("button", name="End session").click()
    until(studio, job, "running")
    expect(page.get_by_text("No model is in memory")).to_be_visible()
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_role("button", name="Wait for it").click()
    expect(page.get_by_text("writes it when its turn comes")).to_be_visible()
    call(studio, f"/api/jobs/{job}/stop", method="POST")
    expect(section(page, "Runs").get_by_text(f"job {job + 1}", exact=True)).to_be_visible()
    expect(written(page, "Baseline")).to_contain_text("t0 t1 t2 t3")


def test_what_was_typed_and_written_stays_when_it_fails(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "steering/s?features=7:2&prompt=greedy&max_tokens=3000")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The text was cut off: ")
    expect(page.get_by_text("int8 takes 2.0 MB (now 8.0 MB)")).to_be_visible()
    expect(written(page, "Steered")).to_contain_text("t0")
    expect(page.get_by_label("Prompt")).to_have_value("greedy")
    page.get_by_label("Prompt").fill("slow")
    page.get_by_role("button", name="Write again").first.click()
    expect(written(page, "Steered")).to_contain_text("t3 ")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("Stopped: what is here is not kept.")).to_be_visible()
    expect(written(page, "Steered")).to_contain_text("t3 ")
    page.get_by_label("Tokens to write").fill("5000")
    page.get_by_role("button", name="Write again").click()
    expect(page.get_by_role("alert")).to_contain_text("4096")
    page.get_by_label("Tokens to write").fill("2")
    page.get_by_label("Prompt").fill("fail")
    page.get_by_role("button", name="Write again").click()
    expect(page.get_by_role("alert")).to_have_text("the prompt is too long")
    expect(page).to_have_url(re.compile("prompt=fail"))
    assert call(studio, "/api/steerings")["steerings"] == []


def test_without_an_sae_it_is_said_how_to_come_by_one(tmp_path: Path, open_page: OpenPage) -> None:
    with running(tmp_path / "data", "fake_worker.py") as url:
        page = open_page(url, "steering")
        expect(page.get_by_role("link", name="Train one")).to_be_visible()
        expect(page.get_by_text("mistudio demo", exact=True)).to_be_visible()
        page.goto(f"{url}/#/features")
        expect(page.get_by_role("heading", name="Features")).to_be_visible()
        page.go_back()
        expect(page.get_by_role("link", name="Train one")).to_be_visible()
        sheets = "[...document.styleSheets].filter((one) => !one.disabled).map((one) => one.href)"
        assert [one for one in page.evaluate(sheets) if "features" in one or "steering" in one] == [
            f"{url}/css/steering.css"
        ]
