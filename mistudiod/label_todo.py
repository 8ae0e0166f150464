"""What a job of labelling or scoring still has to do: a retry or a second run touches only what is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from mistudiod.specs import KEYLESS, Label, Score


def todo(db: sqlite3.Connection, spec: Label | Score, features: Sequence[int], job: int | None) -> list[dict[str, Any]]:
    """``[{"index", "label"}]`` of those ``features`` that are left, in their order."""
    if isinstance(spec, Label):
        done = _labelled_by(db, spec.sae, job) if spec.again else _labelled(db, spec, job)
        return [{"index": feature, "label": None} for feature in features if feature not in done]
    labels = _labels(db, spec.sae)
    scored = _scored(db, spec, job)
    wanted = ((feature, labels[feature]) for feature in features if feature in labels)
    return [{"index": feature, "label": label} for feature, label in wanted if label["id"] not in scored]


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
        that = "provider != :keyless and status != 'rejected'"
    query = f"select feature from labels where sae = :sae and {that}"
    found = {row["feature"] for row in db.execute(query, {"sae": spec.sae, "keyless": KEYLESS})}
    return found | _labelled_by(db, spec.sae, job)


def _labels(db: sqlite3.Connection, sae: str) -> dict[int, dict[str, Any]]:
    rows = db.execute("select feature, id, text, explanation from labels where sae = ? and current", (sae,))
    return {row["feature"]: {name: row[name] for name in ("id", "text", "explanation")} for row in rows}


def _scored(db: sqlite3.Connection, spec: Score, job: int | None) -> set[int]:
    """Labels that have been scored by every method that is asked for, and by the same judge."""
    methods: list[str] = sorted(set(spec.methods))
    query = f"""select label from scores join labels on labels.id = label
                where sae = :sae and current and method in ({", ".join(f":m{n}" for n in range(len(methods)))})
                  and (method = :keyless or judge is :judge) and (not :again or scores.job = :job)
                group by label having count(distinct method) = :methods"""
    asked: dict[str, Any] = {f"m{n}": method for n, method in enumerate(methods)}
    asked |= {"sae": spec.sae, "keyless": KEYLESS, "judge": spec.model, "again": spec.again, "job": job}
    return {row["label"] for row in db.execute(query, {**asked, "methods": len(methods)})}
