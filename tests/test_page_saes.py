"""The panel SAEs in Chromium, before a real daemon with real workers: what a person does there, and that it is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, OpenPage, call, expect, go_to, section, serious
from hub import Hub
from made_data import HOOK, SAE
from neuronpedia_server import KEY, Neuronpedia
from repos_of_saes import gemma_scope
from studio import HERE, ROOT, end

pytestmark = IN_A_BROWSER
TOKEN = "hf_" + "t" * 34
WORK_MS = 200_000  # a job of a real worker, on a machine that has other work
SCOPE = "google/gemma-scope-2b-pt-res"


@dataclass
class Hubbed:
    """A studio on a copy of the made data, whose Hub and Neuronpedia are the tests' own."""

    url: str
    data: Path
    hub: Hub
    neuronpedia: Neuronpedia


@pytest.fixture
def hubbed(made_data: Path, tmp_path: Path) -> Iterator[Hubbed]:
    data = Path(shutil.copytree(made_data, tmp_path / "data"))
    with Hub() as hub, Neuronpedia() as neuronpedia:
        hub.uploads.let_write(TOKEN, "org")
        environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environ |= {"PYTHONPATH": str(ROOT), **hub.environ(tmp_path / "huggingface")}
        settings = json.dumps({"neuronpedia_url": neuronpedia.url})
        command = [sys.executable, str(HERE / "studio.py"), str(data), str(HERE / "real_worker.py"), "0", settings]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        assert process.stdout is not None
        try:
            yield Hubbed(process.stdout.readline().strip(), data, hub, neuronpedia)
        finally:
            end(process, signal.SIGTERM)


def of(url: str, sae: str = SAE) -> Any:
    return call(url, f"/api/saes/{sae}")


def newest(url: str, kind: str) -> Any:
    return next(job for job in call(url, "/api/jobs")["jobs"] if job["kind"] == kind)


def models_of(url: str, source: str) -> list[Any]:
    """The jobs that bring in a model."""
    return [job for job in call(url, "/api/jobs")["jobs"] if job["spec"].get("source") == source]


def cells(page: Any, sae: str) -> list[str]:
    row = (
        page.get_by_role("table", name="SAEs")
        .get_by_role("row")
        .filter(has=page.get_by_role("link", name=sae, exact=True))
    )
    return [" ".join(text.split()) for text in row.get_by_role("cell").all_inner_texts()]


def dialog(page: Any) -> Any:
    return page.get_by_role("dialog")


