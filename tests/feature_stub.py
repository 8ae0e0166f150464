"""Features and labels as the API gives them, in front of a studio that knows of the rest."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import code_pages as pages

Json = Any
WHEN = "2026-01-02T03:04:05Z"
NO_MARKS: dict[str, Any] = {"starred": False, "note": None, "lists": []}
TOLD_OF = (*pages.WORDS, pages.DEAD)


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Shelf:
    """What the stub keeps: labels (every one there was) and marks, and what it has been asked."""

    def __init__(self, saes: set[str]) -> None:
        self.saes = saes
        self.labels: list[dict[str, Any]] = []
        self.marks: dict[int, dict[str, Any]] = {}
        self.templates = {"default": "What does it fire on?\n"}
        self.asked: list[tuple[str, str, dict[str, str], Json]] = []
        self.cost_usd: float | None = 0.0
        self.calls = 0

    def label(self, feature: int, text: str, provider: str = "tokens", **fields: Any) -> dict[str, Any]:
        for one in self.labels:
            one["current"] = one["current"] and one["feature"] != feature
        made = {
            "id": len(self.labels) + 1, "sae": "made", "feature": feature, "text": text, "explanation": None,
            "confidence": None, "provider": provider, "model": None, "template": None, "template_sha256": None,
            "extraction": "5", "job": None, "created_at": WHEN, "status": "proposed", "current": True, "scores": [],
            **fields,
        }  # fmt: skip
        self.labels.append(made)
        return made

    def current(self, feature: int) -> dict[str, Any] | None:
        return next((one for one in self.labels if one["feature"] == feature and one["current"]), None)


def score(method: str = "tokens", judge: str | None = None, value: float = 0.82, **fields: Any) -> dict[str, Any]:
    return {
        "label": 1, "method": method, "judge": judge, "balanced_accuracy": value, "low": value - 0.1,
        "high": value + 0.1, "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95, "tp": 16, "fp": 3, "tn": 17, "fn": 4,
        "failed": 0, "examples": 40, "job": 9, "created_at": WHEN, **fields,
    }  # fmt: skip


def row(shelf: Shelf, index: int, example: bool) -> dict[str, Any]:
    label = shelf.current(index)
    shown = {key: label[key] for key in ("text", "provider", "confidence", "status")} if label else None
    best = next(iter(pages.page(index)["examples"]), None) if example else None
    number = next((one["balanced_accuracy"] for one in (label or {"scores": []})["scores"]), None)
    starred = bool(shelf.marks.get(index, {}).get("starred"))
    return {**pages.row(index), "label": shown, "score": number, "starred": starred, "example": best}


def holds(one: dict[str, Any], term: str) -> bool:
    if found := re.fullmatch(r"(density|max|score)([<>])(.+)", term):
        value = one[found[1]]
        return value is not None and (value < float(found[3]) if found[2] == "<" else value > float(found[3]))
    if term.startswith("token:"):
        return any(json.loads(term[6:]) in text for text in one["tokens"])
    return {
        "alive": not one["dead"], "dead": one["dead"], "labelled": one["label"] is not None,
        "unlabelled": one["label"] is None, "starred": one["starred"],
    }[term]  # fmt: skip


def listed(shelf: Shelf, query: dict[str, str]) -> Json:
    rows = [row(shelf, index, query.get("example") == "true") for index in TOLD_OF]
    for term in re.findall(r'token:".*"|\S+', query.get("filter", "")):
        try:
            rows = [one for one in rows if holds(one, term)]
        except KeyError:
            raise Refusal(400, f"{term!r} is no filter") from None
    if q := query.get("q"):
        rows = [one for one in rows if one["label"] and q in one["label"]["text"]]
    sort = query.get("sort", "index")
    rows.sort(key=lambda one: one[sort.lstrip("-")], reverse=sort.startswith("-"))
    at, limit = int(query.get("cursor", 0)), int(query["limit"])
    following = str(at + limit) if at + limit < len(rows) else None
    return {"sae": "made", "extraction": "5", "total": len(rows), "features": rows[at : at + limit], "next": following}


def whole(shelf: Shelf, index: int) -> Json:
    if index not in TOLD_OF:
        raise Refusal(404, f"there is no feature {index}: the SAE has 100")
    one = row(shelf, index, False)
    label = shelf.current(index)
    scores = label["scores"] if label else []
    about = {"sae": "made", "extraction": "5", "label": label}
    about["score"] = {"value": one["score"], "scores": scores} if scores else None
    return {**pages.page(index), **about, "marks": {**NO_MARKS, **shelf.marks.get(index, {})}}


def answered(shelf: Shelf, method: str, path: str, query: dict[str, str], body: Json) -> Json:
    """The JSON of the answer; bytes are NDJSON; None: it is the studio's affair."""
    if (method, path) == ("POST", "/api/jobs"):
        found_by(shelf, body["spec"])
    if path == "/api/endpoints":
        ollama = {"name": "ollama", "url": "http://127.0.0.1:11434", "on_this_machine": True, "has_secret": False}
        return {"endpoints": [ollama]}
    if path.startswith("/api/templates"):
        return templates(shelf, method, path.removeprefix("/api/templates").strip("/"), body)
    found = re.fullmatch(r"/api/saes/([^/]+)/((?:features|labels|lists|inspect).*)", path)
    if not found:
        return None
    if found[1] not in shelf.saes:
        raise Refusal(404, f"there is no sae {found[1]!r}")
    parts = found[2].split("/")
    if parts[0] == "labels":
        return of_labels(shelf, parts[1:], body)
    if parts == ["lists"]:
        names = [name for mark in shelf.marks.values() for name in mark.get("lists", [])]
        return {"lists": [{"name": name, "features": names.count(name)} for name in sorted(set(names))]}
    if parts == ["features"]:
        return listed(shelf, query)
    if parts[1:] == ["export"]:
        return b"".join(json.dumps(whole(shelf, index), ensure_ascii=False).encode() + b"\n" for index in TOLD_OF)
    if parts[1:] == ["compare"]:
        a, b = (row(shelf, int(query[which]), False) for which in "ab")
        shared = [{**place(one), "a": one["max"], "b": 0.5} for one in pages.page(a["index"])["examples"][:3]]
        return {"a": a, "b": b, "cosine": 0.25, "both": 40, "jaccard": 0.5, "shared": shared}
    return of_feature(shelf, method, int(parts[1]), parts[2:], query, body)


