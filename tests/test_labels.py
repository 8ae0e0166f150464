"""Labels in the database: whose is shown, what stays in the history, how they are found and put in order."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mistudiod import label_search, label_statements
from mistudiod.database import Database
from mistudiod.errors import NotFound
from mistudiod.events import Labelled, NewLabel, NewScore, NoLabel, Scored
from mistudiod.index import Index
from mistudiod.label_statements import Found
from mistudiod.labelling.metrics import Estimate, mean
from mistudiod.labels import Labels
from mistudiod.library import Library
from mistudiod.paths import Paths
from mistudiod.specs import Label, Score
from mistudiod.statements import add_job
from mistudiod.trash import Trash

SAE = "sae-a"


class Shelf:
    """Labels in a database of their own, and a worker's word for them."""

    def __init__(self, database: Database) -> None:
        self.database, self.labels = database, Labels(database)

    async def say(self, feature: int, text: str, provider: str = "ollama", job: int = 1, sae: str = SAE) -> int:
        """A machine's label; returns its id."""
        said = Labelled(provider=provider, model="m", extraction="3", labels=[NewLabel(feature=feature, text=text)])
        await self.database.write(lambda db: label_statements.record(db, job, Found(sae, [said])))
        return int((await self.labels.history(sae, feature))["labels"][0]["id"])

    async def fail(self, feature: int, reason: str, job: int = 1) -> None:
        said = Labelled(provider="ollama", labels=[NoLabel(feature=feature, error=reason)])
        await self.database.write(lambda db: label_statements.record(db, job, Found(SAE, [said])))

    async def score(self, label: int, value: float | None, method: Any = "detection", **about: Any) -> None:
        feature = await self.database.read(lambda db: label_statements.get(db, SAE, label)["feature"])
        job = about.pop("job", 2)
        around = {} if value is None else {"low": max(value - 0.1, 0.0), "high": min(value + 0.1, 1.0)}
        found = {**score_of(feature, label), "balanced_accuracy": value, **around, "method": method}
        score = NewScore(**{**found, **about})
        await self.database.write(lambda db: label_statements.record(db, job, Found(SAE, (), [Scored(scores=[score])])))

    async def shown(self, feature: int) -> str | None:
        label = (await self.labels.about(SAE, feature))["label"]
        return label["text"] if label else None


def score_of(feature: int, label: int) -> dict[str, Any]:
    counts = {"tp": 3, "fp": 1, "tn": 3, "fn": 1, "failed": 0, "examples": 8}
    return {"feature": feature, "label": label, "method": "detection", "judge": "m", **counts}


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    database = Database(tmp_path / "mistudio.db", tmp_path / "backups")
    await database.open()
    yield Shelf(database)
    await database.close()


async def test_an_llms_label_takes_the_place_of_a_description_by_tokens_and_never_the_other_way(shelf: Shelf) -> None:
    await shelf.say(7, "fires on `def`", "tokens")
    await shelf.say(7, "beginnings of functions")
    assert await shelf.shown(7) == "beginnings of functions"
    await shelf.say(7, "fires on `def` again", "tokens")
    assert await shelf.shown(7) == "beginnings of functions"
    await shelf.say(7, "definitions", "openai")
    assert await shelf.shown(7) == "definitions"
    assert len((await shelf.labels.history(SAE, 7))["labels"]) == 4


async def test_a_persons_label_is_never_replaced_by_a_machines(shelf: Shelf) -> None:
    await shelf.say(7, "a guess")
    mine = await shelf.labels.put(SAE, 7, "what it is", "I looked", "3")
    assert (mine["provider"], mine["status"], mine["current"], mine["extraction"]) == ("person", "accepted", True, "3")
    await shelf.say(7, "a better guess", "openai")
    assert await shelf.shown(7) == "what it is"
    newest = (await shelf.labels.history(SAE, 7))["labels"][0]
    assert (newest["text"], newest["status"], newest["current"]) == ("a better guess", "proposed", False)
    assert (await shelf.labels.put(SAE, 7, "what it is", "I looked", "3"))["id"] == mine["id"]
    await shelf.labels.put(SAE, 7, "what it really is", None, "3")
    assert await shelf.shown(7) == "what it really is"


