"""docs/security.md: every test that it names is there, and every incident has one."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).parent.parent
PAGE = (REPO / "docs" / "security.md").read_text()
ROWS = {int(number): row for number, row in re.findall(r"^\| (\d+) \|(.*)$", PAGE, re.MULTILINE)}


def named(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"`(tests/test_\w+\.py)(?:::(test_\w+))?`", text))


def test_every_test_that_the_page_names_is_there() -> None:
    for file, name in sorted(named(PAGE)):
        assert (REPO / file).is_file(), file
        assert not name or re.search(rf"def {name}\(", (REPO / file).read_text()), f"{file}::{name}"


def test_every_incident_has_a_test_and_every_test_of_incidents_its_incident() -> None:
    assert sorted(ROWS) == list(range(1, 22))
    assert all(named(row) for row in ROWS.values())
    of_incidents = {f"tests/{path.name}" for path in (REPO / "tests").glob("test_incidents_*.py")}
    assert of_incidents <= {file for file, _ in named(PAGE)}


def test_a_test_of_incidents_says_of_which() -> None:
    for path in (REPO / "tests").glob("test_incidents_*.py"):
        said = path.read_text().partition('"""')[2].partition('"""')[0]
        rows = {int(number) for number in re.findall(r"\d+", said.partition("incident table")[0])}
        assert rows and rows <= set(ROWS), path.name
        for number in rows:
            assert f"tests/{path.name}" in ROWS[number], f"row {number} does not name {path.name}"
