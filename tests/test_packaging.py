"""What is built from the sources: the page is in it, whole, and installing it needs no Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INPUTS = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".gitignore",
    "hatch_build.py",
    "mistudiod",
    "client",
    "web",
    "systemd",
)
LIBRARIES = {
    "preact.js",
    "preact-hooks.js",
    "signals-core.js",
    "signals.js",
    "htm.js",
    "uplot.js",
    "uplot.css",
    "LICENSES.txt",
}
SAY_PAGE = """
from mistudiod import page
found = page.load()
print(page.__file__)
for path in found.paths:
    body, kind, _ = found.read(path)
    print(path, len(body), kind)
"""

needs_vendor = pytest.mark.skipif(
    not (ROOT / "web" / "vendor" / ".lock").is_file(), reason="web/vendor is missing: pip install -e . makes it"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, with the libraries if they are here."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    litter = shutil.ignore_patterns("__pycache__", "node_modules", ".vendor-*")
    for name in INPUTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=litter)
        else:
            shutil.copy(ROOT / name, copy)
    return copy


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def build(checkout: Path, target: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """As pip does it, in the tests' own environment: what a build needs is in the extra ``dev``."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(checkout / "dist")]
    environ = {"PATH": path, "HOME": str(checkout.parent)}
    return subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, timeout=120)


