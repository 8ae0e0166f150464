"""Which unfinished jobs use an artifact. Runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Any

from mistudiod.jobs import ENDED
from mistudiod.specs import read_by
from mistudiod.statements import marks, values


def users(db: sqlite3.Connection, noun: str, name: str, kinds: Collection[str] | None = None) -> list[int]:
    """The unfinished jobs that read an artifact, by number; ``kinds``: of these only."""
    rows = db.execute(f"select id, kind, spec from jobs where state not in ({marks(ENDED)}) order by id", values(ENDED))
    return [
        row["id"]
        for row in rows
        if (kinds is None or row["kind"] in kinds) and (noun, name) in _read(row["kind"], json.loads(row["spec"]))
    ]


def _read(kind: str, spec: dict[str, Any]) -> set[tuple[str, str]]:
    """Noun and name of what a job reads, the SAEs of edits too."""
    edits = {("sae", str(edit["sae"])) for edit in spec.get("steering") or () if edit.get("sae")}
    return edits | {(noun, name) for _, noun, name in read_by(kind, spec)}
