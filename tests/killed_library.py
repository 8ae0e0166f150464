"""Kill what moves an SAE before each of its steps on the disk, one after the other, and say what the next start finds.

``python tests/killed_library.py DATA WHAT``: WHAT is rename, remove, restore or tag. A line of JSON for each kill: the
step, what was seen before the start, and what there is after it; the last one is of what came to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from mistudiod import label_statements
from mistudiod.database import Database
from mistudiod.index import Index
from mistudiod.library import Library
from mistudiod.paths import Paths
from mistudiod.trash import Trash, trashed

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate"}


class Opened:
    def __init__(self, data: Path) -> None:
        self.paths = Paths(data)
        self.database = Database(self.paths.database, self.paths.backups)
        self.index = Index(self.database, self.paths)
        self.library = Library(self.database, self.paths, self.index)


async def act(data: Path, what: str, dies_at: int) -> None:
    """Ends the process before the step ``dies_at``, without a word."""
    one = Opened(data)
    await one.database.open()
    steps = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal steps
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event in CHANGES or writes:
            if steps == dies_at:
                os._exit(9)
            steps += 1

    sys.addaudithook(count)
    await ACTS[what](one)
    await one.database.close()


ACTS = {
    "rename": lambda one: one.library.rename("a", "new"),
    "remove": lambda one: one.library.remove("a"),
    "restore": lambda one: one.library.restore("gone", "back"),
    "tag": lambda one: one.library.say("a", ["good"], [], {"note": "a note"}),
}


async def start(data: Path) -> dict[str, Any]:
    """What there is once a studio has started on the folder: all that could be in two places or in none."""
    one = Opened(data)
    await one.database.open()
    seen = [each.name for each in trashed(one.paths)]
    await one.library.mend()
    one.paths.sweep()
    await one.index.rebuild()
    saes = {sae["name"]: sae for sae in await one.index.all("sae")}
    places = list(saes) + [f"trash/{each.id}" for each in trashed(one.paths)]
    labels = await one.database.read(lambda db: {place: label_statements.count(db, place) for place in places})
    strays = await one.database.read(lambda db: sorted(label_statements.names(db, "") - set(places)))
    found = {
        "trash_seen": seen,
        "saes": {
            name: [sae.get("sae"), sae.get("tags"), sae.get("note"), sae["created_at"]] for name, sae in saes.items()
        },
        "features": sorted(each["name"] for each in await one.index.all("features")),
        "labels": {place.partition("/")[0]: n for place, n in labels.items()},
        "strays": strays,
        "trash": {each.name: files(one.paths.trash / each.id) for each in trashed(one.paths)},
        "here": {name: files(data, name) for name in saes},
        "moving": one.paths.moving.exists(),
    }
    await Trash(one.database, one.paths).sweep(_LONG_AGO)
    found["left"] = sorted(path.name for path in one.paths.trash.glob("*")) if not found["trash"] else []
    found["partial"] = [str(path) for path in data.rglob(".partial-*")]
    await one.database.close()
    return found


def files(folder: Path, name: str | None = None) -> int:
    """How many files one has."""
    tops = (
        [folder]
        if name is None
        else [folder / "saes" / name, folder / "features" / name, *folder.glob(f"exports/{name}-*")]
    )
    return sum(path.is_file() and path.name != "trash.json" for top in tops for path in top.rglob("*"))


def forked(function: Any) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> int:
    data, what = Path(sys.argv[1]), sys.argv[2]
    for step in range(1000):
        copy = data.with_name(f"{data.name}-{step}")
        shutil.copytree(data, copy, symlinks=True)
        code = forked(lambda copy=copy, step=step: asyncio.run(act(copy, what, step)))
        assert code in (0, 9), code
        said = forked(lambda copy=copy, step=step, code=code: print(
            json.dumps({"step": step, "done": code == 0, **asyncio.run(start(copy))}), flush=True))  # fmt: skip
        assert said == 0
        shutil.rmtree(copy)
        if code == 0:
            return 0
    raise AssertionError("it has no end")


if __name__ == "__main__":
    from datetime import datetime, timezone

    _LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
    sys.exit(main())
