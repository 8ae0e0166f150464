"""An export that breaks one rule of Neuronpedia's is told just that, with the file and the line."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuronpedia_export import DEAD, Rows, edit, export, put, raw, rows, store

from mistudiod.neuronpedia import lines, validate, write
from mistudiod.neuronpedia.findings import RULES, Finding

FEATURES_0, ACTIVATIONS_0, LABELS_0 = (f"{kind}/batch-0.jsonl.gz" for kind in write.KINDS)
FEATURES_1, ACTIVATIONS_1 = FEATURES_0.replace("0", "1"), ACTIVATIONS_0.replace("0", "1")
Spoil = Callable[[Path], Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in three batches of four, four and two features."""
    root = tmp_path_factory.mktemp("neuronpedia")
    patch = pytest.MonkeyPatch()
    patch.setattr(write, "ROWS", 4)
    folder = export(root / "sound", store(root / "store"))
    patch.undo()
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "tiny" / "6-res-me")


def in_row(number: int, **fields: Any) -> Callable[[Rows], Any]:
    return lambda found: found[number].update(fields)


def spoil(file: str, change: Callable[[Rows], Any]) -> Spoil:
    return lambda folder: edit(folder / file, change)


def meta(name: str, **fields: Any) -> Spoil:
    return spoil(f"{name}.jsonl", in_row(0, **fields))


def drop(key: str, number: int = 0) -> Callable[[Rows], Any]:
    return lambda found: found[number].pop(key)


def drop_everywhere(key: str) -> Callable[[Rows], Any]:
    return lambda found: [one.pop(key) for one in found]


def heights(found: Rows) -> None:
    found[1]["freq_hist_data_bar_heights"][3] += 10_000


def backwards(found: Rows) -> None:
    found[1]["pos_str"].reverse()
    found[1]["pos_values"].reverse()


def no_examples(folder: Path) -> None:
    """The first feature has none any more."""
    edit(folder / ACTIVATIONS_0, lambda found: found.__setitem__(slice(None), [r for r in found if r["index"] != "0"]))


def not_the_strongest(folder: Path) -> None:
    some = {"binMin": None, "binContains": None}
    edit(folder / ACTIVATIONS_0, lambda found: [one.update(some) for one in found if one["index"] == "0"])


def swap(folder: Path) -> None:
    """The last row of batch 0 lies in batch 1."""
    last = raw(folder / ACTIVATIONS_0).splitlines(keepends=True)
    put(folder / ACTIVATIONS_0, b"".join(last[:-1]))
    put(folder / ACTIVATIONS_1, raw(folder / ACTIVATIONS_1) + last[-1])


def more_files(folder: Path) -> None:
    for number in range(3, 1002):
        put(
            folder / "explanations" / f"batch-{number}.jsonl.gz",
            raw(folder / LABELS_0).replace(b'"id":"c', b'"id":"c%d-' % number),
        )


def short_embedding(folder: Path) -> None:
    """Every label has one, as it may, one of them with a number too few."""
    for path in (folder / "explanations").iterdir():
        edit(path, lambda found: [one.update(embedding=[0.5] * 256) for one in found])
    edit(folder / LABELS_0, lambda found: found[1]["embedding"].pop())


def twice(found: Rows) -> None:
    found.append({**found[0]})


