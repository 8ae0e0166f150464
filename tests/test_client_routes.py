"""The client's table of routes, held to what the studio says of itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mistudio
import pytest
from mistudio import Client
from mistudio.routes import NOUNS, ROUTES, request
from studio import running

_METHODS = (
    *("api.py", "features.py", "keeping.py", "labellings.py", "library.py", "sessions.py", "steerings.py"),
    "routes.py",
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with running(tmp_path_factory.mktemp("studio") / "data") as url, Client(url) as client:
        yield client.openapi()


def bare(path: str) -> str:
    """Without the names of its parts, which are the caller's affair."""
    return re.sub(r"\{\w+\}", "{}", path)


def test_client_and_studio_have_the_same_routes(document: dict[str, Any]) -> None:
    client = {(method, bare(path.replace("{noun}", noun))) for method, path in ROUTES.values() for noun in NOUNS}
    studio = {
        (method.upper(), bare(path))
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/api/") and method in ("get", "post", "put", "patch", "delete")
    }
    for_browsers = {("GET", "/api/login"), ("POST", "/api/login"), ("POST", "/api/logout")}
    assert client == studio - for_browsers and for_browsers < studio


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_is_a_method_that_takes_its_parts(name: str) -> None:
    parameters = inspect.signature(getattr(Client, name)).parameters
    parts = re.findall(r"\{(\w+)\}", ROUTES[name][1])
    assert len(parameters) - 1 >= len(parts)


def test_every_route_is_used_by_the_command_line_or_left_to_programs_on_purpose() -> None:
    sources = (Path(mistudio.__file__).parent).rglob("*.py")
    said = "\n".join(one.read_text() for one in sources if one.name not in _METHODS)
    through = {"artifacts": "every_artifact", "jobs": "every_job"}  # a page at a time
    through |= {name: f'export_lines\\("{name}"' for name in ("export_features", "export_labels")}  # lines as they come
    unused = {name for name in ROUTES if not re.search(rf"\.({name}\(|{through.get(name, name)})", said)}
    assert unused == {
        "system_history", "openapi", "remove_upload", "inspect", "training_spec", "feature_window", "label_prompt",
    }  # fmt: skip


def test_a_part_stays_one_part_of_the_path() -> None:
    assert request("artifact", noun="sae", ref="a/../../b?c#d") == ("GET", "/api/saes/a%2F..%2F..%2Fb%3Fc%23d")


def test_every_page_of_a_list_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistudio.api._PAGE", 2)
    with running(tmp_path / "data") as url, Client(url) as client:
        jobs = [client.add_dataset("/x", f"d{n}", remote=True)["id"] for n in range(5)]
        for job in jobs:
            client.wait(job, 60)
        assert [job["id"] for job in client.every_job()] == jobs[::-1]
        assert [job["id"] for job in client.every_job("done")] == jobs[::-1]
        assert sorted(one["name"] for one in client.every_artifact("dataset")) == [f"d{n}" for n in range(5)]
