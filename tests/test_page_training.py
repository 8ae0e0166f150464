"""Trainings on the page: asked for by mouse, followed to their end, laid over each other, held to what the API says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from browsing import (
    HOOK,
    IN_A_BROWSER,
    PHONE,
    OpenPage,
    call,
    expect,
    section,
    serious,
    submit,
    training,
    until,
)
from click.testing import CliRunner
from mistudio.cli import main
from mistudio.recipes import extended
from studio import running

pytestmark = IN_A_BROWSER


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    with running(tmp_path / "data", "paced_worker.py") as url:
        yield url


def planned(url: str, **fields: Any) -> Any:
    spec = {"kind": "train", "tokenization": "python-pico", "name": "pico-L3-resid_post", "hook": HOOK, **fields}
    return call(url, "/api/plan", {"spec": spec})


def ended(url: str, job: int) -> Any:
    found = call(url, f"/api/jobs/{job}")
    assert found["state"] == "done", found
    return found


def row_of(page: Any, name: str) -> Any:
    return page.get_by_role("table", name="Trainings").get_by_role("row").filter(has_text=name)


# -- the form --------------------------------------------------------------------------------------------------------


def test_an_sae_is_trained_by_mouse_and_its_numbers_are_the_studios(made_studio: str, open_page: OpenPage) -> None:
    url = made_studio
    page = open_page(url, "training")
    page.get_by_role("link", name="Train an SAE").click()
    expect(page.get_by_label("Quick look")).to_be_checked()
    quick = call(url, "/api/specs/train")["presets"]["quick-look"]
    expect(page.get_by_label("Width", exact=True)).to_have_value(f"{quick['width']:,}")
    expect(page.get_by_label("Training tokens")).to_have_value(f"{quick['tokens']:,}")
    plan = section(page, "Plan")
    total = planned(url, **quick)["total_bytes"]
    expect(plan).to_contain_text(re.compile(rf"Fits: {total / 1e9:.1f}|Fits: {total / 1e9 + 0.1:.1f}"))
    plan.get_by_text("Part by part").click()
    expect(plan.get_by_role("row", name="the model's weights")).to_contain_text("13.8 MB")

    page.get_by_role("button", name="Choose others").click()
    page.get_by_label("Find a hook").fill("2 mlp_out")
    page.get_by_label("blocks.2.hook_mlp_out", exact=True).check()
    page.get_by_role("button", name=f"Leave out {HOOK}").click()
    expect(page.get_by_label("What to call it")).to_have_value("pico-L2-mlp_out")
    page.get_by_label("TopK", exact=True).check()
    page.get_by_label("BatchTopK").uncheck()  # whose threshold would be set on 100,000 tokens
    page.get_by_label("Width", exact=True).fill("64")
    page.get_by_label("k", exact=True).fill("4")
    page.get_by_label("Training tokens").fill("2,560")
    page.get_by_text("Optimiser").click()
    page.get_by_label("Tokens in a step").fill("512")
    page.get_by_text("Evaluation and checkpoints").click()
    page.get_by_label("Steps between measurements").fill("5")
    expect(page.get_by_label("Quick look")).not_to_be_checked()
    expect(plan.get_by_role("listitem")).to_have_text("pico-L2-mlp_out")
    page.get_by_role("button", name="Train", exact=True).click()

    expect(page.get_by_role("heading", name="pico-L2-mlp_out")).to_be_visible()
    job = int(page.url.rpartition("/")[2])
    spec = call(url, f"/api/jobs/{job}")["spec"]
    asked = [spec[name] for name in ("hook", "width", "k", "tokens", "batch_tokens", "architecture", "tokenization")]
    assert asked == ["blocks.2.hook_mlp_out", 64, 4, 2_560, 512, "topk", "python-pico"]
    made = page.get_by_role("table", name="SAEs that it made")
    expect(made).to_be_visible(timeout=240_000)
    result = ended(url, job)["result"]
    expect(made.get_by_role("row").last).to_contain_text(f"pico-L2-mlp_out{result['fvu']:.3f}{result['pca_fvu']:.3f}")
    for sentence in result["verdict"]:
        expect(section(page, "What came of it")).to_contain_text(sentence)
    chart = page.get_by_role("figure", name="Loss")
    chart.get_by_text("Show data").click()
    newest = call(url, f"/api/jobs/{job}/metrics")["metrics"][-1]
    expect(chart.get_by_role("row").last).to_have_text(f"{newest['step']}{newest['values']['loss']:.4f}")
    expect(section(page, "What was asked")).to_contain_text(
        "--hook blocks.2.hook_mlp_out --architecture topk --width 64 --k 4"
        " --tokens 2560 --batch-tokens 512 --evaluate-every 5"
    )
    expect(page.get_by_role("table", name="Checkpoints").get_by_role("row").last).to_contain_text("5")


def test_a_grid_says_what_it_makes_and_what_does_not_fit_says_what_would(made_studio: str, open_page: OpenPage) -> None:
    url = made_studio
    page = open_page(url, f"training/new?tokenization=python-pico&hook={HOOK}")
    plan, width = section(page, "Plan"), page.get_by_label("Width", exact=True)
    width.fill("2,048, 4,096")
    page.get_by_label("k", exact=True).fill("16 32")
    page.get_by_label("TopK", exact=True).check()
    expect(plan).to_contain_text("Makes 8 SAEs")
    names = planned(url, width=[2048, 4096], k=[16, 32], architecture=["batchtopk", "topk"])["names"]
    assert len(names) == 8
    expect(plan.get_by_role("listitem")).to_have_text(names)

    page.get_by_label("k", exact=True).fill("99999")
    expect(page.get_by_role("alert")).to_contain_text("less than or equal to 65536")
    expect(page.get_by_label("k", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("k", exact=True).fill("32")
    page.get_by_label("TopK", exact=True).uncheck()
    width.fill("2,048 4,000,000")
    expect(plan).to_contain_text("Does not fit")
    plan.get_by_role("button", name=re.compile(r"^width 2,048")).click()
    expect(width).to_have_value("2,048")
    expect(plan).to_contain_text("Fits")
    page.get_by_label("Transcoder", exact=True).check()
    expect(page.get_by_role("alert")).to_contain_text("must be given for a transcoder")
    page.get_by_label("Hook that is rebuilt").fill("blocks.3.hook_mlp_out")
    page.get_by_label("Add a linear map of its input").check()
    expect(plan).to_contain_text("Makes 2 SAEs")
    page.get_by_label("Transcoder", exact=True).uncheck()
    expect(plan).to_contain_text("Makes one SAE")
    held: list[Any] = []
    page.route("**/api/plan", lambda route: held.append(route))
    width.fill("64,128")
    expect(page.get_by_text("One value, 64,128")).to_be_visible()
    expect(plan).to_have_attribute("aria-busy", "true")  # what stands there is of another width
    page.unroute("**/api/plan")
    for route in held:
        route.continue_()
    expect(plan).to_have_attribute("aria-busy", "false")
    page.get_by_label("What to call it").fill("")
    expect(plan).to_contain_text("Say what to call it first.")
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    page.get_by_label("What to call it").fill("dense")
    page.get_by_label("Gated").check()
    page.get_by_label("BatchTopK").uncheck()
    expect(page.get_by_label("k", exact=True)).to_have_count(0)
    page.get_by_label("l1").fill("0.1, 0.3")
    expect(plan).to_contain_text("Makes 2 SAEs")


def test_without_a_text_the_form_says_where_one_is_made(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "training/new")
    expect(page.get_by_text("None is here yet.")).to_be_visible()
    page.get_by_role("link", name="Go to Datasets").click()
    expect(page.get_by_role("heading", level=2, name="Datasets")).to_be_visible()


def test_the_same_again_opens_the_form_with_all_that_was_asked(studio: str, open_page: OpenPage) -> None:
    until(studio, training(studio), "done")
    fields = {
        "hook": [HOOK, "blocks.2.hook_mlp_out"],
        "width": [512, 1024],
        "k": 16,
        "lr": 0.0005,
        "outliers": True,
        "whole_model": False,
        "tokens": 5_000_000,
    }
    job = submit(studio, kind="train", tokenization="stories-pico", name="grid", **fields)
    until(studio, job, "done")
    page = open_page(studio, f"training/{job}")
    line = section(page, "What was asked").get_by_text("mistudio train start").inner_text()
    typed = shlex.split(line.replace("--name grid", "--name typed"))[1:]
    told = CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, [*typed, "--detach"])
    assert told.exit_code == 0, told.output
    was = call(studio, f"/api/jobs/{job}")["spec"]
    assert call(studio, "/api/jobs?limit=1")["jobs"][0]["spec"] == {**was, "name": "typed"}
    page.get_by_role("link", name="The same again with changes").click()
    expect(page.get_by_label("Width", exact=True)).to_have_value("512, 1,024")
    expect(page.get_by_label("What to call it")).to_have_value("grid-2")
    page.get_by_text("Optimiser").click()
    expect(page.get_by_label("Learning rate")).to_have_value("0.0005")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("heading", name="grid-2")).to_be_visible()
    newest = call(studio, "/api/jobs?limit=1")["jobs"][0]["spec"]
    assert newest == {**was, "name": "grid-2"}


def test_an_sae_is_trained_further_as_the_command_line_does_it(studio: str, open_page: OpenPage) -> None:
    job = training(studio)
    until(studio, job, "done")
    page = open_page(studio, f"training/{job}")
    page.get_by_role("link", name="Train it further").click()
    expect(page.get_by_role("heading", name="Train stories-l3 further")).to_be_visible()
    expect(section(page, "What stays as it is")).to_contain_text(HOOK)
    expect(page.get_by_label("Width", exact=True)).to_have_count(0)
    tokens, train = page.get_by_label("Training tokens"), page.get_by_role("button", name="Train", exact=True)
    expect(tokens).to_have_value("4,000,000")
    tokens.fill("2,000,000")
    expect(section(page, "Plan")).to_contain_text("was trained on 2,000,000 tokens already")
    expect(train).to_be_disabled()
    tokens.fill("3,000,000")
    train.click()
    expect(page.get_by_role("heading", name="stories-l3-2")).to_be_visible()
    spec = call(studio, "/api/jobs?limit=1")["jobs"][0]["spec"]
    assert spec == extended(call(studio, "/api/saes/stories-l3"), 3_000_000, "stories-l3-2")


# -- runs ------------------------------------------------------------------------------------------------------------


def test_runs_are_rows_that_move_and_two_of_them_are_laid_over_each_other(
    studio: str, open_page: OpenPage, tmp_path: Path
) -> None:
    one, hold = training(studio, "first"), tmp_path / "data" / "hold"
    until(studio, one, "done")
    page = open_page(studio, "training")
    hold.write_text("train")
    two = submit(studio, kind="train", tokenization="stories-pico", hook=HOOK, name="other", batch_tokens=1024)
    expect(row_of(page, "other").get_by_role("progressbar")).to_be_visible()
    expect(row_of(page, "first")).to_contain_text("2,048")
    hold.unlink()
    until(studio, two, "done")
    expect(row_of(page, "other")).to_contain_text("Done")
    expect(row_of(page, "other").get_by_role("progressbar")).to_have_count(0)
    result = call(studio, f"/api/jobs/{two}")["result"]
    expect(row_of(page, "other")).to_contain_text(f"{result['fvu']:.3f}{result['l0']:.1f}")
    page.get_by_label("Find").fill("other")
    expect(row_of(page, "first")).to_have_count(0)
    page.get_by_label("Find").fill("")
    for name, job in (("first", one), ("other", two)):
        page.get_by_label(f"Compare {name}, job {job}").check()
    page.get_by_role("link", name="Compare 2").click()
    chart = page.get_by_role("figure", name="FVU")
    chart.get_by_text("Show data").click()
    expect(chart.get_by_role("columnheader")).to_have_text(["Step", "other", "first"])
    metrics = [call(studio, f"/api/jobs/{job}/metrics")["metrics"][-1] for job in (two, one)]
    last = "".join(f"{one['values']['fvu']:.3f}" for one in metrics)
    expect(chart.get_by_role("row").last).to_have_text(f"{metrics[0]['step']}{last}")
    page.get_by_label("first", exact=True).uncheck()
    expect(chart.get_by_role("columnheader")).to_have_text(["Step", "other"])
    page.get_by_label("first", exact=True).check()
    page.get_by_label("Across").select_option("tokens")
    expect(chart.get_by_role("row").last).to_contain_text("409.6K tokens")
    page.get_by_role("button", name="Compare no more with first").click()
    expect(page).to_have_url(re.compile(rf"#/training/{two}$"))
    expect(chart.get_by_role("columnheader")).to_have_text(["When", "other"])


def test_a_run_is_paused_resumed_and_stopped_each_with_its_words(
    studio: str, open_page: OpenPage, tmp_path: Path
) -> None:
    hold = tmp_path / "data" / "hold"
    hold.write_text("train")
    job = training(studio)
    until(studio, job, "running")
    page = open_page(studio, f"training/{job}")
    state = section(page, "How it stands")
    expect(state).to_contain_text("Saves where it is and frees the memory")
    expect(state).to_contain_text("Measured and saved as if it had come to its end.")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    until(studio, job, "running")
    page.get_by_role("button", name="Stop", exact=True).click()
    until(studio, job, "stopped")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    hold.unlink()
    page.get_by_role("button", name="Try again").click()
    until(studio, job, "done")
    chart = page.get_by_role("figure", name="FVU")
    chart.get_by_text("Show data").click()
    expect(chart.get_by_role("row").last).to_have_text("1000.065")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("The SAEs that it made stay.")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=2, name="Training", exact=True)).to_be_visible()
    assert job not in [one["id"] for one in call(studio, "/api/jobs")["jobs"]]


def test_a_run_shows_what_it_learns_and_is_ended_from_its_checkpoint(studio: str, open_page: OpenPage) -> None:
    job = training(studio, "train")  # it goes on until it is told
    until(studio, job, "running")
    page = open_page(studio, f"training/{job}")
    state, finalize = section(page, "How it stands"), page.get_by_role("button", name="End it now and keep the SAE")
    learned = section(page, "What features learn").get_by_role("listitem")
    expect(learned).to_contain_text("Feature 5")
    live = call(studio, f"/api/jobs/{job}/live")["saes"][0]["features"][0]["windows"]
    expect(learned.locator("p.window")).to_contain_text([f"{one['value']:.1f}" for one in live])
    page.get_by_role("button", name="Pause").click()
    expect(state).to_contain_text("Ends here without an SAE; its checkpoint stays")
    expect(state.get_by_role("heading")).to_be_focused()
    expect(finalize).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(state).to_contain_text("Goes on from its checkpoint at step 5.")
    assert not call(studio, "/api/saes")["saes"]
    finalize.click()
    until(studio, job, "done")
    expect(page.get_by_role("table", name="SAEs that it made").get_by_role("row").last).to_contain_text("train")


def test_what_the_page_does_not_hold_yet_is_not_said_to_be_missing(studio: str, open_page: OpenPage) -> None:
    until(studio, training(studio), "done")
    page = open_page(studio, "about:blank")
    page.route(re.compile(r"/api/jobs\?limit=100$"), lambda route: route.fulfill(json={"jobs": [], "next": "older"}))
    page.route(
        re.compile(r"/api/jobs\?limit=200&cursor=older$"), lambda route: route.fulfill(json=call(studio, "/api/jobs"))
    )
    page.goto(f"{studio}/#/training")
    page.reload()
    expect(page.get_by_role("main")).to_contain_text("None of the newest")
    expect(page.get_by_text("Nothing has been trained yet")).to_have_count(0)
    page.get_by_role("button", name="Fetch older jobs").click()
    expect(row_of(page, "stories-l3")).to_contain_text("Done")
    expect(page.get_by_role("button", name="Fetch older jobs")).to_have_count(0)


def test_a_run_that_failed_says_why_and_opens_its_log(studio: str, open_page: OpenPage) -> None:
    job = training(studio, "markup")
    until(studio, job, "failed")
    page = open_page(studio, f"training/{job}")
    expect(page.get_by_role("alert")).to_contain_text("no text in <img src=x onerror=")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.get_by_role("button", name="Open log").click()
    expect(page.get_by_label(f"Log of job {job}", exact=True)).to_contain_text("fake worker, attempt 1")
    assert page.title() != "owned"


def test_anybody_can_read_it_and_on_a_phone_nothing_sticks_out(studio: str, open_page: OpenPage) -> None:
    training(studio, "a-very-long-name-of-an-autoencoder-that-somebody-has-chosen")
    until(studio, 4, "done")
    submit(
        studio,
        kind="train",
        tokenization="stories-pico",
        hook=[HOOK, "blocks.2.hook_mlp_out"],
        width=[64, 128],
        name="half",
    )
    until(studio, 5, "partial")
    page = open_page(studio, "training", viewport=PHONE)
    for place in ("training", "training/new", "training/4", "training/5?with=4"):
        page.goto(f"{studio}/#/{place}")
        page.reload()
        expect(page.get_by_role("main").get_by_role("heading", level=2)).to_be_visible()
        expect(page.get_by_role("main").locator("[aria-busy=true]")).to_have_count(0)
        if place == "training":
            page.get_by_role("button", name="4 SAEs").click()
            expect(page.get_by_text("failed: it diverged").first).to_be_visible()
        for summary in page.locator("summary").all():
            summary.click()
        for scheme, size in (("light", PHONE), ("dark", {"width": 1280, "height": 800})):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            assert serious(page) == [], f"{place}, {scheme}"
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], place
        sizes = [box["height"] for box in (b.bounding_box() for b in page.get_by_role("button").all()) if box]
        assert min(sizes, default=40) >= 40, place
