"""Rows 8, 9, 11, 14, 18, 19 and 20 of the incident table: what may stand nowhere in the product's code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parent.parent
SOURCES = sorted([*REPO.glob("mistudiod/**/*.py"), *REPO.glob("client/**/*.py")])
# A name as it is called, and why it may not be; where it may for all that.
BANNED = {
    "eval": "text is never code", "exec": "text is never code", "compile": "text is never code",
    "os.system": "a shell reads text as a program", "os.popen": "a shell reads text as a program",
    "subprocess.getoutput": "a shell reads text as a program", "asyncio.create_subprocess_shell": "as above",
    "pickle.load": "a pickle is a program", "pickle.loads": "a pickle is a program", "marshal.loads": "as above",
    "pickle.Unpickler": "a pickle is a program", "shelve.open": "a pickle is a program", "joblib.load": "as above",
    "dill.load": "a pickle is a program", "yaml.load": "it makes objects: safe_load", "yaml.unsafe_load": "as above",
    "tempfile.mktemp": "somebody else may be there first",
    "multiprocessing.managers.BaseManager": "it speaks pickle",
}  # fmt: skip
TORCH_LOAD = {"mistudiod/engine/formats/pickles.py"}  # in a process of its own, weights_only, for who says so


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call: ast.Call, name: str) -> object:
    found = next((one.value for one in call.keywords if one.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else None if found is None else ...


def test_nothing_reads_text_or_data_as_a_program() -> None:
    for path in SOURCES:
        at = str(path.relative_to(REPO))
        for name, call in calls(ast.parse(path.read_text())):
            where = f"{at}:{call.lineno}: {name}"
            assert name not in BANNED, f"{where}: {BANNED.get(name)}"
            assert name.rpartition(".")[2] != "extractall", f"{where}: members name where they go"
            assert given(call, "shell") in (None, False), f"{where}: a shell reads text as a program"
            assert given(call, "allow_pickle") in (None, False), f"{where}: a pickle is a program"
            assert given(call, "trust_remote_code") in (None, False), f"{where}: code of a repository"
            assert given(call, "verify") is not False, f"{where}: anybody may answer"
            assert given(call, "follow_symlinks") is not True, f"{where}: links lead out"
            if name in ("torch.load", "numpy.load", "np.load"):
                safe = given(call, "weights_only") is True and at in TORCH_LOAD
                assert safe or given(call, "allow_pickle") is False, f"{where}: a pickle is a program"


def test_what_is_banned_would_be_found() -> None:
    text = "import os\nos.system('x')\nsubprocess.run(a, shell=True)\nnp.load(f, allow_pickle=True)\n"
    found = dict(calls(ast.parse(text)))
    assert "os.system" in found and given(found["subprocess.run"], "shell") is True
    assert given(found["np.load"], "allow_pickle") is True
