"""The upload side of the tests' Hub: so much of its API that the real client makes repositories and commits to them.

Large files go by the Git LFS batch API (https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md), in one piece
or, with ``part_bytes``, in parts as the Hub has them; xet, the Hub's other way, is not here. Their bytes come to the
other origin, without a token.

    hub.uploads.let_write("hf_token", "org")  # the token may write to the repositories of org
    hub.uploads.cut_after(1000)  # the next file that is sent is cut after 1,000 bytes
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import yaml
from aiohttp import web
from hub_repos import LFS_BYTES, LFS_SUFFIXES, File, Repo, file_at

if TYPE_CHECKING:
    from hub import Hub

_TO_MODEL = re.compile(r"/api/models/(.+?)/(preupload|commit)/([^/]+)")
_BATCH = re.compile(r"/(.+?)\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/(upload|complete|verify)/([0-9a-f]{64})/(.+?)(?:/part-(\d+))?")
_PIECE_BYTES = 64 << 10


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Uploads:
    """What may be written by whom, what is to go wrong, and what has come."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._folder = tempfile.TemporaryDirectory(prefix="hub-")
        self._stored: dict[str, dict[str, Path]] = {}  # repository → sha256 → file, committed or not
        self._owners: dict[str, set[str]] = {}  # token → whose repositories it may write to
        self.forget()

    # What a test says

    def let_write(self, token: str, *owners: str) -> None:
        """Make ``token`` a valid one that may write to the repositories of these users or organisations."""
        self._hub.accounts.setdefault(token, set())
        self._owners.setdefault(token, set()).update(owners)

    def cut_after(self, n: int, times: int = 1) -> None:
        """Cut the connection after ``n`` bytes of a large file, for the next ``times`` that more are sent."""
        self._cuts += [n] * times

    def forget(self) -> None:
        """Begin anew with what has come and what is to go wrong; repositories, rights and stored files stay."""
        self.part_bytes: int | None = None  # larger files come in parts of this size; None: in one piece
        self.quota_bytes: int | None = None  # of a repository's large files
        self.bytes_come = 0  # of large files
        self._cuts: list[int] = []

    def close(self) -> None:
        self._folder.cleanup()

    # What the Hub asks

    def role(self, token: str) -> str:
        return "write" if self._owners.get(token) else "read"

    async def answer(self, request: web.BaseRequest, token: str | None) -> web.Response | None:
        """None for what is no upload."""
        raw = request.rel_url.raw_path
        if request.method != "POST":
            return None
        try:
            if raw == "/api/repos/create":
                return self._create(await _json(request), token)
            if raw == "/api/validate-yaml":
                return _validated(await _json(request))
            if match := _BATCH.fullmatch(raw):
                repo = self._writable(unquote(match[1]), token)
                return self._batch(repo, await _json(request))
            if match := _OBJECT.fullmatch(unquote(raw)):
                return await self._finished(request, match[1], match[2], match[3])
            if match := _TO_MODEL.fullmatch(raw):
                repo = self._writable(unquote(match[1]), token)
                if match[2] == "commit":
                    return await self._commit(repo, request)
                return self._preupload(repo, await _json(request))
        except Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            return web.json_response({"error": refused.message}, status=refused.status, headers=headers)
        return None

    async def put(self, request: web.BaseRequest) -> web.Response:
        """A large file, or a part of one, at the other origin."""
        match = _OBJECT.fullmatch(request.path)
        assert match and match[1] == "upload" and "Authorization" not in request.headers
        _, sha256, repo, part = match.groups()
        place = self._place(sha256, repo, part or "whole")
        cut = self._cuts.pop(0) if self._cuts and (request.content_length or 0) > self._cuts[0] else None
        with place.open("wb") as file:
            async for piece in self._paced(request):
                file.write(piece if cut is None else piece[: cut - file.tell()])
                if cut is not None and file.tell() >= cut:
                    assert request.transport
                    request.transport.abort()
                    raise ConnectionResetError
        if part:
            return web.Response(headers={"ETag": f'"{hashlib.md5(place.read_bytes()).hexdigest()}"'})
        return self._store(repo, sha256, place)

    # What it does

    def _writable(self, id: str, token: str | None) -> Repo:
        repo = self._hub.repo("models", id)
        if token is None or repo is None:
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        if repo.owner not in self._owners.get(token, ()):
            raise Refused(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return repo

    def _create(self, asked: dict[str, Any], token: str | None) -> web.Response:
        id, owner = f"{asked['organization']}/{asked['name']}", asked["organization"]
        if token is None:
            raise Refused(401, "Invalid username or password.")
        if owner not in self._owners.get(token, ()):
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        if self._hub.repo("models", id):
            raise Refused(409, "You already created this model repo")
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self._hub.add_model(id, folder, private=is_private)
        self._hub.allow(token, id)
        return web.json_response({"url": f"{self._hub.url}/{id}", "name": id})

    def _preupload(self, repo: Repo, asked: dict[str, Any]) -> web.Response:
        _, files = repo.newest()
        found = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LFS_SUFFIXES) or one["size"] > LFS_BYTES else "regular",
                "shouldIgnore": False,
                **({"oid": files[one["path"]].etag} if one["path"] in files else {}),
            }
            for one in asked["files"]
        ]
        return web.json_response({"files": found})

    def _batch(self, repo: Repo, asked: dict[str, Any]) -> web.Response:
        assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256"
        stored = self._stored_of(repo)
        new = [one for one in asked["objects"] if one["oid"] not in stored]
        if self.quota_bytes is not None and sum(one["size"] for one in new) > self.quota_bytes:
            raise Refused(403, "Private repository storage limit reached, please upgrade your plan to increase it")
        objects = [one | ({"actions": self._actions(repo, **one)} if one in new else {}) for one in asked["objects"]]
        return web.json_response({"transfer": "basic", "objects": objects})

    def _actions(self, repo: Repo, oid: str, size: int) -> dict[str, Any]:
        signed, verify = f"{self._hub.cdn_url}/upload/{oid}/{repo.id}", f"{self._hub.url}/verify/{oid}/{repo.id}"
        if self.part_bytes is None or size <= self.part_bytes:
            return {"upload": {"href": signed}, "verify": {"href": verify}}
        parts = {str(n): f"{signed}/part-{n}" for n in range(1, -(-size // self.part_bytes) + 1)}
        header = {"chunk_size": str(self.part_bytes), **parts}
        complete = f"{self._hub.url}/complete/{oid}/{repo.id}"
        return {"upload": {"href": complete, "header": header}, "verify": {"href": verify}}

    async def _finished(self, request: web.BaseRequest, act: str, sha256: str, repo: str) -> web.Response:
        asked = await _json(request)
        if act == "verify":
            return web.Response(status=200 if sha256 in self._stored.get(repo, {}) else 404)
        whole = self._place(sha256, repo, "whole")
        with whole.open("wb") as file:
            for part in asked["parts"]:
                file.write(self._place(sha256, repo, str(part["partNumber"])).read_bytes())
        return self._store(repo, sha256, whole)

    async def _commit(self, repo: Repo, request: web.BaseRequest) -> web.Response:
        head, files = repo.newest()
        header, *acts = [json.loads(line) for line in (await _read(request)).splitlines()]
        assert header["key"] == "header" and header["value"]["summary"]
        if header["value"].get("parentCommit", head) != head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        for act in acts:
            file = self._committed(repo, act["key"], act["value"])
            files[file.path] = file
        sha = repo.commit_files(files, header["value"]["summary"])
        told = {"success": True, "commitOid": sha, "commitUrl": f"{self._hub.url}/{repo.id}/commit/{sha}"}
        return web.json_response({**told, "hookOutput": "", "pullRequestUrl": None})

    def _committed(self, repo: Repo, key: str, value: dict[str, Any]) -> File:
        if key == "lfsFile":
            if value["oid"] not in self._stored_of(repo):
                raise Refused(400, f"the LFS object {value['oid']} of {value['path']} has never come")
            return file_at(value["path"], self._stored_of(repo)[value["oid"]])
        assert key == "file" and value["encoding"] == "base64"
        content = base64.b64decode(value["content"])
        place = self._place(hashlib.sha256(content).hexdigest(), repo.id)
        place.write_bytes(content)
        return file_at(value["path"], place)

    def _stored_of(self, repo: Repo) -> dict[str, Path]:
        committed = [file for files in repo.commits.values() for file in files.values() if file.is_lfs]
        return {file.sha256: file.place for file in committed} | self._stored.get(repo.id, {})

    def _place(self, sha256: str, repo: str, part: str = "") -> Path:
        return Path(self._folder.name) / f"{repo.replace('/', '--')}-{sha256}{part}"

    def _store(self, repo: str, sha256: str, come: Path) -> web.Response:
        if hashlib.sha256(come.read_bytes()).hexdigest() != sha256:
            return web.Response(status=400)
        self._stored.setdefault(repo, {})[sha256] = come.replace(self._place(sha256, repo))
        return web.Response()

    async def _paced(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        began, come = time.monotonic(), 0
        async for piece in request.content.iter_chunked(_PIECE_BYTES):
            come += len(piece)
            self.bytes_come += len(piece)
            yield piece
            if self._hub.bytes_per_s:
                await asyncio.sleep(max(come / self._hub.bytes_per_s - (time.monotonic() - began), 0))


def _validated(asked: dict[str, Any]) -> web.Response:
    """The YAML at the top of a README.md."""
    parts = str(asked["content"]).split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        return web.json_response({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        found = str(error)
    errors = [] if isinstance(found, dict) else [{"message": f"no metadata: {found}"}]
    if isinstance(found, dict) and found.get("license", "mit") not in ("mit", "apache-2.0", "gemma", "other"):
        errors.append({"message": '"license" must be one of [apache-2.0, mit, …]'})
    return web.json_response({"errors": errors, "warnings": []}, status=400 if errors else 200)


async def _read(request: web.BaseRequest) -> bytes:
    return b"".join([piece async for piece in request.content.iter_chunked(_PIECE_BYTES)])


async def _json(request: web.BaseRequest) -> dict[str, Any]:
    return dict(json.loads(await _read(request)))