async def test_an_accepted_label_stays_until_a_person_changes_it(shelf: Shelf) -> None:
    old = await shelf.say(7, "old")
    await shelf.say(7, "new")
    assert (await shelf.labels.accept(SAE, old))["current"]
    await shelf.say(7, "newer")
    assert await shelf.shown(7) == "old"
    await shelf.labels.put(SAE, 7, "mine", None, None)
    assert await shelf.shown(7) == "mine"
    await shelf.labels.accept(SAE, old)
    assert await shelf.shown(7) == "old"


async def test_after_a_rejection_the_next_best_is_shown_or_none(shelf: Shelf) -> None:
    tokens = await shelf.say(7, "tokens", "tokens")
    first, second = await shelf.say(7, "first"), await shelf.say(7, "second")
    for label, left in ((second, "first"), (first, "tokens"), (tokens, None)):
        assert (await shelf.labels.reject(SAE, label))["status"] == "rejected"
        assert await shelf.shown(7) == left
    assert await shelf.labels.matching(SAE, labelled=True) == set()
    assert await shelf.labels.matching(SAE, q="second") == set()
    await shelf.labels.accept(SAE, first)
    assert await shelf.shown(7) == "first"
    with pytest.raises(NotFound, match="sae-a has no label 99"):
        await shelf.labels.accept(SAE, 99)
    with pytest.raises(NotFound, match="other has no label 1"):
        await shelf.labels.reject("other", tokens)


async def test_a_failure_is_kept_with_its_reason_until_a_label_comes(shelf: Shelf) -> None:
    await shelf.fail(7, "the answer was empty")
    await shelf.fail(8, "the answer was empty")
    await shelf.fail(9, "the answer was prose")
    failure = (await shelf.labels.history(SAE, 7))["failure"]
    assert (failure["reason"], failure["job"]) == ("the answer was empty", 1)
    await shelf.say(8, "found after all")
    found = await shelf.labels.summary(SAE)
    assert found["failures"] == [
        {"reason": "the answer was empty", "features": 1},
        {"reason": "the answer was prose", "features": 1},
    ]
    assert (await shelf.labels.history(SAE, 8))["failure"] is None
    assert await shelf.labels.matching(SAE, failed=True) == {7, 9}


async def test_the_score_is_the_mean_of_the_judges_methods_else_that_of_tokens(shelf: Shelf) -> None:
    label = await shelf.say(7, "imports")
    for method, value, worth in (
        ("tokens", 0.6, 0.6),
        ("detection", None, 0.6),
        ("detection", 0.9, 0.9),
        ("fuzzing", 0.7, 0.8),
        ("detection", 0.8, 0.75),
    ):
        await shelf.score(label, value, method)
        assert (await shelf.labels.of(SAE, [7]))[7]["score"] == pytest.approx(worth)
    score = (await shelf.labels.about(SAE, 7))["score"]
    assert score["value"] == pytest.approx(0.75)
    assert [one["method"] for one in score["scores"]] == ["detection", "fuzzing", "detection", "detection", "tokens"]
    await shelf.say(7, "a new label has no score")
    assert (await shelf.labels.about(SAE, 7))["score"] is None


async def test_a_score_of_another_saes_label_is_not_taken(shelf: Shelf) -> None:
    label = await shelf.say(7, "elsewhere", sae="other")
    score = NewScore(**score_of(7, label), balanced_accuracy=1.0)
    for found in (Found(SAE, (), [Scored(scores=[score])]), Found("other", (), [Scored(scores=[score_at(score, 8)])])):
        await shelf.database.write(lambda db, found=found: label_statements.record(db, 1, found))
    assert (await shelf.labels.about("other", 7))["score"] is None


def score_at(score: NewScore, feature: int) -> NewScore:
    return score.model_copy(update={"feature": feature})


async def test_what_is_marked_is_found_and_only_what_is_named_changes(shelf: Shelf) -> None:
    assert await shelf.labels.mark(SAE, 7, {"starred": True}) == {"starred": True, "note": None, "lists": []}
    await shelf.labels.mark(SAE, 7, {"lists": ["imports", "best"]})
    await shelf.labels.mark(SAE, 8, {"lists": ["best"], "note": "look again"})
    assert (await shelf.labels.about(SAE, 7))["marks"] == {"starred": True, "note": None, "lists": ["best", "imports"]}
    assert await shelf.labels.lists(SAE) == [{"name": "best", "features": 2}, {"name": "imports", "features": 1}]
    assert await shelf.labels.matching(SAE, starred=True) == {7}
    assert await shelf.labels.matching(SAE, list_name="best") == {7, 8}
    assert await shelf.labels.mark(SAE, 7, {"starred": False, "lists": []}) == {
        "starred": False,
        "note": None,
        "lists": [],
    }
    assert await shelf.labels.matching(SAE, list_name="best") == {8}
    assert await shelf.labels.matching("other", list_name="best") == set()


