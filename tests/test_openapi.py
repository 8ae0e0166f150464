"""Routes, OpenAPI document, client methods and commands are held to each other."""

from __future__ import annotations

import json
import re
from typing import Any

from conftest import Studio
from mistudio.routes import ROUTES as CLIENT_ROUTES
from openapi_spec_validator import validate

from mistudiod.api.openapi import document
from mistudiod.api.table import ROUTES

DOCUMENT = json.loads(json.dumps(document(ROUTES)))
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


async def test_the_document_is_served_and_is_this_one(studio: Studio) -> None:
    assert await studio.get("/api/openapi.json") == DOCUMENT


async def test_every_route_that_is_served_is_in_the_document_and_the_other_way_round(studio: Studio) -> None:
    served = {
        (route.method, route.resource.canonical)
        for route in studio.app.router.routes()
        if route.method != "HEAD"
        and route.resource is not None
        and route.resource.canonical.startswith(("/api/", "/v1/", "/metrics"))
    }
    assert served == set(OPERATIONS)


def test_every_operation_has_a_name_of_its_own_a_sentence_a_scope_and_its_parameters() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    for (_, path), operation in OPERATIONS.items():
        assert operation["summary"].endswith("."), operation["operationId"]
        assert operation["x-scope"] in ("read", "write", "admin") or operation["security"] == []
        in_path = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path))
        for one in operation["parameters"]:
            assert one.get("description"), (operation["operationId"], one["name"])


def test_every_error_that_can_come_has_the_one_shape() -> None:
    for operation in OPERATIONS.values():
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_the_client_has_a_method_for_every_route_and_no_other() -> None:
    from mistudio import Client

    covered: set[tuple[str, str]] = set()
    for name, (method, template) in CLIENT_ROUTES.items():
        assert callable(getattr(Client, name)), name
        nouns = ("model", "dataset", "tokenization", "sae") if "{noun}" in template else ("",)
        covered |= {(method, _plain(template.replace("{noun}", noun))) for noun in nouns}
    # For OpenAI's own clients, and whatever else speaks as they do; for browsers, which have cookies; for Prometheus.
    theirs = ("/v1/", "/api/login", "/api/logout", "/metrics")
    assert covered == {(method, _plain(path)) for method, path in OPERATIONS if not path.startswith(theirs)}


def _plain(path: str) -> str:
    """What a part of the path is called is everybody's own affair."""
    return re.sub(r"\{\w+\}", "{}", path)


async def test_what_is_asked_by_name_answers_with_an_etag_that_saves_the_second_answer(studio: Studio) -> None:
    from conftest import dataset

    job = await studio.submit(dataset("ok"))
    await studio.until(job["id"], "done")
    for path in (f"/api/jobs/{job['id']}", "/api/datasets/ok"):
        async with studio.session.get(studio.server.make_url(path)) as first:
            tag = first.headers["ETag"]
        async with studio.session.get(studio.server.make_url(path), headers={"If-None-Match": tag}) as second:
            assert second.status == 304 and await second.read() == b""
        async with studio.session.get(studio.server.make_url(path), headers={"If-None-Match": '"x"'}) as third:
            assert third.status == 200


async def test_an_edit_of_what_has_changed_meanwhile_is_refused(studio: Studio) -> None:
    from conftest import dataset

    first = await studio.submit(dataset("slow"))
    job = await studio.submit(dataset("ok"), after=[first["id"]])
    url = f"/api/jobs/{job['id']}"
    async with studio.session.get(studio.server.make_url(url)) as answer:
        tag = answer.headers["ETag"]
    changed = await studio.call("PATCH", url, json={"priority": 5}, headers={"If-Match": tag})
    assert changed[0] == 200 and changed[1]["priority"] == 5
    status, body = await studio.call("PATCH", url, json={"priority": 6}, headers={"If-Match": tag})
    assert (status, body["error"]["code"]) == (412, "changed")
    assert (await studio.get(url))["priority"] == 5
    assert (await studio.call("PATCH", url, json={"priority": 6}))[0] == 200, "who does not ask is not held up"
    assert (await studio.call("PATCH", url, json={"priority": 1000}))[0] == 400
    await studio.until(first["id"], "running")
    status, body = await studio.call("PATCH", f"/api/jobs/{first['id']}", json={"priority": 1})
    assert (status, body["error"]["code"]) == (409, "conflict")
    await studio.act(first["id"], "stop")


async def test_the_same_key_and_request_make_one_job(studio: Studio) -> None:
    from conftest import dataset

    async def post(key: str, name: str) -> tuple[int, Any]:
        return await studio.call("POST", "/api/jobs", json={"spec": dataset(name)}, headers={"Idempotency-Key": key})

    status, job = await post("k1", "ok")
    assert status == 201
    await studio.until(job["id"])
    status, again = await post("k1", "ok")
    assert (status, again["id"]) == (200, job["id"])
    assert (await post("k1", "other"))[0] == 409
    assert (await post("", "other"))[0] == 400
    assert (await post("x" * 129, "other"))[0] == 400
    assert (await post("k2", "ok"))[0] == 409, "another key is another job, and the name is taken"


async def test_of_two_at_once_with_the_same_key_one_makes_the_job(studio: Studio) -> None:
    import asyncio

    from conftest import dataset

    answers = await asyncio.gather(
        *(
            studio.call("POST", "/api/jobs", json={"spec": dataset("ok")}, headers={"Idempotency-Key": "k"})
            for _ in range(8)
        )
    )
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert len({job["id"] for _, job in answers}) == 1


async def test_lists_come_in_pages(studio: Studio) -> None:
    from conftest import put_artifact

    from mistudiod.api.keys import INDEX

    for n in range(5):
        put_artifact(studio.data, "saes", f"s{n}", "recipe.json")
    await studio.app[INDEX].rebuild()
    seen, cursor = [], ""
    while True:
        page = await studio.get(f"/api/saes?limit=2{cursor}")
        seen += [one["name"] for one in page["saes"]]
        assert len(page["saes"]) <= 2
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [f"s{n}" for n in range(5)]
    assert (await studio.call("GET", "/api/saes?cursor=x"))[0] == 400
