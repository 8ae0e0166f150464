"""A daemon that other machines reach: TLS, nothing without a token, pairing, clients that know its certificate."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from mistudio import Client, contexts
from mistudio.cli import main
from mistudio.errors import ApiError, WrongCertificate
from mistudio.pinned import certificate_of
from test_daemon import Daemon
from test_doors import every_guarded_operation, url

from mistudiod import own_address

OWN = next((one for one in own_address.all_of_them() if "." in one), None)
CODE = re.compile(r"within 5 minutes: ([0-9]{8})$", re.MULTILINE)
Run = Callable[..., Result]


class Lan(Daemon):
    """It says a code at its first start. ``here``: its URL on this machine, ``away``: as others reach it."""

    def __init__(self, data: Path, *arguments: str) -> None:
        super().__init__(data, "--listen", "lan", *arguments)

    def ready(self) -> Lan:
        super().ready()
        self.away = self.url
        self.here = f"https://127.0.0.1:{self.url.rpartition(':')[2]}"
        return self

    def code(self) -> str:
        found = CODE.search("".join(self.said))
        assert found, self.said
        return found[1]

    @property
    def socket(self) -> str:
        return f"unix:{self.data}/mistudiod.sock"

    @property
    def certificate(self) -> Path:
        return self.data / "tls" / "certificate.pem"

    def pin(self) -> str:
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest().upper()
        return ":".join(re.findall("..", digest))

    def http(self, base: str | None = None, token: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=base or self.here, verify=ssl.create_default_context(cafile=str(self.certificate)),
            headers={"Authorization": f"Bearer {token}"} if token else {}, trust_env=False, timeout=20,
        )  # fmt: skip


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    daemon = Lan(tmp_path_factory.mktemp("lan") / "data").ready()
    daemon.first_code = daemon.code()  # type: ignore[attr-defined]
    yield daemon
    if daemon.process.poll() is None:
        daemon.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def admin(lan: Lan) -> str:
    """The first device's token."""
    with lan.http() as http:
        request = {"code": lan.first_code, "name": "first"}  # type: ignore[attr-defined]
        answer = http.post("/api/pair", json=request)
        assert answer.status_code == 201 and answer.json()["scope"] == "admin"
        assert http.post("/api/pair", json=request).status_code == 403
        return str(answer.json()["token"])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*args: str, **environ: str) -> Result:
        bare = {name: None for name in os.environ if name.startswith("MISTUDIO_")}
        home = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "share")}
        return CliRunner(env={**bare, **home, **environ}).invoke(main, list(args))

    return invoke


def kept(tmp_path: Path, name: str) -> contexts.Context:
    return contexts.read({"XDG_CONFIG_HOME": str(tmp_path / "config")}).get(name)


# -- who gets in -----------------------------------------------------------------------------------------------------


def test_the_first_start_says_a_code_for_eyes_alone_and_its_certificate(lan: Lan, admin: str) -> None:
    said = "".join(lan.said)
    assert f"know this studio by its certificate {lan.pin()}" in said
    log = (lan.data / "mistudiod.log").read_text()
    assert lan.pin() in log and lan.first_code not in log and admin not in log  # type: ignore[attr-defined]


def test_both_families_answer_over_tls(lan: Lan, admin: str) -> None:
    hosts = ["127.0.0.1", "localhost"]
    with socket.socket(socket.AF_INET6) as one:
        try:
            one.bind(("::1", 0))
            hosts.append("[::1]")
        except OSError:
            pass  # a machine without IPv6
    for host in hosts:
        with lan.http(f"https://{host}:{lan.url.rpartition(':')[2]}", admin) as http:
            assert http.get("/api/status").status_code == 200, host


@every_guarded_operation
def test_no_route_answers_without_a_token(strangers: httpx.Client, method: str, path: str, operation: Any) -> None:
    answer = strangers.request(method, url(path, operation))
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthorized"


@pytest.fixture(scope="module")
def strangers(lan: Lan) -> Iterator[httpx.Client]:
    with lan.http() as http:
        yield http


def test_what_is_no_route_does_not_answer_either(strangers: httpx.Client) -> None:
    for method, path in (("GET", "/api/nothing"), ("GET", "/nothing"), ("OPTIONS", "/api/jobs"), ("OPTIONS", "/"),
                         ("PUT", "/"), ("GET", "/../etc/passwd"), ("GET", "/api/"), ("GET", "/v1/")):  # fmt: skip
        assert strangers.request(method, path).status_code == 401, (method, path)


def test_the_files_of_the_page_are_public(strangers: httpx.Client) -> None:
    for path in ("/", "/main.js"):
        assert strangers.get(path).status_code == 200, path


def test_plain_http_is_sent_to_https(lan: Lan) -> None:
    with httpx.Client(trust_env=False) as http:
        answer = http.get(f"{lan.here.replace('https', 'http')}/api/status")
        assert (answer.status_code, answer.headers["Location"]) == (307, f"{lan.here}/api/status")
        assert http.post(f"{lan.here.replace('https', 'http')}/api/jobs", json={}).status_code == 400


