"""Which job runs when, and what becomes of it: two lanes, dependencies, attempts, recovery."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mistudiod import host, insist, jobs, oom, runner
from mistudiod.bus import Bus
from mistudiod.ending import MEMORY, ending, error, not_started
from mistudiod.errors import Conflict, StudioError
from mistudiod.giving import Giving, NotGiven
from mistudiod.hearing import Hearing
from mistudiod.index import Index
from mistudiod.jobs import LIVE, State
from mistudiod.leases import Leases
from mistudiod.needs import needed
from mistudiod.orphans import end_orphans
from mistudiod.paths import Paths, delete_tree, newest_checkpoint, set_aside
from mistudiod.planning import DoesNotFit, Planning, halved, told
from mistudiod.records import begin_run
from mistudiod.runner import Exit, Grace, Worker
from mistudiod.secret import Secrets, SecretsUnusable
from mistudiod.settings import Settings
from mistudiod.specs import JobRequest
from mistudiod.statements import Job, Key
from mistudiod.store import Jobs

log = logging.getLogger("mistudiod.scheduler")
Error = dict[str, Any]
Keep = Callable[[Any, Any, int], Awaitable[object]]
SAVING_S = 300.0  # that a training which was stopped may take to measure and save what it has
_ONE_AT_A_TIME = ("tokenize",)  # each takes every core


class Scheduler:
    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        store: Jobs,
        index: Index,
        bus: Bus,
        secrets: Secrets,
        planning: Planning,
        giving: Giving,
        leases: Leases,
        command: Sequence[str],
        keep: Keep | None = None,
    ) -> None:
        """``keep``: puts spec and result of a job of steering into the history of steered texts."""
        self._paths, self._store, self._index, self._bus, self._command = paths, store, index, bus, command
        self._secrets, self._planning, self._giving = secrets, planning, giving
        self._leases, self._keep = leases, keep
        self._grace = Grace(settings.stop_grace_s, settings.term_grace_s, settings.progress_limit_s)
        self._room = {"gpu": 1, "io": settings.io_jobs}
        self._running: dict[asyncio.Task[None], Job] = {}
        self._workers: dict[int, Worker] = {}
        self._wake = asyncio.Event()
        self._closing = False

    # -- what users ask ------------------------------------------------------------------------------------------

    async def submit(self, request: JobRequest, key: Key | None = None) -> tuple[Job, bool]:
        """Queue a job behind the jobs it names and the unfinished ones that make what it reads.

        The same ``key`` and request again give the same job, and False. Raises Conflict, Invalid.
        """
        if self._closing:
            raise Conflict("the studio is stopping; try again when it is up")
        spec = request.spec
        after = {*request.after, *await needed(spec, spec.kind, self._index, self._store)}
        return await self._store.add(request, sorted(after), key, await self._giving.admit(spec))

    async def stop(self, job: int) -> Job:
        """End a job for good (it can be retried); what it has finished stays."""
        return await self._store.stop(job)

    async def pause(self, job: int) -> Job:
        """Let a running job write a checkpoint and leave; ``resume`` queues it again."""
        return await self._store.move(job, State.PAUSING)

    async def edit(self, job: int, priority: int, unless: Callable[[Job], bool]) -> Job:
        return await self._store.edit(job, priority, unless)

    async def resume(self, job: int) -> Job:
        return await self._store.resume(job)

    async def retry(self, job: int) -> Job:
        return await self._store.retry(job)

    async def finalize(self, job: int) -> Job:
        """End a training now, measured and saved as if it had come to its end."""
        trained = await asyncio.to_thread(newest_checkpoint, self._paths.run(job)) is not None
        return await self._store.finalize(job, trained)

    async def remove(self, job: int) -> None:
        trash = await self._store.remove(job, lambda: set_aside(self._paths.run(job)))
        if trash:
            await asyncio.to_thread(delete_tree, trash)

    def heard(self, topic: str, data: dict[str, Any]) -> None:
        """See to what was asked of a job once the database has it, even if whoever asked has gone meanwhile."""
        state = data.get("state") if topic == "job" else None
        if state == State.QUEUED:
            self.wake()
        elif state in LIVE and (worker := self._workers.get(data["id"])):
            if state != State.RUNNING:
                worker.ask("stop" if state == State.STOPPING else "pause")
            elif data["finalize"]:
                worker.finalize()

    def wake(self) -> None:
        """There may be something to start: look."""
        self._wake.set()

    def pids(self) -> dict[int, int]:
        """Of each job that runs: its worker's process."""
        return {job: worker.process.pid for job, worker in self._workers.items()}

    # -- the loop ------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Put in order what the last daemon left: orphans, live jobs, half-written folders."""
        await end_orphans(self._store, self._leases)
        removed = await asyncio.to_thread(self._paths.sweep)
        for path in removed:
            log.info("removed the half-written %s", path)
        for state in LIVE:
            for job in await self._store.in_state(state):
                await self._interrupted(job, "the daemon ended while the job ran", None)
        for job in await self._store.in_state(State.INTERRUPTED):
            await self._store.move(job, State.QUEUED)
        await self._giving.put_in_lanes()
        await self._leases.recover()

    async def run(self) -> None:
        """Until ``close()``; a claim that is under way then is finished first."""
        while not self._closing:
            self._wake.clear()
            try:
                for lane in self._room:
                    await self._fill(lane)
            except Exception:  # the disk is full, say: the jobs wait, the scheduler stays
                log.exception("no job can be started; trying again in %.0f s", insist.RETRY_S)
                await asyncio.sleep(insist.RETRY_S)
            else:
                await self._wake.wait()

    async def _fill(self, lane: str) -> None:
        while not self._closing:
            busy = [job for job in self._running.values() if job["lane"] == lane]
            if len(busy) >= self._room[lane]:
                return
            alone = [job["kind"] for job in busy if job["kind"] in _ONE_AT_A_TIME]
            job = await self._store.claim(lane, alone, self._leases.keeps_jobs_out)
            if job is None:
                return
            task = asyncio.create_task(self._work(job))
            self._running[task] = job
            task.add_done_callback(self._forget)

    async def close(self, loop: asyncio.Task[None]) -> None:
        """Let every worker write a checkpoint and leave; their jobs go on at the next start. ``loop`` is ``run()``."""
        self._closing = True
        self._wake.set()
        for worker in self._workers.values():
            worker.ask("pause")
        await asyncio.gather(loop, return_exceptions=True)  # nothing is added to _running any more
        await asyncio.gather(*self._running, return_exceptions=True)

    # -- one job -------------------------------------------------------------------------------------------------

    async def _work(self, job: Job) -> None:
        try:
            await self._run(job)
        except Exception:
            log.exception("job %s", job["id"])
            with contextlib.suppress(Exception):  # the store itself may be what failed
                internal = error("internal", "see the daemon's log")
                await self._finish(job["id"], [State.FAILED], None, "internal", internal)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._wake.set()

    async def _written(self, write: Callable[[], Awaitable[insist.T]]) -> insist.T:
        return await insist.written(write, lambda: self._closing)

    async def _run(self, job: Job) -> None:
        try:
            run, endpoint = await self._prepare(job)
            secrets = await asyncio.to_thread(self._secrets.for_kind, job["kind"], endpoint)
            grace = replace(self._grace, saving_s=SAVING_S if job["kind"] == "train" else 0.0)
            worker = await Worker.start(run, grace, self._command, secrets)
        except (SecretsUnusable, DoesNotFit, NotGiven, OSError) as refusal:
            await self._finish(job["id"], [State.FAILED], None, "not started", not_started(refusal))
            return
        self._workers[job["id"]] = worker
        kills = await asyncio.to_thread(host.oom_kills)
        try:
            pid = worker.process.pid
            await self._written(lambda: self._store.started(job["id"], pid, worker.starttime, runner.boot_id()))
            # It may have been asked while the worker was being started.
            found = await self._store.get(job["id"])
            if self._closing or found["state"] != State.RUNNING:
                worker.ask("stop" if found["state"] == State.STOPPING else "pause")
            elif found["finalize"] and not job["finalize"]:  # else its order says so
                worker.finalize()
            turn = self._leases.turn if job["lane"] == "gpu" else None
            hearing = Hearing(job, self._paths, self._store, self._index, self._bus, self._written, turn)
            failure = await hearing.hear(worker)
        except BaseException:
            worker.kill()
            raise
        finally:
            ended = await worker.ended()
            self._workers.pop(job["id"], None)
            self._planning.freed()
            for path in await asyncio.to_thread(self._paths.sweep_worker, job["id"], worker.process.pid):
                log.info("job %s: removed the half-written %s", job["id"], path)
        killed = oom.killed_for_memory(ended.code, await asyncio.to_thread(host.oom_kills) - kills)
        short = (killed or ended.code == MEMORY) and not ended.asked and not self._closing
        if not (short and await self._again_with_less(job["id"], ended.code)):
            await self._conclude(job["id"], ended, failure, hearing.partial)

    async def _prepare(self, job: Job) -> tuple[Path, str | None]:
        """Its run folder, and the name of the secret of the endpoint that it asks."""
        run = self._paths.run(job["id"])
        goes_on = await asyncio.to_thread(newest_checkpoint, run) is not None
        plan = await self._planning.for_job(job, goes_on)
        if plan != job["plan"]:
            await self._written(lambda: self._store.planned(job["id"], plan))
        await asyncio.to_thread(begin_run, run, self._paths.data, job, told(plan) if plan else {})
        return run, await self._giving.write(job, run)

    async def _again_with_less(self, job: int, code: int) -> bool:
        """Queue a job whose worker ran out of memory, with half as much at a time; False when there is no less."""
        plan = (await self._store.get(job))["plan"]
        smaller = halved(plan) if plan else None
        if smaller is None:
            return False
        log.warning("job %s ran out of memory; it is queued again with %s", job, told(smaller))
        await self._finish(job, [State.INTERRUPTED, State.QUEUED], code, "out of memory", None, plan=smaller)
        return True

    async def _conclude(self, job: int, exit: Exit, failure: Error | None, partial: Error | None) -> None:
        end = ending(exit, failure, self._closing, self._grace.progress_s, partial)
        if end.state is State.INTERRUPTED and not (self._closing and exit.asked):
            await self._interrupted(job, end.reason, exit)
            return
        if end.state is State.DONE:
            await self._keep_texts(job)
        await self._finish(job, end.moves, exit.code, end.reason, end.error)
        if end.state is State.DONE:
            with contextlib.suppress(StudioError):  # what it was made from has gone already
                await self._planning.remember(await self._store.get(job))

    async def _keep_texts(self, job: int) -> None:
        """Before the job is done, so that none that is done lacks them."""
        found = await self._store.get(job)
        if found["kind"] == "steer" and found["result"] and (keep := self._keep) is not None:
            await self._written(lambda: keep(found["spec"], found["result"], job))

    async def _interrupted(self, job: int, reason: str, exit: Exit | None) -> None:
        """Queue a job whose worker died again, unless it has been dying at the same place."""
        checkpoint = await asyncio.to_thread(newest_checkpoint, self._paths.run(job))
        code = exit.code if exit else None
        if await self._store.stalled(job, checkpoint) + 1 >= jobs.ATTEMPTS:
            message = f"{reason}; that is {jobs.ATTEMPTS} times at the same place, so it is not tried again by itself"
            died = error("died", message, exit.tail if exit else None)
            await self._finish(job, [State.INTERRUPTED, State.FAILED], code, reason, died)
        else:
            log.warning("job %s: %s; it is queued again", job, reason)
            await self._finish(job, [State.INTERRUPTED, State.QUEUED], code, reason, None)

    async def _finish(
        self,
        job: int,
        states: list[State],
        code: int | None,
        reason: str,
        failure: Error | None,
        **columns: object,
    ) -> None:
        checkpoint = await asyncio.to_thread(newest_checkpoint, self._paths.run(job))
        ended = await self._written(
            lambda: self._store.end_attempt(job, states, code, reason, checkpoint, error=failure, **columns)
        )
        if failure:
            log.warning("job %s (%s): %s", job, ended["kind"], failure["message"])
        self._wake.set()