POINTS: list[tuple[str, str, str, int | None, Spoil]] = [
    # The sixteen points: which rule, how it is broken, in which file and line it is found.
    ("names", "another model", FEATURES_0, 2, spoil(FEATURES_0, in_row(1, modelId="gpt2"))),
    ("names", "another source", ACTIVATIONS_0, 3, spoil(ACTIVATIONS_0, in_row(2, layer="5-res-me"))),
    ("names", "no index", LABELS_0, 1, spoil(LABELS_0, in_row(0, index="01"))),
    ("names", "another set", "source.jsonl", 1, meta("source", setName="res")),
    ("names", "another release", "sourceset.jsonl", 1, meta("sourceset", releaseName="other")),
    ("names", "no such layer", "source.jsonl", 1, meta("model", layers=6)),
    ("names", "another folder", "", None, lambda folder: folder.rename(folder.with_name("6-res-you"))),
    ("meta", "an unknown key", "model.jsonl", 1, meta("model", tlensID=None)),
    ("meta", "two lines", "release.jsonl", None, spoil("release.jsonl", twice)),
    ("creator", "of a feature", FEATURES_1, 1, spoil(FEATURES_1, in_row(0, creatorId="me"))),
    ("creator", "of a label", LABELS_0, 2, spoil(LABELS_0, in_row(1, authorId="me"))),
    ("creator", "of the source", "source.jsonl", 1, meta("source", creatorId="me")),
    ("files", "a name", "features/batch-00.jsonl.gz", None,
     lambda folder: (folder / FEATURES_0).with_name("batch-00.jsonl.gz").write_bytes(b"")),
    ("files", "more than a thousand", "explanations", None, more_files),
    ("files", "one of four is missing", "source.jsonl", None, lambda folder: (folder / "source.jsonl").unlink()),
    ("files", "no activations", "activations", None, lambda folder: shutil.rmtree(folder / "activations")),
    ("keys", "one that others have not", FEATURES_0, 3, spoil(FEATURES_0, in_row(2, umap_x=0.5))),
    ("keys", "one that others have", ACTIVATIONS_1, 2, spoil(ACTIVATIONS_1, drop("lossValues", 1))),
    ("keys", "another file", LABELS_0.replace("0", "2"), 1, spoil(LABELS_0.replace("0", "2"), drop("notes"))),
    ("nulls", "a share of tokens", FEATURES_0, 1, spoil(FEATURES_0, in_row(0, frac_nonzero=None))),
    ("nulls", "hasVector", FEATURES_0, 1, spoil(FEATURES_0, in_row(0, hasVector=None))),
    ("nulls", "an author", LABELS_0, 1, spoil(LABELS_0, in_row(0, authorId=None))),
    ("nulls", "an owner", "model.jsonl", 1, spoil("model.jsonl", drop("owner"))),
    ("nulls", "a date", "source.jsonl", 1, meta("source", createdAt=None)),
    ("values", "fewer than tokens", ACTIVATIONS_0, 2, spoil(ACTIVATIONS_0, lambda found: found[1]["tokens"].pop())),
    ("values", "another maximum", ACTIVATIONS_0, 9, spoil(ACTIVATIONS_0, in_row(8, maxValue=100.5))),
    ("values", "another minimum", ACTIVATIONS_0, 1, spoil(ACTIVATIONS_0, in_row(0, minValue=-1))),
    ("values", "another place", ACTIVATIONS_0, 1, spoil(ACTIVATIONS_0, in_row(0, maxValueTokenIndex=99))),
    ("values", "no number", FEATURES_0, 2, spoil(FEATURES_0, in_row(1, vectorDefaultSteerStrength=float("nan")))),
    ("values", "infinity", FEATURES_0, 2, spoil(FEATURES_0, in_row(1, logits_hist_data_bar_values=[float("inf")]))),
    ("histogram", "a height less", FEATURES_0, 1,
     spoil(FEATURES_0, lambda found: found[0]["logits_hist_data_bar_heights"].pop())),
    ("histogram", "more tokens than it fires on", FEATURES_0, 2, spoil(FEATURES_0, heights)),
    ("histogram", "no share", FEATURES_1, DEAD % 4 + 1, spoil(FEATURES_1, in_row(3, frac_nonzero=-0.01))),
    ("histogram", "more tokens than were read", "source.jsonl", 1, meta("source", num_prompts=8)),
    ("logits", "a value less", FEATURES_0, 4, spoil(FEATURES_0, lambda found: found[3]["neg_values"].pop())),
    ("logits", "the weakest first", FEATURES_0, 2, spoil(FEATURES_0, backwards)),
    ("unknown feature", "of an activation", ACTIVATIONS_0, 1,
     spoil(ACTIVATIONS_0, lambda found: found.insert(0, {**found[0], "id": "c0", "index": "10"}))),
    ("unknown feature", "of a label", LABELS_0, 1, spoil(LABELS_0, in_row(0, index="999"))),
    ("paired", "an activation in another batch", ACTIVATIONS_1, None, swap),
    ("paired", "a feature without an activation", FEATURES_0, 1, no_examples),
    ("ids", "an activation twice", ACTIVATIONS_1, None, spoil(ACTIVATIONS_1, twice)),
    ("ids", "a label twice", LABELS_0, 3, spoil(LABELS_0, twice)),
    ("ids", "a feature twice", FEATURES_1, 5, spoil(FEATURES_1, twice)),
    ("embedding", "of 255 numbers", LABELS_0, 2, short_embedding),
    ("text", "NUL", ACTIVATIONS_0, 1, spoil(ACTIVATIONS_0, lambda found: found[0]["tokens"].__setitem__(0, "\0"))),
    ("text", "half a pair", LABELS_0, 1, spoil(LABELS_0, in_row(0, description="\ud800"))),
    ("text", "NUL about the export", "release.jsonl", 1, meta("release", description="\0")),
    ("maximum", "another", FEATURES_0, 3, spoil(FEATURES_0, in_row(2, maxActApprox=3.25))),
    ("top group", "only one of two", ACTIVATIONS_0, 1, spoil(ACTIVATIONS_0, in_row(0, binContains=0.5))),
    ("top group", "none", FEATURES_0, 1, not_the_strongest),
    # What else stops an import, or spoils it in silence.
    ("json", "half a line", FEATURES_0, 5, lambda folder: put(folder / FEATURES_0, raw(folder / FEATURES_0) + b"{")),
    ("json", "a list", LABELS_0, 3, lambda folder: put(folder / LABELS_0, raw(folder / LABELS_0) + b"[]")),
    ("json", "no UTF-8", "model.jsonl", 1, lambda folder: put(folder / "model.jsonl", b'{"id": "\xff"}')),
    ("set name", "null", FEATURES_0, 2, spoil(FEATURES_0, in_row(1, sourceSetName=None))),
    ("layers", "none", "model.jsonl", 1, meta("model", layers=0)),
    ("layers", "no neurons", "model.jsonl", 1, meta("model", neuronsPerLayer=0)),
    ("layers", "no owner", "model.jsonl", 1, meta("model", owner="")),
    ("order", "a default source", "model.jsonl", 1, meta("model", defaultSourceId="6-res-me")),
    ("hosts", "some", "source.jsonl", 1, meta("source", inferenceHosts=[{"id": "x"}])),
    ("siblings", "a folder beside", "features_old", None, lambda folder: (folder / "features_old").mkdir()),
    ("empty", "a file", "explanations/batch-1.jsonl.gz", None,
     lambda folder: put(folder / "explanations" / "batch-1.jsonl.gz", b"")),
    ("method", "unknown", LABELS_0, 1, spoil(LABELS_0, in_row(0, typeName="guess"))),
]  # fmt: skip


