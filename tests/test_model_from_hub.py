"""A model of the Hub: fetched once into this machine's Hugging Face cache and pinned to a commit, or refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, own_home, served_hub  # noqa: F401
from huggingface_hub import scan_cache_dir, snapshot_download
from pydantic import ValidationError
from run_job import events, folders, run_job
from tiny_models import configure, tiny_model

from mistudiod import paths
from mistudiod.facts import read_facts
from mistudiod.hub_cache import cached_models, weight_names
from mistudiod.paths import DiskFull, Paths
from mistudiod.specs import AddModel, is_hub_id
from mistudiod.worker import add_model
from mistudiod.worker.link import DAEMON_PID, EVENTS_FD, EXIT_STOPPED, SECRETS_FD, Link, Refused

NEEDED = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
NEEDED |= {"tokenizer_config.json"}
CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def repo(tiny: Path, tmp_path: Path) -> Path:
    """A folder of its own for a test that changes what is in the repository."""
    return Path(shutil.copytree(tiny, tmp_path / "repo"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def add(data: Path, source: str = "org/tiny", name: str = "m", **fields: Any) -> dict[str, Any]:
    """The job's result, which is what model.json says, but for long lists."""
    found = run_job(data, "add_model", source=source, name=name, **fields)
    assert json.loads((data / "models" / name / "model.json").read_text()).items() >= found.items()
    return found


def refused(data: Path, source: str = "org/tiny", token: str | None = None, **fields: Any) -> str:
    """The sentence; nothing of the model is left in the studio's folders."""
    link = Link(data, Paths(data), secrets={"hf": token} if token else None)
    with pytest.raises(Refused) as caught:
        add_model.run(AddModel(source=source, name="m", **fields), link)
    assert folders(data, "models") == []
    assert caught.value.field == ("revision" if "revision" in str(caught.value) and fields else "source")
    return str(caught.value)


def blobs(home: Path) -> list[Path]:
    return [path for path in home.rglob("blobs/*") if path.is_file()]


def come_bytes(home: Path) -> int:
    """What has come of the file that is on its way."""
    for path in home.rglob("blobs/*.incomplete"):
        with contextlib.suppress(FileNotFoundError):  # it is whole by now
            return path.stat().st_size
    return 0


class Worker:
    """A worker process at adding org/tiny, tied to this process as to a daemon."""

    def __init__(self, data: Path, token: str | None = None) -> None:
        self.run = data / "runs" / "1"
        self.run.mkdir(parents=True, exist_ok=True)
        spec = {"kind": "add_model", "source": "org/tiny", "name": "m"}
        (self.run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
        self._said, said = os.pipe()
        given, give = os.pipe()
        os.write(give, json.dumps({"hf": token} if token else {}).encode())
        os.close(give)
        environ = os.environ | {EVENTS_FD: str(said), SECRETS_FD: str(given), DAEMON_PID: str(os.getpid())}
        with (self.run / "log.txt").open("wb") as log:
            command = [sys.executable, "-m", "mistudiod.worker", str(self.run)]
            options: Any = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "pass_fds": (said, given)}
            self.process = subprocess.Popen(command, env=environ, **options)
        os.close(said)
        os.close(given)

    def stop(self) -> float:
        """Ask it to stop; the seconds until it was gone."""
        began = time.monotonic()
        self.process.stdin.write(b"stop\n")
        self.process.stdin.flush()
        assert self.process.wait(60) == EXIT_STOPPED
        return time.monotonic() - began

    def end(self) -> tuple[int, str]:
        """Its exit status and all that it said, in events and in its log."""
        with os.fdopen(self._said, "rb") as pipe:
            said = pipe.read().decode()
        status = self.process.wait(60)
        self.process.stdin.close()
        return status, said + (self.run / "log.txt").read_text()


def until(true: Any, limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# What is fetched, and where it lies


def test_a_model_of_the_hub_lies_in_the_machines_cache(
    hub: Hub, tiny: Path, home: Path, data: Path, tmp_path: Path
) -> None:
    sha = hub.add_model("org/tiny", tiny)
    found = add(data)
    folder = home / "hub" / "models--org--tiny" / "snapshots" / sha
    facts = read_facts(tiny)
    assert {name: found[name] for name in ("source", "revision", "path", "licence", "size_bytes", "parameters")} == {
        "source": "org/tiny",
        "revision": sha,
        "path": str(folder),
        "licence": "apache-2.0",
        "size_bytes": facts.size_bytes,
        "parameters": facts.parameters,
    }
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in tiny.iterdir()}
    assert [p.name for p in (data / "models" / "m").iterdir()] == ["model.json"]


