"""What jobs of exporting have written, file by file, to take away."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StringConstraints

from mistudiod.api.fields import Fields, Page
from mistudiod.api.files import File, described, sent, staying
from mistudiod.api.keys import JOBS, PATHS
from mistudiod.api.route import Asked, route
from mistudiod.cleaning import export_of
from mistudiod.disk import bytes_of
from mistudiod.errors import Conflict, NotFound, WrongRange
from mistudiod.paths import delete_tree, join, set_aside
from mistudiod.tokens import Scope

ExportName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # every name that is written


class ExportPath(Fields):
    name: ExportName = Field(description="of the export: SAE-FORMAT")


class ExportFilePath(Fields):
    name: ExportName = Field(description="of the export: SAE-FORMAT")
    file: FileName = Field(description="one of its files, with the folders it lies in")


class ExportPage(Page):
    export: str
    files: list[File]


class WrittenExport(Fields):
    name: str
    sae: str | None = Field(description="null for a folder that is none of an SAE's exports")
    format: str | None
    bytes: int
    written_at: str


class ExportList(Fields):
    exports: list[WrittenExport]


@route("GET", "/api/exports", scope=Scope.READ, answer=ExportList)
async def list_exports(asked: Asked[None]) -> Any:
    """List the SAEs that are written for others."""
    return {"exports": await asyncio.to_thread(_exports, asked.app[PATHS].exports)}


@route("DELETE", "/api/exports/{name}", scope=Scope.WRITE, path=ExportPath, refusals=(NotFound, Conflict))
async def remove_export(asked: Asked[None]) -> None:
    """Delete an export; the SAE stays."""
    folder, known = _folder(asked), export_of(asked.path.name)
    if known and (jobs := await asked.app[JOBS].users_of("sae", known[0], ("export",))):
        raise Conflict(f"job {jobs[0]} writes an export of {known[0]}; stop it first or wait for its end")
    gone = await asyncio.to_thread(set_aside, folder)
    if gone:
        await asyncio.to_thread(delete_tree, gone)


@route("GET", "/api/exports/{name}/files", scope=Scope.READ, path=ExportPath, answer=ExportPage, refusals=(NotFound,))
async def list_export_files(asked: Asked[None]) -> Any:
    """List the files of an export, with the folders that they lie in."""
    folder = _folder(asked)
    with staying(f"the export {folder.name}"):
        paths = await asyncio.to_thread(_files, folder)
        files = [await described(path, path.relative_to(folder).as_posix()) for path in paths]
    return {"export": folder.name, "files": files, "next": None}


@route(
    "GET", "/api/exports/{name}/files/{file}", scope=Scope.READ, path=ExportFilePath, media="application/octet-stream",
    refusals=(NotFound, WrongRange),
)  # fmt: skip
async def download_export_file(asked: Asked[None]) -> web.StreamResponse:
    """Download one file of an export, or with a Range header the rest of it."""
    folder, file = _folder(asked), asked.path.file
    try:
        path = join(folder, file) if all(map(_PLAIN.fullmatch, file.split("/"))) else None
    except ValueError:
        path = None
    if path is None or not path.is_file():
        raise NotFound(f"the export {folder.name} has no such file")
    return sent(asked.request, path)


def _folder(asked: Asked[None]) -> Path:
    folder: Path = asked.app[PATHS].exports / asked.path.name
    if not folder.is_dir():
        raise NotFound(f"there is no export {asked.path.name!r}: mistudio sae export makes one")
    return folder


def _exports(top: Path) -> list[dict[str, Any]]:
    found = []
    for folder in sorted(path for path in top.glob("*") if _PLAIN.fullmatch(path.name) and path.is_dir()):
        sae, format = export_of(folder.name) or (None, None)
        try:
            written = folder.stat().st_mtime
        except FileNotFoundError:  # removed meanwhile
            continue
        at = datetime.fromtimestamp(written, timezone.utc).isoformat(timespec="milliseconds")
        about = {"sae": sae, "format": format, "bytes": bytes_of(folder), "written_at": at.replace("+00:00", "Z")}
        found.append({"name": folder.name, **about})
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


ROUTES = (list_exports, remove_export, list_export_files, download_export_file)
