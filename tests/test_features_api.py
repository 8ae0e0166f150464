"""Features over HTTP: listed, sorted, filtered, shown, found in the text, compared and exported, all in threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from blockbuster import BlockBuster, BlockBusterFunction
from conftest import Studio, put_artifact
from plain_store import WORDS, example, feature, write_store
from steered_runs import found as found_range

from mistudiod.api import features
from mistudiod.api.keys import INDEX, LABELS, RANGES
from mistudiod.feature_query import FILTERS, SORTS
from mistudiod.labelling import prompt
from mistudiod.open_stores import MOST
from mistudiod.pages import Pages

D_SAE, CONTEXT, ROWS = 60, 12, 30
NO_LABEL = {"label": None, "score": None, "starred": False}


class KnownLabels:
    """Labels out of dicts, in the place of those in the database."""

    def __init__(self) -> None:
        chance = random.Random(1)
        some = chance.sample(range(D_SAE), 25)
        self.texts = {index: chance.choice(["numbers", "names of modules", "line ends"]) for index in some}
        self.providers = {index: chance.choice(["person", "tokens", "ollama"]) for index in some}
        self.scores = {index: chance.choice([0.5, 0.6, 0.75, 0.9]) for index in some[5:]}
        self.failures = set(chance.sample(range(D_SAE), 4))
        self.stars = set(chance.sample(range(D_SAE), 8))
        self.lists = {"mine": {1, 2, 3, 30}, "two words": {4, 5}}  # and what was of a wider SAE of this name: below

    def row(self, index: int) -> dict[str, Any]:
        label = None
        if index in self.texts:
            about = {"provider": self.providers[index], "confidence": None, "status": "proposed"}
            label = {"text": self.texts[index], **about}
        return {"label": label, "score": self.scores.get(index), "starred": index in self.stars}

    async def of(self, sae: str, indices: Any) -> dict[int, dict[str, Any]]:
        return {index: self.row(index) for index in indices}

    async def order(self, sae: str, key: str) -> list[int]:
        values: dict[int, Any] = self.texts if key == "label" else self.scores
        return [*sorted(values, key=lambda index: (values[index], index)), D_SAE, 2**31 - 1]

    async def about(self, sae: str, index: int) -> dict[str, Any]:
        marks = {"starred": index in self.stars, "note": None, "lists": []}
        return {"label": self.row(index)["label"], "score": None, "marks": marks}

    async def about_each(self, sae: str, indices: Any) -> list[dict[str, Any]]:
        return [await self.about(sae, index) for index in indices]

    async def matching(self, sae: str, **conditions: Any) -> set[int]:
        ((name, value),) = conditions.items()
        return {index for index in range(D_SAE) if self._matches(index, name, value)} | {D_SAE, 2**31 - 1}

    def _matches(self, index: int, name: str, value: Any) -> bool:
        match name:
            case "labelled":
                return (index in self.texts) == value
            case "failed":
                return index in self.failures
            case "starred":
                return (index in self.stars) == value
            case "list_name":
                return index in self.lists.get(value, ())
            case "provider":
                return self.providers.get(index) == value
            case "score":
                score = self.scores.get(index)
                return score is not None and (score < value[1] if value[0] == "<" else score > value[1])
        return value in self.texts.get(index, "")


def random_features() -> list[dict[str, Any]]:
    """Few different values, so that many are equal; every fifth is dead."""
    chance = random.Random(2)
    found: list[dict[str, Any]] = []
    for index in range(D_SAE):
        ids = chance.sample(range(len(WORDS)), 4)
        shown = [example(ids, [0, 1.5, 0, 3.0], 3, row=chance.randrange(ROWS)) for _ in range(2)]
        one = feature(chance.choice([1, 10, 20, 400]), chance.choice([0.5, 2.0, 3.0]), ids, shown)
        found.append({} if index % 5 == 4 else one)
    return found


def random_postings() -> list[dict[int, float]]:
    chance = random.Random(3)
    places = [chance.sample(range(ROWS * CONTEXT), chance.choice([0, 3, 150])) for _ in range(D_SAE)]
    return [{place: chance.randrange(1, 64) / 8 for place in one} for one in places]


WINDOWS = [[random.Random(row).randrange(len(WORDS)) for _ in range(CONTEXT)] for row in range(ROWS)]
NUMBERS = [row * 3 for row in range(ROWS)]


def put_store(data: Path, name: str = "s", job: int = 3, postings: bool = True, **about: Any) -> Path:
    folder = data / "features" / name / str(job)
    write_store(
        folder, random_features(), windows=WINDOWS, numbers=NUMBERS, postings=random_postings() if postings else None,
        sae=name, id=str(job), job=job, **about,
    )  # fmt: skip
    return folder


def put_sae(data: Path, name: str = "s", **recipe: Any) -> Path:
    return put_artifact(data, "saes", name, "recipe.json", json.dumps({"width": D_SAE, **recipe}))


@pytest.fixture
async def shown(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """A studio with an SAE, its features, and labels."""
    put_sae(studio.data)
    put_store(studio.data)
    await studio.app[INDEX].rebuild()
    known = KnownLabels()
    for name in ("of", "order", "about", "about_each", "matching"):
        monkeypatch.setattr(studio.app[LABELS], name, getattr(known, name))
    return studio


async def listed(studio: Studio, limit: int = 1000, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        url = studio.server.make_url("/api/saes/s/features").with_query({"limit": str(limit), **query, **cursor})
        status, page = await studio.call("GET", url.path_qs)
        assert status == 200, page
        assert len(page["features"]) <= limit
        found += page["features"]
        if page["next"] is None:
            assert page["total"] == len(found)
            return found
        cursor = {"cursor": page["next"]}


def key_of(sort: str, one: dict[str, Any], texts: dict[int, str]) -> Any:
    """What to sort by; None when there is nothing."""
    match sort:
        case "index":
            return one["index"]
        case "label":
            return texts.get(one["index"])
        case "score":
            return one["score"]
        case "token":
            return None if one["dead"] else one["tokens"][0]
    return None if one["dead"] else one[sort]


def in_order(rows: list[dict[str, Any]], sort: str) -> list[int]:
    """The plain way. Equal ones are by index, from the largest with a ``-``; of numbers it is the other way round,
    for it is from the largest that they are looked at."""
    key, texts = sort.removeprefix("-"), KnownLabels().texts
    having = [one for one in rows if key_of(key, one, texts) is not None]
    lacking = [one["index"] for one in rows if key_of(key, one, texts) is None]
    if key in ("density", "max", "typical"):
        having.sort(key=lambda one: (-one[key], one["index"]), reverse=not sort.startswith("-"))
    else:
        having.sort(key=lambda one: (key_of(key, one, texts), one["index"]), reverse=sort.startswith("-"))
    return [one["index"] for one in having] + lacking


@pytest.mark.parametrize("sort", [sign + key for key in SORTS for sign in ("", "-")])
async def test_a_sort_is_as_sorting_says_and_what_has_nothing_to_sort_by_is_last(shown: Studio, sort: str) -> None:
    rows = await listed(shown)
    assert [one["index"] for one in rows] == list(range(D_SAE))
    expected = in_order(rows, sort)
    assert [one["index"] for one in await listed(shown, sort=sort)] == expected
    assert [one["index"] for one in await listed(shown, sort=sort, limit=7)] == expected
    alive = await listed(shown, sort=sort, filter="alive density<0.3", limit=11)
    kept = {one["index"] for one in rows if not one["dead"] and one["density"] < 0.3}
    assert [one["index"] for one in alive] == [index for index in expected if index in kept]


CONDITIONS: dict[str, Any] = {
    "dead": lambda one, known, tops: one["dead"],
    "alive": lambda one, known, tops: not one["dead"],
    "labelled": lambda one, known, tops: one["label"] is not None,
    "unlabelled": lambda one, known, tops: one["label"] is None,
    "failed": lambda one, known, tops: one["index"] in known.failures,
    "starred": lambda one, known, tops: one["starred"],
    "density<0.02": lambda one, known, tops: one["density"] < 0.02,
    "density>0.01": lambda one, known, tops: one["density"] > 0.01,
    "density>1e-2": lambda one, known, tops: one["density"] > 0.01,
    "max>2": lambda one, known, tops: one["max"] > 2,
    "max<2": lambda one, known, tops: one["max"] < 2,
    "score>0.6": lambda one, known, tops: (one["score"] or 0) > 0.6,
    "score<0.6": lambda one, known, tops: one["score"] is not None and one["score"] < 0.6,
    "provider:ollama": lambda one, known, tops: known.providers.get(one["index"]) == "ollama",
    "list:mine": lambda one, known, tops: one["index"] in known.lists["mine"],
    'list:"two words"': lambda one, known, tops: one["index"] in known.lists["two words"],
    "list:none": lambda one, known, tops: False,
    "index:3,58,3,60,9999999999": lambda one, known, tops: one["index"] in (3, 58),
    "token:s": lambda one, known, tops: any("s" in top for top in tops[one["index"]]),
    'token:" return"': lambda one, known, tops: " return" in tops[one["index"]],
    'token:"\\n"': lambda one, known, tops: "\n" in tops[one["index"]],
    "token:日": lambda one, known, tops: "日" in tops[one["index"]],
    'token:"\\""': lambda one, known, tops: False,
}


async def test_filters_are_as_asking_each_feature_says(shown: Studio) -> None:
    rows, known = await listed(shown), KnownLabels()
    tops = [[WORDS[top["id"]] for top in one.get("tokens", ())] for one in random_features()]
    chance = random.Random(4)
    for terms in [[term] for term in CONDITIONS] + [chance.sample(list(CONDITIONS), 2) for _ in range(60)]:
        expected = [one["index"] for one in rows if all(CONDITIONS[term](one, known, tops) for term in terms)]
        found = await listed(shown, filter=f" {'  '.join(terms)} ", limit=20)
        assert [one["index"] for one in found] == expected, terms
    found = await listed(shown, q="modules", filter="alive")
    assert [one["index"] for one in found] == [
        one["index"] for one in rows if not one["dead"] and "modules" in known.texts.get(one["index"], "")
    ]
    assert (await shown.get("/api/saes/s/features?cursor=1000"))["features"] == []


@pytest.mark.parametrize(
    "bad",
    ["nothing", "dead:1", "density", "density=1", "max>x", "max>nan", "density<1e999", "token", "token:", "alive,dead",
     'token:"a', 'token:"\\x"', 'token:"\\ud800"', "score:0.5", "sort", "starred>1",
     "index:", "index:1,", "index:-1", "index>3", "labelled:yes", "(", "A" * 999],
)  # fmt: skip
async def test_a_bad_filter_or_sort_is_refused_with_what_is_possible(shown: Studio, bad: str) -> None:
    for name, possible in (("filter", FILTERS), ("sort", ", ".join(SORTS)))[: 1 if bad in SORTS else 2]:
        url = shown.server.make_url("/api/saes/s/features").with_query({name: bad})
        status, body = await shown.call("GET", url.path_qs)
        assert status == 400 and name in body["error"]["fields"], body
        message = body["error"]["message"]
        assert possible in message or "number" in message or "JSON" in message or "20 characters" in message, message
        assert len(message) < 400


async def test_a_row_is_that_of_the_store_with_the_label_and_an_example_when_asked_for(shown: Studio) -> None:
    pages, known = Pages(shown.data / "features/s/3"), KnownLabels()
    for one in await listed(shown):
        assert one == {**pages.row(one["index"]), **known.row(one["index"])}
    for one in await listed(shown, example="true"):
        assert one["example"] == pages.example(one["index"])
        assert (one["example"] is None) == one["dead"]


async def test_a_feature_is_its_page_with_label_score_and_marks(shown: Studio) -> None:
    pages, known = Pages(shown.data / "features/s/3"), KnownLabels()
    for index in range(D_SAE):
        expected = {"sae": "s", "extraction": "3", **pages.page(index), **await known.about("s", index), "range": None}
        assert await shown.get(f"/api/saes/s/features/{index}") == expected


@pytest.mark.parametrize("index", [D_SAE, 2**31 - 1])
async def test_a_feature_that_there_is_not_is_refused_with_the_range(shown: Studio, index: int) -> None:
    for path in (f"{index}", f"{index}/occurrences", f"compare?a=0&b={index}", f"compare?b=0&a={index}"):
        status, body = await shown.call("GET", f"/api/saes/s/features/{path}")
        assert (status, body["error"]["message"]) == (404, "s has features 0 to 59")


async def test_occurrences_are_all_places_in_the_order_of_the_text(shown: Studio) -> None:
    for index, postings in enumerate(random_postings()):
        for above in (0, 2.5):
            expected = []
            for place, value in sorted(postings.items()):
                row, position = divmod(place, CONTEXT)
                if value >= above:
                    texts = [WORDS[id] for id in WINDOWS[row]]  # a window is shorter than what is shown around
                    expected.append({"row": row, "window": NUMBERS[row], "position": position, "value": value,
                                     "texts": texts, "peak": position})  # fmt: skip
            found, cursor = [], ""
            while cursor is not None:
                page = await shown.get(f"/api/saes/s/features/{index}/occurrences?above={above}&limit=40{cursor}")
                assert page["total"] == len(expected)
                found += page["occurrences"]
                cursor = page["next"] and f"&cursor={page['next']}"
            assert found == expected


async def test_places_are_counted_on_the_first_page_only(shown: Studio) -> None:
    index = max(range(D_SAE), key=lambda index: len(random_postings()[index]))
    url = f"/api/saes/s/features/{index}/occurrences?above=2.5&limit=5"
    first = await shown.get(url)
    begin, total = first["next"].split("-")
    assert int(total) == first["total"]
    second = await shown.get(f"{url}&cursor={first['next']}")
    assert await shown.get(f"{url}&cursor={begin}") == second
    uncounted = await shown.get(f"{url}&cursor={begin}-999")
    assert uncounted == {**second, "total": 999, "next": f"{second['next'].split('-')[0]}-999"}
    for wrong in ("-", "1-", "-1", "1-2-3", "x"):
        assert (await shown.call("GET", f"{url}&cursor={wrong}"))[0] == 400


async def test_pages_do_not_wait_for_those_who_look_through_all_places(
    shown: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    real = features.occurrences

    def slow(*given: Any) -> dict[str, Any]:
        assert over.wait(30)
        return real(*given)

    monkeypatch.setattr(features, "occurrences", slow)
    scans = [asyncio.create_task(shown.get("/api/saes/s/features/0/occurrences")) for _ in range(40)]
    await asyncio.sleep(0.2)
    try:
        assert (await asyncio.wait_for(shown.get("/api/saes/s/features/0"), 5))["index"] == 0
    finally:
        over.set()
        await asyncio.gather(*scans)


async def test_an_occurrence_shows_sixteen_tokens_on_either_side(studio: Studio) -> None:
    put_artifact(studio.data, "saes", "s", "recipe.json")
    windows = [[n % len(WORDS) for n in range(100)]]
    folder = studio.data / "features" / "s" / "1"
    write_store(folder, [feature(2, 1.0)], windows=windows, postings=[{50: 1.0, 3: 0.5, 99: 0.25}], sae="s", id="1")
    await studio.app[INDEX].rebuild()
    places = (await studio.get("/api/saes/s/features/0/occurrences"))["occurrences"]
    for place, (first, end) in zip(places, ((0, 20), (34, 67), (83, 100)), strict=True):
        assert place["texts"] == [WORDS[n % len(WORDS)] for n in range(first, end)]
        assert place["peak"] == place["position"] - first


async def test_a_window_is_shown_whole_with_what_fires_in_it(shown: Studio) -> None:
    for index, row in ((0, 0), (3, 7), (D_SAE - 1, ROWS - 1)):
        postings = random_postings()[index]
        found = await shown.get(f"/api/saes/s/features/{index}/windows/{row}")
        assert found["texts"] == [WORDS[id] for id in WINDOWS[row]]
        assert found["activations"] == [postings.get(row * CONTEXT + n, 0.0) for n in range(CONTEXT)]
        assert (found["row"], found["window"]) == (row, NUMBERS[row])
    status, body = await shown.call("GET", f"/api/saes/s/features/0/windows/{ROWS}")
    assert (status, body["error"]["message"]) == (404, f"extraction 3 has read windows 0 to {ROWS - 1}")


async def test_the_prompt_of_a_feature_is_what_an_llm_is_asked(shown: Studio) -> None:
    page = await shown.get("/api/saes/s/features/4")
    found = await shown.get("/api/saes/s/features/4/prompt")
    assert found["messages"] == prompt.build(page, prompt.DEFAULT.read_text())
    assert (found["template"], found["evidence"]) == ("default", prompt.has_evidence(page))
    status, body = await shown.call("GET", "/api/saes/s/features/4/prompt?template=other")
    assert status == 404 and "there is no template 'other'" in body["error"]["message"]


def put_weights(folder: Path, rows: list[list[float]]) -> None:
    size = len(rows) * len(rows[0]) * 4
    header = json.dumps({"W_dec": {"dtype": "F32", "shape": [len(rows), len(rows[0])], "data_offsets": [0, size]}})
    values = struct.pack(f"<{size // 4}f", *(value for row in rows for value in row))
    (folder / "sae_weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + values)


async def test_a_comparison_is_as_counting_says(shown: Studio) -> None:
    chance = random.Random(5)
    weights = [[chance.gauss(0, 1) for _ in range(8)] for _ in range(D_SAE)]
    put_weights(shown.data / "saes" / "s", weights)
    postings, rows = random_postings(), await listed(shown)
    for a, b in [(0, 1), (1, 0), (2, 2)] + [tuple(chance.sample(range(D_SAE), 2)) for _ in range(25)]:
        found = await shown.get(f"/api/saes/s/features/compare?a={a}&b={b}")
        assert (found["a"], found["b"]) == (rows[a], rows[b])
        dot = sum(x * y for x, y in zip(weights[a], weights[b], strict=True))
        assert found["cosine"] == pytest.approx(dot / math.hypot(*weights[a]) / math.hypot(*weights[b]), abs=1e-6)
        both = sorted(postings[a].keys() & postings[b].keys())
        assert found["both"] == len(both)
        assert found["jaccard"] == len(both) / max(len(postings[a].keys() | postings[b].keys()), 1)
        tops = [rows[index]["max"] or 1.0 for index in (a, b)]
        strength = {place: min(postings[a][place] / tops[0], postings[b][place] / tops[1]) for place in both}
        best = sorted(max(strength[p] for p in both if p // CONTEXT == row) for row in {p // CONTEXT for p in both})
        places = [one["row"] * CONTEXT + one["position"] for one in found["shared"]]
        assert [strength[place] for place in places] == best[::-1][:10]
        assert [(one["a"], one["b"]) for one in found["shared"]] == [(postings[a][p], postings[b][p]) for p in places]


async def test_without_postings_there_are_no_places_and_a_comparison_has_what_is_left(studio: Studio) -> None:
    put_sae(studio.data)
    put_store(studio.data, postings=False)
    await studio.app[INDEX].rebuild()
    status, body = await studio.call("GET", "/api/saes/s/features/0/occurrences")
    assert status == 409 and "extract the features again" in body["error"]["message"]
    assert (await studio.get("/api/saes/s/features/0/windows/0"))["activations"] is None
    found = await studio.get("/api/saes/s/features/compare?a=0&b=1")
    assert [found[name] for name in ("both", "jaccard", "shared", "cosine")] == [None] * 4


async def test_an_export_is_every_page_a_line_each(shown: Studio) -> None:
    async with shown.session.get(shown.server.make_url("/api/saes/s/features/export")) as response:
        assert response.content_type == "application/x-ndjson"
        assert response.headers["Content-Disposition"] == 'attachment; filename="s-3.ndjson"'
        lines = (await response.text()).split("\n")
    assert lines.pop() == "" and len(lines) == D_SAE
    for index in (0, 4, 33, D_SAE - 1):
        assert json.loads(lines[index]) == await shown.get(f"/api/saes/s/features/{index}")
    async with shown.session.head(shown.server.make_url("/api/saes/s/features/export")) as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_an_export_reads_labels_a_few_pages_at_a_time(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    put_sae(studio.data)
    put_store(studio.data)
    await studio.app[INDEX].rebuild()
    labels, reads = studio.app[LABELS], 0
    await labels.put("s", 7, "imports", "of modules", "3")
    await labels.mark("s", 33, {"starred": True})
    await studio.app[RANGES].keep("s", "aa", [found_range(33), found_range(59)])
    expected = [await studio.get(f"/api/saes/s/features/{index}") for index in range(D_SAE)]
    real = labels._database.read

    async def counted(function: Any) -> Any:
        nonlocal reads
        reads += 1
        return await real(function)

    monkeypatch.setattr(labels._database, "read", counted)
    lines = (await studio.call("GET", "/api/saes/s/features/export"))[1].splitlines()
    assert list(map(json.loads, lines)) == expected
    assert reads <= 10


async def test_an_export_whose_reader_goes_or_whose_store_is_damaged_ends(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    put_sae(studio.data)
    folder, one = studio.data / "features" / "s" / "3", feature(9, 2.0, examples=[example([0] * 9, [1.0] * 9, 0)] * 40)
    write_store(folder, [one] * 2000, sae="s", id="3")
    (studio.data / "saes" / "s" / "recipe.json").write_text("{}")
    await studio.app[INDEX].rebuild()
    url = studio.server.make_url("/api/saes/s/features/export")
    async with studio.session.get(url) as response:
        await response.content.readany()
        response.close()
    await asyncio.sleep(0.2)
    assert not caplog.records
    with (folder / "pages.bin").open("r+b") as file:
        file.seek(Pages(folder)._starts[1500])
        file.write(b"\xff" * 100)
    async with studio.session.get(url) as response:
        with pytest.raises(ClientPayloadError):
            await response.read()
    assert "no record of feature 1500" in caplog.text


async def refusal(studio: Studio) -> str:
    await studio.app[INDEX].rebuild()
    messages = set()
    for path in ("", "/0", "/0/occurrences", "/compare?a=0&b=1", "/export"):
        status, body = await studio.call("GET", f"/api/saes/s/features{path}")
        assert status == 409, body
        messages.add(body["error"]["message"])
    (message,) = messages
    assert "extract" in message and "again" in message
    return str(message)


async def test_what_does_not_belong_to_the_sae_or_cannot_be_read_is_said_in_a_sentence(studio: Studio) -> None:
    recipe = put_sae(studio.data, width=61) / "recipe.json"
    folder = put_store(studio.data, sae_sha256="aa")
    assert await refusal(studio) == "extraction 3 has 60 features, and s has 61: extract them again"
    recipe.write_text(json.dumps({"width": D_SAE, "sae_sha256": "bb"}))
    assert "s was trained further since extraction 3" in await refusal(studio)
    recipe.write_text(json.dumps({"width": D_SAE, "sae_sha256": "aa"}))
    await studio.app[INDEX].rebuild()
    await studio.get("/api/saes/s/features/0")
    newer = put_artifact(studio.data, "features", "s/4", "manifest.json", '{"features": 4}')
    (newer / "features.jsonl").write_text('{"index": 0}\n')
    assert "made by an older version: extract the features again" in await refusal(studio)
    last = put_store(studio.data, job=5)
    (last / "columns.bin").unlink()
    assert "columns.bin is missing" in await refusal(studio)
    (folder / "manifest.json").unlink()


async def test_a_record_that_is_damaged_is_said_and_leaves_the_others(shown: Studio) -> None:
    pages = shown.data / "features/s/3/pages.bin"
    begin, end = Pages(shown.data / "features/s/3")._starts[7:9]
    with pages.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * (end - begin))
    status, body = await shown.call("GET", "/api/saes/s/features/7")
    assert status == 409 and "pages.bin holds no record of feature 7" in body["error"]["message"]
    assert (await shown.get("/api/saes/s/features/6"))["index"] == 6


def held(data: Path) -> tuple[set[str], set[str]]:
    """The SAEs of whose stores something is open, and mapped; "trash" is of one that was removed."""
    opened = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # another thread has closed it meanwhile
            opened.append(os.readlink(path))
    mapped = Path("/proc/self/maps").read_text().split()
    begin = f"{data}/"
    places = ([path[len(begin) :].split("/") for path in paths if path.startswith(begin)] for paths in (opened, mapped))
    among = (
        {at[1] if at[0] == "features" else at[0] for at in some if at[0] in ("features", "trash")} for some in places
    )
    return tuple(among)  # type: ignore[return-value]


async def assert_open(data: Path, *saes: str) -> None:
    """A store that is not to be read any more closes once the last thread that has read it is done."""
    for _ in range(1000):
        if held(data) == ({*saes}, {*saes}):
            break
        await asyncio.sleep(0.02)
    assert held(data) == ({*saes}, {*saes})


async def test_a_few_stores_are_open_and_a_removed_one_is_closed(studio: Studio) -> None:
    names = [f"s{n}" for n in range(MOST + 2)]
    for name in names:
        put_sae(studio.data, name)
        put_store(studio.data, name)
    await studio.app[INDEX].rebuild()
    for name in [*names, names[-MOST], "s1"]:  # opened, and used again
        await studio.get(f"/api/saes/{name}/features/0")
    await assert_open(studio.data, "s1", "s2", "s4", "s5")
    assert (await studio.call("DELETE", "/api/saes/s4"))[0] == 204
    await assert_open(studio.data, "s1", "s2", "s5")
    assert (await studio.call("GET", "/api/saes/s4/features/0"))[0] == 404


async def test_a_store_is_opened_once_however_many_ask_at_once(shown: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = Pages.__init__

    def opening(self: Pages, folder: Path) -> None:
        opened.append(folder)
        real(self, folder)

    monkeypatch.setattr(Pages, "__init__", opening)
    await asyncio.gather(*(shown.get(f"/api/saes/s/features/{n}") for n in range(30)))
    assert len(opened) == 1


async def test_a_store_that_is_removed_while_it_is_opened_is_not_kept_open(
    shown: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, removed = threading.Event(), threading.Event()
    real = Pages.__init__

    def slow(self: Pages, folder: Path) -> None:
        real(self, folder)
        begun.set()
        assert removed.wait(30)

    monkeypatch.setattr(Pages, "__init__", slow)
    asking = asyncio.create_task(shown.call("GET", "/api/saes/s/features/0"))
    assert await asyncio.to_thread(begun.wait, 30)
    assert (await shown.call("DELETE", "/api/saes/s"))[0] == 204
    removed.set()
    await asking
    await assert_open(shown.data)


async def test_no_file_of_a_store_is_touched_on_the_event_loop(shown: Studio) -> None:
    """Neither read, nor looked at where it is mapped, nor turned into JSON."""
    watch = BlockBuster(scanned_modules=["mistudiod"])
    whole = [BlockBusterFunction(os, "pread"), BlockBusterFunction(features, "_encoded")]
    whole += [BlockBusterFunction(Pages, name) for name in ("__init__", "row", "page", "example", "order", "postings")]
    whole += [BlockBusterFunction(features, name) for name in ("select", "together", "occurrences", "cosine")]
    watch.functions |= {one.full_name: one for one in whole}
    put_weights(shown.data / "saes" / "s", [[1.0, 2.0]] * D_SAE)
    watch.activate()
    try:
        for path in (
            "?sort=-max&filter=alive%20token:s&example=true",
            "/0",
            "/0/occurrences?above=1",
            "/compare?a=0&b=1",
        ):
            await shown.get(f"/api/saes/s/features{path}")
        assert (await shown.call("GET", "/api/saes/s/features/export"))[1].count("\n") == D_SAE
    finally:
        watch.deactivate()
