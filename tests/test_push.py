"""An SAE that is published: all its files in one commit, what is there left as it is, and what goes wrong said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Hub, served_hub  # noqa: F401
from hub_repos import Repo
from huggingface_hub import snapshot_download
from pushing import CARD, NAMES, SENDING, WEIGHTS, add_sae, give
from pydantic import ValidationError
from run_job import run_job
from test_model_from_hub import until
from tiny_models import LINES, tiny_model
from trained_saes import change

from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.paths import Paths
from mistudiod.specs import Extract, Push
from mistudiod.worker import extract
from mistudiod.worker import push as job
from mistudiod.worker.link import DAEMON_PID, EVENTS_FD, EXIT_STOPPED, SECRETS_FD, Link, Refused

pytestmark = pytest.mark.filterwarnings(SENDING)
TOKEN = f"hf_{secrets.token_hex(17)}"


@pytest.fixture(autouse=True)
def there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is the tests' own, and the token may write to the repositories of org."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mistudiod.worker.hub.FIRST_WAIT_S", 0.05)
    for name, value in hub.environ(tmp_path / "huggingface").items():
        monkeypatch.setenv(name, value)
    hub.uploads.let_write(TOKEN, "org")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A studio's folder with the SAE s."""
    add_sae(tmp_path / "data")
    return tmp_path / "data"


def events(data: Path, token: str | None = TOKEN, **fields: Any) -> list[dict[str, Any]]:
    spec = Push(**{"sae": "s", "repo": "org/s", **fields})
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        job.run(spec, Link(data, Paths(data), secrets={"hf": token} if token else None))
    return [json.loads(line) for line in said.getvalue().splitlines()]


def push(data: Path, **fields: Any) -> dict[str, Any]:
    """The job's result."""
    found: dict[str, Any] = events(data, **fields)[-1]["result"]
    return found


def refused(data: Path, **fields: Any) -> str:
    with pytest.raises(Refused) as caught:
        push(data, **fields)
    assert str(caught.value).count("\n") == 0 and TOKEN not in str(caught.value)
    return str(caught.value)


def repo_of(hub: Hub, id: str = "org/s") -> Repo:
    found = hub.repo("models", id)
    assert found
    return found


def content(hub: Hub, id: str = "org/s") -> dict[str, bytes]:
    """What is in the repository's newest commit, by name."""
    _, files = repo_of(hub, id).newest()
    return {name: file.place.read_bytes() for name, file in files.items() if name != ".gitattributes"}


def states(result: dict[str, Any]) -> dict[str, str]:
    return {one["file"]: one["state"] for one in result["files"]}


# What is sent


def test_what_was_pushed_is_pulled_byte_for_byte(hub: Hub, data: Path, tmp_path: Path) -> None:
    found = push(data)
    assert (found["made"], found["private"], found["url"]) == (True, False, f"{hub.url}/org/s")
    assert states(found) == dict.fromkeys(NAMES, "new")
    pulled = Path(snapshot_download("org/s", endpoint=hub.url, cache_dir=tmp_path / "other", token=False))
    assert pulled.name == found["commit"]
    for name in (WEIGHTS, "sparsity.safetensors"):
        assert (pulled / name).read_bytes() == (data / "saes" / "s" / name).read_bytes()
    mine, theirs = (SparseAutoencoder.load(folder) for folder in (data / "saes" / "s", pulled))
    x = torch.randn(20, mine.d_in)
    assert torch.equal(mine.encode(x), theirs.encode(x))
    for one in found["files"]:
        assert hashlib.sha256((pulled / one["file"]).read_bytes()).hexdigest() == one["sha256"]


def test_another_studio_adds_what_was_pushed_and_steers_with_it(hub: Hub, data: Path, tmp_path: Path) -> None:
    push(data)
    hub.add_model("org/model", tiny_model("llama", tmp_path / "model"))
    other = tmp_path / "other"
    run_job(other, "add_model", source="org/model", name="m")
    run_job(other, "add_sae", source="org/s", name="pulled")
    pulled = other / "saes" / "pulled"
    assert (pulled / WEIGHTS).read_bytes() == (data / "saes" / "s" / WEIGHTS).read_bytes()
    (tmp_path / "text.txt").write_text("\n\n".join(LINES) * 20)
    run_job(other, "add_dataset", source=str(tmp_path / "text.txt"), name="d")
    run_job(other, "tokenize", name="t", dataset="d", model="m", context=16)
    run = other / "runs" / "4"
    run.mkdir(parents=True)
    extract.run(Extract(sae="pulled", tokenization="t", tokens=1000, examples=2), Link(run, Paths(other)))
    steering = [{"feature": 3, "strength": 2.0}]
    steered = run_job(other, "steer", sae="pulled", prompt="def f(", steering=steering, max_tokens=4)
    assert steered["baseline"] is not None