def test_tls_older_than_1_2_is_not_spoken(lan: Lan) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", int(lan.url.rpartition(":")[2])), 10) as plain,
        pytest.raises(OSError),
    ):
        old.wrap_socket(plain)


def test_this_user_needs_no_token_at_the_socket_and_makes_codes_there(lan: Lan, admin: str, run: Run) -> None:
    made = run("token", "pair", "--json", "--scope", "read", "--name", "tablet", "-H", lan.socket)
    about = json.loads(made.stdout)
    assert (about["url"], about["fingerprint"], about["scope"]) == (lan.away, lan.pin(), "read")
    shown = run("token", "pair", "--expires", "30d", "-H", lan.socket)
    assert re.fullmatch("[0-9]{8}\n", shown.stdout)
    assert f"{lan.away} --pair {shown.stdout.strip()} --fingerprint {lan.pin()}" in shown.stderr
    with lan.http() as http:
        paired = http.post("/api/pair", json={"code": shown.stdout.strip(), "name": "laptop"}).json()
        assert (paired["name"], paired["scope"]) == ("laptop", "write") and paired["expires_at"]
        assert http.get("/api/jobs", headers={"Authorization": f"Bearer {paired['token']}"}).status_code == 200
    listed = run("token", "list", "--json", "-H", lan.socket)
    assert [one["name"] for one in json.loads(listed.stdout)["tokens"]][:2] == ["first", "laptop"]


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback")
def test_wrong_tokens_from_elsewhere_are_slowed_and_a_good_one_is_let_in_all_the_while(lan: Lan, admin: str) -> None:
    wrong = f"mis_1_{'A' * 43}"
    with lan.http(f"https://{OWN}:{lan.url.rpartition(':')[2]}") as http:
        answers = []
        while not answers or (answers[-1].status_code == 401 and len(answers) < 60):
            answers.append(http.get("/api/jobs", headers={"Authorization": f"Bearer {wrong}"}))
        assert len(answers) > 10 and answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 6
        assert http.get("/api/jobs", headers={"Authorization": f"Bearer {admin}"}).status_code == 200
        assert http.get("/api/jobs").status_code == 401  # none at all is no guess


# -- clients that know the certificate -------------------------------------------------------------------------------


def test_a_context_is_paired_and_its_certificate_is_the_only_one_accepted(
    lan: Lan, admin: str, run: Run, tmp_path: Path
) -> None:
    code = json.loads(run("token", "pair", "--json", "-H", lan.socket).stdout)["code"]
    added = run("context", "add", "lab", lan.here, "--pair", f"{code[:4]} {code[4:]}", "--yes")
    assert added.exit_code == 0 and lan.pin() in added.stderr, added.output
    found = kept(tmp_path, "lab")
    assert (found.host, found.fingerprint) == (lan.here, lan.pin()) and str(found.token).startswith("mis_")
    assert str(found.token) not in added.output
    assert run("-c", "lab", "job", "list").exit_code == 0
    assert json.loads(run("-c", "lab", "context", "show", "--json").stdout)["fingerprint"] == lan.pin()
    pin = lan.pin().replace(":", "").lower()
    with Client(lan.here, fingerprint=pin) as stranger, pytest.raises(ApiError, match="a token is needed"):
        stranger.jobs()


