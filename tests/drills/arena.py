"""A studio at work, what goes wrong with it, and what came of that."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub import Hub

from tests.drills import TESTS, checks
from tests.drills.daemon import Daemon, wait_for
from tests.drills.ground import Ground
from tests.drills.work import ALL, Lost, Work, asking

BACK_S = 120.0  # until the studio answers and works again
OFTEN = 2  # deaths of a job at one place; after a third the studio rightly gives up


class Skipped(Exception):
    """This fault cannot be made here: why."""


@dataclass
class Tally:
    """Of one kind of fault."""

    tries: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: list[float] = field(default_factory=list)  # until the studio answered and worked again
    told: set[str] = field(default_factory=set)  # what a person was told of jobs that did not go on by themselves


@dataclass(frozen=True)
class Fault:
    """``strike`` does it and undoes what a person would undo; ``codes`` are errors of jobs that it may leave."""

    kind: str
    strike: Callable[[Arena], None]
    codes: frozenset[str]


class Arena:
    """``with`` it a studio runs in it."""

    def __init__(self, home: Path, made: Path, seed: int, own_file_system: bool = True, hub: Hub | None = None) -> None:
        self.home, self.random, self.seed = home, random.Random(seed), seed
        self.ground = Ground(home, own_file_system)
        self.data, self.log, self._made = self.ground.data, home / "daemon.log", made
        self.hub = hub
        self.environ = {"OMP_NUM_THREADS": "1"} | self._clock() | (hub.environ(home / "huggingface") if hub else {})
        self.tallies: dict[str, Tally] = {}
        self._mended: float | None = None
        self._said: set[str] = set()

    def __enter__(self) -> Arena:
        self.ground.__enter__()
        try:
            self.ground.put(self._made)
            self.daemon = self.start()
        except BaseException:
            self.ground.__exit__()
            raise
        self.work = Work(lambda: self.daemon)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self.ground.__exit__()

    # -- what faults do with it ----------------------------------------------------------------------------------

    def start(self, *prefix: str) -> Daemon:
        return Daemon(self.data, self.log, self.environ, *prefix).ready()

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.daemon.end(number)
        self.again()

    def again(self) -> None:
        """Start the studio, which has ended; what follows is its recovery."""
        self.mended()
        self.daemon = self.start()

    def cut(self) -> None:
        """End every process at once, as when the power fails."""
        processes = [self.daemon.pid, *self.daemon.workers().values()]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none sees another's end
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.daemon.process.wait(30)
        wait_for(lambda: not self.daemon.workers(), 30)

    def mended(self) -> None:
        """From now on it is the studio's to come back."""
        self._mended = time.monotonic()

    def later(self, most_s: float = 2.0) -> None:
        """A random moment, in the middle of what happens to go on then."""
        time.sleep(self.random.uniform(0, most_s))

    def worker(self) -> int:
        """The process of a worker that may be hurt, at random. Raises Skipped where none is at work."""
        pids = wait_for(lambda: list(self.daemon.workers().values()), 10)
        if not pids:
            raise Skipped("no worker is at work just now")
        return int(self.random.choice(pids))

    def jump(self, seconds: float) -> None:
        """Set the clock of daemon and workers so far off the true one."""
        if "DRILL_CLOCK" not in self.environ:
            raise Skipped("there is no C compiler to make another clock with")
        Path(self.environ["DRILL_CLOCK"]).write_bytes(struct.pack("q", int(seconds * 1e9)))

    def _clock(self) -> dict[str, str]:
        library, file = self.home / "clock.so", self.home / "clock"
        self.home.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(TESTS / "drills" / "clock.c"), "-ldl"]
        if not shutil.which("cc") or subprocess.run(command, capture_output=True).returncode:
            return {}
        file.write_bytes(struct.pack("q", 0))
        ctypes.CDLL(str(library))  # it can be loaded at all
        return {"LD_PRELOAD": str(library), "DRILL_CLOCK": str(file)}

    def runs(self, *states: str) -> list[Path]:
        """Run folders of the work's jobs in these states."""
        return [self.data / "runs" / str(job) for job in self.work.jobs if self.work.show(job)["state"] in states]

    def not_begun(self) -> set[int]:
        """Jobs of which there is no folder yet."""
        return {job for job in self.work.jobs if not (self.data / "runs" / str(job) / "spec.json").is_file()}

    def reindex(self) -> None:
        command = [sys.executable, "-m", "mistudiod", "reindex", "--data", str(self.data)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
        if done.returncode:
            raise Lost(f"reindex ended with {done.returncode}: {done.stderr}")

    def forgotten(self, why: str, which: Collection[int] | None = None) -> None:
        """Ask anew for jobs that the studio may have lost: ``which``, or any."""
        known = {job["id"] for job in self.daemon.call("/api/jobs?limit=1000")["jobs"]}
        for job in self.work.jobs.keys() - known:
            if which is None or job in which:
                self.work.submit(self.work.jobs.pop(job))
                self.say(why)

    def say(self, what: str) -> None:
        """Note of the fault that is being made what a person would be told, or must know."""
        self._said.add(what)

    # -- how a drill goes ----------------------------------------------------------------------------------------

    def learn(self, variants: Sequence[str] = ALL) -> None:
        """What the work comes to when nothing is wrong."""
        self.work.submit(*variants)
        self.work.settle(600)
        checks.at_rest(self.daemon, self.work, self.data)
        if self.work.told:
            raise Lost(f"undisturbed work went wrong: {self.work.told}")
        self.work.forget()

    def bout(self, faults: Sequence[Fault], variants: Sequence[str] = ALL, limit_s: float = 600.0) -> None:
        """Faults one after the other while work is done that is submitted now; then it must all come to its end."""
        self.work.submit(*variants)
        struck: list[Fault] = []
        try:
            with asking(lambda: self.daemon):
                for fault in faults:
                    if not self.work.unfinished():
                        self.work.submit(*variants)
                    struck.append(fault)
                    if not self._struck(fault):
                        struck.pop()
                self.work.settle(limit_s)
            checks.at_rest(self.daemon, self.work, self.data)
            self._explained(struck)
            self.work.forget()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the drill goes on
            self._begin_anew(struck, error)
            return
        for fault in struck:
            self.tallies[fault.kind].survived += 1

    def _struck(self, fault: Fault) -> bool:
        tally = self.tallies.setdefault(fault.kind, Tally())
        self._patience()
        self.later()
        self._mended, self._said = None, tally.told
        tally.tries += 1
        try:
            fault.strike(self)
        except Skipped as skipped:
            tally.tries -= 1
            tally.skipped = str(skipped)
            return False
        began = self._mended or time.monotonic()
        self._back()
        tally.seconds.append(time.monotonic() - began)
        print(f"  {fault.kind}: works again after {tally.seconds[-1]:.1f} s", flush=True)
        checks.at_once(self.daemon, self.work, self.data)
        return True

    def _patience(self) -> None:
        """Until no job would be given up because it died once more at the same place."""
        query = f"""select attempts.job from attempts join jobs on jobs.id = attempts.job
                   where jobs.state not in ('done', 'failed', 'stopped') and attempts.ended_at is not null
                   and attempts.reason not in ('paused', 'stopped', 'out of memory', 'held')
                   group by attempts.job, attempts.checkpoint having count(*) >= {OFTEN}"""

        def further() -> bool:
            return not set(self.daemon.workers()) & {str(job) for (job,) in checks.query(self.data, query)
                                                     if not self._past(job)}  # fmt: skip

        wait_for(further, 60, 0.2)

    def _past(self, job: int) -> bool:
        """Whether it has a newer checkpoint than when it died last."""
        last = checks.query(self.data, f"select max(checkpoint) from attempts where job = {job}")[0][0]
        steps = [int(path.name) for path in (self.data / "runs" / str(job)).glob("checkpoints/[0-9]*")]
        return max(steps, default=-1) > (last if last is not None else -1)

    def _back(self) -> None:
        """Wait until the studio answers, and works again where it has to."""

        def works() -> bool:
            jobs, workers = self.work.unfinished(), self.daemon.workers()
            states = [job["state"] for job in jobs]
            at_work = all(str(job["id"]) in workers for job in jobs if job["state"] == "running")
            return at_work and "interrupted" not in states and ("queued" not in states or bool(workers))

        if wait_for(works, BACK_S, 0.02) is None:
            raise Lost(f"it does not work again after {BACK_S:.0f} s")

    def _explained(self, struck: Sequence[Fault]) -> None:
        may = frozenset[str]().union(*(fault.codes for fault in struck))
        for job, code, message in self.work.told:
            if code not in may:
                raise Lost(f"job {job} failed for no reason of these faults: {code}: {message}")
        for fault in struck:
            self.tallies[fault.kind].told |= {message for _, code, message in self.work.told if code in fault.codes}

    def _begin_anew(self, struck: Sequence[Fault], error: Exception) -> None:
        """With the folder as it was at first; what is left of the other is kept to be looked at."""
        last = struck[-1].kind if struck else "undisturbed work"
        said = str(error) if isinstance(error, Lost) else "".join(traceback.format_exception(error))
        kinds = ", ".join(fault.kind for fault in struck)
        self.tallies.setdefault(last, Tally()).lost.append(f"after {kinds}: {said}")
        print(f"  LOST after {kinds}: {said}", flush=True)
        for fault in struck[:-1]:  # nobody can say how they would have ended
            self.tallies[fault.kind].tries -= 1
        self.cut()
        for undo in (self.ground.free, lambda: self.jump(0)):
            with contextlib.suppress(Skipped):
                undo()
        kept = self.home / f"lost-{int(time.time())}"
        shutil.copytree(self.data, kept, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
        shutil.copy(self.log, kept / "drill-daemon.log")
        self.ground.put(self._made)
        self.daemon = self.start()
        plain = self.work.plain
        self.work = Work(lambda: self.daemon, plain)
