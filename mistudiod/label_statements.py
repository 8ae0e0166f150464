"""The statements about labels, what they are worth and what a person has marked; each runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mistudiod import events
from mistudiod.errors import NotFound
from mistudiod.jobs import now

PERSON, KEYLESS = "person", "tokens"  # providers that are no endpoint
FEATURE_BITS = 32  # of a row's number in labels_text
_SHOWN = (
    *("id", "sae", "feature", "text", "explanation", "confidence", "provider", "model", "template", "template_sha256"),
    *("extraction", "job", "prompt_tokens", "answer_tokens", "created_at", "status"),
)
_MEASURES = (
    *("balanced_accuracy", "low", "high", "auroc", "auroc_low", "auroc_high"),
    *("tp", "fp", "tn", "fn", "failed", "examples"),
)
OF_AN_SAE = ("labels", "label_failures", "marks", "listed", "labelled_saes")  # tables with its name
Label = dict[str, Any]


class Found(NamedTuple):
    """What a worker has said of the labels of an SAE's features."""

    sae: str
    labels: Sequence[events.Labelled] = ()
    scores: Sequence[events.Scored] = ()


def record(db: sqlite3.Connection, job: int, found: Found) -> None:
    """What a machine has found. It never takes the place of what a person has said."""
    for some in found.labels:
        about = some.model_dump(include={"provider", "model", "template", "template_sha256", "extraction"})
        for one in some.labels:
            if isinstance(one, events.NoLabel):
                row = (found.sae, one.feature, job, one.error, now())
                db.execute("insert or replace into label_failures values (?, ?, ?, ?, ?)", row)
            else:
                add(db, found.sae, one.feature, {**about, **one.model_dump(exclude={"feature"}), "job": job})
                choose(db, found.sae, one.feature)
    for scored in found.scores:
        for score in scored.scores:
            owner = db.execute("select sae, feature from labels where id = ?", (score.label,)).fetchone()
            if owner and tuple(owner) == (found.sae, score.feature):  # else its label went with an earlier SAE
                about = score.model_dump(exclude={"feature", "label"})
                add_score(db, score.label, {**about, "extraction": scored.extraction, "job": job})


def add(db: sqlite3.Connection, sae: str, feature: int, about: Mapping[str, Any]) -> int:
    """A label in a feature's history; ``choose`` then says which is shown. Returns its id."""
    columns = {"status": "proposed", "created_at": now(), **about, "sae": sae, "feature": feature}
    evidence = columns.get("evidence")
    columns |= {"folded": columns["text"].casefold(), "evidence": json.dumps(evidence) if evidence else None}
    query = f"insert into labels ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"
    cursor = db.execute(query, tuple(columns.values()))
    db.execute("delete from label_failures where sae = ? and feature = ?", (sae, feature))
    return int(cursor.lastrowid or 0)


def choose(db: sqlite3.Connection, sae: str, feature: int) -> None:
    """Let the best label of a feature be the current one: what a person has decided last; then the newest of an LLM;
    then the newest description by tokens. None that was rejected.
    """
    old = db.execute("select id from labels where sae = ? and feature = ? and current", (sae, feature)).fetchone()
    best = db.execute(
        f"""select id, text, explanation from labels where sae = ? and feature = ? and status != 'rejected'
            order by status = 'accepted' desc, decided desc, provider != '{KEYLESS}' desc, id desc limit 1""",
        (sae, feature),
    ).fetchone()
    if (old and old["id"]) == (best and best["id"]):
        return
    row = (number_of(db, sae) << FEATURE_BITS) + feature
    db.execute("delete from labels_text where rowid = ?", (row,))
    if old:
        db.execute("update labels set current = 0 where id = ?", (old["id"],))
    if best:
        db.execute("update labels set current = 1 where id = ?", (best["id"],))
        found = (row, best["text"], best["explanation"])
        db.execute("insert into labels_text (rowid, text, explanation) values (?, ?, ?)", found)


