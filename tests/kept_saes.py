"""An SAE with all that can hang on one, in a studio; and all that a studio knows of one, to compare."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import steered_runs
from conftest import Studio, put_artifact
from plain_store import feature, write_store

from mistudiod.api import keys

SHA = "ab" * 32


def put_sae(data: Path, name: str, extractions: tuple[int, ...] = (1,), **recipe: Any) -> None:
    """The folders of one, before a studio starts: five features, two exports, a certificate."""
    spec = {"kind": "train", "name": name, "tokenization": "t"}
    about = {"sae": name, "width": 5, "sae_sha256": SHA, "spec": spec, "model": {"name": "m"}, **recipe}
    folder = put_artifact(data, "saes", name, "recipe.json", json.dumps(about))
    (folder / "sae_weights.safetensors").write_bytes(name.encode() * 1000)
    (folder / "certificate.json").write_text(
        json.dumps({"sae": name, "at": "2026-01-01T00:00:00Z", "holds": "declared"})
    )
    for number in extractions:
        features = [feature(2, 1.5)] * 5
        write_store(data / "features" / name / str(number), features, sae=name, sae_sha256=SHA, id=str(number))
    for format in ("saelens", "zip"):
        (data / "exports" / f"{name}-{format}").mkdir(parents=True)
        (data / "exports" / f"{name}-{format}" / "cfg.json").write_text("{}")
    os.utime(folder, ns=(10**18, 10**18))


async def say_all(studio: Studio, name: str, word: str) -> None:
    """Labels, a star, a list, a range, tags, a note, a profile and a run of steering, all with ``word`` in them."""
    url, app = f"/api/saes/{name}", studio.app
    for index in (0, 3):
        await done(studio, "PUT", f"{url}/features/{index}/label", {"text": f"{word} {index}", "explanation": None})
    await done(studio, "PATCH", f"{url}/features/2", {"starred": True, "note": word, "lists": [word]})
    await done(studio, "PATCH", url, {"add_tags": [word], "note": f"a note of {word}"})
    await app[keys.RANGES].keep(name, SHA, [steered_runs.found(4)])
    spec, result = (json.loads(json.dumps(one).replace('"ok"', f'"{name}"')) for one in
                    (steered_runs.spec(word), steered_runs.result()))  # fmt: skip
    await app[keys.STEERINGS].keep(spec, result)
    steering = [{"sae": name, "feature": 1}]
    from mistudiod.specs import Edit

    await app[keys.PROFILES].put(f"{word}-up", "m", [Edit.model_validate(one) for one in steering], None, False)


async def done(studio: Studio, method: str, path: str, body: Any = None) -> Any:
    status, found = await studio.call(method, path, **({} if body is None else {"json": body}))
    assert status < 300, found
    return found


async def known(studio: Studio, name: str) -> dict[str, Any]:
    """All that the API says of an SAE, with its own name in it as SAE; ids and times of the database left out."""
    url = f"/api/saes/{name}"
    labels = (await studio.call("GET", f"{url}/labels/export"))[1]
    found = {
        "sae": await studio.get(url),
        "labels": [json.loads(line) for line in labels.splitlines()],
        "found": (await studio.get(f"{url}/features?q=3"))["features"],
        "features": await studio.get(f"{url}/features"),
        "marks": (await studio.get(f"{url}/features/2"))["marks"],
        "lists": await studio.get(f"{url}/lists"),
        "ranges": await studio.get(f"{url}/ranges"),
        "files": tree(studio.data / "saes" / name),
        "exports": [one for one in (await studio.get("/api/exports"))["exports"] if one["sae"] == name],
    }
    for field in ("id", "earlier", "spec"):
        found["sae"].pop(field, None)
    return dict(json.loads(re.sub(rf'(?<=["/]){name}(?=[/"-])', "SAE", json.dumps(found))))


def tree(folder: Path) -> dict[str, str]:
    """Of every file its sha256, but of those that say the SAE's name."""
    said = ("recipe.json", "certificate.json", "about.json", "manifest.json")
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in said
    }


def rows_named(db: Any, name: str) -> dict[str, int]:
    """How many rows of each table have an SAE's name in their column ``sae``."""
    tables = ("labels", "label_failures", "marks", "listed", "labelled_saes", "ranges", "steerings")
    counts = {
        table: db.execute(f"select count(*) from {table} where sae = ?", (name,)).fetchone()[0] for table in tables
    }
    return {table: count for table, count in counts.items() if count}
