"""An SAE's files come back as they lie, whole or from where one was cut off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, put_artifact

from mistudiod.api import files


@pytest.fixture
async def with_sae(open_studio: OpenStudio, tmp_path: Path) -> Studio:
    folder = put_artifact(tmp_path / "data", "saes", "s", "recipe.json")
    (folder / "sae_weights.safetensors").write_bytes(os.urandom(300_000))
    (folder / ".hidden").write_text("x")
    (folder / "link.json").symlink_to("/etc/passwd")
    return await open_studio()


async def test_every_file_is_listed_with_its_hash_and_comes_as_it_lies(with_sae: Studio) -> None:
    page = await with_sae.get("/api/saes/s/files")
    listed = {file["name"]: file for file in page["files"]}
    assert set(listed) == {"recipe.json", "sae_weights.safetensors"}
    for name, file in listed.items():
        async with with_sae.session.get(with_sae.server.make_url(f"/api/saes/s/files/{name}")) as answer:
            data = await answer.read()
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
            assert answer.content_type == "application/octet-stream"
        assert len(data) == file["bytes"] and hashlib.sha256(data).hexdigest() == file["sha256"]


async def test_a_download_that_was_cut_goes_on(with_sae: Studio) -> None:
    url = with_sae.server.make_url("/api/saes/s/files/sae_weights.safetensors")
    whole = (with_sae.data / "saes" / "s" / "sae_weights.safetensors").read_bytes()
    async with with_sae.session.get(url, headers={"Range": "bytes=100000-"}) as answer:
        assert answer.status == 206 and await answer.read() == whole[100_000:]


@pytest.mark.parametrize("place", ["saes/s", "exports/s-saelens"])
@pytest.mark.parametrize("scanned", [True, False])
async def test_what_is_removed_while_its_files_are_listed_is_told_to_have_gone(
    with_sae: Studio, place: str, scanned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, hashed, listed = with_sae.data / place, files._block, os.listdir
    if place != "saes/s":
        put_artifact(with_sae.data, "exports", "s-saelens", "cfg.json")

    def gone(work: Callable[..., Any]) -> Callable[..., Any]:
        def late(path: Path, *more: Any) -> Any:
            if Path(path).is_relative_to(folder) and folder.exists():
                folder.rename(with_sae.data / "gone")
            return work(path, *more)

        return late

    if scanned:
        monkeypatch.setattr(os, "scandir", gone(os.scandir))
        monkeypatch.setattr(os, "listdir", gone(listed))
    else:
        monkeypatch.setattr(files, "_block", gone(hashed))
    status, body = await with_sae.call("GET", f"/api/{place}/files")
    assert status == 404 and "while it was read: ask again" in body["error"]["message"]


@pytest.mark.parametrize("name", ["nothing.json", "..%2f..%2fmistudio.db", ".hidden", "link.json", "%2e%2e"])
async def test_what_is_not_the_saes_own_is_not_given(with_sae: Studio, name: str) -> None:
    assert (await with_sae.call("GET", f"/api/saes/s/files/{name}"))[0] == 404
    assert (await with_sae.call("GET", "/api/saes/none/files"))[0] == 404
