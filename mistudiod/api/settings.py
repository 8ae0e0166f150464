"""The daemon's settings: what they are, where each comes from, and those that can be changed while it runs; its log."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.api.keys import GIVING, KEPT, PATHS, SCHEDULER, SECRETS
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, StoreError
from mistudiod.runner import TAIL_BYTES, read_tail
from mistudiod.secret import SecretsUnusable
from mistudiod.tokens import Scope

_MAX_LOG_BYTES = 1 << 20


class Setting(Fields):
    name: str
    value: str | bool | int | float
    default: str | bool | int | float
    source: Literal["flag", "environment", "file", "kept", "default"] = Field(
        description="where the value comes from: each goes before those after it; kept is what was set here"
    )
    where: str | None = Field(description="which flag, variable or line of which file; null for kept and default")
    changeable: bool = Field(description="it can be changed here, and holds for what starts from then on")
    help: str


class SettingList(Fields):
    settings: list[Setting]


class SettingsChange(Fields):
    """What is given is kept; null: as it would be had nothing been set here."""

    offline: bool | None = Field(None, description="fetch nothing")
    endpoints: str | None = Field(None, max_length=20_000, description="name=URL of each, with commas between")
    label_endpoint: str | None = Field(None, max_length=64, description="whom the form for labels names at first")
    label_model: str | None = Field(None, max_length=1000, description="the model that it names at first")
    neuronpedia_url: str | None = Field(None, max_length=1000, description="address of the Neuronpedia to upload to")
    session_keep_alive: str | None = Field(None, max_length=100, description="how long a session stays unused")


class DaemonLogQuery(Fields):
    tail_bytes: int = Field(TAIL_BYTES, ge=1, le=_MAX_LOG_BYTES, description="how much of the log's end")


class DaemonLog(Fields):
    log: str = Field(description="without secrets")


@route("GET", "/api/settings", scope=Scope.READ, answer=SettingList)
async def list_settings(asked: Asked[None]) -> Any:
    """List the daemon's settings, where each comes from, and which can be changed here."""
    return {"settings": asked.app[KEPT].listed()}


@route("PATCH", "/api/settings", scope=Scope.ADMIN, body=SettingsChange, answer=SettingList,
       refusals=(Conflict, StoreError, SecretsUnusable))  # fmt: skip
async def change_settings(asked: Asked[None]) -> Any:
    """Change settings for jobs and sessions that start from now on. One that a flag, the environment or the settings
    file sets can only be changed there.
    """
    kept = asked.app[KEPT]
    changes = {name: getattr(asked.body, name) for name in asked.body.model_fields_set}
    secrets = {one.name for one in await asyncio.to_thread(asked.app[SECRETS].all)}
    await asyncio.to_thread(kept.change, changes, secrets)
    if "endpoints" in changes:
        await asked.app[GIVING].put_in_lanes()
        asked.app[SCHEDULER].wake()
    return {"settings": kept.listed()}


@route("GET", "/api/log", scope=Scope.ADMIN, query=DaemonLogQuery, answer=DaemonLog)
async def show_daemon_log(asked: Asked[DaemonLogQuery]) -> Any:
    """Show the end of the daemon's own log."""
    return {"log": await asyncio.to_thread(read_tail, asked.app[PATHS].log, asked.query.tail_bytes)}


ROUTES = (list_settings, change_settings, show_daemon_log)
