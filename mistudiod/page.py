"""The web page: which files it has, the policy its browser keeps to, and how they are served.

What can be asked for is listed once, at the start; a request picks from that list and never names a file.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import html
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from aiohttp import ETag, web

from mistudiod.errors import NotFound

_HERE = Path(__file__).resolve().parent
_PACKED, _CHECKOUT = _HERE / "static", _HERE.parent / "web"  # in an installed wheel; beside the sources
_FOLDERS = ("", "lib/", "panels/", "ui/", "vendor/")
_PATTERNS = (*(f"{one}*.js" for one in _FOLDERS), "css/*.css", "vendor/*.css", "icon.svg", "vendor/LICENSES.txt")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_POLICY = (
    "default-src 'self'; script-src 'self'{}; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


class Content(NamedTuple):
    body: bytes
    zipped: bytes
    content_type: str
    etag: str
    mtime_ns: int


class Page:
    """The files by the path they are served at. A file that is edited is read anew; which there are stays as it was."""

    def __init__(self, files: dict[str, Path], contents: dict[str, Content]) -> None:
        self._files, self._contents = files, contents
        self.paths: tuple[str, ...] = tuple(contents)
        # An import map has to stand in the page itself: its hash is what lets that one inline script be.
        maps = _IMPORT_MAP.findall(contents["/"].body.decode())
        self.csp = _POLICY.format("".join(f" 'sha256-{_sha256(text.encode())}'" for text in maps))

    def read(self, path: str) -> tuple[bytes, str, str]:
        """Body, content type and ETag. Raises KeyError for any path that is not one of ``paths``."""
        content = self.content(path)
        return content.body, content.content_type, content.etag

    def content(self, path: str) -> Content:
        kept = self._contents[path]
        file = self._files.get(path)
        try:
            if file and file.stat().st_mtime_ns != kept.mtime_ns:
                kept = self._contents[path] = _content(file)
        except OSError:  # an upgrade is under way: what was read at the start is whole
            pass
        return kept


PAGE = web.AppKey("page", Page)


def load() -> Page:
    """The page of this installation; where its libraries are missing, one that says how to get them."""
    return load_from(_PACKED if _PACKED.is_dir() else _CHECKOUT)


def load_from(folder: Path) -> Page:
    files = {f"/{file.relative_to(folder).as_posix()}": file for file in _served(folder)}
    try:
        files = {"/": folder / "index.html", "/login": folder / "login.html", **files}
        page = Page(files, {path: _content(file) for path, file in files.items()})
    except FileNotFoundError:
        return _without(folder)
    imported = re.findall(r'"(/vendor/[^"]+)"', page.read("/")[0].decode())
    return page if set(imported) <= set(page.paths) else _without(folder)


def _served(folder: Path) -> list[Path]:
    found = [file for pattern in _PATTERNS for file in sorted(folder.glob(pattern))]
    return [file for file in found if not file.name.endswith(".test.js")]


def _without(folder: Path) -> Page:
    command = f"{shlex.quote(sys.executable)} -m pip install --no-deps -e {shlex.quote(str(folder.parent))}"
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>miStudio</title>'
        "<h1>miStudio runs, but its page is not built</h1>"
        "<p>The libraries of the page could not be fetched when miStudio was installed. On the studio's machine, "
        f"with a network, run</p><pre>{html.escape(command)}</pre><p>and start the studio again. "
        "The command line needs no page: <code>mistudio --help</code>.</p></html>"
    )
    return Page({}, {"/": _pack(text.encode(), ".html", 0)})


def _content(file: Path) -> Content:
    mtime_ns = file.stat().st_mtime_ns  # before it is read: a change in between is seen the next time
    return _pack(file.read_bytes(), file.suffix, mtime_ns)


def _pack(body: bytes, suffix: str, mtime_ns: int) -> Content:
    return Content(body, gzip.compress(body, mtime=0), _TYPES[suffix], hashlib.sha256(body).hexdigest()[:32], mtime_ns)


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


async def serve(request: web.Request) -> web.Response:
    """One file of ``app[PAGE]``; 304 when the browser has it already. The policy is set on every answer, elsewhere."""
    try:
        content = await asyncio.to_thread(request.app[PAGE].content, request.path)
    except KeyError:
        raise NotFound(f"there is nothing at {request.path}") from None
    zip_it = bool(_TAKES_GZIP.search(request.headers.get("Accept-Encoding", "")))
    headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding", "Content-Type": content.content_type}
    known = {tag.value for tag in request.if_none_match or ()}
    if known & {content.etag, "*"}:
        response = web.Response(status=304, headers=headers)
    else:
        response = web.Response(body=content.zipped if zip_it else content.body, headers=headers)
        if zip_it:
            response.headers["Content-Encoding"] = "gzip"
    response.etag = ETag(content.etag, is_weak=True)  # weak: zipped or not, it is the same
    return response
