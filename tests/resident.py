"""A data folder with a model, SAEs of it and a text; and a resident worker on it, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inspected import random_sae
from tiny_models import LINES, VOCABULARY, tiny_model, tiny_tokenizer

from mistudiod.engine.rules import ReLURule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.events import from_line
from mistudiod.worker.link import EVENTS_FD

HOOK, D_SAE, WINDOW = "blocks.1.hook_resid_post", 48, 16
CONTEXT = 2048
DEAD = 7  # of every SAE
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{{ bos_token }}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def put_model(data: Path, name: str = "tiny", template: str | None = None, **overrides: Any) -> Path:
    folder = tiny_model("llama", data / f"hf-{name}", max_position_embeddings=CONTEXT, **overrides)
    if template:
        (folder / "chat_template.jinja").write_text(template)
    about = {"name": name, "source": str(folder), "path": str(folder), "family": "llama", "dtype": "float32"}
    (data / "models" / name).mkdir(parents=True)
    (data / "models" / name / "model.json").write_text(
        json.dumps(about | {"parameters": 1, "context": CONTEXT, "vocab_size": VOCABULARY, "revision": None})
    )
    return folder


def put_sae(data: Path, name: str = "s", model: str = "tiny", hook: str = HOOK, seed: int = 0, **about: Any) -> None:
    sae = random_sae()
    generator = torch.Generator().manual_seed(seed)
    b_enc = torch.randn(D_SAE, generator=generator) * 0.1
    b_enc[DEAD] = -1e9
    W_dec = sae.W_dec[torch.randperm(D_SAE, generator=generator)]
    made = SparseAutoencoder(W_dec.T.clone(), b_enc, W_dec, sae.b_dec, ReLURule(), metadata=sae.metadata)
    made.save(data / "saes" / name)
    recipe = {"sae": name, "model": {"name": model, **about}, "spec": {"hook": hook, "tokenization": "t"}}
    (data / "saes" / name / "recipe.json").write_text(json.dumps(recipe | {"resolved": {"precision": "fp32"}}))


def put_text(data: Path, model: str = "tiny", windows: int = 40) -> None:
    """The tokenization ``t``, half of it held out."""
    ids = tiny_tokenizer()("".join(LINES) * 8, add_special_tokens=False)["input_ids"]
    rows = np.resize(np.array(ids, "<u2"), (windows, WINDOW))
    rows[:, 0] = 0
    folder = data / "tokens" / "t"
    folder.mkdir(parents=True)
    (folder / "tokens.bin").write_bytes(rows.tobytes())
    about = {"name": "t", "model": model, "context": WINDOW, "train_windows": windows // 2, "dtype": "<u2"}
    about |= {"held_out_windows": windows - windows // 2, "special_ids": [0]}
    (folder / "tokenization.json").write_text(json.dumps(about))


def put_all(data: Path) -> Path:
    """The model ``tiny`` with two SAEs, at one hook and another, and their text."""
    put_model(data)
    put_sae(data)
    put_sae(data, "later", hook="blocks.2.hook_resid_pre", seed=1)
    put_text(data)
    return data


class Resident:
    """The worker: ``ask`` it, ``answer`` is what it says at last. ``said``: every event."""

    def __init__(self, data: Path, **spec: Any) -> None:
        self.run = data / "runs" / "session"
        self.run.mkdir(parents=True, exist_ok=True)
        order = {"data": str(data), "spec": {"kind": "session", "model": "tiny", **spec}}
        (self.run / "spec.json").write_text(json.dumps(order))
        read, write = os.pipe()
        with open(self.run / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mistudiod.worker", str(self.run)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write,),
                env=os.environ | {EVENTS_FD: str(write), "PYTHONUNBUFFERED": "1"},
            )
        os.close(write)
        self.said: list[dict[str, Any]] = []
        self._new: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._asked = 0
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()

    def _listen(self, read: int) -> None:
        with open(read, "rb") as pipe:
            for line in pipe:
                assert from_line(line) is not None, line[:300]
                self._new.put({**json.loads(line), "at": time.monotonic()})
        self._new.put(None)

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def ask(self, kind: str, **spec: Any) -> int:
        self._asked += 1
        self.say(json.dumps({"request": self._asked, "kind": kind, "spec": spec}))
        return self._asked

    def until(self, *kinds: str, request: int | None = None, limit_s: float = 90) -> dict[str, Any]:
        """The next event of one of the kinds; AssertionError when the worker ends before."""
        while True:
            event = self._new.get(timeout=limit_s)
            assert event is not None, self.log()
            self.said.append(event)
            if event["event"] in kinds and request in (None, event.get("request")):
                return event

    def answer(self, request: int) -> dict[str, Any]:
        return self.until("replied", "denied", request=request)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still within the block; all that it has said until then is in ``said``."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            with contextlib.suppress(queue.Empty):
                while (event := self._new.get(timeout=0.5)) is not None:
                    self.said.append(event)
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def written(self, request: int) -> int:
        """Tokens of a request, as far as it was heard."""
        said = (one for one in self.said if one["event"] == "wrote" and one["request"] == request)
        return max((int(one["tokens"]) for one in said), default=0)

    def result(self, kind: str, **spec: Any) -> dict[str, Any]:
        """What comes of it, once the worker has replied."""
        event = self.answer(self.ask(kind, **spec))
        assert event["event"] == "replied", event
        found: dict[str, Any] = event["result"]
        return found

    def denial(self, kind: str, **spec: Any) -> dict[str, Any]:
        event = self.answer(self.ask(kind, **spec))
        assert event["event"] == "denied", event
        return event

    def log(self) -> str:
        return (self.run / "log.txt").read_text()

    def ended(self, limit_s: float = 60.0) -> int:
        """Its exit code; what it said until then is in ``said``."""
        code = self.process.wait(limit_s)
        while (event := self._new.get(timeout=limit_s)) is not None:
            self.said.append(event)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
