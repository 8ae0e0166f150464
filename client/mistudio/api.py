"""The client: one method for each route, synchronous, giving the API's own dicts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mistudio import names, stream
from mistudio.address import base_url, understand_each_other
from mistudio.errors import ApiError, Unreachable, VersionMismatch
from mistudiod import __version__

if TYPE_CHECKING:
    import httpx

    from mistudiod.specs import Spec

Job = dict[str, Any]
Artifact = dict[str, Any]
ENDED = frozenset({"done", "partial", "failed", "stopped"})  # states from which a job goes nowhere by itself
_CONNECT_S = 10.0
_ANSWER_S = 60.0  # a preview may take 20
_SILENCE_S = 45.0  # on the event stream, which has a ping every 15


class Client:
    """A studio, by ``host`` ("10.0.0.7", "jetson:6478", a URL), else MISTUDIO_HOST, else the one on this machine.

    Methods raise ApiError when the studio refuses, Unreachable when none answers, TimeoutError when it takes too
    long; the first use raises VersionMismatch when client and studio are too far apart. ValueError: no such host.
    """

    def __init__(self, host: str | None = None) -> None:
        self.url = base_url(host, os.environ)
        self._opened: httpx.Client | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._opened:
            self._opened.close()

    # -- the studio and its machine ----------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """``{"name", "version", "python", "data", "jobs": {state: count}}``."""
        return self._get("/api/status")

    def system(self) -> dict[str, Any] | None:
        """The latest reading of the machine; None when there is none yet."""
        return self._call("GET", "/api/system")  # type: ignore[no-any-return]

    def system_history(self) -> list[dict[str, Any]]:
        """The readings of the last ten minutes, one a second."""
        samples: list[dict[str, Any]] = self._get("/api/system/history")["samples"]
        return samples

    def events(self, topics: Iterable[str] = ()) -> Iterator[stream.Event]:
        """What happens, as it happens: ``{"id", "topic", "data"}``, for ever.

        Topics are job, progress, metric, artifact and system; all when none is given. Besides them come
        ``connected``, at first and after each new connection (what happened before it must be asked for), and
        ``lost``. Raises Unreachable when a lost studio does not come back.
        """
        query = {"topics": ",".join(topics)} if topics else {}
        return stream.listen(lambda: self._stream("/api/events", query))

    # -- jobs --------------------------------------------------------------------------------------------------------

    def submit(self, spec: Mapping[str, Any] | Spec, after: Iterable[int] = (), priority: int = 0) -> Job:
        """Queue a job. ``after``: jobs that must be done first, besides those that make what it reads."""
        body = dict(spec) if isinstance(spec, Mapping) else spec.model_dump()
        request = {"spec": body, "after": list(after), "priority": priority}
        return self._post("/api/jobs", request)

    def jobs(self, limit: int = 100, before: int | None = None) -> dict[str, Any]:
        """``{"jobs": newest first, "next"}``; give ``next`` as ``before`` for those that follow."""
        return self._get("/api/jobs", {"limit": limit, **({"before": before} if before else {})})

    def every_job(self) -> Iterator[Job]:
        """All jobs, newest first."""
        page = self.jobs(1000)
        yield from page["jobs"]
        while page["next"]:
            page = self.jobs(1000, page["next"])
            yield from page["jobs"]

    def job(self, job: int) -> Job:
        return self._get(f"/api/jobs/{job}")

    def stop(self, job: int) -> Job:
        return self._post(f"/api/jobs/{job}/stop")

    def pause(self, job: int) -> Job:
        return self._post(f"/api/jobs/{job}/pause")

    def resume(self, job: int) -> Job:
        return self._post(f"/api/jobs/{job}/resume")

    def retry(self, job: int) -> Job:
        return self._post(f"/api/jobs/{job}/retry")

    def remove_job(self, job: int) -> None:
        self._call("DELETE", f"/api/jobs/{job}")

    def log(self, job: int, tail_bytes: int = 65_536) -> str:
        """The end of what the job's worker wrote."""
        return str(self._get(f"/api/jobs/{job}/log", {"tail_bytes": tail_bytes})["log"])

    def metrics(self, job: int, after_step: int = -1, limit: int = 5000) -> dict[str, Any]:
        """``{"metrics": [{"step", "values"}], "next"}``; give ``next`` as ``after_step`` for those that follow."""
        return self._get(f"/api/jobs/{job}/metrics", {"after_step": after_step, "limit": limit})

    def wait(self, job: int, timeout: float | None = None) -> Job:
        """The job once it has ended, well or not: see its ``state``. Raises TimeoutError after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = 0.05
        while (found := self.job(job))["state"] not in ENDED:
            if deadline is not None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"job {job} is still {found['state']} after {timeout:g} s")
                pause_s = min(pause_s, left_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 1.0)
        return found

    # -- the kinds of jobs, named as the command line names them -----------------------------------------------------
    # Each returns the queued job; ``fields`` are those of its spec in mistudiod.specs.

    def add_model(self, source: str, name: str | None = None) -> Job:
        name = name or names.from_source(source, "model")
        return self.submit({"kind": "add_model", "source": names.absolute(source), "name": name})

    def add_dataset(self, source: str, name: str | None = None, **fields: Any) -> Job:
        name = name or names.from_source(source, "dataset")
        return self.submit({"kind": "add_dataset", "source": names.absolute(source), "name": name, **fields})

    def tokenize(self, dataset: str, model: str, name: str | None = None, **fields: Any) -> Job:
        name = name or names.of_tokenization(dataset, model)
        return self.submit({"kind": "tokenize", "dataset": dataset, "model": model, "name": name, **fields})

    def train(self, tokenization: str, hook: str, name: str | None = None, **fields: Any) -> Job:
        name = name or names.of_sae(tokenization, hook)
        return self.submit({"kind": "train", "tokenization": tokenization, "hook": hook, "name": name, **fields})

    def extract(self, sae: str, **fields: Any) -> Job:
        return self.submit({"kind": "extract", "sae": sae, **fields})

    def steer(self, sae: str, prompt: str, strengths: Mapping[int, float], **fields: Any) -> Job:
        """``strengths`` maps the index of a feature to how strongly it is added; below 0 it is taken away."""
        pairs = [{"feature": feature, "strength": strength} for feature, strength in strengths.items()]
        return self.submit({"kind": "steer", "sae": sae, "prompt": prompt, "strengths": pairs, **fields})

    # -- models, datasets, tokenizations and SAEs; ``ref`` is a name or an id ----------------------------------------

    def artifacts(self, noun: str) -> dict[str, Any]:
        """``{"<noun>s": […], "next"}`` of model, dataset, tokenization or sae."""
        return self._get(f"/api/{noun}s")

    def artifact(self, noun: str, ref: str | int) -> Artifact:
        return self._get(f"/api/{noun}s/{_part(ref)}")

    def remove(self, noun: str, ref: str | int) -> None:
        self._call("DELETE", f"/api/{noun}s/{_part(ref)}")

    def sample(self, dataset: str | int, rows: int = 5) -> dict[str, Any]:
        """A few documents: ``{"rows": [{"text", …}]}``."""
        return self._get(f"/api/datasets/{_part(dataset)}/sample", {"rows": rows})

    def features(self, sae: str | int) -> dict[str, Any]:
        """``{"sae", "features": [{"index", "max", "density", "examples": [the best]}]}`` of the newest extraction."""
        return self._get(f"/api/saes/{_part(sae)}/features")

    def feature(self, sae: str | int, index: int) -> dict[str, Any]:
        """One feature with all its examples."""
        return self._get(f"/api/saes/{_part(sae)}/features/{index}")

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._call("GET", path, params=query)
        return found

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        made: dict[str, Any] = self._call("POST", path, json=body)
        return made

    def _call(self, method: str, path: str, **options: Any) -> Any:
        import httpx

        http = self._http()
        try:
            return _answer(http.request(method, path, **options), self.url)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise TimeoutError(f"the studio at {self.url} did not answer within {_ANSWER_S:.0f} s") from error
        except httpx.TransportError as error:
            raise _unreachable(self.url) from error

    @contextlib.contextmanager
    def _stream(self, path: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        import httpx

        http = self._http()
        limits = httpx.Timeout(_CONNECT_S, read=_SILENCE_S)
        try:
            with http.stream("GET", path, params=query, timeout=limits) as response:
                if response.status_code != 200:
                    response.read()
                    _answer(response, self.url)
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise _unreachable(self.url) from error

    def _http(self) -> httpx.Client:
        """The connections; before the first use a look at who answers."""
        if self._opened is None:
            import httpx

            # No proxies from the environment: a studio is on this machine or near it. Certificates take 0.2 s to load.
            http = httpx.Client(
                base_url=self.url, timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S), trust_env=False,
                verify=self.url.startswith("https:"),
            )  # fmt: skip
            self._opened = http
            try:
                self._check(self.status())
            except BaseException:
                self._opened = None
                http.close()
                raise
        return self._opened

    def _check(self, status: Any) -> None:
        if not isinstance(status, dict) or status.get("name") != "mistudio":
            raise Unreachable(f"what answers at {self.url} is not a studio; is the port right?")
        theirs = str(status.get("version"))
        if not understand_each_other(__version__, theirs):
            raise VersionMismatch(
                f"the studio at {self.url} is version {theirs}, this client {__version__}; install the same of both"
            )


def _part(ref: str | int) -> str:
    return quote(str(ref), safe="")


def _unreachable(url: str) -> Unreachable:
    return Unreachable(f"no studio answers at {url}; start it with ./start-mistudio.sh")


def _answer(response: httpx.Response, url: str) -> Any:
    """The body; None when there is none. Raises ApiError, or Unreachable when it is not a studio's."""
    if response.status_code == 204:
        return None
    try:
        body = response.json()
        if response.is_success:
            return body
        error = body["error"]
        raise ApiError(response.status_code, str(error["code"]), str(error["message"]), error.get("fields"))
    except (ValueError, KeyError, TypeError):
        raise Unreachable(f"what answers at {url} is not a studio; is the port right?") from None
