"""Steering as the API gives it, in front of a studio that knows of the rest."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = Any
WHEN = "2026-01-02T03:04:05Z"
HOOK = "blocks.3.hook_resid_post"
BASELINE = 'for line in open(path):\n        yield line\n    raise OSError("no such file")'
MAXIMUM = {7: 44.6, 12: 3.5, 99: 0.0}  # of each feature; 99 is dead
BUSY = {
    "code": "gpu_busy", "message": "job 5 (train pico) has the GPU, for 12 min more", "choices": ["queue", "pause"],
    "job": {"id": 5, "kind": "train", "name": "pico", "progress": None, "eta_s": 720.0},
}  # fmt: skip


class Desk:
    """What the stub keeps, what it has been asked, and how it is to answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Json]] = []
        self.kept: dict[int, dict[str, Any]] = {}
        self.profiles: dict[str, dict[str, Any]] = {}
        self.ranges: dict[int, dict[str, Any]] = {}
        self.session: dict[str, Any] | None = None
        self.busy = False
        self.kl = 0.48
        self.steered = BASELINE.replace("yield line", "import os").replace("OSError", "ImportError")
        self.breaks_off = False
        self.denied: dict[str, Any] | None = None
        self.slow = False
        self.hung_up = threading.Event()

    def bodies(self, path: str) -> list[Json]:
        return [body for _, at, _, body in self.asked if at == path and body is not None]


def text(desk: Desk, sample: int, steering: list[dict[str, Any]], sae: str, words: str) -> dict[str, Any]:
    fires = [{"sae": one.get("sae") or sae, "feature": one["feature"], "mean": 0.4, "max": 3.25} for one in steering]
    return {
        "sample": sample, "text": words, "ids": list(range(len(words))), "tokens": list(words), "finish": "length",
        "perplexity": 3.14, "repetition": 0.02, "activations": fires,
    }  # fmt: skip


def strength(one: dict[str, Any], sae: str, factor: float = 1.0) -> dict[str, Any]:
    op = one.get("op", "add")
    value = one.get("strength", 1.0) * (1.0 if op == "ablate" else factor)
    about = {"sae": one.get("sae") or sae, "feature": one["feature"], "op": op}
    return {**about, "strength": value, "scope": one.get("scope", "all")}


def result(desk: Desk, body: Json) -> dict[str, Any]:
    """As a worker answers."""
    sae, steering = body["sae"], body["steering"]
    edits = [
        {**strength(one, sae), "hook": HOOK, "maximum": MAXIMUM[one["feature"]],
         "formula": f"h += {one.get('strength', 1.0):g}·{MAXIMUM[one['feature']]:g}·d"}
        for one in steering
    ]  # fmt: skip
    baselines, steered = [], []
    for sample in range(body.get("samples") or 1):
        base = text(desk, sample, steering, sae, BASELINE)
        baselines.append(base)
        for n, factor in enumerate(body.get("sweep") or [1.0]):
            done = [strength(one, sae, factor) for one in steering]
            moved = any(one["strength"] for one in done)
            dead = [
                {"sae": one["sae"], "feature": one["feature"], "reason": "dead", "message": "it fires nowhere (max 0)"}
                for one in done if one["feature"] == 99 and one["strength"]
            ]  # fmt: skip
            words = desk.steered if moved and not dead else BASELINE
            steered.append(
                {
                    **text(desk, sample, steering, sae, words), "variant": n, "strengths": done,
                    "kl": desk.kl if words != BASELINE else 0.0, "kl_tokens": [desk.kl], "perplexity": 9.5,
                    "changed": 0.31 if words != BASELINE else 0.0, "change_ratio": 0.27 if moved else None,
                    "steered_activations": [{**one, "mean": 88.0, "max": 90.5} for one in base["activations"]],
                    "no_effect": dead or None,
                }
            )  # fmt: skip
    messages = body.get("messages")
    return {
        "sae": sae, "model": "pico", "precision": "fp32", "device": "cpu",
        "prompt": body.get("prompt") or messages[-1]["content"], "prompt_tokens": 9, "seed": body.get("seed", 0),
        "edits": edits, "baseline": baselines[0], "baselines": baselines, "steered": steered,
        "made": {"mistudio": "0.1", "torch": "2.0", "threads": 1, "rows_at_once": 2}, "seconds": 1.5,
        "tokens_per_s": 80.0,
    }  # fmt: skip


def found_range(feature: int) -> dict[str, Any]:
    kl = {step: {"low": -size, "high": size} for step, size in (("0.1", 0.4), ("0.5", 1.1), ("2", 2.6))}
    broken = {"low": None, "high": 5.2, "why": "repetition"}
    about = {"maximum": MAXIMUM[feature], "tokens": 2048, "created_at": WHEN}
    return {"feature": feature, "kl": kl, "breaks": broken, **about}


def session(model: str, saes: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "state": "ready", "model": model, "precision": "fp32", "device": "cpu", "saes": saes, "pid": 77,
        "memory_bytes": 410_000_000, "gpu_bytes": None, "predicted_bytes": 500_000_000, "started_at": WHEN,
        "keep_alive_s": 300.0, "expires_at": None, "held_until": None, "paused_jobs": [], "progress": None, **fields,
    }  # fmt: skip


