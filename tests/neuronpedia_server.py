"""Neuronpedia's self-serve HTTP, as small as it can be: what its rules refuse is refused, what they take is kept.

The rules are written down here once more, from the description of the routes and not from our own checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

KEY = "np-key"
Body = dict[str, Any]


class Refused(Exception):
    """With the words of the answer."""


class Neuronpedia:
    """``features[source][index]`` is what was taken. ``fail``: answers to give in place of the next ones, in order,
    each a status, or 0 to take the request and then cut the connection.
    """

    def __init__(self) -> None:
        self.models: dict[str, Body] = {}
        self.sets: dict[tuple[str, str], Body] = {}
        self.features: dict[str, dict[int, Body]] = {}
        self.requests: list[str] = []
        self.fail: list[int] = []
        self.methods, self.explainers = {"human", "np_max-act"}, {"gpt-4o-mini"}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/api/model/new", self._route(self._model))
        app.router.add_post("/api/source-set/new", self._route(self._set))
        app.router.add_post("/api/feature/upload-batch", self._route(self._batch))
        return app

    def _route(self, take: Callable[[Body], Body]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            self.requests.append(request.path)
            if request.headers.get("X-Api-Key") != KEY:
                return web.json_response({"error": "Unauthorized"}, status=401)
            status = self.fail.pop(0) if self.fail else 200
            if status >= 400:
                return web.json_response({"error": f"failed with {status}"}, status=status)
            try:
                answer = take(await request.json())
            except Refused as error:
                return web.json_response({"error": str(error)}, status=400)
            if status == 0 and request.transport:
                request.transport.close()
            return web.json_response(answer)

        return handle

    def _model(self, body: Body) -> Body:
        _keys(body, "id layers", "displayName url")
        name = body["id"]
        _need(isinstance(name, str) and 2 <= len(name) <= 32, "id must have 2 to 32 characters")
        _need(re.search(r"^[a-z][a-z0-9.-]*[a-z0-9]$|^[a-z]$", name), "id has characters that it must not")
        _need("--" not in name and ".." not in name, "id cannot contain double hyphens or periods")
        _need(_int(body["layers"], 1, 127), "layers must be an integer from 1 to 127")
        _need(name not in self.models, "Model already exists")
        self.models[name] = body
        return {"id": name}

    def _set(self, body: Body) -> Body:
        _keys(body, "modelId name description", "url")
        model, name = body["modelId"], body["name"]
        _need(model in self.models, "Model not found")
        _need(re.search(r"^[a-z][a-z0-9-]*[a-z0-9]$|^[a-z0-9]$", name), "name has characters that it must not")
        _need("--" not in name and name != "neurons", "name cannot be that")
        _need(len(body["description"]) <= 128, "description must have at most 128 characters")
        _need((model, name) not in self.sets, "Source set already exists")
        self.sets[model, name] = body
        sources = [f"{layer}-{name}" for layer in range(self.models[model]["layers"])]
        self.features |= {f"{model}/{source}": {} for source in sources}
        return {"sources": sources}

    def _batch(self, body: Body) -> Body:
        _keys(body, "modelId source features", "")
        place, features = f"{body['modelId']}/{body['source']}", body["features"]
        _need(place in self.features, "Source not found")
        _need(1 <= len(features) <= 128, "1 to 128 features")
        indices = [one["index"] for one in features]
        _need(len(set(indices)) == len(indices), "indexes must be unique")
        for one in features:
            self._feature(one)
        self.features[place] |= {one["index"]: one for one in features}
        return {"count": len(features)}

    def _feature(self, one: Body) -> None:
        _keys(one, "index activations", "density topLogits bottomLogits explanations")
        _need(_int(one["index"], 0, 10_000_000), "index must be from 0 to 10,000,000")
        _need(0 <= one.get("density", 0) <= 1, "density must be from 0 to 1")
        for name in ("topLogits", "bottomLogits"):
            _need(len(one.get(name, ())) <= 20, f"{name} has at most 20 tokens")
            for logit in one.get(name, ()):
                _keys(logit, "token value", "")
        for label in one.get("explanations", ()):
            _keys(label, "text", "methodName modelName")
            _need(1 <= len(label["text"]) <= 512, "text must have 1 to 512 characters")
            _need(label.get("methodName") in {None, *self.methods}, "unknown methodName")
            _need(label.get("modelName") in {None, *self.explainers}, "unknown modelName")
        _need(one["activations"], "at least one activation")
        for act in one["activations"]:
            _keys(act, "tokens values", "quantileMin quantileMax quantileFraction")
            _need(1 <= len(act["tokens"]) <= 1024, "1 to 1024 tokens")
            _need(len(act["tokens"]) == len(act["values"]), "as many values as tokens")
            _need(0 <= act.get("quantileFraction", 0) <= 1, "quantileFraction must be from 0 to 1")
            _need(not any("\0" in token for token in act["tokens"]), "a token holds NUL")


def _need(true: object, otherwise: str) -> None:
    if not true:
        raise Refused(otherwise)


def _keys(body: Body, required: str, optional: str) -> None:
    _need(isinstance(body, dict), "must be an object")
    missing, more = set(required.split()) - body.keys(), body.keys() - set(f"{required} {optional}".split())
    _need(not missing and not more, f"missing {sorted(missing)}, unknown {sorted(more)}")


def _int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