def test_all_files_come_in_one_commit_under_the_message_that_was_given(hub: Hub, data: Path) -> None:
    push(data, message="mine")
    repo = repo_of(hub)
    assert list(repo.messages.values()) == ["", "mine"]  # the first is the repository's own beginning
    push(data, repo="org/t")
    assert repo_of(hub, "org/t").messages[repo_of(hub, "org/t").newest()[0]] == "s, a sparse autoencoder"


def test_files_go_into_the_folder_that_was_named(hub: Hub, data: Path) -> None:
    push(data)
    push(data, path="layers/8/")
    assert set(content(hub)) == NAMES | {f"layers/8/{name}" for name in NAMES}


def test_a_private_repository_is_seen_by_nobody_else(hub: Hub, data: Path, tmp_path: Path) -> None:
    assert push(data, private=True)["private"]
    assert repo_of(hub).private
    with pytest.raises(OSError, match="Repository Not Found"):
        snapshot_download("org/s", endpoint=hub.url, cache_dir=tmp_path / "other", token=False)
    assert push(data, private=True)["made"] is False


def test_nothing_becomes_public_that_was_to_be_private(hub: Hub, data: Path) -> None:
    push(data)
    add_sae(data, seed=1)
    before = content(hub)
    assert refused(data, private=True, overwrite=True) == (
        f"org/s is there already, and everybody sees it: make it private at {hub.url}/org/s/settings, or publish "
        "without private"
    )
    assert content(hub) == before


def test_labels_and_a_card_go_with_it_and_no_path_of_this_machine(hub: Hub, data: Path) -> None:
    push(data)
    found = {name: what.decode(errors="replace") for name, what in content(hub).items()}
    assert "is about imports" in found["feature_labels.json"]
    assert "base_model" in found[CARD] and "org/model" in found[CARD]
    assert not [name for name, text in found.items() if "/nobody/else" in text or str(data) in text]
    assert [path.name for path in data.glob("exports/*")] == []


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(hub: Hub, data: Path) -> None:
    found = push(data, dry_run=True, private=True)
    assert hub.repo("models", "org/s") is None
    assert (found["made"], found["private"], found["dry_run"], states(found)) == (
        True,
        True,
        True,
        dict.fromkeys(NAMES, "new"),
    )
    assert found["card"].startswith("---\n") and found["sent_bytes"] == sum(one["bytes"] for one in found["files"])
    push(data)
    add_sae(data, seed=1)
    assert states(push(data, dry_run=True, overwrite=True))[WEIGHTS] == "other"
    assert re.match(f"org/s has other files in the place of .*{WEIGHTS}.*: publish", refused(data, dry_run=True))
    assert {one.method for one in hub.seen if "commit" in one.path} == {"POST"} and len(repo_of(hub).commits) == 2


def test_progress_is_told_in_bytes_and_with_a_time(hub: Hub, data: Path) -> None:
    add_sae(data, d_in=40_000)
    hub.bytes_per_s = 10_000_000
    said = events(data)
    told, total = [one for one in said if one.get("stage") == "upload"], said[-1]["result"]["sent_bytes"]
    assert {one["unit"] for one in told} == {"bytes"}
    assert told[-1]["done"] == told[-1]["total"] == total > (data / "saes" / "s" / WEIGHTS).stat().st_size
    assert [one["done"] for one in told] == sorted(one["done"] for one in told)
    assert any(one.get("eta_s") for one in told)


def test_a_large_file_comes_in_parts(hub: Hub, data: Path) -> None:
    hub.uploads.part_bytes = 2_000
    push(data)
    assert content(hub)[WEIGHTS] == (data / "saes" / "s" / WEIGHTS).read_bytes()
    assert len([one for one in hub.seen if one.method == "PUT"]) > 5


# What is there already


def test_what_is_there_is_not_sent_again(hub: Hub, data: Path) -> None:
    first = push(data)
    hub.forget()
    again = push(data)
    assert states(again) == dict.fromkeys(NAMES, "same")
    assert (again["commit"], again["sent_bytes"], hub.uploads.bytes_come) == (first["commit"], 0, 0)
    assert len(repo_of(hub).commits) == 2


def test_files_of_other_content_are_listed_and_stay(hub: Hub, data: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "cfg.json").write_text("{}")
    (theirs / WEIGHTS).write_bytes(b"theirs")
    (theirs / "notes.txt").write_text("keep me")
    hub.add_model("org/s", theirs)
    assert refused(data) == (
        "org/s has other files in the place of cfg.json, sae_weights.safetensors: publish under another name or path, "
        "or with overwrite, which replaces them"
    )
    assert content(hub) == {path.name: path.read_bytes() for path in theirs.iterdir()}
    found = push(data, overwrite=True)
    assert states(found)["cfg.json"] == "other" and found["made"] is False
    assert content(hub)[WEIGHTS] == (data / "saes" / "s" / WEIGHTS).read_bytes()
    assert content(hub)["notes.txt"] == b"keep me"


