"""What the command line says, and how it leaves, when something goes wrong: every exit code."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from studio import running

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with a dataset."""
    with running(tmp_path_factory.mktemp("studio") / "data") as url:
        with Client(url) as client:
            assert client.wait(client.add_dataset("builtin:python")["id"], 60)["state"] == "done"
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    def invoke(*args: str, host: str = studio) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args))

    return invoke


def test_a_failed_job_is_one_sentence_that_names_the_field(run: Run) -> None:
    failed = run("dataset", "add", "--remote-path", "/no/such/fail.txt")
    assert failed.exit_code == 10
    assert re.search(r"Error: job \d+ \(add_dataset\) failed: source: there is no such file\n$", failed.stderr)
    assert failed.stdout == ""


def test_a_failed_job_in_json_is_the_job_and_the_error(run: Run) -> None:
    failed = run("--json", "dataset", "add", "--remote-path", "/no/such/fail.txt")
    assert failed.exit_code == 10
    assert json.loads(failed.stdout)["state"] == "failed"
    error = json.loads(failed.stderr.splitlines()[-1])["error"]
    assert error["code"] == "invalid"
    assert error["fields"] == {"source": "there is no such file"}


def test_no_studio_is_one_sentence_with_the_way_out(run: Run) -> None:
    refused = run("status", host="127.0.0.1:9")
    assert refused.exit_code == 7
    assert refused.stderr == "Error: no studio answers at http://127.0.0.1:9; start it with ./start-mistudio.sh\n"
    in_json = run("status", "--json", host="127.0.0.1:9")
    assert json.loads(in_json.stderr)["error"]["code"] == "unreachable"


@pytest.mark.parametrize(
    ("args", "exit_code", "word"),
    [
        (("job", "show", "x"), 2, "not a valid integer"),
        (("status", "-H", "a b"), 2, "is no host"),
        (("model", "show", "none"), 3, "there is no model 'none'"),
        (("dataset", "add", "--remote-path", "/x", "--name", "python"), 5, "there is a dataset named 'python' already"),
        (("dataset", "add", "--remote-path", "/x", "--name", "../x"), 6, "name: must be 1 to 64 letters"),
        (("train", "start", "--tokenization", "t", "--hook", "h"), 6, "there is no tokenization named 't'"),
    ],
)
def test_each_refusal_has_its_exit_code(run: Run, args: tuple[str, ...], exit_code: int, word: str) -> None:
    refused = run(*args)
    assert (refused.exit_code, refused.stdout) == (exit_code, "")
    assert word in refused.stderr
    in_json = run("--json", *args)
    assert in_json.exit_code == exit_code
    assert word in json.loads(in_json.stderr)["error"]["message"]


def test_a_studio_that_does_not_go_by_that_name_refuses(run: Run, studio: str) -> None:
    # 127.1 is 127.0.0.1 to the resolver, but no name that the studio knows.
    refused = run("status", host=studio.replace("127.0.0.1", "127.1"))
    assert refused.exit_code == 4
    assert "allowed_hosts" in refused.stderr


def test_a_studio_of_another_version_is_not_spoken_to(run: Run) -> None:
    with answering('{"name": "mistudio", "version": "9.0.0", "jobs": {}}') as url:
        refused = run("status", host=url)
    assert refused.exit_code == 9
    assert "version 9.0.0" in refused.stderr


@pytest.mark.parametrize("body", ["<html>", "[]", '{"name": "other"}'])
def test_another_program_is_not_taken_for_a_studio(run: Run, body: str) -> None:
    with answering(body) as url:
        refused = run("sae", "list", host=url)
    assert refused.exit_code == 7
    assert "is not a studio" in refused.stderr


@contextmanager
def answering(body: str) -> Iterator[str]:
    """A server that gives the same answer to everything."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
