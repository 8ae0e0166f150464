"""``python -m tests.drills``, in short: a few faults while real workers work; all kinds by ``./run-tests.sh drill``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drills import TESTS
from tests.drills.arena import Arena
from tests.drills.kinds import KINDS
from tests.drills.other import killed_at, rows
from tests.drills.report import losses

FEW = ("kill-both", "damaged-checkpoint", "copy-while-written", "torn-log")
WORK = ("one", "tokens", "text")


@pytest.mark.timeout(600)
def test_a_few_faults_while_the_studio_works_lose_nothing_and_change_no_bit(tmp_path: Path, made_data: Path) -> None:
    with Arena(tmp_path, made_data, seed=3, own_file_system=False) as arena:
        arena.learn(WORK)
        arena.bout([KINDS[kind] for kind in FEW], WORK)
        assert losses(arena.tallies) == []
        assert {kind for kind, one in arena.tallies.items() if one.survived} >= {"kill-both", "copy-while-written"}


def test_a_migration_that_is_killed_at_any_statement_loses_nothing(tmp_path: Path) -> None:
    old = TESTS / "data" / "v0.1.0" / "data"
    before = rows(old / "mistudio.db")
    for statement in (8, 40, 77):
        data = shutil.copytree(old, tmp_path / str(statement))
        assert killed_at(data, statement) == 9
        assert killed_at(data, 10_000) == 0
        assert set(before) <= set(rows(data / "mistudio.db"))


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_every_kind_of_fault_for_ten_minutes(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.drills", "--minutes", "10", "--seed", "11", "--report", str(report)]
    subprocess.run(command, check=True, cwd=TESTS.parent, env={**os.environ, "OMP_NUM_THREADS": "1"})
    kinds = json.loads(report.read_text())["kinds"]
    assert all(kinds[kind]["tries"] or kinds[kind]["skipped"] for kind in KINDS)
