"""An SAE's own files, to take away: it is a folder that SAELens loads as it lies."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StringConstraints

from mistudiod.api.asks import Ref, RefPath
from mistudiod.api.fields import Fields, Page
from mistudiod.api.keys import INDEX
from mistudiod.api.route import Asked, route
from mistudiod.errors import NotFound, WrongRange
from mistudiod.paths import join
from mistudiod.tokens import Scope

_BLOCK_BYTES = 1 << 20
FileName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class FilePath(Fields):
    ref: Ref = Field(description="name or id of the SAE")
    file: FileName = Field(description="one of its files")


class File(Fields):
    name: str
    bytes: int
    sha256: str = Field(description="of its content, in hexadecimal")


class FilePage(Page):
    sae: str
    files: list[File]


@route("GET", "/api/saes/{ref}/files", scope=Scope.READ, path=RefPath, answer=FilePage, refusals=(NotFound,))
async def list_files(asked: Asked[None]) -> Any:
    """List the files of an SAE."""
    sae = await asked.app[INDEX].get("sae", asked.path.ref)
    with staying(f"the SAE {sae['name']}"):
        paths = await asyncio.to_thread(_files, Path(sae["folder"]))
        files = [await described(path, path.name) for path in paths]
    return {"sae": sae["name"], "files": files, "next": None}


@route(
    "GET", "/api/saes/{ref}/files/{file}", scope=Scope.READ, path=FilePath, media="application/octet-stream",
    refusals=(NotFound, WrongRange),
)  # fmt: skip
async def download_file(asked: Asked[None]) -> web.StreamResponse:
    """Download one file of an SAE, or with a Range header the rest of it."""
    sae = await asked.app[INDEX].get("sae", asked.path.ref)
    try:
        path = join(Path(sae["folder"]), asked.path.file)
    except ValueError:
        path = None
    if path is None or not path.is_file():
        raise NotFound(f"the SAE {sae['name']} has no file {asked.path.file}")
    return sent(asked.request, path)


def sent(request: web.Request, path: Path) -> web.FileResponse:
    """A file, or with a Range header the rest of it. Its name is one that a header can have. Raises WrongRange."""
    try:
        begin = request.http_range.start or 0
    except ValueError:
        raise WrongRange("Range must be bytes=FIRST- or bytes=FIRST-LAST") from None
    if begin and begin >= path.stat().st_size:
        raise WrongRange(f"{path.name} has {path.stat().st_size:,} bytes: there is nothing from byte {begin:,} on")
    disposition = f'attachment; filename="{path.name}"'
    return web.FileResponse(
        path, headers={"Content-Disposition": disposition, "Content-Type": "application/octet-stream"}
    )


@contextmanager
def staying(what: str) -> Iterator[None]:
    """Around a reading of files that nothing keeps from being removed meanwhile. Raises NotFound."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{what} was moved or removed while it was read: ask again") from None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and path.name[0] != ".")


async def described(path: Path, name: str) -> dict[str, Any]:
    """Block by block: whoever else needs a thread comes in between, and a caller who has gone costs no more."""
    found, size = hashlib.sha256(), 0
    while block := await asyncio.to_thread(_block, path, size):
        found.update(block)
        size += len(block)
    return {"name": name, "bytes": size, "sha256": found.hexdigest()}


def _block(path: Path, offset: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(_BLOCK_BYTES)


ROUTES = (list_files, download_file)
