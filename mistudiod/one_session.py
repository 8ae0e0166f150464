"""One session: its lease of the GPU, its process, the line of those who ask it, and when it has to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque

from mistudiod import busy, host, insist, oom
from mistudiod.ending import MEMORY
from mistudiod.errors import Conflict, SessionFailed, StudioError, TooMany
from mistudiod.events import Progress
from mistudiod.keep_alive import Stay
from mistudiod.leases import Answer
from mistudiod.request import Request
from mistudiod.resident import Resident, ordered
from mistudiod.runner import boot_id
from mistudiod.session_tools import Tools
from mistudiod.statements import Job
from mistudiod.turn import waiting
from mistudiod.wanted import Wanted

log = logging.getLogger("mistudiod.session")
LINE = 16  # requests that wait for the one under way
_LOOK_S = 1.0  # how often it is looked whether the jobs' turn is over


class Session:
    """``run()`` is its life; ``over`` is set when its process has ended and its lease been given back."""

    def __init__(self, wanted: Wanted, answer: Answer, stay: Stay, tools: Tools) -> None:
        """``answer``: it has its lease, or will have one."""
        self.wanted, self._answer, self.stay, self._tools = wanted, answer, stay, tools
        self.started_at = time.time()
        self.resident: Resident | None = None
        self.precision = wanted.precision
        self.predicted_bytes: int | None = None
        self.paused: list[int] = []  # jobs that make room for it
        self.hands_over = False  # to another session, which takes over the lease
        self.over = asyncio.Event()
        self._rows_at_once: int | None = None
        self._number = 0
        self._line: deque[Request] = deque()
        self._why: StudioError | None = None  # it has to end
        self._job: Job | None = None  # that waits for nothing but the GPU
        self._job_since = 0.0
        self._look = True  # at the jobs: something has changed
        self._wake = asyncio.Event()

    # -- what others ask of it -----------------------------------------------------------------------------------

    @property
    def lease(self) -> int | None:
        return self._answer.lease

    @property
    def waits_for(self) -> Job | None:
        """A job that gets ahead first."""
        return self._answer.job if self._answer.after_s else None

    @property
    def waits(self) -> Progress | None:
        job = self.waits_for
        return None if job is None else waiting(job["id"], self._answer.after_s)

    @property
    def busy(self) -> bool:
        return bool(self._line) or (self.resident is not None and self.resident.active is not None)

    @property
    def state(self) -> str:
        if self._why is not None:
            return "stopping"
        if self.resident is None or self.resident.loaded is None:
            return "loading"
        return "busy" if self.busy else "ready"

    @property
    def saes(self) -> list[str]:
        return list(self.resident.loaded.saes) if self.resident and self.resident.loaded else []

    @property
    def expires_at(self) -> float | None:
        """Of time.monotonic(); None while it is used, and when it stays for ever."""
        return self.stay.expires_at() if self.state == "ready" else None

    def serves(self, wanted: Wanted) -> bool:
        """Whether it has that model in that precision; other SAEs come into the same process."""
        return wanted.model == self.wanted.model and (
            None in (wanted.precision, self.precision) or wanted.precision == self.precision
        )

    def has(self, wanted: Wanted) -> bool:
        return self.state in ("ready", "busy") and self.serves(wanted) and set(wanted.saes) <= set(self.saes)

    def next_job(self) -> Job | None:
        """The job to which it is about to give way."""
        return self._job if self._job is not None and time.monotonic() >= self.stay.held_until else None

    def join(self, request: Request) -> None:
        """Raises TooMany."""
        if len(self._line) >= LINE:
            raise TooMany(f"{LINE} requests wait for the session already; try again in a moment")
        self._number += 1
        request.number = self._number
        self._line.append(request)
        self.notice()

    def leave(self, request: Request) -> None:
        """Nobody wants the answer any more."""
        request.abandoned = True
        if request in self._line:
            self._line.remove(request)
            self.used()
        elif self.resident is not None and request is self.resident.active:
            self.resident.cancel()

    def used(self) -> None:
        self.stay.used_at = time.monotonic()
        self.notice()

    def stop(self, why: StudioError) -> None:
        """Let it end, and tell ``why`` to those who have asked it something."""
        self._why = self._why or why
        self.notice()

    def look(self) -> None:
        """Jobs have changed: one may wait for the GPU, or the one that had it has left."""
        self._look = True
        self._wake.set()

    def notice(self) -> None:
        self._wake.set()
        self._tools.changed()

    # -- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it has ended; what went wrong is told to those who have asked it something."""
        try:
            await self._live()
        except StudioError as refusal:
            self._why = self._why or refusal
        except Exception:
            log.exception("the session with %s", self.wanted)
            self._why = self._why or SessionFailed("the session has failed; see the daemon's log")
        why = self._why or SessionFailed("the session has ended")
        release = self._tools.leases.release
        try:
            if not self.hands_over:
                await insist.written(lambda: release(self.lease, why.message[:500]), self._tools.closing)
        except StudioError as error:  # the daemon is closing: the recovery of the next one sees to it
            log.error("%s", error)
        self._tools.leases.reserved = False
        for request in self._line:
            request.refused(why)
        self._line.clear()
        self.over.set()
        self._tools.changed()
        self._tools.wake()

    async def _live(self) -> None:
        began, held_until = time.monotonic(), self.stay.held_until
        while self.lease is None:
            await self._ask_for_room()
        if self.stay.held_until == held_until:  # else somebody has joined it who wants it held from then on
            self.stay.held_until += time.monotonic() - began
        self._tools.leases.reserved = False
        self.predicted_bytes = await self._tools.plan(self.wanted)
        while self._why is None:
            await self._process(self.lease)

    async def _ask_for_room(self) -> None:
        """Wait for the job that makes room, or will. Raises GpuBusy if it cannot; why nobody waits any more."""
        if not self._answer.asked:  # else the job that makes room goes on only once the lease has been got
            self._refuse_nobody()
        self._wake.clear()
        take, model = self._tools.leases.take, self.wanted.model
        self._answer = answer = await insist.written(lambda: take(model, insist=True, pause=True), self._tools.closing)
        if answer.job is None:
            self._refuse_nobody()
            return
        if not answer.leaves:
            raise busy.refusal(answer.job)
        if (waits := self.waits) is not None:
            for request in self._line:
                request.tell(waits)
            self._tools.changed()
        await self._see_jobs()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), min(answer.after_s, _LOOK_S) or None)

    def _refuse_nobody(self) -> None:
        if all(request.abandoned for request in self._line):
            self.stop(Conflict("nobody waits for the session any more"))
        if self._why is not None:
            raise self._why

    async def _process(self, lease: int) -> None:
        """A process from its start to its end, and why there is no other after it."""
        tools, order = self._tools, ordered(self.wanted, self.precision, self._rows_at_once)
        kills = await asyncio.to_thread(host.oom_kills)
        resident = await Resident.start(
            order, tools.folder, tools.data, tools.grace, tools.command, self.stay, self._line, self.notice
        )
        self.resident, worker = resident, resident.worker
        try:
            process = (worker.process.pid, worker.starttime, boot_id())
            await insist.written(lambda: tools.leases.started(lease, process), tools.closing)
            await self._serve(resident)
            exit = await resident.end()
        except BaseException:
            worker.kill()
            await asyncio.gather(resident.hearing, return_exceptions=True)
            raise
        finally:
            self.resident, self.stay.loaded_at = None, None
            if resident.active is not None and not resident.active.abandoned:
                self._line.appendleft(resident.active)
            tools.freed()
        killed = oom.killed_for_memory(exit.code, await asyncio.to_thread(host.oom_kills) - kills)
        of_memory = killed or exit.code == MEMORY
        why = resident.why_ended(exit, of_memory)
        if self._why is None and not (of_memory and resident.active and self._goes_on(resident.active, why)):
            self._why = why

    async def _serve(self, resident: Resident) -> None:
        """Ask one thing after the other, until there is a reason to end or the process has ended by itself."""
        while not resident.hearing.done():
            self._wake.clear()
            if self._look:
                await self._see_jobs()
            if resident.loaded is not None:
                self.precision = resident.loaded.precision
                if resident.active is None and self._line and self._why is None:
                    self._ask_next(resident)
            left_s = self._left_s(time.monotonic())
            if self._why is not None:
                self._tools.changed()
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left_s)

    def _ask_next(self, resident: Resident) -> None:
        request = self._line.popleft()
        if request.abandoned:
            self.notice()
        else:
            resident.ask(request)

    async def _see_jobs(self) -> None:
        self._look = False
        try:
            job, paused = await self._tools.leases.next_job(), await self._tools.leases.paused()
        except StudioError as error:
            log.error("%s", error)
            self._look = True
            return
        if job is not None and self._job is None:
            self._job_since = time.monotonic()
        changed, self._job, self.paused = paused != self.paused, job, paused
        if changed:
            self._tools.changed()

    def _left_s(self, at: float) -> float | None:
        """In how many seconds there may be a reason to end, if time alone can bring one; sets it when there is one."""
        ends: list[tuple[float, StudioError]] = []
        if self._job is not None:
            yields_at = self.stay.yields_at(self._job_since, self.busy, self._tools.grace_s)
            if yields_at is not None:
                ends.append((yields_at, busy.taken(self._job)))
        if (expires_at := self.expires_at) is not None:
            ends.append((expires_at, Conflict("nobody has used the session for as long as it was to stay")))
        if not ends:
            return None
        end, why = min(ends, key=lambda one: one[0])
        self._why = self._why or (why if at >= end else None)
        return max(0.0, end - at)

    def _goes_on(self, request: Request, why: StudioError) -> bool:
        """After too little memory, with a new process: ask it again, half as many at once, or ask what others want."""
        rows = min(request.rows, self._rows_at_once or request.rows)
        if request.again or request.abandoned or rows < 2:
            if others := deque(one for one in self._line if one is not request):
                self._line = others
                request.refused(why)
            return bool(others)
        self._rows_at_once = rows // 2
        log.warning("the session ran out of memory; it is started again with %s texts at once", rows // 2)
        request.once_more()
        return True