def test_the_cache_is_one_that_other_programs_use(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    sha = hub.add_model("org/tiny", tiny)
    found = add(data)
    report = scan_cache_dir(home / "hub")
    assert not report.warnings
    (cached,) = report.repos
    (revision,) = cached.revisions
    assert (cached.repo_id, revision.commit_hash, revision.refs) == ("org/tiny", sha, {"main"})
    served = hub.bytes_served("org/tiny")
    again = snapshot_download("org/tiny", endpoint=hub.url, cache_dir=home / "hub", token=False)
    assert (again, hub.bytes_served("org/tiny")) == (found["path"], served)


def test_only_what_a_model_needs_is_fetched(hub: Hub, repo: Path, data: Path) -> None:
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model.fp16.safetensors", "tf_model.h5", "code.py"):
        (repo / name).write_bytes(b"x" * 50_000)
    (repo / "onnx").mkdir()
    (repo / "onnx" / "model.safetensors").write_bytes(b"x" * 50_000)
    hub.add_model("org/tiny", repo)
    found = add(data)
    assert {path.name for path in Path(found["path"]).iterdir()} == NEEDED
    assert hub.bytes_served("org/tiny") == sum((repo / name).stat().st_size for name in NEEDED)


def test_the_shards_of_a_model_are_fetched(hub: Hub, tmp_path: Path, data: Path) -> None:
    from transformers import LlamaForCausalLM

    folder = tiny_model("llama", tmp_path / "sharded")
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    hub.add_model("org/tiny", folder)
    found = add(data)
    names = weight_names(path.name for path in Path(found["path"]).iterdir())
    assert len(names) > 1 and found["size_bytes"] == read_facts(folder).size_bytes


def test_a_second_name_for_a_model_costs_no_bytes(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    first = add(data)
    served, there = hub.bytes_served("org/tiny"), sorted(blobs(home))
    assert add(data, name="second")["path"] == first["path"]
    assert (hub.bytes_served("org/tiny"), sorted(blobs(home))) == (served, there)


def test_what_another_program_has_fetched_is_used(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    folder = snapshot_download("org/tiny", endpoint=hub.url, cache_dir=home / "hub", token=False)
    served = hub.bytes_served("org/tiny")
    assert add(data)["path"] == folder
    assert hub.bytes_served("org/tiny") == served


def test_a_cache_that_can_only_be_read_is_enough_for_what_is_in_it(
    hub: Hub, tiny: Path, home: Path, data: Path, tmp_path: Path
) -> None:
    sha = hub.add_model("org/tiny", tiny)
    add(tmp_path / "other")
    refs = home / "hub" / "models--org--tiny" / "refs"
    shutil.rmtree(refs)
    refs.write_text("no folder")  # root, as whom tests may run, can write in any folder
    assert add(data)["revision"] == sha


def test_two_jobs_for_one_model_fetch_it_once(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.bytes_per_s = 500_000

    def add_quietly(name: str) -> None:
        add_model.run(AddModel(source="org/tiny", name=name), Link(data, Paths(data)))

    jobs = [threading.Thread(target=add_quietly, args=(name,)) for name in ("a", "b")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert folders(data, "models") == ["a", "b"]
    assert hub.bytes_served("org/tiny") == sum(path.stat().st_size for path in tiny.iterdir())


# The revision


def test_a_branch_is_pinned_to_the_commit_at_which_it_was(hub: Hub, repo: Path, home: Path, data: Path) -> None:
    old = hub.add_model("org/tiny", repo)
    first = add(data)
    (repo / "README.md").write_text("---\nlicense: mit\n---\n")
    new = hub.add_model("org/tiny", repo)
    served = hub.bytes_served("org/tiny")
    second = add(data, name="second")
    assert (first["revision"], second["revision"]) == (old, new)
    assert (first["licence"], second["licence"]) == ("apache-2.0", "mit")
    assert hub.bytes_served("org/tiny") - served == (repo / "README.md").stat().st_size
    assert json.loads((data / "models" / "m" / "model.json").read_text()).items() >= first.items()


def test_a_tag_or_a_commit_can_be_named(hub: Hub, tiny: Path, repo: Path, data: Path) -> None:
    old = hub.add_model("org/tiny", tiny)
    hub.tag("org/tiny", "refs/pr/1", old)
    (repo / "README.md").unlink()
    hub.add_model("org/tiny", repo)
    assert add(data, name="a", revision="refs/pr/1")["revision"] == old
    asked = len(hub.seen)
    assert add(data, name="b", revision=old)["revision"] == old
    assert len(hub.seen) == asked  # a commit that is here is never asked for


def test_an_unknown_revision_is_refused(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    assert refused(data, revision="v9") == (
        f"org/tiny has no such revision: its commits, branches and tags are at {hub.url}/org/tiny/tree/main"
    )


@pytest.mark.parametrize("revision", ["../../x", "/x", "a//b", "", "x y", "a/../b"])
def test_a_revision_that_could_be_a_path_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError, match="must be the name of a branch or tag"):
        AddModel(source="org/tiny", name="m", revision=revision)


@pytest.mark.parametrize("source", ["builtin:pico", "/models/tiny", "upload:0123"])
def test_a_revision_of_what_is_not_of_the_hub_is_refused(source: str) -> None:
    with pytest.raises(ValidationError, match="is for a model of the Hub: leave it out"):
        AddModel(source=source, name="m", revision="main")


@pytest.mark.parametrize("source", ["gpt2", "org/name", "openai-community/gpt2", "a_b/C.d-1", "_x/y"])
def test_an_id_of_the_hub_is_known_by_its_form(source: str) -> None:
    assert is_hub_id(source)


@pytest.mark.parametrize(
    "source", ["/gpt2", "./gpt2", "../gpt2", "~/gpt2", "a/b/c", "builtin:pico", "upload:0", "org/", "", ".", "a b", "é"]
)
def test_what_else_a_source_can_be_is_no_id(source: str) -> None:
    assert not is_hub_id(source)


# What may go wrong on the way


def test_a_cut_connection_is_gone_on_with(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.cut_after("model.safetensors", 70_000)
    hub.cut_after("tokenizer.json", 1000)
    add(data)
    assert [one.range for one in hub.seen if one.at_cdn and one.method == "GET"] == [None, "bytes=70000-"]
    assert hub.bytes_served("org/tiny") == sum(p.stat().st_size for p in tiny.iterdir())


def test_a_hub_that_knows_no_ranges_sends_it_again(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.knows_ranges = False
    hub.cut_after("model.safetensors", 70_000)
    assert read_facts(Path(add(data)["path"])) == read_facts(tiny)


def test_a_retried_job_goes_on_where_the_last_one_was_cut_off(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.bytes_per_s = 100_000
    worker = Worker(data)
    until(lambda: come_bytes(home) > 65_536)
    worker.process.send_signal(signal.SIGKILL)
    worker.end()
    assert folders(data, "models") == []
    hub.forget()
    add(data)
    (asked,) = [one.range for one in hub.seen if one.at_cdn and one.method == "GET"]
    assert asked is not None and int(asked.removeprefix("bytes=").removesuffix("-")) > 65_536
    assert not [path for path in blobs(home) if path.suffix == ".incomplete"]


def test_a_connection_that_only_breaks_is_given_up(
    hub: Hub, tiny: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/tiny", tiny)
    hub.cut_after("model.safetensors", 0, times=4)
    said = refused(data)
    assert said.startswith(f"the Hub at {hub.url} cannot be reached (") and said.endswith(
        "what has come so far is kept"
    )


def test_what_came_damaged_is_not_kept(hub: Hub, repo: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", repo)
    weights = repo / "model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert refused(data) == "model.safetensors of org/tiny came damaged: its hash is not the Hub's; retry the job"
    weights.write_bytes(right)
    assert read_facts(Path(add(data)["path"]))


def test_what_an_older_download_left_is_not_trusted(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    first = add(data)
    (blob,) = {path.resolve() for path in Path(first["path"]).glob("*.safetensors")}
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    blob.with_name(f"{blob.name}.incomplete").write_bytes(b"not the beginning of it")
    (Path(first["path"]) / "model.safetensors").unlink()
    add(data, name="second")
    assert blob.read_bytes() == (tiny / "model.safetensors").read_bytes()


def test_progress_is_told_in_bytes(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.bytes_per_s = 300_000
    total = sum(path.stat().st_size for path in tiny.iterdir())
    told = [one for one in events(data, "add_model", source="org/tiny", name="m") if one.get("stage") == "download"]
    assert {(one["total"], one["unit"]) for one in told} == {(total, "bytes")}
    assert told[-1]["done"] == total and [one["done"] for one in told] == sorted(one["done"] for one in told)
    assert any(one.get("eta_s") for one in told)


def test_a_stop_is_answered_within_a_second(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.bytes_per_s = 20_000
    worker = Worker(data)
    until(lambda: come_bytes(home))
    assert worker.stop() < 1
    worker.end()
    assert folders(data, "models") == []


def test_a_stop_is_answered_while_the_hub_keeps_silent(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.hangs = True
    worker = Worker(data)
    until(lambda: hub.seen)
    assert worker.stop() < 1
    worker.end()
    assert folders(data, "models") == []


def test_too_small_a_disk_is_seen_before_the_first_byte(
    hub: Hub, tiny: Path, home: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/tiny", tiny)
    total = sum(path.stat().st_size for path in tiny.iterdir())
    usage = shutil.disk_usage(tiny)._replace(free=total + paths.FLOOR_BYTES - 1)
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match=rf"^the disk is full: {total / 1e6:.1f} MB .* under {home / 'hub'}"):
        add(data)
    assert hub.bytes_served("org/tiny") == 0 and folders(data, "models") == []
    usage = usage._replace(free=total + paths.FLOOR_BYTES)
    add(data)


def test_weights_that_another_revision_has_take_no_further_space(
    hub: Hub, repo: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/tiny", repo)
    add(data)
    (repo / "README.md").write_text("short")
    hub.add_model("org/tiny", repo)
    usage = shutil.disk_usage(repo)._replace(free=paths.FLOOR_BYTES + 10_000)
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: usage)
    assert add(data, name="second")["licence"] is None


def test_a_cache_that_cannot_be_written_is_named(
    hub: Hub, tiny: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/tiny", tiny)
    monkeypatch.setenv("HF_HOME", "/proc/self/none")
    assert refused(data) == (
        "the Hugging Face cache /proc/self/none/hub cannot be written (No such file or directory): set HF_HOME to a "
        "folder that can be, where the daemon is started"
    )


def test_a_rate_limit_is_waited_for(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.refuse(2, "/api/.*")
    hub.refuse(1, ".*/model.safetensors", status=503, retry_after="")
    began = time.monotonic()
    add(data)
    assert 2 <= time.monotonic() - began < 15


def test_a_long_rate_limit_is_told(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.refuse(1, retry_after="3600")
    assert refused(data) == (
        "the Hub takes no more requests from here for 3600 s: retry the job after that, or store a token (mistudio "
        "secret set hf), which may ask more often"
    )


def test_a_hub_out_of_order_is_told(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.refuse(4, status=500)
    assert refused(data) == (
        "the Hub answers with the error 500: retry the job in some minutes; what has come so far is kept"
    )


def test_an_answer_of_no_use_is_told(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    hub.refuse(1, "/api/.*", status=418)
    assert refused(data) == f"the Hub answers the request for {hub.url}/org/tiny with the error 418"


def test_a_hash_that_is_a_path_is_refused(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    sha = hub.add_model("org/tiny", tiny)
    (repo,) = hub.repos
    weights = repo.commits[sha]["model.safetensors"]
    repo.commits[sha]["model.safetensors"] = replace(weights, sha256="../../../../outside")
    assert refused(data).startswith(f"what answers at {hub.url} is not the Hub")
    assert not home.exists()


def test_a_log_in_page_of_the_network_is_not_the_hub(hub: Hub, data: Path) -> None:
    hub.is_portal = True
    assert refused(data) == (
        f"what answers at {hub.url} is not the Hub, perhaps a log-in page of this network: open it in a browser, then "
        "retry"
    )


# Who may read


def test_an_unknown_model_is_refused(hub: Hub, data: Path) -> None:
    assert refused(data, "org/none") == (
        f"there is no public model org/none on the Hub: check its spelling, {hub.url}/org/none would be its page; if "
        "it is private, store a token that may read it with mistudio secret set hf; a folder of the studio's machine "
        "is named by its absolute path"
    )
    hub.allow("hf_stranger")
    assert refused(data, "org/none", "hf_stranger") == (
        f"there is no model org/none on the Hub that the stored token may read: check its spelling, {hub.url}/org/none "
        "would be its page; a folder of the studio's machine is named by its absolute path"
    )


def test_a_private_model_is_read_with_the_stored_token(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny, private=True)
    hub.allow("hf_member", "org/tiny")
    assert "there is no public model org/tiny" in refused(data)
    add_model.run(AddModel(source="org/tiny", name="m"), Link(data, Paths(data), secrets={"hf": "hf_member"}))
    assert folders(data, "models") == ["m"]


def test_a_gated_model_names_the_page_where_access_is_asked_for(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny, gated=True)
    hub.allow("hf_stranger")
    assert refused(data) == (
        f"org/tiny is gated: ask for access at {hub.url}/org/tiny, make a token of that account at "
        f"{hub.url}/settings/tokens and store it with mistudio secret set hf"
    )
    assert refused(data, token="hf_stranger") == (
        f"org/tiny is gated, and the account of the stored token has no access: ask for it at {hub.url}/org/tiny, "
        "then retry"
    )
    assert hub.bytes_served("org/tiny") == 0


def test_a_wrong_token_is_refused(hub: Hub, tiny: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny)
    assert refused(data, token="hf_wrong") == (
        f"the Hub does not accept the stored token: make one at {hub.url}/settings/tokens and store it with mistudio "
        "secret set hf"
    )


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, tiny: Path, home: Path, data: Path) -> None:
    hub.add_model("org/tiny", tiny, gated=True)
    token = "hf_" + "Secret0" * 5
    hub.allow(token, "org/tiny")
    status, said = Worker(data, token).end()
    assert status == 0 and token not in said
    sent = {(one.at_cdn, one.authorization) for one in hub.seen}
    assert sent == {(False, f"Bearer {token}"), (True, None)}
    for path in [*data.rglob("*"), *home.rglob("*")]:
        assert path.is_dir() or token.encode() not in path.read_bytes()


def test_a_token_of_this_machine_is_not_used(
    hub: Hub, tiny: Path, home: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/tiny", tiny)
    home.mkdir()
    (home / "token").write_text("hf_of_this_machine")
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_shell")
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    status, said = Worker(data).end()
    assert status == 0, said
    assert {one.authorization for one in hub.seen} == {None}


# Without a network


def test_no_network_is_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    said = refused(data)
    assert said.startswith("the Hub at http://127.0.0.1:9 cannot be reached (ConnectError")
    assert time.monotonic() - began < 10


def test_no_network_tells_which_revision_is_here(
    hub: Hub, tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add_model("org/tiny", tiny)
    add(tmp_path / "other")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused(data).endswith(f"this machine has it at the commit {sha}, which --revision takes without a network")
    assert add(data, revision=sha)["revision"] == sha


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_what_is_in_the_cache_works(
    variable: str, hub: Hub, tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add_model("org/tiny", tiny)
    first = add(tmp_path / "other")
    hub.forget()
    monkeypatch.setenv(variable, "1")
    assert add(data) == first
    assert add(data, name="b", revision=sha)["path"] == first["path"]
    assert not hub.seen


def test_offline_all_else_says_so_at_once(
    hub: Hub, tiny: Path, home: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_model("org/tiny", tiny)
    snapshot_download("org/tiny", endpoint=hub.url, cache_dir=home / "hub", token=False, allow_patterns="*.json")
    hub.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for source in ("org/none", "org/tiny"):  # the weights of the second are missing
        assert refused(data, source) == (
            f"miStudio is offline and the model {source} is not in this machine's Hugging Face cache: add it once with "
            "the setting offline and the variable HF_HUB_OFFLINE unset, or copy the cache of a machine that has it"
        )
    assert not hub.seen


# What is not a model that can be read


def test_pickles_are_refused(hub: Hub, repo: Path, data: Path) -> None:
    (repo / "model.safetensors").rename(repo / "pytorch_model.bin")
    hub.add_model("org/tiny", repo)
    assert refused(data) == (
        "org/tiny has its weights only as pickles, which can run code when they are read: choose a repository with "
        "model.safetensors, or save it so with save_pretrained and add the folder"
    )
    assert hub.bytes_served("org/tiny") == 0


@pytest.mark.parametrize(
    "missing, sentence",
    [
        ("config.json", "org/tiny has no config.json: it is not a model of the transformers library"),
        ("model.safetensors", "org/tiny has no weights that can be read: there is no model.safetensors at "),
        ("tokenizer.json", "org/tiny has no tokenizer.json: save model and tokenizer (as a fast one) to a folder"),
    ],
)
def test_a_repository_without_what_a_model_needs_is_refused(
    missing: str, sentence: str, hub: Hub, repo: Path, data: Path
) -> None:
    (repo / missing).unlink()
    hub.add_model("org/tiny", repo)
    assert refused(data).startswith(sentence)
    assert hub.bytes_served("org/tiny") == 0


def test_a_missing_shard_is_told(hub: Hub, repo: Path, data: Path) -> None:
    (repo / "model.safetensors").rename(repo / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"x": "model-00002-of-00002.safetensors"}}
    (repo / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.add_model("org/tiny", repo)
    assert "is not complete: model.safetensors.index.json names 'model-00002-of-00002.safetensors'" in refused(data)


def test_a_model_of_an_unknown_type_is_refused_before_its_weights_come(hub: Hub, repo: Path, data: Path) -> None:
    configure(repo, model_type="bloom")
    hub.add_model("org/tiny", repo)
    assert refused(data).startswith("org/tiny holds a model of type 'bloom', which is not known: the known types are ")
    assert not [one for one in hub.seen if one.path.endswith(".safetensors")]


def test_code_in_a_repository_is_never_run(hub: Hub, repo: Path, home: Path, data: Path, tmp_path: Path) -> None:
    marker = tmp_path / "the code has run"
    (repo / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    configure(repo, auto_map=own)
    tokenizer = json.loads((repo / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["modeling_own.OwnTokenizer", None]}
    (repo / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    hub.add_model("org/tiny", repo)
    status, said = Worker(data).end()
    assert status == 0, said  # a type that is known needs no code
    assert not marker.exists() and not list(home.rglob("*.py"))
    configure(repo, model_type="own")
    hub.add_model("org/own", repo)
    shutil.rmtree(data)
    assert refused(data, "org/own").startswith(
        "org/own can only be read by code of its own (auto_map), which miStudio never runs: choose another model; "
    )
    assert refused(data, str(repo)).startswith(f"{repo} can only be read by code of its own (auto_map)")
    assert not marker.exists() and not list(home.rglob("*.py"))


@pytest.mark.parametrize("source", ["a--b/c", "org/name.git", "x" * 97])
def test_an_id_that_the_hub_cannot_have_is_refused(source: str, hub: Hub, data: Path) -> None:
    assert refused(data, source).startswith(f"{source} cannot be a model of the Hub: ")
    assert not hub.seen


@pytest.mark.parametrize(
    "card, licence",
    [
        (CARD, "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("---\nlicense: other\n---\n", "other"),
        ("# no card\n", None),
        ("---\nlicense: [a: b\n---\n", None),
        ("---\nlicense: 3\n---\n", None),
    ],
)
def test_the_licence_is_that_of_the_card(card: str, licence: str | None, repo: Path, data: Path) -> None:
    (repo / "README.md").write_text(card)
    assert add(data, str(repo))["licence"] == licence


# The machine's cache


def test_the_models_in_the_cache_are_listed(hub: Hub, tiny: Path, repo: Path, home: Path, data: Path) -> None:
    assert cached_models(os.environ) == []
    sha = hub.add_model("org/tiny", tiny)
    found = add(data)
    (repo / "README.md").unlink()
    part = hub.add_model("org/part", repo)
    options: Any = {"endpoint": hub.url, "cache_dir": home / "hub", "token": False}
    snapshot_download("org/part", allow_patterns="*.json", **options)
    hub.add_dataset("org/text", repo)
    snapshot_download("org/text", repo_type="dataset", **options)
    first, second = cached_models(os.environ)
    assert (first.id, first.revision, first.refs, first.size_bytes, first.is_whole) == (
        "org/part", part, ("main",), 0, False,
    )  # fmt: skip
    assert (second.id, second.revision, second.refs, str(second.path)) == ("org/tiny", sha, ("main",), found["path"])
    assert (second.size_bytes, second.is_whole) == (found["size_bytes"], True)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HF_HOME": "~/x"},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HUB_CACHE": "$HOME/hub", "HF_HOME": "/home"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HUB_OFFLINE": "yes"},
        {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
        {"TRANSFORMERS_OFFLINE": "on"},
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(environ: dict[str, str]) -> None:
    code = (
        "import os\n"
        "from huggingface_hub import constants\n"
        "from mistudiod.hub_cache import cache_folder, is_offline\n"
        "assert str(cache_folder(os.environ)) == constants.HF_HUB_CACHE, (cache_folder(os.environ), constants)\n"
        "assert is_offline(os.environ) == constants.HF_HUB_OFFLINE\n"
    )
    kept = {"PATH": os.environ["PATH"], "HOME": "/home/somebody"}
    subprocess.run([sys.executable, "-c", code], env=kept | environ, check=True)
