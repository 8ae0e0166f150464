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
from browsing import IN_A_BROWSER, OpenPage, Page, call, expect, go_to, row, section
from hub import Hub, served_hub  # noqa: F401, the fixture hub
from pushing import NAMES, WEIGHTS
from served_studio import Served, served

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(600)]
TOKEN = f"hf_{secrets.token_hex(17)}"
SAE, REPO, PROMPT = "pico-l3", "me/pico-l3", "def read_lines(path):\n    "
HOOK, WIDTH = "blocks.3.hook_resid_post", 512
A_JOB_MS = 300_000  # where others use the machine too


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
    """Fill in the form that is open, in a dialog or on a page of its own, by its fields' names; press ``verb``."""
    dialog = page.get_by_role("dialog")
    form = dialog if dialog.count() else page.get_by_role("main").locator("form")
    for name, value in fields.items():
        field = form.locator(f"[name={name}]")
        if field.evaluate("(field) => field.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))
    form.get_by_role("button", name=verb, exact=True).click()


def is_there(page: Page, noun: str, name: str) -> dict[str, str]:
    """Wait for its row in a table, and give what stands in it by the titles of the columns."""
    table = page.get_by_role("table", name=noun)
    found = table.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True)).first
    expect(found).to_be_visible(timeout=A_JOB_MS)
    titles = table.get_by_role("columnheader").all_text_contents()
    return dict(zip([title.strip() for title in titles], found.get_by_role("cell").all_text_contents(), strict=True))


def artifact(studio: Served, noun: str, name: str) -> Any:
    return next(one for one in call(studio.url, f"/api/{noun}s")[f"{noun}s"] if one["name"] == name)


def done(studio: Served, kind: str) -> Any:
    """The newest job of a kind, which is done, with its result."""
    newest = next(job for job in call(studio.url, "/api/jobs")["jobs"] if job["kind"] == kind)
    found = call(studio.url, f"/api/jobs/{newest['id']}")
    assert found["state"] == "done", found
    return found


def features(studio: Served, query: str) -> Any:
    return call(studio.url, f"/api/saes/{SAE}/features?{query}&limit=1000")


def strongest(studio: Served) -> Any:
    return features(studio, "sort=-max")["features"][0]


def shows_features(page: Page, number: int) -> None:
    words = f"{number} features" if number == WIDTH else f"{number} of {WIDTH} features"
    expect(page.get_by_role("main").get_by_role("status").filter(has_text="features")).to_have_text(words)


# -- the steps ---------------------------------------------------------------------------------------------------------


def text_model_and_tokens(page: Page, studio: Served) -> None:
    page.get_by_role("button", name="Add dataset").click()
    page.get_by_role("radio", name="Built in").click()
    fill_in(page, "Add", rows=100)
    assert is_there(page, "Datasets", "python")["Documents"] == "100"
    go_to(page, "Models")
    page.get_by_role("button", name="Add model").click()
    fill_in(page, "Add", source="builtin:pico")
    shown = is_there(page, "Models", "pico")
    assert shown["Parameters"] == f"{artifact(studio, 'model', 'pico')['parameters']:,}"
    go_to(page, "Datasets")
    page.get_by_role("button", name="Tokenize python").click()
    fill_in(page, "Tokenize", context=128, tokens=80_000)
    shown, tokens = is_there(page, "Tokenizations", "python-pico"), artifact(studio, "tokenization", "python-pico")
    assert (shown["Tokens"], shown["Windows"]) == (f"{tokens['tokens']:,}", f"{tokens['windows']:,} × 128")


