"""Publishing through a whole studio: asked for at a terminal, with the token that it has stored, and pulled again."""

from __future__ import annotations

import json
import os
import pty
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hub import Hub
from huggingface_hub import snapshot_download
from mistudio import Client
from pushing import CARD, NAMES, WEIGHTS, add_sae

TOKEN = f"hf_{secrets.token_hex(17)}"
MISTUDIO = [sys.executable, "-m", "mistudio.cli"]


class Studio:
    """A studio with the SAE s and the token, whose Hub is the tests' own. ``said``: what it and its clients said."""

    def __init__(self, folder: Path, hub: Hub, **environ: str) -> None:
        self.data, self.hub, self.said = folder / "data", hub, ""
        add_sae(self.data)
        known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MISTUDIO_"))}
        self.environ = known | hub.environ(folder / "huggingface") | {"TERM": "xterm", "COLUMNS": "200"} | environ
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(self.data), "--port", "0"]
        self.daemon = subprocess.Popen(command, env=self.environ, stderr=subprocess.PIPE, text=True)
        assert self.daemon.stderr is not None
        for line in self.daemon.stderr:
            self.said += line
            if "is at http://" in line:
                break
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.environ["MISTUDIO_HOST"] = f"unix:{self.data / 'mistudiod.sock'}"
        self.run("secret", "set", "hf", typed=TOKEN)
        assert self.run("label", "set", "s", "3", "is about imports").returncode == 0

    def _read(self) -> None:
        assert self.daemon.stderr is not None
        for line in self.daemon.stderr:
            self.said += line

    def run(self, *args: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """A command without a terminal."""
        options = {"input": typed, "capture_output": True, "text": True, "timeout": 120}
        ended = subprocess.run([*MISTUDIO, *args], env=self.environ, check=False, **options)  # type: ignore[call-overload]
        self.said += ended.stdout + ended.stderr
        return ended  # type: ignore[no-any-return]

    def at_terminal(self, *args: str, typed: str) -> tuple[int, str]:
        """Exit code and what a terminal shows."""
        ours, its = pty.openpty()
        process = subprocess.Popen([*MISTUDIO, *args], stdin=its, stdout=its, stderr=its, env=self.environ)
        os.close(its)
        os.write(ours, typed.encode())
        shown = b""
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:
            pass  # EIO: the other end is closed
        os.close(ours)
        self.said += shown.decode(errors="replace")
        return process.wait(60), shown.decode(errors="replace")

    def end(self) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(30)
        self.reader.join()
        assert self.daemon.stderr is not None
        self.daemon.stderr.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with Hub() as hub:
        hub.uploads.let_write(TOKEN, "org")
        studio = Studio(tmp_path_factory.mktemp("studio"), hub)
        yield studio
        studio.end()


def files_of(studio: Studio, id: str) -> set[str]:
    repo = studio.hub.repo("models", id)
    return set(repo.newest()[1]) - {".gitattributes"} if repo else set()


def test_at_a_terminal_the_card_is_shown_and_publishing_is_asked_for(studio: Studio) -> None:
    code, shown = studio.at_terminal("sae", "push", "s", "org/asked", typed="n\n")
    assert code == 1 and files_of(studio, "org/asked") == set()
    assert "library_name" in shown and "Publish it as org/asked?" in shown
    code, shown = studio.at_terminal("sae", "push", "s", "org/asked", typed="y\n")
    assert code == 0 and files_of(studio, "org/asked") == NAMES, shown
    code, shown = studio.at_terminal("sae", "push", "s", "org/yes", "--yes", typed="")
    assert code == 0 and files_of(studio, "org/yes") == NAMES and "Publish it" not in shown


def test_without_a_terminal_it_goes_and_says_what_went_where(studio: Studio) -> None:
    ended = studio.run("sae", "push", "s", "org/plain", "--private", "--message", "first")
    assert ended.returncode == 0, ended.stderr
    assert f"{studio.hub.url}/org/plain (made)" in ended.stdout and "(private)" in ended.stdout
    assert all(name in ended.stdout for name in NAMES)
    again = json.loads(studio.run("sae", "push", "s", "org/plain", "--private", "--json").stdout)
    assert {one["state"] for one in again["result"]["files"]} == {"same"}


def test_a_dry_run_publishes_nothing(studio: Studio) -> None:
    ended = studio.run("sae", "push", "s", "org/dry", "--dry-run")
    assert ended.returncode == 0 and "(would be made)" in ended.stdout and "library_name" in ended.stdout
    assert files_of(studio, "org/dry") == set()


def test_what_is_refused_is_a_sentence_and_an_exit_code(studio: Studio) -> None:
    theirs = studio.run("sae", "push", "s", "theirs/s")
    assert (theirs.returncode, theirs.stdout) == (10, "")
    assert "repo: the stored token, of the account somebody, may not write to theirs/s (You don't have" in theirs.stderr
    wrong = studio.run("sae", "push", "s", "no-owner")
    assert wrong.returncode == 6 and "must be owner/name" in wrong.stderr
    assert studio.run("sae", "push", "t", "org/t").returncode == 6


def test_another_studio_pulls_what_was_pushed(studio: Studio, tmp_path: Path) -> None:
    assert studio.run("sae", "push", "s", "org/shared").returncode == 0
    pulled = Path(snapshot_download("org/shared", endpoint=studio.hub.url, cache_dir=tmp_path / "hub", token=False))
    assert (pulled / WEIGHTS).read_bytes() == (studio.data / "saes" / "s" / WEIGHTS).read_bytes()
    assert (pulled / CARD).is_file()


def test_the_token_is_found_nowhere_but_where_it_was_put(studio: Studio) -> None:
    """Last: after all that the studio was asked here."""
    studio.hub.uploads.quota_bytes = 0
    add_sae(studio.data, seed=1)
    with Client(studio.environ["MISTUDIO_HOST"]) as client:
        failed = client.wait(client.submit({"kind": "push", "sae": "s", "repo": "org/full"})["id"], 60)
        assert failed["state"] == "failed" and "has no room" in failed["error"]["message"]
        told = [json.dumps([job, client.log(job["id"])]) for job in client.every_job()]
    assert {one.authorization for one in studio.hub.seen} == {f"Bearer {TOKEN}", None}  # None: pulled, or a CDN
    studio.end()
    assert not [text for text in (*told, studio.said) if TOKEN in text]
    kept = [path for path in studio.data.rglob("*") if path.is_file() and path.name != "secrets.json"]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    with closing(sqlite3.connect(studio.data / "mistudio.db")) as db:
        assert not [row for row in db.iterdump() if TOKEN in row]


def test_an_offline_studio_says_so_in_a_sentence(tmp_path: Path) -> None:
    with Hub() as hub:
        studio = Studio(tmp_path, hub, MISTUDIO_OFFLINE="true")
        ended = studio.run("sae", "push", "s", "org/s")
        studio.end()
        assert ended.returncode == 10 and "miStudio is offline, so nothing can be published" in ended.stderr
        assert hub.seen == []
