"""Neuronpedia's self-serve HTTP, as small as it can be: what its rules refuse is refused, what they take is kept.

The rules are written down here once more, from the description of the routes and not from our own checks. By hand:
``python tests/neuronpedia_server.py PORT [SECONDS OF EACH REQUEST]``, with the key below; it says what it takes.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

KEY, ANOTHERS = "sk-np-key-of-mine", "sk-np-key-of-another"
Body = dict[str, Any]


class Refused(Exception):
    """With the words of the answer, its status, and where in the body something is wrong."""

    def __init__(self, words: str, status: int = 400, path: str = "") -> None:
        super().__init__(words)
        self.status, self.path = status, path


@dataclass(frozen=True)
class Fault:
    """In place of an answer: ``status`` with headers and a body; after ``slow_s``; or the connection ``cut``, before
    the request is taken or after.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    slow_s: float = 0.0
    cut: str = ""


class Neuronpedia:
    """``features[source][index]`` is what was taken. ``fail``: what goes wrong with the next requests, in order: a
    Fault, a status, or 0 to take the request and then cut the connection. ``once``: a feature that is there is not
    taken again. ``slow_s``: of every request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.models: dict[str, Body] = {}
        self.sets: dict[tuple[str, str], Body] = {}
        self.features: dict[str, dict[int, Body]] = {}
        self.requests: list[str] = []
        self.sizes: list[int] = []  # features of each request that had some
        self.keys: set[str | None] = set()  # that came with requests
        self.fail: list[int | Fault] = []
        self.once, self.slow_s = False, 0.0
        self.heard: Callable[[str], None] = lambda path: None
        self.users = {KEY: "me", ANOTHERS: "another"}
        self.methods, self.explainers = {"human", "np_max-act"}, {"gpt-4o-mini"}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/api/model/new", self._route(self._model))
        app.router.add_post("/api/source-set/new", self._route(self._set))
        app.router.add_post("/api/feature/upload-batch", self._route(self._batch))
        return app

    def _route(self, take: Callable[[Body, str], Body]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            self.requests.append(request.path)
            self.keys.add(key := request.headers.get("X-Api-Key"))
            user = self.users.get(key or "")
            if user is None:
                return web.json_response({"error": "Unauthorized"}, status=401)
            found = self.fail.pop(0) if self.fail else 200
            fault = found if isinstance(found, Fault) else Fault(found or 200, cut="" if found else "after")
            await asyncio.sleep(fault.slow_s or self.slow_s)
            if fault.cut == "before" and request.transport:
                request.transport.abort()
            if fault.status != 200 or fault.body is not None:
                body = json.dumps({"error": f"failed with {fault.status}"}) if fault.body is None else fault.body
                return web.Response(status=fault.status, text=body, headers=fault.headers)
            try:
                answer = take(await request.json(), user)
            except Refused as error:
                return web.json_response({"error": str(error), "path": error.path}, status=error.status)
            self.heard(request.path)
            if fault.cut == "after" and request.transport:
                request.transport.close()
            return web.json_response(answer)

        return handle

    def _model(self, body: Body, user: str) -> Body:
        _keys(body, "id layers", "displayName url")
        name = body["id"]
        _need(isinstance(name, str) and 2 <= len(name) <= 32, "id must have 2 to 32 characters")
        _need(re.search(r"^[a-z][a-z0-9.-]*[a-z0-9]$|^[a-z]$", name), "id has characters that it must not")
        _need("--" not in name and ".." not in name, "id cannot contain double hyphens or periods")
        _need(_int(body["layers"], 1, 127), "layers must be an integer from 1 to 127")
        _need(1 <= len(body.get("displayName", "x")) <= 64, "displayName must have 1 to 64 characters")
        _need(name not in self.models, "Model already exists")
        self.models[name] = {**body, "creator": user}
        return {"id": name}

    def _set(self, body: Body, user: str) -> Body:
        _keys(body, "modelId name", "description url")
        model, name = body["modelId"], body["name"]
        _need(model in self.models, "Model not found")
        _need(re.search(r"^[a-z][a-z0-9-]*[a-z0-9]$|^[a-z0-9]$", name), "name has characters that it must not")
        _need("--" not in name and name != "neurons", "name cannot be that")
        _need(len(body.get("description", "")) <= 128, "description must have at most 128 characters")
        _need(re.match(r"https?://.+\..+", body.get("url", "https://a.example")), "url must be a valid URL")
        _need((model, name) not in self.sets, "Source set name already exists for this model.")
        self.sets[model, name] = {**body, "creator": user}
        sources = [f"{layer}-{name}" for layer in range(self.models[model]["layers"])]
        self.features |= {f"{model}/{source}": {} for source in sources}
        return {"sources": sources}

    def _batch(self, body: Body, user: str) -> Body:
        _keys(body, "modelId source features", "")
        model, source, features = body["modelId"], str(body["source"]), body["features"]
        place = f"{model}/{source}"
        _need(place in self.features, "Source not found", 404)
        if self.sets[model, source.partition("-")[2]]["creator"] != user:
            raise Refused("You do not own this source set", 403)
        _need(isinstance(features, list) and 1 <= len(features) <= 128, "1 to 128 features")
        for n, one in enumerate(features):
            try:
                self._feature(one)
            except Refused as error:
                raise Refused(f"features[{n}]: {error}", path=f"features[{n}]") from None
        indices = [one["index"] for one in features]
        _need(len(set(indices)) == len(indices), "indexes must be unique")
        _need(not (self.once and set(indices) & self.features[place].keys()), "Feature already exists", 409)
        self.features[place] |= {one["index"]: one for one in features}
        self.sizes.append(len(features))
        return {"count": len(features)}

    def _feature(self, one: Body) -> None:
        _keys(one, "index activations", "density topLogits bottomLogits explanations")
        _need(_int(one["index"], 0, 10_000_000), "index must be from 0 to 10,000,000")
        _need(_number(one.get("density", 0)) and 0 <= one.get("density", 0) <= 1, "density must be from 0 to 1")
        for name in ("topLogits", "bottomLogits"):
            _need(len(one.get(name, ())) <= 20, f"{name} has at most 20 tokens")
            for logit in one.get(name, ()):
                _keys(logit, "token value", "")
                _need(isinstance(logit["token"], str) and _number(logit["value"]), f"{name} has a token and its value")
        for label in one.get("explanations", ()):
            _keys(label, "text", "methodName modelName")
            _need(
                isinstance(label["text"], str) and 1 <= len(label["text"]) <= 512, "text must have 1 to 512 characters"
            )
            _need(label.get("methodName") in {None, *self.methods}, "unknown methodName")
            _need(label.get("modelName") in {None, *self.explainers}, "unknown modelName")
        _need(one["activations"], "at least one activation")
        for act in one["activations"]:
            self._activation(act)

    @staticmethod
    def _activation(act: Body) -> None:
        _keys(act, "tokens values", "quantileMin quantileMax quantileFraction")
        _need(1 <= len(act["tokens"]) <= 1024, "1 to 1024 tokens")
        _need(len(act["tokens"]) == len(act["values"]), "as many values as tokens")
        _need(all(isinstance(token, str) for token in act["tokens"]), "tokens are texts")
        quantiles = [act.get(name, 0) for name in ("quantileMin", "quantileMax", "quantileFraction")]
        _need(all(map(_number, [*act["values"], *quantiles])), "values and quantiles are numbers")
        _need(0 <= quantiles[2] <= 1, "quantileFraction must be from 0 to 1")
        _need(not any("\0" in token for token in act["tokens"]), "a token holds NUL")

    # -- on a port of its own, in a thread -------------------------------------------------------------------------

    def __enter__(self) -> Neuronpedia:
        ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="neuronpedia", daemon=True)
        self._thread.start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._end = asyncio.Event()
        runner = web.AppRunner(self.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        ready.set()
        await self._end.wait()
        await runner.cleanup()


@pytest.fixture(name="there")
def served_neuronpedia() -> Iterator[Neuronpedia]:
    with Neuronpedia() as there:
        yield there


def _need(true: object, otherwise: str, status: int = 400) -> None:
    if not true:
        raise Refused(otherwise, status)


def _keys(body: Body, required: str, optional: str) -> None:
    _need(isinstance(body, dict), "must be an object")
    missing, more = set(required.split()) - body.keys(), body.keys() - set(f"{required} {optional}".split())
    _need(not missing and not more, f"missing {sorted(missing)}, unknown {sorted(more)}")


def _int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def main() -> None:
    there = Neuronpedia()
    there.slow_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    there.heard = lambda path: print(
        path, {name: len(some) for name, some in there.features.items() if some}, flush=True
    )
    web.run_app(there.app(), host="127.0.0.1", port=int(sys.argv[1]))


if __name__ == "__main__":
    main()
