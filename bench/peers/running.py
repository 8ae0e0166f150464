"""Processes of other libraries seen from the benchmark: started, told what to do, and one at a time at work."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIBRARIES = {  # module of bench/peers, environment
    "ours": ("with_mistudio", None),
    "floor": ("floor", None),
    "saelens": ("with_saelens", ".venv-saelens"),
    "dictionary_learning": ("with_dictionary_learning", ".venv-dictionary-learning"),
    "sparsify": ("with_sparsify", ".venv-sparsify"),
}
PACKAGES = {"saelens": "sae-lens", "dictionary_learning": "dictionary-learning", "sparsify": "eai-sparsify"}


class Failed(RuntimeError):
    """A library cannot do what it was told; its own last words."""


def install() -> None:
    """Make the environments that are missing; some minutes the first time."""
    subprocess.run(["bash", str(HERE / "install.sh")], check=True, stdout=sys.stderr)


def python_of(library: str) -> str:
    venv = LIBRARIES[library][1]
    return sys.executable if venv is None else str(ROOT / venv / "bin" / "python")


def versions() -> dict[str, str]:
    """Of every library, and of the torch it runs on."""
    say = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    found = {"ours": f"torch {torch.__version__}"}
    for library, package in PACKAGES.items():
        command = [python_of(library), "-c", say, package, "torch"]
        said = subprocess.run(command, capture_output=True, text=True).stdout.split()
        found[library] = f"{package} {said[0]}, torch {said[1]}" if said else "not installed"
    return found


class Running:
    """One entry, as ``saelens/topk+autocast``, in a process that says when it is ready and then waits to be told."""

    def __init__(self, name: str, setup: dict[str, Any], file: Path, threads: int) -> None:
        library, entry = name.split("/")
        self.name = name
        self._log = file.with_name(f"{name.replace('/', '-')}.log")
        command = [python_of(library), str(HERE / "process.py"), LIBRARIES[library][0], entry]
        command += [json.dumps(setup), str(file), str(threads)]
        environ = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        mine = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        environ["PYTHONPATH"] = mine if python_of(library) == sys.executable else ""
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )

    def tell(self, do: str, **more: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # why is said where the answer is missed
            print(json.dumps({"do": do, **more}), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            words = self._log.read_text().strip().splitlines() or [f"ended with {self._process.wait()}"]
            raise Failed(words[-1][:200])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        self.tell(do, **more)
        return self.answer()

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(names: list[str], setup: dict[str, Any], file: Path, threads: int) -> Iterator[dict[str, Running | str]]:
    """Every entry, or in its place why it does not run."""
    started = {name: Running(name, setup, file, threads) for name in names}
    found: dict[str, Running | str] = {}
    try:
        for name, one in started.items():
            try:
                one.answer()
                found[name] = one
            except Failed as error:
                found[name] = str(error)
        yield found
    finally:
        for one in started.values():
            one.end()


class Ruler:
    """A fixed product, timed before and after whatever is measured: a machine that others use shows in it."""

    SIDE, SECONDS = 1024, 0.1

    def __init__(self) -> None:
        self._matrix = torch.randn(self.SIDE, self.SIDE)
        self._out = torch.empty_like(self._matrix)
        self.seen: list[float] = []
        for _ in range(5):
            self.read()
        self.seen.clear()

    def read(self) -> float:
        """GFLOP/s just now."""
        began, products = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < self.SECONDS or not products:
            torch.mm(self._matrix, self._matrix, out=self._out)
            products += 1
        self.seen.append(2e-9 * self.SIDE**3 * products / took)
        return self.seen[-1]