async def test_labels_are_found_by_words_of_text_and_explanation_and_the_beginning_of_the_last(shelf: Shelf) -> None:
    await shelf.database.write(lambda db: label_statements.put(db, SAE, 1, "Import statements", "of modules", None))
    await shelf.database.write(lambda db: label_statements.put(db, SAE, 2, "the café's menu", None, None))
    await shelf.database.write(lambda db: label_statements.put(db, SAE, 3, "fires on `==` and `__init__`", None, None))
    await shelf.say(1, "importance", sae="other")
    for q, features in (
        ("import", {1}), ("IMP", {1}), ("modules import", {1}), ("mod import", set()), ("importance", set()),
        ("cafe", {2}), ("CAFÉ'S men", {2}), ("==", {3}), ("fires ==", {3}), ("__init__", {3}), ("!=", set()),
        ('"', set()), ("`", {3}), ("import OR cafe", set()), ("text:import", set()), ("imp*", {1}), ("", {1, 2, 3}),
        ("import\0stat", {1}), ("\ud800", set()),
    ):  # fmt: skip
        assert await shelf.labels.matching(SAE, q=q) == features, q
    await shelf.labels.put(SAE, 1, "something else", None, None)
    assert await shelf.labels.matching(SAE, q="import") == set()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(text=st.text(st.characters(), max_size=60) | st.text('"*()^:-+ ANDORNEtx', max_size=60))
async def test_no_text_is_syntax(shelf: Shelf, text: str) -> None:
    assert await shelf.labels.matching(SAE, q=text) == set()
    assert await shelf.labels.matching(SAE, q=" ".join([text] * 20)) == set()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(max_codepoint=0x24F), min_size=1, max_size=60))
async def test_every_label_is_found_by_its_own_text(shelf: Shelf, text: str) -> None:
    await shelf.labels.put(SAE, 5, text, None, None)
    assert await shelf.labels.matching(SAE, q=text) == {5}


async def test_filters_hold_together(shelf: Shelf) -> None:
    a, b = await shelf.say(1, "imports"), await shelf.say(2, "imports too", "openai")
    await shelf.say(3, "others")
    await shelf.score(a, 0.9)
    await shelf.score(b, 0.5)
    await shelf.labels.mark(SAE, 2, {"starred": True})
    matching = shelf.labels.matching
    assert await matching(SAE, labelled=True) == {1, 2, 3}
    assert await matching(SAE, provider="ollama") == {1, 3}
    assert await matching(SAE, score=(">", 0.5)) == {1}
    assert await matching(SAE, score=(">=", 0.5)) == {1, 2}
    assert await matching(SAE, score=("<", 0.9)) == {2}
    assert await matching(SAE, q="imports", starred=True) == {2}
    assert await matching(SAE, q="imports", provider="ollama", score=("<=", 0.9)) == {1}
    with pytest.raises(ValueError, match="compares nothing"):
        await matching(SAE, score=("; drop", 1.0))


async def test_orders_are_those_of_python(shelf: Shelf) -> None:
    chance = random.Random(1)
    texts: dict[int, str] = {}
    scores: dict[int, float] = {}
    for feature in chance.sample(range(1000), 60):
        texts[feature] = "".join(chance.choices(string.ascii_letters + "éÉß", k=2))
        label = await shelf.say(feature, texts[feature])
        if chance.random() < 0.5:
            scores[feature] = round(chance.random(), 1)
            await shelf.score(label, scores[feature])
    assert await shelf.labels.order(SAE, "label") == sorted(texts, key=lambda f: (texts[f].casefold(), f))
    assert await shelf.labels.order(SAE, "score") == sorted(scores, key=lambda f: (scores[f], f))