def kept(desk: Desk, body: Json) -> dict[str, Any]:
    id = len(desk.kept) + 1
    found = result(desk, body)
    spec = {name: value for name, value in body.items() if name not in ("stream", "keep_alive", "if_busy")}
    about = {"id": id, "created_at": WHEN, "job": None, "model": "pico", "sae": body["sae"]}
    desk.kept[id] = {**about, "starred": False, "note": None, "spec": {"kind": "steer", **spec}, "result": found}
    return {**found, "id": id}


def listed(one: dict[str, Any]) -> dict[str, Any]:
    spec = one["spec"]
    about = {"prompt": spec.get("prompt", ""), "steering": spec["steering"], "sweep": spec.get("sweep")}
    shown = {name: value for name, value in one.items() if name not in ("spec", "result")}
    return {**shown, **about, "samples": spec.get("samples", 1), "seed": spec.get("seed", 0)}


def answered(desk: Desk, method: str, path: str, query: dict[str, str], body: Json) -> Json:
    """The JSON of the answer; bytes are a file; None: it is the studio's affair."""
    if path == "/api/session":
        if method == "POST":
            desk.session = session(body.get("model") or "pico", body.get("saes", []))
        elif method == "DELETE":
            desk.session = None
        return desk.session if method == "POST" else {"session": desk.session}
    if path == "/api/profiles":
        if method == "POST":
            about = {"created_at": WHEN, "missing": [], "note": body.get("note"), "model": "pico"}
            desk.profiles[body["name"]] = {"name": body["name"], "steering": body["steering"], **about}
            return desk.profiles[body["name"]]
        return {"profiles": list(desk.profiles.values())}
    if found := re.fullmatch(r"/api/profiles/(.+)", path):
        return desk.profiles.pop(found[1]) if method == "DELETE" else desk.profiles[found[1]]
    if re.fullmatch(r"/api/saes/[^/]+/ranges", path):
        chosen = [int(one) for one in query.get("features", "").split(",") if one]
        some = [one for index, one in desk.ranges.items() if not chosen or index in chosen]
        return {"sae": "made", "ranges": some, "next": None}
    if path == "/api/steerings":
        ones = [listed(one) for one in reversed(desk.kept.values()) if not query.get("starred") or one["starred"]]
        return {"steerings": ones[: int(query["limit"])], "next": None if len(ones) <= int(query["limit"]) else "1"}
    if found := re.fullmatch(r"/api/steerings/(\d+)(/export)?", path):
        one = desk.kept[int(found[1])]
        if found[2]:
            return b"<!doctype html>" if query["format"] == "html" else json.dumps(one).encode()
        if method == "DELETE":
            del desk.kept[int(found[1])]
        one.update(body or {})
        return one
    return None


def events(desk: Desk, path: str, body: Json) -> Iterator[tuple[str, Json]]:
    """What a session tells while it writes."""
    loading = {"stage": "load pico", "done": 40, "total": 80, "unit": "bytes", "eta_s": 3.0}
    yield "progress", loading
    if desk.denied:
        yield "error", desk.denied
        return
    if path.endswith("/ranges"):
        found = [found_range(index) for index in body["features"]]
        desk.ranges |= {one["feature"]: one for one in found}
        yield "result", {"sae": "made", "ranges": found}
        return
    rows = (1 + len(body.get("sweep") or [1])) * (body.get("samples") or 1)
    for tokens in range(1, 40 if desk.slow else 4):
        yield "text", {"tokens": tokens, "texts": [{"row": row, "text": f" w{tokens}"} for row in range(rows)]}
        if desk.slow:
            time.sleep(0.1)
        if desk.breaks_off:
            return
    yield "result", kept(desk, body)


@contextmanager
def in_front(studio: str, desk: Desk) -> Iterator[str]:
    """The URL of a server that answers for the desk, and asks the studio for what it does not know."""
    import httpx

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length) if length else b""
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            is_json = (self.headers.get("Content-Type") or "") == "application/json"
            body = json.loads(content) if content and is_json else None
            desk.asked.append((self.command, url.path, query, body))
            if self.command == "POST" and re.fullmatch(r"/api/steer|/api/saes/[^/]+/ranges", url.path):
                self.stream(url.path, body)
                return
            found = answered(desk, self.command, unquote(url.path), query, body)
            if found is None and not url.path.startswith(("/api/session", "/api/profiles", "/api/steerings")):
                self.pass_on(content)
            else:
                self.send(found if isinstance(found, bytes) else json.dumps(found).encode(), 200)

        def stream(self, path: str, body: Json) -> None:
            if desk.busy and body.get("if_busy") != "pause":
                self.send(json.dumps({"error": BUSY}).encode(), 409)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for topic, data in events(desk, path, body):
                    self.wfile.write(f"event: {topic}\ndata: {json.dumps(data)}\n\n".encode())
                    self.wfile.flush()
            except ConnectionError:
                desk.hung_up.set()

        def send(self, content: bytes, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def pass_on(self, content: bytes) -> None:
            asked = {name: value for name, value in self.headers.items() if name != "Host"}
            with (
                httpx.Client(trust_env=False, timeout=60) as http,
                http.stream(self.command, studio + self.path, headers=asked, content=content or None) as answer,
            ):
                self.send_response(answer.status_code)
                for name in ("Content-Type", "ETag"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                try:
                    for chunk in answer.iter_raw():
                        self.wfile.write(chunk)
                        self.wfile.flush()
                except (ConnectionError, httpx.TransportError):
                    pass  # one of the two has gone

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
