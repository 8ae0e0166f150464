"""SAEs renamed where a file cannot be written, as on a full disk: all is as it was, or the next start mends it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio
from kept_saes import done, known, put_sae
from test_library import kept, refused

from mistudiod.api import keys

RENAME = ("POST", "/api/saes/a/rename", {"name": "new"})


def contents(data: Path) -> dict[str, bytes]:
    """Of every file of every SAE."""
    tops = (path for noun in ("saes", "features", "exports") for path in (data / noun).iterdir())
    files = (file for top in tops for file in Path(os.path.realpath(top)).rglob("*") if file.is_file())
    return {str(file): file.read_bytes() for file in files}


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder that nothing can be renamed into from the data folder."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("there is no other disk here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


async def on_another_disk(open_studio: OpenStudio, other_disk: Path) -> Studio:
    """A studio whose SAE ``a`` is a link: it can be renamed, but nothing be written into it."""
    studio = await kept(open_studio, "a")
    shutil.move(studio.data / "saes" / "a", other_disk / "a")
    (studio.data / "saes" / "a").symlink_to(other_disk / "a")
    return studio


async def test_a_rename_that_fails_at_its_end_leaves_every_file_as_it_was(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "new")
    for was, name in (("new", "b"), ("b", "a")):
        await done(studio, "POST", f"/api/saes/{was}/rename", {"name": name})
    before, files = await studio.get("/api/saes/a"), contents(studio.data)
    assert before["earlier"] == ["new", "b"]

    def forbid(db: Any) -> None:
        db.execute("create temp trigger no_more before update of sae on ranges begin select raise(abort, 'no'); end")

    await studio.app[keys.DATABASE].write(forbid)
    assert (await refused(studio, *RENAME))[0] == 500
    assert contents(studio.data) == files and await studio.get("/api/saes/a") == before
    await studio.app[keys.DATABASE].write(lambda db: db.execute("drop trigger no_more"))
    assert (await done(studio, *RENAME))["earlier"] == ["b", "a"]


async def test_an_sae_whose_files_cannot_be_written_keeps_its_name_and_all_it_says(
    open_studio: OpenStudio, other_disk: Path
) -> None:
    studio = await on_another_disk(open_studio, other_disk)
    before, files = await known(studio, "a"), contents(studio.data)
    status, said = await refused(studio, *RENAME)
    assert (status, said.endswith("nothing was changed")) == (409, True)
    assert await known(studio, "a") == before and contents(studio.data) == files
    assert not (studio.data / "moving.json").exists()


async def test_what_can_be_neither_finished_nor_taken_back_is_said_and_the_next_start_finishes_it(
    open_studio: OpenStudio,
) -> None:
    studio = await kept(open_studio, "a", "b")
    before = await known(studio, "a")
    # Where its features are to be written, once its recipe is; and where the recipe is to be written back.
    blocks = [
        studio.data / name for name in ("features/a/.partial-manifest.json-of-1", "saes/.partial-recipe.json-of-a")
    ]
    for block in blocks:
        block.write_text("in the way")
    status, said = await refused(studio, *RENAME)
    assert status == 409 and "could not be taken back: free some space" in said, said
    status, said = await refused(studio, "POST", "/api/saes/b/rename", {"name": "c"})
    assert status == 409 and "half renamed" in said and "free some space" in said
    assert (await studio.get("/api/saes/a"))["name"] == "a"
    await studio.server.close()
    for block in blocks:
        block.unlink(missing_ok=True)
    studio = await open_studio()
    assert await known(studio, "new") == before
    assert not (studio.data / "moving.json").exists()
    await done(studio, "POST", "/api/saes/b/rename", {"name": "c"})


@pytest.mark.parametrize("was_written", [False, True])
async def test_a_studio_that_cannot_finish_a_rename_starts_all_the_same(
    open_studio: OpenStudio, other_disk: Path, was_written: bool
) -> None:
    studio = await on_another_disk(open_studio, other_disk)
    before, files = await known(studio, "a"), contents(studio.data)
    row = (await studio.get("/api/saes/a"))["id"]
    move: dict[str, Any] = {"old": "a", "new": "new", "was": "a", "row": row, "job": None}
    if was_written:  # a recipe that cannot be put back now
        move["said"] = {"sae/recipe.json": "{}"}
    await studio.server.close()
    (studio.data / "moving.json").write_text(json.dumps(move))
    studio = await open_studio()
    assert await known(studio, "a") == before and contents(studio.data) == files
    assert (studio.data / "moving.json").exists() == was_written
    status, said = await refused(studio, *RENAME)
    assert (status, "free some space" in said) == (409, was_written)


async def test_a_certificate_that_is_outdated_stays_so_under_another_name(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    await studio.server.close()
    put_sae(studio.data, "a")
    folder = studio.data / "saes" / "a"
    (folder / "cfg.json").write_text("{}")
    sha256 = {"sae": {"cfg.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}
    for name in ("certificate.json", "evaluation.json"):
        (folder / name).write_text(
            json.dumps({"sae": "a", "at": "2026-01-01T00:00:00Z", "holds": "declared", "verdict": [], "sha256": sha256})
        )
    studio = await open_studio()
    assert (await studio.get("/api/saes/a"))["certificate"]["holds"] == "declared"
    (folder / "cfg.json").write_text("[]")
    assert (await studio.get("/api/saes/a"))["certificate"]["holds"] == "changed"
    await done(studio, *RENAME)
    await done(studio, "DELETE", "/api/saes/new")
    await done(studio, "POST", "/api/trash/new/restore", {"name": "again"})
    found = await studio.get("/api/saes/again")
    assert found["certificate"]["holds"] == "changed"
    assert found["evaluation"]["verdict"] == [
        "its files were changed after it was evaluated: mistudio sae eval again does it anew"
    ]


async def test_what_is_half_in_the_trash_is_not_deleted_with_it(open_studio: OpenStudio) -> None:
    studio = await kept(open_studio, "a", "b")
    await done(studio, "DELETE", "/api/saes/b")
    half = studio.data / "trash" / "0000"
    half.mkdir()
    (studio.data / "features" / "a").rename(half / "features")
    row = (await studio.get("/api/saes/a"))["id"]
    move = {"old": "a", "new": "trash/0000", "was": "a", "row": row, "job": None}
    (studio.data / "moving.json").write_text(json.dumps(move))
    await done(studio, "DELETE", "/api/trash")
    assert [path.name for path in (studio.data / "trash").iterdir()] == ["0000"]
    assert (half / "features" / "1" / "manifest.json").exists()
