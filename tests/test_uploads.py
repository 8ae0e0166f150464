"""Uploads over real HTTP: whatever cuts them off, they go on where they were, and what arrives is what was sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from conftest import FAKE_WORKER
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.api.keys import UPLOADS
from mistudiod.api.uploads import FileUpload, UploadPage
from mistudiod.app import make_app
from mistudiod.settings import Settings
from mistudiod.uploads import KEPT_S, MAX_UPLOADS, Uploads

MIB = 1 << 20


def announced(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class House:
    """The real application on a real port, in a thread of its own; it can be stopped and started again."""

    def __init__(self, data: Path, limit_bytes: int = 1 << 30, **options: Any) -> None:
        self.data, self.limit_bytes, self.port, self.options = data, limit_bytes, 0, options
        self.http = httpx.Client(timeout=30, trust_env=False)
        self.start()

    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.runner = self.within(self._start)

    async def _start(self) -> web.AppRunner:
        app = make_app(Settings(data=self.data, stop_grace_s=0.5, term_grace_s=0.5, **self.options), FAKE_WORKER)
        self.uploads = app[UPLOADS] = Uploads(self.data / "uploads", self.limit_bytes)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]
        return runner

    def within(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine function in the server's loop."""
        return asyncio.run_coroutine_threadsafe(function(*args), self.loop).result(60)

    def stop(self) -> None:
        self.within(self.runner.cleanup)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = self.http.request(method, f"http://127.0.0.1:{self.port}{path}", **options)
        return answer.status_code, answer.json() if answer.content else None

    def create(self, *files: dict[str, Any], name: str = "books") -> Any:
        status, made = self.call("POST", "/api/uploads", json={"name": name, "files": list(files)})
        assert status == 201, made
        return FileUpload.model_validate(made).model_dump()

    def refused(self, *files: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, body = self.call("POST", "/api/uploads", json={"name": "books", "files": list(files)})
        return status, body["error"]

    def put(self, id: str, path: str, offset: int, data: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/octet-stream"}
        query = {"path": path, "offset": offset}
        return self.call("PUT", f"/api/uploads/{id}", params=query, content=data, headers=headers)

    def show(self, id: str) -> Any:
        status, found = self.call("GET", f"/api/uploads/{id}")
        assert status == 200, found
        return FileUpload.model_validate(found).model_dump()

    def stands(self, id: str, file: int = 0) -> int:
        return int(self.show(id)["files"][file]["received_bytes"])

    def file(self, id: str, path: str) -> Path:
        return self.data / "uploads" / id / "files" / path

    def begin_put(self, id: str, path: str, offset: int, length: int) -> socket.socket:
        """A PUT whose body is still to come."""
        raw = socket.create_connection(("127.0.0.1", self.port))
        head = f"PUT /api/uploads/{id}?path={path}&offset={offset} HTTP/1.1\r\nHost: localhost\r\n"
        raw.sendall((head + f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n").encode())
        return raw

    def until(self, what: Callable[[], bool], limit_s: float = 60.0) -> None:
        end = time.monotonic() + limit_s
        while not what():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)


@contextmanager
def opened(data: Path, **options: Any) -> Iterator[House]:
    house = House(data, **options)
    try:
        yield house
    finally:
        house.stop()
        house.http.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("house") / "data") as house:
        yield house


@pytest.fixture
def own(tmp_path: Path) -> Iterator[House]:
    """A house that may be stopped."""
    with opened(tmp_path / "data") as house:
        yield house


def test_a_file_sent_in_two_parts_is_there_when_its_sha256_is_right(house: House) -> None:
    data = os.urandom(3 * MIB + 17)
    upload = house.create(announced("a/ü b.txt", data))
    assert upload["complete"] is False and upload["received_bytes"] == 0 and upload["bytes"] == len(data)
    status, half = house.put(upload["id"], "a/ü b.txt", 0, data[:MIB])
    assert (status, half["received_bytes"], half["complete"]) == (200, MIB, False)
    assert not house.file(upload["id"], "a/ü b.txt").exists(), "it has its name when it is whole"
    status, whole = house.put(upload["id"], "a/ü b.txt", MIB, data[MIB:])
    assert (status, whole["complete"], whole["files"][0]["received_bytes"]) == (200, True, len(data))
    assert house.file(upload["id"], "a/ü b.txt").read_bytes() == data
    page = UploadPage.model_validate(house.call("GET", "/api/uploads")[1])
    assert [one.complete for one in page.uploads if one.id == upload["id"]] == [True]


def test_an_empty_file_need_not_be_sent(house: House) -> None:
    upload = house.create(announced("empty.txt", b""))
    assert upload["complete"] is True
    assert house.file(upload["id"], "empty.txt").read_bytes() == b""
    status, error = house.refused({"path": "empty.txt", "bytes": 0, "sha256": "0" * 64})
    assert (status, "files.0.sha256" in error["fields"]) == (400, True)


def test_an_answer_to_a_part_shows_only_its_file(house: House) -> None:
    files = {f"{n}.txt": bytes([n]) * 10 for n in range(5)}
    upload = house.create(*(announced(path, data) for path, data in files.items()))
    for n, (path, data) in enumerate(files.items()):
        _, answer = house.put(upload["id"], path, 0, data)
        assert [file["path"] for file in answer["files"]] == [path]
        assert (answer["received_bytes"], answer["complete"]) == (10 * (n + 1), n == 4)


def test_a_cut_upload_goes_on_at_its_offset(house: House) -> None:
    data = os.urandom(5 * MIB)
    id = house.create(announced("a.txt", data))["id"]
    raw = house.begin_put(id, "a.txt", 0, len(data))
    raw.sendall(data[: 3 * MIB + 1234])
    raw.close()
    house.until(lambda: house.stands(id) >= 2 * MIB)  # what was still in the socket's buffers may be lost
    sent = []

    def goes_on() -> bool:
        at = house.stands(id)
        sent.append(len(data) - at)
        status, answer = house.put(id, "a.txt", at, data[at:])
        assert status in (200, 409), answer  # 409 until the daemon has noticed
        return status == 200

    house.until(goes_on)
    assert sent[-1] <= 3 * MIB, "what had come was not sent again"
    assert house.file(id, "a.txt").read_bytes() == data


def test_a_cut_upload_goes_on_after_a_restart(own: House) -> None:
    data, other = os.urandom(3 * MIB), b"other"
    id = own.create(announced("a.txt", data), announced("b.txt", other))["id"]
    raw = own.begin_put(id, "a.txt", 0, len(data))
    raw.sendall(data[: 2 * MIB])
    own.until(lambda: own.stands(id) >= MIB)
    assert own.put(id, "b.txt", 0, other)[0] == 200
    own.restart()
    raw.close()
    at = own.stands(id)
    assert 0 < at <= 2 * MIB and own.stands(id, 1) == len(other)
    assert own.put(id, "a.txt", at, data[at:])[1]["complete"] is True
    assert own.file(id, "a.txt").read_bytes() == data
    own.restart()
    assert own.show(id)["complete"] is True


def test_a_stop_between_the_last_byte_and_the_check_loses_nothing(own: House) -> None:
    """The part is on disk in full, but nobody has said yet that its sha256 is right."""
    data = os.urandom(MIB)
    id = own.create(announced("a.txt", data))["id"]
    own.stop()
    (own.data / "uploads" / id / "parts" / "0").write_bytes(data)
    own.start()
    assert own.stands(id) == MIB - 1
    assert own.put(id, "a.txt", MIB - 1, data[-1:])[1]["complete"] is True
    assert own.file(id, "a.txt").read_bytes() == data


def test_what_a_power_cut_spoiled_is_found_by_its_sha256(own: House) -> None:
    data = os.urandom(MIB)
    id = own.create(announced("a.txt", data))["id"]
    own.stop()
    (own.data / "uploads" / id / "parts" / "0").write_bytes(bytes(MIB // 2))
    own.start()
    assert own.put(id, "a.txt", MIB // 2, data[MIB // 2 :])[0] == 400
    assert own.put(id, "a.txt", 0, data)[1]["complete"] is True


def test_a_wrong_sha256_drops_the_file_to_nothing(house: House) -> None:
    data = os.urandom(1000)
    id = house.create(announced("a.txt", data), announced("b.txt", b"b"))["id"]
    status, body = house.put(id, "a.txt", 0, data[:-1] + b"x" * (data[-1:] != b"x") + b"y" * (data[-1:] == b"x"))
    assert (status, body["error"]["code"]) == (400, "invalid")
    assert "another sha256" in body["error"]["message"] and "a.txt" in body["error"]["message"]
    assert house.stands(id) == 0
    assert not house.file(id, "a.txt").exists()
    assert house.put(id, "a.txt", 0, data)[0] == 200
    assert house.file(id, "a.txt").read_bytes() == data


def test_another_offset_is_refused_with_the_right_one(house: House) -> None:
    data = os.urandom(1000)
    id = house.create(announced("a.txt", data))["id"]
    house.put(id, "a.txt", 0, data[:400])
    for offset in (0, 399, 401, 1000, 5000):
        status, body = house.put(id, "a.txt", offset, data[400:])
        assert (status, "go on from 400" in body["error"]["message"]) == (409, True)
    assert house.put(id, "a.txt", 400, data[400:])[1]["complete"] is True
    assert house.put(id, "a.txt", 1000, b"")[0] == 200, "nothing more is always welcome"
    assert house.put(id, "a.txt", 1000, b"x")[0] == 413
    assert house.file(id, "a.txt").read_bytes() == data


def test_more_bytes_than_announced_are_refused(house: House) -> None:
    id = house.create(announced("a.txt", b"12345"))["id"]
    status, body = house.put(id, "a.txt", 0, b"123456")
    assert (status, body["error"]["code"]) == (413, "too_large")
    assert house.put(id, "a.txt", house.stands(id), b"12345"[house.stands(id) :])[1]["complete"] is True


def test_two_senders_of_one_file_do_not_mix(house: House) -> None:
    data = os.urandom(2 * MIB)
    id = house.create(announced("a.txt", data))["id"]
    raw = house.begin_put(id, "a.txt", 0, len(data))
    raw.sendall(data[:MIB])
    house.until(lambda: house.stands(id) == MIB)
    status, body = house.put(id, "a.txt", MIB, data[MIB:])
    assert (status, "somebody else" in body["error"]["message"]) == (409, True)
    assert house.call("DELETE", f"/api/uploads/{id}")[0] == 409
    raw.sendall(data[MIB:])
    assert b" 200 " in raw.recv(100)
    raw.close()
    assert house.file(id, "a.txt").read_bytes() == data


def test_a_sender_of_whom_nothing_comes_makes_room(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistudiod.arriving.SILENCE_S", 1.0)
    id = house.create(announced("a.txt", b"12345"))["id"]
    with house.begin_put(id, "a.txt", 0, 5) as raw:
        raw.sendall(b"123")
        assert b" 409 " in raw.recv(100)
    assert house.put(id, "a.txt", 3, b"45")[1]["complete"] is True


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../a.txt", "a/../../b", "a/./b", "a//b", "a/", "a\\b.txt", "a\0b", "..", ".", "ä" * 128,
     "x" * 300, "a/" * 400 + "b" * 255],
)  # fmt: skip
def test_names_that_could_lie_elsewhere_are_refused(path: str, house: House) -> None:
    status, error = house.refused(announced(path, b"x"))
    assert (status, list(error["fields"])) == (400, ["files.0.path"]), error
    assert len(error["message"]) < 300 and "Traceback" not in error["message"]


def test_an_empty_name_a_double_one_and_a_folder_that_is_a_file_are_refused(house: House) -> None:
    assert house.refused(announced("", b"x"))[0] == 400
    assert "twice" in house.refused(announced("a", b"x"), announced("a", b"y"))[1]["message"]
    assert "file and a folder" in house.refused(announced("a", b"x"), announced("a/b/c", b"y"))[1]["message"]
    assert house.refused()[0] == 400


@pytest.mark.parametrize("path", ["日本語/ファイル.txt", "é" * 127, "a b;c&d=e?f#g%20.txt", "...", "x" * 255, "-rf"])
def test_unusual_names_are_kept_as_they_are(path: str, house: House) -> None:
    id = house.create(announced(path, b"text"))["id"]
    assert house.put(id, path, 0, b"text")[1]["complete"] is True
    assert house.file(id, path).read_bytes() == b"text"


def test_unknown_uploads_and_files_are_not_found(house: House) -> None:
    id = house.create(announced("a.txt", b"x"))["id"]
    assert house.put(id, "b.txt", 0, b"x")[0] == 404
    assert house.put("0" * 32, "a.txt", 0, b"x")[0] == 404
    for odd in ("..", "%2e%2e%2f", "x", "0" * 33):
        assert house.call("GET", f"/api/uploads/{odd}")[0] in (404, 400), odd


def test_an_upload_beyond_the_limit_is_refused_before_a_byte_is_sent(tmp_path: Path) -> None:
    with opened(tmp_path / "data", limit_bytes=1000) as house:
        status, error = house.refused(announced("a", b"x" * 600), announced("b", b"y" * 401))
        assert (status, error["code"]) == (413, "too_large")
        assert "1,001" in error["message"] and "upload_limit_bytes" in error["message"]
        assert not list((house.data / "uploads").glob("*"))


def test_a_disk_without_room_is_said_before_a_byte_is_sent(tmp_path: Path) -> None:
    with opened(tmp_path / "data", limit_bytes=1 << 60) as house:
        size = shutil.disk_usage(tmp_path).total  # what is free may be more by the time that it is asked for
        status, error = house.refused({"path": "a", "bytes": size, "sha256": "0" * 64})
        assert (status, error["code"]) == (507, "disk_full")
        assert not list((house.data / "uploads").glob("*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_keeps_what_came_and_goes_on_later(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with opened(disk / "data") as house:
            _fill_and_go_on(house, disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_and_go_on(house: House, disk: Path) -> None:
    status, error = house.refused({"path": "a", "bytes": 50 * MIB, "sha256": "0" * 64})
    assert (status, error["code"]) == (507, "disk_full")
    data = os.urandom(20 * MIB)
    id = house.create(announced("a.txt", data))["id"]
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - 26 * MIB))
    status, body = house.put(id, "a.txt", 0, data)
    assert (status, body["error"]["code"]) == (507, "disk_full")
    assert "free some space" in body["error"]["message"]
    at = house.stands(id)
    assert 8 * MIB <= at <= 10 * MIB, "the reserve is left to the database"
    (disk / "ballast").unlink()
    assert house.put(id, "a.txt", at, data[at:])[1]["complete"] is True
    assert house.file(id, "a.txt").read_bytes() == data


def test_a_removed_upload_is_gone_from_disk(house: House) -> None:
    id = house.create(announced("a.txt", b"12345"))["id"]
    house.put(id, "a.txt", 0, b"123")
    assert house.call("DELETE", f"/api/uploads/{id}") == (204, None)
    assert house.call("GET", f"/api/uploads/{id}")[0] == 404
    assert house.call("DELETE", f"/api/uploads/{id}")[0] == 404
    assert not (house.data / "uploads" / id).exists()


def test_too_many_uploads_at_once_are_refused(own: House) -> None:
    for n in range(MAX_UPLOADS):
        own.create(announced(f"{n}", b"x"))
    assert own.refused(announced("a", b"x"))[0] == 409


def test_silent_uploads_are_swept_after_a_week_and_others_stay(tmp_path: Path) -> None:
    async def uploads() -> None:
        first = Uploads(tmp_path, 1000)
        silent, needed, fresh, used = [(await first.create("n", [announced("a", b"x")]))["id"] for _ in range(4)]
        for id in (silent, needed):
            os.utime(tmp_path / id, (time.time() - KEPT_S - 60,) * 2)
        later = Uploads(tmp_path, 1000)
        sources = {f"upload:{needed}"}
        assert set(await later.sweep(unfinished=sources, done={f"upload:{used}", *sources})) == {silent, used}
        assert {path.name for path in tmp_path.iterdir()} == {needed, fresh}
        assert await later.sweep(set(), set()) == [needed]

    asyncio.run(uploads())


def test_what_cannot_be_read_is_left_alone_and_harms_nothing(own: House) -> None:
    good = own.create(announced("a.txt", b"12345"))["id"]
    own.stop()
    for name, text in (("0" * 32, "{"), ("1" * 32, "{}"), ("2" * 32, json.dumps({"files": [{"path": "../x"}]}))):
        folder = own.data / "uploads" / name
        folder.mkdir()
        (folder / "upload.json").write_text(text)
    own.start()
    assert [one["id"] for one in own.call("GET", "/api/uploads")[1]["uploads"]] == [good]


NAME = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 60
)
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(PATH, st.binary(max_size=3000), min_size=1, max_size=5).filter(
    lambda files: not any(one != other and other.startswith(one + "/") for one in files for other in files)
)


@settings(max_examples=60, deadline=None)
@given(files=FILES, drawn=st.data())
def test_any_files_in_any_parts_arrive_equal(house: House, files: dict[str, bytes], drawn: st.DataObject) -> None:
    id = house.create(*(announced(path, data) for path, data in files.items()))["id"]
    todo = {path: 0 for path, data in files.items() if data}
    while todo:
        path = drawn.draw(st.sampled_from(sorted(todo)))
        data, at = files[path], todo[path]
        end = drawn.draw(st.integers(at, len(data)))
        status, answer = house.put(id, path, at, data[at:end])
        assert (status, answer["files"][0]["received_bytes"]) == (200, end)
        todo[path] = end
        if end == len(data):
            del todo[path]
    assert house.show(id)["complete"] is True
    found = {p.relative_to(house.file(id, "")).as_posix(): p for p in house.file(id, "").rglob("*") if p.is_file()}
    assert {path: place.read_bytes() for path, place in found.items()} == files
    assert house.call("DELETE", f"/api/uploads/{id}")[0] == 204
