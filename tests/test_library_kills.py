"""What moves an SAE, killed before every one of its steps: it is whole then, at one place, with all that is its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio
from kept_saes import put_sae, say_all

SCRIPT = Path(__file__).parent / "killed_library.py"
Found = dict[str, Any]


async def killed(open_studio: OpenStudio, what: str) -> list[Found]:
    """What each kill has left, the last one that of none."""
    studio = await open_studio()
    await studio.server.close()
    for name in ("a", "other", "gone"):
        put_sae(studio.data, name, (1, 2))
    studio = await open_studio()
    for name in ("a", "other", "gone"):
        await say_all(studio, name, name)
    assert (await studio.call("DELETE", "/api/saes/gone"))[0] == 204
    await studio.server.close()
    found = await asyncio.to_thread(_killed, studio.data, what)
    assert [one["done"] for one in found] == [False] * (len(found) - 1) + [True]
    return found


def _killed(data: Path, what: str) -> list[Found]:
    command = [sys.executable, str(SCRIPT), str(data), what]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(one: Found, files: int) -> None:
    """Every SAE is whole, here or in the trash, and nothing is left that is none's."""
    assert one["strays"] == [] and not one["moving"] and one["partial"] == []
    everywhere = {**one["here"], **{f"trash of {name}": n for name, n in one["trash"].items()}}
    about = {name: n - files for name, n in everywhere.items()}
    assert set(about.values()) == {0}, one
    assert one["features"] == sorted(f"{name}/{n}" for name in one["here"] for n in (1, 2))
    assert set(one["labels"].values()) == {2} and len(one["labels"]) == len(one["here"]) + bool(one["trash"])
    assert all(said[0] == name for name, said in one["saes"].items())
    assert len({said[3] for said in one["saes"].values()}) == 1, "none has become younger"


@pytest.mark.parametrize(
    ("what", "before", "after"),
    [
        ("rename", ({"a", "other"}, {"gone"}), ({"new", "other"}, {"gone"})),
        ("remove", ({"a", "other"}, {"gone"}), ({"other"}, {"a", "gone"})),
        ("restore", ({"a", "other"}, {"gone"}), ({"a", "other", "back"}, set())),
    ],
)
async def test_wherever_it_is_killed_the_next_start_has_it_at_one_place_and_whole(
    open_studio: OpenStudio, what: str, before: Any, after: Any
) -> None:
    found = await killed(open_studio, what)
    assert len(found) > 15
    files = found[0]["here"]["other"]
    ends = []
    for one in found:
        check(one, files)
        names = (set(one["here"]), set(one["trash"]))
        assert names in (before, after), one
        ends.append(names == after)
        assert one["left"] == []
    assert ends == sorted(ends), "once it has begun it is finished"
    assert not ends[0] and ends[-1]


async def test_tags_are_written_whole_or_not_at_all(open_studio: OpenStudio) -> None:
    found = await killed(open_studio, "tag")
    before, after = ["a"], ["a", "good"]
    for one in found:
        tags, note = one["saes"]["a"][1:3]
        assert (tags, note) in ((before, "a note of a"), (after, "a note")), one
        assert one["partial"] == []
    assert found[0]["saes"]["a"][1] == before and found[-1]["saes"]["a"][1] == after
    ages = {one["saes"]["a"][3] for one in found}
    assert len(ages) <= 2  # between two steps the folder is as old as the change
