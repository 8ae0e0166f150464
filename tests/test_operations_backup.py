"""The commands of docs/operations.md about backups are run, as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kept_saes import put_sae
from studio import ROOT, Process, end, started

PAGE = (ROOT / "docs" / "operations.md").read_text()


def blocks(section: str) -> list[str]:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


class Machine:
    """A home of its own, with the programs and a studio that is up unless it has to be down."""

    def __init__(self, home: Path) -> None:
        self.home, self.data = home, home / ".local" / "share" / "mistudio"
        self._studio: Process | None = None
        self._environ = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "MISTUDIO_OFFLINE": "1",
                         "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")])}  # fmt: skip
        (home / "bin").mkdir(parents=True)
        for name, module in (("mistudio", "mistudio.cli"), ("mistudiod", "mistudiod")):
            program = home / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            program.chmod(0o755)

    def up(self) -> None:
        if self._studio is None:
            self._studio, self._environ["MISTUDIO_HOST"] = started(self.data)

    def down(self) -> None:
        if self._studio is not None:
            end(self._studio, signal.SIGTERM)
            self._studio = None

    def run(self, block: str) -> str:
        self.down() if "mistudiod restore" in block else self.up()
        done = subprocess.run(["bash", "-euc", block], env=self._environ, cwd=self.home, capture_output=True, text=True)
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    pair = Machine(tmp_path / "old"), Machine(tmp_path / "new")
    yield pair
    for one in pair:
        one.down()


def test_the_commands_about_backups_do_what_is_said(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    old, new = machines
    put_sae(old.data, "pico")
    (old.home / "backups").mkdir()
    make, look, database = (block.replace("/tmp/look", str(tmp_path / "look")) for block in blocks("Back up"))
    assert "it is whole" in old.run(make)
    assert sorted(path.suffix for path in (old.home / "backups").iterdir()) == [".tar", ".tar"]
    old.run(look)
    assert (tmp_path / "look" / "saes" / "pico" / "recipe.json").is_file()
    nightly = next(path for path in (old.home / "backups").iterdir() if path.name != "with-saes.tar")
    shutil.copy(nightly, old.data / "backups")
    old.down()
    (old.data / "mistudio.db").unlink()
    assert f"the database is that of {old.data / 'backups' / nightly.name}" in old.run(database)
    move, restore = blocks("Move to another machine")
    old.run(move)
    shutil.copy(old.home / "move.tar", new.home)
    assert f"{new.data} has the " in new.run(restore)
    assert "pico" in new.run("mistudio sae list") and (new.data / "saes" / "pico" / "sae_weights.safetensors").is_file()
