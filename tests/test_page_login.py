"""The log-in and the devices of the settings in Chromium, before a daemon that other machines reach over TLS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import AXE, IN_A_BROWSER, OpenPage, Page, expect, section, serious
from studio import end, running
from test_daemon import SERVE

pytestmark = IN_A_BROWSER
# Refusals are what is tried here, and Chromium complains of each.
EXPECTED = re.compile(r"Failed to load resource: (net::ERR_|the server responded with a status of (400|401|403|404))")


class Lan:
    """A daemon that other machines reach. ``url``: as this one does; ``ask``: over its socket, as its own user."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, "-c", SERVE, "--data", str(data), "--port", "0", "--listen", "lan", "serve"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MISTUDIO_")}
        self.process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._log, self._data = data / "mistudiod.log", data
        self.away = self._until(r" is at (https://\S+), data")
        self.url = re.sub(r"//.*:", "//127.0.0.1:", self.away)
        self.pin = self._until(r"by its certificate (\S+)")

    def _until(self, pattern: str) -> str:
        for _ in range(600):
            if found := re.search(pattern, self._log.read_text() if self._log.exists() else ""):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def ask(self, method: str, path: str, body: object = None) -> Any:
        transport = httpx.HTTPTransport(uds=str(self._data / "mistudiod.sock"))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as http:
            answer = http.request(method, path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json() if answer.content else None

    def code(self, scope: str = "admin") -> str:
        return str(self.ask("POST", "/api/pairings", {"scope": scope})["code"])

    def names(self) -> set[str]:
        return {one["name"] for one in self.ask("GET", "/api/tokens")["tokens"]}


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    daemon = Lan(tmp_path_factory.mktemp("lan") / "data")
    try:
        yield daemon
    finally:
        end(daemon.process, signal.SIGTERM)


@pytest.fixture
def visit(lan: Lan, open_page: OpenPage) -> OpenPage:
    def at(place: str, **options: Any) -> Page:
        return open_page(lan.url, place, EXPECTED, ignore_https_errors=True, **options)

    return at


def log_in(page: Page, given: str) -> None:
    page.get_by_label("Pairing code or access token").fill(given)
    page.get_by_role("button", name="Log in").click()


def is_at(page: Page, lan: Lan, place: str) -> None:
    expect(page).to_have_url(f"{lan.url}{place}")


def devices(page: Page) -> Any:
    return page.get_by_role("table", name="Devices and access tokens")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_whoever_is_not_let_in_logs_in_by_a_code_and_comes_back_to_where_he_was(
    lan: Lan, visit: OpenPage, theme: str
) -> None:
    page = visit("system/settings", color_scheme=theme)
    is_at(page, lan, "/login#/system/settings")
    expect(page.get_by_label("Pairing code or access token")).to_be_focused()
    if AXE:
        assert serious(page) == []
    log_in(page, "0000 0000")
    expect(page.get_by_role("alert")).to_contain_text("This code is not open")
    code = lan.code("write")
    page.get_by_label("Pairing code or access token").fill(f"{code[:4]} {code[4:]}")
    page.keyboard.press("Enter")
    is_at(page, lan, "/#/system/settings")
    expect(section(page, "This browser")).to_contain_text(
        re.compile(r"Logged in as chrome-linux\S*\. It may read and write")
    )
    expect(page.get_by_text("may only read")).to_have_count(0)
    expect(page.get_by_role("heading", name="Devices and access tokens")).to_have_count(0)
    assert page.evaluate("document.cookie") == "", "no script reads it"
    page.goto(f"{lan.url}/login#/jobs")
    is_at(page, lan, "/#/jobs")


def test_a_log_in_that_may_only_read_says_so_and_its_buttons_do_not_write(lan: Lan, visit: OpenPage) -> None:
    token = lan.ask("POST", "/api/tokens", {"name": "guest", "scope": "read"})["token"]
    page = visit("datasets")
    log_in(page, token)
    is_at(page, lan, "/#/datasets")
    expect(page.get_by_role("banner")).to_contain_text("This browser may only read. Log in to do more")
    page.get_by_role("button", name="Add dataset").click()
    dialog = page.get_by_role("dialog")
    add = dialog.get_by_role("button", name="Add", exact=True)
    expect(add).to_be_disabled()
    expect(add).to_have_attribute("title", "This browser may only read")
    if AXE:
        assert serious(page) == []
    page.keyboard.press("Escape")
    # What is no button of that kind is refused by the studio, in a sentence that stands where it was asked.
    refused = page.evaluate("import('/api.js').then((api) => api.remove('/api/jobs/1').catch(api.said))")
    assert refused == (
        "this browser was let in with the scope read, and this needs write: log in with a code or token that has it"
    )
    page.get_by_role("link", name="Log in to do more").click()
    is_at(page, lan, "/login#as-another#/datasets")
    log_in(page, lan.code("write"))
    is_at(page, lan, "/#/datasets")
    expect(page.get_by_role("button", name="Add dataset")).to_be_visible()
    expect(page.get_by_text("may only read")).to_have_count(0)


def test_a_device_is_paired_on_the_page_and_logged_out_from_there(lan: Lan, visit: OpenPage) -> None:
    page = visit("system/settings")
    log_in(page, lan.code())
    page.get_by_role("button", name="Pair a device").click()
    page.get_by_label("Name of the device").fill("tablet")
    page.get_by_label("It may").select_option("read")
    page.get_by_role("button", name="Make a code").click()
    dialog = page.get_by_role("dialog", name="Pairing code")
    expect(dialog.get_by_role("timer")).to_contain_text(re.compile(r"Good once, for another [45]:\d\d"))
    expect(dialog).to_contain_text(f"open {lan.away}")
    expect(dialog).to_contain_text(f"SHA-256 fingerprint is {lan.pin}")
    code = re.sub(r"\D", "", dialog.locator(".paircode").inner_text())
    expect(dialog).to_contain_text(f"mistudio context add studio {lan.away} --pair {code} --fingerprint {lan.pin}")
    if AXE:
        assert serious(page) == []
    tablet = visit("features")
    log_in(tablet, code)
    expect(tablet.get_by_role("banner")).to_contain_text("may only read")
    dialog.get_by_role("button", name="Done").click()
    row = devices(page).get_by_role("row").filter(has_text="tablet")
    expect(row).to_contain_text("only read")
    expect(devices(page).get_by_role("row").filter(has_text="this browser")).to_have_count(1)
    if AXE:
        assert serious(page) == []
    row.get_by_role("button", name="Revoke tablet").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(row).to_have_count(0)
    expect(tablet).to_have_url(f"{lan.url}/login#/features")  # by itself: nobody touches it


def test_a_token_is_shown_once_and_lets_a_program_in(lan: Lan, visit: OpenPage) -> None:
    page = visit("system/settings")
    log_in(page, lan.code())
    page.get_by_role("button", name="Make a token").click()
    page.get_by_label("Name", exact=True).fill("Not a name")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("script")
    page.get_by_label("It is good").select_option("for a day")
    page.get_by_role("button", name="Make it").click()
    made = page.get_by_role("dialog", name="Token of script")
    token = made.locator("code").inner_text()
    expect(made.get_by_role("button", name="Copy")).to_be_visible()
    made.get_by_role("button", name="I have it").click()
    assert token.startswith("mis_") and token not in page.content()
    row = devices(page).get_by_role("row").filter(has_text="script")
    expect(row).to_contain_text("read and write")
    expect(row).to_contain_text("not yet")
    answer = httpx.get(f"{lan.url}/api/login", headers={"Authorization": f"Bearer {token}"}, verify=False)
    assert answer.json()["token"]["name"] == "script"


def test_to_log_out_or_to_revoke_oneself_leads_back_to_the_log_in(lan: Lan, visit: OpenPage) -> None:
    page = visit("system/settings")
    for how in ("Log out", "Revoke"):
        before = lan.names()
        log_in(page, lan.code())
        expect(section(page, "This browser")).to_be_visible()
        assert len(lan.names()) == len(before) + 1
        if how == "Log out":
            page.get_by_role("button", name="Log out").click()
        else:
            own = devices(page).get_by_role("row").filter(has_text="this browser")
            own.get_by_role("button", name="Revoke").click()
            expect(page.get_by_role("dialog")).to_contain_text("you are logged out")
            page.get_by_role("button", name="Revoke", exact=True).click()
        expect(page).to_have_url(re.compile("/login"))
        assert lan.names() == before
        page.goto(f"{lan.url}/#/system/settings")
        is_at(page, lan, "/login#/system/settings")


def test_on_the_studios_own_machine_nobody_logs_in_but_others_can_be_let_in(
    tmp_path: Path, open_page: OpenPage
) -> None:
    with running(tmp_path / "data") as url:
        page = open_page(url, "system/settings")
        expect(page.get_by_text("There is none: only this machine reaches the studio.")).to_be_visible()
        expect(page.get_by_role("heading", name="This browser")).to_have_count(0)
        page.get_by_role("button", name="Pair a device").click()
        page.get_by_role("button", name="Make a code").click()
        expect(page.get_by_role("dialog")).to_contain_text("mistudiod serve --listen lan")
        page.get_by_role("button", name="Done").click()
        page.goto(f"{url}/login#/models")
        expect(page).to_have_url(f"{url}/#/models")