def assert_readable(page: Any) -> None:
    """By anybody, in both themes."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == []


# -- what is there ---------------------------------------------------------------------------------------------------


def test_rows_have_the_figures_of_the_api_and_are_found_by_what_they_say(made_studio: str, open_page: OpenPage) -> None:
    sae, labels = of(made_studio), call(made_studio, f"/api/saes/{SAE}/labels/summary")["labelled"]
    call(made_studio, f"/api/saes/{SAE}", {"add_tags": ["tried"]}, "PATCH")
    weights = call(made_studio, "/api/disk")["saes"][0]["weights"]
    page = open_page(made_studio, "saes")
    expect(page.get_by_role("table", name="SAEs")).to_contain_text("labelled")
    expect(page.get_by_role("table", name="SAEs")).to_contain_text(" kB")
    name, reads, width, l0, fvu, ce_delta, dead, checked, features, source, _ = cells(page, SAE)
    assert (name, reads, width) == (f"{SAE} tried", f"pico {HOOK}", "512 k 16")
    assert (l0, fvu, ce_delta) == (f"{sae['l0']:.1f}", f"{sae['fvu']:.3f}", f"{sae['ce_delta']:.3f}")
    assert float(dead.strip("<%")) == pytest.approx(100 * (1 - sae["alive"]), abs=0.5)
    assert checked == "not certified not evaluated"
    assert features == f"{100 * labels / 512:.0f}% labelled"
    assert source == f"trained here {weights / 1e3:.1f} kB"
    assert_readable(page)
    page.get_by_role("searchbox").fill("resid tried")
    expect(page.get_by_role("table", name="SAEs").get_by_role("row")).to_have_count(2)
    page.get_by_role("searchbox").fill("nothing such")
    expect(page.get_by_role("main")).to_contain_text("No SAE has “nothing such”.")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Tag").select_option("tried")
    expect(page.get_by_role("link", name=SAE, exact=True)).to_be_visible()
    assert page.url.endswith("#/saes?tag=tried")


def test_an_sae_is_evaluated_and_says_so_when_its_files_change(
    made_studio: str, tmp_path: Path, open_page: OpenPage
) -> None:
    page = open_page(made_studio, f"saes/{SAE}")
    evaluation = section(page, "Evaluation")
    evaluation.get_by_role("button", name="Evaluate").click()
    dialog(page).get_by_label("Held-out tokens at most").fill("4096")
    dialog(page).get_by_role("button", name="Evaluate").click()
    expect(section(page, "At work on it").get_by_role("article")).to_contain_text("Evaluate")
    table = page.get_by_role("table", name="Figures of the evaluation")
    expect(table).to_be_visible(timeout=WORK_MS)
    kept = json.loads((tmp_path / "data" / "saes" / SAE / "evaluation.json").read_text())
    for name, key, digits in (
        ("FVU", "fvu", 3),
        ("L0", "l0", 1),
        ("ΔCE, nats", "ce_delta", 3),
        ("Cosine", "cosine", 3),
    ):
        found, figures = (
            table.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True)),
            kept["figures"],
        )
        expect(found).to_contain_text(f"{figures[key]['value']:.{digits}f}")
        if ends := figures[key]["interval"]:
            expect(found).to_contain_text(f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}")
    for sentence in [*kept["verdict"], kept["probes"]["said"][0]]:
        expect(evaluation).to_contain_text(sentence)
    expect(evaluation).to_contain_text(f"on {kept['tokens']:,} held-out tokens of python-pico")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 800})
    config = tmp_path / "data" / "saes" / SAE / "cfg.json"
    config.write_text(config.read_text() + "\n")
    assert_readable(page)
    go_to(page, "SAEs")
    page.go_back()
    expect(evaluation).to_contain_text("Outdated. its files were changed after it was evaluated")
    expect(evaluation.get_by_role("button", name="Evaluate again")).to_be_visible()


def test_an_sae_is_certified_in_each_way_in_which_it_may_be_meant(
    made_studio: str, tmp_path: Path, open_page: OpenPage
) -> None:
    page = open_page(made_studio, f"saes/{SAE}")
    certificate = section(page, "Certificate")
    certificate.get_by_role("button", name="Certify").click()
    dialog(page).get_by_label("Held-out tokens").fill("1024")
    dialog(page).get_by_role("button", name="Certify").click()
    expect(certificate).to_contain_text("certified", timeout=WORK_MS)
    tried = json.loads((tmp_path / "data" / "saes" / SAE / "certificate.json").read_text())
    expect(certificate).to_contain_text(tried["verdict"][0])
    certificate.get_by_text(f"The {len(tried['tried'])} ways that were tried").click()
    declared = certificate.get_by_role("table").get_by_role("row").nth(1).get_by_role("cell")
    assert declared.all_inner_texts()[:2] == ["as declared", f"{tried['declared']['fvu']:.3f}"]


def test_what_a_person_says_of_it_its_name_the_trash_and_back(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, f"saes/{SAE}")
    page.get_by_role("button", name="Add a note or tags").click()
    page.get_by_label("Tags", exact=True).fill("small tried")
    page.get_by_label("Note", exact=True).fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_text("<img src=x onerror=alert(1)>")).to_be_visible()
    assert (of(made_studio)["tags"], of(made_studio)["note"]) == (["small", "tried"], "<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Rename").click()
    dialog(page).get_by_label("New name").fill("no such name!")
    dialog(page).get_by_role("button", name="Rename").click()
    expect(dialog(page).get_by_role("alert")).to_be_visible()
    dialog(page).get_by_label("New name").fill("pico-other")
    dialog(page).get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=2, name="pico-other")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(f"It was called {SAE} before")
    depending = call(made_studio, "/api/saes/pico-other/dependents")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(dialog(page)).to_contain_text(f"{depending['extractions']} extraction")
    expect(dialog(page)).to_contain_text(f"{depending['labels']} labels")
    dialog(page).get_by_role("button", name="Delete SAE").click()
    expect(page.get_by_role("main")).to_contain_text("No SAE is here yet")
    page.get_by_text("Trash: 1 removed SAE").click()
    page.get_by_role("button", name="Restore pico-other").click()
    expect(page.get_by_role("link", name="pico-other", exact=True)).to_be_visible()
    assert call(made_studio, "/api/saes/pico-other/dependents")["labels"] == depending["labels"]


# -- where it can go -------------------------------------------------------------------------------------------------


def test_an_export_lies_where_it_says_with_its_files_and_the_code_that_loads_it(
    made_studio: str, tmp_path: Path, open_page: OpenPage
) -> None:
    page = open_page(made_studio, f"saes/{SAE}")
    page.get_by_role("button", name="Export").first.click()
    expect(dialog(page).get_by_role("radio", name=re.compile("^sparsify"))).to_be_disabled()
    expect(dialog(page)).to_contain_text("Not for this SAE: sparsify has only SAEs that take the k largest latents.")
    dialog(page).get_by_role("button", name="Export").click()
    expect(dialog(page)).to_contain_text(str(tmp_path / "data" / "exports" / f"{SAE}-saelens"), timeout=WORK_MS)
    there = call(made_studio, f"/api/exports/{SAE}-saelens/files")["files"]
    expect(dialog(page).get_by_role("list", name=f"Files of {SAE}-saelens").get_by_role("listitem")).to_have_count(
        len(there)
    )
    expect(dialog(page)).to_contain_text('sae = SAE.load_from_disk(".")')
    with page.expect_download() as coming:
        dialog(page).get_by_role("link", name="sae_weights.safetensors").click()
    written = tmp_path / "data" / "exports" / f"{SAE}-saelens" / "sae_weights.safetensors"
    assert Path(coming.value.path()).read_bytes() == written.read_bytes()
    dialog(page).get_by_role("button", name="Close").last.click()
    exports = section(page, "Exports")
    exports.get_by_role("button", name=f"Delete the export {SAE}-saelens").click()
    dialog(page).get_by_role("button", name="Delete export").click()
    expect(exports).to_contain_text("It has not been written for another library yet")
    assert call(made_studio, "/api/exports")["exports"] == []


def test_what_goes_to_the_hub_is_seen_before_it_goes(hubbed: Hubbed, open_page: OpenPage) -> None:
    page = open_page(hubbed.url, f"saes/{SAE}")
    page.get_by_role("button", name="Push to the Hub").click()
    dialog(page).get_by_label("Repository").fill("no-owner")
    dialog(page).get_by_role("button", name="Show what would go").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("must be owner/name")
    dialog(page).get_by_label("Repository").fill("org/pico-small")
    dialog(page).get_by_role("button", name="Show what would go").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("publishing needs a token of the Hub", timeout=WORK_MS)
    dialog(page).get_by_label("Token of the Hub that may write").fill(TOKEN)
    dialog(page).get_by_role("button", name="Keep and try again").click()
    card = dialog(page).get_by_role("region", name="Its card")
    expect(card.get_by_role("heading", name=SAE, exact=True)).to_be_visible(timeout=WORK_MS)
    assert hubbed.hub.repo("models", "org/pico-small") is None
    dry = newest(hubbed.url, "push")["result"]
    expect(card).to_contain_text(f"FVU, the share of the variance that is not rebuilt{of(hubbed.url)['fvu']:.4g}")
    rows = dialog(page).get_by_role("table", name="What would go").get_by_role("row")
    expect(rows).to_have_count(1 + len(dry["files"]))
    expect(dialog(page)).to_contain_text(f"{len(dry['files'])} files, {dry['sent_bytes'] / 1e6:.1f} MB to send")
    assert_readable(page)
    page.route("**/api/jobs", lambda route: (time.sleep(0.5), route.continue_()))
    dialog(page).get_by_role("button", name="Push", exact=True).dblclick()
    expect(dialog(page).get_by_role("link", name=f"{hubbed.hub.url}/org/pico-small")).to_be_visible(timeout=WORK_MS)
    repo = hubbed.hub.repo("models", "org/pico-small")
    assert repo and {one["file"] for one in dry["files"]} == set(repo.newest()[1]) - {".gitattributes"}
    expect(dialog(page)).to_contain_text(repo.newest()[0][:12])
    jobs = [one for one in call(hubbed.url, "/api/jobs")["jobs"] if one["kind"] == "push"]
    assert len([one for one in jobs if not one["spec"]["dry_run"]]) == 1
    dialog(page).get_by_role("button", name="Close").last.click()
    expect(page.get_by_role("button", name="Push to the Hub")).to_be_focused()


def test_files_of_another_content_are_replaced_when_that_is_wanted(
    hubbed: Hubbed, tmp_path: Path, open_page: OpenPage
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "cfg.json").write_text("{}")
    hubbed.hub.add_model("org/theirs", theirs)
    page = open_page(hubbed.url, f"saes/{SAE}")
    page.evaluate("async (value) => (await import('/api.js')).put('/api/secrets/hf', { value })", TOKEN)
    page.get_by_role("button", name="Push to the Hub").click()
    dialog(page).get_by_label("Repository").fill("org/theirs")
    dialog(page).get_by_role("button", name="Show what would go").click()
    replace = dialog(page).get_by_role("button", name="Replace them")
    expect(replace).to_be_visible(timeout=WORK_MS)
    expect(dialog(page).get_by_role("alert")).to_contain_text("org/theirs has other files in the place of cfg.json")
    replace.click()
    rows = dialog(page).get_by_role("table", name="What would go").get_by_role("row")
    expect(rows.filter(has_text="cfg.json")).to_contain_text("replaces another", timeout=WORK_MS)
    assert newest(hubbed.url, "push")["spec"]["overwrite"] is True
    dialog(page).get_by_role("button", name="Back").click()
    expect(dialog(page).get_by_label("Repository")).to_have_value("org/theirs")
    dialog(page).get_by_role("button", name="Cancel").click()
    expect(dialog(page)).to_have_count(0)


def test_features_are_checked_and_then_put_on_neuronpedia_and_labels_come_back(
    hubbed: Hubbed, tmp_path: Path, open_page: OpenPage
) -> None:
    page = open_page(hubbed.url, f"saes/{SAE}")
    page.get_by_role("button", name="Put on Neuronpedia").click()
    dialog(page).get_by_role("button", name="Go on").click()
    expect(dialog(page)).to_contain_text("It breaks none of the rules.", timeout=WORK_MS)
    dialog(page).get_by_role("button", name="Upload").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("needs a key of Neuronpedia", timeout=WORK_MS)
    dialog(page).get_by_label("Key of Neuronpedia").fill(KEY)
    dialog(page).get_by_role("button", name="Keep and try again").click()
    expect(dialog(page)).to_contain_text("It is at", timeout=WORK_MS)
    result = newest(hubbed.url, "upload")["result"]
    expect(dialog(page)).to_contain_text(f"{result['features']:,} features and {result['labels']:,} labels")
    assert result["features"] == sum(len(of_source) for of_source in hubbed.neuronpedia.features.values())
    dialog(page).get_by_role("button", name="Close").last.click()
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        '{"index": "3", "modelId": "pico", "description": "from elsewhere"}\n{"index": "4", "description": ""}\n'
    )
    page.get_by_role("button", name="Take in labels").click()
    dialog(page).get_by_label("Files").set_input_files(labels)
    expect(dialog(page)).to_contain_text("1 label in 1 file, 1 without a text left out.")
    dialog(page).get_by_role("button", name="Take in").click()
    expect(dialog(page)).to_contain_text("1 were new, 0 known.")
    history = call(hubbed.url, f"/api/saes/{SAE}/features/3/labels")["labels"]
    assert "from elsewhere" in {one["text"] for one in history}


# -- those of others -------------------------------------------------------------------------------------------------


def test_saes_of_a_repository_are_seen_in_groups_and_several_are_brought_in(
    hubbed: Hubbed, tmp_path: Path, open_page: OpenPage
) -> None:
    for layer in range(8):
        for l0 in (9, 41):
            gemma_scope(tmp_path / "scope" / f"layer_{layer}/width_16k/average_l0_{l0}")
    hubbed.hub.add_model(SCOPE, tmp_path / "scope")
    for name in ("a", "b"):
        shutil.copytree(hubbed.data / "saes" / SAE, tmp_path / "picos" / "layer_3" / name)
    hubbed.hub.add_model("org/picos", tmp_path / "picos")
    page = open_page(hubbed.url, "saes")
    page.get_by_role("button", name="Add SAE").click()
    dialog(page).get_by_label("Where it comes from").fill(SCOPE)
    dialog(page).get_by_role("button", name="Show what is there").click()
    there = dialog(page).get_by_role("group", name="What is there")
    expect(there.get_by_text(re.compile(r"^Layer \d"))).to_have_count(8, timeout=WORK_MS)
    expect(dialog(page)).to_contain_text("Reads gemma-2-2b, which is not here.")
    dialog(page).get_by_label("Find in what is there").fill("layer_5 l0 41")
    expect(there.get_by_role("checkbox")).to_have_count(1)
    expect(there).to_contain_text("layer_5/width_16k/average_l0_41")
    there.get_by_role("checkbox").check()
    hubbed.hub.hangs = True  # so that the model's job does not end meanwhile
    dialog(page).get_by_label("What to call it").fill(SAE)
    dialog(page).get_by_role("button", name="Add", exact=True).click()
    expect(dialog(page).get_by_role("alert")).to_have_text("is taken")
    dialog(page).get_by_label("What to call it").fill("scope")
    dialog(page).get_by_role("button", name="Add", exact=True).click()
    expect(dialog(page)).to_have_count(0)
    hubbed.hub.hangs = False
    models = models_of(hubbed.url, "google/gemma-2-2b")
    assert [one["spec"]["name"] for one in models] == ["gemma-2-2b"]
    assert newest(hubbed.url, "add_sae")["after"] == [models[0]["id"]]
    page.get_by_role("button", name="Add SAE").click()
    dialog(page).get_by_label("Where it comes from").fill("org/picos")
    dialog(page).get_by_role("button", name="Show what is there").click()
    expect(dialog(page)).to_contain_text("Reads pico, which is here as pico.", timeout=WORK_MS)
    expect(there.get_by_role("checkbox")).to_have_count(2)
    dialog(page).get_by_role("button", name="Choose all 2").click()
    expect(dialog(page).get_by_role("status")).to_contain_text("2 chosen")
    dialog(page).get_by_role("button", name="Add", exact=True).click()
    for name in ("picos-layer_3-a", "picos-layer_3-b"):
        row = page.get_by_role("table", name="SAEs").get_by_role("link", name=name, exact=True)
        expect(row).to_be_visible(timeout=WORK_MS)
    assert of(hubbed.url, "picos-layer_3-b")["imported"]["path"] == "layer_3/b"
    expect(page.get_by_role("table", name="SAEs")).to_contain_text("org/picos:layer_3/b")


def test_a_model_that_did_not_come_is_asked_for_again_with_its_sae(
    hubbed: Hubbed, tmp_path: Path, open_page: OpenPage
) -> None:
    gemma_scope(tmp_path / "scope" / "layer_5/width_16k/average_l0_9")
    hubbed.hub.add_model(SCOPE, tmp_path / "scope")
    page = open_page(hubbed.url, "saes")
    page.get_by_role("button", name="Add SAE").click()
    dialog(page).get_by_label("Where it comes from").fill(f"{SCOPE}:layer_5/width_16k/average_l0_9")
    dialog(page).get_by_role("button", name="Show what is there").click()
    expect(dialog(page)).to_contain_text("Reads gemma-2-2b, which is not here.", timeout=WORK_MS)
    dialog(page).get_by_label("What to call it").fill(SAE)
    dialog(page).get_by_role("button", name="Add", exact=True).click()
    expect(dialog(page).get_by_role("alert")).to_have_text("is taken")
    assert len(models_of(hubbed.url, "google/gemma-2-2b")) == 1
    expect(page.locator("footer.jobbar")).to_contain_text("Failed after", timeout=WORK_MS)
    dialog(page).get_by_label("What to call it").fill("scope")
    dialog(page).get_by_role("button", name="Add", exact=True).click()
    expect(dialog(page)).to_have_count(0)
    assert len(models_of(hubbed.url, "google/gemma-2-2b")) == 2


def test_files_of_this_computer_are_sent_and_keep_the_name_that_is_typed_meanwhile(
    made_studio: str, made_data: Path, tmp_path: Path, open_page: OpenPage
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(made_data / "saes" / SAE / "sae_weights.safetensors", theirs)
    shutil.copy(made_data / "saes" / SAE / "cfg.json", theirs)
    page = open_page(made_studio, "saes")
    page.get_by_role("button", name="Add SAE").click()
    dialog(page).get_by_text("Or send it from this computer").click()
    page.route("**/api/uploads/*?*", lambda route: route.abort())
    dialog(page).get_by_label("Files", exact=True).set_input_files(list(theirs.iterdir()))
    expect(dialog(page)).to_contain_text("The studio does not take it now; trying again")
    page.unroute("**/api/uploads/*?*")
    dialog(page).get_by_label("What to call it").fill("theirs")
    expect(dialog(page)).to_contain_text("All of it is on the studio's machine.")
    expect(dialog(page)).to_contain_text("Reads pico, which is here as pico.", timeout=WORK_MS)
    expect(dialog(page).get_by_label("What to call it")).to_have_value("theirs")
    dialog(page).get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("table", name="SAEs").get_by_role("link", name="theirs", exact=True).click(timeout=WORK_MS)
    weights = Path(of(made_studio, "theirs")["folder"]) / "sae_weights.safetensors"
    assert weights.read_bytes() == (theirs / weights.name).read_bytes()


def test_an_sae_is_compared_with_itself_as_it_was_at_a_checkpoint(made_studio: str, open_page: OpenPage) -> None:
    job = of(made_studio)["job"]
    step = min(one["step"] for one in call(made_studio, f"/api/jobs/{job}/checkpoints")["checkpoints"])
    page = open_page(made_studio, f"saes/{SAE}")
    page.get_by_role("button", name=f"Compare with step {step}").click()
    expect(dialog(page).get_by_label("SAEs")).to_have_value(f"{SAE}, {SAE}@{step}")
    dialog(page).get_by_label("Held-out tokens at most").fill("4096")
    dialog(page).get_by_role("button", name="Compare").click()
    expect(section(page, "Verdict")).to_be_visible(timeout=WORK_MS)
    found = newest(made_studio, "compare")["result"]
    for sentence in found["pairs"][0]["verdict"]:
        expect(section(page, "Verdict")).to_contain_text(sentence)
    heads = page.get_by_role("rowheader", name="FVU", exact=True)
    row = page.get_by_role("table", name="Figures").get_by_role("row").filter(has=heads)
    for one in found["saes"]:
        expect(row).to_contain_text(f"{one['figures']['fvu']['value']:.3f}")
    matching = found["pairs"][0]["matching"]
    expect(page.get_by_role("main")).to_contain_text(f"{matching['pairs']:,} pairs are each other’s best")
    page.get_by_text(re.compile(r"^The \d+ nearest pairs")).click()
    link = page.get_by_role("table", name=re.compile("^Matched features")).get_by_role("link").first
    assert link.get_attribute("href") == f"#/features/{SAE}/{matching['best_pairs'][0]['a']}"
    assert_readable(page)


# -- on a phone ------------------------------------------------------------------------------------------------------


def test_nothing_sticks_out_on_a_phone(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "saes", viewport={"width": 390, "height": 844}, color_scheme="light")
    for place, there in (("saes", "labelled"), (f"saes/{SAE}", "recipe.json")):
        page.goto(f"{made_studio}/#/{place}")
        expect(page.get_by_role("main")).to_contain_text(there)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for verb in ("Export", "Push to the Hub", "Rename", "Delete"):
        page.get_by_role("button", name=verb, exact=True).first.click()
        expect(dialog(page)).to_be_visible()
        box = dialog(page).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        page.keyboard.press("Escape")
        expect(dialog(page)).to_have_count(0)
    go_to(page, "SAEs")
