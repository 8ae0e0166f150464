"""What the labels of an SAE are worth as a whole, and why features have none."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

_REASONS = 50


def summary(db: sqlite3.Connection, sae: str) -> dict[str, Any]:
    """``{"labelled", "history", "providers", "failures", "scores"}``; a mean is of these labels, as
    ``labelling.metrics.mean`` has it, and so is its 95 % interval.
    """
    providers = db.execute(
        """select provider, status, count(*) as features from labels indexed by labels_shown
           where sae = ? and current group by provider, status order by provider, status""",
        (sae,),
    ).fetchall()
    history = db.execute("select count(*) from labels where sae = ?", (sae,)).fetchone()[0]
    failures = db.execute(
        """select reason, count(*) as features from label_failures where sae = ? group by reason
           order by features desc, reason limit ?""",
        (sae, _REASONS),
    ).fetchall()
    return {
        "labelled": sum(row["features"] for row in providers),
        "history": history,
        "providers": [dict(row) for row in providers],
        "failures": [dict(row) for row in failures],
        "scores": _scores(db, sae),
    }


def _scores(db: sqlite3.Connection, sae: str) -> list[dict[str, Any]]:
    """Of each method and judge: the mean over the current labels, of each what was found last."""
    query = """select method, judge, count(found) as features, avg(found) as mean, sum(failed) as failed,
                      sum((found - low) * (found - low)) as below, sum((high - found) * (high - found)) as above
               from (select method, judge, balanced_accuracy as found, low, high, scores.failed as failed,
                            max(scores.id)
                     from scores join labels on labels.id = scores.label
                     where sae = ? and current group by scores.label, method, judge)
               group by method, judge order by method, judge"""
    found = []
    for row in db.execute(query, (sae,)).fetchall():
        n, mean = row["features"], row["mean"]
        low = high = None
        if row["below"] is not None:
            low, high = max(mean - math.sqrt(row["below"]) / n, 0.0), min(mean + math.sqrt(row["above"]) / n, 1.0)
        shown = {name: row[name] for name in ("method", "judge", "features", "mean", "failed")}
        found.append({**shown, "low": low, "high": high})
    return found
