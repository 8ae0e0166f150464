"""A worker that speaks the protocol without torch: it does what its job's name tells, one letter-word after another.

The dataset name of an ``add_dataset`` job (or the SAE name of a ``train`` job) is a script of words joined by ``-``:
``ok``, ``hang``, ``die`` (SIGKILL), ``crash`` (SIGSEGV), ``flood``, ``garbage``, ``deaf`` (ignores SIGTERM and
messages), ``fail``, ``silent`` (exit 70 without a word), ``child`` (leaves a grandchild holding the pipe), ``slow``
(runs until told to stop), ``brief`` (the same, 0.4 s at most), ``late`` (loads for 2 s), ``once`` (dies on
the first attempt only), ``partial`` (leaves a half-written folder),
``tell`` (the sha256 of the secret "hf" as a metric's name), ``leak`` (that secret in everything it prints and says),
``leakraw`` (the same past Python's streams, as C code would), ``hungry`` (out of memory with more than 1,024 tokens at
a time), ``greedy`` (out of memory with any), ``full`` (the disk is full at a checkpoint, as long as there is a file
``full`` in the data folder), ``half`` (of a grid every other SAE fails), ``train`` (metrics and live features of every
SAE, then a checkpoint, then as ``slow``: at a stop it saves what it has), ``hostile`` (live features with a text that
would steer a terminal).

A job of labels does the words of its template or, when it scores, those of its model: ``label`` (a label of every
feature that it is given), ``third`` (only of every third, the others fail, and the job is partial), ``score`` (0.75 by
every method), ``tellkey`` and ``leakkey`` (as ``tell`` and ``leak``, of the endpoint's secret), ``strange`` (labels
that would steer a terminal, or a page).

A training that is to be finalized does its words no more.

What takes the GPU locks the file ``gpu`` in the data folder, and leaves a file ``overlap`` there when another has it.

A session does the words of its model's name while it loads, and of each request those of its prompt: ``slow`` (a token
each 20 ms), ``hang``, ``die``, ``deny``, ``fail`` (denied as invalid), ``oom`` (as long as it writes more than one text
at once), ``greedy`` (always). What it writes is ``t0 t1 …``, ``max_tokens`` of them in every row; of a completion
``tell`` makes it its spec, and ``dull`` leaves every edit without effect.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from urllib.parse import quote

import steered_runs

from mistudiod.specs import LANES, PREVIEWS, Train
from mistudiod.worker.link import Asked, take_secrets, tie_to_parent
from mistudiod.worker.redacted import redact_output

asked: list[str] = []
requests: queue.Queue[str] = queue.Queue()
secrets: dict[str, str] = {}
DEADLY = ("hang", "deaf", "die", "crash", "silent")


def main() -> int:
    tie_to_parent()
    secrets.update(take_secrets())
    if secrets:
        redact_output()
    run = Path(sys.argv[1])
    order = json.loads((run / "spec.json").read_text())
    pipe = os.fdopen(int(os.environ["MISTUDIO_EVENTS_FD"]), "wb", buffering=0)
    threading.Thread(target=follow, daemon=True).start()
    spec = order["spec"]

    def say(**event: object) -> None:
        pipe.write(json.dumps(event).encode() + b"\n")

    if LANES.get(spec["kind"], "gpu") == "gpu" and spec["kind"] not in PREVIEWS:
        take_gpu(Path(order["data"]))
    if spec["kind"] == "session":
        return be_resident(order, say)
    attempt = len(list(run.glob("attempt-*"))) + 1
    (run / f"attempt-{attempt}").write_text(str(os.getpid()))
    print(f"fake worker, attempt {attempt}", flush=True)
    words = script(spec).split("-")
    say(event="progress", stage="work", done=done_so_far(), total=2, unit="things")
    for word in [] if order.get("finalize") else words:
        code = act(word, attempt, order, say, pipe)
        if code is not None:
            return code
    if order["spec"]["kind"] == "probe_device":
        (Path(order["data"]) / f"probed-{os.getpid()}").touch()
        precisions = {**dict.fromkeys(("fp32", "bf16", "fp16")), "int8": "it does not work", "nf4": None}
        say(event="result", result={"device": "cpu", "name": "CPU", "precisions": precisions})
        return 0
    if order["spec"]["kind"] == "sample_dataset":
        say(event="result", result={"rows": []})
        return 0
    finish(order, say)
    return 0


def take_gpu(data: Path) -> None:
    gpu = os.open(data / "gpu", os.O_RDWR | os.O_CREAT)  # until this process ends
    try:
        fcntl.flock(gpu, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (data / "overlap").touch()


def act(word: str, attempt: int, order: dict, say, pipe) -> int | None:
    if word == "hang":
        time.sleep(3600)
    elif word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    elif word == "die" or (word == "once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "flood":
        for step in range(20_000):
            say(event="metric", step=step, values={"loss": 1.0 / (step + 1)})
    elif word == "garbage":
        for line in (b"\x00\xff{{{\n", b"x" * 300_000 + b"\n", b'{"event":"artifact","noun":"../x","name":"y"}\n',
                     b'{"event":"metric","step":1,"values":{"loss":NaN}}\n', b"[" * 50_000 + b"\n", b"\n"):  # fmt: skip
            pipe.write(line)
    elif word == "fail":
        say(event="failure", code="invalid", message="there is no such file", field="source")
        return 64
    elif word == "greedy" or (word == "hungry" and order["choices"]["micro_tokens"] > 1024):
        say(event="failure", code="out_of_memory", message="there was not enough memory")
        return 77
    elif word == "silent":
        print("last words", file=sys.stderr, flush=True)
        return 70
    elif word == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], close_fds=False)
    elif word == "partial":
        parent = Path(order["data"]) / "datasets"
        (parent / f".partial-x-{os.getpid()}").mkdir()
    elif word in ("tell", "tellkey"):
        secret = secrets.get({"tell": "hf", "tellkey": "endpoint"}[word], "")
        say(event="metric", step=0, values={hashlib.sha256(secret.encode()).hexdigest(): 1.0})
    elif word == "leak":
        leak(secrets["hf"], say)
    elif word == "leakkey":
        leak(secrets["endpoint"], say)
        say_labels(order, run_of(order), say, f"named {secrets['endpoint']}")
    elif word in ("label", "third", "strange"):
        text = "\x1b]0;owned\x07 \u202egnp <script>alert(1)</script>\x00" if word == "strange" else "what it is"
        say_labels(order, run_of(order), say, text, 3 if word == "third" else 1)
    elif word == "score":
        say_scores(order, run_of(order), say)
    elif word == "leakraw":
        os.write(1, f"by C code: {secrets['hf']}\n".encode())
    elif word == "full" and (Path(order["data"]) / "full").exists():
        say(event="failure", code="disk_full", message="the disk is full: free some space")
        return 75
    elif word == "hostile":
        say(event="live", sae=saes_of(order)[0], step=1, features=[feature("\x1b]0;owned\x07", "\u202egnp")])
    elif word == "train":
        return be_trained(order, say)
    elif word == "late":
        for done in (0, 1):
            say(event="progress", stage="load model", done=done, total=1)
        end = time.monotonic() + 2
        while time.monotonic() < end and not asked:
            time.sleep(0.02)
    elif word in ("slow", "brief"):
        end = time.monotonic() + (0.4 if word == "brief" else 3600)
        while time.monotonic() < end:
            if asked:
                return 76 if asked[-1] == "stop" else 75
            say(event="progress", stage="work", done=done_so_far(), total=2)
            time.sleep(0.02)
    return None


def done_so_far() -> float:
    """More than in any attempt before."""
    return 1 + time.monotonic() / 1e9


def be_resident(order: dict, say) -> int:
    spec, saes, lines = order["spec"], list(order["spec"]["saes"]), iter(requests.get, None)
    print(f"fake session {os.getpid()}", flush=True)
    say(event="progress", stage="load model", done=0, total=1)
    words = spec["model"].split("-")
    if "slow" in words:
        time.sleep(0.5)
    if "fail" in words:
        say(event="failure", code="invalid", message="the model is damaged", field="model")
        return 64
    if "greedy" in words:
        return 77
    for word in words:
        if word in DEADLY and (code := act(word, 1, order, say, None)) is not None:
            return code
    about = {"model": spec["model"], "precision": spec["precision"] or "fp32", "device": "cpu"}
    say(event="loaded", **about, saes=saes)
    for line in lines:
        if line in ("stop", "pause"):
            return 76 if line == "stop" else 75
        if line.startswith("cancel"):
            continue
        asked_for = json.loads(line)
        wanted = asked_for["spec"].get("saes") or [asked_for["spec"].get("sae")]
        if new := [sae for sae in wanted if sae and sae not in saes]:
            saes += new
            say(event="loaded", **about, saes=saes)
        if (code := reply(asked_for, spec, say)) is not None:
            return code
    return 75


def reply(asked_for: dict, order: dict, say) -> int | None:
    """Answer a request; a code is that with which the session ends."""
    number, spec = asked_for["request"], asked_for["spec"]
    if asked_for["kind"] == "complete" and spec["messages"]:
        spec = {**spec, "prompt": spec["messages"][-1]["content"]}
    rows = spec.get("samples", 1) * (1 if asked_for["kind"] != "steer" else 1 + len(spec["sweep"] or [1]))
    words = str(spec.get("prompt") or "").split("-")
    at_once = order["rows_at_once"] or rows
    if "greedy" in words or ("oom" in words and at_once > 1):
        say(event="wrote", request=number, tokens=1, texts=[{"row": row, "text": "t0 "} for row in range(rows)])
        say(event="denied", request=number, code="out_of_memory", message=f"{at_once} texts at once do not fit")
        return 77
    for word in words:
        if word in DEADLY and (code := act(word, 1, order, say, None)) is not None:
            return code
        if word in ("fail", "deny"):
            code = {"fail": "invalid", "deny": "internal"}[word]
            say(event="denied", request=number, code=code, message="the prompt is too long", field="prompt")
            return None
    for token in range(spec.get("max_tokens", 0)):
        if "slow" in words:
            time.sleep(0.02)
        if asked and asked[-1] in ("stop", "pause"):
            say(event="denied", request=number, code="cancelled", message="the session ends")
            return 76 if asked[-1] == "stop" else 75
        if f"cancel {number}" in asked:
            say(event="denied", request=number, code="cancelled", message="cancelled")
            return None
        texts = [{"row": row, "text": "" if "tell" in words else f"t{token} "} for row in range(rows)]
        say(event="wrote", request=number, tokens=token + 1, texts=texts)
    if asked_for["kind"] == "complete":
        say(event="replied", request=number, result=completion(spec, words))
        return None
    about = {"rows": rows, "rows_at_once": order["rows_at_once"], "pid": os.getpid(), "spec": spec}
    if asked_for["kind"] in steered_runs.ANSWERS:
        about |= steered_runs.ANSWERS[asked_for["kind"]](spec, order["model"])
    say(event="replied", request=number, result=about)
    return None


def completion(spec: dict, words: list[str]) -> dict:
    written = "".join(f"t{token} " for token in range(spec["max_tokens"]))
    text = json.dumps(spec) if "tell" in words else written
    dull = [{"sae": edit["sae"], "feature": edit["feature"], "reason": "dead", "message": "it never fires"}
            for edit in spec["steering"] if "dull" in words]  # fmt: skip
    return {
        "model": spec["model"],
        "texts": [{"text": text, "finish": "length", "tokens": spec["max_tokens"]}] * spec["samples"],
        "prompt_tokens": 1,
        "completion_tokens": spec["samples"] * spec["max_tokens"],
        "no_effect": dull or None,
    }


def saes_of(order: dict) -> list[str]:
    if order["spec"]["kind"] == "extract":
        return [order["spec"]["sae"]]
    return [one.name for one in Train.model_validate(order["spec"]).saes()]


def script(spec: dict) -> str:
    if spec["kind"] == "label":
        return str(spec["template"] if spec["endpoint"] != "tokens" else "label")
    return str(spec["model"] or "score") if spec["kind"] == "score" else str(spec.get("name", spec.get("sae", "")))


def run_of(order: dict) -> Path:
    return Path(order["data"]) / "runs" / str(order["job"])


def say_labels(order: dict, run: Path, say, text: str, every: int = 1) -> None:
    spec, given = order["spec"], json.loads((run / "given.json").read_text())
    template = given["template"] or {}
    told = [
        {
            "feature": one["index"],
            "text": text,
            "explanation": f"{text}, because",
            "confidence": 0.5,
            "evidence": {"n": 1},
        }
        if n % every == 0
        else {"feature": one["index"], "error": "the answer was prose"}
        for n, one in enumerate(given["features"])
    ]
    by = {"provider": spec["endpoint"], "model": spec["model"], "template": template.get("name")}
    for at in range(0, len(told), 50):
        say(event="labels", **by, template_sha256=template.get("sha256"), extraction=given["extraction"],
            labels=told[at : at + 50])  # fmt: skip
    failed = [one for one in told if "error" in one]
    if failed:
        order["partial"] = f"{len(failed)} of {len(told)} features failed: the answer was prose"


def say_scores(order: dict, run: Path, say) -> None:
    spec, given = order["spec"], json.loads((run / "given.json").read_text())
    counts = {"tp": 3, "fp": 1, "tn": 3, "fn": 1, "failed": 0, "examples": 8}
    scores = [
        {"feature": one["index"], "label": one["label"]["id"], "method": method, "balanced_accuracy": 0.75, **counts,
         "judge": None if method == "tokens" else spec["model"]}
        for one in given["features"] for method in one["methods"]
    ]  # fmt: skip
    say(event="scores", extraction=given["extraction"], scores=scores[:50])


def feature(before: str = "import", token: str = " os", n: int = 7) -> dict:
    window = {"value": 3.5, "before": before, "token": token, "after": "\nsys."}
    return {"feature": n, "density": 0.01, "windows": [window, {**window, "value": 1.0}]}


def be_trained(order: dict, say) -> int | None:
    saes = saes_of(order)
    for step in range(1, 6):
        for n, sae in enumerate(saes):
            values = {"fvu": (n + 1) / (step + 1), "l0": 32.0 + n, "dead": 0.25, "tokens_per_s": 1000.0}
            say(event="metric", sae=sae, step=step, values=values)
            say(event="live", sae=sae, step=step, features=[feature(n=step)])
        say(event="metric", step=step, values={"memory_bytes": 1e9})
    say(event="metric", sae=saes[0], step=5, values={"fvu": 0.5, "eval_fvu": 0.125, "ce_recovered_zero": 0.9})
    say(event="metric", sae="of-another-job", step=5, values={"fvu": 0.5})
    folder = Path(order["data"]) / "runs" / str(order["job"]) / "checkpoints" / "5"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.safetensors").write_bytes(b"x" * 1000)
    (folder / "manifest.json").write_text(json.dumps({"about": {"step": 5, "saes": saes, "held_out_fvu": 0.25}}))
    while not asked:
        say(event="progress", stage="train", done=5, total=10, unit="tokens")
        time.sleep(0.02)
    if asked[-1] == "stop":
        finish(order, say)
    return {"stop": 76, "pause": 75}.get(asked[-1])


def leak(secret: str, say) -> None:
    print("printed", secret, json.dumps(secret), quote(secret, safe=""), f"http://user:{secret}@host/")
    print(secret[:9], end="", flush=True)
    time.sleep(0.05)
    print(secret[9:], "in two pieces", file=sys.stdout)
    warnings.warn(f"a warning with {secret}", stacklevel=1)
    try:
        raise ValueError(f"a traceback with {secret}")
    except ValueError:
        traceback.print_exc()
    say(event="progress", stage=f"with {secret}", done=1, total=2, unit="things")
    say(event="metric", step=1, values={secret: 1.0})
    say(event="result", result={"secret": secret, secret: [secret]})
    say(event="failure", code="internal", message=f"it failed with {secret}")


def finish(order: dict, say) -> None:
    spec = order["spec"]
    if spec["kind"] == "inspect":
        fires = [{"index": 7, "value": 1.5}]
        token = {"id": 3, "text": spec["text"], "special": False, "outlier": False, "features": fires}
        pooled = [{"index": 7, "max": 1.5, "tokens": 1, "peak": 0}]
        found = {"sae": spec["sae"], "top": spec["top"], "tokens": [token], "pooled": pooled}
        say(event="result", result={**found, "left_out": 0, "l0": 1.0})
        return
    nouns = {"add_dataset": ("dataset", "dataset.json"), "add_model": ("model", "model.json"),
             "tokenize": ("tokenization", "tokenization.json"), "train": ("sae", "recipe.json")}  # fmt: skip
    made = saes_of(order) if spec["kind"] == "train" else [spec.get("name")]
    failed = made[1::2] if "half" in str(spec.get("name")).split("-") else []
    made = [name for name in made if name not in failed]
    if spec["kind"] in nouns:
        noun, file = nouns[spec["kind"]]
        for name in made:
            folder = Path(order["data"]) / {"tokenization": "tokens"}.get(noun, noun + "s") / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps({"rows": 3, "job": order["job"]}))
            say(event="artifact", noun=noun, name=name)
    took = {"peak_bytes": 600_000_000, "seconds": 1.0, "tokens_per_s": 1000.0} if spec["kind"] == "train" else {}
    if spec["kind"] == "steer":
        took = steered_runs.answer(spec, "m")
    if failed:
        took["failed"] = [{"sae": name, "message": "it diverged"} for name in failed]
    if "partial" in order:
        took["partial"] = order["partial"]
    say(event="result", result={"spec": spec, **took})


def follow() -> None:
    for line in sys.stdin:
        asked.append(line.strip())
        requests.put(line.strip())
    os._exit(75)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Asked:  # SIGTERM
        sys.exit(76)
