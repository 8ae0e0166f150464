"""nginx and Caddy in front of the studio, set up as docs/operations.md says: its own text is what runs here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from browsing import call
from ports import free_port
from studio import running

DOCS = Path(__file__).parent.parent / "docs" / "operations.md"
SECTION = DOCS.read_text().partition("## Behind nginx or Caddy\n")[2].partition("\n## ")[0]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CADDY = shutil.which("caddy")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have nginx ask as somebody else")


def written(kind: str, studio: str) -> str:
    """An example of the page, in front of the studio at that URL."""
    (text,) = re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)
    assert text.count("127.0.0.1:6478") == 1
    return str(text).replace("127.0.0.1:6478", studio.removeprefix("http://"))


def settings() -> dict[str, str]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    (text,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    return dict(tomllib.loads(text))


@dataclass
class Front:
    """The studio, and what stands before it."""

    studio: str
    url: str
    token: str

    def client(self, **headers: str) -> httpx.Client:
        # The name is only this test's, so is the certificate.
        extensions = {"sni_hostname": "studio.example"}
        client = httpx.Client(base_url=self.url, verify=False, trust_env=False, timeout=60)
        client.headers.update({"Host": f"studio.example:{httpx.URL(self.url).port}", **headers})
        client.event_hooks = {"request": [lambda request: request.extensions.update(extensions)]}
        return client

    def let_in(self) -> httpx.Client:
        return self.client(Authorization=f"Bearer {self.token}")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("behind") / "data", **settings()) as url:
        yield url


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def front(request: pytest.FixtureRequest, studio: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp(request.param)
    if shutil.which(request.param) is None and (request.param, bool(NGINX)) != ("nginx", True):
        pytest.skip(f"{request.param} is not installed")
    token = call(studio, "/api/tokens", {"name": request.param, "scope": "write"})["token"]
    port = free_port()
    command = {"nginx": nginx, "caddy": caddy}[request.param](folder, studio, port)
    with started(folder, command, port):
        yield Front(studio, f"https://127.0.0.1:{port}", token)


def nginx(folder: Path, studio: str, port: int, example: str | None = None) -> list[str]:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=studio.example", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    server = (example or written("nginx", studio)).replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = server.replace("/etc/ssl/studio.example.pem", str(folder / "cert.pem"))
    server = server.replace("/etc/ssl/private/studio.example.key", str(folder / "key.pem"))
    temporary = "".join(
        f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/log;\nworker_processes 1;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"]


def caddy(folder: Path, studio: str, port: int) -> list[str]:
    site = written("caddyfile", studio).replace("studio.example {", f"https://studio.example:{port} {{")
    options = f"{{\nadmin off\nauto_https disable_redirects\nskip_install_trust\nstorage file_system {folder}\n}}\n"
    (folder / "Caddyfile").write_text(options + site)
    return [str(CADDY), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@contextmanager
def started(folder: Path, command: list[str], port: int) -> Iterator[None]:
    """A proxy that answers within the block."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environ)
    try:
        until(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, (folder / "said").read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    try:
        with httpx.Client(verify=False, trust_env=False) as http:
            http.get(
                f"https://127.0.0.1:{port}/",
                headers={"Host": f"studio.example:{port}"},
                extensions={"sni_hostname": "studio.example"},
            )
    except httpx.TransportError:
        return False
    return True


def until(true: Callable[[], bool], limit_s: float = 150) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nobody_comes_through_without_a_token_whatever_he_says_of_himself(front: Front) -> None:
    with front.client() as http:
        assert http.get("/api/status").status_code == 401
        for header, value in (("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "::1"), ("Forwarded", "for=127.0.0.1")):
            assert http.get("/api/status", headers={header: value}).status_code == 401, header
    with front.let_in() as http:
        status = http.get("/api/status")
        assert status.status_code == 200 and status.json()["same_user"] is False
        assert http.get("/api/status", headers={"X-Forwarded-For": "<script>"}).status_code in (200, 400)


def test_the_browsers_own_page_may_change_things_and_no_other(front: Front) -> None:
    with front.let_in() as http:
        own = str(http.base_url).replace("127.0.0.1", "studio.example").rstrip("/")
        assert http.post("/api/jobs/9999/stop", headers={"Origin": own}).status_code == 404
        assert http.post("/api/jobs/9999/stop", headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_browser_that_logs_in_through_it_has_a_cookie_for_tls_alone(front: Front) -> None:
    with front.client() as http:
        assert http.get("/login").status_code == http.get("/").status_code == 200
        answer = http.post("/api/login", json={"token": front.token})
        cookie = answer.headers["Set-Cookie"]
        assert f"mistudio-{httpx.URL(front.url).port}=" in cookie and "Secure" in cookie and "HttpOnly" in cookie
        sent = {"Cookie": cookie.partition(";")[0]}
        assert http.get("/api/login", headers=sent).json()["scope"] == "write"
        assert http.post("/api/jobs/9999/stop", headers=sent | {"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_events_come_through_as_they_happen(front: Front) -> None:
    with front.let_in() as http, http.stream("GET", "/api/events?topics=job") as events:
        lines = events.iter_lines()
        assert next(lines) == "retry: 2000"
        spec = {"kind": "add_dataset", "source": "/text", "name": f"quick-{time.monotonic_ns()}"}
        job = call(front.studio, "/api/jobs", {"spec": spec})["id"]
        told = (json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:"))
        assert job in (one["id"] for one in told)  # held back, it would never come


def test_the_parts_of_an_upload_pass(front: Front) -> None:
    size = 6 << 20  # more than either lets pass, or keeps in memory, by default
    with front.let_in() as http:
        announced = {"path": "x.bin", "bytes": 2 * size, "sha256": hashlib.sha256(b"\0" * 2 * size).hexdigest()}
        upload = http.post("/api/uploads", json={"name": "x", "files": [announced]}).json()
        for offset in (0, size):
            part = http.put(
                f"/api/uploads/{upload['id']}?path=x.bin&offset={offset}",
                content=b"\0" * size,
                headers={"Content-Type": "application/octet-stream"},
            )
            assert part.status_code == 200, part.text
        assert part.json()["complete"] is True
        assert http.delete(f"/api/uploads/{upload['id']}").status_code == 204


@needs_root
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_an_nginx_that_says_nothing_of_whom_it_asks_for_opens_nothing(studio: str, tmp_path: Path, port: int) -> None:
    """Its headers forgotten, every request looks like this machine's own; the kernel knows better."""
    example = re.sub(r".*proxy_set_header.*\n", "", written("nginx", studio))
    for folder in (tmp_path, *tmp_path.parents):  # nginx's own user has to find its temporary files
        folder.chmod(folder.stat().st_mode | 0o111)
    with (
        started(tmp_path, nginx(tmp_path, studio, port, example), port),
        Front(studio, f"https://127.0.0.1:{port}", "").client() as http,
    ):
        assert http.get("/api/status").status_code == 401
