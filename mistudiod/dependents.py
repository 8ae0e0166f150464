"""What depends on an SAE, and what goes with it when it is removed. Runs inside a transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

from mistudiod import about, label_statements, profiles, steerings
from mistudiod.index import Artifact
from mistudiod.moving import FORMATS, folders
from mistudiod.paths import Paths
from mistudiod.statements import maker
from mistudiod.users import users

_EXTENDING = """select name, json_extract(info, '$.extends.sae') as sae from artifacts
                where noun = 'sae' and json_extract(info, '$.extends.job') = ? order by name"""


def dependents(db: sqlite3.Connection, paths: Paths, sae: Artifact) -> dict[str, Any]:
    """Profiles, runs of steering and SAEs that were trained on from it, which stay and name it; what goes with it:
    formats in which it is exported, extractions, labelled and marked features, ranges; and ``jobs`` that use it still.
    """
    name, places = sae["name"], folders(paths, sae["name"])
    known_as = about.known_as(name, sae)
    extending = db.execute(_EXTENDING, (sae["job"],)).fetchall() if sae["job"] else ()
    jobs = {*users(db, "sae", name), *filter(None, [maker(db, "sae", name)])}
    extractions = (
        "select count(*) from artifacts where noun = 'features' and substr(name, 1, length(?1) + 1) = ?1 || '/'"
    )
    return {
        "profiles": profiles.naming(db, name),
        "steerings": steerings.count(db, name),
        "extended_by": [row["name"] for row in extending if row["sae"] in known_as],
        "exports": [format for format in FORMATS if places[format].is_dir()],
        "extractions": db.execute(extractions, (name,)).fetchone()[0],
        "labels": label_statements.count(db, name),
        "marked": label_statements.count_marked(db, name),
        "ranges": db.execute("select count(*) from ranges where sae = ?", (name,)).fetchone()[0],
        "jobs": sorted(jobs),
    }
