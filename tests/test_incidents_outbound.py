"""Rows 6 and 7 of the incident table: requests forged by whoever a worker asks, and tokens sent to somebody else.

A worker goes where a person's settings and a repository's id send it. A redirect, a name of the DNS and a dataset's
card are somebody else's words.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hub import Hub
from run_job import start_job
from test_dataset_from_hub import Studio, Worker, card

# One address in every spelling that something on the way reads as an address; and others of its kind.
METADATA = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "user:pass@169.254.169.254", "127.0.0.1@169.254.169.254",
    "169.254.169.254.", "[fd00:ec2::254]", "169.254.0.1", "[fe80::1]", "0.0.0.0", "0", "224.0.0.1", "100.100.100.200",
]  # fmt: skip
# A process as a worker is: what becomes of each request, and how many bytes it has sent anywhere but to 127.0.0.1.
GUARDED = """
import json, socket, sys
from mistudiod.worker.outbound import guard
from mistudiod.worker.link import Refused
real = socket.getaddrinfo
def turned(host, *args, **options):
    return real("169.254.169.254" if host in ("turned.example", b"turned.example") else host, *args, **options)
socket.getaddrinfo = turned
guard()
from huggingface_hub.utils import get_session
import httpx, asyncio, urllib.request
async def asked(url):
    async with httpx.AsyncClient(follow_redirects=True, timeout=20) as http:
        await http.get(url)
CLIENTS = {
    "the Hub's client": lambda url: get_session().get(url, follow_redirects=True, timeout=20),
    "asyncio": lambda url: asyncio.run(asked(url)),
    "urllib": lambda url: urllib.request.urlopen(url, timeout=20),
}
said = {}
for name, url in json.load(sys.stdin):
    try:
        CLIENTS[name](url)
        said[f"{name} {url}"] = "answered"
    except Refused as refused:
        said[f"{name} {url}"] = str(refused)
    except Exception as error:
        said[f"{name} {url}"] = f"{type(error).__module__}.{type(error).__name__}: {error}"
