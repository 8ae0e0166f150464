"""Secrets: where they are found, who may read the file, and how one gets to a worker and nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Studio, dataset
from pydantic import SecretStr

from mistudiod.errors import Conflict, NotFound
from mistudiod.runner import Grace, Worker
from mistudiod.secret import Secrets, SecretsUnusable, check_name, check_value
from mistudiod.specs import KINDS, NEEDS, PREVIEWS

FAKE_WORKER = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))
VALUE = "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ODD = 'a "quoted" \\ value'  # written differently in JSON and in a URL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secrets.json"


def credentials(folder: Path, **files: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


# -- where they are found -------------------------------------------------------------------------------------------


def test_a_secret_that_is_set_is_found_again(file: Path) -> None:
    Secrets(file, {}).set("hf", SecretStr(VALUE))
    secrets = Secrets(file, {})
    assert secrets.get("hf") == VALUE and secrets.get("openai") is None
    (listed,) = secrets.all()
    assert (listed.name, listed.source) == ("hf", "file") and listed.set_at is not None


def test_the_file_goes_before_the_credentials_and_these_before_the_environment(file: Path, tmp_path: Path) -> None:
    environ = {"HF_TOKEN": "from-environment", "OPENAI_API_KEY": "openai-environment"}
    secrets = Secrets(file, environ)
    assert (secrets.get("hf"), secrets.get("openai")) == ("from-environment", "openai-environment")
    secrets = Secrets(file, environ | credentials(tmp_path / "c", hf="from-credentials\n"))
    assert (secrets.get("hf"), secrets.get("openai")) == ("from-credentials", "openai-environment")
    secrets.set("hf", SecretStr("from-file"))
    assert secrets.get("hf") == "from-file"
    assert [(one.name, one.source) for one in secrets.all()] == [("hf", "file"), ("openai", "environment")]
    secrets.remove("hf")
    assert secrets.get("hf") == "from-credentials"


def test_other_files_among_the_credentials_are_no_secrets(file: Path, tmp_path: Path) -> None:
    environ = credentials(tmp_path / "c", tls="-----BEGIN KEY-----\nabc\n", long="x" * 5000, empty="", Upper="abcdefgh")
    (tmp_path / "c" / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "c" / "folder").mkdir()
    assert Secrets(file, environ).all() == []


def test_an_empty_variable_is_no_secret_and_a_missing_folder_no_error(file: Path, tmp_path: Path) -> None:
    assert Secrets(file, {"HF_TOKEN": "", "CREDENTIALS_DIRECTORY": str(tmp_path / "gone")}).all() == []


def test_a_secret_from_elsewhere_cannot_be_removed_here(file: Path, tmp_path: Path) -> None:
    secrets = Secrets(file, {"OPENAI_API_KEY": VALUE} | credentials(tmp_path / "c", hf=VALUE))
    with pytest.raises(Conflict, match="comes from the daemon's credentials"):
        secrets.remove("hf")
    with pytest.raises(Conflict, match="comes from the daemon's environment"):
        secrets.remove("openai")
    with pytest.raises(NotFound, match="no secret 'judge'"):
        secrets.remove("judge")


@pytest.mark.parametrize("name", ["hf", "openai", "judge-1", "ollama.lan", "ollama.lan:11434", "10.0.0.7:80", "a" * 64])
def test_a_name_may_be_that_of_an_endpoint(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "HF", "a" * 65, ".hidden", "-x", "a/b", "../x", "a b", "a:b", "a:", "a:1:2", "é", "hf\n"]
)
def test_a_name_is_nothing_else(name: str) -> None:
    with pytest.raises(ValueError, match="must be hf, neuronpedia, openai, or"):
        check_name(name)


@pytest.mark.parametrize("value", ["", "\n", "two\nlines", "tab\there", "nul\0", "é", "x" * 4097])
def test_a_value_is_printable_and_not_too_long_and_a_refusal_does_not_repeat_it(value: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 4096 printable") as refused:
        check_value(SecretStr(value))
    assert not value.strip() or value not in str(refused.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_end_of_a_line_is_no_part_of_a_value(end: str) -> None:
    assert check_value(SecretStr("x" * 4096 + end)).get_secret_value() == "x" * 4096


# -- who may read the file ------------------------------------------------------------------------------------------


def test_others_cannot_read_the_file_at_any_moment(file: Path) -> None:
    secrets, seen, over = Secrets(file, {}), set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            for path in file.parent.iterdir():
                try:
                    seen.add(stat.S_IMODE(path.stat().st_mode))
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    old = os.umask(0)
    try:
        for i in range(50):
            secrets.set("hf", SecretStr(f"{VALUE}{i}"))
            assert secrets.get("hf") == f"{VALUE}{i}"
    finally:
        os.umask(old)
        over.set()
        watcher.join()
    assert seen == {0o600}
    assert [path.name for path in file.parent.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_may_touch_is_refused(file: Path, mode: int) -> None:
    secrets = Secrets(file, {})
    secrets.set("hf", SecretStr(VALUE))
    file.chmod(mode)
    for ask in (lambda: secrets.get("hf"), secrets.all, lambda: secrets.set("openai", SecretStr(VALUE))):
        with pytest.raises(SecretsUnusable, match="chmod 600") as refused:
            ask()
        assert VALUE not in str(refused.value)
    file.chmod(0o600)
    assert secrets.get("hf") == VALUE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"hf": "x"}', '{"hf": {"value": "a\\nb", "set_at": ""}}', '{"A": 1}'])
def test_a_file_that_is_not_ours_is_refused_without_repeating_it(file: Path, text: str) -> None:
    file.touch(0o600)
    file.write_text(text.replace("x", VALUE))
    with pytest.raises(SecretsUnusable, match="move it away") as refused:
        Secrets(file, {}).get("hf")
    assert VALUE not in str(refused.value) and refused.value.__suppress_context__


def test_a_folder_in_the_place_of_the_file_is_refused(file: Path) -> None:
    file.mkdir()
    with pytest.raises(SecretsUnusable, match="cannot be read: Is a directory"):
        Secrets(file, {}).get("hf")


def test_what_a_daemon_left_that_died_while_it_wrote_is_in_nobodys_way(file: Path) -> None:
    (file.parent / ".secrets.json.new").write_text("half")
    Secrets(file, {}).set("hf", SecretStr(VALUE))
    assert [path.name for path in file.parent.iterdir()] == ["secrets.json"]


def test_secrets_set_at_once_are_all_kept(file: Path) -> None:
    secrets = Secrets(file, {})
    threads = [threading.Thread(target=secrets.set, args=(f"host{i}", SecretStr(VALUE))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets.all()) == 16


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(SecretsUnusable, match="cannot be written: No such file"):
        Secrets(tmp_path / "gone" / "secrets.json", {}).set("hf", SecretStr(VALUE))


# -- how one gets to a worker ---------------------------------------------------------------------------------------


def test_only_workers_that_fetch_something_are_handed_a_secret(file: Path) -> None:
    secrets = Secrets(file, {"HF_TOKEN": VALUE, "OPENAI_API_KEY": VALUE})
    assert set(NEEDS) <= {*KINDS, *PREVIEWS}
    handed = {kind: secrets.for_kind(kind) for kind in {*KINDS, *PREVIEWS}}
    assert {kind: found for kind, found in handed.items() if found} == {
        "add_model": {"hf": VALUE}, "add_dataset": {"hf": VALUE}, "preview_dataset": {"hf": VALUE},
        "add_sae": {"hf": VALUE}, "preview_sae": {"hf": VALUE}, "push": {"hf": VALUE},
        "preview_model": {"hf": VALUE},
    }  # fmt: skip
    assert Secrets(file.with_name("none"), {}).for_kind("add_model") == {}


def test_a_worker_that_asks_an_endpoint_is_handed_its_secret_and_no_other(file: Path) -> None:
    secrets = Secrets(file, {"HF_TOKEN": VALUE, "OPENAI_API_KEY": f"{VALUE}2"})
    secrets.set("box.lan:8000", SecretStr(f"{VALUE}3"))
    for endpoint, handed in (
        ("openai", {"endpoint": f"{VALUE}2"}),
        ("box.lan:8000", {"endpoint": f"{VALUE}3"}),
        ("box.lan", {}),
        (None, {}),
    ):
        assert secrets.for_kind("label", endpoint) == handed


async def ran(run: Path, name: str, secrets: dict[str, str], kind: str = "add_dataset") -> tuple[Worker, list[object]]:
    run.mkdir(parents=True, exist_ok=True)
    order = {"job": 1, "data": str(run.parent), "spec": {"kind": kind, "name": name, "source": "/x"}}
    (run / "spec.json").write_text(json.dumps(order))
    worker = await Worker.start(run, Grace(1, 1, 20), FAKE_WORKER, secrets)
    events: list[object] = [event async for event in worker.events()]
    return worker, events


async def no_more_open(before: int, limit_s: float = 60.0) -> None:
    """Until the files that are open are those of before; and two of the child watcher's, made once."""
    end = time.monotonic() + limit_s
    while (found := len(os.listdir("/proc/self/fd"))) > before + 2:
        assert time.monotonic() < end, (before, found)
        await asyncio.sleep(0.01)


