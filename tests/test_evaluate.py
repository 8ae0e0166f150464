"""Evaluating an SAE: every figure held against a plain computation, every interval against documents drawn by hand."""

from __future__ import annotations

import json
import random
import shutil
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
from tensors_made import Made
from test_certify import put
from tiny_models import LINES, tiny_model
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from trained_saes import change

from mistudiod.engine import beside_baselines, document_sums, evaluate
from mistudiod.engine.beside_baselines import Sample, beside_random
from mistudiod.engine.by_document import Bootstrap
from mistudiod.engine.document_sums import Batch, Text
from mistudiod.engine.extract import spread
from mistudiod.engine.hooks import hooked
from mistudiod.engine.legacy import Legacy
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.measure import measure
from mistudiod.engine.rules import JumpReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import Units
from mistudiod.engine.tokens import TokenWindows
from mistudiod.engine.verdict import evaluated
from mistudiod.paths import Paths
from mistudiod.specs import Evaluate, Extract
from mistudiod.worker import evaluate as worker
from mistudiod.worker import extract
from mistudiod.worker.link import Asked, Link, Refused

HOOK, OUT, WIDTH, K, CONTEXT, D = "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", 96, 6, 16, 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a model, a text of many documents, and an SAE that was trained on it."""
    home, draw = tmp_path_factory.mktemp("evaluate"), random.Random(0)
    tiny_model("llama", home / "model")
    texts = ["\n".join(draw.choices(LINES, k=draw.randint(1, 4))) + str(i) for i in range(150)]
    (home / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "texts.jsonl"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=CONTEXT, bos="always", held_out=0.3)
    run_job(
        data, "train", name="own", tokenization="t", hook=HOOK, architecture="batchtopk", width=WIDTH, k=K, steps=40,
        batch_tokens=128, buffer_tokens=2048, whole_model=True,
    )  # fmt: skip
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy to add SAEs to."""
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def sae_of(rule: Rule | None = None, transcodes: bool = False) -> SparseAutoencoder:
    """Random unit directions, read and written."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.nn.functional.normalize(torch.randn(WIDTH, D, generator=generator))
    b_dec = torch.randn(D, generator=generator) * 0.1
    W_enc, centred = rows.t().clone(), not transcodes
    return SparseAutoencoder(
        W_enc, torch.zeros(WIDTH), rows, b_dec, rule or TopKRule(K), centred=centred, transcodes=transcodes
    )


def put_transcoder(data: Path) -> SparseAutoencoder:
    sae = sae_of(JumpReLURule(torch.full((WIDTH,), 0.5)), transcodes=True)
    put(data, sae, hook_out=OUT, spec={"hook": HOOK, "hook_out": OUT, "tokenization": None})
    return sae


def evaluation(data: Path, sae: str = "s", **fields: Any) -> dict[str, Any]:
    """The file."""
    run_job(data, "evaluate", sae=sae, **{"tokenization": "t", **fields})
    found: dict[str, Any] = json.loads((data / "saes" / sae / "evaluation.json").read_text())
    return found


def values(found: dict[str, Any]) -> dict[str, float]:
    return {name: one["value"] for name, one in found["figures"].items()}


class Plain:
    """The held-out text of t, read without any of what is tested."""

    def __init__(self, data: Path) -> None:
        self.lm: LM = load_lm(Path(json.loads((data / "models" / "m" / "model.json").read_text())["path"]))
        self.windows = TokenWindows(data / "tokens" / "t")
        policy = json.loads((data / "tokens" / "t" / "tokenization.json").read_text())["policy"]
        self.ids = torch.from_numpy(
            self.windows.rows(np.arange(self.windows.train, self.windows.train + self.windows.held_out))
        )
        self.text = torch.from_numpy(~self.windows.special_mask(self.ids.numpy()))
        self.document = torch.zeros_like(self.ids)
        number = 0
        for window in range(len(self.ids)):
            for position in range(1, CONTEXT):
                number += int(self.ids[window, position] == policy["separator"])
                self.document[window, position] = number
        self.first = torch.zeros_like(self.text)
        self.first[:, 1] = self.text[:, 1]

    def at(self, hook: str, ids: Tensor | None = None) -> Tensor:
        """(n, T, d), rounded as activations are kept."""
        return self.lm.activations(self.ids if ids is None else ids, hook).bfloat16().float()

    def train(self, hook: str) -> Tensor:
        rows = self.windows.rows(spread(self.windows.train, CONTEXT, 16_384))
        return self.at(hook, torch.from_numpy(rows))[torch.from_numpy(~self.windows.special_mask(rows))]

    def losses(self, out: str, replacement: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of each token that counts cross-entropy and KL(clean || replaced), and its document."""

        def put(x: Tensor) -> Tensor:
            y = x.clone()
            y[self.text] = replacement[self.text].to(y)  # type: ignore[index]
            return y

        with torch.no_grad():
            clean = self.lm.model(input_ids=self.ids).logits
            with hooked(self.lm.model, {out: put} if replacement is not None else {}):
                logits = self.lm.model(input_ids=self.ids).logits
        counts = self.text[:, :-1] & self.text[:, 1:]
        one, other = (each[:, :-1][counts].double() for each in (clean, logits))
        kl = kl_div(log_softmax(other, 1), log_softmax(one, 1), reduction="none", log_target=True).sum(1)
        return cross_entropy(other, self.ids[:, 1:][counts], reduction="none"), kl, self.document[:, :-1][counts]


