"""The six steps by mouse, in a studio where nothing is yet: what a film of it would show, and that each number is true.

Each step is a function, which finds what it presses by role and label. What is typed is what a person would type.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, OpenPage, Page, call, expect, go_to, row
from hub import Hub, served_hub  # noqa: F401, the fixture hub
from pushing import NAMES, WEIGHTS
from served_studio import Served, served

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(600)]
TOKEN = f"hf_{secrets.token_hex(17)}"
SAE, REPO, PROMPT = "pico-l3", "me/pico-l3", "def read_lines(path):\n    "
HOOK = "blocks.3.hook_resid_post"
A_JOB_MS = 300_000


@pytest.fixture
def studio(tmp_path: Path, hub: Hub) -> Iterator[Served]:
    hub.uploads.let_write(TOKEN, "me")
    with served(tmp_path, hub) as studio:
        yield studio


def test_the_six_steps_by_mouse(studio: Served, hub: Hub, open_page: OpenPage) -> None:
    page = open_page(studio.url, "datasets")
    text_model_and_tokens(page, studio)
    an_sae_is_trained(page, studio)
    its_features_are_found(page, studio)
    they_are_labelled(page, studio)
    feature = the_model_is_steered(page, studio)
    it_is_shared(page, studio, hub, feature)


# -- what several steps do ---------------------------------------------------------------------------------------------


def fill_in(page: Page, verb: str, **fields: Any) -> None:
    """Fill in the dialog that is open, by the names of its fields, and press ``verb``."""
    dialog = page.get_by_role("dialog")
    for name, value in fields.items():
        field = dialog.locator(f"[name={name}]")
        if not field.is_visible():
            dialog.get_by_text("More", exact=True).click()
        if field.evaluate("(field) => field.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))
    dialog.get_by_role("button", name=verb, exact=True).click()
    expect(dialog).to_have_count(0)


def done(studio: Served, kind: str) -> Any:
    """The newest job of a kind, with its result."""
    found = next(job for job in call(studio.url, "/api/jobs")["jobs"] if job["kind"] == kind)
    return call(studio.url, f"/api/jobs/{found['id']}")


def until_ended(page: Page, studio: Served, kind: str) -> Any:
    """Watch the list of jobs until the newest of a kind is done there, and give it."""
    go_to_jobs(page)
    expect(row(page, "Ended", f"job {done(studio, kind)['id']}")).to_contain_text("Done in", timeout=A_JOB_MS)
    found = done(studio, kind)
    assert found["state"] == "done", found
    return found


def go_to_jobs(page: Page) -> None:
    page.get_by_role("contentinfo").get_by_role("link").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("Jobs")


def artifact(studio: Served, noun: str, name: str) -> Any:
    return next(one for one in call(studio.url, f"/api/{noun}s")[f"{noun}s"] if one["name"] == name)


def cells(page: Page, table: str, name: str) -> dict[str, str]:
    """What stands in the row of ``name``, by the titles of the columns."""
    found = page.get_by_role("table", name=table)
    titles = [title.strip() for title in found.get_by_role("columnheader").all_inner_texts()]
    texts = found.get_by_role("row").filter(has_text=name).first.get_by_role("cell").all_inner_texts()
    return dict(zip(titles, texts, strict=True))


# -- the steps ---------------------------------------------------------------------------------------------------------


def text_model_and_tokens(page: Page, studio: Served) -> None:
    page.get_by_role("button", name="Add dataset").click()
    fill_in(page, "Add", source="builtin:python", rows=200)
    expect(page.get_by_role("table", name="Datasets")).to_contain_text("python", timeout=A_JOB_MS)
    go_to(page, "Models")
    page.get_by_role("button", name="Add model").click()
    fill_in(page, "Add", source="builtin:pico")
    expect(page.get_by_role("table", name="Models")).to_contain_text("pico", timeout=A_JOB_MS)
    model = artifact(studio, "model", "pico")
    assert cells(page, "Models", "pico")["Parameters"] == f"{model['parameters']:,}"
    go_to(page, "Datasets")
    assert cells(page, "Datasets", "python")["Documents"] == "200"
    page.get_by_role("button", name="Tokenize python").click()
    fill_in(page, "Tokenize", context=128, tokens=150_000, name="python-pico")
    expect(page.get_by_role("table", name="Tokenizations")).to_contain_text("python-pico", timeout=A_JOB_MS)
    tokens = artifact(studio, "tokenization", "python-pico")
    shown = cells(page, "Tokenizations", "python-pico")
    assert (shown["Tokens"], shown["Windows"]) == (f"{tokens['tokens']:,}", f"{tokens['windows']:,} × 128")


def an_sae_is_trained(page: Page, studio: Served) -> None:
    go_to(page, "Training")
    page.get_by_role("link", name="Train an SAE").click()
    expect(page.get_by_role("dialog")).to_contain_text("it fits", timeout=A_JOB_MS)
    fill_in(page, "Train", hook=HOOK, width=512, k=16, tokens=100_000, name=SAE)
    job = until_ended(page, studio, "train")
    sae = artifact(studio, "sae", SAE)
    assert (job["spec"]["hook"], sae["width"], sae["k"]) == (HOOK, 512, 16)
    outcome = f"FVU {sae['fvu']:.3f} at L0 {sae['l0']:.1f}"
    expect(row(page, "Ended", f"Train SAE {SAE}")).to_contain_text(outcome)
    page.get_by_role("link", name=SAE).first.click()
    chart = page.get_by_role("figure", name="FVU")
    chart.get_by_text("Show data").click()
    metrics = call(studio.url, f"/api/jobs/{job['id']}/metrics?limit=1000")["metrics"]
    newest = [one for one in metrics if "fvu" in one["values"]][-1]
    expect(chart.get_by_role("row").last).to_have_text(f"{newest['step']}{newest['values']['fvu']:.3f}")


def its_features_are_found(page: Page, studio: Served) -> None:
    go_to(page, "Features")
    page.get_by_role("button", name=f"Extract the features of {SAE}").click()
    expect(page.get_by_role("status")).to_contain_text("extracts them")
    until_ended(page, studio, "extract")
    go_to(page, "Features")
    expect(page.get_by_role("heading", level=2)).to_have_text("Features 512")
    strongest = features(studio, "sort=-max&limit=1")[0]
    first = page.get_by_role("table", name="Features").get_by_role("row").nth(1)
    expect(first).to_contain_text(f"{strongest['max']:.1f}")
    expect(first.get_by_role("link")).to_have_text(str(strongest["index"]))


def features(studio: Served, query: str) -> Any:
    return call(studio.url, f"/api/saes/{SAE}/features?{query}")["features"]


def they_are_labelled(page: Page, studio: Served) -> None:
    alive = call(studio.url, f"/api/saes/{SAE}/features?filter=alive&limit=1")["total"]
    page.get_by_role("button", name="Label features").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"{alive} features", timeout=A_JOB_MS)
    fill_in(page, "Label")
    assert until_ended(page, studio, "label")["result"]["labelled"] == alive
    go_to(page, "Features")
    strongest = features(studio, "sort=-max&limit=1")[0]
    first = page.get_by_role("table", name="Features").get_by_role("row").nth(1)
    expect(first).to_contain_text(strongest["label"]["text"])
    words = re.findall(r"`(\w{3,})`", " ".join(one["label"]["text"] for one in features(studio, "filter=labelled")))
    page.get_by_role("searchbox", name="Search").fill(words[0])
    found = call(studio.url, f"/api/saes/{SAE}/features?q={words[0]}&limit=1")["total"]
    expect(page.get_by_role("heading", level=2)).to_have_text(f"Features {found}")


def the_model_is_steered(page: Page, studio: Served) -> int:
    """At nothing, at more and at less; gives the feature."""
    go_to(page, "Features")
    page.get_by_role("searchbox", name="Search").fill("")
    strongest = features(studio, "sort=-max&limit=1")[0]["index"]
    page.get_by_role("table", name="Features").get_by_role("link", name=str(strongest), exact=True).click()
    page.get_by_role("link", name="Steer with this").click()
    slider = page.get_by_role("slider")
    expect(slider).to_be_enabled(timeout=A_JOB_MS)  # its range was found
    page.get_by_label("Prompt").fill(PROMPT)
    texts = {}
    for part in (0.5, 0.9, 0.1):
        run = written_at(page, studio, slider, part)
        (edit,) = run["spec"]["steering"]
        base, one = run["result"]["baseline"], run["result"]["steered"][0]
        texts[part] = base["text"], one["text"]
        assert edit["feature"] == strongest and abs(edit["strength"]) == edit["strength"] * (1 if part >= 0.5 else -1)
        assert (one["kl"] == 0) == (edit["strength"] == 0)
    assert texts[0.5][0] == texts[0.5][1], "at nothing it is the model's own text"
    assert len({base for base, _ in texts.values()}) == 1 and len({other for _, other in texts.values()}) == 3
    return int(strongest)


def written_at(page: Page, studio: Served, slider: Any, part: float) -> Any:
    """Press the slider so far along, write, and hold what is shown to what is stored; gives the run."""
    box = slider.bounding_box()
    if part == 0.5:
        slider.dblclick()  # to nothing
    else:
        page.mouse.click(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
    before = len(call(studio.url, "/api/steerings")["steerings"])
    page.get_by_role("button", name="Write", exact=True).click()
    beside = page.get_by_role("region", name="What was written")
    expect(beside).to_contain_text("nats a token", timeout=A_JOB_MS)
    expect(beside).to_have_attribute("aria-busy", "false")
    runs = call(studio.url, "/api/steerings")["steerings"]
    assert len(runs) == before + 1
    run = call(studio.url, f"/api/steerings/{runs[0]['id']}")
    shown = [beside.get_by_role("heading", name=name).locator("xpath=..").locator("p").text_content()
             for name in ("Baseline", "Steered")]  # fmt: skip
    assert shown == [run["result"]["baseline"]["text"], run["result"]["steered"][0]["text"]]
    expect(beside).to_contain_text(f"{run['result']['steered'][0]['kl']:.2f} nats a token")
    expect(page.get_by_role("main").locator("output")).to_have_text(f"{run['spec']['steering'][0]['strength']:.2f}")
    return run


def it_is_shared(page: Page, studio: Served, hub: Hub, feature: int) -> None:
    give_the_token(page)
    sha256 = hashlib.sha256((studio.data / "saes" / SAE / WEIGHTS).read_bytes()).hexdigest()
    go_to(page, "SAEs")
    page.get_by_role("table", name="SAEs").get_by_role("link", name=SAE).click()
    page.get_by_role("button", name="Export", exact=True).click()
    fill_in(page, "Export", format="saelens")
    exported = Path(until_ended(page, studio, "export")["result"]["path"])
    assert hashlib.sha256((exported / WEIGHTS).read_bytes()).hexdigest() == sha256
    go_to(page, "SAEs")
    page.get_by_role("table", name="SAEs").get_by_role("link", name=SAE).click()
    page.get_by_role("button", name="Push to the Hub").click()
    fill_in(page, "Push", repo=REPO)
    until_ended(page, studio, "push")
    repo = hub.repo("models", REPO)
    assert repo is not None
    _, files = repo.newest()
    assert set(files) - {".gitattributes"} == NAMES and files[WEIGHTS].sha256 == sha256
    labels = json.loads(files["feature_labels.json"].place.read_text())
    label = call(studio.url, f"/api/saes/{SAE}/features/{feature}")["label"]["text"]
    assert label in json.dumps(labels, ensure_ascii=False)


def give_the_token(page: Page) -> None:
    """Where a repository of the Hub is named."""
    go_to(page, "Models")
    page.get_by_role("button", name="Add model").click()
    page.get_by_label("Where it comes from").fill(REPO)
    page.get_by_text("It is private or gated").click()
    page.get_by_label("Token of the Hub").fill(TOKEN)
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(page.get_by_role("dialog")).to_contain_text("The studio's token of the Hub is used")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
