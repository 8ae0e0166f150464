"""What a job of labelling or scoring still has to do: a retry or a second run touches only what is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from mistudiod.labelling.answer import UNCLEAR
from mistudiod.specs import KEYLESS, Label, Score


def todo(db: sqlite3.Connection, spec: Label | Score, features: Sequence[int], job: int | None) -> list[dict[str, Any]]:
    """``[{"index", "label"}]`` of those ``features`` that are left, in their order; to a scoring also ``"methods"``,
    those by which the label has no score yet.
    """
    if isinstance(spec, Label):
        done = _labelled_by(db, spec.sae, job) if spec.again else _labelled(db, spec, job)
        done |= _unclear(db, spec, job)
        return [{"index": feature, "label": None} for feature in features if feature not in done]
    labels = _labels(db, spec.sae)
    scored = _scored(db, spec, job)
    left = []
    for feature in features:
        if label := labels.get(feature):
            done_by = scored.get(label["id"], set())
            methods = [method for method in dict.fromkeys(spec.methods) if method not in done_by]
            left += [{"index": feature, "label": label, "methods": methods}] if methods else []
    return left


def _labelled_by(db: sqlite3.Connection, sae: str, job: int | None) -> set[int]:
    rows = db.execute("select feature from labels where sae = ? and job = ?", (sae, job))
    return {row["feature"] for row in rows}


def _labelled(db: sqlite3.Connection, spec: Label, job: int | None) -> set[int]:
    """A description by tokens is there for want of any label, an LLM's for want of a better one than that.

    What a person has rejected is not said again: tokens would only repeat it.
    """
    if spec.endpoint == KEYLESS:
        that = "(current or provider = :keyless)"
    else:
        that = "(status = 'accepted' or provider != :keyless and status != 'rejected')"
    query = f"select feature from labels where sae = :sae and {that}"
    found = {row["feature"] for row in db.execute(query, {"sae": spec.sae, "keyless": KEYLESS})}
    return found | _labelled_by(db, spec.sae, job)


def _unclear(db: sqlite3.Connection, spec: Label, job: int | None) -> set[int]:
    """Features of which the same model, asked in the same way, has said that it sees no pattern: that is an answer.

    Who was asked is known as long as the job is; of those with ``again`` only this one's own answers count.
    """
    query = """select feature from label_failures as failed left join jobs on jobs.id = failed.job
               where sae = :sae and reason = :unclear
                 and (failed.job = :job
                      or not :again and kind = 'label' and json_extract(spec, '$.endpoint') = :endpoint
                         and json_extract(spec, '$.model') is :model
                         and json_extract(spec, '$.template') is :template)"""
    asked = {"sae": spec.sae, "unclear": UNCLEAR, "job": job, "again": spec.again, "endpoint": spec.endpoint}
    return {row["feature"] for row in db.execute(query, {**asked, "model": spec.model, "template": spec.template})}


def _labels(db: sqlite3.Connection, sae: str) -> dict[int, dict[str, Any]]:
    rows = db.execute("select feature, id, text, explanation from labels where sae = ? and current", (sae,))
    return {row["feature"]: {name: row[name] for name in ("id", "text", "explanation")} for row in rows}


def _scored(db: sqlite3.Connection, spec: Score, job: int | None) -> dict[int, set[str]]:
    """Of each label the methods by which it has been scored, by the same judge."""
    query = """select distinct label, method from scores join labels on labels.id = label
               where sae = :sae and current and (method = :keyless or judge is :judge)
                 and (not :again or scores.job = :job)"""
    asked = {"sae": spec.sae, "keyless": KEYLESS, "judge": spec.model, "again": spec.again, "job": job}
    scored: dict[int, set[str]] = {}
    for row in db.execute(query, asked):
        scored.setdefault(row["label"], set()).add(row["method"])
    return scored
