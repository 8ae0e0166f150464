"""Looks at everything the studio needs on this machine, and says what is wrong and how to mend it.

Nothing is changed, and nothing heavy is loaded: torch is looked at from outside. It works with the daemon up or down.
A check is a function from a Subject to a Finding, or to None where there is nothing to say. One that raises is told of,
and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mistudiod.doctor import backups, gpu, machine, network, reach, service, software, storage
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.settings import Settings

log = logging.getLogger(__name__)
CHECKS: tuple[Callable[[Subject], Finding | None], ...] = (
    software.python,
    software.mistudio,
    software.packages,
    software.torch,
    gpu.driver,
    gpu.devices,
    gpu.readings,
    gpu.kernels,
    storage.folder,
    storage.file_system,
    storage.space,
    storage.speed,
    storage.sqlite,
    storage.database,
    backups.backups,
    reach.port,
    reach.access,
    network.certificate,
    network.hub,
    service.unit,
    service.allowed,
    machine.memory,
    machine.files,
    machine.clock,
    machine.settings,
)


async def examine(settings: Settings, config: Path | None = None, root: Path = Path("/")) -> list[Finding]:
    """In the order of CHECKS. It takes some seconds at most, in one thread: checks must not slow each other."""
    return await asyncio.to_thread(_examine, Subject(settings, config, root))


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """``ok`` is False when there is a problem; a warning is none."""
    healthy = all(finding.level != "problem" for finding in findings)
    return {"findings": [asdict(finding) for finding in findings], "ok": healthy}


def as_text(findings: Sequence[Finding]) -> str:
    """For people: a line for each finding, and below it what to do."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:8} {finding.name:{width}}  {finding.message}")
        if finding.remedy:
            lines.append(f"{'':8} {'':{width}}  → {finding.remedy}")
    return "\n".join(lines)


def _examine(subject: Subject) -> list[Finding]:
    findings = []
    for check in CHECKS:
        try:
            finding = check(subject)
        except OSError as error:
            message = f"could not be looked at: {error}"
            finding = Finding(check.__name__.replace("_", " "), "warning", message, "see whether that path can be read")
        except Exception as error:
            log.exception("the check %s failed", check.__name__)
            message = f"the check itself failed: {type(error).__name__}: {error}"
            finding = Finding(check.__name__.replace("_", " "), "warning", message, "tell its makers, with this line")
        if finding is not None:
            findings.append(finding)
    return findings
