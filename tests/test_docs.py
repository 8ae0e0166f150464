"""What the documents say is what the program does."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from mistudio.cli import main

REPO = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("make_docs", REPO / "scripts" / "docs.py")
assert _SPEC is not None and _SPEC.loader is not None
make_docs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_docs)
PAGES = sorted([*(REPO / "docs").glob("*.md"), REPO / "README.md", REPO / "CHANGELOG.md"])


def test_the_pages_that_are_made_are_as_they_would_be_made_now() -> None:
    for path, text in make_docs.made().items():
        assert path.read_text() == text, f"{path.name} is old: run python scripts/docs.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def commands_in(text: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("mistudio ")]


@pytest.mark.parametrize("words", commands_in((REPO / "README.md").read_text()), ids=" ".join)
def test_every_command_in_the_readme_can_be_said(words: list[str]) -> None:
    """Parsed as it would be, without being run."""
    found = CliRunner().invoke(main, [*words[1:], "--help"])
    assert found.exit_code == 0, found.output


def test_the_python_in_the_readme_calls_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    from mistudio import Client

    source = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL)
    calls = [call for block in source for call in re.findall(r"studio\.(\w+)\((.*)\)$", block, re.MULTILINE)]
    assert calls
    for name, arguments in calls:
        if name == "wait":
            continue
        given = eval(f"(lambda *a, **k: (a, k))({arguments})")
        inspect.signature(getattr(Client, name)).bind(None, *given[0], **given[1])


def test_every_word_of_the_api_is_in_the_list_of_terms() -> None:
    terms = (REPO / "docs" / "terms.md").read_text().lower()
    for noun in ("model", "dataset", "tokenization", "sae", "feature", "job", "activation", "steering", "upload"):
        assert f"**{noun}**" in terms