def an_sae_is_trained(page: Page, studio: Served) -> None:
    go_to(page, "Training")
    page.get_by_role("link", name="Train an SAE").first.click()
    expect(page.get_by_role("button", name=f"Leave out {HOOK}")).to_be_visible()  # the hook that is offered
    plan = section(page, "Plan")
    expect(plan).to_contain_text("Fits: ", timeout=A_JOB_MS)
    fill_in(page, "Train", width=WIDTH, k=16, tokens=64_000, name=SAE)
    expect(section(page, "How it stands").get_by_role("heading")).to_contain_text("Done", timeout=A_JOB_MS)
    job, sae = done(studio, "train"), artifact(studio, "sae", SAE)
    assert (job["spec"]["hook"], sae["width"], sae["k"]) == (HOOK, WIDTH, 16)
    shown = is_there(page, "SAEs that it made", SAE)
    assert (shown["FVU"], shown["L0"]) == (f"{sae['fvu']:.3f}", f"{sae['l0']:.1f}")
    chart = page.get_by_role("figure", name="FVU", exact=True)
    chart.get_by_text("Show data").click()
    metrics = call(studio.url, f"/api/jobs/{job['id']}/metrics?limit=1000")["metrics"]
    newest = [one for one in metrics if "fvu" in one["values"]][-1]
    expect(chart.get_by_role("row").last).to_have_text(f"{newest['step']}{newest['values']['fvu']:.3f}")


def its_features_are_found(page: Page, studio: Served) -> None:
    go_to(page, "Features")
    page.get_by_role("button", name=f"Extract the features of {SAE}").click()
    fill_in(page, "Extract", tokens=64_000)
    first = page.get_by_role("grid", name="Features").get_by_role("row").nth(1)
    expect(first).to_be_visible(timeout=A_JOB_MS)
    shows_features(page, WIDTH)
    one = strongest(studio)
    expect(first.get_by_role("link")).to_have_text(str(one["index"]))
    expect(first).to_contain_text(f"{one['max']:.1f}")


def they_are_labelled(page: Page, studio: Served) -> None:
    alive = features(studio, "filter=alive")["total"]
    page.get_by_role("button", name="Label features").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"{alive} features to do", timeout=A_JOB_MS)
    fill_in(page, "Label", endpoint="tokens")
    expect(page.get_by_role("dialog")).to_have_count(0)
    go_to_jobs(page)
    expect(row(page, "Ended", f"Label features of {SAE}")).to_contain_text("Done in", timeout=A_JOB_MS)
    assert done(studio, "label")["result"]["labelled"] == alive
    go_to(page, "Features")
    page.get_by_role("combobox", name="Show", exact=True).select_option("labelled")
    shows_features(page, alive)
    first = page.get_by_role("grid", name="Features").get_by_role("row").nth(1)
    expect(first).to_contain_text(strongest(studio)["label"]["text"])
    labels = " ".join(one["label"]["text"] for one in features(studio, "filter=labelled")["features"])
    word = re.findall(r"`(\w{3,})`", labels)[0]
    page.get_by_role("searchbox", name="Search").fill(word)
    shows_features(page, features(studio, f"filter=labelled&q={word}")["total"])


def go_to_jobs(page: Page) -> None:
    page.get_by_role("contentinfo").get_by_role("link").last.click()
    expect(page.get_by_role("main").get_by_role("heading", level=2)).to_have_text("Jobs")


def the_model_is_steered(page: Page, studio: Served) -> int:
    """At twice its largest activation, at nothing, and at twice as much taken away; gives the feature."""
    go_to(page, "Features")
    one = strongest(studio)
    page.get_by_role("grid", name="Features").get_by_role("link", name=str(one["index"]), exact=True).click()
    page.get_by_role("link", name="Steer with this").click()
    edit = page.get_by_role("group", name=f"feature {one['index']}", exact=True)
    expect(edit).to_contain_text(one["label"]["text"])
    expect(edit).to_contain_text("nats at", timeout=A_JOB_MS)  # calibration has found what its strengths do
    page.get_by_label("Prompt").fill(PROMPT)
    page.get_by_label("Tokens to write").fill("24")
    slider, exact = edit.get_by_role("slider"), edit.get_by_label(f"Strength of feature {one['index']}")
    exact.fill("2")
    more = written(page, studio, run=1, strength=2)
    slider.dblclick()  # back to nothing
    expect(exact).to_have_value("0")
    zero = written(page, studio, run=2, strength=0)
    exact.fill("-2")
    less = written(page, studio, run=3, strength=-2)
    baselines = {run["result"]["baseline"]["text"] for run in (more, zero, less)}
    texts = [run["result"]["steered"][0]["text"] for run in (more, zero, less)]
    assert baselines == {texts[1]}, "at nothing it is the model's own text"
    assert len(set(texts)) == 3
    for run in (more, less):
        assert run["result"]["steered"][0]["kl"] > 0
        assert run["result"]["edits"][0]["maximum"] == pytest.approx(one["max"], rel=1e-5)
    return int(one["index"])