def number_of(db: sqlite3.Connection, sae: str) -> int:
    """Of an SAE in labels_text; never given twice."""
    db.execute("insert or ignore into labelled_saes (sae) values (?)", (sae,))
    return int(db.execute("select id from labelled_saes where sae = ?", (sae,)).fetchone()["id"])


def put(
    db: sqlite3.Connection, sae: str, feature: int, text: str, explanation: str | None, extraction: str | None
) -> Label:
    """A person's label, from now on the current one."""
    known = current(db, sae, feature)
    if known and (known["provider"], known["text"], known["explanation"]) == (PERSON, text, explanation):
        return known
    about = {"text": text, "explanation": explanation, "provider": PERSON, "extraction": extraction}
    label = add(db, sae, feature, {**about, "status": "accepted", "decided": _next(db, sae, feature)})
    choose(db, sae, feature)
    return get(db, sae, label)


def decide(db: sqlite3.Connection, sae: str, label: int, status: str) -> Label:
    """``accepted``: it is the current one from now on; ``rejected``: it is not. Raises NotFound."""
    feature = get(db, sae, label)["feature"]
    decided = _next(db, sae, feature)
    db.execute("update labels set status = ?, decided = ? where id = ?", (status, decided, label))
    choose(db, sae, feature)
    return get(db, sae, label)


def _next(db: sqlite3.Connection, sae: str, feature: int) -> int:
    """Number of a decision. Those that were imported have 0 or 1: what was decided here outdoes them."""
    query = "select max(decided) from labels where sae = ? and feature = ?"
    return max(db.execute(query, (sae, feature)).fetchone()[0] or 0, 1) + 1


def get(db: sqlite3.Connection, sae: str, label: int) -> Label:
    """Raises NotFound."""
    row = db.execute("select * from labels where sae = ? and id = ?", (sae, label)).fetchone()
    if row is None:
        raise NotFound(f"{sae} has no label {label}")
    return label_of(row)


def current(db: sqlite3.Connection, sae: str, feature: int) -> Label | None:
    row = db.execute("select * from labels where sae = ? and feature = ? and current", (sae, feature)).fetchone()
    return label_of(row) if row else None


def label_of(row: sqlite3.Row) -> Label:
    evidence = json.loads(row["evidence"]) if row["evidence"] else None
    return {**{name: row[name] for name in _SHOWN}, "evidence": evidence, "current": bool(row["current"])}


def history(db: sqlite3.Connection, sae: str, feature: int) -> list[Label]:
    """Every label that a feature has had, the newest first, each with its scores."""
    rows = db.execute("select * from labels where sae = ? and feature = ? order by id desc", (sae, feature)).fetchall()
    return [{**label_of(row), "scores": scores_of(db, row["id"])} for row in rows]


def failure_of(db: sqlite3.Connection, sae: str, feature: int) -> dict[str, Any] | None:
    """Why the last try to label it gave nothing."""
    query = "select job, reason, at from label_failures where sae = ? and feature = ?"
    row = db.execute(query, (sae, feature)).fetchone()
    return dict(row) if row else None


def add_score(db: sqlite3.Connection, label: int, about: Mapping[str, Any]) -> None:
    columns = {"created_at": now(), **about, "label": label}
    query = f"insert into scores ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"
    db.execute(query, tuple(columns.values()))
    db.execute("update labels set score = ? where id = ?", (worth(db, label), label))


def worth(db: sqlite3.Connection, label: int) -> float | None:
    """The best evidence of what a label is worth: of a judge's methods the mean, else how its tokens do; of each
    method what was found last.
    """
    query = """with newest as (select method, balanced_accuracy as found, max(id) from scores
                               where label = ? and balanced_accuracy is not null group by method)
               select coalesce((select avg(found) from newest where method != 'tokens'),
                               (select found from newest where method = 'tokens'))"""
    found: float | None = db.execute(query, (label,)).fetchone()[0]
    return found


