"""Comparing SAEs: the same text for all, what may be chance, whose features are whose, checkpoints of a training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mistudio.cli import main
from run_job import run_job
from studio import running
from tiny_models import LINES, tiny_model
from trained_saes import HOOK, TRAIN, TRANSCODER, WIDTH, K, change

from mistudiod.engine import document_sums
from mistudiod.engine.lm import load_lm
from mistudiod.engine.measure import measure
from mistudiod.engine.replayed import Replayed
from mistudiod.engine.rules import JumpReLURule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tokens import TokenWindows
from mistudiod.paths import Paths
from mistudiod.specs import Train
from mistudiod.worker import compare_text, train
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.sae_at import open_sae_at

TOKENS = 4_096


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with SAEs that differ in seed, kind or hook; one has kept its checkpoints, one is a transcoder."""
    home = tmp_path_factory.mktemp("compare")
    tiny_model("llama", home / "model")
    random = np.random.default_rng(0)
    texts = ["\n\n".join(random.choice(LINES, 4)) for _ in range(400)]
    (home / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.jsonl"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=16, held_out=0.3)
    kept = {"checkpoint_every_s": 1e-6, "keep_checkpoints": 100}
    for number, (name, fields) in enumerate(
        {
            "one": {"architecture": "batchtopk", **kept},
            "two": {"architecture": "batchtopk", "seed": 1},
            "wide": {"architecture": "topk", "width": 2 * WIDTH, "k": 2 * K},
            "mlp": {"architecture": "topk_transcoder", **TRANSCODER},
            "early": {"architecture": "batchtopk", "hook": "blocks.0.hook_resid_post"},
        }.items(),
        1,
    ):
        run = data / "runs" / str(number)
        run.mkdir(parents=True)
        train.run(Train.model_validate({**TRAIN, "name": name, **fields}), Link(run, Paths(data)))
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy to add SAEs to."""
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def compared(data: Path, *saes: str, **fields: Any) -> dict[str, Any]:
    return run_job(data, "compare", saes=list(saes), **{"tokens": TOKENS, **fields})


def changed(data: Path, name: str, how: Callable[[SparseAutoencoder], SparseAutoencoder], of: str = "one") -> None:
    """Another SAE beside ``of``."""
    shutil.copytree(data / "saes" / of, data / "saes" / name)
    how(SparseAutoencoder.load(data / "saes" / of)).save(data / "saes" / name)
    change(data / "saes" / name / "recipe.json", sae=name, sae_sha256=None)


def permuted(sae: SparseAutoencoder, order: torch.Tensor) -> SparseAutoencoder:
    assert isinstance(sae.rule, JumpReLURule)
    rule = JumpReLURule(sae.rule.threshold[order])
    return replace(sae, W_enc=sae.W_enc[:, order], b_enc=sae.b_enc[order], W_dec=sae.W_dec[order], rule=rule)


def noisy(sae: SparseAutoencoder) -> SparseAutoencoder:
    noise = torch.randn(sae.W_dec.shape, generator=torch.Generator().manual_seed(0))
    return replace(sae, W_dec=sae.W_dec + 0.3 * noise / sae.d_out**0.5)


def at_random(sae: SparseAutoencoder) -> SparseAutoencoder:
    rows = torch.randn(sae.W_dec.shape, generator=torch.Generator().manual_seed(99))
    rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return replace(sae, W_dec=rows, W_enc=rows.t().contiguous())


def figure(result: dict[str, Any], number: int, name: str) -> float:
    return float(result["saes"][number]["figures"][name]["value"])


def test_the_same_weights_under_another_name_are_indistinguishable(data: Path) -> None:
    changed(data, "copy", lambda sae: sae)
    result = compared(data, "one", "copy")
    (pair,) = result["pairs"]
    assert all(one["value"] == 0 and one["interval"] == [0, 0] for one in pair["differences"].values())
    assert pair["verdict"][0].startswith("one and copy are indistinguishable on this data")
    assert len(pair["verdict"]) == 1
    matching = pair["matching"]
    assert matching["pairs_closely"] == matching["pairs"] == matching["a_in_b"]["alive"]
    assert pair["moved"]["lineage"] == "beginning"
    assert pair["moved"]["mean"] == pytest.approx(1)


def test_a_permuted_copy_is_the_same_and_its_order_is_found(data: Path) -> None:
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    changed(data, "permuted", lambda sae: permuted(sae, order))
    result = compared(data, "one", "permuted")
    (pair,) = result["pairs"]
    assert pair["verdict"][0].startswith("one and permuted are indistinguishable")
    assert pair["matching"]["a_in_b"]["mean"] == pytest.approx(1)
    assert pair["matching"]["best_pairs"]
    assert all(order[found["b"]] == found["a"] for found in pair["matching"]["best_pairs"])
    assert pair["moved"]["mean"] < 0.9  # row by row it is another


def test_the_same_one_read_in_smaller_batches_is_indistinguishable(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wider by latents that never fire, so that fewer tokens of it are measured at once."""

    def wider(sae: SparseAutoencoder) -> SparseAutoencoder:
        assert isinstance(sae.rule, JumpReLURule)
        W_enc, W_dec = (torch.cat([rows] + [rows[:, :1]] * 15 * WIDTH, 1) for rows in (sae.W_enc, sae.W_dec.t()))
        rule = JumpReLURule(torch.cat([sae.rule.threshold, torch.full((15 * WIDTH,), 1e9)]))
        b_enc = torch.cat([sae.b_enc, torch.zeros(15 * WIDTH)])
        return replace(sae, W_enc=W_enc, b_enc=b_enc, W_dec=W_dec.t().contiguous(), rule=rule)

    changed(data, "wider", wider)
    monkeypatch.setattr(document_sums, "DENSE_ELEMENTS", 64 * 16 * WIDTH)
    result = compared(data, "one", "wider")
    lost = result["pairs"][0]["differences"]["fvu"]
    assert [lost["value"], *lost["interval"]] == pytest.approx([0, 0, 0], abs=1e-6)
    for number, name in enumerate(("one", "wider")):
        alone = run_job(data, "evaluate", sae=name, tokens=TOKENS)["figures"]["fvu"]
        here = result["saes"][number]["figures"]["fvu"]
        assert [here["value"], *here["interval"]] == pytest.approx([alone["value"], *alone["interval"]], rel=1e-6)


def test_a_damaged_one_is_worse_beyond_chance(data: Path) -> None:
    changed(data, "damaged", noisy)
    (pair,) = compared(data, "damaged", "one")["pairs"]
    assert pair["differences"]["fvu"]["interval"][0] > 0
    assert pair["verdict"][0].startswith("one has the lower FVU, by ")
    assert pair["verdict"][-1] == "one dominates damaged: it loses less at no more latents."


def test_directions_at_random_share_no_features_with_a_trained_one(data: Path) -> None:
    changed(data, "random", at_random)
    matching = compared(data, "one", "random")["pairs"][0]["matching"]
    for way in ("a_in_b", "b_in_a"):
        assert matching[way]["matched"] < 0.1
        assert matching[way]["mean"] == pytest.approx(matching[way]["random"]["mean"], abs=0.1)
        assert matching[way]["unmatched"][0]["density"] > 0


def test_two_seeds_share_more_features_than_chance(made: Path) -> None:
    matching = compared(made, "one", "two")["pairs"][0]["matching"]
    assert matching["a_in_b"]["mean"] > matching["a_in_b"]["random"]["mean"]
    assert compared(made, "one", "two")["pairs"][0]["moved"] is None


def test_figures_are_those_of_measuring_each_alone(made: Path, tmp_path: Path) -> None:
    result = compared(made, "one", "wide")
    shutil.copytree(made, tmp_path / "data")
    for number, name in enumerate(("one", "wide")):
        alone = run_job(tmp_path / "data", "evaluate", sae=name, tokens=TOKENS)
        assert alone["tokens"] == result["tokens"]
        for figure_name in ("fvu", "l0", "cosine", "ce_delta", "kl", "alive", "dense"):
            assert figure(result, number, figure_name) == pytest.approx(
                alone["figures"][figure_name]["value"], rel=1e-5
            )
        intervals = [found["figures"]["fvu"]["interval"] for found in (alone, result["saes"][number])]
        assert intervals[0] == pytest.approx(intervals[1], rel=1e-5)
        assert result["saes"][number]["density"] == alone["density"]


def held_out(data: Path, tokens: int) -> torch.Tensor:
    """Activations at HOOK of as many held-out tokens as there are, (n, d)."""
    lm = load_lm(Path(json.loads((data / "models" / "m" / "model.json").read_text())["path"]))
    windows = TokenWindows(data / "tokens" / "t")
    rows = windows.rows(np.arange(windows.train, windows.train + windows.held_out))
    x = lm.activations(torch.from_numpy(rows), HOOK).bfloat16().float()
    return x[torch.from_numpy(~windows.special_mask(rows))][:tokens]


def test_two_checkpoints_are_compared_as_if_both_had_been_loaded_by_hand(made: Path) -> None:
    many = 100_000  # all of the held-out text
    result = compared(made, "one@10", "one@30", "one", tokens=many)
    x = held_out(made, many)
    norm = json.loads((made / "saes/one/recipe.json").read_text())["resolved"]["outlier_norms"][HOOK]
    x = x[torch.linalg.vector_norm(x, dim=1) <= norm]
    assert result["tokens"] == len(x)
    link = Link(made, Paths(made))
    for number, called in enumerate(("one@10", "one@30")):
        sae = open_sae_at(called, link).load()
        l0, fvu = figure(result, number, "l0"), figure(result, number, "fvu")
        assert l0 == pytest.approx(K, rel=0.15)  # calibrated on the other half of the text
        pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
        threshold = pre.clamp_min(0).flatten().sort(descending=True).values[round(l0 * len(x))]
        by_hand = measure(replace(sae, rule=JumpReLURule(torch.full((sae.d_sae,), float(threshold)))), [(x, x)])
        assert fvu == pytest.approx(by_hand.fvu, rel=1e-3)
    moved = result["pairs"][0]["moved"]
    weights = [open_sae_at(called, link).load().W_dec for called in ("one@10", "one@30")]
    cosines = torch.cosine_similarity(*weights, dim=1)
    assert moved["lineage"] == "training"
    for one in moved["changed"]:
        assert one["cosine"] == pytest.approx(float(cosines[one["feature"]]), abs=1e-5)
    assert [one["cosine"] for one in moved["changed"]] == sorted(one["cosine"] for one in moved["changed"])
    assert any("one@10: its threshold was chosen for an L0 of 4" in note for note in result["notes"])


def test_the_last_checkpoint_is_the_sae_that_was_saved(made: Path) -> None:
    result = compared(made, "one", "one@40")
    (pair,) = result["pairs"]
    assert pair["differences"]["fvu"]["value"] == pytest.approx(0, abs=1e-5)
    assert figure(result, 0, "l0") == pytest.approx(figure(result, 1, "l0"), rel=1e-3)
    assert pair["moved"]["born"] == pair["moved"]["died"] == 0
    assert pair["moved"]["mean"] == pytest.approx(1)


def test_of_other_hooks_the_cost_to_the_model_is_compared(made: Path) -> None:
    result = compared(made, "one", "mlp", "early")
    for pair in result["pairs"]:
        assert set(pair["differences"]) == {"l0", "ce_delta", "kl"}
        assert pair["verdict"][0].startswith("FVU is not compared")
        assert pair["matching"] is not None  # all write into one space
    assert len({figure(result, number, "ce_clean") for number in range(3)}) == 1


def test_a_loss_of_few_documents_ends_no_comparison(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_text, "loss_windows", lambda numbers, tokens: numbers[:2])
    result = compared(data, "one", "two", "wide")
    for pair in result["pairs"]:
        assert pair["differences"]["fvu"]["interval"]
        assert pair["differences"]["kl"]["interval"] is None
        assert any(sentence.startswith("ΔCE and KL come of ") for sentence in pair["verdict"])
    assert result["verdict"][-1].startswith("3 intervals of 95 % are looked at, of which fewer than one")


def train_hidden(data: Path) -> None:
    """An SAE called hidden, of a wider hook."""
    run = data / "runs" / "9"
    run.mkdir()
    hidden = Train.model_validate({**TRAIN, "name": "hidden", "hook": "blocks.1.mlp.hook_post"})
    train.run(hidden, Link(run, Paths(data)))


def test_documents_are_the_same_ones_with_bos_and_without(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_hidden(data)
    cfg = data / "saes/hidden/cfg.json"
    metadata = json.loads(cfg.read_text())["metadata"]
    change(cfg, metadata={**metadata, "prepend_bos": not metadata["prepend_bos"]})
    monkeypatch.setattr(compare_text, "most_units", lambda width: 1_000 // width)
    result = compared(data, "one", "hidden")
    assert "read the text with BOS in front of it, the others without" in result["notes"][0]
    assert set(result["pairs"][0]["differences"]) == {"l0", "ce_delta", "kl"}
    assert all(one["interval"] for one in result["pairs"][0]["differences"].values())


def test_hooks_of_other_widths_are_not_matched(data: Path) -> None:
    train_hidden(data)
    (pair,) = compared(data, "one", "hidden")["pairs"]
    assert (pair["matching"], pair["moved"]) == (None, None)
    assert (
        "their features cannot be matched: one writes 32 numbers at blocks.1.hook_resid_post"
        in pair["unmatched_because"]
    )


def test_the_model_reads_the_text_once_for_all_that_fit_in_memory(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    forward = Replayed._forward

    def counted(self: Replayed, rows: Any) -> Any:
        passes.append(len(rows))
        return forward(self, rows)

    monkeypatch.setattr(Replayed, "_forward", counted)
    once = compared(made, "one", "two", "wide")
    alone = sum(passes)
    monkeypatch.setattr("mistudiod.engine.replayed.KEPT_BYTES", 0)
    passes.clear()
    again = compared(made, "one", "two", "wide")
    assert sum(passes) == pytest.approx(3 * alone, abs=16)
    assert [one["figures"] for one in again["saes"]] == [one["figures"] for one in once["saes"]]


def test_eight_make_a_result_that_is_small(data: Path) -> None:
    for number in range(6):
        changed(data, f"copy{number}", noisy if number % 2 else at_random)
    result = compared(data, "one", "two", *(f"copy{number}" for number in range(6)))
    assert len(result["pairs"]) == 28
    assert len(json.dumps(result)) < 300_000
    assert any(sentence.startswith("Not beaten by any: ") for sentence in result["verdict"])


def refused(data: Path, *saes: str, **fields: Any) -> Refused:
    with pytest.raises(Refused) as found:
        compared(data, *saes, **fields)
    return found.value


def test_what_cannot_be_compared_is_refused_in_a_sentence(data: Path) -> None:
    shutil.copytree(data / "models" / "m", data / "models" / "n")
    change(data / "models/n/model.json", name="n")
    shutil.copytree(data / "saes" / "two", data / "saes" / "other")
    recipe = json.loads((data / "saes/other/recipe.json").read_text())
    change(data / "saes/other/recipe.json", model={**recipe["model"], "name": "n"})
    said = refused(data, "one", "other")
    assert (str(said), said.field) == (
        "one is of m and other of n: only SAEs of one model can be compared", "saes",
    )  # fmt: skip
    assert str(refused(data, "one", "nobody")).startswith("there is no SAE called nobody")
    assert str(refused(data, "one", "two@7")).startswith("two has no checkpoint of step 7; there is one of 40.")
    missing = refused(data, "one", "two", tokenization="none")
    assert missing.field == "tokenization"
    (data / "saes/two/cfg.json").write_text("{")
    broken = refused(data, "one", "two")
    assert "cfg.json cannot be read" in str(broken)
    assert broken.field == "saes"


@pytest.mark.parametrize(
    ("saes", "sentence"),
    [
        (["one"], "at least 2 items"),
        (["one", "one"], "must be different ones"),
        (["one", "two@x"], "NAME@STEP"),
        ([f"s{n}" for n in range(9)], "at most 8 items"),
    ],
)
def test_a_spec_that_compares_nothing_is_none(saes: list[str], sentence: str) -> None:
    from mistudiod.specs import Compare

    with pytest.raises(ValueError, match=sentence):
        Compare.model_validate({"saes": saes})


def test_the_studio_compares_and_draws(data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    with running(data, "real_worker.py") as url:

        def mistudio(*args: str) -> Any:
            return CliRunner(env={"MISTUDIO_HOST": url}).invoke(main, ["sae", "compare", *args])

        said = mistudio("one@30", "two", "--tokens", str(TOKENS), "--picture", str(picture))
        assert said.exit_code == 0, said.output
        assert said.stdout.split("\n")[0].split() == ["one@30", "two"]
        assert "are in two (cosine above 0.7)" in said.stdout
        assert picture.read_text().startswith("<svg")
        assert ">one@30</text>" in picture.read_text()
        missing = mistudio("one", "nobody")
        assert missing.exit_code != 0
        assert "there is no sae named 'nobody'" in missing.output
        gone = mistudio("one@1000", "two")
        assert "one has no checkpoint of step 1000" in gone.output