def written(page: Page, studio: Served, run: int, strength: float) -> Any:
    """Press the button, and hold what is shown to what is stored; gives the run."""
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page).to_have_url(re.compile(rf"[?&]run={run}\b"), timeout=A_JOB_MS)
    kept = call(studio.url, f"/api/steerings/{run}")
    assert [one["strength"] for one in kept["spec"]["steering"]] == [strength]
    base, one = kept["result"]["baseline"], kept["result"]["steered"][0]
    assert (one["kl"] == 0) == (strength == 0)
    beside = section(page, "What was written")
    for name, stored in (("Baseline", base), ("Steered", one)):
        expect(beside.get_by_role("article", name=name)).to_contain_text(f"Perplexity{stored['perplexity']:.1f}")
        assert beside.get_by_role("article", name=name).locator("p.words").text_content() == stored["text"]
    expect(beside.get_by_role("article", name="Steered")).to_contain_text(f"KL{one['kl']:.2f} nats")
    return kept


def it_is_shared(page: Page, studio: Served, hub: Hub, feature: int) -> None:
    sha256 = hashlib.sha256((studio.data / "saes" / SAE / WEIGHTS).read_bytes()).hexdigest()
    go_to(page, "SAEs")
    page.get_by_role("table", name="SAEs").get_by_role("link", name=SAE, exact=True).click()
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Export", exact=True).first.click()
    fill_in(page, "Export")
    expect(dialog).to_contain_text("It lies in", timeout=A_JOB_MS)
    exported = Path(done(studio, "export")["result"]["path"])
    expect(dialog).to_contain_text(str(exported))
    assert hashlib.sha256((exported / WEIGHTS).read_bytes()).hexdigest() == sha256
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    page.get_by_role("button", name="Push to the Hub").click()
    fill_in(page, "Show what would go", repo=REPO)
    dialog.get_by_label("Token of the Hub that may write").fill(TOKEN, timeout=A_JOB_MS)
    dialog.get_by_role("button", name="Keep and try again").click()
    expect(dialog.get_by_role("table", name="What would go")).to_contain_text(WEIGHTS, timeout=A_JOB_MS)
    expect(dialog.get_by_role("region", name="Its card")).to_contain_text(f"{artifact(studio, 'sae', SAE)['fvu']:.4g}")
    assert hub.repo("models", REPO) is None
    dialog.get_by_role("button", name="Push", exact=True).click()
    expect(dialog).to_contain_text("It is at", timeout=A_JOB_MS)
    what_is_on_the_hub(studio, hub, sha256, feature)


def what_is_on_the_hub(studio: Served, hub: Hub, sha256: str, feature: int) -> None:
    repo = hub.repo("models", REPO)
    assert repo is not None
    _, files = repo.newest()
    assert set(files) - {".gitattributes"} == NAMES and files[WEIGHTS].sha256 == sha256
    sent = json.loads(files["feature_labels.json"].place.read_text())["labels"]
    labels = {one["feature"]: one["text"] for one in sent}
    kept = {one["index"]: one["label"]["text"] for one in features(studio, "filter=labelled")["features"]}
    assert labels == kept and labels[feature]
