"""The history of steering: kept, listed, starred, taken out, and never without bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact
from steered_runs import SHA, found, result, spec

from mistudiod import steerings
from mistudiod.api.keys import INDEX, LABELS, RANGES, STEERINGS


@pytest.fixture(autouse=True)
def made(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    put_artifact(data, "saes", "ok", "recipe.json", json.dumps({"width": 12, "sae_sha256": SHA}))
    return data


async def keep(studio: Studio, job: int | None = None, **fields: Any) -> int:
    return await studio.app[STEERINGS].keep(spec(**fields), result(), job)


async def test_a_run_is_shown_with_the_spec_that_runs_it_again(studio: Studio) -> None:
    id = await keep(studio, max_tokens=20)
    found = await studio.get(f"/api/steerings/{id}")
    assert found["result"] == result()
    assert [found[name] for name in ("sae", "model", "job", "starred", "note")] == ["ok", "tiny", None, False, None]
    again = found["spec"]
    assert (again["seed"], again["temperature"], again["max_tokens"]) == (0, 0.7, 20)  # also what nobody gave
    assert again["precision"] == "fp32"  # that in which it was run
    assert again["rows_at_once"] == 2
    assert await studio.app[STEERINGS].keep(again, result()) == id + 1
    assert (await studio.get(f"/api/steerings/{id + 1}"))["spec"] == again


async def test_the_run_of_a_job_is_kept_once(studio: Studio) -> None:
    first = await keep(studio, job=5)
    assert await keep(studio, job=5) == first
    assert await keep(studio, job=6) != first
    assert await keep(studio) != await keep(studio)
    assert [one["job"] for one in (await studio.get("/api/steerings"))["steerings"]] == [None, None, 6, 5]


async def test_the_list_comes_in_pages_the_newest_first_and_without_texts(studio: Studio) -> None:
    ids = [await keep(studio, prompt=f"prompt {n}") for n in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = await studio.get(f"/api/steerings?limit=2{f'&cursor={cursor}' if cursor else ''}")
        seen += page["steerings"]
        cursor = page["next"]
    assert [one["id"] for one in seen] == ids[::-1]
    assert seen[0]["prompt"] == "prompt 4" and seen[0]["steering"][0]["strength"] == 2
    assert "result" not in seen[0]


async def test_the_list_is_narrowed_by_sae_star_and_words_of_prompt_and_note(studio: Studio) -> None:
    kept = studio.app[STEERINGS]
    first = await keep(studio, prompt="Der ÄRGER 100%_")
    chat = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Why?"}]
    second = await kept.keep(spec(prompt=None, sae="gone", messages=chat), result())
    await studio.call("PATCH", f"/api/steerings/{first}", json={"starred": True, "note": "For the TALK"})
    for query, ids in {
        "sae=gone": [second], "sae=ok": [first], "sae=none": [], "starred=true": [first], "starred=false": [second],
        "q=ärger": [first], "q=100%25_": [first], "q=%25": [first], "q=talk+der": [first], "q=talk+brief": [],
        "q=BRIEF+why": [second], "q=%27%20or%201%3D1": [], "starred=true&q=why": [],
    }.items():  # fmt: skip
        assert [one["id"] for one in (await studio.get(f"/api/steerings?{query}"))["steerings"]] == ids, query
    assert (await studio.get("/api/steerings?sae=gone"))["steerings"][0]["prompt"] == "Why?"


async def test_a_star_and_a_note_change_one_at_a_time(studio: Studio) -> None:
    id = await keep(studio)
    for edit, star, note in (
        ({"starred": True}, True, None), ({"note": "look"}, True, "look"), ({"starred": False}, False, "look"),
        ({"note": ""}, False, None),
    ):  # fmt: skip
        status, body = await studio.call("PATCH", f"/api/steerings/{id}", json=edit)
        assert (status, body["starred"], body["note"]) == (200, star, note)
    for wrong in ({}, {"starred": None}, {"note": 3}, {"text": "x"}):
        assert (await studio.call("PATCH", f"/api/steerings/{id}", json=wrong))[0] == 400, wrong
    assert (await studio.get("/api/steerings?q=look"))["steerings"] == []


async def test_what_is_removed_is_gone_and_what_is_not_there_is_said(studio: Studio) -> None:
    id = await keep(studio)
    assert (await studio.call("DELETE", f"/api/steerings/{id}"))[0] == 204
    for method, path, body in (
        ("GET", "", None), ("DELETE", "", None), ("PATCH", "", {"starred": True}), ("GET", "/export", None),
    ):  # fmt: skip
        status, answer = await studio.call(method, f"/api/steerings/{id}{path}", json=body)
        assert (status, answer["error"]["message"]) == (404, f"there is no steering {id}")
    assert await keep(studio) > id  # no number is given twice


async def test_the_newest_stay_and_those_that_are_starred(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steerings, "KEPT", 3)
    starred = await keep(studio)
    await studio.app[STEERINGS].edit(starred, {"starred": True})
    ids = [await keep(studio) for _ in range(5)]
    assert [one["id"] for one in (await studio.get("/api/steerings"))["steerings"]] == [*ids[:1:-1], starred]


async def test_runs_outlive_their_sae_and_a_restart_and_ranges_do_not(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    id = await keep(studio)
    await studio.app[RANGES].keep("ok", SHA, [found(7)])
    assert (await studio.call("DELETE", "/api/saes/ok"))[0] == 204
    assert await studio.app[RANGES].of("ok", None) == []
    await studio.server.close()
    studio = await open_studio()
    assert (await studio.get(f"/api/steerings/{id}"))["sae"] == "ok"
    assert (await studio.get(f"/api/steerings/{id}/export"))["labels"] == [{"sae": "ok", "feature": 7, "label": None}]


async def test_ranges_of_an_earlier_state_of_the_sae_and_of_another_of_its_name_are_left_out(studio: Studio) -> None:
    ranges = studio.app[RANGES]
    await ranges.keep("ok", SHA, [found(1), found(2)])
    kept = await ranges.keep("ok", "b" * 64, [found(2, tokens=1), found(3)])
    assert [one["feature"] for one in await ranges.of("ok", SHA)] == [1]
    assert await ranges.of("ok", "b" * 64) == kept
    assert [one["feature"] for one in await ranges.of("ok", None, [3, 1, 9])] == [1, 3]
    await studio.app[INDEX].add("sae", "ok", {"width": 12}, None)  # known: the same one
    assert len(await ranges.of("ok", None)) == 3
    await ranges.keep("new", SHA, [found(1)])
    await studio.app[INDEX].add("sae", "new", {"width": 12}, None)
    assert await ranges.of("new", None) == []


async def test_the_export_is_one_object_with_the_labels_of_now(studio: Studio) -> None:
    edits = [{"feature": 7}, {"feature": 7, "op": "ablate"}, {"feature": 1, "sae": "other"}]
    id = await studio.app[STEERINGS].keep(spec(steering=edits), result())
    await studio.app[LABELS].put("ok", 7, "snakes", None, None)
    async with studio.session.get(studio.server.make_url(f"/api/steerings/{id}/export")) as answer:
        body = await answer.json()
        assert answer.headers["Content-Disposition"] == f'attachment; filename="steering-{id}.json"'
    assert (body["format"], body["version"]) == ("mistudio-steering", 1)
    assert body["steering"] == await studio.get(f"/api/steerings/{id}")
    assert body["labels"] == [
        {"sae": "ok", "feature": 7, "label": "snakes"}, {"sae": "other", "feature": 1, "label": None},
    ]  # fmt: skip
    async with studio.session.get(studio.server.make_url(f"/api/steerings/{id}/export?format=html")) as answer:
        page = await answer.text()
        assert answer.headers["Content-Disposition"] == f'attachment; filename="steering-{id}.html"'
        assert (answer.content_type, answer.charset) == ("text/html", "utf-8")
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and "Content-Security-Policy" in answer.headers
    assert page.startswith("<!doctype html>") and "snakes" in page
    assert (await studio.call("GET", f"/api/steerings/{id}/export?format=pdf"))[0] == 400
