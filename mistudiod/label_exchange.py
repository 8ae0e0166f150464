"""Labels taken out of the database, and taken in from elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from mistudiod.label_statements import PERSON, add, add_score, choose, label_of, scores_of

_AT_ONCE = 500
_TAKEN = (
    *("text", "explanation", "confidence", "provider", "model", "template", "template_sha256", "extraction"),
    *("evidence", "prompt_tokens", "answer_tokens", "created_at", "status"),
)
_OF_THIS_STUDIO = ("id", "label", "feature", "job")


def export(db: sqlite3.Connection, sae: str, after: int) -> list[dict[str, Any]]:
    query = "select * from labels where sae = ? and id > ? order by id limit ?"
    found = [label_of(row) for row in db.execute(query, (sae, after, _AT_ONCE)).fetchall()]
    return [{**one, "scores": scores_of(db, one["id"])} for one in found]


def take_in(db: sqlite3.Connection, sae: str, labels: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """One that says the same of a feature as one that is here, by the same provider and model, is known already.

    Of several that a person has decided on elsewhere, the one that was current there comes first.
    """
    same = """select 1 from labels where sae = ? and feature = ? and text = ? and explanation is ? and provider = ?
              and model is ?"""
    imported = 0
    for one in labels:
        about = {name: one[name] for name in _TAKEN if one.get(name) is not None}
        about.setdefault("provider", PERSON)
        if about["provider"] == PERSON and about.get("status") != "rejected":
            about["status"] = "accepted"
        asked = (sae, one["feature"], about["text"], about.get("explanation"), about["provider"], about.get("model"))
        if db.execute(same, asked).fetchone():
            continue
        imported += 1
        about["decided"] = int(one.get("current") is not False)
        label = add(db, sae, one["feature"], about)
        for score in reversed(one.get("scores") or ()):
            add_score(db, label, {name: value for name, value in score.items() if name not in _OF_THIS_STUDIO})
        choose(db, sae, one["feature"])
    return {"imported": imported, "known": len(labels) - imported}
