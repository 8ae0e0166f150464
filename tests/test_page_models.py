"""Models in the page: looked at before they are fetched, what they take, and where an SAE can read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, OpenPage, Page, call, expect, section, submit, until
from conftest import put_artifact
from hub import Hub, served_hub  # noqa: F401
from studio import running
from tiny_models import tiny_model

from mistudiod.facts import read_facts

pytestmark = IN_A_BROWSER


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def check(page: Page, source: str) -> Any:
    """Ask what is at a source, in the dialog; what the page then shows of it."""
    page.get_by_label("Where it comes from").fill(source)
    button(page, "Check what it takes").click()
    return page.get_by_role("group", name="What it is")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tiny_model("llama", tmp_path / "tiny")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def hubbed(hub: Hub, tiny: Path, tmp_path: Path) -> Iterator[str]:
    """A studio whose Hub is the tests' own: ``org/tiny``, ``org/closed`` for those with access, ``org/mamba``."""
    hub.add_model("org/tiny", tiny)
    hub.add_model("org/closed", tiny, gated=True)
    hub.allow("hf_member", "org/closed")
    other = tiny_model("llama", tmp_path / "mamba")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    hub.add_model("org/mamba", other)
    with running(tmp_path / "data", "real_worker.py", environ=hub.environ(tmp_path / "hf")) as url:
        yield url


def test_a_model_is_looked_at_before_its_weights_are_fetched_and_then_added(
    hubbed: str, hub: Hub, tiny: Path, open_page: OpenPage
) -> None:  # fmt: skip
    facts = read_facts(tiny)
    page = open_page(hubbed, "models")
    button(page, "Add model").click()
    found = check(page, "org/tiny")
    expect(found).to_contain_text(f"Parameters{facts.parameters:,}", timeout=60_000)
    total = sum(file.stat().st_size for file in tiny.iterdir())
    expect(found).to_contain_text(f"To download{total / 1000:.1f} kB")
    assert hub.bytes_served("org/tiny") < total / 2
    weights = found.get_by_role("table", name="Memory for its weights").get_by_role("row")
    expect(weights.nth(1)).to_contain_text(f"{facts.weight_bytes['fp32'] / 1000:.1f} kBfits")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    row = page.get_by_role("table", name="Models").get_by_role("row").nth(1)
    expect(row).to_contain_text("org/tiny", timeout=60_000)
    expect(row).to_contain_text(f"{facts.parameters:,}")

    button(page, "Delete the model tiny").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No model is here yet")).to_be_visible()
    button(page, "Add model").click()
    cached = page.get_by_role("group", name="On this machine already")
    cached.get_by_role("button", name="org/tiny").click()
    expect(found).to_contain_text("nothing: it is on the studio's machine", timeout=60_000)


def test_a_model_that_cannot_be_had_says_why_and_where_to_ask_for_it(
    hubbed: str, hub: Hub, tiny: Path, open_page: OpenPage
) -> None:  # fmt: skip
    page = open_page(hubbed, "models")
    button(page, "Add model").click()
    found = check(page, "org/mamba")
    expect(found.get_by_role("alert")).to_contain_text("holds a model of type 'mamba'", timeout=60_000)
    check(page, "org/none")
    alert = page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_contain_text("there is no public model org/none on the Hub", timeout=60_000)
    expect(page.get_by_label("Where it comes from")).to_have_attribute("aria-invalid", "true")
    check(page, "org/closed")
    expect(found.get_by_role("alert")).to_contain_text("org/closed is gated", timeout=60_000)
    expect(found).to_contain_text(f"Parameters{read_facts(tiny).parameters:,}")
    link = page.get_by_role("list").get_by_role("link", name=f"{hub.url}/org/closed")
    expect(link).to_have_attribute("target", "_blank")
    page.get_by_label("Token of the Hub").fill("hf_member")
    button(page, "Keep the token").click()
    expect(found).to_contain_text("the studio's token has access to it", timeout=60_000)
    expect(found.get_by_role("table", name="Memory for its weights")).to_be_visible()