def fvu(y: Tensor, lost: Tensor) -> float:
    y = y.double()
    return (lost.sum() / (y - y.mean(0)).square().sum()).item()


def recovered(ablated: Tensor, with_it: Tensor, clean: Tensor) -> float | None:
    """Nothing where an ablation costs nothing."""
    cost = (ablated - clean).sum().item()
    return (ablated - with_it).sum().item() / cost if cost > 0 else None


def expected(
    plain: Plain, sae: SparseAutoencoder, hook: str, out: str
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Every figure but those of baselines, and of each token what intervals come of."""
    x, raw = plain.at(hook)[plain.text], plain.lm.activations(plain.ids, hook)
    y, z = plain.at(out)[plain.text].double(), sae.encode(x).double()
    y_hat = sae.decode(z.float()).double()
    lost, fires = (y - y_hat).square().sum(1), z > 0
    share, norms = fires.double().mean(0), (y.norm(dim=1), y_hat.norm(dim=1))
    dense = share > 0.1
    nearest = {}
    for name, rows in (("decoder", sae.W_dec), ("encoder", sae.W_enc.t())):
        unit = torch.nn.functional.normalize(rows.double(), dim=1)
        nearest[name] = (unit @ unit.t() - 2 * torch.eye(WIDTH)).amax(1)
    spliced = torch.zeros(*plain.ids.shape, D)
    spliced[:] = sae.decode(sae.encode(raw.flatten(0, 1))).view_as(spliced)
    mean = plain.lm.activations(plain.ids, out)[plain.text].double().mean(0).float().expand(*plain.ids.shape, D)
    (clean, _, of), (with_it, kl, _) = plain.losses(out, None), plain.losses(out, spliced)
    zero, by_mean = (plain.losses(out, each)[0] for each in (torch.zeros_like(spliced), mean))
    first = plain.first[plain.text]
    figures = {
        "fvu": fvu(y, lost),
        "fvu_first": fvu(y[first], lost[first]),
        "fvu_later": fvu(y[~first], lost[~first]),
        "l0": fires.sum(1).double().mean().item(),
        "l1": z.sum(1).mean().item(),
        "cosine": ((y * y_hat).sum(1) / norms[0] / norms[1]).mean().item(),
        "l2_ratio": (norms[1] / norms[0]).mean().item(),
        "bias": (y_hat.square().sum() / (y * y_hat).sum()).item(),
        "alive": (share > 0).double().mean().item(),
        "dead": (share == 0).double().mean().item(),
        "dense": dense.double().mean().item(),
        "dense_mass": (fires[:, dense].sum() / fires.sum()).item(),
        **{f"{name}_cosine": each.mean().item() for name, each in nearest.items()},
        **{f"{name}_copies": (each >= 0.9).double().mean().item() for name, each in nearest.items()},
        "ce_clean": clean.mean().item(),
        "ce_delta": (with_it - clean).mean().item(),
        "ce_zero": (zero - clean).mean().item(),
        "ce_mean": (by_mean - clean).mean().item(),
        "ce_recovered_zero": recovered(zero, with_it, clean),
        "ce_recovered_mean": recovered(by_mean, with_it, clean),
        "kl": kl.mean().item(),
    }
    return figures, {"y": y, "lost": lost, "l0": fires.sum(1), "ce": with_it - clean, "of": of, "share": share}


@pytest.mark.parametrize("kind", ["topk", "jumprelu", "transcoder"])
def test_every_figure_is_what_a_plain_computation_gives(kind: str, data: Path) -> None:
    rule = JumpReLURule(torch.full((WIDTH,), 0.7)) if kind == "jumprelu" else None
    sae = put_transcoder(data) if kind == "transcoder" else sae_of(rule)
    if kind != "transcoder":
        put(data, sae)
    found, plain = evaluation(data), Plain(data)
    figures, tokens = expected(plain, sae, HOOK, OUT if kind == "transcoder" else HOOK)
    got = values(found)
    for name, value in figures.items():
        assert got[name] == (None if value is None else pytest.approx(value, rel=2e-4, abs=1e-5)), name
    assert found["tokens"] == plain.text.sum()
    assert found["first_tokens"] == plain.first.sum()
    assert found["outliers_left_out"] == 0
    assert found["documents"]["count"] == len(np.unique(plain.document[plain.text]))
    counted = torch.histogram(tokens["share"][tokens["share"] > 0].log10().float() + 1e-6, 12, range=(-6.0, 0.001))
    assert found["density"]["latents"] == counted.hist.int().tolist()
    assert set(found["formulas"]) >= set(got)
    if kind == "transcoder":
        assert "pca_fvu" not in got
        return
    assert got["encoder_decoder"] == pytest.approx(1, abs=1e-5)
    check_baselines(found, plain, tokens)


def check_baselines(found: dict[str, Any], plain: Plain, tokens: dict[str, Any]) -> None:
    got, y, train = values(found), tokens["y"], plain.train(HOOK).double()
    n = found["components"]
    assert n == round(got["l0"])
    axes = torch.linalg.eigh((train - train.mean(0)).t() @ (train - train.mean(0))).eigenvectors[:, -n:]
    about = y - train.mean(0)
    assert got["pca_fvu"] == pytest.approx(fvu(y, (about - about @ axes @ axes.t()).square().sum(1)), rel=1e-6)
    assert got["pca_margin"] == pytest.approx(got["pca_fvu"] - got["fvu"], rel=1e-4)
    assert got["random_margin"] == pytest.approx(got["random_fvu"] - got["fvu"], rel=1e-4)
    assert got["pca_fvu"] < got["random_fvu"] < 1
    assert found["baseline_tokens"] == found["random_tokens"] == found["tokens"]


def test_intervals_are_those_of_documents_drawn_by_hand(data: Path) -> None:
    put(data, sae_of())
    found, plain = evaluation(data), Plain(data)
    _, tokens = expected(plain, sae_of(), HOOK, HOOK)
    of = np.unique(plain.document[plain.text].numpy(), return_inverse=True)[1]
    y, lost, l0 = (tokens[name].double().numpy() for name in ("y", "lost", "l0"))
    by_hand: dict[str, list[float]] = {"fvu": [], "l0": [], "ce_delta": []}
    places = [np.flatnonzero(of == document) for document in range(of.max() + 1)]
    for weights in Bootstrap(len(places)).drawn:
        t = np.concatenate([places[document] for document in np.repeat(np.arange(len(places)), weights)])
        by_hand["fvu"].append(lost[t].sum() / np.square(y[t] - y[t].mean(0)).sum())
        by_hand["l0"].append(l0[t].mean())
    of = np.unique(tokens["of"].numpy(), return_inverse=True)[1]
    places = [np.flatnonzero(of == document) for document in range(of.max() + 1)]
    for weights in Bootstrap(len(places)).drawn:
        t = np.concatenate([places[document] for document in np.repeat(np.arange(len(places)), weights)])
        by_hand["ce_delta"].append(tokens["ce"].numpy()[t].mean())
    for name, draws in by_hand.items():
        low, high = np.quantile(draws, [0.025, 0.975])
        assert found["figures"][name]["interval"] == pytest.approx([low, high], rel=2e-4), name
        assert low <= found["figures"][name]["value"] <= high
    assert found["figures"]["alive"]["interval"] is None
    assert len(found["figures"]["pca_margin"]["interval"]) == 2


def test_an_evaluation_is_the_same_every_time_to_the_bit(data: Path) -> None:
    for name in ("own", "s"):
        put(data, sae_of()) if name == "s" else None
        one, other = (evaluation(data, name, tokens=4_096) for _ in range(2))
        for found in (one, other):
            found.pop("at"), found.pop("seconds")
        assert one == other


def test_it_agrees_with_the_end_of_training_and_with_an_extraction_on_the_same_tokens(data: Path) -> None:
    found, recipe = values(evaluation(data, "own")), json.loads((data / "saes" / "own" / "recipe.json").read_text())
    for name in ("fvu", "l0", "alive", "cosine", "l2_ratio", "ce_delta", "kl", "ce_recovered_zero"):
        assert found[name] == pytest.approx(recipe[name], rel=2e-3, abs=1e-4), name
    plain = Plain(data)
    x = plain.at(HOOK)[plain.text]
    whole = measure(SparseAutoencoder.load(data / "saes" / "own"), [(x, x)])
    assert found["fvu"] == pytest.approx(whole.fvu, rel=1e-5)
    assert found["l0"] == pytest.approx(whole.l0, rel=1e-6)
    # the held-out windows as if they were to train on: that is what an extraction reads
    folder = data / "tokens" / "turned"
    shutil.copytree(data / "tokens" / "t", folder)
    windows = plain.windows
    ids = np.concatenate([plain.ids.numpy(), windows.rows(np.arange(windows.train))])
    manifest = json.loads((folder / "tokenization.json").read_text())
    (folder / "tokens.bin").write_bytes(ids.astype(manifest["dtype"]).tobytes())
    change(folder / "tokenization.json", train_windows=windows.held_out, held_out_windows=windows.train)
    run = data / "runs" / "9"
    run.mkdir(parents=True)
    spec = Extract.model_validate({"sae": "own", "tokenization": "turned", "tokens": ids.size, "examples": 2})
    extract.run(spec, Link(run, Paths(data)))
    extraction = json.loads((data / "features" / "own" / "9" / "manifest.json").read_text())
    assert extraction["tokens"] == plain.text.sum()
    assert extraction["l0"] == pytest.approx(found["l0"], rel=1e-6)


def test_a_block_at_a_time_makes_no_difference(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(data, sae_of(JumpReLURule(torch.full((WIDTH,), 0.7))))
    whole = evaluation(data)
    monkeypatch.setattr(document_sums, "DENSE_ELEMENTS", 7 * WIDTH)
    found = evaluation(data)
    for name, one in whole["figures"].items():
        if one["value"] is not None:
            assert found["figures"][name]["value"] == pytest.approx(one["value"], rel=1e-5), name
        if one["interval"]:
            assert found["figures"][name]["interval"] == pytest.approx(one["interval"], rel=1e-4)


def test_encoder_and_decoder_are_held_together_some_latents_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = sae_of()
    sae.W_enc = torch.randn(D, WIDTH, generator=torch.Generator().manual_seed(5))
    by_hand = torch.cosine_similarity(sae.W_enc.t(), sae.W_dec, dim=1).double().mean().item()
    monkeypatch.setattr(evaluate, "_LATENTS", 7)
    with Made() as made:
        assert evaluate._aligned(sae) == pytest.approx(by_hand, rel=1e-6)
    assert made.largest <= 7 * D


def test_a_wide_random_dictionary_is_measured_on_fewer_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    n, d = 600, 4
    text = Text(None, np.arange(n), slice(0, d), slice(0, d), Units(lambda some: some[:, None], 1))  # type: ignore[arg-type]
    x, of = torch.randn(n, d, generator=torch.Generator().manual_seed(0)), np.zeros(n, dtype=np.int64)
    sample = Sample(text, n, d)
    sample.add(Batch(x, x, of, np.arange(n), torch.zeros(n, dtype=torch.bool)), torch.ones(n, dtype=torch.float64))
    monkeypatch.setattr(beside_baselines, "LEAST_RANDOM", 10)
    monkeypatch.setattr(beside_baselines, "RANDOM_WORK", 300 * (2_000 * d + 2 * 2 * d + 2**3))
    for d_sae, most in ((2_000, 300), (8_000, 75), (80_000, 10)):  # each token is held against every atom
        found = beside_random(sample, torch.zeros(d, dtype=torch.float64), d_sae, 2.0, 0, lambda done, of: None)
        assert 0.8 * most < found.sae.tokens.sum() <= most


def test_a_last_batch_of_one_token_ruins_no_figure_of_other_libraries() -> None:
    y = torch.randn(301, D, generator=torch.Generator().manual_seed(0)).double()
    error, old = 0.1 * y.roll(1, 0), Legacy()
    for some, off in zip(y.split(100), error.split(100), strict=True):
        old.add(some, some - off)
    about = torch.cat([some - some.mean(0) for some in y[:300].split(100)])
    by_token = 1 - error[:300].square().sum(1) / about.square().sum(1)
    assert old.figures()["explained_variance_by_token"] == pytest.approx(by_token.mean().item(), rel=1e-9)


def test_a_figure_that_batches_of_one_token_do_not_have_is_left_open(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(data, sae_of(JumpReLURule(torch.full((WIDTH,), 0.7))))
    monkeypatch.setattr(document_sums, "DENSE_ELEMENTS", WIDTH)
    old = evaluation(data)["legacy"]
    assert old["explained_variance_by_token"]["value"] is None
    assert abs(old["explained_variance_of_residual"]["value"]) < 10
    assert abs(old["normalized_mse"]["value"]) < 10


def test_fewer_tokens_are_measured_on_when_so_asked(data: Path) -> None:
    put(data, sae_of())
    run_job(data, "tokenize", name="long", dataset="d", model="m", context=CONTEXT, held_out=0.5)
    found = evaluation(data, tokenization="long", tokens=4_096)
    assert 3_900 < found["tokens"] <= 4_096
    assert found["tokens"] < evaluation(data, tokenization="long")["tokens"]


@pytest.mark.parametrize("bos", [True, False])
def test_the_text_begins_as_the_sae_says(bos: bool, data: Path) -> None:
    put(data, sae_of(), bos=bos)
    run_job(data, "tokenize", name="bare", dataset="d", model="m", context=CONTEXT, bos="never", held_out=0.3)
    for name in ("t", "bare"):
        found = evaluation(data, tokenization=name)
        assert found["bos"] == bos
        plain, windows = Plain(data), TokenWindows(data / "tokens" / name)
        rows = windows.rows(np.arange(windows.train, windows.train + windows.held_out))
        body = rows[:, 1:] if name == "t" else rows
        ids = np.concatenate([np.zeros((len(body), int(bos)), dtype=np.int64), body], axis=1)
        text = torch.from_numpy(~windows.special_mask(ids))
        x = plain.at(HOOK, torch.from_numpy(ids))[text]
        assert values(found)["fvu"] == pytest.approx(measure(sae_of(), [(x, x)]).fvu, rel=1e-4)
        assert found["tokens"] == len(x)
        assert found["first_tokens"] > 0


def test_tokens_of_a_huge_norm_are_left_out_of_an_sae_that_was_brought_in(data: Path) -> None:
    folder = data / "saes" / "own"
    found = evaluation(data, "own")
    assert found["outliers_left_out"] == 0
    recipe = json.loads((folder / "recipe.json").read_text())
    norms = Plain(data).at(HOOK)[Plain(data).text].norm(dim=1)
    limit = norms.quantile(0.9).item()
    recipe["resolved"]["outlier_norms"] = {HOOK: limit}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    assert evaluation(data, "own")["outliers_left_out"] == (norms > limit).sum()


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_it_cannot_be_measured_on_is_said_and_nothing_is_written(data: Path) -> None:
    put(data, sae_of())
    with pytest.raises(Refused, match="nowhere is not a tokenization"):
        evaluation(data, tokenization="nowhere")
    shutil.copytree(data / "tokens" / "t", data / "tokens" / "none")
    manifest = data / "tokens" / "none" / "tokenization.json"
    about = json.loads(manifest.read_text())
    windows = about["train_windows"] + about["held_out_windows"]
    change(manifest, train_windows=windows, held_out_windows=0)
    with pytest.raises(Refused, match="no held-out text: tokenize more text"):
        evaluation(data, tokenization="none")
    change(data / "tokens" / "t" / "tokenization.json", tokenizer_sha256="0" * 64)
    with pytest.raises(Refused, match="made with another tokenizer"):
        evaluation(data)
    manifest.write_text(json.dumps(about))
    put(data, sae_of(), name="lost", spec={"hook": None})
    with pytest.raises(Refused, match="does not say which hook"):
        evaluation(data, "lost", tokenization="none")
    with pytest.raises(Refused, match="no SAE called gone"):
        evaluation(data, "gone")
    put(data, replace(sae_of(), W_enc=sae_of().W_enc * 3e38), name="broken")
    damaged = sae_of()
    damaged.W_dec[3, 4] = torch.nan
    put(data, damaged, name="damaged")
    with pytest.raises(Refused, match="not all finite"):
        evaluation(data, "damaged", tokenization="none")
    with pytest.raises(Refused, match="broken on none: what the SAE rebuilds is not all finite numbers"):
        evaluation(data, "broken", tokenization="none")
    assert not list(data.glob("saes/*/evaluation.json"))
    assert not list(data.glob("saes/.partial*"))


def test_a_stop_is_heard_between_batches_and_leaves_the_earlier_evaluation(data: Path) -> None:
    put(data, sae_of())
    before = evaluation(data)
    path = data / "saes" / "s" / "evaluation.json"
    was = path.stat().st_mtime_ns

    class Stopping(Link):
        def progress(self, stage: str, done: float, total: float | None = None, unit: str = "") -> None:
            if stage == "measure the model's loss":
                self.hear("stop")

    with pytest.raises(Asked):
        worker.run(Evaluate.model_validate({"sae": "s", "tokenization": "t"}), Stopping(data, Paths(data)))
    assert path.stat().st_mtime_ns == was
    assert json.loads(path.read_text()) == before


# -- what a person sees ----------------------------------------------------------------------------------------------


def figures_of(**values: float | None) -> dict[str, Any]:
    return {name: {"value": value, "interval": None} for name, value in values.items()}


def test_the_verdict_says_what_cannot_be_told_and_why_there_are_no_intervals() -> None:
    figures = figures_of(fvu=0.2, l0=10.0, dead=0.3, pca_fvu=0.21, pca_margin=0.01)
    figures["pca_margin"]["interval"] = [-0.01, 0.03]
    found: dict[str, Any] = {
        "figures": figures, "tokens": 20_000, "outliers_left_out": 0, "components": 10,
        "documents": {"units": 3, "least": 10}, "asked": 65_536,
    }  # fmt: skip
    said = evaluated(found)
    assert "cannot be told from that of 10 principal components" in said[1]
    assert said[2].startswith("30 % of the latents never fired on these 20,000 tokens")
    assert said[2].endswith("more held-out text would tell the rare ones from the dead")
    assert said[3].startswith("no intervals: they come of drawing documents anew, and of the 3 here too few differ")
    found["asked"] = 20_050
    assert "more of them (--tokens) would" in evaluated(found)[2]
    found["documents"]["units"] = 10
    figures["pca_margin"]["interval"], figures["dead"]["value"] = [0.001, 0.03], 0.01
    assert evaluated(found)[1] == "the intervals come of 10 documents only, so they are rough, and rather too narrow"
    found["documents"]["units"] = 40
    assert len(evaluated(found)) == 1


def test_the_studio_evaluates_shows_and_lists(data: Path) -> None:
    put(data, sae_of())
    with running(data, "real_worker.py") as url:

        def mistudio(*args: str) -> str:
            result = CliRunner(env={"MISTUDIO_HOST": url}).invoke(main, list(args))
            assert result.exit_code == 0, result.output
            return result.stdout

        said = mistudio("sae", "eval", "s", "--tokenization", "t")
        found = json.loads((data / "saes" / "s" / "evaluation.json").read_text())
        fvu, (low, high) = (found["figures"]["fvu"][name] for name in ("value", "interval"))
        row = said.splitlines()[1]
        assert row.startswith("FVU ")
        assert f"{fvu:.3f}" in row
        assert f"{low:.3f} to {high:.3f}" in row
        assert f"{found['components']} principal components" in row
        assert "how many latents fire on what share of the tokens" in said
        assert found["verdict"][0] in said
        assert f"FVU {fvu:.3f} ({low:.3f} to {high:.3f})" in mistudio("sae", "show", "s")
        (row,) = (line for line in mistudio("sae", "list").splitlines() if line.startswith("s "))
        assert f"{fvu:.3f}" in row
        shown = json.loads(mistudio("sae", "show", "s", "--json"))
        assert shown["evaluation"]["figures"]["fvu"] == found["figures"]["fvu"]
        assert shown["job"] is None, "it was there before the job that measured it"