def test_a_sound_export_breaks_no_rule(folder: Path) -> None:
    assert validate.validate(folder) == []
    assert [len(rows(folder / f"features/batch-{n}.jsonl.gz")) for n in range(3)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("rule", "file", "line", "break_it"),
    [pytest.param(rule, file, line, break_it, id=f"{rule}: {how}") for rule, how, file, line, break_it in POINTS],
)
def test_what_breaks_a_rule_is_found_and_nothing_else(
    folder: Path, rule: str, file: str, line: int | None, break_it: Spoil
) -> None:
    moved = break_it(folder)
    found = validate.validate(moved if isinstance(moved, Path) else folder)
    assert {one.rule for one in found} == {rule}, found
    assert found[0].file == file and (line is None or found[0].line == line), found
    assert len(found) == 1, found


def test_every_rule_is_broken_by_a_test() -> None:
    tested = {rule for rule, *_ in POINTS} | {"insert"}
    assert tested == set(RULES)


def test_lines_that_are_inserted_at_once_and_are_too_large_are_told_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "INSERT_BYTES", 2_000)
    monkeypatch.setattr(validate, "INSERTED", 3)
    found = validate.validate(folder)
    assert {one.rule for one in found} == {"insert"}
    lines_of_first = [len(line) + 1 for line in raw(folder / ACTIVATIONS_0).splitlines()]
    large = [n for n in range(0, len(lines_of_first), 3) if sum(lines_of_first[n : n + 3]) > 2_000]
    assert len([one for one in found if one.file == ACTIVATIONS_0]) == min(len(large), 20)
    monkeypatch.setattr(validate, "INSERTED", 1)
    assert [one.file for one in validate.validate(folder) if one.file.startswith("act")] == []


