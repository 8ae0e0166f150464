"""What the page says of formats before a job is asked for, beside what the engine says that writes them."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from mistudiod.engine.formats.writers import WRITERS, lacks
from mistudiod.engine.norms import NORMS
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.saelens_layout import ARCHITECTURES, shapes_of

LIB = Path(__file__).parent.parent / "web" / "lib"
ASK = """
const { FORMATS, lacks } = await import(process.argv[1]);
const { configs, formats } = JSON.parse(process.argv[2]);
const told = configs.map((config) => formats.map((format) => lacks(format, config, 1)));
console.log(JSON.stringify({ told, named: FORMATS.map(([format]) => format) }));
"""


def configs() -> list[dict[str, Any]]:
    """A cfg.json of each kind that an SAE here can have."""
    return [
        {"architecture": name, "d_in": 3, "d_sae": 4, "k": 2, "normalize_activations": norm}
        | ({"d_out": d_out} if transcodes else {})
        for (name, (_, transcodes, _)), norm, d_out in product(ARCHITECTURES.items(), NORMS, (3, 5))
        if not (transcodes and norm != "none") and (transcodes or d_out == 3)
    ]


def sae(config: dict[str, Any]) -> SparseAutoencoder:
    return SparseAutoencoder.of(config, {name: torch.ones(shape) for name, shape in shapes_of(config, "").items()}, "")


def test_the_page_refuses_a_format_in_the_engines_words() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node")
    asked = json.dumps({"configs": configs(), "formats": list(WRITERS)})
    script = [node, "--input-type=module", "-e", ASK, str(LIB / "layouts.js"), asked]
    answer = json.loads(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    assert set(WRITERS) <= set(answer["named"])
    for config, told in zip(configs(), answer["told"], strict=True):
        assert dict(zip(WRITERS, told, strict=True)) == {one: lacks(one, sae(config)) for one in WRITERS}, config
