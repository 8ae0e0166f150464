"""`sae eval` keeps what probes have found beside the SAE, unless they are not asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_job import events
from trained_saes import make_saes

from mistudiod.engine.probe_tasks import TASKS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_saes(tmp_path_factory.mktemp("saes"))


def evaluated(data: Path, **fields):
    said = events(data, "evaluate", tokens=4096, **fields)
    return next(one["result"] for one in said if one["event"] == "result"), said


def test_what_probes_found_is_kept_and_heard_of_while_it_is_looked_for(data: Path) -> None:
    result, said = evaluated(data, sae="topk")
    kept = json.loads((data / "saes" / "topk" / "evaluation.json").read_text())
    assert result["probes"] == kept["probes"] and len(kept["probes"]["said"]) == 2
    probing, absorption = kept["probes"]["probing"], kept["probes"]["absorption"]
    assert {one["name"] for one in probing["tasks"]} | set(probing["left_out"]) == {one.name for one in TASKS}
    assert len(absorption["letters"]) + len(absorption["left_out"]) == 26
    stages = {one["stage"] for one in said if one["event"] == "progress"}
    assert {"take tokens for probes", "probe latents"} <= stages


def test_without_probes_there_are_none(data: Path) -> None:
    assert evaluated(data, sae="topk", probes=False)[0]["probes"] is None


def test_of_a_transcoder_there_is_no_absorption_and_it_is_said(data: Path) -> None:
    found = evaluated(data, sae="transcoder")[0]["probes"]
    assert found["absorption"]["measured"] == 0 and "transcoder" in found["absorption"]["left_out"]["a"]
    assert found["said"][1].startswith("no absorption: a transcoder writes at another place")