async def test_an_sae_that_is_removed_takes_its_labels_with_it_and_another_of_its_name_has_none(
    shelf: Shelf, tmp_path: Path
) -> None:
    index = Index(shelf.database, Paths(tmp_path))
    for sae in (SAE, "other"):
        (tmp_path / "saes" / sae).mkdir(parents=True)
        await index.add("sae", sae, {"width": 16}, None)
        await shelf.say(1, "a label", sae=sae)
        await shelf.labels.mark(sae, 1, {"starred": True, "note": "n", "lists": ["l"]})
    await shelf.score(1, 0.5)
    await shelf.fail(2, "no answer")
    (tmp_path / "saes" / SAE / "recipe.json").write_text("{}")
    await Library(shelf.database, Paths(tmp_path), index).remove(SAE)
    await Trash(shelf.database, Paths(tmp_path)).empty()
    (tmp_path / "saes" / SAE).mkdir()
    tables = ("labels", "label_failures", "marks", "listed", "labelled_saes", "scores", "labels_text")
    left = await shelf.database.read(
        lambda db: {table: db.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}
    )
    assert left == {**dict.fromkeys(tables, 1), "label_failures": 0, "scores": 0}
    await index.add("sae", SAE, {"width": 16}, 7)
    assert await shelf.labels.of(SAE, [1]) == {1: {"label": None, "score": None, "starred": False}}
    assert await shelf.labels.matching(SAE, q="label") == set()
    await shelf.say(1, "of the new one")
    assert await shelf.labels.matching("other", q="label") == {1}
    assert await shelf.labels.matching(SAE, q="new") == {1}


