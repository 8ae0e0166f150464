"""The page's System and Settings in Chromium, before a real daemon: what they say is what the studio says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import IN_A_BROWSER, OpenPage, call, dataset, expect, section, until
from openai_server import OpenAIServer, served_openai  # noqa: F401, the fixture openai_server
from studio import ROOT, end, running

pytestmark = IN_A_BROWSER
KEY = "sk-canary-0123456789abcdef0123456789"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "data", "paced_worker.py", environ={"HF_ENDPOINT": "http://127.0.0.1:1"}) as url:
        yield url


@pytest.fixture
def offline_daemon(tmp_path: Path) -> Iterator[str]:
    """The daemon itself, as a person starts it: with a flag, and a settings file that names endpoints."""
    file = tmp_path / "mistudio.toml"
    file.write_text('endpoints = "far=https://far.example/v1"\n')
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    data = tmp_path / "data"
    command = [sys.executable, "-m", "mistudiod", "--config", str(file), "serve"]
    command += ["--data", str(data), "--port", "0", "--offline", "true"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        log = data / "mistudiod.log"
        for _ in range(400):
            if found := re.search(r"is at (http://\S+), data", log.read_text() if log.exists() else ""):
                break
            time.sleep(0.05)
        assert found
        yield found[1]
    finally:
        end(process, signal.SIGTERM)


def values(url: str) -> dict[str, Any]:
    return {one["name"]: one["value"] for one in call(url, "/api/settings")["settings"]}


def remove(url: str, path: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url + path, method="DELETE"), timeout=60) as answer:
        assert answer.status in (200, 204)


def table(page: Any, name: str) -> Any:
    return page.get_by_role("table", name=name)


# -- the machine -----------------------------------------------------------------------------------------------------


def test_the_machine_is_drawn_as_it_was_read_and_what_is_not_measured_is_named(
    studio: str, open_page: OpenPage
) -> None:
    while len(history := call(studio, "/api/system/history")["samples"]) < 2:  # one comes a second
        time.sleep(0.05)
    page = open_page(studio, "system")
    drawn = {"CPU": True, "RAM": True, "GPU": bool(history[-1]["gpus"]), "Network": False}
    for title, is_there in drawn.items():
        expect(page.get_by_role("figure", name=title, exact=True)).to_have_count(int(is_there))
    if not history[-1]["gpus"]:
        expect(section(page, "The last ten minutes")).to_contain_text("No GPU here: jobs run on the processor.")
    expect(section(page, "The last ten minutes")).to_contain_text("Traffic of disk and network is not measured.")
    chart = page.get_by_role("figure", name="RAM")
    chart.get_by_text("Show data").click()
    expect(chart.get_by_role("row").last).to_contain_text("now")
    shown = chart.get_by_role("row").last.get_by_role("cell").last.inner_text()
    read = {
        f"{(one['memory']['total_bytes'] - one['memory']['available_bytes']) / 1e9:.1f} GB"
        for one in call(studio, "/api/system/history")["samples"]
    }
    assert shown in read
    # By key: the newest, then one before it, on all charts at once.
    canvas = page.get_by_role("group", name="CPU: arrow keys")
    canvas.focus()
    canvas.press("ArrowLeft")
    canvas.press("ArrowLeft")
    expect(page.get_by_role("figure", name="CPU").locator("figcaption")).to_contain_text(re.compile(r"−\d+ s"))
    expect(chart.locator("figcaption")).to_contain_text(re.compile(r"−\d+ s"))
    expect(page.get_by_role("figure", name="CPU").locator("p")).to_contain_text("all cores")
    page.get_by_role("link", name="Settings").focus()
    expect(chart.locator("figcaption")).not_to_contain_text("−")


def test_memory_of_a_job_is_shown_as_it_was_predicted_and_as_it_is(studio: str, open_page: OpenPage) -> None:
    job = dataset(studio, "slow")
    until(studio, job, "running")
    found = call(studio, "/api/ps")
    on_gpu = {**found["running"][0], "predicted_bytes": 2_000_000_000, "measured_bytes": 3_000_000_000}
    page = open_page(studio, "system")
    memory = section(page, "At work").get_by_role("listitem").filter(has_text="slow")
    expect(memory).to_contain_text("Predictednot predicted")
    expect(memory).to_contain_text(re.compile(r"Measured\s*[\d.]+ MB"))
    page.route("**/api/ps", lambda route: route.fulfill(json={**found, "running": [on_gpu]}))
    page.reload()
    expect(memory).to_contain_text(re.compile(r"Predicted\s*2.0 GB"))
    expect(memory).to_contain_text(re.compile(r"Measured\s*3.0 GB"))
    widths = memory.evaluate("(li) => [...li.querySelectorAll('.part')].map((part) => part.offsetWidth)")
    assert widths[0] == pytest.approx(widths[1] * 2 / 3, abs=2)


def test_findings_come_by_themselves_with_what_to_do_about_them(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "system/settings")
    with page.expect_response("**/api/doctor") as told:  # what is free, say, is another number the next time
        page.goto(f"{studio}/#/system")
    report = told.value.json()
    well = section(page, "Is everything well?")
    expect(well).to_contain_text(re.compile("checks are fine"))
    for one in report["findings"]:
        if one["level"] != "ok":
            expect(well.get_by_role("listitem").filter(has_text=one["message"]).first).to_be_visible()
    status = call(studio, "/api/status")
    expect(well).to_contain_text(f"miStudio{status['version']}")
    expect(well).to_contain_text(f"Python{status['python']}")
    wrong = {"name": "clock", "level": "problem", "message": "<b>late</b>", "remedy": "sudo timedatectl set-ntp true"}
    page.route("**/api/doctor", lambda route: route.fulfill(json={"findings": [wrong], "ok": False}))
    well.get_by_role("button", name="Look again").click()
    expect(well).to_contain_text("Problem: clock. <b>late</b>")
    expect(well.get_by_text("sudo timedatectl set-ntp true", exact=True)).to_be_visible()
    expect(well.get_by_role("button", name="Copy")).to_be_visible()


def test_many_points_are_drawn_seldom_and_a_hidden_chart_not_at_all(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "system")
    drawn, took_ms = page.evaluate(
        """async () => {
            const { plot } = await import("/ui/plot.js");
            const box = document.createElement("div");
            document.body.append(box);
            box.style.width = "600px";
            const how = { names: ["a"], colourOf: () => 0, smooth: true, digits: 3, logX: false, onCursor() {} };
            const one = plot(box, how);
            const before = CanvasRenderingContext2D.prototype.clearRect;
            let count = 0;
            CanvasRenderingContext2D.prototype.clearRect = function (...all) {
                if (box.contains(this.canvas)) count++;
                return before.apply(this, all);
            };
            const steps = Array.from({ length: 50_000 }, (_, n) => n);
            const began = performance.now();
            for (let turn = 0; turn < 20; turn++) {
                one.show(steps, [{ values: steps.map((n) => Math.sin(n / 100)) }], 5);
                await new Promise((done) => setTimeout(done, 25));
            }
            await new Promise((done) => setTimeout(done, 600));
            const took_ms = performance.now() - began;
            one.destroy();
            one.show(steps, [{ values: steps }], 5);
            await new Promise((done) => setTimeout(done, 300));
            CanvasRenderingContext2D.prototype.clearRect = before;
            box.remove();
            return [count, took_ms];
        }"""
    )
    assert 1 <= drawn <= 2 + took_ms / 250


# -- disk, session, log ----------------------------------------------------------------------------------------------


def test_an_sae_is_brought_back_deleted_for_good_and_the_disk_says_so(made_studio: str, open_page: OpenPage) -> None:
    page = open_page(made_studio, "system/settings")
    disk = section(page, "Disk")
    with page.expect_response("**/api/disk") as told:  # the database grows a little at any time
        page.goto(f"{made_studio}/#/system")
    use = told.value.json()
    expect(disk.get_by_role("heading").first).to_contain_text(f"{use['bytes'] / 1e6:.1f} MB in all")
    expect(table(page, "Disk by SAE").get_by_role("row").last).to_contain_text(
        f"{use['saes'][0]['features'] / 1e6:.1f} MB"
    )
    sae = call(made_studio, "/api/saes")["saes"][0]["id"]
    remove(made_studio, f"/api/saes/{sae}")
    trashed = call(made_studio, "/api/trash")["trash"][0]
    row = table(page, "Trash").get_by_role("row").last
    expect(row).to_contain_text(f"{trashed['labels']:,}")
    row.get_by_role("button", name="Restore pico-small").click()
    expect(table(page, "Trash")).to_have_count(0)
    expect(table(page, "Disk by SAE")).to_contain_text("pico-small")
    sae = call(made_studio, "/api/saes")["saes"][0]["id"]
    remove(made_studio, f"/api/saes/{sae}")
    going = next(one for one in call(made_studio, "/api/clean", {})["groups"] if one["what"] == "trash")
    table(page, "What could go").get_by_role("button", name="Delete trash").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"1 thing goes, {going['bytes'] / 1e6:.1f} MB. What is lost: {going['lost']}.")
    dialog.get_by_role("button", name="Keep").click()
    assert len(call(made_studio, "/api/trash")["trash"]) == 1
    row.get_by_role("button", name="Delete pico-small for good").click()
    expect(dialog).to_contain_text(f"{trashed['labels']:,} labels. It cannot be brought back.")
    dialog.get_by_role("button", name="Delete").click()
    expect(table(page, "Trash")).to_have_count(0)
    assert call(made_studio, "/api/trash")["trash"] == []


def test_a_session_is_shown_with_its_memory_and_ended(made_studio: str, open_page: OpenPage) -> None:
    call(made_studio, "/api/session", {"model": "pico", "saes": ["pico-small"], "keep_alive": "1h"})
    page = open_page(made_studio, "system")
    kept = section(page, "Kept in memory for steering")
    expect(kept).to_contain_text("SAEspico-small")
    expect(kept).to_contain_text(re.compile(r"Memory of its processes[\d.]+ [MG]B"))
    expect(kept).to_contain_text(re.compile("Endsin about (1 h|60 min), if nobody uses it"))
    kept.get_by_role("button", name="End session").click()
    expect(kept).to_contain_text("No model.")
    assert call(made_studio, "/api/session")["session"] is None


# -- settings --------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_added_tried_given_a_key_made_the_default_and_removed(
    tmp_path: Path, openai_server: OpenAIServer, open_page: OpenPage
) -> None:
    openai_server.models = ["small", "<img onerror>"]
    with running(tmp_path / "data", "real_worker.py") as url:
        page = open_page(url, "system/settings")
        page.get_by_role("button", name="Add endpoint").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name").fill("Ours")
        dialog.get_by_label("Address").fill("http://169.254.169.254/latest")
        dialog.get_by_label("Key").fill(KEY)
        dialog.get_by_role("button", name="Add").click()
        expect(dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
        dialog.get_by_label("Name").fill("ours")
        dialog.get_by_role("button", name="Add").click()
        expect(dialog.get_by_role("alert")).to_contain_text("is where a cloud keeps its machines' keys")
        expect(dialog.get_by_label("Address")).to_have_attribute("aria-invalid", "true")
        dialog.get_by_label("Address").fill(openai_server.url)
        dialog.get_by_role("button", name="Add").click()
        row = table(page, "Endpoints").get_by_role("row").filter(has_text=openai_server.url)
        expect(row).to_contain_text("set now")
        assert f"ours={openai_server.url}" in values(url)["endpoints"]
        assert [one["name"] for one in call(url, "/api/secrets")["secrets"]] == [openai_server.url.split("/")[2]]
        row.get_by_role("button", name="Try ours").click()
        row.get_by_text("Yes, 2 models").click()
        expect(row.get_by_role("listitem")).to_have_text(["<img onerror>", "small"])
        page.get_by_label("Who is asked").select_option("ours")
        page.get_by_label("Model", exact=True).fill("small")
        section(page, "Labels begin with").get_by_role("button", name="Keep").click()
        expect(section(page, "Labels begin with").get_by_text("Kept.")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Model", exact=True)).to_have_value("small")
        row.get_by_role("button", name="Forget the key for ours").click()
        dialog.get_by_role("button", name="Forget").click()
        expect(row).to_contain_text("not set")
        row.get_by_role("button", name="Remove the endpoint ours").click()
        dialog.get_by_role("button", name="Remove").click()
        expect(row).to_have_count(0)
        now = values(url)
        assert (now["label_endpoint"], now["label_model"], "ours" in now["endpoints"]) == ("tokens", "", False)
        assert KEY not in page.content()


def test_the_form_for_labels_begins_as_the_settings_say_and_lists_the_models(
    made_studio: str, openai_server: OpenAIServer, open_page: OpenPage
) -> None:
    openai_server.models = ["large", "small"]
    changes = {"endpoints": f"ours={openai_server.url}", "label_endpoint": "ours", "label_model": "small"}
    call(made_studio, "/api/settings", changes, "PATCH")
    page = open_page(made_studio, "features/pico-small")
    expect(page.get_by_role("button", name="Extract again")).to_be_visible()
    page.get_by_role("button", name="Label features").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Who is asked")).to_have_value("ours")
    expect(dialog.get_by_label("Model")).to_have_value("small")
    dialog.get_by_role("button", name="List the models of ours").click()
    expect(dialog.get_by_role("status").first).to_contain_text("2 models")
    assert dialog.locator("datalist option").evaluate_all("(all) => all.map((one) => one.value)") == ["large", "small"]


def test_settings_hold_at_once_and_a_wrong_one_is_said_at_its_field(studio: str, open_page: OpenPage) -> None:
    page = open_page(studio, "system")
    page.get_by_role("link", name="Settings").click()
    stays = page.get_by_role("textbox", name="How long one stays that nobody uses")
    stays.fill("soon")
    section(page, "Sessions").get_by_role("button", name="Keep").click()
    expect(section(page, "Sessions").get_by_role("alert")).to_contain_text("'soon' is no duration")
    expect(stays).to_have_value("soon")
    assert values(studio)["session_keep_alive"] == "5m"
    stays.fill("1h30m")
    stays.press("Enter")
    expect(section(page, "Sessions").get_by_text("Kept.")).to_be_visible()
    assert values(studio)["session_keep_alive"] == "1h30m"
    section(page, "Sessions").get_by_role("button", name="Back to the default").click()
    expect(stays).to_have_value("5m")
    page.get_by_label("Offline").check()
    expect(page.get_by_text("Nothing is fetched from now on.")).to_be_visible()
    assert values(studio)["offline"] is True
    hub = table(page, "Keys").get_by_role("row").filter(has_text="the Hub")
    hub.get_by_role("button", name="Set the key for the Hub").click()
    page.get_by_role("dialog").get_by_label("Key").fill(KEY)
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(hub).to_contain_text("set now")
    assert [one["name"] for one in call(studio, "/api/secrets")["secrets"]] == ["hf"]
    page.reload()
    expect(page.get_by_label("Offline")).to_be_checked()
    assert KEY not in page.content()


def test_what_is_set_elsewhere_is_text_that_says_where_and_the_log_is_the_daemons(
    offline_daemon: str, open_page: OpenPage
) -> None:
    page = open_page(offline_daemon, "system/settings")
    expect(section(page, "Elsewhere")).to_contain_text("Offline yes set by --offline: change it there.")
    expect(page.get_by_label("Offline")).to_have_count(0)
    endpoints = section(page, "Endpoints that may be asked for labels")
    expect(endpoints).to_contain_text("They are set by endpoints in ")
    expect(endpoints.get_by_role("button", name=re.compile("Add|Remove"))).to_have_count(0)
    page.get_by_role("link", name="System", exact=True).first.click()
    log = section(page, "What the daemon says")
    log.get_by_text("End of its log").click()
    expect(log.get_by_label("The daemon's log")).to_contain_text(f"is at {offline_daemon}")
    log.get_by_role("button", name="Stop following").click()
    expect(log.get_by_role("button", name="Follow", exact=True)).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone_nothing_sticks_out_and_buttons_are_large_enough(
    studio: str, open_page: OpenPage, scheme: str
) -> None:
    call(studio, "/api/settings", {"endpoints": f"{'long' * 15}=https://{'far' * 20}.example/v1"}, "PATCH")
    page = open_page(studio, "system", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    expect(page.get_by_role("figure", name="CPU")).to_be_visible()
    expect(section(page, "Is everything well?").get_by_text("checks are fine")).to_be_visible()
    for place in ("system", "system/settings"):
        page.evaluate("(place) => (location.hash = `#/${place}`)", place)
        expect(page.get_by_role("heading", level=2)).to_have_text("System" if place == "system" else "Settings")
        expect(page.get_by_role("button").first).to_be_visible()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert min(box["height"] for box in (b.bounding_box() for b in page.get_by_role("button").all()) if box) >= 40
