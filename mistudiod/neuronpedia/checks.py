"""What a row of each table must be; nothing of it is taken for granted. Every check gives (rule, what is wrong)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]
Wrong = Iterator[tuple[str, str]]

KNOWN = {  # keys of the four rows about an export
    "release": frozenset(
        "name description descriptionShort urls creatorName creatorNameShort creatorEmail creatorId visibility isNewUi "
        "featured defaultSourceSetName defaultSourceId defaultUmapSourceIds createdAt".split()
    ),
    "model": frozenset(
        "id creatorId layers neuronsPerLayer owner displayName displayNameShort instruct tlensId website dimension "
        "defaultSourceSetName defaultSourceId inferenceEnabled visibility createdAt updatedAt".split()
    ),
    "sourceset": frozenset(
        "modelId name type description creatorName creatorEmail creatorId releaseName urls visibility hasDashboards "
        "allowInferenceSearch defaultRange defaultShowBreaks showDfa showCorrelated showHeadAttribution showUmap "
        "defaultOfModelId createdAt".split()
    ),
    "source": frozenset(
        "id modelId setName creatorId visibility hasDashboards inferenceEnabled inferenceHosts hasUmap "
        "hasUmapLogSparsity hasUmapClusters saelensConfig saelensRelease saelensSaeId hfRepoId hfFolderId dataset "
        "notes num_prompts num_tokens_in_prompt cosSimMatchModelId cosSimMatchSourceId createdAt".split()
    ),
}
REQUIRED = {  # keys that must be there with a value
    "release": "name description creatorName creatorId".split(),
    "model": "id creatorId layers neuronsPerLayer owner".split(),
    "sourceset": "modelId name description creatorName creatorId".split(),
    "source": "id modelId setName creatorId".split(),
    "features": "modelId layer index".split(),
    "activations": "id modelId layer index tokens values maxValue minValue maxValueTokenIndex creatorId".split(),
    "explanations": "id modelId layer index description authorId".split(),
}
NEVER_NULL = {  # keys that may be missing, but not null
    "release": "visibility isNewUi featured createdAt".split(),
    "model": "displayName displayNameShort instruct inferenceEnabled visibility createdAt updatedAt".split(),
    "sourceset": (
        "type visibility hasDashboards allowInferenceSearch defaultRange defaultShowBreaks showDfa showCorrelated "
        "showHeadAttribution showUmap createdAt".split()
    ),
    "source": (
        "visibility hasDashboards inferenceEnabled hasUmap hasUmapLogSparsity hasUmapClusters createdAt".split()
    ),
    "features": "frac_nonzero hasVector createdAt".split(),
    "activations": ["createdAt"],
    "explanations": "scoreV1 createdAt updatedAt".split(),
}
METHODS = (
    *("oai_token-act-pair", "oai_attention-head", "np_max-act-logits", "np_max-act", "np_acts-logits-general"),
    *("eleuther_acts_top20", "python-code", "human"),
)  # fmt: skip
LARGEST = 1.7976931348623157e308
EMBEDDING = 256
_NUMBERS, _TEXTS = {int, float}, {str}


def number(value: object) -> bool:
    """Whether it is a finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def numbers(value: object) -> bool:
    """The same of all of a list, without a call of ours for each: there are hundreds of millions."""
    try:
        return isinstance(value, list) and {*map(type, value)} <= _NUMBERS and all(map(math.isfinite, value))
    except OverflowError:  # a whole number that no float can be
        return False


def texts(value: object) -> bool:
    return isinstance(value, list) and {*map(type, value)} <= _TEXTS


def nulls(kind: str, row: Row) -> Wrong:
    for name in REQUIRED[kind]:
        if row.get(name) is None:
            yield "nulls", f"{name} is {'null' if name in row else 'missing'}"
    for name in NEVER_NULL[kind]:
        if name in row and row[name] is None:
            yield "nulls", f"{name} is null: leave it out"


def text(line: bytes, row: Row) -> Wrong:
    if b"\\u0000" in line:
        yield "text", r"holds \u0000"
    elif b"\\ud" in line.lower():
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            yield "text", "holds half a surrogate pair"


def feature(row: Row) -> Wrong:
    for name in ("maxActApprox", "frac_nonzero", "vectorDefaultSteerStrength"):
        if row.get(name) is not None and not number(row[name]):
            yield "values", f"{name} is no finite number"
    if number(frac := row.get("frac_nonzero", 0)) and not 0 <= frac <= 1:
        yield "histogram", f"frac_nonzero is {frac}, which is no share"
    for name in ("freq", "logits"):
        yield from _bars(row, f"{name}_hist_data_bar")
    for end, down in (("pos", True), ("neg", False)):
        yield from _logits(row, end, down)


def _bars(row: Row, name: str) -> Wrong:
    values, heights = (row.get(f"{name}_{part}") or [] for part in ("values", "heights"))
    if not (numbers(values) and numbers(heights)):
        yield "values", f"{name}_values or {name}_heights is no list of finite numbers"
    elif len(values) != len(heights):
        yield "histogram", f"{len(values)} {name}_values, but {len(heights)} {name}_heights"


def _logits(row: Row, end: str, down: bool) -> Wrong:
    shown, values = row.get(f"{end}_str") or [], row.get(f"{end}_values") or []
    if not (texts(shown) and numbers(values)):
        yield "values", f"{end}_str is no list of texts or {end}_values no list of finite numbers"
    elif len(shown) != len(values):
        yield "logits", f"{len(shown)} {end}_str, but {len(values)} {end}_values"
    elif values != sorted(values, reverse=down):
        yield "logits", f"{end}_values are not sorted, the {'largest' if down else 'smallest'} first"


def activation(row: Row) -> Wrong:
    tokens, values = row.get("tokens"), row.get("values")
    if not (texts(tokens) and numbers(values) and values):
        yield "values", "tokens is no list of texts or values no list of finite numbers, one at least"
    elif len(tokens or ()) != len(values):
        yield "values", f"{len(tokens or ())} tokens, but {len(values)} values"
    elif row.get("maxValue") != max(values) or row.get("minValue") != min(values):
        yield "values", "maxValue or minValue is not that of the values"
    elif row.get("maxValueTokenIndex") != values.index(max(values)):
        yield "values", "maxValueTokenIndex is not where the largest value is first"
    bins = [row.get(name) for name in ("binMin", "binMax", "binContains")]
    if not all(one is None or number(one) for one in bins):
        yield "values", "binMin, binMax or binContains is no finite number"
    elif (bins[0] == -1) != (bins[2] == -1):
        yield "top group", f"binMin is {bins[0]} and binContains {bins[2]}: both are -1, or neither"


def is_top(row: Row) -> bool:
    return row.get("binMin") == -1 or row.get("binContains") == -1


def explanation(row: Row) -> Wrong:
    if row.get("typeName") is not None and row["typeName"] not in METHODS:
        yield "method", f"there is no method {str(row['typeName'])[:60]!r}"
    embedding = row.get("embedding")
    if isinstance(embedding, str):
        try:
            embedding = json.loads(embedding)
        except (ValueError, RecursionError):
            embedding = ()
    if embedding is not None and not (numbers(embedding) and len(embedding) == EMBEDDING):
        yield "embedding", f"embedding is no list of {EMBEDDING} numbers"
