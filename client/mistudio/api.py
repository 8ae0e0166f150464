"""The client: one method for each route, synchronous, giving the API's own dicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mistudio import address, names, stream, waiting
from mistudio.access import Access
from mistudio.errors import ApiError
from mistudio.exports import Exports
from mistudio.features import Features
from mistudio.keeping import Keeping
from mistudio.labellings import Labellings
from mistudio.library import Library
from mistudio.pages import every, given
from mistudio.sessions import Sessions
from mistudio.steerings import Steerings
from mistudio.trainings import Trainings
from mistudio.wire import KEY, Wire

if TYPE_CHECKING:
    from mistudiod.specs import Spec

Job = dict[str, Any]
Artifact = dict[str, Any]
ENDED = waiting.ENDED
_PAGE = 1000


class Client(Access, Trainings, Features, Labellings, Library, Steerings, Sessions, Exports, Keeping):
    """A studio: the one at ``host`` ("10.0.0.7", "jetson:6478", a URL, "unix:/path"), or of a named ``context``.

    Else MISTUDIO_HOST, MISTUDIO_CONTEXT, the context chosen by ``mistudio context use``, the one on this machine.
    Its token is MISTUDIO_TOKEN, else the context's. ``fingerprint``, else MISTUDIO_FINGERPRINT, is of the only
    certificate that is accepted at a host that was given, or at MISTUDIO_HOST; a context has its own.

    Methods raise ApiError when the studio refuses, Unreachable when none answers, TimeoutError when it takes too
    long; the first use raises VersionMismatch when client and studio are too far apart. WrongCertificate: somebody else
    answers. ValueError: no such host.
    """

    def __init__(self, host: str | None = None, context: str | None = None, fingerprint: str | None = None) -> None:
        self._wire = Wire(address.find(host, context, os.environ, fingerprint))
        self.url = self._wire.url
        self._ask: Callable[..., dict[str, Any]] = self._wire.ask

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    # -- the studio and its machine ----------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """``{"name", "version", "python", "data", "jobs": {state: count}, "same_user"}``."""
        return self._ask("status")

    def doctor(self) -> dict[str, Any]:
        """``{"ok", "findings": [{"name", "level": ok, warning or problem, "message", "remedy"}]}``."""
        return self._ask("doctor")

    def running(self) -> list[dict[str, Any]]:
        """The jobs at work: how far, how long yet (``eta_s``), memory predicted and measured (bytes)."""
        found: list[dict[str, Any]] = self._ask("running")["running"]
        return found

    def system(self) -> dict[str, Any] | None:
        """The latest reading of the machine; None when there is none yet."""
        return self._ask("system")

    def system_history(self) -> list[dict[str, Any]]:
        """The readings of the last ten minutes, one a second."""
        found: list[dict[str, Any]] = self._ask("system_history")["samples"]
        return found

    def openapi(self) -> dict[str, Any]:
        """The API's description of itself (OpenAPI 3.1)."""
        return self._ask("openapi")

    def events(self, topics: Iterable[str] = (), after: str | int | None = None) -> Iterator[stream.Event]:
        """What happens, as it happens: ``{"id", "topic", "data"}``, for ever.

        Topics are job, progress, metric, live, artifact and system; all when none is given. ``after``: the id of the
        last event that is known; those of jobs and artifacts that came later are told first. Besides the topics come
        ``connected``, at first and after each new connection, ``lost``, and ``reset`` when too much was missed: its
        data is what there is. Jobs and artifacts are missed in no other way; readings between ``lost`` and
        ``connected`` must be asked for. Raises Unreachable when a lost studio does not come back.
        """
        query = {"topics": ",".join(topics)} if topics else {}
        return stream.listen(
            lambda last: self._wire.stream("events", query, {"Last-Event-ID": last} if last else {}),
            "" if after is None else str(after),
        )

    # -- jobs --------------------------------------------------------------------------------------------------------

    def submit(
        self, spec: Mapping[str, Any] | Spec, after: Iterable[int] = (), priority: int = 0, key: str | None = None
    ) -> Job:
        """Queue a job. ``after``: jobs that must be done first, besides those that make what it reads.

        The same ``key`` again gives the same job; one is made when none is given, so that an answer that is lost on
        its way does not mean two jobs.
        """
        import secrets

        body = dict(spec) if isinstance(spec, Mapping) else spec.model_dump()
        request = {"spec": body, "after": list(after), "priority": priority}
        return self._ask("submit", body=request, headers={KEY: key or secrets.token_hex(16)})

    def jobs(self, limit: int = 100, cursor: str | None = None, state: str | None = None) -> dict[str, Any]:
        """``{"jobs": newest first, "next"}``; give ``next`` as ``cursor`` for those that follow."""
        return self._ask("jobs", given(limit=limit, cursor=cursor, state=state))

    def every_job(self, state: str | None = None) -> Iterator[Job]:
        """All jobs, newest first."""
        return every("jobs", lambda cursor: self.jobs(_PAGE, cursor, state))

    def job(self, job: int) -> Job:
        return self._ask("job", job=job)

    def job_and_etag(self, job: int) -> tuple[Job, str]:
        """The job, and what ``edit_job`` takes to change nothing but this state of it."""
        answer = self._wire.send("job", job=job)
        return answer.json(), answer.headers["ETag"]

    def edit_job(self, job: int, priority: int, etag: str | None = None) -> Job:
        """Change a queued job. With ``etag``: ApiError 412 when it has changed since."""
        headers = {"If-Match": etag} if etag else None
        return self._ask("edit_job", body={"priority": priority}, headers=headers, job=job)

    def stop(self, job: int) -> Job:
        return self._ask("stop", job=job)

    def pause(self, job: int) -> Job:
        return self._ask("pause", job=job)

    def resume(self, job: int) -> Job:
        return self._ask("resume", job=job)

    def retry(self, job: int) -> Job:
        return self._ask("retry", job=job)

    def remove_job(self, job: int) -> None:
        self._ask("remove_job", job=job)

    def log(self, job: int, tail_bytes: int = 65_536) -> str:
        """The end of what the job's worker wrote."""
        return str(self._ask("log", {"tail_bytes": tail_bytes}, job=job)["log"])

    def wait(self, job: int, timeout: float | None = None, state: str | None = None) -> Job:
        """The job once it has ended, well or not: see its ``state``; or once it is in ``state``, or cannot come there.

        A studio that is started anew meanwhile is waited for. Raises TimeoutError after ``timeout`` seconds.
        """
        return waiting.wait(lambda: self.job(job), timeout, state)

    # -- the kinds of jobs, named as the command line names them -----------------------------------------------------
    # Each returns the queued job; ``fields`` are those of its spec in mistudiod.specs.

    def add_model(self, source: str, name: str | None = None, remote: bool = False, **fields: Any) -> Job:
        """``source`` as of ``add_dataset``, of models; ``revision`` pins one of the Hub."""
        name = name or names.from_source(source, "model")
        source = self._source(source, name, remote)
        return self.submit({"kind": "add_model", "source": source, "name": name, **fields})

    def add_dataset(self, source: str, name: str | None = None, remote: bool = False, **fields: Any) -> Job:
        """``source``: owner/name on the Hub, ``builtin:…``, or a file or folder: here, with ``remote`` on the studio's.

        What is here is read in place by a studio of this user on this machine, and uploaded to any other.
        Raises FileNotFoundError when it is not here.
        """
        name = name or names.from_source(source, "dataset")
        source = self._source(source, name, remote)
        return self.submit({"kind": "add_dataset", "source": source, "name": name, **fields})

    def _source(self, source: str, name: str, remote: bool) -> str:
        from mistudio.sources import settled

        return source if remote else settled(self, source, name)

    def tokenize(self, dataset: str, model: str, name: str | None = None, **fields: Any) -> Job:
        name = name or names.of_tokenization(dataset, model)
        return self.submit({"kind": "tokenize", "dataset": dataset, "model": model, "name": name, **fields})

    def train(self, tokenization: str, hook: str | Sequence[str], name: str | None = None, **fields: Any) -> Job:
        name = name or names.of_sae(tokenization, hook)
        return self.submit({"kind": "train", "tokenization": tokenization, "hook": hook, "name": name, **fields})

    def plan(self, spec: Mapping[str, Any] | Spec) -> dict[str, Any]:
        """What a training would take, before it is started: ``{"verdict", "fits", "total_bytes", "parts", …}``."""
        return self._ask("plan", body={"spec": dict(spec) if isinstance(spec, Mapping) else spec.model_dump()})

    # -- models, datasets, tokenizations and SAEs; ``ref`` is a name or an id ----------------------------------------

    def artifacts(self, noun: str, limit: int = _PAGE, cursor: str | None = None) -> dict[str, Any]:
        """``{"<noun>s": […], "next"}`` of model, dataset, tokenization or sae; ``next`` is the following ``cursor``."""
        return self._ask("artifacts", given(limit=limit, cursor=cursor), noun=noun)

    def every_artifact(self, noun: str) -> Iterator[Artifact]:
        return every(f"{noun}s", lambda cursor: self.artifacts(noun, _PAGE, cursor))

    def artifact(self, noun: str, ref: str | int) -> Artifact:
        return self._named("artifact", noun, ref)

    def remove(self, noun: str, ref: str | int) -> None:
        self._named("remove", noun, ref)

    def preview_dataset(self, source: str, remote: bool = False, **fields: Any) -> dict[str, Any]:
        """What ``add_dataset`` would find at a source, of which nothing is stored: ``{"columns", "rows", …}``.

        Raises ValueError for a file that is here when the studio cannot read it: ``add_dataset`` uploads it.
        """
        from mistudio.sources import looked_at

        source = source if remote else looked_at(self, source)
        return self._ask("preview_dataset", body={"source": source, **fields})

    def sample(
        self, dataset: str | int, rows: int | None = None, offset: int | None = None, chars: int | None = None
    ) -> dict[str, Any]:
        """A few documents: ``{"rows": [{"text", …}], "total"}``; from all over, or those from ``offset`` on."""
        return self._named("sample", "dataset", dataset, given(rows=rows, offset=offset, chars=chars))

    def preview_tokens(self, model: str | int, text: str) -> dict[str, Any]:
        """A text as a model reads it: ``{"tokens", "ids", "texts", "starts", "ends", "special"}``.

        ``starts`` and ``ends`` count the bytes of ``text`` as UTF-8.
        """
        return self._named("preview_tokens", "model", model, body={"text": text})

    def cached_models(self) -> list[dict[str, Any]]:
        """In the Hugging Face cache of the studio's machine: ``[{"source", "revision", "size_bytes", "is_whole"}]``."""
        found: list[dict[str, Any]] = self._ask("cached_models")["models"]
        return found

    def files(self, sae: str | int) -> list[dict[str, Any]]:
        """Of an SAE: ``[{"name", "bytes", "sha256"}]``; ``mistudio.download.fetch`` brings them all."""
        found: list[dict[str, Any]] = self._named("files", "sae", sae)["files"]
        return found

    def file(self, sae: str | int, file: str, offset: int = 0) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of one of them from ``offset`` on, as they come."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        return self._wire.stream("file", headers=headers, ref=sae, file=file)

    def _named(self, route: str, noun: str, ref: str | int, query: Any = None, **parts: object) -> dict[str, Any]:
        try:
            return self._ask(route, query, noun=noun, ref=ref, **parts)
        except ApiError as error:
            if error.status == 404:
                error.missing = (noun, str(ref))
            raise

    # -- uploads: ``mistudio.upload.send`` does it all ---------------------------------------------------------------

    def uploads(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("uploads")["uploads"]
        return found

    def create_upload(self, name: str, files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """``files``: ``{"path", "bytes", "sha256"}`` of each. The answer has its ``id``, and what has been received."""
        return self._ask("create_upload", body={"name": name, "files": [dict(file) for file in files]})

    def upload(self, upload: str) -> dict[str, Any]:
        """``{"id", "name", "files": [{"path", "bytes", "sha256", "received_bytes"}], "complete"}``."""
        return self._ask("upload", upload=upload)

    def send_part(self, upload: str, path: str, offset: int, content: bytes | Iterable[bytes]) -> dict[str, Any]:
        """Append to a file of the upload. ApiError 409 when ``offset`` is not what it has received, and names that."""
        headers = {"Content-Type": "application/octet-stream"}
        query = {"path": path, "offset": offset}
        return self._ask("send_part", query, content=content, headers=headers, upload=upload)

    def remove_upload(self, upload: str) -> None:
        self._ask("remove_upload", upload=upload)