def test_what_somebody_puts_there_meanwhile_is_not_lost(
    hub: Hub, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(data)
    add_sae(data, seed=1)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / WEIGHTS).write_bytes(b"theirs")
    send = job.Repository.send

    def late(*args: Any) -> str:
        hub.add_model("org/s", theirs)
        return send(*args)

    monkeypatch.setattr(job.Repository, "send", late)
    assert refused(data, overwrite=True) == (
        f"{hub.url}/org/s was changed meanwhile: retry the job, which looks at it again"
    )
    assert content(hub) == {WEIGHTS: b"theirs"}


# What goes wrong on the way


def test_a_cut_connection_sends_only_the_part_again(hub: Hub, data: Path) -> None:
    hub.uploads.part_bytes = 2_000
    hub.uploads.cut_after(1_000)
    push(data)
    large = [(data / "saes" / "s" / name).stat().st_size for name in (WEIGHTS, "sparsity.safetensors")]
    assert sum(large) < hub.uploads.bytes_come <= sum(large) + 2_000
    assert content(hub)[WEIGHTS] == (data / "saes" / "s" / WEIGHTS).read_bytes()


def test_a_retried_job_sends_no_file_that_has_come(hub: Hub, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuse(times=4, path="/api/models/org/s/commit/main", status=503)
    assert refused(data).startswith("the Hub answers with the error 503: retry the job")
    assert len(repo_of(hub).commits) == 1  # nothing half made
    hub.forget()
    assert push(data)["made"] is False
    assert hub.uploads.bytes_come == 0 and set(content(hub)) == NAMES


def test_a_commit_whose_answer_was_lost_is_made_once(hub: Hub, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, lost = hub.uploads._commit, []

    async def cut(repo: Repo, request: Any) -> Any:
        answer = await commit(repo, request)
        if not lost:
            lost.append(1)
            request.transport.abort()
        return answer

    monkeypatch.setattr(hub.uploads, "_commit", cut)
    push(data)
    assert lost and len(repo_of(hub).commits) == 2 and set(content(hub)) == NAMES


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (None, "publishing needs a token of the Hub: make one that"),
        ("hf_reads", "the stored token may only read: make one that"),
        ("hf_others", "the stored token, of the account somebody, may not write to org/sWHY: make one that"),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_token_without_the_right_is_told_which_it_needs(
    hub: Hub, data: Path, token: str | None, sentence: str, is_there: bool
) -> None:
    hub.allow("hf_reads")
    hub.uploads.let_write("hf_others", "others")
    if is_there:
        push(data)
    add_sae(data, seed=1)
    commits = [list(repo.commits) for repo in hub.repos]
    why = "" if is_there else ' (You don\'t have the rights to create a model under the namespace "org")'
    assert refused(data, token=token, overwrite=True) == (
        f"{sentence.replace('WHY', why)} may write to the repositories of org at {hub.url}/settings/tokens and store "
        "it with mistudio secret set hf"
    )
    assert [list(repo.commits) for repo in hub.repos] == commits


def test_an_sae_of_a_licence_that_the_hub_does_not_know_can_be_published(hub: Hub, data: Path) -> None:
    change(data / "saes/s/recipe.json", imported={"source": "a/b", "licence": "llama3.1 community"})
    push(data)
    assert b'license: "other"\nlicense_name: "llama3.1-community"\n' in content(hub)[CARD]


def test_a_token_that_is_none_is_not_accepted(hub: Hub, data: Path) -> None:
    assert refused(data, token="hf_wrong").startswith("the Hub does not accept the stored token: make one at")


def test_a_full_account_is_said(hub: Hub, data: Path) -> None:
    hub.uploads.quota_bytes = 10
    assert refused(data) == (
        "the Hub has no room for it (Private repository storage limit reached, please upgrade your plan to increase "
        f"it): see {hub.url}/settings/billing, then retry the job"
    )
    hub.forget()
    push(data)


def test_a_rate_limit_is_waited_for_and_a_long_one_is_said(hub: Hub, data: Path) -> None:
    hub.refuse(times=1, path="/api/repos/create", retry_after="0")
    push(data)
    hub.refuse(times=1, path="/api/models/org/s", retry_after="3600")
    assert refused(data) == "the Hub takes no more requests from here for 3600 s: retry the job after that"


def test_a_hub_that_cannot_be_reached_is_said(hub: Hub, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused(data).startswith("the Hub at http://127.0.0.1:9 cannot be reached (")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.is_portal = True
    assert refused(data).startswith(f"what answers at {hub.url} is not the Hub, perhaps a log-in page")


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_nothing_is_published(hub: Hub, data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert refused(data) == (
        "miStudio is offline, so nothing can be published: unset the setting offline and the variable HF_HUB_OFFLINE, "
        "then retry the job"
    )
    assert hub.seen == []


def spoil_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"\7")


@pytest.mark.parametrize(
    ("fields", "spoil", "sentence"),
    [
        ({"sae": "t"}, None, "there is no SAE called t"),
        ({}, lambda folder: (folder / "cfg.json").unlink(), "DATA/saes/s is not an SAE: it has no cfg.json"),
        ({}, spoil_weights, "the weights of s are not those that it was made with"),
        ({"repo": "org/a--b"}, None, "org/a--b cannot be a repository of the Hub"),
    ],
)
def test_what_cannot_be_published_is_said_before_anybody_is_asked(
    hub: Hub, data: Path, fields: dict[str, Any], spoil: Callable[[Path], None] | None, sentence: str
) -> None:
    if spoil:
        spoil(data / "saes" / "s")
    assert refused(data, **fields).startswith(sentence.replace("DATA", str(data)))
    assert hub.seen == []


@pytest.mark.parametrize("path", ["../x", "a/.git", "/a", "a/../../b", "..", "a\\b", "a\0", "a\r\nb", ".cache/a"])
def test_a_path_that_is_no_plain_folder_of_a_repository_is_refused_before_there_is_a_job(path: str) -> None:
    with pytest.raises(ValidationError, match="must be a plain folder of the repository"):
        Push(sae="s", repo="org/s", path=path)


# The worker and the token


class Worker:
    """A worker process at pushing s, tied to this process as to a daemon."""

    def __init__(self, data: Path, **fields: Any) -> None:
        self.run = data / "runs" / "1"
        self.run.mkdir(parents=True, exist_ok=True)
        give(self.run)
        spec = {"kind": "push", "sae": "s", "repo": "org/s", **fields}
        (self.run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
        self._said, said = os.pipe()
        given, giving = os.pipe()
        os.write(giving, json.dumps({"hf": TOKEN}).encode())
        os.close(giving)
        environ = os.environ | {EVENTS_FD: str(said), SECRETS_FD: str(given), DAEMON_PID: str(os.getpid())}
        with (self.run / "log.txt").open("wb") as log:
            command = [sys.executable, "-m", "mistudiod.worker", str(self.run)]
            options: Any = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "pass_fds": (said, given)}
            self.process = subprocess.Popen(command, env=environ, **options)
        os.close(said)
        os.close(given)

    def end(self) -> tuple[int, str]:
        """Its exit status and all that it said, in events and in its log."""
        with os.fdopen(self._said, "rb") as pipe:
            said = pipe.read().decode()
        status = self.process.wait(60)
        assert self.process.stdin
        self.process.stdin.close()
        return status, said + (self.run / "log.txt").read_text()


def test_a_killed_worker_leaves_nothing_half_made_and_the_next_goes_on(hub: Hub, data: Path) -> None:
    hub.bytes_per_s = 1_000  # ten seconds for the weights
    worker = Worker(data)
    until(lambda: hub.uploads.bytes_come, 120)
    worker.process.send_signal(signal.SIGKILL)
    worker.end()
    assert content(hub) == {}
    hub.forget()
    status, said = Worker(data).end()
    assert status == 0, said
    assert content(hub)[WEIGHTS] == (data / "saes" / "s" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("silent", [True, False])
def test_a_stop_is_answered_within_a_second(hub: Hub, data: Path, silent: bool) -> None:
    hub.bytes_per_s, hub.hangs = 2_000, silent
    worker = Worker(data)
    until(lambda: hub.seen if silent else hub.uploads.bytes_come, 120)
    assert worker.process.stdin
    worker.process.stdin.write(b"stop\n")
    worker.process.stdin.flush()
    assert worker.process.wait(1) == EXIT_STOPPED
    worker.end()


def test_the_token_goes_to_the_hub_alone_and_is_found_nowhere(hub: Hub, data: Path) -> None:
    hub.uploads.part_bytes = 2_000
    hub.uploads.cut_after(1_000)
    status, said = Worker(data).end()
    assert status == 0, said
    hub.uploads.quota_bytes = 0
    add_sae(data, seed=1)
    failed, why = Worker(data, overwrite=True).end()
    assert failed == 64 and "has no room" in why
    assert TOKEN not in said + why and "/upload/" not in said + why  # nor a signed address
    assert {one.authorization for one in hub.seen if one.at_cdn} == {None}
    assert {one.authorization for one in hub.seen if not one.at_cdn} >= {f"Bearer {TOKEN}"}
    kept = [path for path in data.rglob("*") if path.is_file()]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    assert not [name for name, what in content(hub).items() if TOKEN.encode() in what]
    shutil.rmtree(data)
