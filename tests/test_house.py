"""The rules of the house: who may import whom, how large files and functions are, what every job kind has."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from mistudiod.specs import KINDS, LANES, MAKES, PREVIEWS, USES

REPO = Path(__file__).parent.parent
ENGINE_LIBRARIES = {"torch", "transformers", "safetensors", "numpy", "tokenizers"}
# docs/design.md: left may import right and nothing else of mistudiod.
_TABLE = (REPO / "docs" / "design.md").read_text().partition("```imports\n")[2].partition("```")[0]
MAY = {name: set(others) for name, *others in map(str.split, _TABLE.splitlines())}
SOURCES = sorted([*REPO.glob("mistudiod/**/*.py"), *REPO.glob("client/**/*.py")])


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "mistudiod"}
    return found


def parts(path: Path) -> set[str]:
    """The parts of mistudiod that a file imports: ``mistudiod.engine.sae`` is ``engine``."""
    names = {name.split(".")[1] if "." in name else "" for name in imports(path) if name.split(".")[0] == "mistudiod"}
    return {name if name != "__version__" else "__init__" for name in names} - {""}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_a_file_imports_only_what_its_place_allows(path: Path) -> None:
    relative = path.relative_to(REPO)
    place = "client" if relative.parts[0] == "client" else relative.parts[1].removesuffix(".py")
    if place != "__init__":
        assert parts(path) - {"__init__", place} <= MAY[place]
    outside = {name.split(".")[0] for name in imports(path)}
    if relative.parts[1] not in ("engine", "worker", "demo"):
        assert not outside & {*ENGINE_LIBRARIES, "datasets", "pyarrow"}
    if relative.parts[1] in ("engine", "worker", "demo"):
        assert not outside & {"aiohttp", "sqlite3", "sqlite_utils"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_design_names_every_part_of_the_daemon_and_none_that_is_not_there() -> None:
    section = (REPO / "docs" / "design.md").read_text().partition("## The daemon\n")[2].partition("\n## ")[0]
    daemon = REPO / "mistudiod"
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| ")]
    named = re.findall(r"`([^`]+)`", "".join(rows))
    found = {name: {path.name for path in daemon.glob(name.rstrip("/"))} for name in named}
    assert [name for name in named if not found[name]] == []
    elsewhere = {"worker", "engine", "demo"}  # of which the page says more further down
    parts = {path.name for path in daemon.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - elsewhere - {"__init__.py"} == set().union(*found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_job_has_a_lane_and_a_worker(kind: str) -> None:
    assert LANES[kind] in ("gpu", "io")
    assert kind in USES
    assert set(USES[kind]) <= set(KINDS[kind].model_fields)
    # What a certification makes is called after the SAE.
    assert kind not in MAKES or kind == "certify" or "name" in KINDS[kind].model_fields
    assert (REPO / "mistudiod" / "worker" / f"{kind}.py").is_file()


@pytest.mark.parametrize("kind", PREVIEWS)
def test_every_preview_has_a_worker(kind: str) -> None:
    assert (REPO / "mistudiod" / "worker" / f"{kind}.py").is_file()


@pytest.mark.parametrize("kind", {**KINDS, **PREVIEWS})
def test_every_field_of_every_job_says_what_it_is(kind: str) -> None:
    model = {**KINDS, **PREVIEWS}[kind]
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert name == "kind" or field.description, name


def test_the_version_is_said_once() -> None:
    assert importlib.import_module("mistudiod").__version__ not in (REPO / "pyproject.toml").read_text()
