"""Uploads: announce, send, list, show, remove."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StringConstraints

from mistudiod.api.fields import Fields, Page
from mistudiod.api.keys import JOBS, UPLOADS
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, DiskFull, NotFound, TooLarge
from mistudiod.sources import unfinished
from mistudiod.tokens import Scope
from mistudiod.uploads import MAX_FILES

_MAX_BYTES = 2**62
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Which paths are good is for mistudiod.paths.join to say.
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class AnnouncedFile(Fields):
    path: FilePath = Field(description="where it lies in what is uploaded, as a/b.txt")
    bytes: int = Field(ge=0, le=_MAX_BYTES, description="its size")
    sha256: Sha256 = Field(description="of its content, in hexadecimal")


class UploadRequest(Fields):
    name: str = Field(min_length=1, max_length=255, description="what it is, for people; no path")
    files: list[AnnouncedFile] = Field(min_length=1, max_length=MAX_FILES, description="every file that will be sent")


class UploadFile(AnnouncedFile):
    received_bytes: int = Field(description="how much of it is here: go on from there")


class UploadSummary(Fields):
    id: str
    name: str
    created_at: str
    bytes: int = Field(description="of all files together")
    received_bytes: int = Field(description="of all files together")
    complete: bool = Field(description="every file is here with the right sha256; a job may read it")


class FileUpload(UploadSummary):
    files: list[UploadFile]


class UploadPage(Page):
    uploads: list[UploadSummary]


class UploadPath(Fields):
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] = Field(description="the upload's id")


class PartQuery(Fields):
    path: FilePath = Field(description="which of the announced files")
    offset: int = Field(ge=0, le=_MAX_BYTES, description="how much of it is there already: its received_bytes")


@route("GET", "/api/uploads", scope=Scope.READ, answer=UploadPage)
async def list_uploads(asked: Asked[None]) -> Any:
    """List the uploads, the oldest first, without their files."""
    return {"uploads": await asked.app[UPLOADS].all(), "next": None}


@route(
    "POST", "/api/uploads", scope=Scope.WRITE, body=UploadRequest, body_bytes=16 << 20, answer=FileUpload, status=201,
    refusals=(Conflict, TooLarge, DiskFull),
)  # fmt: skip
async def create_upload(asked: Asked[None]) -> Any:
    """Announce the files of an upload. Unfinished and unused uploads are removed after 7 days without a byte."""
    files = [file.model_dump() for file in asked.body.files]
    return await asked.app[UPLOADS].create(asked.body.name, files)


@route("GET", "/api/uploads/{id}", scope=Scope.READ, path=UploadPath, answer=FileUpload, refusals=(NotFound,))
async def show_upload(asked: Asked[None]) -> Any:
    """Show an upload, and how far each of its files has come."""
    return await asked.app[UPLOADS].get(asked.path.id)


@route(
    "PUT", "/api/uploads/{id}", scope=Scope.WRITE, path=UploadPath, query=PartQuery, answer=FileUpload, raw=True,
    refusals=(NotFound, Conflict, TooLarge, DiskFull),
)  # fmt: skip
async def send_part(asked: Asked[PartQuery]) -> Any:
    """Append the body to one file; of the upload's files the answer shows only this one.

    When the connection breaks, what came is kept. When the file is whole, its sha256 is checked: if it is wrong, the
    file stands at 0 again.
    """
    query = asked.query
    body = aiter(asked.request.content.iter_any())
    try:
        return await asked.app[UPLOADS].receive(asked.path.id, query.path, query.offset, body)
    except (web.RequestPayloadError, ConnectionError):
        raise Conflict(
            f"the connection broke while {query.path} was being sent; go on from its received_bytes"
        ) from None


@route("DELETE", "/api/uploads/{id}", scope=Scope.WRITE, path=UploadPath, refusals=(NotFound, Conflict))
async def remove_upload(asked: Asked[None]) -> None:
    """Remove an upload that no unfinished job reads."""
    if f"upload:{asked.path.id}" in await unfinished(asked.app[JOBS]):
        raise Conflict("an unfinished job reads this upload; stop it first or wait for its end")
    await asked.app[UPLOADS].remove(asked.path.id)


ROUTES = (list_uploads, create_upload, show_upload, send_part, remove_upload)
