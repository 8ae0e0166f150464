"""The log as systemd's journal takes it, and as everybody else does."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from mistudiod.journal import Lines


def said(tmp_path: Path, journal: str = "") -> list[str]:
    """The lines of a daemon that warns of something and then tells something. ``journal``: another file than stderr."""
    with open(tmp_path / "stderr", "w+") as stderr:
        found = os.fstat(stderr.fileno())
        stream = journal or f"{found.st_dev}:{found.st_ino}"
        environ = {**os.environ, "MISTUDIO_LISTN": "x", "JOURNAL_STREAM": stream}
        command = [sys.executable, "-m", "mistudiod", "migrate", "--data", str(tmp_path / "data")]
        subprocess.run(command, env=environ, stderr=stderr, check=True, timeout=60)
        stderr.seek(0)
        return stderr.read().splitlines()


def test_in_the_journal_each_line_says_how_grave_it_is(tmp_path: Path) -> None:
    warned, told = said(tmp_path)
    assert warned.startswith("<4>mistudiod: MISTUDIO_LISTN is no setting")
    assert told.startswith("<6>mistudiod: the database in ")


def test_a_file_that_took_the_journals_place_has_words(tmp_path: Path) -> None:
    warned, told = said(tmp_path, "1:2")
    assert warned.startswith("WARNING mistudiod: ") and told.startswith("INFO mistudiod: ")


def test_the_lines_of_a_traceback_are_as_grave_as_what_they_explain() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("mistudiod", logging.ERROR, "", 0, "job %d", (7,), sys.exc_info())
    lines = Lines().format(record).splitlines()
    assert lines[0] == "<3>mistudiod: job 7" and len(lines) > 4
    assert all(line.startswith("<3>") for line in lines)
