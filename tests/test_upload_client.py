"""Sending files and folders: what goes, what stays, and how a broken line is gone on with."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mistudio import Client, sources, upload
from mistudio.errors import ApiError, Unreachable
from test_uploads import House, opened

MIB = 1 << 20


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("house") / "data") as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(f"127.0.0.1:{house.port}") as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    return folder


def arrived(house: House, said: str) -> dict[str, bytes]:
    files = house.data / "uploads" / said.removeprefix("upload:") / "files"
    return {p.relative_to(files).as_posix(): p.read_bytes() for p in sorted(files.rglob("*")) if p.is_file()}


class Proxy:
    """A line to the studio that breaks: each connection is cut after so many bytes sent, as often as told."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.to, self.cuts, self.made = port, cuts, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            self.made += 1
            threading.Thread(target=self._pass, args=(far, near, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(near, far, self), daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # also ends the accept() that waits
        self.listener.close()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket, cutting: Proxy | None) -> None:
        passed = 0
        try:
            while data := one.recv(65536):
                passed += len(data)
                other.sendall(data)
                if cutting and cutting.cuts and passed > cutting.cuts[0]:
                    del cutting.cuts[0]
                    break
        except OSError:
            pass
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PAUSES_S", (0.05,) * 40)


def test_a_file_is_sent_under_its_name(house: House, client: Client, source: Path) -> None:
    (source / "My Diary.txt").write_bytes(b"dear")
    said = upload.send(client, source / "My Diary.txt", "diary")
    assert arrived(house, said) == {"My Diary.txt": b"dear"}
    assert house.show(said.removeprefix("upload:"))["name"] == "diary"


def test_a_folder_is_sent_file_by_file_without_its_hidden_ones(house: House, client: Client, source: Path) -> None:
    (source / "b" / "c").mkdir(parents=True)
    (source / ".git").mkdir()
    files = {"a.txt": b"1", "b/c/d.txt": b"2" * 100, "empty.txt": b"", "ü/日本.txt": b"3"}
    (source / "ü").mkdir()
    for path, data in files.items():
        (source / path).write_bytes(data)
    (source / ".git" / "config").write_bytes(b"x")
    (source / ".hidden.txt").write_bytes(b"x")
    os.mkfifo(source / "pipe")
    heard: list[tuple[int, int]] = []
    said = upload.send(client, source, "books", lambda *numbers: heard.append(numbers))
    assert arrived(house, said) == files
    assert heard[-1] == (102, 102) and heard == sorted(heard)


def test_links_inside_are_followed_and_links_out_are_refused(house: House, client: Client, source: Path) -> None:
    (source / "a.txt").write_bytes(b"text")
    (source / "b.txt").symlink_to("a.txt")
    (source / "gone.txt").symlink_to("nothing")
    assert arrived(house, upload.send(client, source, "linked")) == {"a.txt": b"text", "b.txt": b"text"}
    (source / "c.txt").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match=r"c\.txt is a link out of the folder .*cp -rL"):
        upload.send(client, source, "linked")
    (source / "c.txt").unlink()
    (source / "etc").symlink_to("/etc")
    with pytest.raises(ValueError, match="is a link out of the folder"):
        upload.send(client, source, "linked")


def test_a_link_that_was_named_itself_is_followed(house: House, client: Client, source: Path) -> None:
    (source / "a.txt").write_bytes(b"text")
    (source.parent / "link.txt").symlink_to(source / "a.txt")
    (source.parent / "books2").symlink_to(source)
    assert arrived(house, upload.send(client, source.parent / "link.txt", "x")) == {"link.txt": b"text"}
    assert arrived(house, upload.send(client, source.parent / "books2", "x")) == {"a.txt": b"text"}


