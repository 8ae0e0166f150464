"""Labels of an SAE found and put in order: what a list of 131,072 features asks."""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Sequence
from typing import Any

from mistudiod.label_statements import FEATURE_BITS

_OPERATORS = {"<", "<=", ">", ">="}


def words_of(text: str) -> tuple[str, list[str]]:
    """What a person looks for, as an FTS5 query and as the words that FTS5 has no tokens of, such as "==".

    Every word is a quoted term, so that nothing in it is syntax; the last one may go on.
    """
    words = text.encode(errors="replace").decode().replace("\0", " ").split()
    terms = ['"{}"'.format(word.replace('"', '""')) for word in words if _has_tokens(word)]
    if words and _has_tokens(words[-1]):
        terms[-1] += "*"
    return " ".join(terms), [word.casefold() for word in words if not _has_tokens(word)]


def _has_tokens(word: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in word)


def containing(db: sqlite3.Connection, sae: str, text: str) -> set[int]:
    """Features whose label or explanation has every word of a text; a text without words matches every label."""
    query, plain = words_of(text)
    found: set[int] | None = None
    if query:
        row = db.execute("select id from labelled_saes where sae = ?", (sae,)).fetchone()
        first = (row["id"] if row else 0) << FEATURE_BITS
        found = _set(
            db,
            "select rowid - ? as one from labels_text where labels_text match ? and rowid >= ? and rowid < ?",
            (first, query, first, first + (1 << FEATURE_BITS)),
        )
    for word in plain:
        having = (
            "select feature as one from labels indexed by labels_by_text where sae = ? and current and instr(folded, ?)"
        )
        those = _set(db, having, (sae, word))
        found = those if found is None else found & those
    return _labelled(db, sae) if found is None else found


def _labelled(
    db: sqlite3.Connection, sae: str, provider: str | None = None, score: tuple[str, float] | None = None
) -> set[int]:
    """Features with a label: of any provider, or one; of any score or none, or one that compares so."""
    query = "select feature as one from labels indexed by labels_shown where sae = ? and current"
    values: list[Any] = [sae]
    if provider is not None:
        query += " and provider = ?"
        values.append(provider)
    if score is not None:
        sign, value = score
        if sign not in _OPERATORS:
            raise ValueError(f"{sign!r} compares nothing: use one of {', '.join(sorted(_OPERATORS))}")
        query += f" and score {sign} ?"  # null compares as nothing
        values.append(value)
    return _set(db, query, values)


def width(db: sqlite3.Connection, sae: str) -> int:
    """How many features an SAE has, by its newest extraction or by itself; 0 when neither says so."""
    query = """select coalesce(
                 (select json_extract(info, '$.d_sae') from artifacts where noun = 'features'
                  and substr(name, 1, length(:sae) + 1) = :sae || '/'
                  order by cast(substr(name, length(:sae) + 2) as integer) desc limit 1),
                 (select json_extract(info, '$.width') from artifacts where noun = 'sae' and name = :sae))"""
    found = db.execute(query, {"sae": sae}).fetchone()[0]
    return found if isinstance(found, int) else 0


def matching(
    db: sqlite3.Connection,
    sae: str,
    q: str | None = None,
    labelled: bool | None = None,
    failed: bool | None = None,
    starred: bool | None = None,
    list_name: str | None = None,
    provider: str | None = None,
    score: tuple[str, float] | None = None,
) -> set[int]:
    """Features for which all that is asked holds; every feature when nothing is asked."""
    sets: list[set[int]] = []
    if q is not None:
        sets.append(containing(db, sae, q))
    if labelled or provider is not None or score is not None:
        sets.append(_labelled(db, sae, provider, score))
    if labelled is False:
        sets.append(set(range(width(db, sae))) - _labelled(db, sae))
    if failed:
        sets.append(_set(db, "select feature as one from label_failures where sae = ?", (sae,)))
    if starred is not None:
        those = _set(db, "select feature as one from marks where sae = ? and starred", (sae,))
        sets.append(those if starred else set(range(width(db, sae))) - those)
    if list_name is not None:
        sets.append(_set(db, "select feature as one from listed where sae = ? and list = ?", (sae, list_name)))
    if not sets:
        return set(range(width(db, sae)))
    return set.intersection(*sorted(sets, key=len))


def order(db: sqlite3.Connection, sae: str, by: str) -> list[int]:
    """The features that have one, by the text of their ``label`` or by its ``score``, ascending."""
    column = {"label": "folded", "score": "score"}[by]
    known = "and score is not null" if by == "score" else ""
    index = {"label": "labels_by_text", "score": "labels_by_score"}[by]
    query = f"""select json_group_array(feature) from (select feature from labels indexed by {index}
                where sae = ? and current {known} order by {column}, feature)"""
    found: list[int] = json.loads(db.execute(query, (sae,)).fetchone()[0])
    return found


def of(db: sqlite3.Connection, sae: str, indices: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Of each feature its label in short, the label's score, and whether it is starred."""
    found: dict[int, dict[str, Any]] = {index: {"label": None, "score": None, "starred": False} for index in indices}
    asked = (sae, json.dumps(list(indices)))
    query = """select feature, text, provider, confidence, status, score from labels
               where sae = ? and current and feature in (select value from json_each(?))"""
    for row in db.execute(query, asked):
        label = {name: row[name] for name in ("text", "provider", "confidence", "status")}
        found[row["feature"]] |= {"label": label, "score": row["score"]}
    query = "select feature from marks where sae = ? and starred and feature in (select value from json_each(?))"
    for row in db.execute(query, asked):
        found[row["feature"]]["starred"] = True
    return found


def _set(db: sqlite3.Connection, query: str, values: Sequence[Any]) -> set[int]:
    """The numbers in a query's only column; as one text they come twice as quickly as in rows."""
    found: str = db.execute(f"select json_group_array(one) from ({query})", values).fetchone()[0]
    return set(json.loads(found))
