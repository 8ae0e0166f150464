"""The tests' own Hub is enough of a Hub for the real clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub import Hub, served_hub  # noqa: F401
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

BIG = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def repo(hub: Hub, tmp_path: Path) -> Path:
    """The folder of org/model."""
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    (folder / "sub" / "notes.txt").write_text("notes")
    (folder / "model.safetensors").write_bytes(BIG)
    hub.add_model("org/model", folder)
    return folder


def fetch(hub: Hub, cache: Path, path: str, **options: object) -> Path:
    return Path(hf_hub_download("org/model", path, endpoint=hub.url, cache_dir=cache, **({"token": False} | options)))


def test_a_repository_is_described(hub: Hub, repo: Path) -> None:
    info = HfApi(endpoint=hub.url, token=False).model_info("org/model", files_metadata=True)
    assert (info.id, info.gated, info.card_data.license) == ("org/model", False, "mit")
    sizes = {one.rfilename: (one.size, one.lfs is not None) for one in info.siblings}
    assert sizes["model.safetensors"] == (len(BIG), True)
    assert sizes["sub/notes.txt"] == (5, False)


def test_a_tree_comes_in_pages(hub: Hub, repo: Path) -> None:
    hub.page_size = 2
    api = HfApi(endpoint=hub.url, token=False)
    assert [one.path for one in api.list_repo_tree("org/model")] == [
        "README.md", "config.json", "model.safetensors", "sub",
    ]  # fmt: skip
    assert len(list(api.list_repo_tree("org/model", recursive=True))) == 5
    assert len([one for one in hub.seen if "/tree/" in one.path]) == 2 + 3
    assert [one.path for one in api.get_paths_info("org/model", ["sub", "config.json"])] == ["sub", "config.json"]


def test_a_snapshot_is_the_repository(hub: Hub, repo: Path, tmp_path: Path) -> None:
    folder = Path(snapshot_download("org/model", endpoint=hub.url, cache_dir=tmp_path / "cache", token=False))
    assert {p.name: p.read_bytes() for p in folder.rglob("*.*")} == {p.name: p.read_bytes() for p in repo.rglob("*.*")}
    assert hub.bytes_served("org/model") == sum(p.stat().st_size for p in repo.rglob("*.*"))


def test_a_large_file_comes_from_another_origin_without_the_token(hub: Hub, repo: Path, tmp_path: Path) -> None:
    hub.allow("hf_known")
    data = get_hf_file_metadata(hf_hub_url("org/model", "model.safetensors", endpoint=hub.url), token="hf_known")
    assert data.location.startswith(hub.cdn_url) and data.size == len(BIG) and len(data.etag) == 64
    fetch(hub, tmp_path, "model.safetensors", token="hf_known")
    assert {(one.at_cdn, one.authorization) for one in hub.seen} == {(False, "Bearer hf_known"), (True, None)}


def test_a_cut_connection_is_gone_on_with_by_a_range(
    hub: Hub, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # it loses what of a chunk has come
    hub.cut_after("model.safetensors", 300_000)
    assert fetch(hub, tmp_path, "model.safetensors").read_bytes() == BIG
    ranges = [one.range for one in hub.seen if one.at_cdn]
    assert len(ranges) == 2 and ranges[0] is None and ranges[1].startswith("bytes=")
    assert hub.bytes_served("org/model") < 1.6 * len(BIG)


def test_a_rate_limit_is_told(hub: Hub, repo: Path) -> None:
    hub.refuse(1, "/api/.*")
    api = HfApi(endpoint=hub.url, token=False)
    with pytest.raises(HfHubHTTPError) as caught:
        api.model_info("org/model")
    assert caught.value.response.status_code == 429 and caught.value.response.headers["Retry-After"] == "1"
    assert api.model_info("org/model").id == "org/model"


def test_who_may_not_read_is_told_why(hub: Hub, repo: Path, tmp_path: Path) -> None:
    hub.add_model("org/model", repo, gated=True)
    hub.allow("hf_stranger")
    hub.allow("hf_member", "org/model")
    for token, status in ((False, 401), ("hf_stranger", 403)):
        with pytest.raises(GatedRepoError) as caught:
            fetch(hub, tmp_path, "config.json", token=token)
        assert caught.value.response.status_code == status
    assert fetch(hub, tmp_path, "config.json", token="hf_member").read_text() == '{"a": 1}'
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_wrong").model_info("org/model")


def test_what_is_not_there_is_said_not_to_be(hub: Hub, repo: Path, tmp_path: Path) -> None:
    hub.add_model("org/private", repo, private=True)
    hub.allow("hf_member", "org/private")
    for token in (False, "hf_member"):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.url, token=token).model_info("org/none")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).model_info("org/private")
    assert HfApi(endpoint=hub.url, token="hf_member").model_info("org/private").private
    with pytest.raises(RevisionNotFoundError):
        fetch(hub, tmp_path, "config.json", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        fetch(hub, tmp_path, "none.json")


def test_an_older_commit_stays_to_be_had(hub: Hub, repo: Path, tmp_path: Path) -> None:
    old = HfApi(endpoint=hub.url, token=False).model_info("org/model").sha
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "config.json").write_text("{}")
    hub.tag("org/model", "v2", hub.add_model("org/model", newer))
    assert fetch(hub, tmp_path, "config.json").read_text() == "{}"
    assert fetch(hub, tmp_path, "config.json", revision="v2").read_text() == "{}"
    assert fetch(hub, tmp_path, "config.json", revision=old).read_text() == '{"a": 1}'


def test_datasets_streams_from_it(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(1000)))
    hub.add_dataset("org/lines", folder)
    code = (
        "from datasets import load_dataset\n"
        "print([row['text'] for row in load_dataset('org/lines', split='train', streaming=True).skip(2).take(2)])"
    )
    environ = os.environ | hub.environ(tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout == "['line 2', 'line 3']\n", done.stderr
    assert hub.bytes_served("org/lines") > 0
