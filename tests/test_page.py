"""The web page as it is served: its files, its policy, what it weighs, and what is never given out."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Studio
from yarl import URL

from mistudiod import page

WEB = Path(__file__).parent.parent / "web"
OURS = [file for file in sorted(WEB.rglob("*.*")) if file.parts[len(WEB.parts)] not in ("vendor", "node_modules")]
SOURCES = [file for file in OURS if file.suffix in (".js", ".css") and not file.name.endswith(".test.js")]
KIB = 1024

needs_vendor = pytest.mark.skipif(
    not (WEB / "vendor" / "preact.js").is_file(), reason="web/vendor is missing: pip install -e . makes it"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page small enough to be changed."""
    top = tmp_path / "web"
    for name in ("vendor", "lib", "node_modules/preact"):
        (top / name).mkdir(parents=True)
    (top / "login.html").write_text("<!doctype html>")
    imports = '{"imports": {"preact": "/vendor/preact.js"}}'
    (top / "index.html").write_text(f'<!doctype html><script type="importmap">{imports}</script>')
    for name in ("main.js", "lib/a.js", "lib/a.test.js", "vendor/preact.js", "node_modules/preact/x.js"):
        (top / name).write_text(f"// {name}")
    for name in ("package.json", "package-lock.json"):
        (top / name).write_text("{}")
    return top


# -- as files ----------------------------------------------------------------------------------------------------------


def test_only_what_belongs_to_the_page_is_listed(folder: Path) -> None:
    assert set(page.load_from(folder).paths) == {"/", "/login", "/main.js", "/lib/a.js", "/vendor/preact.js"}


def test_the_policy_lets_in_the_one_inline_script_and_nothing_else(folder: Path) -> None:
    found = page.load_from(folder)
    inline = found.read("/")[0].decode().split('<script type="importmap">')[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in found.csp
    assert "unsafe" not in found.csp and "*" not in found.csp


def test_a_file_that_is_edited_is_served_anew_and_one_that_vanishes_as_it_was(folder: Path) -> None:
    found = page.load_from(folder)
    before = found.read("/main.js")
    (folder / "main.js").write_text("// edited")
    os.utime(folder / "main.js", ns=(1, 1))
    after = found.read("/main.js")
    assert after[0] == b"// edited" and after[2] != before[2]
    (folder / "main.js").unlink()
    assert found.read("/main.js") == after


@pytest.mark.parametrize("missing", ["vendor/preact.js", "index.html", "login.html"])
def test_a_page_that_is_not_built_says_how_to_build_it(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    found = page.load_from(folder)
    assert found.paths == ("/",)
    text = found.read("/")[0].decode()
    assert f"-m pip install --no-deps -e {folder.parent}" in text and "<script" not in text


def test_what_is_not_listed_cannot_be_read(folder: Path) -> None:
    with pytest.raises(KeyError):
        page.load_from(folder).read("/package.json")


# -- as it is served ---------------------------------------------------------------------------------------------------


@needs_vendor
async def test_the_page_and_all_that_it_imports_are_served(studio: Studio) -> None:
    asked, seen = ["/", "/login"], set()
    while asked:
        path = asked.pop()
        seen.add(path)
        async with studio.session.get(studio.server.make_url(path)) as response:
            assert response.status == 200, path
            text = await response.text()
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"] == page.load().csp
        if path.endswith((".js", "/", "/login")):
            named = re.findall(r'(?:from ?|import ?|src=|href=|: )"([./][^"]*)"', text)
            asked += {resolved(path, one) for one in named} - seen
    assert len(seen) > 20


def resolved(path: str, name: str) -> str:
    return name if name.startswith("/") else os.path.normpath(os.path.join(os.path.dirname(path), name))


async def test_a_browser_that_has_a_file_is_not_sent_it_again(studio: Studio) -> None:
    url = studio.server.make_url("/")
    async with studio.session.get(url) as first:
        body, tag = await first.read(), first.headers["ETag"]
        assert first.headers["Cache-Control"] == "no-cache"
    async with studio.session.get(url, headers={"If-None-Match": tag}) as second:
        assert (second.status, await second.read(), second.headers["ETag"]) == (304, b"", tag)
    async with studio.session.get(url, headers={"If-None-Match": '"other"'}) as third:
        assert (third.status, await third.read()) == (200, body)


async def test_files_are_zipped_for_those_who_can_unzip(studio: Studio) -> None:
    for accepts, encoding in (("gzip, br", "gzip"), ("gzip;q=0", None), ("identity", None)):
        headers = {"Accept-Encoding": accepts}
        async with studio.session.get(studio.server.make_url("/"), headers=headers, auto_decompress=False) as response:
            body = await response.read()
            assert response.headers.get("Content-Encoding") == encoding
            assert response.headers["Vary"] == "Accept-Encoding"
        assert (gzip.decompress(body) if encoding else body) == page.load().read("/")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/package.json", "/package-lock.json", "/lib/format.test.js", "/vendor/.lock", "/vendor/", "/vendor", "/lib",
        "/node_modules/preact/package.json", "/%2e%2e/pyproject.toml", "/..%2fpyproject.toml", "/css/../package.json",
        "/static/main.js", "/main.js/", "//main.js",
    ],
)  # fmt: skip
async def test_nothing_else_is_given_out(studio: Studio, path: str) -> None:
    url = URL(f"{str(studio.server.make_url('/')).rstrip('/')}{path}", encoded=True)
    async with studio.session.get(url) as response:
        assert response.status == 404


# -- what it is made of ------------------------------------------------------------------------------------------------


@needs_vendor
def test_all_of_it_with_every_panel_visited_is_light() -> None:
    """What is loaded at first is held by test_page_in_browser.py."""
    found = page.load()
    loaded = [path for path in found.paths if not path.endswith(".txt")]
    assert sum(len(gzip.compress(found.read(path)[0])) for path in loaded) <= 350 * KIB


@needs_vendor
def test_what_the_page_names_is_there() -> None:
    """A module that is announced and missing would only be asked for in vain."""
    named = [
        one
        for page in ("index", "login")
        for one in re.findall(r'(?:href|src)="(/[^"]+)"', (WEB / f"{page}.html").read_text())
    ]
    assert len(named) > 10 and [path for path in named if not (WEB / path[1:]).is_file()] == []


@pytest.mark.parametrize("file", [*SOURCES, *WEB.glob("*.html")], ids=lambda file: str(file.relative_to(WEB)))
def test_it_asks_nobody_else_and_takes_no_text_for_markup(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"(https?:)?//[\w-]+\.[\w.-]+/", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|javascript:", text
    )
    assert not re.search(r'\sstyle="', text), "the policy forbids style attributes"


def colours(scheme: str) -> dict[str, str]:
    text = (WEB / "css" / "tokens.css").read_text()
    both = re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", text)
    return {name: light if scheme == "light" else dark for name, light, dark in both}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_every_text_is_readable_on_every_ground(scheme: str) -> None:
    found = colours(scheme)
    texts, grounds = ("text", "muted", "faint", "accent", "failed", "warning"), ("bg", "surface", "raised")
    for text, ground in itertools.product(texts, grounds):
        high, low = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"


def test_its_logic_holds() -> None:
    node = shutil.which("node")
    if node is None or int(subprocess.check_output([node, "-p", "process.versions.node.split('.')[0]"])) < 20:
        pytest.skip("there is no Node 20 or newer")
    tests = sorted(WEB.glob("lib/*.test.js"))
    assert tests
    ran = subprocess.run([node, "--test", *map(str, tests)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
