"""Every kind of fault, by the name that the report gives it."""

from __future__ import annotations

from collections.abc import Callable

from tests.drills import damage, disk, other, processes
from tests.drills.arena import Arena, Fault


def _fault(kind: str, strike: Callable[[Arena], None], *codes: str) -> Fault:
    return Fault(kind, strike, frozenset(codes))


MEMORY = ("out_of_memory", "does_not_fit", "died", "internal", "hung")
DISK = ("disk_full", "not_writable", "not_started", "died", "internal")
KINDS = {
    fault.kind: fault
    for fault in (
        _fault("kill-worker", processes.worker_killed, "died"),
        _fault("kill-daemon", processes.daemon_killed, "died"),
        _fault("kill-both", processes.both_killed, "died"),
        _fault("term-worker", processes.worker_terminated, "died"),
        _fault("stop-daemon", processes.daemon_stopped),
        _fault("freeze-worker", processes.worker_frozen),
        _fault("freeze-daemon", processes.daemon_frozen),
        _fault("end-while-starting", processes.terminated_while_it_starts, "died"),
        _fault("closed-stdio", processes.started_without_a_terminal, "died"),
        _fault("broken-pipe", processes.events_broken, "died"),
        _fault("broken-watchers", processes.watchers_broken),
        _fault("worker-memory", processes.out_of_memory, *MEMORY),
        _fault("host-memory", processes.machine_out_of_memory, *MEMORY),
        _fault("disk-full", disk.full, *DISK),
        _fault("disk-full-at-start", disk.full_at_start, *DISK),
        _fault("read-only", disk.read_only, *DISK),
        _fault("read-only-at-start", disk.read_only_at_start, "died"),
        _fault("database-busy", disk.database_held),
        _fault("power-cut", disk.power_cut, "died"),
        _fault("copy-while-written", disk.copied_while_written, "died"),
        _fault("torn-log", disk.log_torn, "died"),
        _fault("database-deleted", disk.database_deleted, "restored", "died"),
        _fault("damaged-checkpoint", damage.newest_checkpoint, "died"),
        _fault("damaged-run-files", damage.run_files, "died"),
        _fault("damaged-sae", damage.an_sae, "died"),
        _fault("damaged-state-files", damage.settings_and_the_like, "died"),
        _fault("clock-jump", other.clock_jumps, "died"),
        _fault("hub-cut", other.hub_cut, "invalid"),
        _fault("kill-migration", other.migration_killed, "died"),
    )
}  # fmt: skip