def place(example: dict[str, Any]) -> dict[str, Any]:
    where = {"position": example["first"] + example["peak"]}
    return {key: example[key] for key in ("row", "window", "texts", "peak")} | where


def found_by(shelf: Shelf, spec: Json) -> None:
    """What jobs find, there from the moment they are queued."""
    if spec["kind"] == "label":
        for index in spec.get("features") or pages.WORDS:
            shelf.label(index, f"fires on '{pages.WORDS[index]}'")
    elif spec["kind"] == "score":
        for one in shelf.labels:
            one["scores"] = [score()]


def of_feature(shelf: Shelf, method: str, index: int, parts: list[str], query: dict[str, str], body: Json) -> Json:
    page = whole(shelf, index)
    if method == "PATCH":
        shelf.marks[index] = {**NO_MARKS, **shelf.marks.get(index, {}), **body}
        return shelf.marks[index]
    if parts == ["occurrences"]:
        ordered = sorted(page["examples"], key=lambda one: one["row"])
        above = float(query.get("above", 0))
        found = [{**place(one), "value": one["max"]} for one in ordered if one["max"] >= above]
        some = found[: int(query["limit"])]
        return {"total": len(found), "occurrences": some, "next": None if len(some) == len(found) else "1"}
    if parts == ["labels"]:
        failure = {"job": 9, "reason": "the answer is no JSON", "at": WHEN} if index == 12 else None
        return {"labels": [one for one in reversed(shelf.labels) if one["feature"] == index], "failure": failure}
    if parts == ["label"] and method == "PUT":
        return shelf.label(index, provider="person", **body)
    if parts == ["label"]:
        found = shelf.current(index)
        if found is None:
            raise Refusal(404, f"feature {index} has no label")
        return found
    return page


def of_labels(shelf: Shelf, parts: list[str], body: Json) -> Json:
    if parts == ["export"]:
        return b"".join(json.dumps(one).encode() + b"\n" for one in shelf.labels)
    if parts == ["import"]:
        for one in body["labels"]:
            shelf.label(one["feature"], one["text"], one["provider"])
        return {"imported": len(body["labels"]), "known": 0}
    if parts == ["estimate"]:
        about = {"lane": "io", "why": "", "endpoint": "ollama", "url": "http://127.0.0.1:11434", "model": "qwen3:8b"}
        count = {"features": 3, "calls": shelf.calls, "prompt_tokens": 1200 * shelf.calls, "answer_tokens": 90}
        return {**count, "cost_usd": shelf.cost_usd, **about}
    if parts == ["summary"]:
        worth = {"method": "tokens", "judge": None, "features": 2, "mean": 0.7, "low": 0.6, "high": 0.8, "failed": 0}
        by = {"provider": "tokens", "status": "proposed", "features": 2}
        failures = [{"reason": "the answer is no JSON", "features": 4}]
        return {"labelled": 2, "history": 3, "providers": [by], "failures": failures, "scores": [worth]}
    made = next(one for one in shelf.labels if one["id"] == int(parts[0]))
    made["status"] = f"{parts[1]}ed"
    return made


def templates(shelf: Shelf, method: str, name: str, body: Json) -> Json:
    if method == "PUT":
        shelf.templates[name] = body["text"]
    if not name:
        return {"templates": [{"name": one, "sha256": "ab" * 32} for one in shelf.templates]}
    if name not in shelf.templates:
        raise Refusal(404, f"there is no template {name!r}")
    return {"name": name, "text": shelf.templates[name], "sha256": "ab" * 32}


@contextmanager
def in_front(studio: str, shelf: Shelf) -> Iterator[str]:
    """The URL of a server that answers out of the shelf, and asks the studio for what it does not know."""
    import httpx

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length) if length else None
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            is_json = (self.headers.get("Content-Type") or "") == "application/json"
            body = json.loads(content) if content and is_json else None
            shelf.asked.append((self.command, url.path, query, body))
            try:
                found = answered(shelf, self.command, unquote(url.path), query, body)
            except Refusal as refusal:
                code = "not_found" if refusal.status == 404 else "invalid"
                self.send(json.dumps({"error": {"code": code, "message": str(refusal)}}).encode(), refusal.status)
                return
            if found is None:
                self.pass_on(content)
            else:
                self.send(found if isinstance(found, bytes) else json.dumps(found).encode(), 200)

        def send(self, content: bytes, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def pass_on(self, content: bytes | None) -> None:
            asked = {name: value for name, value in self.headers.items() if name != "Host"}
            with (
                httpx.Client(trust_env=False, timeout=60) as http,
                http.stream(self.command, studio + self.path, headers=asked, content=content) as answer,
            ):
                self.send_response(answer.status_code)
                for name in ("Content-Type", "ETag"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                with contextlib.suppress(ConnectionError, httpx.TransportError):  # one of the two has gone
                    for chunk in answer.iter_raw():
                        self.wfile.write(chunk)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
