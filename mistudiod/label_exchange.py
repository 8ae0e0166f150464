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
_PUBLISHED = ("text", "explanation", "confidence", "provider", "model", "template", "score", "created_at", "status")
_OF_THIS_STUDIO = ("id", "label", "feature", "job")


def export(db: sqlite3.Connection, sae: str, after: int) -> list[dict[str, Any]]:
    query = "select * from labels where sae = ? and id > ? order by id limit ?"
    found = [label_of(row) for row in db.execute(query, (sae, after, _AT_ONCE)).fetchall()]
    return [{**one, "scores": scores_of(db, one["id"])} for one in found]


def shown(db: sqlite3.Connection, sae: str, after: int) -> list[dict[str, Any]]:
    """Of the next features after one (-1: of the first) what they are called now, as it goes with a published SAE."""
    query = "select * from labels where sae = ? and current and feature > ? order by feature limit ?"
    rows = db.execute(query, (sae, after, _AT_ONCE)).fetchall()
    return [{"feature": row["feature"], **{name: row[name] for name in _PUBLISHED}} for row in rows]


def take_in(db: sqlite3.Connection, sae: str, labels: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """One that says the same of a feature as one that is here, by the same provider and model, is known already: only
    what became of it since is taken, and nothing of what a person has decided here.

    Of several that a person has decided on elsewhere, the one that was current there comes first.
    """
    imported = 0
    for one in labels:
        about = {name: one[name] for name in _TAKEN if one.get(name) is not None}
        about.setdefault("provider", PERSON)
        if about["provider"] == PERSON and about.get("status") != "rejected":
            about["status"] = "accepted"
        about["decided"] = int(about.get("status") == "accepted" and one.get("current") is not False)
        label = _known(db, sae, one["feature"], about)
        if label is None:
            imported += 1
            label = add(db, sae, one["feature"], about)
        elif about.get("status", "proposed") != "proposed":
            query = "update labels set status = ?, decided = ? where id = ? and decided <= 1"  # more: decided here
            db.execute(query, (about["status"], about["decided"], label))
        _take_in_scores(db, label, one.get("scores") or ())
        choose(db, sae, one["feature"])
    return {"imported": imported, "known": len(labels) - imported}


def _known(db: sqlite3.Connection, sae: str, feature: int, about: Mapping[str, Any]) -> int | None:
    """Of several that say the same, the one that was made at the same time."""
    query = """select id from labels where sae = ? and feature = ? and text = ? and explanation is ? and provider = ?
               and model is ? order by created_at is ? desc, id limit 1"""
    same = (about["text"], about.get("explanation"), about["provider"], about.get("model"), about.get("created_at"))
    row = db.execute(query, (sae, feature, *same)).fetchone()
    return int(row["id"]) if row else None


def _take_in_scores(db: sqlite3.Connection, label: int, scores: Sequence[Mapping[str, Any]]) -> None:
    here = scores_of(db, label)
    for score in reversed(scores):
        about = {name: value for name, value in score.items() if name not in _OF_THIS_STUDIO}
        if not any(all(one[name] == value for name, value in about.items()) for one in here):
            add_score(db, label, about)
