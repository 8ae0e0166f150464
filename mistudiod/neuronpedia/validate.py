"""An export in layout v1, held line by line to what Neuronpedia's importer and pages need.

One pass over every file; of a feature some 200 bytes are kept, of an id 16.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from mistudiod.neuronpedia import checks, meta_checks
from mistudiod.neuronpedia.checks import Row, number
from mistudiod.neuronpedia.findings import Finding, Findings
from mistudiod.neuronpedia.lines import batch_files, batch_of, lines, row
from mistudiod.neuronpedia.names import DEFAULT_CREATOR, index_of

FILES = 1000  # that the importer lists of a folder
INSERTED, INSERT_BYTES = 65_000, 200_000_000  # lines of a file that are inserted at once, and what they may take
BESIDE = frozenset(("config.json", "failed_explanation_indexes.txt"))  # of explanations, which the importer passes over
AGREE, ROUNDED = 0.05, 0.5e-5  # how far a histogram may be off: a share; and SAEDashboard's rounding of densities
CHECKS = {"features": checks.feature, "activations": checks.activation, "explanations": checks.explanation}


def validate(
    folder: Path, creator: str = DEFAULT_CREATOR, heard: Callable[[str], None] = lambda file: None
) -> list[Finding]:
    """What breaks the rules of ``findings.RULES``, in the order of the files; nothing when all is well.

    ``creator``: the user whose rows the instance shows. ``heard`` is told which file is read next, and may raise.
    """
    return _Export(folder, creator, heard).check()


@dataclass(slots=True)
class _Feature:
    batch: int
    line: int
    maximum: float
    strongest: float | None = None  # of the strongest examples
    shown: bool = False  # it has examples


class _Ids:
    """Which ids there are twice: by their hashes, in 256 heaps, so that only one of them is ever a set."""

    def __init__(self) -> None:
        self._heaps = [(array("q"), array("Q")) for _ in range(256)]

    def add(self, id: object, batch: int, line: int) -> None:
        if isinstance(id, str | int):  # a number becomes a text in the table
            found = hash(str(id))
            hashes, places = self._heaps[found & 255]
            hashes.append(found)
            places.append(batch << 32 | line)

    def twice(self) -> list[tuple[int, int]]:
        """Batch and line of every id that was there before."""
        found = []
        for hashes, places in self._heaps:
            seen = set[int]()
            for one, place in zip(hashes, places, strict=True):
                if one in seen:
                    found.append((place >> 32, place & 0xFFFFFFFF))
                seen.add(one)
        return sorted(found)


@dataclass
class _Export:
    folder: Path
    creator: str
    heard: Callable[[str], None]
    findings: Findings = field(default_factory=Findings)
    features: dict[int, _Feature] = field(default_factory=dict)
    counted: list[tuple[int, float, float]] = field(default_factory=list)  # index, sum of heights, frac_nonzero

    def check(self) -> list[Finding]:
        self.meta = meta_checks.check(self.folder, self.creator, self.findings)
        self._siblings()
        for kind in CHECKS:
            if (self.folder / kind).is_dir() or kind == "features":
                self._folder(kind)
                self._rows(kind)
            elif kind == "activations" and any(one.maximum > 0 for one in self.features.values()):
                self.findings.add("files", kind, None, "is missing, though features fire")
        self._histograms()
        if (self.folder / "activations").is_dir():
            self._examples()
        return self.findings.all()

    def _siblings(self) -> None:
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            for kind in ("features", "activations"):
                if path.name.startswith(kind) and path.name != kind:
                    self.findings.add("siblings", path.name, None, f"is imported with {kind}: name it otherwise")

    def _folder(self, kind: str) -> None:
        at = self.folder / kind
        found = sorted(path.name for path in at.iterdir()) if at.is_dir() else []
        for name in found:
            if batch_of(name) is None and not (kind == "explanations" and name in BESIDE):
                self.findings.add("files", f"{kind}/{name}", None, "is not called batch-{number}.jsonl.gz")
        if len(found) > FILES:
            self.findings.add("files", kind, None, f"holds {len(found):,} files, of which {FILES:,} are imported")
        if kind == "features" and not found:
            self.findings.add("files", kind, None, "holds no features")

    def _rows(self, kind: str) -> None:
        keys: frozenset[str] | None = None
        ids = _Ids()
        for batch, path in batch_files(self.folder / kind):
            name, size, count = f"{kind}/{path.name}", 0, 0
            self.heard(name)
            try:
                for line in lines(path):
                    size = size + len(line) + 1 if count % INSERTED else len(line) + 1
                    count += 1
                    if size > INSERT_BYTES >= size - len(line) - 1:
                        self.findings.add("insert", name, count, f"{INSERTED:,} lines take more than 200 MB")
                    try:
                        one = row(line)
                    except ValueError as error:
                        self.findings.add("json", name, count, str(error))
                        continue
                    keys = keys or frozenset(one)
                    self._row(kind, batch, name, count, line, one, keys)
                    ids.add(one.get("id"), batch, count)
            except (ValueError, OSError) as error:
                self.findings.add("json", name, None, str(error))
                continue
            if not count:
                self.findings.add("empty", name, None, "is empty, which stops the import: leave it out")
        for batch, number_ in ids.twice() if kind != "features" else ():
            self.findings.add("ids", f"{kind}/batch-{batch}.jsonl.gz", number_, "its id is there twice")

    def _row(self, kind: str, batch: int, name: str, line: int, raw: bytes, one: Row, keys: frozenset[str]) -> None:
        def wrong(rule: str, message: str) -> None:
            self.findings.add(rule, name, line, message)

        if one.keys() != keys:
            wrong("keys", f"has other keys than the first line: {', '.join(sorted(one.keys() ^ keys))[:200]}")
        for check in (checks.nulls(kind, one), checks.text(raw, one), CHECKS[kind](one)):
            for rule, message in check:
                wrong(rule, message)
        for key, of, column in (("modelId", "model", "id"), ("layer", "source", "id")):
            expected = self.meta[of].get(column)
            if expected is not None and one.get(key) not in (None, expected):
                wrong("names", f"{key} is {str(one[key])[:60]!r}, not {str(expected)[:60]!r}")
        by = one.get("authorId" if kind == "explanations" else "creatorId")
        if by not in (None, self.creator):
            wrong("creator", f"is of {str(by)[:60]!r}, not {self.creator!r}")
        index = index_of(one.get("index"))
        if index is None:
            if one.get("index") is not None:
                wrong("names", f"{str(one['index'])[:60]!r} is no index of a feature")
        elif kind == "features":
            self._feature(index, batch, line, one, wrong)
        elif index not in self.features:
            wrong("unknown feature", f"there is no feature {index}")
        elif kind == "activations":
            self._activation(self.features[index], index, batch, one, wrong)

    def _feature(self, index: int, batch: int, line: int, one: Row, wrong: Callable[[str, str], None]) -> None:
        if one.get("sourceSetName") != (self.meta["sourceset"].get("name") or one.get("sourceSetName") or ""):
            wrong("set name", f"sourceSetName is {str(one.get('sourceSetName'))[:60]!r}")
        if index in self.features:
            wrong("ids", f"feature {index} is there twice")
            return
        most = one.get("maxActApprox")
        self.features[index] = _Feature(batch, line, float(most) if number(most) and most else 0.0)
        heights, share = one.get("freq_hist_data_bar_heights"), one.get("frac_nonzero")
        if checks.numbers(heights or []) and share is not None and number(share) and 0 <= share <= 1:
            self.counted.append((index, sum(map(float, heights or [])), float(share)))

    def _activation(
        self, feature: _Feature, index: int, batch: int, one: Row, wrong: Callable[[str, str], None]
    ) -> None:
        feature.shown = True
        if feature.batch != batch:
            wrong("paired", f"feature {index} is in batch {feature.batch} of features")
        if checks.is_top(one) and number(one.get("maxValue")):
            feature.strongest = max(one["maxValue"], feature.strongest or one["maxValue"])

    def _histograms(self) -> None:
        """Heights are counts of the tokens on which a feature fires: the same number of tokens must follow from all."""
        implied = [total / share for _, total, share in self.counted if total > 0 and share > 0]
        tokens = median(implied) if implied else 0.0
        for index, total, share in self.counted:
            expected = share * tokens
            if tokens and abs(total - expected) > AGREE * max(total, expected) + ROUNDED * tokens + 1:
                message = f"its histogram has {total:,.0f} tokens, but {expected:,.0f} follow from frac_nonzero"
                self._of("histogram", index, message)
        source = self.meta["source"]
        prompts, each = source.get("num_prompts"), source.get("num_tokens_in_prompt")
        if (
            number(prompts)
            and number(each)
            and prompts
            and each
            and tokens > float(prompts) * float(each) * (1 + AGREE)
        ):
            message = f"histograms speak of {tokens:,.0f} tokens, but only {prompts * each:,} were read"
            self.findings.add("histogram", "source.jsonl", 1, message)

    def _examples(self) -> None:
        for index, one in self.features.items():
            if one.maximum > 0 and not one.shown:
                self._of("paired", index, "it fires, but no batch has an activation of it")
            elif one.shown and one.strongest is None:
                self._of("top group", index, "none of its activations is one of the strongest, with binMin -1")
            elif one.strongest is not None and abs(one.strongest - one.maximum) > 1e-5 * abs(one.strongest):
                self._of("maximum", index, f"maxActApprox is {one.maximum}, but its strongest is {one.strongest}")

    def _of(self, rule: str, index: int, message: str) -> None:
        one = self.features[index]
        self.findings.add(rule, f"features/batch-{one.batch}.jsonl.gz", one.line, f"feature {index}: {message}")