async def test_a_secret_goes_to_its_worker_up_a_pipe(tmp_path: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    worker, events = await ran(tmp_path / "run", "tell", {"hf": ODD})
    assert (await worker.ended()).code == 0
    assert hashlib.sha256(ODD.encode()).hexdigest() in repr(events)
    worker, events = await ran(tmp_path / "run", "tell", {})
    assert (await worker.ended()).code == 0
    assert hashlib.sha256(b"").hexdigest() in repr(events)
    await no_more_open(open_before)


async def test_secrets_larger_than_a_pipe_do_not_stop_the_daemon(tmp_path: Path) -> None:
    large = {"hf": VALUE} | {f"host{i}": "x" * 4096 for i in range(200)}
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    worker, events = await ran(tmp_path / "run", "tell", large)
    ticking.cancel()
    assert (await worker.ended()).code == 0 and ticks > 3
    assert hashlib.sha256(VALUE.encode()).hexdigest() in repr(events)


async def test_a_worker_that_dies_without_reading_its_secrets_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    large = {f"host{i}": "x" * 4096 for i in range(200)}
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        worker = await Worker.start(tmp_path / "run", Grace(1, 1, 20), (sys.executable, "-c", "pass"), large)
        assert [event async for event in worker.events()] == []
        assert (await worker.ended()).code == 0
    await no_more_open(open_before)


async def test_a_worker_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError):
            await Worker.start(tmp_path, Grace(1, 1, 20), ("/no/such/program",), {"hf": VALUE})
    await no_more_open(open_before)


