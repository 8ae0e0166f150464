"""The largest activations of a short pass, held against those that an extraction finds in the same windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from run_job import run_job
from tiny_models import LINES, tiny_model

from mistudiod.engine.extract import spread
from mistudiod.engine.harvest import NoActivations
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.maxima import maxima
from mistudiod.engine.rules import RULES
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tokens import TokenWindows
from mistudiod.pages import Pages

HOOK, OUT, CONTEXT = "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", 16
ARCHITECTURES = ("batchtopk", "topk", "gated", "transcoder")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("maxima")
    tiny_model("llama", home / "model")
    (home / "text.txt").write_text("\n\n".join(LINES) * 100)
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.txt"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=CONTEXT)
    for name in ARCHITECTURES:
        more = {"hook_out": OUT} if name == "transcoder" else {}
        run_job(data, "train", name=name, architecture=name, tokenization="t", hook=HOOK, width=96, k=4, steps=60,
                batch_tokens=128, buffer_tokens=2048, **more)  # fmt: skip
    return data


@pytest.fixture(scope="module")
def lm(data: Path) -> LM:
    return load_lm(Path(json.loads((data / "models" / "m" / "model.json").read_text())["path"]))


def norms_of(data: Path, name: str, factor: float = 1.0) -> dict[str, float]:
    """As the recipe of the SAE has them; with a factor for an extraction by which some tokens are outliers."""
    path = data / "saes" / name / "recipe.json"
    recipe = json.loads(path.read_text())
    found = {hook: factor * norm for hook, norm in recipe["resolved"]["outlier_norms"].items()}
    recipe["resolved"]["outlier_norms"] = found
    path.write_text(json.dumps(recipe))
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_maxima_are_the_column_max_of_an_extraction_of_the_same_windows(data: Path, lm: LM, name: str) -> None:
    norms = norms_of(data, name, 0.1)  # ten times the median norm; now the median
    told = run_job(data, "extract", sae=name, tokens=10**6)
    assert told["skipped"]["outliers"] > 0.2 * told["tokens"] and told["skipped"]["special"] > 0
    (store,) = (data / "features" / name).iterdir()
    expected = np.array(Pages(store).columns["max"], np.float32)
    windows = TokenWindows(data / "tokens" / "t")
    rows = torch.from_numpy(windows.rows(np.arange(windows.train)))
    sae = SparseAutoencoder.load(data / "saes" / name)
    found = maxima(lm, sae, HOOK, rows, windows.special_ids, norms, tokens=rows.numel())
    assert (found == 0).sum() == told["dead"] < 60
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def some(lm: LM, ids: torch.Tensor, **given: object) -> torch.Tensor:
    sae = SparseAutoencoder(torch.eye(32), torch.zeros(32), torch.eye(32), torch.zeros(32), RULES["standard"]())
    return maxima(lm, sae, HOOK, ids, given.pop("special_ids", [0]), given.pop("norms", {}), **given)  # type: ignore[arg-type]


def windows(n: int = 600) -> torch.Tensor:
    ids = torch.randint(1, 320, (n, CONTEXT), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    return ids


def test_no_more_tokens_are_read_than_asked_and_they_come_from_all_over_the_text(lm: LM) -> None:
    ids = windows()
    few = some(lm, ids, tokens=5 * CONTEXT)
    assert torch.equal(few, some(lm, ids[spread(600, CONTEXT, 5 * CONTEXT)], tokens=10**6))
    assert (few <= some(lm, ids, tokens=10**6)).all()


def test_special_tokens_and_outliers_never_count(lm: LM) -> None:
    ids = windows(8)
    x = lm.activations(ids, HOOK).to(torch.bfloat16).float()
    norms = torch.linalg.vector_norm(x, dim=-1)
    limit = norms.median().item()
    expected = x[(ids != 0) & (norms <= limit)].relu().amax(0)
    torch.testing.assert_close(some(lm, ids, norms={HOOK: limit}), expected)


def test_text_without_a_token_that_counts_is_refused(lm: LM) -> None:
    with pytest.raises(NoActivations, match="special tokens or outliers only"):
        some(lm, windows(4), special_ids=range(320))
    with pytest.raises(NoActivations, match="special tokens or outliers only"):
        some(lm, windows(4), norms={HOOK: 0.0})
