"""The studio's own check-up."""

from __future__ import annotations

from typing import Any, Literal

from mistudiod.api.fields import Fields
from mistudiod.api.keys import SETTINGS
from mistudiod.api.route import Asked, route
from mistudiod.doctor import as_json, examine
from mistudiod.tokens import Scope


class Finding(Fields):
    name: str
    level: Literal["ok", "warning", "problem"]
    message: str
    remedy: str | None


class Report(Fields):
    findings: list[Finding]
    ok: bool


@route("GET", "/api/doctor", scope=Scope.READ, answer=Report)
async def show_doctor(asked: Asked[None]) -> Any:
    """Look at what the studio needs, and say what is wrong and how to mend it."""
    return as_json(await examine(asked.app[SETTINGS]))
