"""What a caller who means harm, or merely hangs up, can do to the daemon: nothing that lasts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset, put_artifact
from plain_store import example, feature, write_store

from mistudiod.api.keys import INDEX, UPLOADS
from mistudiod.errors import Conflict, Invalid
from mistudiod.uploads import MAX_UPLOADS

SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing


async def ask_and_hang_up(studio: Studio, method: str, path: str, body: object, after_s: float) -> None:
    data = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", studio.server.port)
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    await writer.drain()
    await asyncio.sleep(after_s)
    writer.transport.abort()


async def test_a_token_whose_asker_has_gone_can_be_revoked(studio: Studio) -> None:
    for n in range(20):
        await ask_and_hang_up(studio, "POST", "/api/tokens", {"name": f"t{n}", "scope": "read"}, n * 0.0006)
    await asyncio.sleep(0.3)
    for token in (await studio.get("/api/tokens"))["tokens"]:
        assert (await studio.call("DELETE", f"/api/tokens/{token['id']}"))[0] == 204, token


async def test_a_stop_whose_asker_has_gone_stops(studio: Studio) -> None:
    for n in range(6):
        job = await studio.submit(dataset(f"slow-{n}"))
        await studio.until(job["id"], "running")
        await ask_and_hang_up(studio, "POST", f"/api/jobs/{job['id']}/stop", {}, n * 0.001)
        await asyncio.sleep(0.05)
        await studio.call("POST", f"/api/jobs/{job['id']}/stop")  # where the first was gone before it was read
        assert (await studio.until(job["id"], limit_s=10))["state"] == "stopped"


async def test_a_flood_of_unknown_fields_is_one_short_answer(studio: Studio) -> None:
    flood = {str(n): 1 for n in range(60_000)}
    for path, body in (("/api/jobs", flood), ("/api/jobs", {"spec": {**dataset("x"), **flood}}),
                       ("/api/uploads", {"name": "x", "files": [flood]}), ("/api/tokens", flood)):  # fmt: skip
        status, answer = await studio.call("POST", path, json=body)
        assert status == 400 and len(json.dumps(answer)) < 10_000, path


async def test_features_are_read_one_by_one(studio: Studio) -> None:
    put_artifact(studio.data, "saes", "s", "recipe.json")
    one = feature(9, 2.0, examples=[example([0] * 100, [0.5] * 100, 0)] * 40)
    write_store(studio.data / "features" / "s" / "1", [one] * 1000, vocabulary=["a\u2028b".encode()], sae="s", id="1")
    await studio.app[INDEX].rebuild()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the most memory is that of now, not of tests before
    before, sent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    async with studio.session.get(studio.server.make_url("/api/saes/s/features/export")) as answer:
        async for part in answer.content.iter_any():
            sent += len(part)
    assert sent > 50e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000, "kB"
    assert (await studio.get("/api/saes/s/features?cursor=998"))["next"] is None


async def test_listing_large_files_leaves_room_for_others(open_studio: OpenStudio, tmp_path: Path) -> None:
    folder = put_artifact(tmp_path / "data", "saes", "s", "recipe.json")
    (folder / "sae_weights.safetensors").touch()
    os.truncate(folder / "sae_weights.safetensors", 4 << 30)
    studio = await open_studio()
    job = await studio.submit(dataset("ok"))
    await studio.until(job["id"])
    for _ in range(20):
        await ask_and_hang_up(studio, "GET", "/api/saes/s/files", {}, 0.01)
    begun = time.monotonic()
    await studio.get(f"/api/jobs/{job['id']}/log")
    assert time.monotonic() - begun < 10, "before, each of the twenty held a thread for as long as 4 GB take"


async def test_an_upload_makes_no_flood_of_folders_and_there_is_a_most_of_uploads(studio: Studio) -> None:
    deep = [{"path": "/".join([f"{n}"] + ["d"] * 490 + ["f"]), "bytes": 0, "sha256": SHA} for n in range(40)]
    with pytest.raises(Invalid, match="folders"):
        await studio.app[UPLOADS].create("deep", deep)
    one = [{"path": "f", "bytes": 1, "sha256": SHA}]
    made = await asyncio.gather(*(studio.app[UPLOADS].create("x", one) for _ in range(130)), return_exceptions=True)
    assert len([one for one in made if not isinstance(one, BaseException)]) == MAX_UPLOADS
    assert all(isinstance(one, dict | Conflict) for one in made)


async def test_the_data_folder_is_its_owners(studio: Studio) -> None:
    assert studio.data.stat().st_mode & 0o077 == 0


async def raw(studio: Studio, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", studio.server.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(4000), 5)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_expect_is_answered_behind_the_doors(studio: Studio) -> None:
    text = "POST /api/jobs HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n"
    text += "Content-Length: 2\r\nExpect: {}\r\n\r\n"
    assert (await raw(studio, text.format("evil", "100-continue").encode())).startswith(b"HTTP/1.1 421")
    assert (await raw(studio, text.format("localhost", "bogus").encode())).startswith(b"HTTP/1.1 400")
    assert (await raw(studio, text.format("localhost", "100-continue").encode())) == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_body_said_to_be_zipped_is_refused_however_it_is_said(studio: Studio) -> None:
    head = "POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    zipped = f"{head}Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"
    assert b" 415 " in (await raw(studio, zipped.encode())).split(b"\r\n")[0]


async def test_a_body_that_is_cut_is_no_error_of_ours(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    head = "POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with caplog.at_level(logging.ERROR):
        _, writer = await asyncio.open_connection("127.0.0.1", studio.server.port)
        writer.write(f"{head}Content-Length: 200\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.2)
    assert not caplog.records


async def test_another_sites_page_may_not_read_either(studio: Studio) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert (await studio.call("GET", "/api/doctor", headers=headers))[0] == 403
    assert (await studio.call("GET", "/", headers=headers))[0] == 200, "a link to the page may be followed"


@pytest.mark.parametrize("range_header", ["bytes=999999-", "bytes=zz"])
async def test_a_wrong_range_has_the_one_shape(open_studio: OpenStudio, tmp_path: Path, range_header: str) -> None:
    put_artifact(tmp_path / "data", "saes", "s", "recipe.json")
    studio = await open_studio()
    status, body = await studio.call("GET", "/api/saes/s/files/recipe.json", headers={"Range": range_header})
    assert (status, body["error"]["code"]) == (416, "range")


def test_silent_connections_do_not_use_up_the_daemon(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def few_files() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    command, said = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", "0"], tmp_path / "said"
    with said.open("w") as stderr:
        daemon: Any = subprocess.Popen(command, stderr=stderr, preexec_fn=few_files, env={**os.environ})
    held: list[socket.socket] = []
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(r" is at http://127\.0\.0\.1:(\d+),", said.read_text())) is None:
            assert time.monotonic() < deadline and daemon.poll() is None, said.read_text()
            time.sleep(0.1)
        port = int(found[1])
        for _ in range(320):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            held[-1].sendall(b"GET /api/status HTTP/1.1\r\n")
        assert _answers(port)
    finally:
        for one in held:
            one.close()
        daemon.terminate()
        daemon.wait(20)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False