def test_what_is_wrong_everywhere_is_told_a_few_times_and_counted(folder: Path) -> None:
    for number in range(3):
        edit(folder / f"activations/batch-{number}.jsonl.gz", lambda found: [one.update(id=None) for one in found])
    total = sum(len(rows(folder / f"activations/batch-{number}.jsonl.gz")) for number in range(3))
    found = validate.validate(folder)
    assert [one.rule for one in found] == ["nulls"] * 21
    assert found[-1] == Finding("nulls", "", None, f"and {total - 20:,} more of this rule")


def test_an_id_that_is_a_number_is_a_text_there(folder: Path) -> None:
    edit(folder / ACTIVATIONS_0, lambda found: (found[0].update(id=7), found[5].update(id="7")))
    (found,) = validate.validate(folder)
    assert (found.rule, found.file, found.line) == ("ids", ACTIVATIONS_0, 6)


def test_a_file_that_is_damaged_is_named(folder: Path) -> None:
    path = folder / "features/batch-2.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    found = validate.validate(folder)
    assert [(one.rule, one.file) for one in found if one.rule == "json"] == [("json", "features/batch-2.jsonl.gz")]


def test_a_bomb_is_a_finding_and_never_in_memory(folder: Path) -> None:
    with gzip.open(folder / "features/batch-3.jsonl.gz", "wb", 1) as file:
        for _ in range(40):
            file.write(b" " * (1 << 20))
    found = validate.validate(folder)
    assert [(one.rule, one.file) for one in found] == [("json", "features/batch-3.jsonl.gz")]
    assert f"more than {lines.LONGEST:,} bytes" in found[0].message


def test_a_folder_that_is_none_of_this_says_what_is_missing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        missing = [one.file for one in validate.validate(place)]
        assert missing == ["release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl", "features"]


def test_another_creator_is_one_that_is_named(folder: Path) -> None:
    found = validate.validate(folder, creator="me")
    assert {one.rule for one in found} == {"creator"} and len(found) == 21


def test_what_is_read_is_heard_and_may_be_stopped(folder: Path) -> None:
    heard: list[str] = []
    validate.validate(folder, heard=heard.append)
    assert heard[:3] == [f"features/batch-{n}.jsonl.gz" for n in range(3)] and LABELS_0 in heard


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**320) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_a_row_holds_is_a_finding_and_never_an_error(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = shutil.copytree(sound, tmp_path_factory.mktemp("any") / "tiny" / "6-res-me")
    file = data.draw(
        st.sampled_from([FEATURES_0, ACTIVATIONS_0, LABELS_0, "model.jsonl", "source.jsonl", "sourceset.jsonl"])
    )

    def change(found: Rows) -> None:
        row = data.draw(st.sampled_from(found))
        for key in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=4)):
            row[key] = data.draw(anything)

    edit(folder / file, change)
    for one in validate.validate(folder):
        assert one.rule in RULES and one.message and json.dumps(one.message)
    shutil.rmtree(folder.parent.parent)


def test_a_large_file_is_never_whole_in_memory(folder: Path) -> None:
    def many(found: Rows) -> None:
        one = {**found[0], "tokens": [" a"] * 512, "values": [0] * 512, "binMin": None, "binContains": None}
        one |= {"maxValue": 0, "minValue": 0, "maxValueTokenIndex": 0}
        found.extend({**one, "id": f"c{n}"} for n in range(3000))

    edit(folder / ACTIVATIONS_0, many)
    size = len(raw(folder / ACTIVATIONS_0))
    tracemalloc.start()
    assert validate.validate(folder) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 < size / 5
