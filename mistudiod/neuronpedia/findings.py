"""What is wrong with an export, by rule."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

MOST = 20  # findings of one rule that are told one by one

RULES = {
    "names": "names are as Neuronpedia has them, and model, set and source are the same everywhere",
    "meta": "release, model, sourceset and source are one line each, of keys that the tables have",
    "creator": "every row is of one creator, whose rows the instance shows",
    "files": "folders hold batch-{number}.jsonl.gz, 1,000 files at most, for the importer lists no more",
    "keys": "every line of a table has the keys of the first, for columns are taken from that one",
    "nulls": "a column that must have a value has one",
    "values": "as many values as tokens, maximum and minimum are theirs, and all are finite numbers",
    "histogram": "as many heights as values, and together they are as many tokens as the feature fires on",
    "logits": "as many values as tokens, and they are sorted, the strongest first",
    "unknown feature": "an activation or a label is of a feature that is there",
    "paired": "batch k of activations is about the features of batch k, every one that fires",
    "ids": "no id is there twice, and no feature",
    "embedding": "an embedding has 256 numbers",
    "text": r"no text holds \u0000 or half a surrogate pair, which PostgreSQL cannot hold",
    "maximum": "maxActApprox is the largest activation of the strongest examples",
    "top group": "the strongest examples have binMin -1 and binContains -1, and every feature that fires has some",
    # What else stops an import, or spoils it in silence:
    "json": "every line is a JSON object, and every file is whole",
    "set name": "every feature names its set, or no page of the set shows it",
    "layers": "the model says how many layers it has, how many neurons each, and who made it",
    "order": "no row names another that is imported after it",
    "hosts": "inferenceHosts is empty, or it is taken for rows of another table",
    "siblings": "no other name begins with features or activations, or it is imported too",
    "empty": "no file is empty",
    "insert": "65,000 lines of a file, which are inserted at once, are less than 200 MB",
    "method": "the method of a label is one that Neuronpedia knows",
}


class Finding(NamedTuple):
    """``file`` within the folder, "" for the folder itself; ``line`` from 1, None for a whole file."""

    rule: str
    file: str
    line: int | None
    message: str


class Findings:
    """Collects them; of a rule that is broken everywhere the first few and how many more there are."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self._counts: Counter[str] = Counter()

    def add(self, rule: str, file: str, line: int | None, message: str) -> None:
        assert rule in RULES
        self._counts[rule] += 1
        if self._counts[rule] <= MOST:
            self._found.append(Finding(rule, file, line, message))

    def all(self) -> list[Finding]:
        more = [
            Finding(rule, "", None, f"and {count - MOST:,} more of this rule")
            for rule, count in self._counts.items()
            if count > MOST
        ]
        return self._found + more