@pytest.mark.parametrize(("named", "within"), [("", "repo-L0_50"), (":layer_1/", "repo-L0_50/layer_1")])
def test_a_folder_of_saes_is_sent_with_its_name(
    house: House, client: Client, source: Path, named: str, within: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_reads_our_files", lambda _status: False)
    folder = source.rename(source.with_name("repo-L0_50"))
    (folder / "layer_1").mkdir()
    (folder / "layer_1" / "cfg.json").write_bytes(b"{}")
    said = sources.settled_sae(client, f"{folder}{named}", "s")
    upload_id, _, path = said.rpartition(":")
    assert path == within and arrived(house, upload_id) == {"repo-L0_50/layer_1/cfg.json": b"{}"}
    monkeypatch.chdir(folder)
    assert sources.settled_sae(client, ".", "s") == f"{upload_id}:repo-L0_50", "what is there is not sent again"
    said = sources.settled_sae(client, "layer_1/cfg.json", "t")
    assert arrived(house, said) == {"cfg.json": b"{}"} and said.count(":") == 1


def test_nothing_to_send_is_said(client: Client, source: Path) -> None:
    with pytest.raises(ValueError, match="no files to send"):
        upload.send(client, source, "books")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        upload.send(client, source / "none", "books")


def test_a_broken_line_is_gone_on_with(house: House, source: Path, quick: None) -> None:
    data = os.urandom(20 * MIB + 5)
    (source / "a.txt").write_bytes(data)
    (source / "b.txt").write_bytes(b"after")
    proxy = Proxy(house.port, [3 * MIB, 9 * MIB, MIB, 2 * MIB])
    with Client(f"127.0.0.1:{proxy.port}") as client:
        said = upload.send(client, source, "broken")
    proxy.close()
    assert proxy.made >= 5 and not proxy.cuts
    assert arrived(house, said) == {"a.txt": data, "b.txt": b"after"}


def test_a_line_that_stays_broken_is_said_and_the_next_try_goes_on(house: House, source: Path, quick: None) -> None:
    data = os.urandom(20 * MIB)
    (source / "a.txt").write_bytes(data)
    proxy = Proxy(house.port, [9 * MIB])
    with Client(f"127.0.0.1:{proxy.port}") as client:

        def told(done: int, _total: int) -> None:
            if done >= 8 * MIB:
                proxy.close()

        with pytest.raises((Unreachable, TimeoutError)):
            upload.send(client, source, "given-up", told)
    with Client(f"127.0.0.1:{house.port}") as client:
        first: list[int] = []
        said = upload.send(client, source, "given-up", lambda done, _: first.append(done))
        assert first[0] >= 8 * MIB, "it began where the other had come to"
        assert arrived(house, said) == {"a.txt": data}
        assert upload.send(client, source, "given-up") == said, "what is all there is not sent again"
        assert [one["name"] for one in client.uploads()].count("given-up") == 1


def test_a_refusal_is_not_tried_again(house: House, source: Path) -> None:
    (source / "a.txt").write_bytes(b"x" * 100)
    with Client(f"127.0.0.1:{house.port}") as client:
        begun = time.monotonic()

        def change(_done: int, _total: int) -> None:
            (source / "a.txt").write_bytes(b"y" * 100)

        with pytest.raises(ApiError, match="another sha256"):
            upload.send(client, source, "changed", change)
        assert time.monotonic() - begun < 5


def test_a_file_that_became_shorter_is_said(house: House, client: Client, source: Path) -> None:
    (source / "a.txt").write_bytes(os.urandom(9 * MIB))

    def cut(done: int, _total: int) -> None:
        if done == 8 * MIB:
            os.truncate(source / "a.txt", 1000)

    with pytest.raises(RuntimeError, match="became shorter"):
        upload.send(client, source, "shrunk", cut)


def test_the_studio_may_be_restarted_in_the_middle(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_PAUSES_S", (0.05,) * 1200)  # a restart takes as long as it takes
    data = os.urandom(24 * MIB)
    (source / "a.txt").write_bytes(data)
    with opened(tmp_path / "data") as house, Client(f"127.0.0.1:{house.port}") as client:
        restarts: list[threading.Thread] = []

        def told(done: int, _total: int) -> None:
            if done == 8 * MIB and not restarts:
                restarts.append(threading.Thread(target=house.restart))
                restarts[0].start()

        said = upload.send(client, source, "restarted", told)
        restarts[0].join()
        assert arrived(house, said) == {"a.txt": data}


TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "ü x", "c.txt"]), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=2000),
    min_size=1,
    max_size=6,
).filter(lambda files: not any(one != two and two.startswith(one + "/") for one in files for two in files))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(files=TREES, part_bytes=st.integers(1, 900))
def test_any_folder_in_parts_of_any_size_arrives_equal(
    house: House, client: Client, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], part_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "PART_BYTES", part_bytes)
        said = upload.send(client, folder, "tree")
    assert arrived(house, said) == files
    client.remove_upload(said.removeprefix("upload:"))
