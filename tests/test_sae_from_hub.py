"""SAEs of the Hub, through the real client: only what is needed is fetched, whole, once, and gone on with when cut."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, served_hub  # noqa: F401
from repos_of_saes import add, dictionary_learning, gemma_scope, hf_home, refused, sparsify  # noqa: F401
from run_job import folders, run_job, start_job
from tiny_models import tiny_model

from mistudiod import paths
from mistudiod.paths import DiskFull, Paths
from mistudiod.specs import AddSae
from mistudiod.worker import add_sae
from mistudiod.worker.link import EXIT_STOPPED, Link

HOOK = "blocks.1.hook_resid_post"
WIDE = 8192  # a file of 2 MB


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("far")
    tiny_model("llama", folder / "tiny")
    run_job(folder / "data", "add_model", source=str(folder / "tiny"), name="m")
    return folder / "data"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Two SAEs of sparsify's, and weights that nobody needs."""
    for layer in (0, 1):
        sparsify(tmp_path / "repo" / f"layers.{layer}", seed=layer, f=WIDE)
    (tmp_path / "repo" / "config.json").write_text(json.dumps({"model": "org/tiny"}))
    (tmp_path / "repo" / "optimizer.safetensors").write_bytes(b"x" * 3_000_000)
    (tmp_path / "repo" / "README.md").write_text("---\nlicense: mit\n---\n")
    return tmp_path / "repo"


def weights_size(repo: Path) -> int:
    return (repo / "layers.1" / "sae.safetensors").stat().st_size


def test_one_of_a_repository_is_fetched_into_the_machines_cache(
    hub: Hub,
    repo: Path,
    data: Path,
    home: Path,
) -> None:
    sha = hub.add_model("org/saes", repo)
    recipe = add(data, "org/saes:layers.1")
    assert (recipe["model"]["name"], recipe["hook"], recipe["width"]) == ("m", HOOK, WIDE)
    about = {"source": "org/saes", "revision": sha, "path": "layers.1", "licence": "mit", "format": "sparsify"}
    assert recipe["imported"].items() >= about.items()
    there = home / "hub" / "models--org--saes" / "snapshots" / sha
    assert {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()} == {
        "layers.1/cfg.json", "layers.1/sae.safetensors",
    }  # fmt: skip
    assert hub.bytes_served("org/saes") < weights_size(repo) + 300_000
    served = hub.bytes_served("org/saes")
    add(data, "org/saes:layers.1", "again")
    assert hub.bytes_served("org/saes") - served < 300_000, "the weights come once"


def test_what_cannot_be_brought_in_is_refused_before_its_weights_are_fetched(
    hub: Hub, repo: Path, data: Path, tmp_path: Path
) -> None:
    hub.add_model("org/saes", repo)
    assert "org/saes holds 2 SAEs: say which, as org/saes:layers.0; there are layers.0, layers.1" in refused(
        data, "org/saes"
    )
    (repo / "config.json").write_text(json.dumps({"model": "openai-community/gpt2"}))
    hub.add_model("org/saes", repo)
    assert "mistudio model add openai-community/gpt2" in refused(data, "org/saes:layers.1", "model")
    assert "blocks.9.hook_resid_pre does not exist" in refused(
        data, "org/saes:layers.1", "hook", model="m", hook="blocks.9.hook_resid_pre"
    )
    hub.add_model("org/pickled", dictionary_learning(tmp_path / "pickled" / "trainer_0").parent)
    assert "--allow-pickle" in refused(data, "org/pickled", "allow_pickle")
    assert "has no file or folder layers.7" in refused(data, "org/saes:layers.7", model="m")
    assert hub.bytes_served("org/saes") < 1_000_000


def test_a_pickle_of_the_hub_is_converted_when_that_is_allowed(hub: Hub, data: Path, tmp_path: Path) -> None:
    hub.add_model("org/pickled", dictionary_learning(tmp_path / "pickled" / "trainer_0").parent)
    assert add(data, "org/pickled", allow_pickle=True)["imported"]["pickle"]


def test_an_npz_of_the_hub_comes_by_its_name(hub: Hub, data: Path, tmp_path: Path) -> None:
    top = tmp_path / "scope"
    gemma_scope(top / "layer_1/width_16k/average_l0_9")
    gemma_scope(top / "layer_2/width_16k/average_l0_9", seed=1)
    hub.add_model("google/gemma-scope-2b-pt-res", top)
    recipe = add(data, "google/gemma-scope-2b-pt-res:layer_1", model="m")
    assert recipe["hook"] == HOOK and recipe["imported"]["declared"] == {"l0": 9.0}


def test_a_cut_connection_is_gone_on_with(hub: Hub, repo: Path, data: Path) -> None:
    hub.add_model("org/saes", repo)
    for _ in range(2):  # the first is of the header
        hub.cut_after("layers.1/sae.safetensors", 700_000)
    add(data, "org/saes:layers.1", model="m")
    ranges = [one.range for one in hub.seen if one.at_cdn and one.method == "GET"]
    assert "bytes=700000-" in ranges