def scores_of(db: sqlite3.Connection, label: int) -> list[dict[str, Any]]:
    """All of a label's, the newest first."""
    names = ("id", "label", "method", "judge", *_MEASURES, "extraction", "job", "created_at")
    rows = db.execute("select * from scores where label = ? order by id desc", (label,)).fetchall()
    return [{name: row[name] for name in names} for row in rows]


def marks_of(db: sqlite3.Connection, sae: str, feature: int) -> dict[str, Any]:
    row = db.execute("select starred, note from marks where sae = ? and feature = ?", (sae, feature)).fetchone()
    lists = db.execute("select list from listed where sae = ? and feature = ? order by list", (sae, feature))
    return {
        "starred": bool(row and row["starred"]),
        "note": row["note"] if row else None,
        "lists": [one["list"] for one in lists],
    }


def about(db: sqlite3.Connection, sae: str, feature: int) -> dict[str, Any]:
    """``{"label", "score", "marks"}`` of a feature; without a label, or a score of it: None."""
    label = current(db, sae, feature)
    scores = scores_of(db, label["id"]) if label else []
    score = {"value": worth(db, label["id"]), "scores": scores} if label and scores else None
    return {"label": label, "score": score, "marks": marks_of(db, sae, feature)}


def mark(db: sqlite3.Connection, sae: str, feature: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes``: what of starred, note and lists is to be another."""
    marks = {**marks_of(db, sae, feature), **changes}
    where = (sae, feature)
    db.execute("delete from marks where sae = ? and feature = ?", where)
    if marks["starred"] or marks["note"]:
        db.execute("insert into marks values (?, ?, ?, ?)", (*where, marks["starred"], marks["note"] or None))
    db.execute("delete from listed where sae = ? and feature = ?", where)
    _list(db, sae, feature, marks["lists"])
    return marks_of(db, sae, feature)


def _list(db: sqlite3.Connection, sae: str, feature: int, lists: Iterable[str]) -> None:
    db.executemany("insert or ignore into listed values (?, ?, ?)", [(sae, name, feature) for name in lists])


def lists(db: sqlite3.Connection, sae: str) -> list[dict[str, Any]]:
    """The lists of an SAE's features, with how many each has."""
    query = "select list as name, count(*) as features from listed where sae = ? group by list order by list"
    return [dict(row) for row in db.execute(query, (sae,))]


def count(db: sqlite3.Connection, sae: str) -> int:
    """How many of an SAE's features are labelled."""
    return int(db.execute("select count(*) from labels where sae = ? and current", (sae,)).fetchone()[0])


def count_marked(db: sqlite3.Connection, sae: str) -> int:
    """How many of an SAE's features a person has starred, written a note of, or put on a list."""
    query = """select count(*) from (select feature from marks where sae = :sae
                                     union select feature from listed where sae = :sae)"""
    return int(db.execute(query, {"sae": sae}).fetchone()[0])


def names(db: sqlite3.Connection, begin: str) -> set[str]:
    """Under which names that begin so anything is kept."""
    queries = (f"select sae from {table} where substr(sae, 1, :length) = :begin" for table in OF_AN_SAE)
    values = {"begin": begin, "length": len(begin)}
    return {row["sae"] for row in db.execute(" union ".join(queries), values).fetchall()}


def forget(db: sqlite3.Connection, sae: str) -> None:
    """Everything that was said of an SAE, which is gone: another of its name has other features."""
    row = db.execute("select id from labelled_saes where sae = ?", (sae,)).fetchone()
    if row:
        first = row["id"] << FEATURE_BITS
        db.execute("delete from labels_text where rowid >= ? and rowid < ?", (first, first + (1 << FEATURE_BITS)))
    for table in OF_AN_SAE:
        db.execute(f"delete from {table} where sae = ?", (sae,))


def rename(db: sqlite3.Connection, old: str, new: str) -> None:
    """Everything that was said of an SAE, which has another name now. Its number in labels_text stays."""
    forget(db, new)
    for table in OF_AN_SAE:
        db.execute(f"update {table} set sae = ? where sae = ?", (new, old))