async def test_a_worker_inherits_no_secret_of_the_daemons_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    withheld = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "MISTUDIO_TOKEN", "CREDENTIALS_DIRECTORY")
    for name in withheld:
        monkeypatch.setenv(name, VALUE)
    show = "import os, sys; print(sorted(os.environ)); print(os.environ); print(os.listdir('/proc/self/fd'))"
    worker = await Worker.start(tmp_path, Grace(1, 1, 20), (sys.executable, "-c", show))
    assert [event async for event in worker.events()] == []
    tail = (await worker.ended()).tail
    assert "MISTUDIO_EVENTS_FD" in tail and "MISTUDIO_SECRETS_FD" not in tail
    assert not [name for name in withheld if repr(name) in tail]
    assert VALUE not in (tmp_path / "log.txt").read_text()


# -- over the API ---------------------------------------------------------------------------------------------------


async def test_a_secret_is_set_listed_and_removed_and_never_shown(studio: Studio) -> None:
    assert await studio.get("/api/secrets") == {"secrets": [], "next": None}
    for name in ("openai", "ollama.lan:11434", "hf"):
        assert (await studio.call("PUT", f"/api/secrets/{name}", json={"value": f"{VALUE}\n"}))[0] == 204
    listed = (await studio.get("/api/secrets"))["secrets"]
    assert [one["name"] for one in listed] == ["hf", "ollama.lan:11434", "openai"]
    assert {one["source"] for one in listed} == {"file"} and VALUE not in json.dumps(listed)
    kept = json.loads((studio.data / "secrets.json").read_text())
    assert kept["openai"]["value"] == VALUE
    assert (await studio.call("DELETE", "/api/secrets/openai"))[0] == 204
    assert (await studio.call("DELETE", "/api/secrets/openai"))[0] == 404
    assert (await studio.call("PUT", "/api/secrets/UPPER", json={"value": VALUE}))[0] == 404


@pytest.mark.parametrize("body", [{}, {"value": ""}, {"value": 1}, {"value": f"{VALUE}\0"}, {"value": VALUE * 200}])
async def test_a_secret_that_cannot_be_one_is_refused_without_repeating_it(studio: Studio, body: object) -> None:
    status, answer = await studio.call("PUT", "/api/secrets/hf", json=body)
    assert status == 400 and set(answer["error"]["fields"]) == {"value"}
    assert VALUE not in json.dumps(answer) and not (studio.data / "secrets.json").exists()


async def test_a_job_gets_the_secret_as_it_is_when_its_worker_starts(studio: Studio) -> None:
    for value in ("the-first-value", "the-second-value"):
        assert (await studio.call("PUT", "/api/secrets/hf", json={"value": value}))[0] == 204
        job = (await studio.submit(dataset(f"tell-{value[4]}")))["id"]
        await studio.until(job, "done")
        (metric,) = (await studio.get(f"/api/jobs/{job}/metrics"))["metrics"]
        assert set(metric["values"]) == {hashlib.sha256(value.encode()).hexdigest()}


async def test_a_job_that_needs_a_secret_fails_in_one_sentence_while_others_may_read_the_file(studio: Studio) -> None:
    await studio.call("PUT", "/api/secrets/hf", json={"value": VALUE})
    (studio.data / "secrets.json").chmod(0o644)
    job = await studio.until((await studio.submit(dataset("ok")))["id"], "failed")
    assert job["error"]["code"] == "secrets" and "chmod 600" in job["error"]["message"]
    status, body = await studio.call("GET", "/api/secrets")
    assert status == 503 and "chmod 600" in body["error"]["message"]
    (studio.data / "secrets.json").chmod(0o600)
    await studio.act(job["id"], "retry")
    await studio.until(job["id"], "done")
