"""Where the studio is: hosts, sockets, named contexts and their tokens."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mistudio import address, contexts
from mistudio.address import find, to_url
from mistudio.cli import main
from mistudio.contexts import Context, Contexts

from mistudiod import own_address

OWN = next((one for one in own_address.all_of_them() if "." in one), None)
TOKEN = "mis_" + "x" * 43
Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment of its own, with nothing in it."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "share")}


@pytest.fixture
def run(home: dict[str, str]) -> Run:
    def invoke(*args: str, typed: str | None = None, **environ: str) -> Result:
        bare = {name: None for name in os.environ if name.startswith("MISTUDIO_")}
        return CliRunner(env={**bare, **home, **environ}).invoke(main, list(args), input=typed)

    return invoke


# -- hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("10.0.0.7", "http://10.0.0.7:6478"),
        ("jetson:80", "http://jetson:80"),
        ("https://studio.example/a/", "https://studio.example/a"),
        ("::1", "http://[::1]:6478"),
        ("[::1]:7000", "http://[::1]:7000"),
        ("[::1]", "http://[::1]:6478"),
        ("unix:/run/mistudiod.sock", "unix:/run/mistudiod.sock"),
    ],
)
def test_a_host_is_a_name_an_address_a_url_or_a_socket(host: str, url: str) -> None:
    assert to_url(host) == url


@pytest.mark.parametrize(
    "host", ["ftp://x", "http://", "a b", "x:port", "http://[::1", "x:99999", "unix:sock", "a..b", f"{'a' * 64}.lan"]
)
def test_what_cannot_be_a_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        to_url(host)


def test_what_is_named_nearer_goes_before_what_is_named_further_away(home: dict[str, str]) -> None:
    known = Contexts({"a": Context("at-a", "token-a"), "b": Context("at-b")}, chosen="b")
    contexts.write(known, home)
    environ = {**home, "MISTUDIO_CONTEXT": "a"}
    every = {**environ, "MISTUDIO_HOST": "at-host", "MISTUDIO_PORT": "7000"}
    assert find("at-flag", "a", every).url == "http://at-flag:6478"
    assert find(None, "b", every).url == "http://at-b:6478"
    assert find(None, None, every).url == "http://at-host:6478"
    assert find(None, None, environ).url == "http://at-a:6478"
    assert find(None, None, home).url == "http://at-b:6478"
    assert find(None, "local", every).url == "http://127.0.0.1:7000"
    assert find(None, None, {**environ, "MISTUDIO_CONTEXT": "local"}).url == "http://127.0.0.1:6478"
    known.use("local")
    contexts.write(known, home)
    assert find(None, None, home).url == "http://127.0.0.1:6478"


def test_a_token_is_sent_to_its_own_studio_only_and_the_environments_goes_before_it(home: dict[str, str]) -> None:
    contexts.write(Contexts({"a": Context("at-a", "token-a")}, chosen="a"), home)
    assert find(None, None, home).token == "token-a"
    assert find("at-b", None, home).token is None
    assert find(None, "local", home).token is None
    assert find(None, "a", {**home, "MISTUDIO_TOKEN": "given"}).token == "given"
    assert "token-a" not in repr(find(None, "a", home))


def test_the_socket_in_the_data_folder_is_taken_when_a_studio_listens_there(
    home: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "share" / "mistudio"
    folder.mkdir(parents=True)
    path = folder / "mistudiod.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        assert find(None, None, home).url == "http://127.0.0.1:6478"  # left behind by one that was killed
        door.listen()
        assert find(None, None, home).url == f"unix:{path}"
        assert find(None, None, {**home, "MISTUDIO_PORT": "7000"}).url == "http://127.0.0.1:7000"
        both = {**home, "MISTUDIO_PORT": "7000", "MISTUDIO_DATA": str(folder)}
        assert find(None, None, both).url == f"unix:{path}"  # on that port others may be answered, by TLS alone
        assert find(None, None, {**both, "MISTUDIO_DATA": str(tmp_path)}).url == "http://127.0.0.1:7000"
        elsewhere = {**home, "MISTUDIO_DATA": str(tmp_path / ("x" * 120))}
        assert find(None, None, elsewhere).url == "http://127.0.0.1:6478"


def test_without_a_studio_of_ones_own_the_machines_service_is_taken(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, folder = tmp_path / "api.sock", tmp_path / "share" / "mistudio"
    monkeypatch.setattr(address, "SERVICE", service)
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as own:
        door.bind(str(service))
        door.listen()
        assert find(None, None, home).url == f"unix:{service}"
        assert find(None, None, {**home, "MISTUDIO_DATA": str(folder)}).url == "http://127.0.0.1:6478"
        own.bind(str(folder / "mistudiod.sock"))
        own.listen()
        assert find(None, None, home).url == f"unix:{folder / 'mistudiod.sock'}"


# -- the file --------------------------------------------------------------------------------------------------------


def test_contexts_are_kept_for_their_user_alone(run: Run, home: dict[str, str]) -> None:
    assert run("context", "add", "jetson", "10.0.0.7", "--token-stdin", typed=f"{TOKEN}\n").exit_code == 0
    file = contexts.path(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert contexts.read(home).get("jetson") == Context("10.0.0.7", TOKEN)
    assert [one.name for one in file.parent.iterdir()] == ["contexts.json"]  # nothing half-written beside it


def test_a_token_is_never_shown_and_never_an_argument(run: Run) -> None:
    run("context", "add", "jetson", "10.0.0.7", "--token-stdin", typed=f"{TOKEN}\n")
    for args in (
        ("list",),
        ("show",),
        ("list", "--json"),
        ("show", "--json", "-c", "jetson"),
        ("list", "--columns", "token"),
    ):
        shown = run("context", *args)
        assert shown.exit_code == 0, shown.output
        assert "mis_" not in shown.output
    assert run("context", "add", "jetson", "10.0.0.7", "--token", TOKEN).exit_code == 2


def test_contexts_are_listed_chosen_shown_and_removed(run: Run) -> None:
    run("context", "add", "jetson", "10.0.0.7")
    run("context", "add", "lab", "https://lab.example")
    assert run("context", "use", "lab").exit_code == 0
    listed = json.loads(run("context", "list", "--json").stdout)["contexts"]
    assert [(one["name"], one["chosen"]) for one in listed] == [("local", False), ("jetson", False), ("lab", True)]
    assert json.loads(run("context", "show", "--json").stdout)["studio"] == "https://lab.example"
    assert "http://10.0.0.7:6478" in run("-c", "jetson", "context", "show").stdout
    assert "http://10.0.0.7:6478" in run("context", "show", "--context", "jetson").stdout
    assert run("context", "rm", "lab").exit_code == 0
    assert json.loads(run("context", "show", "--json").stdout)["said_by"] == "this machine"


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("use", "jetsn"), "there is no context 'jetsn'; did you mean jetson?"),
        (("rm", "nothing"), "there is no context 'nothing'"),
        (("show", "-c", "jetsn"), "did you mean jetson?"),
        (("add", "local", "x"), "'local' cannot be a context"),
        (("add", "../x", "x"), "'../x' cannot be a context"),
        (("add", "x", "a b"), "is no host"),
        (("add", "x", "y", "--token-stdin"), "there is no token on stdin"),
    ],
)
def test_what_cannot_be_done_with_a_context_is_one_sentence(run: Run, args: tuple[str, ...], word: str) -> None:
    run("context", "add", "jetson", "10.0.0.7")
    refused = run("context", *args)
    assert refused.exit_code == 2
    assert word in refused.stderr


def test_a_file_that_holds_no_contexts_is_left_as_it_is(run: Run, home: dict[str, str]) -> None:
    file = contexts.path(home)
    file.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"contexts": {"a": {}}}', '{"contexts": 3}'):
        file.write_text(text)
        refused = run("context", "add", "jetson", "10.0.0.7")
        assert refused.exit_code == 2
        assert "does not hold contexts any more" in refused.stderr
        assert file.read_text() == text
        assert run("status").exit_code == 2


def test_a_terminal_is_asked_for_the_token_and_does_not_show_it(home: dict[str, str]) -> None:
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "mistudio.cli", "context", "add", "jetson", "10.0.0.7"]
    environ = {**os.environ, **home}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environ, start_new_session=True) as process:
        os.close(its)
        shown = b""
        while b"none): " not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{TOKEN}\n".encode())
        try:
            while chunk := os.read(ours, 1000):
                shown += chunk
        except OSError:
            pass  # EIO: the other end is closed
        os.close(ours)
        assert process.wait(30) == 0, shown
    assert b"mis_" not in shown
    assert contexts.read(home).get("jetson").token == TOKEN


# -- on the wire -----------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[tuple[str, list[str | None]]]:
    with guarded_at("127.0.0.1") as door:
        yield door


@contextlib.contextmanager
def guarded_at(host: str) -> Iterator[tuple[str, list[str | None]]]:
    """A studio's door that lets TOKEN in, and what it was shown."""
    shown: list[str | None] = []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["Authorization"])
            known = shown[-1] == f"Bearer {TOKEN}"
            status = {"name": "mistudio", "version": version(), "jobs": {}, "same_user": False}
            error = {"error": {"code": "unauthorized", "message": "this token is not known here"}}
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps(status if known else error).encode())

        def do_HEAD(self) -> None:
            shown.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((host, 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}", shown
        finally:
            server.shutdown()
            thread.join()


def version() -> str:
    from mistudiod import __version__

    return __version__


def test_a_contexts_token_opens_its_studio(run: Run, guarded: tuple[str, list[str | None]]) -> None:
    url, shown = guarded
    run("context", "add", "lab", url, "--token-stdin", typed=TOKEN)
    assert run("-c", "lab", "status").exit_code == 0
    assert run("status", MISTUDIO_CONTEXT="lab").exit_code == 0
    assert run("status", "-H", url, MISTUDIO_TOKEN=TOKEN).exit_code == 0
    assert set(shown) == {f"Bearer {TOKEN}"}


def test_without_a_good_token_is_said_how_to_give_one(run: Run, guarded: tuple[str, list[str | None]]) -> None:
    url, _ = guarded
    none = run("status", "-H", url)
    assert none.exit_code == 4
    assert none.stderr == (
        f"Error: a token is needed at {url}: give one with mistudio context add NAME HOST, or in MISTUDIO_TOKEN\n"
    )
    wrong = run("status", "-H", url, "--json", MISTUDIO_TOKEN="mis_other")
    assert wrong.exit_code == 4
    error = json.loads(wrong.stderr)["error"]
    assert error["code"] == "unauthorized"
    assert error["message"].startswith("this token is not known here; give one with")
    assert "mis_other" not in wrong.stderr


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")
def test_a_token_is_not_said_in_the_open_to_a_studio_that_speaks_https_only(run: Run) -> None:
    """A host without a scheme is asked in plain HTTP, and everybody on the way could read what is sent along."""
    heard: list[bytes] = []
    with socket.create_server((str(OWN), 0)) as door:
        answers = threading.Thread(target=lambda: heard.append(sent_to_https(door)))
        answers.start()
        refused = run("status", "-H", f"{OWN}:{door.getsockname()[1]}", MISTUDIO_TOKEN=TOKEN)
        answers.join(30)
    assert refused.exit_code == 7 and "speaks HTTPS only" in refused.stderr
    assert heard and TOKEN.encode() not in heard[0]


def sent_to_https(door: socket.socket) -> bytes:
    """The head of a request, which is answered as the port does that other machines reach."""
    door.settimeout(30)
    connection, _ = door.accept()
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1000)
        connection.sendall(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n")
    return head


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")
def test_a_studio_behind_plain_http_is_asked_with_its_token(run: Run) -> None:
    with guarded_at(str(OWN)) as (url, shown):
        assert run("status", "-H", url, MISTUDIO_TOKEN=TOKEN).exit_code == 0
        assert shown[0] is None and set(shown[1:]) == {f"Bearer {TOKEN}"}