def test_a_retried_job_goes_on_where_the_last_one_was_cut_off(
    hub: Hub,
    repo: Path,
    data: Path,
    home: Path,
) -> None:
    hub.add_model("org/saes", repo)
    hub.bytes_per_s = 200_000
    worker = start_job(data, "add_sae", source="org/saes:layers.1", name="s")
    until(lambda: come_bytes(home) > 200_000)
    worker.send_signal(signal.SIGKILL)
    worker.wait(20)
    assert worker.stdin
    worker.stdin.close()
    assert folders(data, "saes") == []
    hub.forget()
    add(data, "org/saes:layers.1")
    begun = [int(one.range.removeprefix("bytes=").partition("-")[0]) for one in hub.seen if one.range and one.at_cdn]
    assert max(begun) > 200_000


def test_a_stop_does_not_wait_for_the_download(hub: Hub, repo: Path, data: Path, home: Path) -> None:
    hub.add_model("org/saes", repo)
    hub.bytes_per_s = 20_000
    worker = start_job(data, "add_sae", source="org/saes:layers.1", name="s")
    until(lambda: come_bytes(home) > 0)
    began = time.monotonic()
    assert worker.stdin
    worker.stdin.write(b"stop\n")
    worker.stdin.flush()
    assert worker.wait(60) == EXIT_STOPPED and time.monotonic() - began < 20
    worker.stdin.close()
    assert folders(data, "saes") == []


def test_too_small_a_disk_is_seen_before_the_weights_come(
    hub: Hub, repo: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/saes", repo)
    usage = shutil.disk_usage(repo)._replace(free=paths.FLOOR_BYTES + weights_size(repo) - 1)
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match="the disk is full"):
        add(data, "org/saes:layers.1")
    assert hub.bytes_served("org/saes") < 600_000 and folders(data, "saes") == []


def test_what_came_damaged_is_not_kept(hub: Hub, repo: Path, data: Path) -> None:
    hub.add_model("org/saes", repo)
    file = repo / "layers.1" / "sae.safetensors"
    right = file.read_bytes()
    file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert "came damaged: its hash is not the Hub's" in refused(data, "org/saes:layers.1")
    file.write_bytes(right)
    add(data, "org/saes:layers.1")


def test_without_the_hub_what_the_cache_has_comes_in(
    hub: Hub, repo: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add_model("org/saes", repo)
    add(data, "org/saes:layers.1", model="m")
    shutil.rmtree(data / "saes")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    seen = len(hub.seen)
    recipe = add(data, "org/saes:layers.1", model="m")
    assert (recipe["imported"]["source"], recipe["imported"]["revision"]) == ("org/saes", sha)
    shutil.rmtree(data / "saes")
    assert "is offline and the SAE org/none is not in this machine's" in refused(data, "org/none")
    assert len(hub.seen) == seen


def test_a_revision_is_kept_to(hub: Hub, repo: Path, data: Path) -> None:
    old = hub.add_model("org/saes", repo)
    only = shutil.copytree(repo, repo.with_name("only"), ignore=shutil.ignore_patterns("layers.0"))
    new = hub.add_model("org/saes", Path(only))
    assert add(data, "org/saes", "new")["imported"]["revision"] == new
    assert add(data, "org/saes:layers.0", "old", revision=old)["imported"]["revision"] == old
    shutil.rmtree(data / "saes")
    assert "has no such revision" in refused(data, "org/saes", "revision", revision="none")


def test_repositories_that_are_not_everybodys_are_told_of(hub: Hub, repo: Path, data: Path) -> None:
    assert "there is no public SAE org/none on the Hub" in refused(data, "org/none")
    hub.add_model("org/gated", repo, gated=True)
    assert "is gated: ask for access at" in refused(data, "org/gated:layers.1")
    hub.allow("t" * 20, "org/gated")
    link = Link(data, Paths(data), secrets={"hf": "t" * 20})
    add_sae.run(AddSae(source="org/gated:layers.1", name="s"), link)
    assert folders(data, "saes") == ["s"]


def test_a_log_in_page_of_the_network_is_not_the_hub(hub: Hub, data: Path) -> None:
    hub.is_portal = True
    assert "is not the Hub, perhaps a log-in page" in refused(data, "org/saes")


def test_a_name_that_leads_out_of_its_folder_is_not_taken(hub: Hub, repo: Path, data: Path) -> None:
    sha = hub.add_model("org/saes", repo)
    (served,) = hub.repos
    files = served.commits[sha]
    files["../../out/cfg.json"] = replace(files["layers.1/cfg.json"], path="../../out/cfg.json")
    files["../../out/sae.safetensors"] = replace(files["layers.1/sae.safetensors"], path="../../out/sae.safetensors")
    assert "holds 2 SAEs" in refused(data, "org/saes")


def come_bytes(home: Path) -> int:
    """What has come of the weights that are on their way."""
    for path in home.rglob("blobs/*.incomplete"):
        with contextlib.suppress(FileNotFoundError):  # it is whole by now
            return path.stat().st_size
    return 0


def until(true: Any, limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
