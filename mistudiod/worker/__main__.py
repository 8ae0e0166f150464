"""``python -m mistudiod.worker RUN``: read ``spec.json``, do the job, leave with a code that tells how it went."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mistudiod.oom import classify
from mistudiod.paths import DiskFull, Paths, is_disk_full
from mistudiod.specs import KINDS, PREVIEWS, RESIDENT, Spec
from mistudiod.worker.link import (
    EVENTS_FD,
    EXIT_DISK,
    EXIT_INTERNAL,
    EXIT_INVALID,
    EXIT_MEMORY,
    EXIT_MISSING,
    EXIT_STOPPED,
    EXIT_YIELDED,
    Asked,
    Held,
    Link,
    Refused,
    take_secrets,
    tie_to_parent,
)
from mistudiod.worker.outbound import guard
from mistudiod.worker.redacted import redact_output


def _wait_patiently(kind: str) -> None:
    """Have OpenMP's threads wait for each other asleep, at once or nearly so; it is read when torch is loaded.

    By itself libgomp has them look again and again for milliseconds, on the core that the one they wait for may need:
    beside one other program on two cores a training had a 7th of the speed that it can have (``bench/busy.py``). To
    look for a moment costs a training nothing, to sleep at once some 5 %. A token is many short computations: there it
    is best to sleep at once.
    """
    if kind in ("session", "steer"):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    else:
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")


def main() -> int:
    tie_to_parent()
    guard()
    secrets = take_secrets()
    if secrets:
        redact_output()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    run = Path(sys.argv[1])
    fd = os.environ.pop(EVENTS_FD, None)
    order = json.loads((run / "spec.json").read_text())
    paths, finalize = Paths(Path(order["data"])), order.get("finalize", False)
    link = Link(run, paths, int(fd) if fd else None, secrets, order.get("choices"), finalize)
    link.listen()
    try:
        kind = order["spec"]["kind"]
        _wait_patiently(kind)
        spec = _spec(kind, order["spec"])
        importlib.import_module(f"mistudiod.worker.{kind}").run(spec, link)
    except Asked as asked:
        # Asked to finalize before there was anything to be: it is started again, and told so from the beginning.
        return EXIT_STOPPED if asked.what == "stop" else EXIT_YIELDED
    except Held as held:
        link.failure(held.code, str(held))
        return EXIT_YIELDED
    except Refused as refused:
        link.failure("invalid", str(refused), refused.field)
        return EXIT_INVALID
    except ModuleNotFoundError as missing:
        link.failure(
            "missing", f"the Python package {missing.name!r} is not installed: run pip install 'mistudio[worker]'"
        )
        return EXIT_MISSING
    except Exception as error:
        traceback.print_exc()
        code, exit_code = _classify(error)
        link.failure(code, _sentence(code, error))
        return exit_code
    return 0


def _spec(kind: str, given: Any) -> Spec:
    """Raises Refused for one that another version of this program has written."""
    try:
        return {**KINDS, **PREVIEWS, **RESIDENT}[kind].model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"{field}: {first['msg']}" if field else first["msg"]
        raise Refused(f"the job's spec is not one of this version ({reason}): submit it anew", field or None) from None


def _classify(error: Exception) -> tuple[str, int]:
    if is_disk_full(error):
        return "disk_full", EXIT_DISK
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "not_writable", EXIT_INTERNAL
    if classify(f"{type(error).__name__}: {error}"):
        return "out_of_memory", EXIT_MEMORY
    return "internal", EXIT_INTERNAL


def _sentence(code: str, error: Exception) -> str:
    if code == "disk_full" and not isinstance(error, DiskFull):
        return "the disk is full: free some space and retry the job"
    if code == "out_of_memory":
        what = f" ({error})" if str(error) else ""
        return f"there was not enough memory{what}; close other programs or ask for less, then retry the job"
    if code == "not_writable" and isinstance(error, OSError):
        return (
            f"{error.filename} cannot be made, changed or read here ({error.strerror}): see to its rights, or to why "
            "its disk is read-only, then retry the job"
        )
    return str(error) if code == "disk_full" else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    try:
        code = main()
    except MemoryError:  # not even for saying so was there enough
        code = EXIT_MEMORY
    sys.stdout.close()  # not only flushed: the last line may have no end
    sys.stderr.close()
    os._exit(code)  # torch's own clean-up takes seconds and has nothing left to save
