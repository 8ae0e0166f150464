"""A backup of the studio, sent as it is made: nothing of it stays here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from pydantic import Field

from mistudiod import backup_file
from mistudiod.api.fields import Fields
from mistudiod.api.keys import BACKUPS
from mistudiod.api.route import Asked, route
from mistudiod.api.stream import send
from mistudiod.backup_file import BadBackup
from mistudiod.errors import Conflict, DiskFull, StoreError
from mistudiod.tokens import Scope

log = logging.getLogger("mistudiod.api.backup")


class Which(Fields):
    saes: bool = Field(False, description="with SAEs' weights and what extractions have found")


class LeftOut(Fields):
    what: str = Field(description="a folder or file below the data folder")
    bytes: int = Field(description="of it that are not in the backup")


class Nightly(Fields):
    at: str = Field(description="local time, or off")
    kept: int
    names: list[str] = Field(description="those that are there, the newest first")
    failed: str | None = Field(description="why the last one failed; null when it did not")


class BackupContents(Fields):
    name: str = Field(description="what a backup that is made now is called")
    files: int
    bytes: int
    left_out: list[LeftOut]
    nightly: Nightly


@route("GET", "/api/backup", scope=Scope.ADMIN, query=Which, answer=BackupContents, refusals=(StoreError,))
async def show_backup(asked: Asked[Which]) -> Any:
    """Say what a backup would hold, what it would not, and how the nightly ones are."""
    return await asked.app[BACKUPS].survey(asked.query.saes)


@route("POST", "/api/backup", scope=Scope.ADMIN, body=Which, media="application/x-tar",
       refusals=(Conflict, StoreError, DiskFull))  # fmt: skip
async def make_backup(asked: Asked[None]) -> web.StreamResponse:
    """Make a backup, a tar file with its sums: the database, settings, small files; neither secrets nor models."""
    async with asked.app[BACKUPS].taking(asked.body.saes) as found:
        try:
            size, blocks = await asyncio.to_thread(backup_file.pack, found.about, found.pieces)
        except BadBackup as error:
            raise StoreError(str(error)) from error
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar", "Cache-Control": "no-store"})
        response.content_length = size
        await response.prepare(asked.request)
        last, whole = b"", False
        try:
            while block := await asyncio.to_thread(_next, blocks):
                await send(asked.request, response, last)
                last = block
            whole = True
        except (BadBackup, OSError) as error:  # the answer has begun: that it ends too early says it
            log.warning("a backup was not sent to its end: %s", error or "who asked for it has gone")
    # Only now is its end seen, when another one may be asked for.
    if not whole:
        if asked.request.transport is not None:
            asked.request.transport.abort()
        return response
    with contextlib.suppress(ConnectionError):
        await send(asked.request, response, last)
        await response.write_eof()
    return response


def _next(blocks: Iterator[bytes]) -> bytes:
    """Empty at the end."""
    return next((block for block in blocks if block), b"")


ROUTES = (show_backup, make_backup)
