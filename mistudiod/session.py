"""The resident session: a model and SAEs of it that stay in memory, so that what is asked of them is answered at once.

There is one at a most, and it has the GPU only while no job needs it (leases.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal

from mistudiod import busy, insist
from mistudiod.bus import Bus
from mistudiod.errors import Conflict, Invalid, SessionBusy
from mistudiod.events import AnyEvent
from mistudiod.index import Index
from mistudiod.keep_alive import Stay, held_s, seconds_of
from mistudiod.leases import Leases
from mistudiod.memory import measured
from mistudiod.one_session import Session
from mistudiod.paths import Paths
from mistudiod.planning import Planning
from mistudiod.request import Request
from mistudiod.runner import Grace
from mistudiod.session_plan import planned
from mistudiod.session_shown import shown
from mistudiod.session_tools import Tools
from mistudiod.settings import Settings
from mistudiod.specs import Load
from mistudiod.wanted import Ask, Wanted, wanted_of

IfBusy = Literal["refuse", "pause"]
Duration = str | float | None


class Sessions:
    """``wake`` is called when the GPU may be had again; ``keep_alive``: how long a session stays usually."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        index: Index,
        leases: Leases,
        bus: Bus,
        planning: Planning,
        command: Sequence[str],
        wake: Callable[[], None],
        keep_alive: Callable[[], str],
    ) -> None:
        self._index, self._leases, self._bus, self._wake = index, leases, bus, wake
        self._usual_keep_alive = keep_alive
        self._planning = planning
        self._tools = Tools(
            paths.session,
            paths.data,
            leases,
            Grace(settings.stop_grace_s, settings.term_grace_s, settings.progress_limit_s),
            settings.session_grace_s,
            command,
            self._plan,
            self._tell,
            planning.freed,
            wake,
            lambda: self._closing,
        )
        self._session: Session | None = None
        self._life: asyncio.Task[None] | None = None
        self._admitting = asyncio.Lock()
        self._memory: tuple[int | None, int | None] = (None, None)
        self._closing = False

    async def start(
        self, wanted: Wanted, keep_alive: Duration = None, hold: Duration = None, if_busy: IfBusy = "refuse"
    ) -> dict[str, Any]:
        """Have this in memory; what is there already is not loaded again. Returns when it is, with what is shown of it.

        ``hold``: so long no queued job takes the GPU. ``if_busy``: a job that has it is paused, and goes on when the
        session ends. Raises Invalid, GpuBusy, SessionBusy, OutOfMemory, SessionFailed, TooMany.
        """
        keep_alive_s, held = self._keep_alive_s(keep_alive), None if hold is None else _checked("hold", held_s, hold)
        now = self._session if self.shown() is not None else None
        if self._stay(now, keep_alive_s, None, False).keep_alive_s == 0:
            raise _refusal("keep_alive", "a session that is kept for no time cannot be started: give a longer one")
        spec = Load.model_validate({"model": wanted.model, "saes": wanted.saes, "precision": wanted.precision})
        request = Request(spec)
        session = await self._admitted(request, wanted, keep_alive_s, held, if_busy)
        try:
            while await request.next() is not None:
                pass
        finally:
            session.leave(request)
        await self.measured()
        return shown(session, self._memory)

    async def ask(
        self, spec: Ask, *, keep_alive: Duration = None, if_busy: IfBusy = "refuse"
    ) -> AsyncGenerator[AnyEvent, None]:
        """What the worker says of a request as it says it: Progress while it loads, Wrote, and Replied at the end.

        Whoever leaves before that closes the iterator (``contextlib.aclosing``), which cancels the request. Raises
        NotFound, Invalid, GpuBusy, SessionBusy, OutOfMemory, SessionFailed, TooMany.
        """
        keep_alive_s, request = self._keep_alive_s(keep_alive), Request(spec)
        session = await self._admitted(request, await wanted_of(self._index, spec), keep_alive_s, None, if_busy)
        try:
            while (event := await request.next()) is not None:
                yield event
        finally:
            session.leave(request)

    async def stop(self) -> None:
        """End the session, if there is one; its jobs go on."""
        if self._session is not None:
            self._session.stop(Conflict("the session was stopped"))
            await self._session.over.wait()

    def shown(self) -> dict[str, Any] | None:
        """The session; its memory as it was measured last."""
        session = self._session
        return None if session is None or session.over.is_set() else shown(session, self._memory)

    def has_sae(self, name: str) -> bool:
        """Whether an SAE is in its memory, or will be once it has loaded."""
        session = self._session
        return session is not None and not session.over.is_set() and name in (*session.wanted.saes, *session.saes)

    async def measured(self) -> dict[str, Any] | None:
        """The session with its memory as it is now."""
        shown = self.shown()
        if shown is not None and shown["pid"] is not None:
            self._memory = await asyncio.to_thread(measured, shown["pid"])
        return self.shown()

    def heard(self, topic: str, data: Mapping[str, Any]) -> None:
        """A job's state has changed, or an artifact has: another model of that name is not this one."""
        if (session := self._session) is None:
            return
        if topic == "job":
            session.look()
        elif data.get("removed") and (data.get("noun"), data.get("name")) == ("model", session.wanted.model):
            session.stop(Conflict(f"the model {session.wanted.model} was removed"))

    def shut(self) -> None:
        """Admit nobody any more and let the session end, for the daemon is closing."""
        self._closing = True
        if self._session is not None:
            self._session.stop(Conflict("the studio is stopping; try again when it is up"))

    async def close(self) -> None:
        self.shut()
        async with self._admitting:  # whoever is being let in still
            if self._life is not None:
                await self._life

    # -- who is let in -------------------------------------------------------------------------------------------

    async def _admitted(
        self, request: Request, wanted: Wanted, keep_alive_s: float | None, held: float | None, if_busy: IfBusy
    ) -> Session:
        """The session in whose line the request is. What has begun is finished even if whoever asks goes meanwhile."""
        task = asyncio.create_task(self._admit(request, wanted, keep_alive_s, held, if_busy == "pause"))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody is left to hear it
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            request.abandoned = True
            if task.done() and not task.cancelled() and task.exception() is None:  # and it may be asked already
                task.result().leave(request)
            raise

    async def _admit(
        self, request: Request, wanted: Wanted, keep_alive_s: float | None, held: float | None, pause: bool
    ) -> Session:
        async with self._admitting:
            if request.abandoned:
                raise Conflict("nobody waits for the answer any more")
            session = await self._for(wanted, pause)
            stay = self._stay(session, keep_alive_s, held, pause)
            if session is None or session.hands_over:
                session = await self._begin(request, wanted, stay, pause, session)
            else:
                if isinstance(request.spec, Load) and session.has(wanted):
                    request.answered()
                else:
                    session.join(request)
                session.stay.keep_alive_s, session.stay.held_until = stay.keep_alive_s, stay.held_until
                session.used()
            return session

    async def _for(self, wanted: Wanted, pause: bool) -> Session | None:
        """The session that is to be asked, or one that has ended and hands over its lease; None: there is none."""
        while True:
            session = self._session
            if self._closing:
                raise Conflict("the studio is stopping; try again when it is up")
            if session is None or session.over.is_set():
                return None
            if session.state == "stopping":
                await session.over.wait()
            elif session.serves(wanted):
                if not pause and (job := session.waits_for or session.next_job()) is not None:
                    raise busy.refusal(job)
                return session
            elif session.busy:
                does = "writes" if session.waits_for is None else "waits for the GPU"
                raise SessionBusy(
                    f"the session {does} with {session.wanted} for somebody: ask for {wanted} when that is done"
                )
            else:
                session.hands_over = True
                session.stop(Conflict(f"the session was ended for one with {wanted}"))
                await session.over.wait()
                return session

    def _stay(self, session: Session | None, keep_alive_s: float | None, held: float | None, pause: bool) -> Stay:
        """As asked for; where nothing is, as it is, or usual."""
        at = time.monotonic()
        stay = session.stay if session is not None else Stay(seconds_of(self._usual_keep_alive()), at)
        return Stay(
            stay.keep_alive_s if keep_alive_s is None else keep_alive_s,
            at,
            stay.held_until if held is None else at + held,
            stay.insisted or pause or held is not None,
        )

    async def _begin(
        self, request: Request, wanted: Wanted, stay: Stay, pause: bool, before: Session | None
    ) -> Session:
        self._leases.reserved = pause
        try:
            answer = await self._leases.take(wanted.model, stay.insisted, pause, before.lease if before else None)
            if answer.job is not None and not answer.leaves:
                raise busy.refusal(answer.job)
        except BaseException:
            self._leases.reserved = False
            if before is not None:  # what it hands over nobody has taken
                await insist.written(lambda: self._leases.release(before.lease, "ended"), lambda: self._closing)
            self._wake()
            raise
        self._session = session = Session(wanted, answer, stay, self._tools)
        session.join(request)
        if self._closing:
            self.shut()
        self._memory = (None, None)
        self._life = asyncio.create_task(session.run())
        return session

    async def _plan(self, wanted: Wanted) -> int | None:
        made = await planned(self._planning, self._index, wanted)
        return made.peak_bytes if made is not None else None

    # -- what is told --------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._bus.reading("session", {"session": self.shown()})

    def _keep_alive_s(self, given: Duration) -> float | None:
        return None if given is None else _checked("keep_alive", seconds_of, given)


def _checked(field: str, parse: Callable[[str | float], float], given: str | float) -> float:
    try:
        return parse(given)
    except ValueError as error:
        raise _refusal(field, str(error)) from None


def _refusal(field: str, message: str) -> Invalid:
    return Invalid(message, {field: message})