def test_events_and_uploads_go_over_the_pinned_connection_too(
    lan: Lan, admin: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mistudio.upload import send

    monkeypatch.setenv("MISTUDIO_TOKEN", admin)
    monkeypatch.setenv("MISTUDIO_HOST", lan.here)
    monkeypatch.setenv("MISTUDIO_FINGERPRINT", lan.pin())
    (tmp_path / "text.txt").write_text("a text\n" * 1000)
    with Client() as client:
        events = client.events()
        assert next(events)["topic"] == "connected"
        events.close()  # type: ignore[attr-defined]
        assert send(client, tmp_path / "text.txt", "text.txt").startswith("upload:")
    monkeypatch.setenv("MISTUDIO_FINGERPRINT", "AB" * 32)
    with Client() as client:
        for ask in (client.jobs, client.uploads, lambda: next(client.events())):
            with pytest.raises(WrongCertificate, match=f"its fingerprint is {lan.pin()}, and AB:AB:"):
                ask()


def test_a_code_is_not_sent_to_who_has_another_certificate(lan: Lan, admin: str, run: Run) -> None:
    code = json.loads(run("token", "pair", "--json", "-H", lan.socket).stdout)["code"]
    refused = run("context", "add", "lab", lan.here, "--pair", code, "--fingerprint", "ab" * 32)
    assert refused.exit_code == 4 and "has another certificate than the studio" in refused.stderr
    assert run("context", "add", "lab", lan.here, "--pair", code, "--fingerprint", lan.pin()).exit_code == 0


@pytest.mark.parametrize(
    ("args", "word", "exit_code"),
    [
        (("lab", "HERE", "--pair", "00000000"), "nobody can be asked whether that is the studio", 2),
        (("lab", "PLAIN", "--pair", "00000000"), "has no certificate: give a host", 2),
        (("lab", "HERE", "--fingerprint", "AB:CD"), "is no fingerprint", 2),
        (("../x", "HERE", "--pair", "00000000"), "cannot be a context", 2),
        (("lab", "HERE", "--pair", "00000000", "--token-stdin"), "a code or a token, not both", 2),
        (("lab", "HERE", "--pair", "1234", "--yes"), "code", 6),
        (("lab", "unix:/x.sock", "--pair", "00000000"), "has no certificate", 2),
        (("lab", "127.0.0.1:1", "--pair", "00000000", "--yes"), "no studio answers at https://127.0.0.1:1", 7),
    ],
)
def test_what_cannot_be_paired_is_one_sentence_and_costs_no_code(
    lan: Lan, run: Run, tmp_path: Path, args: tuple[str, ...], word: str, exit_code: int
) -> None:
    places = {"HERE": lan.here, "PLAIN": lan.here.replace("https", "http")}
    refused = run("context", "add", *(places.get(one, one) for one in args))
    assert refused.exit_code == exit_code and word in refused.stderr, refused.output
    assert not kept_at_all(tmp_path)


def kept_at_all(tmp_path: Path) -> dict[str, contexts.Context]:
    return contexts.read({"XDG_CONFIG_HOME": str(tmp_path / "config")}).known


def test_without_a_pin_is_said_how_to_get_one(lan: Lan, run: Run) -> None:
    unknown = run("status", "-H", lan.here)
    assert unknown.exit_code == 7 and "is not known here: pair with the studio" in unknown.stderr
    plain = run("status", "-H", lan.here.replace("https", "http"))
    assert plain.exit_code == 7 and "speaks HTTPS only" in plain.stderr


def test_the_command_shows_the_certificate(lan: Lan) -> None:
    shown = certificate(lan)
    assert f"fingerprint    {lan.pin()}\n" in shown and socket.gethostname().lower() in shown
    assert f"certificate    {lan.certificate}\n" in shown and "expires        2049-12-31\n" in shown
    assert certificate_of(lan.here) == lan.pin()


def certificate(lan: Lan, *options: str) -> str:
    command = [sys.executable, "-m", "mistudiod", "certificate", "--data", str(lan.data), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_terminal_is_asked_whether_the_certificate_is_the_studios(lan: Lan, admin: str, tmp_path: Path) -> None:
    with Client(lan.socket) as client:
        code = client.create_pairing()["code"]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    for answer, exit_code in ((b"n\n", 1), (b"y\n", 0)):
        ours, its = pty.openpty()
        command = [sys.executable, "-m", "mistudio.cli", "context", "add", "lab", lan.here, "--pair", code]
        with subprocess.Popen(
            command, stdin=its, stdout=its, stderr=its, env=environ, start_new_session=True
        ) as process:
            os.close(its)
            shown = b""
            while b"Is it the same? [y/N]: " not in shown:
                shown += os.read(ours, 1000)
            os.write(ours, answer)
            assert process.wait(60) == exit_code
        os.close(ours)
        assert lan.pin().encode() in shown and code.encode() not in shown
    assert kept(tmp_path, "lab").fingerprint == lan.pin()


def test_the_doctor_knows_its_own_daemon_behind_tls(lan: Lan, admin: str) -> None:
    from mistudiod.doctor import reach
    from mistudiod.doctor.finding import Subject
    from mistudiod.settings import Settings

    settings = Settings(data=lan.data, listen="lan", port=int(lan.url.rpartition(":")[2]))
    found = reach.port(Subject(settings))
    assert (found.level, "the daemon of this data folder listens on lan" in found.message) == ("ok", True)
    assert reach.access(Subject(settings)).level == "ok"


def test_a_stalled_stranger_holds_nobody_up_and_does_not_hold_up_the_end(tmp_path: Path, run: Run) -> None:
    """And a certificate that was renewed is told from that which was pinned; a start with a token says no code."""
    first = Lan(tmp_path / "data").ready()
    try:
        code = first.code()
        assert run("context", "add", "lab", first.here, "--pair", code, "--yes").exit_code == 0
        port = int(first.url.rpartition(":")[2])
        stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for one in stalled[:25]:
            one.sendall(b"\x16\x03\x01")
        assert run("-c", "lab", "status").exit_code == 0
        assert run("status", "-H", first.socket).exit_code == 0
        before = first.pin()
        certificate(first, "--renew")
        assert run("-c", "lab", "status").exit_code == 0  # what runs keeps what it has
        assert first.end() == 0
        for one in stalled:
            one.close()
        assert "Traceback" not in "".join(first.said)
        second = Lan(tmp_path / "data").ready()
    finally:
        if first.process.poll() is None:
            first.end(signal.SIGKILL)
    try:
        known = contexts.path({"XDG_CONFIG_HOME": str(tmp_path / "config")})
        known.write_text(known.read_text().replace(first.here, second.here))  # another may have the port by now
        refused = run("-c", "lab", "status", "--json")
        message = json.loads(refused.stderr)["error"]["message"]
        assert refused.exit_code == 4 and before in message and second.pin() in message and before != second.pin()
        assert second.end() == 0 and not CODE.search("".join(second.said))
    finally:
        if second.process.poll() is None:
            second.end(signal.SIGKILL)
