"""SAEs renamed, tagged, removed and restored: what is theirs stays theirs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact, train
from kept_saes import done, known, put_sae, rows_named, say_all
from test_reindex import lose_database

from mistudiod.about import check_note, check_tag
from mistudiod.api import keys
from mistudiod.wanted import Wanted


async def kept(open_studio: OpenStudio, *names: str, **recipe: Any) -> Studio:
    studio = await open_studio()
    await studio.server.close()
    for name in names:
        put_sae(studio.data, name, **recipe)
    studio = await open_studio()
    for name in names:
        await say_all(studio, name, f"of-{name}")
    return studio


async def refused(studio: Studio, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, found = await studio.call(method, path, **({} if body is None else {"json": body}))
    assert status >= 400, found
    return status, found["error"]["message"]


async def integrity(studio: Studio) -> None:
    def check(db: Any) -> list[Any]:
        return [tuple(row) for what in ("integrity_check", "foreign_key_check") for row in db.execute(f"pragma {what}")]

    assert await studio.app[keys.DATABASE].read(check) == [("ok",)]


# -- tags and notes ---------------------------------------------------------------------------------------------------


async def test_tags_and_a_note_are_the_folders_and_outlive_the_database(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    folder = studio.data / "saes" / "a"
    was = folder.stat().st_mtime_ns
    await done(
        studio, "PATCH", "/api/saes/a", {"add_tags": ["good", "gpt2"], "remove_tags": ["of-a"], "note": "mine\nown"}
    )
    found = await done(studio, "PATCH", "/api/saes/a", {"add_tags": ["good", "日本"]})
    assert (found["tags"], found["note"]) == (["good", "gpt2", "日本"], "mine\nown")
    assert folder.stat().st_mtime_ns == was, "created_at is read from it"
    assert not list(studio.data.glob("saes/.partial-*"))
    await studio.server.close()
    lose_database(studio.data)
    studio = await open_studio()
    again = await studio.get("/api/saes/a")
    assert {**again, "id": 0} == {**found, "id": 0}
    bare = await done(studio, "PATCH", "/api/saes/a", {"remove_tags": found["tags"], "note": None})
    assert "tags" not in bare and "note" not in bare


@pytest.mark.parametrize(
    "body",
    [{}, {"add_tags": [""]}, {"add_tags": ["a b"]}, {"add_tags": ["a,b"]}, {"add_tags": ["a\u0007"]},
     {"add_tags": ["-a"]}, {"add_tags": ["x" * 41]}, {"add_tags": ["\ud800"]},
     {"add_tags": [f"t{n}" for n in range(51)]}, {"note": "x" * 10_001},
     {"note": "\u001b[31m"}, {"note": "\ud800"}, {"tags": ["x"]}, {"add_tags": None}],
)  # fmt: skip
async def test_what_cannot_be_said_of_an_sae_is_refused_and_changes_nothing(open_studio: OpenStudio, body: Any) -> None:
    studio = await kept(open_studio, "a")
    before = await studio.get("/api/saes/a")
    answer = await studio.call(
        "PATCH", "/api/saes/a", data=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer[0] == 400
    assert await studio.get("/api/saes/a") == before


async def test_an_sae_has_so_many_tags_and_no_more(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    await done(studio, "PATCH", "/api/saes/a", {"add_tags": [f"t{n}" for n in range(49)]})
    status, said = await refused(studio, "PATCH", "/api/saes/a", {"add_tags": ["more"]})
    assert (status, said) == (400, "a: an SAE has 50 tags at most")


async def test_a_damaged_about_json_says_nothing_and_is_written_anew(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    for damaged in ("{", "[]", '{"tags": "x", "note": 5}', '{"tags": [1, "good"]}'):
        (studio.data / "saes" / "a" / "about.json").write_text(damaged)
        found = await done(studio, "PATCH", "/api/saes/a", {"add_tags": ["good"]})
        assert (found["tags"], found.get("note")) == (["good"], None)


def test_what_a_tag_and_a_note_may_be_is_said_in_words() -> None:
    for word in ("good", "gpt-2", "über", "日本"):
        assert check_tag(word) == word
    for check, wrong in ((check_tag, "a b"), (check_tag, "x" * 41), (check_note, "\x00")):
        with pytest.raises(ValueError, match=r"^must "):
            check(wrong)


# -- another name -----------------------------------------------------------------------------------------------------


async def test_a_renamed_sae_has_all_that_it_had(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    before, other = await known(studio, "a"), await known(studio, "b")
    id = (await studio.get("/api/saes/a"))["id"]
    found = await done(studio, "POST", "/api/saes/a/rename", {"name": "new"})
    assert (found["name"], found["id"], found["sae"], found["earlier"]) == ("new", id, "new", ["a"])
    assert found["spec"]["name"] == "a", "its checkpoints know it by that"
    assert await known(studio, "new") == before
    assert await known(studio, "b") == other
    assert (await studio.get("/api/profiles/of-a-up"))["steering"][0]["sae"] == "new"
    run = (await studio.get("/api/steerings?sae=new"))["steerings"][0]
    whole = await studio.get(f"/api/steerings/{run['id']}")
    assert json.dumps(whole).count('"a"') == 0 and json.dumps(whole).count('"new"') >= 6
    assert await studio.app[keys.DATABASE].read(lambda db: rows_named(db, "a")) == {}
    for path in ("features/new/1/manifest.json", "saes/new/recipe.json"):
        assert json.loads((studio.data / path).read_text())["sae"] == "new"
    await integrity(studio)
    assert not list(studio.data.glob("**/.partial-*")) and not (studio.data / "moving.json").exists()


async def test_a_restart_and_a_new_database_know_a_renamed_sae(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    await done(studio, "POST", "/api/saes/a/rename", {"name": "new"})
    before = await known(studio, "new")
    await studio.server.close()
    studio = await open_studio()
    assert await known(studio, "new") == before
    await studio.server.close()
    lose_database(studio.data)
    studio = await open_studio()
    again = await known(studio, "new")
    assert [again[part] for part in ("sae", "files", "exports")] == [
        before[part] for part in ("sae", "files", "exports")
    ]


async def test_whoever_asks_for_the_name_before_is_told_the_one_of_now(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    for name in ("b", "c"):
        await done(studio, "POST", f"/api/saes/{'a' if name == 'b' else 'b'}/rename", {"name": name})
    for was in ("a", "b"):
        assert await refused(studio, "GET", f"/api/saes/{was}") == (404, f"there is no sae {was!r}; it is called c now")
        status, said = await refused(studio, "POST", "/api/jobs", {"spec": {"kind": "export", "sae": was}})
        assert (status, said) == (400, f"there is no sae named {was!r}; it is called c now")
    back = await done(studio, "POST", "/api/saes/c/rename", {"name": "a"})
    assert back["earlier"] == ["b", "c"]


async def test_a_name_that_is_taken_or_none_is_refused_and_nothing_moves(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    before = await known(studio, "a")
    none = ("../b", "a/b", ".partial-x", "12", "", "x" * 65, "trash/1", "a..b", "a\0")
    for name, status in (("b", 409), ("B", 409), ("a", 409), *((name, 400) for name in none)):
        assert (await refused(studio, "POST", "/api/saes/a/rename", {"name": name}))[0] == status, name
    (studio.data / "exports" / "left-zip").mkdir()
    (studio.data / "exports" / "left-zip" / "left.zip").write_text("of an SAE that went long ago")
    status, said = await refused(studio, "POST", "/api/saes/a/rename", {"name": "left"})
    assert status == 409 and said.endswith("exports/left-zip is in the way: move it away or delete it")
    assert await known(studio, "a") == before
    assert (await done(studio, "POST", "/api/saes/a/rename", {"name": "A"}))["name"] == "A", "another spelling is free"


async def test_jobs_that_use_an_sae_are_named_when_it_cannot_be_renamed_or_removed(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    put_artifact(studio.data, "tokens", "t", "tokenization.json", '{"dataset": "d", "model": "m"}')
    await studio.server.close()
    studio = await open_studio()
    slow = await studio.submit(dataset("slow"))
    steer = {"kind": "steer", "sae": "b", "prompt": "x", "steering": [{"sae": "a", "feature": 1}]}
    jobs = [(await studio.submit(spec, after=[slow["id"]]))["id"] for spec in ({"kind": "export", "sae": "a"}, steer)]
    making = await studio.submit(train("coming"), after=[slow["id"]])
    for method, path, body in (("DELETE", "", None), ("POST", "/rename", {"name": "new"})):
        message = f"jobs {jobs[0]} and {jobs[1]} use the sae 'a'; stop them first or wait for their end"
        assert await refused(studio, method, f"/api/saes/a{path}", body) == (409, message)
    assert (await studio.get("/api/saes/a/dependents"))["jobs"] == jobs
    await studio.act(jobs[0], "stop")
    assert "job 3 uses" in (await refused(studio, "DELETE", "/api/saes/a"))[1]
    await studio.act(jobs[1], "stop")
    status, said = await refused(studio, "POST", "/api/saes/a/rename", {"name": "coming"})
    assert (status, f"job {making['id']} is making" in said) == (409, True)
    assert (await done(studio, "POST", "/api/saes/a/rename", {"name": "free"}))["name"] == "free"


async def test_an_sae_in_the_sessions_memory_stays_where_it_is(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    put_artifact(studio.data, "models", "m", "model.json", json.dumps({"name": "m", "path": "/m"}))
    await studio.server.close()
    studio = await open_studio()
    await studio.app[keys.SESSION].start(Wanted("m", ("a",)))
    for method, path, body in (("DELETE", "", None), ("POST", "/rename", {"name": "new"})):
        status, said = await refused(studio, method, f"/api/saes/a{path}", body)
        assert (status, "the session has the SAE 'a' in memory: end it first (mistudio session stop)" in said) == (
            409,
            True,
        )
    assert (await studio.get("/api/saes/a/dependents"))["in_session"] is True
    assert (await done(studio, "POST", "/api/saes/b/rename", {"name": "new"}))["name"] == "new"
    await studio.app[keys.SESSION].stop()
    await done(studio, "DELETE", "/api/saes/a")


async def test_a_run_before_the_name_keeps_its_history_and_is_found_by_the_sae(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    put_artifact(studio.data, "tokens", "t", "tokenization.json", '{"dataset": "d", "model": "m"}')
    await studio.server.close()
    studio = await open_studio()
    job = await studio.submit(train("train"))
    while not (await studio.get(f"/api/jobs/{job['id']}/checkpoints"))["checkpoints"]:
        await asyncio.sleep(0.02)
    await studio.act(job["id"], "stop")
    job = await studio.until(job["id"])
    await done(studio, "POST", "/api/saes/train/rename", {"name": "new"})
    assert await studio.get(f"/api/jobs/{job['id']}") == job
    assert (await studio.get("/api/saes/new"))["job"] == job["id"]
    assert (await studio.get(f"/api/jobs/{job['id']}/metrics"))["metrics"]


# -- the trash --------------------------------------------------------------------------------------------------------


async def test_what_was_removed_comes_back_as_it_was(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b", job=None)
    before, other = await known(studio, "a"), await known(studio, "b")
    said = await studio.get("/api/saes/a/dependents")
    assert said == {
        "sae": "a", "profiles": ["of-a-up"], "steerings": 1, "extended_by": [], "exports": ["saelens", "zip"],
        "extractions": 1, "labels": 2, "marked": 1, "ranges": 1, "jobs": [], "in_session": False,
    }  # fmt: skip
    assert (await studio.call("DELETE", "/api/saes/a"))[0] == 204
    assert await refused(studio, "GET", "/api/saes/a") == (404, "there is no sae 'a'")
    assert not [path for path in studio.data.glob("*/a*") if path.parent.name != "trash"]
    (one,) = (await studio.get("/api/trash"))["trash"]
    assert (one["name"], one["labels"]) == ("a", 2)
    kept_s = datetime.fromisoformat(one["deleted_at"][:-1]) - datetime.fromisoformat(one["removed_at"][:-1])
    assert kept_s == timedelta(days=7)
    await studio.server.close()
    studio = await open_studio()
    found = await done(studio, "POST", f"/api/trash/{one['id']}/restore", {})
    assert (found["sae"]["name"], found["labels"]) == ("a", True)
    assert await known(studio, "a") == before and await known(studio, "b") == other
    assert (await studio.get("/api/trash"))["trash"] == [] and list((studio.data / "trash").iterdir()) == []
    await integrity(studio)


async def test_another_of_its_name_has_none_of_what_is_in_the_trash_and_bars_the_name(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    before = await known(studio, "a")
    await done(studio, "DELETE", "/api/saes/a")
    put_sae(studio.data, "a")
    await studio.server.close()
    studio = await open_studio()
    assert (await known(studio, "a"))["labels"] == []
    status, said = await refused(studio, "POST", "/api/trash/a/restore", {})
    assert (status, said.endswith("; or restore it under another name")) == (409, True)
    found = await done(studio, "POST", "/api/trash/a/restore", {"name": "old-a"})
    assert (found["sae"]["sae"], found["sae"]["earlier"]) == ("old-a", ["a"])
    assert await known(studio, "old-a") == before


async def test_two_of_a_name_in_the_trash_are_told_apart_by_their_ids(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    await done(studio, "DELETE", "/api/saes/a")
    await done(studio, "POST", "/api/saes/b/rename", {"name": "a"})
    await done(studio, "DELETE", "/api/saes/a")
    newest, oldest = (await studio.get("/api/trash"))["trash"]
    status, said = await refused(studio, "POST", "/api/trash/a/restore", {})
    assert status == 409 and newest["id"] in said and oldest["id"] in said
    assert (await done(studio, "DELETE", f"/api/trash/{newest['id']}")) == {"deleted": 1}
    assert (await done(studio, "POST", "/api/trash/a/restore", {}))["sae"]["tags"] == ["of-a"]


async def test_without_the_database_the_trash_is_restored_without_labels_and_that_is_said(
    open_studio: OpenStudio,
) -> None:
    studio = await kept(open_studio, "a", job=7)
    await done(studio, "DELETE", "/api/saes/a")
    await studio.server.close()
    lose_database(studio.data)
    studio = await open_studio()
    found = await done(studio, "POST", "/api/trash/a/restore", {})
    assert (found["labels"], found["sae"]["tags"], found["sae"]["job"]) == (False, ["of-a"], 7)
    assert (await studio.get("/api/saes/a/features"))["total"] == 5


async def test_after_7_days_it_is_deleted_with_what_the_database_knew(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    for name in ("a", "b"):
        await done(studio, "DELETE", f"/api/saes/{name}")
    trash, (b, a) = studio.app[keys.TRASH], (await studio.get("/api/trash"))["trash"]
    at = datetime.fromisoformat(a["removed_at"].replace("Z", "+00:00"))
    assert await trash.sweep(at + timedelta(days=7) - timedelta(milliseconds=1)) == []
    assert await trash.sweep(at + timedelta(days=7)) == [a["id"]] or a["removed_at"] == b["removed_at"]
    counted = await studio.app[keys.DATABASE].read(lambda db: rows_named(db, f"trash/{a['id']}"))
    assert counted == {} and not (studio.data / "trash" / a["id"]).exists()
    assert await trash.sweep(datetime.now(timezone.utc) + timedelta(days=8)) == [b["id"]]
    found = await studio.app[keys.DATABASE].read(
        lambda db: {table: db.execute(f"select count(*) from {table}").fetchone()[0]
                    for table in ("labels", "labels_text", "marks", "listed", "ranges", "steerings")}
    )  # fmt: skip
    assert found == {"labels": 0, "labels_text": 0, "marks": 0, "listed": 0, "ranges": 0, "steerings": 2}
    await integrity(studio)


async def test_a_start_deletes_what_is_7_days_old(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    for name in ("a", "b"):
        await done(studio, "DELETE", f"/api/saes/{name}")
    await studio.server.close()
    for one in studio.data.glob("trash/*/trash.json"):
        said = json.loads(one.read_text())
        one.write_text(json.dumps({**said, "removed_at": "2020-01-01T00:00:00Z"} if said["name"] == "a" else said))
    studio = await open_studio()
    for _ in range(1000):
        if len(left := (await studio.get("/api/trash"))["trash"]) == 1:
            break
        await asyncio.sleep(0.02)
    assert [one["name"] for one in left] == ["b"]


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"name": "a"}', '{"name": "a", "removed_at": "soon", "job": 1, "labels": 0}']
)
async def test_what_is_damaged_in_the_trash_stays_until_it_is_emptied(open_studio: OpenStudio, damage: str) -> None:
    studio = await kept(open_studio, "a")
    await done(studio, "DELETE", "/api/saes/a")
    (folder,) = (studio.data / "trash").iterdir()
    (folder / "trash.json").write_text(damage)
    assert (await studio.get("/api/trash"))["trash"] == []
    assert await studio.app[keys.TRASH].sweep(datetime.now(timezone.utc) + timedelta(days=100)) == []
    assert (await refused(studio, "POST", f"/api/trash/{folder.name}/restore", {}))[0] == 404
    assert await done(studio, "DELETE", "/api/trash") == {"deleted": 1}
    assert not folder.exists()


@pytest.mark.parametrize("ref", ["..", ".", "%2e%2e", "..%2Fsaes%2Fa", "%00", ".partial-x", "x" * 65])
async def test_a_path_for_an_id_finds_nothing_and_deletes_nothing(open_studio: OpenStudio, ref: str) -> None:
    studio = await kept(open_studio, "a")
    from yarl import URL

    for method, tail in (("POST", "/restore"), ("DELETE", "")):
        url = URL(f"{studio.server.make_url('/')}api/trash/{ref}{tail}", encoded=True)
        async with studio.session.request(method, url, json={} if tail else None) as answer:
            assert answer.status in (404, 405)
    assert (await studio.get("/api/saes/a"))["name"] == "a"


async def test_a_link_to_an_sae_elsewhere_is_moved_and_what_it_leads_to_stays(
    open_studio: OpenStudio, tmp_path_factory: pytest.TempPathFactory
) -> None:
    studio = await kept(open_studio, "a")
    elsewhere = tmp_path_factory.mktemp("big") / "a"
    shutil.move(studio.data / "saes" / "a", elsewhere)
    (studio.data / "saes" / "a").symlink_to(elsewhere)
    await done(studio, "POST", "/api/saes/a/rename", {"name": "new"})
    assert (await studio.get("/api/saes/new"))["sae"] == "new"
    await done(studio, "DELETE", "/api/saes/new")
    await done(studio, "DELETE", "/api/trash")
    assert (elsewhere / "sae_weights.safetensors").exists()


@pytest.mark.parametrize("damaged", [b"", b"\0" * 100, b'{"old": "a"}'])
async def test_a_damaged_moving_json_is_put_aside_and_forbids_nothing(open_studio: OpenStudio, damaged: bytes) -> None:
    studio = await kept(open_studio, "a")
    await studio.server.close()
    (studio.data / "moving.json").write_bytes(damaged)
    studio = await open_studio()
    assert (studio.data / "moving.damaged").read_bytes() == damaged
    assert (await studio.call("POST", "/api/saes/a/rename", json={"name": "new"}))[0] == 200


async def test_a_folder_that_is_gone_is_said_and_nothing_moves(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    shutil.rmtree(studio.data / "saes" / "a")
    for method, path, body in (("DELETE", "", None), ("POST", "/rename", {"name": "new"})):
        status, said = await refused(studio, method, f"/api/saes/a{path}", body)
        assert (status, "the folder of the SAE 'a' is gone" in said) == (409, True)
    assert (studio.data / "features" / "a" / "1").is_dir() and not (studio.data / "moving.json").exists()
    assert (await studio.call("PATCH", "/api/saes/a", json={"note": "x"}))[0] == 404


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_cannot_be_moved_stays_with_all_that_was_moved_before_it(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    before = await known(studio, "a")
    (studio.data / "saes").chmod(0o500)
    try:
        for method, path, body in (("DELETE", "", None), ("POST", "/rename", {"name": "new"})):
            status, said = await refused(studio, method, f"/api/saes/a{path}", body)
            assert (status, said.endswith("(Permission denied): nothing was changed")) == (409, True)
    finally:
        (studio.data / "saes").chmod(0o700)
    assert await known(studio, "a") == before


async def test_when_the_last_folder_cannot_be_moved_those_before_it_are_moved_back(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    before = await known(studio, "a")
    (studio.data / "exports" / "new-zip").symlink_to(studio.data / "nowhere")
    status, said = await refused(studio, "POST", "/api/saes/a/rename", {"name": "new"})
    assert (status, "is in the way" in said) == (409, True)
    (studio.data / "exports" / "new-zip").unlink()
    (studio.data / "trash").write_text("no folder")
    status, said = await refused(studio, "DELETE", "/api/saes/a")
    assert (status, said.endswith("nothing was changed")) == (409, True)
    assert await known(studio, "a") == before


async def test_a_write_that_the_database_refuses_leaves_the_folders_where_they_were(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a")
    before = await known(studio, "a")

    def forbid(db: Any) -> None:
        db.execute("create temp trigger no_more before update of sae on ranges begin select raise(abort, 'no'); end")

    await studio.app[keys.DATABASE].write(forbid)
    for method, path, body in (("DELETE", "", None), ("POST", "/rename", {"name": "new"})):
        assert (await refused(studio, method, f"/api/saes/a{path}", body))[0] == 500
    await studio.app[keys.DATABASE].write(lambda db: db.execute("drop trigger no_more"))
    assert await known(studio, "a") == before
    assert not (studio.data / "moving.json").exists() and (await studio.get("/api/trash"))["trash"] == []
    await done(studio, "POST", "/api/saes/a/rename", {"name": "new"})


async def test_an_sae_that_another_was_trained_on_from_is_said_under_any_name(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    await studio.server.close()
    put_sae(studio.data, "first", job=3)
    put_sae(studio.data, "more", job=4, extends={"sae": "first", "job": 3, "tokens": 5, "steps": 1})
    put_sae(studio.data, "other", job=3)
    studio = await open_studio()
    assert (await studio.get("/api/saes/first/dependents"))["extended_by"] == ["more"]
    await done(studio, "POST", "/api/saes/first/rename", {"name": "renamed"})
    assert (await studio.get("/api/saes/renamed/dependents"))["extended_by"] == ["more"]
    assert (await studio.get("/api/saes/other/dependents"))["extended_by"] == []


# -- all of it together -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_done_labels_tags_and_lists_stay_with_their_sae(open_studio: OpenStudio, seed: int) -> None:
    studio = await kept(open_studio, "s0", "s1", "s2")
    dice, here = random.Random(seed), {name: f"of-{name}" for name in ("s0", "s1", "s2")}  # name → its word
    labels = {word: {0: f"{word} 0", 3: f"{word} 3"} for word in here.values()}
    gone: dict[str, tuple[str, str]] = {}  # id in the trash → name, word
    for step in range(40):
        free = [name for name in (f"s{n}" for n in range(6)) if name not in here]
        act = dice.choice(("rename", "rm", "restore", "label", "restart" if step % 10 == 9 else "label"))
        if act == "rename" and here:
            old, new = dice.choice(sorted(here)), dice.choice(free)
            await done(studio, "POST", f"/api/saes/{old}/rename", {"name": new})
            here[new] = here.pop(old)
        elif act == "rm" and here:
            name = dice.choice(sorted(here))
            before = {one["id"] for one in (await studio.get("/api/trash"))["trash"]}
            await done(studio, "DELETE", f"/api/saes/{name}")
            (new,) = {one["id"] for one in (await studio.get("/api/trash"))["trash"]} - before
            gone[new] = (name, here.pop(name))
        elif act == "restore" and gone:
            id = dice.choice(sorted(gone))
            name = gone[id][0] if gone[id][0] in free and dice.random() < 0.5 else dice.choice(free)
            await done(studio, "POST", f"/api/trash/{id}/restore", {"name": name})
            here[name] = gone.pop(id)[1]
        elif act == "label" and here:
            name, feature = dice.choice(sorted(here)), dice.randrange(5)
            labels[here[name]][feature] = text = f"{here[name]} at {step}"
            await done(studio, "PUT", f"/api/saes/{name}/features/{feature}/label", {"text": text, "explanation": None})
        elif act == "restart":
            await studio.server.close()
            studio = await open_studio()
        found = {one["name"]: one for one in (await studio.get("/api/saes"))["saes"]}
        assert {name: one["tags"] for name, one in found.items()} == {name: [word] for name, word in here.items()}
        for name, word in here.items():
            rows = (await studio.get(f"/api/saes/{name}/features"))["features"]
            assert {row["index"]: row["label"]["text"] for row in rows if row["label"]} == labels[word]
            assert [one["name"] for one in (await studio.get(f"/api/saes/{name}/lists"))["lists"]] == [word]
    await integrity(studio)
    counted = await studio.app[keys.DATABASE].read(
        lambda db: db.execute("select count(*) from labels_text").fetchone()[0]
    )
    assert counted == sum(len(each) for each in labels.values())