async def test_labels_of_a_folder_that_vanished_wait_for_it_but_not_for_a_new_sae(shelf: Shelf, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    index = Index(shelf.database, paths)
    folder = tmp_path / "saes" / SAE
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text('{"width": 16}')
    await index.rebuild()
    await shelf.labels.put(SAE, 1, "mine", None, None)
    aside = folder.rename(tmp_path / "aside")
    await index.rebuild()
    aside.rename(folder)
    await index.rebuild()
    assert await shelf.shown(1) == "mine"
    await index.add("sae", SAE, {"width": 16}, 3)  # its training goes on
    assert await shelf.shown(1) == "mine"
    folder.rename(aside)
    await index.rebuild()
    folder.mkdir()
    await index.add("sae", SAE, {"width": 16}, 9)  # another one
    assert await shelf.shown(1) is None


async def test_those_without_a_label_are_counted_to_the_width_of_the_extraction_or_the_sae(
    shelf: Shelf, tmp_path: Path
) -> None:
    index = Index(shelf.database, Paths(tmp_path))
    assert await shelf.labels.matching(SAE, labelled=False) == set()
    await index.add("sae", SAE, {"width": 4}, None)
    await shelf.say(1, "a label")
    assert await shelf.labels.matching(SAE, labelled=False) == {0, 2, 3}
    await index.add("features", f"{SAE}/12", {"d_sae": 5}, None)
    assert await shelf.labels.matching(SAE, labelled=False) == {0, 2, 3, 4}
    assert await shelf.labels.matching(SAE) == {0, 1, 2, 3, 4}


async def test_what_is_exported_and_taken_in_elsewhere_is_the_same(shelf: Shelf) -> None:
    first = await shelf.say(1, "first")
    await shelf.say(1, "second")
    await shelf.labels.put(SAE, 1, "mine", "why", "3")
    await shelf.labels.accept(SAE, first)
    await shelf.say(2, "tokens", "tokens")
    await shelf.say(2, "of an LLM")
    await shelf.labels.reject(SAE, await shelf.say(3, "wrong"))
    await shelf.score(first, 0.75)
    exported = [one async for one in everything(shelf.labels, SAE)]
    assert len(exported) == 6
    counts = await shelf.labels.take_in("copy", exported)
    assert counts == {"imported": 6, "known": 0}
    copied = [one async for one in everything(shelf.labels, "copy")]
    ours = {"id", "sae", "job", "scores"}
    assert [{k: v for k, v in one.items() if k not in ours} for one in copied] == [
        {k: v for k, v in one.items() if k not in ours} for one in exported
    ]
    assert (await shelf.labels.of("copy", [1]))[1]["score"] == 0.75
    assert await shelf.labels.take_in("copy", exported) == {"imported": 0, "known": 6}
    assert [one async for one in everything(shelf.labels, "copy")] == copied


async def everything(labels: Labels, sae: str) -> AsyncIterator[dict[str, Any]]:
    after = 0
    while page := await labels.export(sae, after):
        for one in page:
            yield one
        after = page[-1]["id"]


async def test_what_is_taken_in_never_replaces_what_a_person_said_here(shelf: Shelf) -> None:
    await shelf.labels.put(SAE, 1, "mine", None, None)
    await shelf.say(2, "a machine's")
    theirs = [{"feature": 1, "text": "theirs"}, {"feature": 2, "text": "theirs"}, {"feature": 3, "text": "theirs"}]
    await shelf.labels.take_in(SAE, theirs)
    assert [await shelf.shown(feature) for feature in (1, 2, 3)] == ["mine", "theirs", "theirs"]
    assert (await shelf.labels.about(SAE, 3))["label"]["provider"] == "person"


async def test_an_imported_label_that_nobody_has_decided_on_gives_way_to_a_later_one(shelf: Shelf) -> None:
    theirs = {"text": "a guess", "provider": "ollama", "status": "proposed", "current": True}
    await shelf.labels.take_in(SAE, [{"feature": 1, **theirs}, {"feature": 2, **theirs, "status": "accepted"}])
    for feature, shown in ((1, "a better guess"), (2, "a guess")):
        await shelf.say(feature, "a better guess", "openai")
        assert await shelf.shown(feature) == shown


async def test_what_became_of_a_known_label_since_is_taken_in(shelf: Shelf) -> None:
    for feature in (1, 2, 3):
        await shelf.say(feature, "a guess")
        await shelf.say(feature, "a better guess")
    exported = [one async for one in everything(shelf.labels, SAE)]
    await shelf.labels.take_in("copy", exported)
    theirs = [one async for one in everything(shelf.labels, "copy")]
    await shelf.labels.accept("copy", theirs[4]["id"])  # of feature 3: what is decided here stays
    await shelf.labels.accept(SAE, exported[0]["id"])
    await shelf.labels.reject(SAE, exported[3]["id"])
    await shelf.labels.reject(SAE, exported[4]["id"])
    await shelf.score(exported[0]["id"], 0.75)
    for _ in range(2):
        now = [one async for one in everything(shelf.labels, SAE)]
        assert await shelf.labels.take_in("copy", now) == {"imported": 0, "known": 6}
        labels = [(await shelf.labels.about("copy", feature))["label"] for feature in (1, 2, 3)]
        assert [(one["text"], one["status"]) for one in labels] == [
            ("a guess", "accepted"), ("a guess", "proposed"), ("a guess", "accepted"),
        ]  # fmt: skip
        (score,) = (await shelf.labels.about("copy", 1))["score"]["scores"]
        assert score["balanced_accuracy"] == 0.75


def label_spec(**about: Any) -> Label:
    given = {"sae": SAE, "endpoint": "ollama", "model": "m", "unlabeled": True, **about}
    return Label(**given)


async def left(shelf: Shelf, spec: Label | Score, job: int | None = 9) -> list[int]:
    return [one["index"] for one in await shelf.labels.todo(spec, [5, 4, 3, 2, 1], job)]


async def test_a_labelling_does_only_what_is_missing(shelf: Shelf) -> None:
    await shelf.say(1, "tokens", "tokens")
    await shelf.say(2, "of an LLM")
    await shelf.labels.put(SAE, 3, "mine", None, None)
    await shelf.labels.reject(SAE, await shelf.say(4, "wrong", job=8))
    assert await left(shelf, label_spec()) == [5, 4, 1]
    assert await left(shelf, label_spec(), job=8) == [5, 1]
    assert await left(shelf, Label(sae=SAE)) == [5, 4]
    assert await left(shelf, label_spec(again=True)) == [5, 4, 3, 2, 1]
    assert await left(shelf, label_spec(again=True), job=8) == [5, 3, 2, 1]
    await shelf.fail(5, "no answer", job=9)
    assert await left(shelf, label_spec()) == [5, 4, 1]
    await shelf.labels.reject(SAE, await shelf.say(5, "tokens", "tokens"))
    assert await left(shelf, Label(sae=SAE)) == [4]


async def test_a_scoring_does_only_labels_without_all_of_its_methods(shelf: Shelf) -> None:
    labels = {feature: await shelf.say(feature, f"label {feature}") for feature in (1, 2, 3)}
    judged = Score(sae=SAE, methods=["tokens", "detection"], endpoint="ollama", model="m")
    await shelf.score(labels[1], 0.5, "tokens", judge=None)
    await shelf.score(labels[1], 0.5, "detection")
    await shelf.score(labels[2], 0.5, "tokens", judge=None)
    await shelf.score(labels[3], 0.5, "detection", judge="another")
    assert await left(shelf, judged) == [3, 2]
    assert await left(shelf, Score(sae=SAE)) == [3]
    assert await left(shelf, judged.model_copy(update={"again": True})) == [3, 2, 1]
    assert await left(shelf, judged.model_copy(update={"again": True}), job=2) == [3, 2]
    label = {"id": labels[3], "text": "label 3", "explanation": None}
    assert await shelf.labels.todo(judged, [3], 9) == [{"index": 3, "label": label, "methods": ["tokens", "detection"]}]
    await shelf.say(1, "a new label")
    assert await left(shelf, judged) == [3, 2, 1]


async def test_what_a_label_was_scored_by_already_is_not_paid_twice(shelf: Shelf) -> None:
    label = await shelf.say(1, "a label")
    await shelf.score(label, 0.5, "detection")
    judged = Score(sae=SAE, methods=["fuzzing", "detection", "tokens"], endpoint="ollama", model="m")
    assert [one["methods"] for one in await shelf.labels.todo(judged, [1], 2)] == [["fuzzing", "tokens"]]
    again = judged.model_copy(update={"again": True})
    assert [one["methods"] for one in await shelf.labels.todo(again, [1], 2)] == [["fuzzing", "tokens"]]
    assert [one["methods"] for one in await shelf.labels.todo(again, [1], 9)] == [["fuzzing", "detection", "tokens"]]


async def test_a_model_that_saw_no_pattern_is_not_asked_again_unless_again_is_given(shelf: Shelf) -> None:
    spec = label_spec().model_dump_json()
    job = await shelf.database.write(lambda db: add_job(db, ("label", "io", spec, 0)))
    await shelf.fail(4, "unclear", job)
    await shelf.fail(5, "the answer was prose", job)
    assert await left(shelf, label_spec(), job) == await left(shelf, label_spec(), None) == [5, 3, 2, 1]
    others: tuple[dict[str, Any], ...] = ({"model": "n"}, {"endpoint": "openai"}, {"template": "mine"}, {"again": True})
    for other in others:
        assert await left(shelf, label_spec(**other), None) == [5, 4, 3, 2, 1]
        assert await left(shelf, label_spec(**other), job) == [5, 3, 2, 1]
    assert await left(shelf, Label(sae=SAE), None) == [5, 4, 3, 2, 1]


async def test_the_summary_says_whose_labels_there_are_and_what_they_are_worth(shelf: Shelf) -> None:
    for feature, value in enumerate((0.5, 0.6, 0.7, 0.8)):
        await shelf.score(await shelf.say(feature, "x"), value, failed=1)
    await shelf.score(await shelf.say(9, "tokens", "tokens"), 0.9, "tokens", judge=None)
    await shelf.labels.put(SAE, 10, "mine", None, None)
    found = await shelf.labels.summary(SAE)
    assert (found["labelled"], found["history"]) == (6, 6)
    assert {(one["provider"], one["status"]): one["features"] for one in found["providers"]} == {
        ("ollama", "proposed"): 4,
        ("person", "accepted"): 1,
        ("tokens", "proposed"): 1,
    }
    detection, tokens = found["scores"]
    assert (detection["method"], detection["judge"], detection["features"], detection["failed"]) == (
        "detection",
        "m",
        4,
        4,
    )
    assert detection["mean"] == pytest.approx(0.65)
    each = [Estimate(value, value - 0.1, value + 0.1) for value in (0.5, 0.6, 0.7, 0.8)]
    assert (detection["low"], detection["high"]) == pytest.approx((mean(each).low, mean(each).high))  # as the job says
    assert (tokens["mean"], tokens["low"], tokens["high"]) == pytest.approx((0.9, 0.8, 1.0))


async def test_readers_never_see_two_current_labels_or_a_search_that_is_behind(shelf: Shelf) -> None:
    async def read() -> None:
        for _ in range(30):

            def both(db: Any) -> tuple[set[int], set[int]]:
                return label_search.matching(db, SAE, labelled=True), label_search.containing(db, SAE, "label")

            known, found = await shelf.database.read(both)
            assert known == found

    async def write() -> None:
        for n in range(30):
            await shelf.say(n % 3, f"label {n}")

    await asyncio.gather(read(), write())
