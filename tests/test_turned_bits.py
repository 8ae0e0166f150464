"""Whatever reads an SAE looks whether its weights are still those that it was made with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_job import run_job
from tiny_models import LINES, tiny_model
from trained_saes import TRAIN, change

from mistudiod.worker.link import Refused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the SAE ``good``, and ``bad``: the same, one bit of whose weights has turned over."""
    home = tmp_path_factory.mktemp("turned")
    tiny_model("llama", home / "model")
    (home / "text.txt").write_text("\n\n".join(LINES) * 300)
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.txt"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=16, held_out=0.5)
    run_job(data, "train", name="good", architecture="topk", **TRAIN)
    shutil.copytree(data / "saes" / "good", data / "saes" / "bad")
    change(data / "saes" / "bad" / "recipe.json", sae="bad")
    weights = data / "saes" / "bad" / "sae_weights.safetensors"
    found = bytearray(weights.read_bytes())
    found[-len(found) // 3] ^= 1
    weights.write_bytes(found)
    (data / "given.json").write_text(json.dumps({"labels": []}))  # as the daemon writes it into a run's folder
    return data


@pytest.mark.parametrize(
    ("kind", "fields", "at"),
    [
        ("inspect", {"sae": "bad", "text": LINES[0]}, "sae"),
        ("extract", {"sae": "bad", "tokens": 2000}, "sae"),
        ("evaluate", {"sae": "bad", "tokens": 4096, "probes": False}, "sae"),
        ("certify", {"sae": "bad"}, "sae"),
        ("export", {"sae": "bad", "format": "saelens"}, "sae"),
        ("compare", {"saes": ["good", "bad"], "tokens": 4096}, "saes"),
    ],
    ids=["inspect", "extract", "evaluate", "certify", "export", "compare"],
)
def test_a_bit_that_has_turned_over_is_found_and_nothing_is_made(
    kind: str, fields: dict[str, Any], at: str, data: Path
) -> None:
    before = sorted(data.rglob("*"))
    with pytest.raises(Refused) as refused:
        run_job(data, kind, **fields)
    assert str(refused.value).startswith("the weights of bad are not those that it was made with")
    assert refused.value.field == at
    assert sorted(data.rglob("*")) == before
