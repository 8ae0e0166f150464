"""Trainings on the page: asked for by mouse, followed to their end, laid over each other, held to what the API says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browsing import HOOK, IN_A_BROWSER, OpenPage, call, dataset, expect, section, submit, training, until
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
    page.get_by_label("Width", exact=True).fill("64")
    page.get_by_label("k", exact=True).fill("4")
    page.get_by_label("Training tokens").fill("5,000")
    page.get_by_text("Optimiser").click()
    page.get_by_label("Tokens in a step").fill("512")
    expect(page.get_by_label("Quick look")).not_to_be_checked()
    expect(plan.get_by_role("listitem")).to_have_text("pico-L2-mlp_out")
    page.get_by_role("button", name="Train", exact=True).click()

    expect(page.get_by_role("heading", name="pico-L2-mlp_out")).to_be_visible()
    job = int(page.url.rpartition("/")[2])
    spec = call(url, f"/api/jobs/{job}")["spec"]
    asked = [spec[name] for name in ("hook", "width", "k", "tokens", "batch_tokens", "architecture", "tokenization")]
    assert asked == ["blocks.2.hook_mlp_out", 64, 4, 5_000, 512, "batchtopk", "python-pico"]
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
        "--hook blocks.2.hook_mlp_out --width 64 --k 4 --tokens 5000 --batch-tokens 512"
    )
    expect(page.get_by_role("table", name="Checkpoints")).to_contain_text("10")


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
    fields = {"width": [512, 1024], "k": 16, "lr": 0.0005, "outliers": True, "whole_model": False, "tokens": 5_000_000}
    job = submit(studio, kind="train", tokenization="stories-pico", hook=HOOK, name="grid", **fields)
    until(studio, job, "done")
    page = open_page(studio, f"training/{job}")
    page.get_by_role("link", name="The same again with changes").click()
    expect(page.get_by_label("Width", exact=True)).to_have_value("512, 1,024")
    expect(page.get_by_label("What to call it")).to_have_value("grid-2")
    page.get_by_text("Optimiser").click()
    expect(page.get_by_label("Learning rate")).to_have_value("0.0005")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("heading", name="grid-2")).to_be_visible()
    newest = call(studio, "/api/jobs?limit=1")["jobs"][0]["spec"]
    was = call(studio, f"/api/jobs/{job}")["spec"]
    assert newest == {**was, "name": "grid-2"}


# -- runs ------------------------------------------------------------------------------------------------------------


def test_runs_are_rows_that_move_and_two_of_them_are_laid_over_each_other(studio: str, open_page: OpenPage) -> None:
    one = training(studio, "first")
    until(studio, one, "done")
    page = open_page(studio, "training")
    two = submit(studio, kind="train", tokenization="stories-pico", hook=HOOK, name="other", batch_tokens=1024)
    expect(row_of(page, "other").get_by_role("progressbar")).to_be_visible()
    expect(row_of(page, "first")).to_contain_text("2,048")
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


def test_a_run_is_paused_resumed_and_stopped_each_with_its_words(studio: str, open_page: OpenPage) -> None:
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


def test_a_run_that_failed_says_why_and_opens_its_log(studio: str, open_page: OpenPage) -> None:
    job = training(studio, "markup")
    until(studio, job, "failed")
    page = open_page(studio, f"training/{job}")
    expect(page.get_by_role("alert")).to_contain_text("no text in <img src=x onerror=")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.get_by_role("button", name="Open log").click()
    expect(page.get_by_label(f"Log of job {job}", exact=True)).to_contain_text("fake worker, attempt 1")
    assert page.title() != "owned"


@pytest.mark.parametrize("place", ["training", "training/new", "training/4"])
def test_on_a_phone_nothing_sticks_out(studio: str, open_page: OpenPage, place: str) -> None:
    training(studio, "a-very-long-name-of-an-autoencoder-that-somebody-has-chosen")
    until(studio, 4, "done")
    dataset(studio, "more")
    page = open_page(studio, place, viewport={"width": 390, "height": 844})
    expect(page.get_by_role("main").get_by_role("heading", level=2)).to_be_visible()
    expect(page.get_by_role("main").locator("[aria-busy=true]")).to_have_count(0)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = [box["height"] for box in (b.bounding_box() for b in page.get_by_role("button").all()) if box]
    assert min(sizes, default=40) >= 40