def the(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@needs_vendor
def test_a_wheel_has_the_page_and_nothing_else_of_the_web_folder(checkout: Path) -> None:
    built = build(checkout, "wheel")
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(the(checkout / "dist", "*.whl")) as wheel:
        names = wheel.namelist()
        inside = {name.removeprefix("mistudiod/static/") for name in names if name.startswith("mistudiod/static/")}
        assert wheel.read("mistudiod/static/index.html") == (ROOT / "web" / "index.html").read_bytes()
    web = ROOT / "web"
    ours = {file.relative_to(web).as_posix() for file in web.rglob("*.*") if file.suffix in (".js", ".css", ".svg")}
    ours = {name for name in ours if not name.startswith("node_modules/") and not name.endswith(".test.js")}
    assert inside == ours | {"index.html", "login.html", "vendor/LICENSES.txt"}
    assert {name.removeprefix("vendor/") for name in inside if name.startswith("vendor/")} == LIBRARIES
    assert not [name for name in names if name.startswith(("web/", "tests/")) or "package" in name]


@needs_vendor
def test_a_wheel_has_the_files_of_the_service(checkout: Path) -> None:
    assert build(checkout, "wheel").returncode == 0
    with zipfile.ZipFile(the(checkout / "dist", "*.whl")) as wheel:
        packed = [name for name in wheel.namelist() if name.startswith("mistudiod/systemd/")]
        inside = {name.removeprefix("mistudiod/systemd/"): wheel.read(name) for name in packed}
    ours = [file for file in (ROOT / "systemd").rglob("*") if file.is_file()]
    assert inside == {file.relative_to(ROOT / "systemd").as_posix(): file.read_bytes() for file in ours}


@needs_vendor
def test_an_installed_wheel_shows_the_page_without_node_or_network(checkout: Path, tmp_path: Path) -> None:
    assert build(checkout, "wheel").returncode == 0
    place, nowhere = tmp_path / "place", {"PATH": "", "https_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*install, str(the(checkout / "dist", "*.whl"))], check=True, env=nowhere, timeout=120)
    shutil.rmtree(checkout)
    environ = {"PATH": "", "PYTHONPATH": str(place)}
    said = subprocess.run([sys.executable, "-c", SAY_PAGE], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    file, *served = said.stdout.splitlines()
    assert Path(file).is_relative_to(place)
    assert {line.split()[0] for line in served} >= {"/", "/main.js", "/vendor/preact.js", "/css/ui.css"}
    assert all(int(line.split()[1]) > 0 for line in served)


@needs_vendor
def test_an_sdist_is_enough_to_build_the_wheel_without_node(checkout: Path, tmp_path: Path) -> None:
    built = build(checkout, "sdist")
    assert built.returncode == 0, built.stderr
    with tarfile.open(the(checkout / "dist", "*.tar.gz")) as sdist:
        sdist.extractall(tmp_path / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    unpacked = the(tmp_path / "unpacked", "*")
    assert {file.name for file in (unpacked / "web" / "vendor").iterdir()} == LIBRARIES | {".lock"}
    assert not (unpacked / "web" / "node_modules").exists()
    again = build(unpacked, "wheel")
    assert again.returncode == 0, again.stderr
    with zipfile.ZipFile(the(unpacked / "dist", "*.whl")) as wheel:
        assert "mistudiod/static/vendor/preact.js" in wheel.namelist()


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_without_the_libraries_and_without_npm_nothing_is_built_and_one_sentence_says_why(
    checkout: Path, target: str
) -> None:
    shutil.rmtree(checkout / "web" / "vendor", ignore_errors=True)
    built = build(checkout, target)
    assert built.returncode != 0
    assert built.stderr.splitlines()[-1] == (
        "the web page's libraries cannot be fetched: there is no npm 7 or newer; "
        "once npm works, run this again: python -m pip wheel --no-deps ."
    )
    assert not list((checkout / "dist").glob("*.*"))


def test_an_npm_that_cannot_reach_its_registry_says_so_in_that_sentence(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / "web" / "vendor", ignore_errors=True)
    no_network = 'echo "npm error code ENOTFOUND" >&2; echo "npm error network request failed" >&2; exit 1'
    program(tmp_path / "bin", "npm", f'[ "$1" = --version ] && echo 11.1.0 && exit; {no_network}')
    built = build(checkout, "wheel", str(tmp_path / "bin"))
    assert built.returncode != 0 and "npm error code ENOTFOUND" in built.stderr.splitlines()[-1]
    assert [file.name for file in (checkout / "web").glob(".vendor-*")] == []


def test_an_editable_install_goes_on_without_the_page_and_says_so_in_a_line(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / "web" / "vendor", ignore_errors=True)
    program(tmp_path / "bin", "npm", '[ "$1" = --version ] && echo 11.1.0 && exit; exit 1')
    install = [sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--no-index", "--no-build-isolation"]
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    options = ["--prefix", str(tmp_path / "place"), "--ignore-installed", "-e", str(checkout)]
    ran = subprocess.run([*install, *options], env=environ, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    warned = [line for line in (ran.stdout + ran.stderr).splitlines() if "libraries cannot be fetched" in line]
    assert [line.strip() for line in warned] == [
        "warning: the web page's libraries cannot be fetched: npm ended with exit code 1; "
        "miStudio is installed without its page"
    ]
    environ = {"PATH": "", "PYTHONPATH": str(checkout)}
    said = subprocess.run([sys.executable, "-c", SAY_PAGE], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert [line.split()[0] for line in said.stdout.splitlines()[1:]] == ["/"]


@needs_vendor
def test_libraries_of_another_lock_file_are_fetched_anew_and_current_ones_left_alone(
    checkout: Path, tmp_path: Path
) -> None:
    log, bin = tmp_path / "npm.log", tmp_path / "bin"
    sources = {
        "preact": ("dist/preact.mjs", "hooks/dist/hooks.mjs"),
        "htm": ("dist/htm.mjs",),
        "@preact/signals": ("dist/signals.mjs",),
        "@preact/signals-core": ("dist/signals-core.mjs",),
        "uplot": ("dist/uPlot.esm.js", "dist/uPlot.min.css"),
    }
    made = [
        line
        for package, files in sources.items()
        for file in (*files, "LICENSE", "package.json")
        for line in (
            f'mkdir -p "$(dirname node_modules/{package}/{file})"',
            f'echo \'{{"version": "9.9.9"}}\' >node_modules/{package}/{file}',
        )
    ]
    program(bin, "npm", f'[ "$1" = --version ] && echo 11.1.0 && exit\necho "$@" >>{log}\n' + "\n".join(made))
    path = f"{bin}:{os.environ['PATH']}"
    assert build(checkout, "wheel", path).returncode == 0
    assert not log.exists()
    lock = checkout / "web" / "package-lock.json"
    lock.write_text(lock.read_text() + "\n")
    for _ in range(2):
        built = build(checkout, "wheel", path)
        assert built.returncode == 0, built.stderr
    assert log.read_text().count("\n") == 1 and "ci --omit=dev --ignore-scripts" in log.read_text()
    assert "9.9.9" in (checkout / "web" / "vendor" / "preact.js").read_text()
    assert "htm 9.9.9" in (checkout / "web" / "vendor" / "LICENSES.txt").read_text()
