"""Rows 1, 10 and 15 of the incident table: names and paths that lead elsewhere, in every place that the OpenAPI
document has for one.

The studio is full, so that each route finds what it is asked for but for the one part that is wrong; whoever asks is
another user of the machine, who may name no file of it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from conftest import FAKE_WORKER, Studio, dataset, put_artifact
from openapi_bodies import Bodies, Place, with_text
from plain_store import feature, write_store
from yarl import URL

from mistudiod.api.openapi import document
from mistudiod.api.table import ROUTES
from mistudiod.app import make_app
from mistudiod.settings import Settings

one_studio = pytest.mark.asyncio(loop_scope="module")
CANARY = "c4n4ry-of-another-file"
DOCUMENT = json.loads(json.dumps(document(ROUTES)))
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
SOMEBODY_ELSE = {"X-Forwarded-For": "192.0.2.7"}
# As they stand in an address, where what is not encoded would be another route.
IN_ADDRESSES = [
    "..", "%2e%2e", ".%2e", "%2E%2E%2F%2E%2E%2Fsecrets.json", "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd", "..%252f..%252fsecrets.json", "%252e%252e%252fsecrets.json", "..%5c..%5csecrets.json",
    "%5c%5chost%5cshare", "x%00.json", "%00", "%2e", ".hidden", "link", "linked%2fsecret.txt", "up%2fsecrets.json",
    "%c0%ae%c0%ae%c0%af", "%ef%bc%8e%ef%bc%8e%ef%bc%8fsecrets.json", "%e2%80%a5%2fsecrets.json",
    "%e2%88%95etc%e2%88%95passwd", "a" * 300, "%F0%9F%98%80" * 100, "~", "~root", "file:%2f%2f%2fetc%2fpasswd",
    "s%2f..%2f..%2fsecrets.json", "s%2f", "%20s", "s%0a", "s%0d%0aX-Evil:%20y", "CON", "s%3f", "%25s", "..;", "$HOME",
    "$(id)", "%60id%60", "-rf", "s%2e",
]  # fmt: skip
IN_BODIES = [
    "..", "../..", "../../secrets.json", "/etc/passwd", "//etc/passwd", "/proc/self/environ", "s/../../secrets.json",
    "..\\..\\secrets.json", "C:\\Windows\\win.ini", "%2e%2e%2fsecrets.json", "..%252fsecrets.json", "s\0.json", "\0",
    "saes/s/link", "a" * 300, "a/" * 2000, "．．／secrets.json", "‥/secrets.json", "∕etc∕passwd", "file:///etc/passwd",
    "~/.ssh/id_rsa", "upload:../../secrets", "upload:" + "0" * 32, "builtin:../secrets", "s@../1",
    "s:../../secrets.json", "s\n", "s\r\nX-Evil: y", "$(touch owned)", "-rf", ".hidden", "\ud800", " s", "s ",
    "\u202es",
]  # fmt: skip
# Fields that name a thing or a file: nothing of the above may pass. All others are texts of a person or of a model.
NAMES = {
    "name", "sae", "saes", "model", "dataset", "tokenization", "extends", "template", "path", "source", "repo",
    "revision", "endpoint", "sha256", "label_endpoint", "neuronpedia_url", "endpoints",
}  # fmt: skip
# A repository or a branch of the Hub can be called so, whose files are held to their own rules (test_sae_from_hub), and
# of what is built in the workers know the names (test_refused_sources).
PASSED_ON = {"source": ("a" * 300, "saes/s/link", "builtin:../secrets"), "revision": ("a" * 300, "saes/s/link")}
START_A_WORKER = {
    "preview_dataset", "preview_model", "preview_sae", "preview_filters", "preview_tokens", "inspect_text",
}  # fmt: skip
# What of the fields may be called anything: names that only others give a meaning to, or that name nothing here.
MAY = {
    ("create_upload", "name"): "what a person calls it; its folder is called by a number",
    ("submit_job label", "model"): "the endpoint's name of a model",
    ("submit_job score", "model"): "the endpoint's name of a model",
    ("estimate_labels label", "model"): "the endpoint's name of a model",
    ("estimate_labels score", "model"): "the endpoint's name of a model",
    ("import_labels", "model"): "the endpoint's name of a model",
    ("import_labels", "template"): "what a prompt was called elsewhere",
    ("import_labels", "sae"): "what an SAE was called elsewhere",
    ("submit_job push", "path"): "a folder of a repository, which leads out of none (test_push)",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Studio]:
    data = tmp_path_factory.mktemp("paths") / "data"
    (data.parent / "outside").mkdir()
    (data.parent / "outside" / "secret.txt").write_text(CANARY)
    sae = put_artifact(data, "saes", "s", "recipe.json", json.dumps({"width": 3}))
    write_store(data / "features" / "s" / "1", [feature(9, 2.0, examples=[])] * 3, sae="s", id="1")
    export = data / "exports" / "s-zip"
    export.mkdir(parents=True)
    (export / "s.zip").write_bytes(b"PK")
    for folder in (sae, export):
        (folder / "link").symlink_to(data.parent / "outside" / "secret.txt")
        (folder / "linked").symlink_to(data.parent / "outside")
        (folder / "up").symlink_to(data)
    put_artifact(data, "models", "x", "model.json")
    put_artifact(data, "datasets", "x", "dataset.json")
    put_artifact(data, "tokens", "x", "tokenization.json")
    (data / "secrets.json").touch(0o600)
    (data / "secrets.json").write_text(json.dumps({"hf": {"value": CANARY, "set_at": "2026-01-01T00:00:00.000Z"}}))
    server = TestServer(make_app(Settings(data=data, stop_grace_s=0.5, term_grace_s=0.5), FAKE_WORKER))
    await server.start_server()
    async with (
        ClientSession() as own,
        own.post(server.make_url("/api/tokens"), json={"name": "of-somebody-else", "scope": "admin"}) as made,
    ):
        token = (await made.json())["token"]
    async with ClientSession(headers={**SOMEBODY_ELSE, "Authorization": f"Bearer {token}"}) as session:
        studio = Studio(server, session, data)
        job = await studio.submit({**dataset("ok"), "source": "org/name"})
        await studio.until(job["id"])
        yield studio
    await server.close()


def files_elsewhere(data: Path) -> dict[str, bytes]:
    """Whatever lies where no request may write."""
    beside = [path for path in data.parent.iterdir() if path != data]  # within it jobs come and go meanwhile
    outside = [path for top in beside for path in (top, *top.rglob("*")) if path.is_file()]
    secrets = json.loads((data / "secrets.json").read_text())
    return {**{str(path): path.read_bytes() for path in outside}, "secrets": json.dumps(secrets).encode()}


FILLED = {"id": "1", "ref": "s", "index": "1", "row": "0", "name": "s-zip", "file": "recipe.json"}


def addresses(path: str, text: str) -> Iterator[str]:
    """The path with the text in the place of each of its parameters, the others filled with what is there."""
    names = [name for name in FILLED if f"{{{name}}}" in path]
    for wrong in names:
        found = path
        for name in names:
            found = found.replace(f"{{{name}}}", text if name == wrong else FILLED[name])
        yield found


@one_studio
@pytest.mark.parametrize("noun", sorted({path.split("/")[2] for _, path, _ in OPERATIONS if "{" in path}))
async def test_no_part_of_an_address_leads_elsewhere(full: Studio, noun: str) -> None:
    before = files_elsewhere(full.data)
    base, asked = f"http://127.0.0.1:{full.server.port}", 0
    for (method, path, operation), text in itertools.product(OPERATIONS, IN_ADDRESSES):
        if not path.startswith((f"/api/{noun}/", f"/v1/{noun}/")):
            continue
        body = next(iter(operation.get("requestBody", {}).get("content", {})), None)
        options: dict[str, Any] = {"data": b"{}", "headers": {"Content-Type": body}} if body else {}
        needed = "&".join(f"{one['name']}=0" for one in operation["parameters"] if one["in"] == "query")
        for address in addresses(path, text):
            url = URL(f"{base}{address}" + (f"?{needed}" if method == "PUT" and needed else ""), encoded=True)
            async with full.session.request(method, url, allow_redirects=False, **options) as answer:
                said = await answer.text()
                asked += 1
            assert answer.status in (400, 404, 405), (method, address, answer.status, said[:300])
            assert CANARY not in said and "root:" not in said and "X-Evil" not in answer.headers, (method, address)
    assert asked >= len(IN_ADDRESSES)
    assert files_elsewhere(full.data) == before


def test_the_addresses_that_are_not_wrong_find_what_is_there() -> None:
    """Else the test above would show nothing: of the routes that read, these are answered."""
    assert {path for method, path, _ in OPERATIONS if method == "GET" and "{file}" in path} == {
        "/api/saes/{ref}/files/{file}", "/api/exports/{name}/files/{file}",
    }  # fmt: skip


@one_studio
async def test_a_file_that_is_there_is_given_and_a_link_out_is_not(full: Studio) -> None:
    assert (await full.call("GET", "/api/saes/s/files/recipe.json"))[0] == 200
    assert (await full.call("GET", "/api/exports/s-zip/files/s.zip"))[0] == 200
    for path in ("saes/s/files", "exports/s-zip/files"):
        assert not {one["name"] for one in (await full.get(f"/api/{path}"))["files"]} & {"link", "linked", "up"}
        assert (await full.call("GET", f"/api/{path}/link"))[0] == 404


def is_name(place: Place) -> str | None:
    """The field that the place is in, if what stands there names something."""
    field = next(one for one in reversed(place) if isinstance(one, str))
    return field if field in NAMES else None


CASES = [
    (method, path, name, least, places)
    for method, path, operation in OPERATIONS
    for name, least, places in Bodies(DOCUMENT).of(operation)
    if places
]


@one_studio
@pytest.mark.parametrize(("method", "path", "name", "least", "places"), CASES, ids=[case[2] for case in CASES])
async def test_no_text_of_a_body_leads_elsewhere(
    full: Studio, method: str, path: str, name: str, least: Any, places: list[Place]
) -> None:
    before = files_elsewhere(full.data)
    address = next(addresses(path, "s"), path) if "features" not in path else "/api/saes/s/features/1" + path[32:]
    for place, text in itertools.product(places, IN_BODIES):
        field = is_name(place)
        if field is None and IN_BODIES.index(text) % (100 if name in START_A_WORKER else 4):
            continue
        data = json.dumps(with_text(least, place, text)).encode()
        options: dict[str, Any] = {"data": data, "headers": {"Content-Type": "application/json"}}
        async with full.session.request(method, full.server.make_url(address), **options) as answer:
            said = await answer.text()
        assert answer.status < 500, (place, text, said[:300])
        assert CANARY not in said and "root:" not in said and "X-Evil" not in answer.headers, (place, text)
        if field and (name, field) not in MAY and text not in PASSED_ON.get(field, ()):
            assert answer.status in (400, 404), (place, text, answer.status, said[:300])
    if name == "set_secret":
        await full.call("DELETE", "/api/secrets/s")
    assert files_elsewhere(full.data) == before
    assert not Path("owned").exists()
    there = {name for _, folders, files in os.walk(full.data) for name in (*folders, *files)}
    assert there & {"owned", "passwd", "-rf"} == set()


@one_studio
async def test_there_is_no_sae_that_is_built_in(full: Studio) -> None:
    for source in ("builtin:../secrets", "builtin:/etc", "builtin:x:/etc/passwd"):
        spec = {"kind": "add_sae", "source": source, "name": "fresh-2"}
        status, answer = await full.call("POST", "/api/jobs", json={"spec": spec})
        assert (status, set(answer["error"]["fields"])) == (400, {"source"})


def test_the_fields_that_may_be_called_anything_are_still_there() -> None:
    there = {(name, field) for _, _, name, _, places in CASES for field in map(is_name, places) if field}
    assert set(MAY) <= there


@one_studio
async def test_after_all_that_the_studio_is_as_it_was(full: Studio) -> None:
    assert set(os.listdir(full.data / "saes")) - {"fresh"} == {"s"}, "nothing but what was asked for by its name"
    assert json.loads((full.data / "secrets.json").read_text())["hf"]["value"] == CANARY
