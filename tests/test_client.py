"""The Python client against a real daemon, and its parts that need none."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistudio import Client, completion, names
from mistudio.address import find, understand_each_other
from mistudio.download import fetch
from mistudio.errors import ApiError, Unreachable
from studio import ROOT, proxied, running

from mistudiod import __version__
from mistudiod.specs import AddDataset, check_name


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        yield url


@pytest.fixture
def client(studio: str) -> Iterator[Client]:
    with Client(studio) as client:
        yield client


def test_a_job_is_submitted_awaited_and_its_dataset_is_there(client: Client) -> None:
    job = client.add_dataset("builtin:python")
    assert job["state"] in ("queued", "running")
    assert client.wait(job["id"], timeout=60)["state"] == "done"
    assert client.artifact("dataset", "python")["rows"] == 1234
    assert [one["name"] for one in client.artifacts("dataset")["datasets"]] == ["python"]
    assert client.log(job["id"]).startswith("fake worker, attempt 1")
    client.remove("dataset", "python")
    client.remove_job(job["id"])
    assert job["id"] not in [one["id"] for one in client.every_job()]


def test_a_spec_may_be_the_pydantic_model(client: Client) -> None:
    job = client.submit(AddDataset(source="/x", name="modelled"), priority=3)
    assert job["priority"] == 3
    assert client.wait(job["id"], 60)["result"]["source"] == "/x"


def test_a_refusal_carries_status_code_sentence_and_fields(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.train("nothing", "blocks.0.hook_resid_post", name="s", width=0)
    assert (refused.value.status, refused.value.code) == (400, "invalid")
    assert "width" in refused.value.fields
    assert "width" in str(refused.value)


def test_waiting_ends_with_its_time(client: Client) -> None:
    job = client.add_dataset("/x", remote=True, name="slow")
    with pytest.raises(TimeoutError, match=f"job {job['id']} is still"):
        client.wait(job["id"], timeout=0.2)
    client.stop(job["id"])
    assert client.wait(job["id"], 60)["state"] == "stopped"


def test_events_tell_of_a_job_from_its_start_to_its_end(client: Client) -> None:
    events = client.events(["job"])
    assert next(events)["topic"] == "connected"
    job = client.add_dataset("/x", remote=True, name="heard")
    states = [event["data"]["state"] for event in itertools.takewhile(lambda e: e["data"]["state"] != "done", events)]
    assert states == ["queued", "running"]
    assert client.job(job["id"])["state"] == "done"


def test_metrics_come_in_pages(client: Client) -> None:
    job = client.wait(client.add_dataset("/x", remote=True, name="flood")["id"], 100)
    first = client.metrics(job["id"], limit=10)
    assert [one["step"] for one in first["metrics"]] == list(range(10))
    assert client.metrics(job["id"], first["next"], 1)["metrics"][0]["step"] == 10


def test_a_name_with_odd_characters_stays_one_part_of_the_path(client: Client) -> None:
    with pytest.raises(ApiError) as missing:
        client.artifact("sae", "a/../../b?c")
    assert missing.value.status == 404


def test_no_studio_is_one_sentence() -> None:
    with pytest.raises(
        Unreachable, match=r"no studio answers at http://127.0.0.1:9; start it with ./start-mistudio.sh"
    ):
        Client("127.0.0.1:9").status()


def test_versions_differ_when_their_first_number_that_counts_does() -> None:
    assert understand_each_other("0.1.0", "0.1.9")
    assert not understand_each_other("0.1.0", "0.2.0")
    assert understand_each_other("1.2.0", "1.9.0")
    assert not understand_each_other("1.0.0", "2.0.0")
    assert not understand_each_other("0.1.0", "1.1.0")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("builtin:python", "python"),
        ("/books/My Diary (1).txt", "My-Diary-1"),
        ("/data/books.v1/", "books.v1"),
        ("/data/2024", "dataset-2024"),
        ("../..", "dataset"),
        ("Salesforce/wikitext", "wikitext"),
    ],
)
def test_a_name_is_made_from_the_source(source: str, name: str) -> None:
    assert names.from_source(source, "dataset") == name


@settings(deadline=None)
@given(st.text(max_size=100), st.text(max_size=100))
def test_every_made_name_is_one_that_specs_take(one: str, other: str) -> None:
    check_name(names.from_source(one, "dataset"))
    check_name(names.of_tokenization(one, other))
    check_name(names.of_sae(one, other))


def test_an_answer_that_is_lost_on_its_way_does_not_mean_two_jobs() -> None:
    keys: list[str | None] = []

    class Forgetful(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, {"name": "mistudio", "version": __version__, "jobs": {}})

        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            if len(keys) == 1:
                self.close_connection = True  # it has been taken, and nobody says so
            else:
                self.answer(200, {"id": 1, "state": "queued"})

        def answer(self, status: int, body: object) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Client(f"127.0.0.1:{server.server_port}") as client:
                assert client.submit({"kind": "steer"})["id"] == 1
        finally:
            server.shutdown()
            thread.join()
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert len(keys[0] or "") >= 32


# -- whose file ------------------------------------------------------------------------------------------------------


def test_a_path_that_is_here_is_read_in_place_by_a_studio_of_this_user(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "text.txt")
    assert client.add_dataset(str(tmp_path / "text.txt"), "here")["spec"]["source"] == str(tmp_path / "text.txt")
    relative = os.path.relpath(tmp_path / "link")
    assert client.add_dataset(relative, "linked")["spec"]["source"] == str(tmp_path / "link")


def test_a_path_that_is_not_here_is_one_sentence(client: Client) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file or folder /not/here on this machine"):
        client.add_dataset("/not/here")
    assert client.add_dataset("/not/here", "there", remote=True)["spec"]["source"] == "/not/here"


def test_a_studio_that_cannot_read_it_here_is_sent_the_file(tmp_path: Path) -> None:
    """Behind a proxy the studio cannot tell who asks."""
    (tmp_path / "text.txt").write_text("sent")
    with running(tmp_path / "data", "telling_worker.py") as url, proxied(url) as there, Client(there) as client:
        assert client.status()["same_user"] is False
        job = client.add_dataset(str(tmp_path / "text.txt"))
        source = job["spec"]["source"]
        assert source.startswith("upload:")
        assert client.wait(job["id"], 60)["state"] == "done"
        assert client.artifact("dataset", "text")["source"].startswith("upload:")


# -- the socket ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["data", "d" * 100 + "/" + "e" * 100], ids=["short", "longer than a socket's path"])
def test_the_socket_of_a_studio_is_found_in_its_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """With the real daemon: it makes the socket."""
    for name in [name for name in os.environ if name.startswith("MISTUDIO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MISTUDIO_DATA", str(tmp_path / folder))
    command = [sys.executable, "-m", "mistudiod", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as daemon:
        try:
            assert daemon.stderr is not None
            while " is at http" not in (line := daemon.stderr.readline()):
                assert line
            with Client() as client:
                assert client.url == f"unix:{tmp_path / folder / 'mistudiod.sock'}"
                assert client.status()["same_user"] is True
                assert next(client.events())["topic"] == "connected"
                assert completion._get(find(None, None, os.environ), "/api/status")["same_user"] is True
            daemon.terminate()
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
    assert not (tmp_path / folder / "mistudiod.sock").exists()


# -- downloads -------------------------------------------------------------------------------------------------------


def test_an_sae_is_downloaded_whole_and_goes_on_where_it_was_cut_off(client: Client, tmp_path: Path) -> None:
    client.add_model("builtin:pico", "m")
    client.add_dataset("builtin:python", "d")
    client.tokenize("d", "m", "t")
    assert client.wait(client.train("t", "blocks.0.hook_resid_post", "taken")["id"], 60)["state"] == "done"
    there = Path(client.artifact("sae", "taken")["folder"])
    partial = tmp_path / ".partial-taken"
    partial.mkdir()
    (partial / "recipe.json").write_bytes((there / "recipe.json").read_bytes()[:10])
    (partial / "old.json").write_text("of another")
    told: list[tuple[int, int]] = []
    made = fetch(client, "taken", tmp_path / "taken", lambda done, total: told.append((done, total)))
    assert {one.name: one.read_bytes() for one in made.iterdir()} == {
        one.name: one.read_bytes() for one in there.iterdir()
    }
    assert told[0][0] == 10
    assert told[-1][0] == told[-1][1]
    assert not partial.exists()
    with pytest.raises(FileExistsError, match="is there already"):
        fetch(client, "taken", tmp_path / "taken")


def test_a_download_that_is_not_what_was_sent_is_thrown_away(client: Client, tmp_path: Path) -> None:
    partial = tmp_path / ".partial-x"
    partial.mkdir()
    (partial / "recipe.json").write_text("wrong")
    with pytest.raises(RuntimeError, match=r"recipe.json did not come as it was sent"):
        fetch(client, "taken", tmp_path / "x")
    assert fetch(client, "taken", tmp_path / "x").is_dir()
