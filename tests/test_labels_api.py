"""Labels, marks, lists, endpoints and templates over HTTP."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact

from mistudiod import label_statements
from mistudiod.api.keys import DATABASE
from mistudiod.templates import Templates

SAE = "/api/saes/ok"


@pytest.fixture(autouse=True)
def made(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    put_artifact(data, "saes", "ok", "recipe.json", json.dumps({"width": 12}))
    put_artifact(data, "features", "ok/3", "manifest.json", json.dumps({"d_sae": 12}))
    return data


async def put(studio: Studio, feature: int, text: str, **about: Any) -> Any:
    status, body = await studio.call("PUT", f"{SAE}/features/{feature}/label", json={"text": text, **about})
    assert status == 200, body
    return body


async def test_a_person_labels_a_feature_by_name_or_id_of_the_sae(studio: Studio) -> None:
    mine = await put(studio, 7, "imports", explanation="of modules")
    assert (mine["provider"], mine["status"], mine["extraction"], mine["current"]) == ("person", "accepted", "3", True)
    id = (await studio.get(SAE))["id"]
    assert await studio.get(f"/api/saes/{id}/features/7/label") == mine
    assert (await studio.get(f"{SAE}/features/7/labels"))["labels"] == [{**mine, "scores": []}]
    status, body = await studio.call("POST", f"{SAE}/labels/{mine['id']}/reject")
    assert (status, body["status"], body["current"]) == (200, "rejected", False)
    status, body = await studio.call("GET", f"{SAE}/features/7/label")
    assert (status, body["error"]["message"]) == (404, "feature 7 of ok has no label")
    status, body = await studio.call("POST", f"{SAE}/labels/{mine['id']}/accept")
    assert (status, body["current"]) == (200, True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/features/12/label", None, 404, "ok has features 0 to 11"),
        ("PUT", "/features/12/label", {"text": "x"}, 404, "ok has features 0 to 11"),
        ("PATCH", "/features/99/", {"starred": True}, 404, "there is nothing at"),
        ("PATCH", "/features/99", {"starred": True}, 404, "ok has features 0 to 11"),
        ("PUT", "/features/1/label", {"text": " \n"}, 400, "text"),
        ("PUT", "/features/1/label", {"text": "x" * 201}, 400, "text"),
        ("PUT", "/features/1/label", {"text": "x", "explanation": "x" * 2001}, 400, "explanation"),
        ("PUT", "/features/1/label", {"text": "x", "provider": "openai"}, 400, "there is no such field"),
        ("PATCH", "/features/1", {}, 400, "give at least one of starred, note and lists"),
        ("PATCH", "/features/1", {"lists": ["a b"]}, 400, "lists"),
        ("PATCH", "/features/1", {"starred": None}, 400, "starred cannot be null"),
        ("POST", "/labels/99/accept", None, 404, "ok has no label 99"),
        ("POST", "/labels/import", {"labels": [{"feature": 12, "text": "x"}]}, 400, "there is no feature 12"),
        ("POST", "/labels/import", {"labels": [{"feature": 1, "text": ""}]}, 400, "text"),
        ("POST", "/labels/estimate", {"spec": {"kind": "train"}}, 400, "spec"),
    ],
)
async def test_what_cannot_be_is_refused_in_a_sentence(
    studio: Studio, method: str, path: str, body: Any, status: int, says: str
) -> None:
    found, answer = await studio.call(method, SAE + path, json=body)
    assert found == status, answer
    assert says in json.dumps(answer["error"])


async def test_marks_change_one_at_a_time_and_lists_are_counted(studio: Studio) -> None:
    for edit, marks in (
        ({"starred": True}, {"starred": True, "note": None, "lists": []}),
        ({"note": "look\nagain"}, {"starred": True, "note": "look\nagain", "lists": []}),
        ({"lists": ["b", "a", "a"]}, {"starred": True, "note": "look\nagain", "lists": ["a", "b"]}),
        ({"note": None, "starred": False}, {"starred": False, "note": None, "lists": ["a", "b"]}),
    ):
        assert await studio.call("PATCH", f"{SAE}/features/7", json=edit) == (200, marks)
    await studio.call("PATCH", f"{SAE}/features/8", json={"lists": ["a"]})
    assert await studio.get(f"{SAE}/lists") == {"lists": [{"name": "a", "features": 2}, {"name": "b", "features": 1}]}


async def test_labels_that_are_exported_are_taken_in_again_line_by_line(studio: Studio, made: Path) -> None:
    for feature in range(3):
        await put(studio, feature, f"label {feature}", explanation="why \u202e\x07")
    await put(studio, 1, "another")
    status, text = await studio.call("GET", f"{SAE}/labels/export")
    lines = [json.loads(line) for line in text.splitlines()]
    assert (status, len(lines)) == (200, 4)
    assert await studio.call("POST", f"{SAE}/labels/import", json={"labels": lines}) == (
        200,
        {"imported": 0, "known": 4},
    )
    await studio.app[DATABASE].write(lambda db: label_statements.forget(db, "ok"))
    assert await studio.call("POST", f"{SAE}/labels/import", json={"labels": lines}) == (
        200,
        {"imported": 4, "known": 0},
    )
    text = (await studio.call("GET", f"{SAE}/labels/export"))[1]
    kept = [{**json.loads(line), "id": 0} for line in text.splitlines()]
    assert kept == [{**line, "id": 0} for line in lines]
    assert (await studio.get(f"{SAE}/labels/summary"))["providers"] == [
        {"provider": "person", "status": "accepted", "features": 3}
    ]


async def test_an_sae_that_is_removed_takes_its_labels_with_it_and_the_trash_lets_them_go(studio: Studio) -> None:
    async def left() -> int:
        return int(await studio.app[DATABASE].read(lambda db: db.execute("select count(*) from labels").fetchone()[0]))

    await put(studio, 1, "x")
    assert (await studio.call("DELETE", SAE))[0] == 204
    assert await left() == 1, "it can be restored"
    assert (await studio.call("DELETE", "/api/trash"))[0] == 200
    assert await left() == 0


async def test_endpoints_are_listed_with_where_they_are_and_whether_there_is_a_key(open_studio: OpenStudio) -> None:
    studio = await open_studio(endpoints="big=https://192.0.2.1/v1,small=http://127.0.0.1:1/v1,six=http://[::1]:1")
    assert (await studio.call("PUT", "/api/secrets/192.0.2.1", json={"value": "s3cret"}))[0] == 204
    found = (await studio.get("/api/endpoints"))["endpoints"]
    assert found == [
        {"name": "big", "url": "https://192.0.2.1/v1", "on_this_machine": False, "has_secret": True,
         "secret_name": "192.0.2.1"},
        {"name": "six", "url": "http://[::1]:1", "on_this_machine": True, "has_secret": False, "secret_name": None},
        {"name": "small", "url": "http://127.0.0.1:1/v1", "on_this_machine": True, "has_secret": False,
         "secret_name": "127.0.0.1:1"},
    ]  # fmt: skip


async def test_a_template_of_ones_own_is_kept_and_a_built_in_one_stays(studio: Studio, made: Path) -> None:
    text = "--- user\nWhat is {strong}?\n"
    status, mine = await studio.call("PUT", "/api/templates/mine", json={"text": text})
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert (status, mine) == (200, {"name": "mine", "text": text, "sha256": sha256, "built_in": False})
    assert await studio.get("/api/templates/mine") == mine
    assert (made / "templates" / "mine.txt").read_text() == text
    assert {"name": "mine", "sha256": sha256, "built_in": False} in (await studio.get("/api/templates"))["templates"]
    for name, body, expected in (
        ("..", {"text": "x"}, 404),
        ("a%2Fb", {"text": "x"}, 404),
        ("mine", {"text": "\n"}, 400),
        ("mine", {"text": "What is {strong}?"}, 400),
        ("mine", {"text": "--- user\n{stron}"}, 400),
        ("mine", {"text": "é" * 10_001}, 400),
        ("mine", {"text": "x" * 20_001}, 400),
    ):
        assert (await studio.call("PUT", f"/api/templates/{name}", json=body))[0] == expected, name
    status, body = await studio.call("PUT", "/api/templates/mine", json={"text": "--- user\nWhat?"})
    assert body["error"]["message"] == (
        "the template mine cannot be asked with: it shows no evidence: put {strong} or {top_tokens} below --- user"
    )
    status, body = await studio.call("GET", "/api/templates/none")
    assert status == 404 and "there is no template 'none': there are" in body["error"]["message"]
    assert await studio.get("/api/templates/mine") == mine


@pytest.mark.parametrize("end", ["\r\n", "\r"])
async def test_a_template_is_the_same_whatever_ends_its_lines(studio: Studio, made: Path, end: str) -> None:
    text = "--- system\nSay.\n--- user\nWhat is {strong}?\n"
    (made / "templates").mkdir(exist_ok=True)
    (made / "templates" / "by-hand.txt").write_bytes(text.replace("\n", end).encode())
    assert (await studio.get("/api/templates/by-hand"))["text"] == text
    status, mine = await studio.call("PUT", "/api/templates/mine", json={"text": text.replace("\n", end)})
    assert (status, mine["text"]) == (200, text)
    assert (made / "templates" / "mine.txt").read_bytes() == text.encode()
    assert mine["sha256"] == (await studio.get("/api/templates/mine"))["sha256"]


def test_templates_are_files_and_nothing_stands_for_one_that_comes_with_the_studio(tmp_path: Path) -> None:
    built_in, own = tmp_path / "built-in", tmp_path / "own"
    templates = Templates(own, built_in)
    assert templates.all() == []
    for folder in (built_in, own):
        folder.mkdir()
        (folder / "default.txt").write_text(f"of {folder.name}")
    (own / "large.txt").write_text("x" * 20_001)
    (own / "binary.txt").write_bytes(b"\xff\xfe")
    (own / "no name.txt").write_text("x")
    templates.put("mine", "a text")
    assert [(one.name, one.text, one.built_in) for one in templates.all()] == [
        ("default", "of built-in", True),
        ("mine", "a text", False),
    ]
    for name in ("default", "DEFAULT"):
        with pytest.raises(Exception, match="comes with the studio and stays as it is"):
            templates.put(name, "x")
    assert templates.get("default").text == "of built-in"
    assert sorted(path.name for path in own.iterdir() if path.name.startswith(".")) == []
