"""The page's JavaScript, as TypeScript's compiler reads it: types out of its comments and of the libraries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parent.parent / "web"
TSC = WEB / "node_modules" / "typescript" / "bin" / "tsc"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
@pytest.mark.skipif(not TSC.is_file(), reason="TypeScript is not installed: ./run-tests.sh mends that")
def test_its_types_hold() -> None:
    ran = subprocess.run(["node", str(TSC), "-p", str(WEB / "jsconfig.json")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
