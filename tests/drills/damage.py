"""Files that are damaged while the studio is down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.error import HTTPError

from made_data import STAGES

from tests.drills.arena import Arena, Skipped
from tests.drills.daemon import wait_for
from tests.drills.work import SPECS, Lost


def spoil(arena: Arena, path: Path) -> str:
    """Cut it off, turn some bits over, or empty it, at random; says which."""
    size, way = path.stat().st_size, arena.random.choice(["truncated", "flipped", "emptied", "zeroed"])
    if way == "emptied" or size < 2:
        path.write_bytes(b"")
    elif way == "truncated":
        with path.open("r+b") as file:
            file.truncate(arena.random.randrange(1, size))
    elif way == "zeroed":  # what some file systems leave after a power cut
        path.write_bytes(bytes(size))
    else:
        with path.open("r+b") as file:
            for at in arena.random.sample(range(size), min(8, size)):
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 0xFF]))
    return way


def newest_checkpoint(arena: Arena) -> None:
    """The one before it is taken."""
    found = wait_for(lambda: [run for run in arena.runs("running") if len(steps(run)) >= 2], 30)
    if not found:
        raise Skipped("no training has two checkpoints just now")
    arena.cut()
    for run in found:
        if numbers := steps(run):
            folder = run / "checkpoints" / str(max(numbers))
            spoil(arena, folder / arena.random.choice(["state.safetensors", "manifest.json"]))
    arena.again()


def steps(run: Path) -> list[int]:
    return [int(path.name) for path in run.glob("checkpoints/[0-9]*")]


def run_files(arena: Arena) -> None:
    """What the jobs of long ago have left in their run folders; the database has it all."""
    arena.cut()
    for run in (arena.data / "runs" / str(job) for job in range(1, len(STAGES) + 1)):
        for name in ("spec.json", "job.json", "metrics.jsonl", "log.txt", "given.json"):
            if (run / name).is_file() and arena.random.random() < 0.5:
                spoil(arena, run / name)
    arena.again()


def settings_and_the_like(arena: Arena) -> None:
    """What the studio can do without, or says that it cannot."""
    arena.cut()
    for name in ("abilities.json", "mistudiod.log", "mistudiod.lock", "moving.json"):
        (arena.data / name).write_bytes(arena.random.choice([b"", b"\0" * 100, b'{"half', b"[]", b"\xff\xfe"]))
    arena.again()


def an_sae(arena: Arena) -> None:
    """A copy of the SAE under another name, one of its files spoilt: the studio starts, and who uses it is told."""
    arena.cut()
    name = f"spoilt-{arena.random.randrange(10**6)}"
    folder = arena.data / "saes" / name
    shutil.copytree(arena.data / "saes" / SPECS["text"]["sae"], folder)
    file = arena.random.choice(["cfg.json", "sae_weights.safetensors", "recipe.json"])
    way = spoil(arena, folder / file)
    arena.again()
    listed = {one["name"] for one in arena.daemon.call("/api/saes?limit=1000")["saes"]}
    if name in listed:
        _used(arena, name, f"{file} {way}")
        arena.daemon.call(f"/api/saes/{name}", method="DELETE")
    shutil.rmtree(folder, ignore_errors=True)
    arena.mended()


def _used(arena: Arena, name: str, what: str) -> None:
    try:
        body = {"spec": {**SPECS["text"], "sae": name}, "priority": 100}
        job = arena.daemon.call("/api/jobs", body)["id"]
    except HTTPError as refused:
        with refused:
            said = json.load(refused)["error"]["message"]
    else:
        ended = wait_for(lambda: (found := arena.work.show(job))["state"] in ("done", "failed") and found, 600)
        if not ended:
            raise Lost(f"a text with an SAE whose {what} does not end")
        said = (ended["error"] or {"message": "it can be used all the same"})["message"]
        arena.daemon.call(f"/api/jobs/{job}", method="DELETE")
    if "\n" in said or "Traceback" in said or not said:
        raise Lost(f"of an SAE whose {what} a person is told {said!r}, which is no sentence")
    arena.say(f"{what}: {said}".replace(name, "NAME"))