print(json.dumps(said))
"""


class Answering:
    """A server on loopback that notes what it is asked, and sends whoever asks on to ``to``."""

    def __init__(self) -> None:
        self.to: str | None = None
        self.seen: list[tuple[str, str | None]] = []
        self.url = ""


@contextmanager
def answering() -> Iterator[Answering]:
    told = Answering()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.seen.append((self.path, self.headers.get("Authorization")))
            to = self.path.partition("?to=")[2] or told.to
            self.send_response(302 if to else 200)
            if to:
                self.send_header("Location", to)
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"{}")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


def test_no_client_of_a_worker_connects_to_where_a_cloud_keeps_keys_however_it_is_spelt_or_redirected() -> None:
    with answering() as server:
        asked = [("the Hub's client", f"{server.url}/?to=http://{host}/latest") for host in METADATA]
        asked += [("the Hub's client", f"http://{host}/latest") for host in METADATA]
        for name in ("asyncio", "urllib"):
            asked += [(name, f"{server.url}/?to=http://169.254.169.254/"), (name, "http://[::ffff:a9fe:a9fe]/")]
        asked += [("the Hub's client", "http://turned.example/"), ("urllib", "http://turned.example/")]
        asked += [("the Hub's client", f"{server.url}/?to=http://turned.example/"), ("asyncio", server.url)]
        done = subprocess.run(
            [sys.executable, "-c", GUARDED], input=json.dumps(asked), capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    assert said.pop(f"asyncio {server.url}") == "answered"
    # What is no address for anybody (two of the spellings for some of the clients) is not asked either.
    assert [one for one, answer in said.items() if "answered" in answer or "imeout" in answer] == []
    refused = [one for one, answer in said.items() if "sent on to an address that is never asked" in answer]
    assert len(refused) >= len(said) - 6, said


def test_a_job_that_is_sent_on_to_such_an_address_fails_in_one_sentence(tmp_path: Path, monkeypatch: Any) -> None:
    with answering() as hub:
        hub.to = "http://2852039166/latest/meta-data/iam/security-credentials/"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        worker = start_job(tmp_path / "data", "add_model", source="org/tiny", name="m")
        assert worker.wait(60) == 64
        assert worker.stdin is not None
        worker.stdin.close()
    log = (tmp_path / "data" / "runs" / "1" / "log.txt").read_text()
    assert "Traceback" not in log
    assert "169.254.169.254 is where a cloud keeps its machines' keys" in log


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with Hub() as served:
        yield served


@pytest.fixture(scope="module")
def worker(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(served, tmp_path_factory.mktemp("home"))
    yield worker
    worker.end()


def test_a_datasets_card_sends_nobody_anywhere(served: Hub, worker: Worker, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "a secret of this machine"}\n')
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jsonl").write_text('{"text": "of another dataset"}\n')
    served.add_dataset("org/other", other)
    with answering() as server:
        named = [
            f"{server.url}/a.jsonl", f"{server.url}/*.jsonl", f"zip://a.jsonl::{server.url}/a.zip",
            f"simplecache::{server.url}/a.jsonl", f"reference://?fo={server.url}/r.json", "ftp://127.0.0.1/a.jsonl",
            "github://org:repo@main/a.jsonl", "ssh://127.0.0.1/a.jsonl", "s3://bucket/a.jsonl", str(own),
            f"file://{own}", f"local://{own}", f"../../../../../../../../{own}", "../../../../etc/*.txt",
            "hf://datasets/org/other/a.jsonl", "hf://datasets/org/other@main/a.jsonl",
            {"train": [f"{server.url}/a.jsonl"]}, [{"split": "train", "path": ["x.jsonl", str(own)]}],
        ]  # fmt: skip
        for n, data_files in enumerate(named):
            repo = tmp_path / f"repo-{n}"
            repo.mkdir()
            (repo / "x.jsonl").write_text('{"text": "its own"}\n')
            card(repo, configs=[{"config_name": "default", "data_files": data_files}])
            if n % 2:  # the library reads it there too
                text = (repo / "README.md").read_text().split("---\n")[1]
                (repo / ".huggingface.yaml").write_text(text)
            served.add_dataset(f"org/d{n}", repo)
            said = Studio(served, worker, tmp_path / "data").refusal(f"org/d{n}")
            assert "its own" not in said and "a secret" not in said, (data_files, said)
    assert server.seen == []


def test_a_dataset_that_names_its_own_files_is_read(served: Hub, worker: Worker, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    (repo / "sub").mkdir(parents=True)
    (repo / "sub" / "x.jsonl").write_text('{"text": "its own"}\n')
    card(repo, configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "sub/*.jsonl"}]}])
    served.add_dataset("org/own", repo)
    studio = Studio(served, worker, tmp_path / "data")
    studio.add("org/own")
    assert studio.texts() == ["its own"]


def test_a_token_stays_with_the_hub_when_it_sends_on_to_another_host_or_port(tmp_path: Path) -> None:
    """Both are another origin; what the Hub's own large files are sent on to is in test_model_from_hub."""
    code = (
        "import sys; from huggingface_hub.utils import get_session, build_hf_headers\n"
        "get_session().get(sys.argv[1], headers=build_hf_headers(token='hf_CANARY'), follow_redirects=True)"
    )
    with answering() as hub, answering() as elsewhere:
        by_name = elsewhere.url.replace("127.0.0.1", "localhost")
        for to in (elsewhere.url, by_name, hub.url.replace("127.0.0.1", "localhost")):
            environ = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
            done = subprocess.run([sys.executable, "-c", code, f"{hub.url}/?to={to}/x"], env=environ, timeout=60)
            assert done.returncode == 0
        tokens = [token for path, token in hub.seen + elsewhere.seen if path == "/x"]
        assert tokens == [None] * 3
        assert [token for path, token in hub.seen if path.startswith("/?to=")] == ["Bearer hf_CANARY"] * 3