def test_a_model_shows_where_it_can_be_read_and_leads_to_training_there(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "models/pico")
    model = call(made_studio, "/api/models/pico")
    tree = section(page, f"Where an SAE can read it {len(model['hooks'])}")
    expect(tree.locator("summary")).to_have_count(model["n_layers"])
    expect(tree.get_by_role("link")).to_have_count(0)
    tree.locator("summary").nth(3).focus()
    page.keyboard.press("Enter")
    expect(tree.get_by_role("link")).to_have_count(len(model["hook_widths"]))
    for point, width in model["hook_widths"].items():
        hook = tree.get_by_role("listitem").filter(has_text=point).last
        expect(hook).to_contain_text(f"{width} wide")
    expect(tree).to_contain_text("self_attn.q_proj 192 × 192")
    link = tree.get_by_role("link", name="Train here: blocks.3.hook_resid_post", exact=True)
    expect(link).to_have_attribute("href", "#/training/new?model=pico&hook=blocks.3.hook_resid_post")
    page.get_by_label("Filter hooks").fill("mlp post")
    expect(tree.get_by_role("status")).to_have_text(f"{model['n_layers']} of {len(model['hooks'])}")
    expect(tree.get_by_role("link")).to_have_count(model["n_layers"])
    page.get_by_label("Filter hooks").fill("nothing")
    button(page, "Clear").click()
    expect(tree.locator("summary")).to_have_count(model["n_layers"])
    expect(page.get_by_role("main")).to_contain_text("python-pico")
    rows = page.get_by_role("table", name="Memory for its weights").get_by_role("row")
    shown = [re.findall(r"[\d.]+ MB", row.inner_text())[0] for row in rows.all()[1:]]
    assert shown == [f"{model['weight_bytes'][one] / 1e6:.1f} MB" for one in ("fp32", "bf16", "fp16", "int8", "nf4")]


def test_deleting_a_model_names_what_was_made_with_it(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "models")
    expect(page.get_by_role("table", name="Models")).to_contain_text("1 tokenization, 1 SAE")
    button(page, "Delete the model pico").click()
    expect(page.get_by_role("dialog")).to_contain_text("has to go first: python-pico, pico-small")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("alert")).to_contain_text("is needed by the tokenization python-pico")


def test_a_model_of_many_layers_opens_at_once(tmp_path: Path, open_page: OpenPage) -> None:
    widths = {"hook_resid_pre": 8192, "attn.hook_z": 8192, "mlp.hook_post": 28672, "hook_resid_post": 8192}
    hooks = [f"blocks.{layer}.{point}" for layer in range(80) for point in widths]
    about = {"source": "x", "n_layers": 80, "d_model": 8192, "hooks": hooks, "hook_widths": widths}
    put_artifact(tmp_path / "data", "models", "deep", "model.json", json.dumps(about))
    with running(tmp_path / "data", "paced_worker.py") as url:
        page = open_page(url, "models")
        expect(page.get_by_role("table", name="Models")).to_contain_text("deep")
        took_ms = page.evaluate(
            "async () => { const began = performance.now(); location.hash = '#/models/deep';"
            " while (document.querySelectorAll('main summary').length < 80) await new Promise(requestAnimationFrame);"
            " return performance.now() - began; }"
        )
        assert took_ms < 3000
        assert page.locator("main *").count() < 1000
        page.get_by_label("Filter hooks").fill("blocks.79.")
        expect(page.get_by_role("link", name=re.compile("Train here"))).to_have_count(len(widths))


def test_a_failed_model_stands_in_the_panel_until_it_is_dismissed(tmp_path: Path, open_page: OpenPage) -> None:
    with running(tmp_path / "data", "paced_worker.py") as url:
        failed = submit(url, kind="add_model", source="/x", name="markup")
        until(url, failed, "failed")
        page = open_page(url, "models")
        button(page, "Take pico").click()
        expect(page.get_by_role("table", name="Models")).to_contain_text("pico")
        coming = section(page, "Models on their way")
        expect(coming).to_contain_text("no text in <img")
        with page.expect_response(f"**/api/jobs/{failed}/retry"):
            button(page, f"Try again job {failed}").click()
        until(url, failed, "failed")
        button(page, f"Dismiss job {failed}").click()
        expect(coming).to_have_count(0)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone_nothing_sticks_out(made_studio: str, open_page: OpenPage, scheme: str) -> None:
    page = open_page(made_studio, "models/pico", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.get_by_text("Block 3").click()
    expect(page.get_by_role("link", name="Train here: blocks.3.hook_resid_post", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    targets = [
        *page.get_by_role("main").get_by_role("button").all(),
        *page.get_by_role("link", name="Train here").all(),
    ]
    assert min(box["height"] for box in (one.bounding_box() for one in targets) if box) >= 40
