"""Profiles: edits of one model's SAEs under a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact

EDIT = {"feature": 7, "strength": 2, "sae": "ok"}


@pytest.fixture(autouse=True)
def made(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for name, model in (("ok", "tiny"), ("deep", "tiny"), ("far", "other")):
        about = {"width": 12, "model": {"name": model}}
        put_artifact(data, "saes", name, "recipe.json", json.dumps(about))
    put_artifact(data, "saes", "mute", "recipe.json")
    put_artifact(data, "models", "tiny", "model.json")
    return data


async def save(studio: Studio, *edits: dict[str, Any], name: str = "python+2", **fields: Any) -> tuple[int, Any]:
    return await studio.call("POST", "/api/profiles", json={"name": name, "steering": edits or [EDIT], **fields})


async def test_a_profile_is_kept_listed_shown_and_removed(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    status, made = await save(studio, EDIT, {"feature": 1, "op": "ablate", "sae": "deep", "scope": "from:5"}, note="!")
    assert status == 201
    assert (made["model"], made["note"], made["missing"]) == ("tiny", "!", [])
    assert made["steering"][1] == {"feature": 1, "strength": 1, "op": "ablate", "scope": "from:5", "sae": "deep"}
    await studio.server.close()
    studio = await open_studio()
    assert await studio.get("/api/profiles/python+2") == made
    await save(studio, name="A.b_c-d")
    assert [one["name"] for one in (await studio.get("/api/profiles"))["profiles"]] == ["A.b_c-d", "python+2"]
    assert (await studio.call("DELETE", "/api/profiles/python+2"))[0] == 204
    for method in ("GET", "DELETE"):
        status, body = await studio.call(method, "/api/profiles/python+2")
        assert (status, body["error"]["message"]) == (404, "there is no profile 'python+2'")


async def test_a_profile_takes_the_place_of_another_only_when_that_is_asked(studio: Studio) -> None:
    await save(studio)
    other = {**EDIT, "feature": 8}
    status, body = await save(studio, other)
    assert (status, body["error"]["code"]) == (409, "conflict") and "'python+2'" in body["error"]["message"]
    assert (await studio.get("/api/profiles/python+2"))["steering"][0]["feature"] == 7
    assert (await save(studio, other, replace=True))[0] == 201
    assert (await studio.get("/api/profiles/python+2"))["steering"][0]["feature"] == 8


@pytest.mark.parametrize(
    ("edits", "status", "field", "says"),
    [
        ([{"feature": 1}], 400, "steering.0.sae", "edit 0 of the profile has no SAE"),
        (
            [EDIT, {"feature": 1, "sae": "far"}],
            400,
            "steering",
            "the SAE far is of the model other, not of tiny, the one of ok",
        ),
        ([EDIT, {"feature": 12, "sae": "deep"}], 400, "steering.1.feature", "deep has features 0 to 11"),
        ([{"feature": 1, "sae": "mute"}], 400, "steering", "mute does not say of which model it is"),
        ([{"feature": 1, "sae": "none"}], 404, None, "there is no sae 'none'"),
        ([{**EDIT, "op": "push"}], 400, "steering.0.op", "op"),
        ([EDIT] * 101, 400, "steering", "at most 100"),
    ],
)
async def test_what_cannot_be_a_profile_is_refused_in_a_sentence(
    studio: Studio, edits: list[dict[str, Any]], status: int, field: str | None, says: str
) -> None:
    found, body = await save(studio, *edits)
    assert found == status and says in body["error"]["message"], body
    assert list(body["error"].get("fields", [None])) == [field]
    assert (await studio.get("/api/profiles"))["profiles"] == []


async def test_a_name_is_one_that_can_be_part_of_a_models_name(studio: Studio) -> None:
    for name in ("", "+2", "a:b", "a/b", "x" * 65, "é", "a b", ".a"):
        assert (await save(studio, name=name))[0] == 400, name
    assert (await save(studio, name="2"))[0] == 201
    status, body = await studio.call("POST", "/api/profiles", json={"name": "none", "steering": []})
    assert status == 400 and list(body["error"]["fields"]) == ["steering"]


async def test_a_profile_outlives_what_it_names_and_says_what_is_gone(studio: Studio) -> None:
    await save(studio, EDIT, {**EDIT, "sae": "deep"})
    for name in ("ok", "deep"):
        assert (await studio.call("DELETE", f"/api/saes/{name}"))[0] == 204
    assert (await studio.call("DELETE", "/api/models/tiny"))[0] == 204
    assert (await studio.get("/api/profiles/python+2"))["missing"] == ["tiny", "ok", "deep"]
