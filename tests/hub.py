"""A Hub of our own: so much of the Hugging Face Hub's HTTP API that the real clients download from it and push to it.

Facts of the API: https://huggingface.co/docs/hub/api, https://huggingface.co/.well-known/openapi.json and what
huggingface_hub's clients ask for. Large files are redirected to another origin, as the Hub's are to its CDN.

    from hub import Hub, served_hub  # noqa: F401, the fixture hub

    def test_something(hub: Hub, monkeypatch) -> None:
        hub.add_model("org/model", folder)
        for name, value in hub.environ(home).items():
            monkeypatch.setenv(name, value)  # huggingface_hub reads them when it is imported: start a process
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from aiohttp import web
from hub_repos import File, Repo, entries, info
from hub_uploads import Uploads

_PIECE_BYTES = 64 << 10
_API = re.compile(r"/api/(models|datasets)/(.+?)(?:/(revision|tree|paths-info|refs)(?:/(.*))?)?")
_RESOLVE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    authorization: str | None
    range: str | None
    at_cdn: bool


class Refusal(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Hub:
    """A Hub on two free ports of the loopback, in a thread. What is said to it holds from the next request on."""

    def __init__(self) -> None:
        self.url = self.cdn_url = ""
        self.page_size = 1000  # entries on a page of a tree
        self.bytes_per_s: float | None = None  # of every file; None: as fast as it goes
        self.hangs = False  # True: no request is answered
        self.is_portal = False  # True: a log-in page of the network answers in the Hub's place
        self.knows_ranges = True  # False: whoever asks for a range of a file gets all of it
        self.seen: list[Seen] = []
        self.accounts: dict[str, set[str]] = {}  # token → gated and private repositories that it may read
        self._repos: dict[tuple[str, str], Repo] = {}
        self._served: Counter[str] = Counter()
        self._cuts: dict[str, list[int]] = {}
        self._refusals: list[tuple[re.Pattern[str], int, str]] = []
        self._loop = asyncio.new_event_loop()
        self.uploads = Uploads(self)

    # What a test says

    def add_model(self, id: str, folder: Path, gated: bool = False, private: bool = False) -> str:
        """Commit what ``folder`` holds to the branch main; returns the commit's sha. The files stay where they are."""
        return self._commit("models", id, folder, gated, private)

    def add_dataset(self, id: str, folder: Path, gated: bool = False, private: bool = False) -> str:
        """As ``add_model``."""
        return self._commit("datasets", id, folder, gated, private)

    def tag(self, id: str, name: str, sha: str) -> None:
        """Let a branch or tag of every repository called ``id`` point at a commit."""
        for repo in self._repos.values():
            if repo.id == id and sha in repo.commits:
                repo.refs[name] = sha

    def allow(self, token: str, *ids: str) -> None:
        """Make ``token`` a valid one, which may read these gated and private repositories."""
        self.accounts.setdefault(token, set()).update(ids)

    def cut_after(self, path: str, n: int, times: int = 1) -> None:
        """Cut the connection after ``n`` bytes of the file ``path``, for the next ``times`` answers that hold it."""
        self._cuts.setdefault(path, []).extend([n] * times)

    def refuse(self, times: int = 1, path: str = ".*", status: int = 429, retry_after: str = "1") -> None:
        """Refuse the next ``times`` requests whose path the regular expression ``path`` matches in full."""
        self._refusals.extend([(re.compile(path), status, retry_after)] * times)

    def bytes_served(self, id: str) -> int:
        """Bytes of files (not of the API's answers) that have been sent, of the repositories called ``id``."""
        return self._served[id]

    def forget(self) -> None:
        """Begin anew with what has been seen and what is to go wrong; the repositories stay."""
        self.seen.clear()
        self._served.clear()
        self._cuts.clear()
        self._refusals.clear()
        self.uploads.forget()
        self.page_size, self.bytes_per_s, self.hangs, self.is_portal, self.knows_ranges = 1000, None, False, False, True

    def environ(self, home: Path, token: str | None = None) -> dict[str, str]:
        """What a process must find in its environment to use this Hub, with a Hugging Face cache under ``home``."""
        found = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
        return found | ({"HF_TOKEN": token} if token else {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"})

    @property
    def repos(self) -> list[Repo]:
        """What there is, for a test that spoils it."""
        return list(self._repos.values())

    def repo(self, kind: str, id: str) -> Repo | None:
        return self._repos.get((kind, id))

    # How it runs

    def __enter__(self) -> Hub:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="hub", daemon=True)
        self._thread.start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self._loop.close()
        self.uploads.close()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._end = asyncio.Event()
        runners = []
        for handler in (self._answer, self._answer_cdn):
            runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            runners.append(runner)
        self.url, self.cdn_url = ("http://127.0.0.1:{1}".format(*runner.addresses[0]) for runner in runners)
        ready.set()
        await self._end.wait()
        for runner in runners:
            await runner.cleanup()

    def _commit(self, kind: str, id: str, folder: Path, gated: bool, private: bool) -> str:
        repo = self._repos.setdefault((kind, id), Repo(kind, id))
        repo.gated, repo.private = gated, private
        return repo.add(folder)

    # What it answers

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.rel_url.raw_path
        self._note(request, at_cdn=False)
        while self.hangs:
            await asyncio.sleep(0.05)
        if self.is_portal:
            return web.Response(text="<html>Log in to this network</html>", content_type="text/html")
        for refusal in self._refusals:
            pattern, status, retry_after = refusal
            if pattern.fullmatch(unquote(raw)):
                self._refusals.remove(refusal)
                headers = {"Retry-After": retry_after} if retry_after else {}
                return web.json_response({"error": f"refused with {status}"}, status=status, headers=headers)
        try:
            if raw == "/api/whoami-v2":
                return self._whoami(request)
            if request.method == "POST" and (uploaded := await self.uploads.answer(request, self._token(request))):
                return uploaded
            if match := _API.fullmatch(raw):
                return await self._api(request, *match.groups())
            if match := _RESOLVE.fullmatch(raw):
                return await self._resolve(request, *match.groups())
            raise Refusal(404, None, "Sorry, we can't find the page you are looking for.")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            return web.json_response({"error": refusal.message}, status=refusal.status, headers=headers)

    def _note(self, request: web.BaseRequest, at_cdn: bool) -> None:
        headers = request.headers
        self.seen.append(Seen(request.method, request.path, headers.get("Authorization"), headers.get("Range"), at_cdn))

    def _whoami(self, request: web.BaseRequest) -> web.Response:
        token = self._token(request)
        if token is None:
            raise Refusal(401, None, "Invalid username or password.")
        access = {"displayName": "a token", "role": self.uploads.role(token)}
        about = {"type": "access_token", "accessToken": access}
        return web.json_response({"type": "user", "name": "somebody", "orgs": [], "auth": about})

    def _token(self, request: web.BaseRequest) -> str | None:
        given = request.headers.get("Authorization")
        if given is None:
            return None
        token = given.removeprefix("Bearer ")
        if token not in self.accounts:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return token

    def _repo(self, request: web.BaseRequest, kind: str, id: str) -> Repo:
        """A repository that does not exist and one that is private look the same, as on the Hub."""
        token = self._token(request)
        repo = self._repos.get((kind, id))
        if repo and (not repo.private or id in self.accounts.get(token or "", ())):
            return repo
        if token is None:
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        raise Refusal(404, "RepoNotFound", "Repository not found")

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, File]]:
        sha = repo.commit(revision)
        if sha is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repo.commits[sha]

    async def _api(
        self, request: web.BaseRequest, kind: str, id: str, what: str | None, rest: str | None
    ) -> web.Response:
        repo = self._repo(request, kind, unquote(id))
        revision, _, path = (rest or "main").partition("/")
        if what == "refs":
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": s} for n, s in repo.refs.items()]
            return web.json_response({"branches": branches, "tags": [], "converts": []})
        sha, files = self._files(repo, unquote(revision))
        if what == "tree":
            return self._tree(request, sha, files, unquote(path))
        if what == "paths-info":
            asked = [str(path).strip("/") for path in (await request.post()).getall("paths", [])]
            found = [entry for path in asked for entry in entries(files, "", True) if entry["path"] == path]
            return web.json_response(found)
        return web.json_response(info(repo, sha, files, "blobs" in request.query))

    def _tree(self, request: web.BaseRequest, sha: str, files: dict[str, File], path: str) -> web.Response:
        recursive = request.query.get("recursive", "").lower() in ("1", "true")
        found = entries(files, path.strip("/"), recursive)
        if path and not found:
            raise Refusal(404, "EntryNotFound", f'{path} does not exist on "{sha}"')
        begin = int(request.query.get("cursor", "0"))
        end = begin + min(self.page_size, int(request.query.get("limit", self.page_size)))
        headers = {"X-Repo-Commit": sha}
        if end < len(found):
            following = request.rel_url.update_query({"cursor": str(end)})
            headers["Link"] = f'<{self.url}{following}>; rel="next"'
        return web.json_response(found[begin:end], headers=headers)

    async def _resolve(
        self, request: web.BaseRequest, prefix: str | None, id: str, revision: str, path: str
    ) -> web.StreamResponse:
        repo = self._repo(request, "datasets" if prefix else "models", unquote(id))
        self._require_access(request, repo)
        sha, files = self._files(repo, unquote(revision))
        file = files.get(unquote(path))
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.is_lfs:
            signed = f"{self.cdn_url}/{file.sha256}/{repo.kind}/{quote(repo.id)}/{sha}/{quote(file.path)}"
            linked = {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"', "Location": signed}
            return web.Response(status=302, headers=headers | linked)
        return await self._send(request, repo, file, headers)

    def _require_access(self, request: web.BaseRequest, repo: Repo) -> None:
        if not repo.gated:
            return
        token = self._token(request)
        if token is None:
            message = f"Access to model {repo.id} is restricted. You must have access to it and be authenticated"
            raise Refusal(401, "GatedRepo", f"{message} to access it. Please log in.")
        if repo.id not in self.accounts[token]:
            message = f"Access to model {repo.id} is restricted and you are not in the authorized list."
            raise Refusal(403, "GatedRepo", f"{message} Visit {self.url}/{repo.id} to ask for access.")

    async def _answer_cdn(self, request: web.BaseRequest) -> web.StreamResponse:
        self._note(request, at_cdn=True)
        while self.hangs:
            await asyncio.sleep(0.05)
        if request.method == "PUT":
            return await self.uploads.put(request)
        for repo in self._repos.values():
            for sha, files in repo.commits.items():
                for file in files.values():
                    if request.path == f"/{file.sha256}/{repo.kind}/{repo.id}/{sha}/{file.path}":
                        return await self._send(request, repo, file, {"ETag": f'"{file.sha256}"'})
        return web.Response(status=403)

    async def _send(
        self, request: web.BaseRequest, repo: Repo, file: File, headers: dict[str, str]
    ) -> web.StreamResponse:
        """The file or the range of it that is asked for; cut, slowed down and counted."""
        is_range = "Range" in request.headers and self.knows_ranges
        asked = request.http_range if is_range else slice(None)
        begin = asked.start or 0
        begin = max(file.size + begin, 0) if begin < 0 else begin
        end = file.size if asked.stop is None else min(asked.stop, file.size)
        if is_range and begin >= file.size:
            return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{file.size}"})
        answer = web.StreamResponse(status=206 if is_range else 200, headers=headers)
        answer.content_length = end - begin
        if answer.status == 206:
            answer.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
        elif file.path.endswith((".json", ".txt", ".md")) and "gzip" in request.headers.get("Accept-Encoding", ""):
            answer.content_length = None
            answer.enable_compression(web.ContentCoding.gzip)  # as the Hub does, whose clients must be ready for it
        await answer.prepare(request)
        if request.method != "HEAD":
            await self._write(request, answer, repo, file, begin, end)
        return answer

    async def _write(
        self, request: web.BaseRequest, answer: web.StreamResponse, repo: Repo, file: File, begin: int, end: int
    ) -> None:
        cuts = self._cuts.get(file.path)
        cut = cuts.pop(0) if cuts else None
        stop = end if cut is None else min(begin + cut, end)
        began, at = time.monotonic(), begin
        with file.place.open("rb") as opened:
            opened.seek(begin)
            while at < stop:
                piece = opened.read(min(_PIECE_BYTES, stop - at))
                await answer.write(piece)
                self._served[repo.id] += len(piece)
                at += len(piece)
                if self.bytes_per_s:
                    await asyncio.sleep(max((at - begin) / self.bytes_per_s - (time.monotonic() - began), 0))
        if cut is not None and request.transport:
            await asyncio.sleep(0.05)  # let what was written go out
            request.transport.abort()


@pytest.fixture(name="hub")
def served_hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(name="home", autouse=True)  # of a module that imports it
def own_home(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's Hugging Face home; the Hub is the tests' own."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mistudiod.worker.hub.FIRST_WAIT_S", 0.05)
    home = tmp_path / "huggingface"
    for name, value in hub.environ(home).items():
        monkeypatch.setenv(name, value)
    return home
