"""How many texts are written at once: as many as there is memory for."""

from __future__ import annotations

from pathlib import Path

import torch

from mistudiod.budget import Budget, has_desktop, of_cpu, of_gpu, of_unified
from mistudiod.gpu import unknown
from mistudiod.host import meminfo, memory
from mistudiod.plan_steer import SaeSize, rows_at_once
from mistudiod.worker.loaded import Loaded

_ROOT = Path("/")


def rows_that_fit(rows: int, tokens: int, loaded: Loaded) -> int:
    """Of ``rows`` texts, each of ``tokens`` with its prompt; at least 1."""
    saes = [SaeSize(one.sae.d_in, one.sae.d_sae, one.sae.d_out) for one in loaded.saes.values()]
    budget = _free(loaded.lm.device)
    return rows_at_once(
        loaded.lm.facts, loaded.lm.precision, saes, rows, tokens, budget.device, budget.usable_bytes
    )  # fmt: skip


def _free(device: torch.device) -> Budget:
    """What is free now, on the device that the model is on."""
    here = memory(_ROOT, meminfo(_ROOT))
    if device.type == "cpu":
        return of_cpu(here)
    about = torch.cuda.get_device_properties(device)
    gpu = unknown(about.name, bool(about.is_integrated))
    if gpu["unified"]:
        return of_unified(gpu, here, has_desktop(_ROOT))
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it for what comes
    gpu["memory_free_bytes"] = torch.cuda.mem_get_info(device)[0] + unused
    gpu["memory_total_bytes"] = about.total_memory
    return of_gpu(gpu, here)
