"""Held to the libraries themselves: they load what is written for them, what they save is read, to 1e-5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from formats import D, close, inputs
from judges import DICTIONARY_LEARNING, SAELENS, SPARSIFY, Judge
from test_formats_write import ABOUT, RULES, an_sae, back, transcoder

from mistudiod.engine.formats.writers import write
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder

pytestmark = pytest.mark.timeout(300)  # each imports torch and more
JUDGES = [pytest.param(one, id=one.name, marks=one.needed) for one in (SAELENS, SPARSIFY, DICTIONARY_LEARNING)]
HOOK_OUT = "blocks.3.hook_mlp_out"


def of_every_kind(judge: Judge) -> dict[str, SparseAutoencoder]:
    """All that can be written for a library."""
    if judge is SPARSIFY:
        rules, transcoders = ("topk",), {"topk": transcoder("topk"), "topk skip": transcoder("topk", skip=True)}
    else:
        rules, transcoders = RULES, {}
    if judge is SAELENS:
        transcoders = {
            f"{rule} to {d_out}{' skip' * skip}": transcoder(rule, d_out, skip)
            for rule, d_out, skip in (("standard", D, False), ("standard", D + 3, True), ("jumprelu", D, True))
        }
        transcoders |= {norm: an_sae("topk", norm=norm) for norm in ("layer_norm", "constant_norm_rescale")}
    saes = {f"{rule} {centred=}": an_sae(rule, centred) for rule in rules for centred in (True, False)}
    saes["unequal rows"] = an_sae("topk", unit=False)
    return saes | {f"{name} transcoder": one for name, one in transcoders.items()}


@pytest.mark.parametrize("judge", JUDGES)
def test_a_library_loads_what_is_written_for_it_and_computes_the_same(judge: Judge, tmp_path: Path) -> None:
    layout, saes, folders = judge.name.replace("-", "_"), of_every_kind(judge), []
    for kind, sae in saes.items():
        about = replace(ABOUT, hook="blocks.3.mlp.hook_in", hook_out=HOOK_OUT, family="llama")
        write(layout, sae, tmp_path / kind, about if sae.transcodes else ABOUT)
        folders.append(
            next((tmp_path / kind).rglob("cfg.json" if judge is not DICTIONARY_LEARNING else "ae.pt")).parent
        )
    x = inputs()
    for (kind, sae), theirs in zip(saes.items(), judge.read(folders, x, tmp_path), strict=True):
        try:
            close(theirs["z"], sae.encode(x))
            close(theirs["rebuilt"], sae.decode(sae.encode(x), x))
        except AssertionError as error:
            raise AssertionError(f"{judge.name}: {kind}: {error}") from None


@pytest.mark.parametrize("judge", JUDGES)
def test_what_a_library_saves_is_read_and_computes_the_same(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for kind, theirs in judge.make(tmp_path / "theirs", tmp_path).items():
        found = back(tmp_path / "theirs" / kind, tmp_path / f"{kind}-scratch")
        sae, x = found.sae, theirs["x"]
        assert found.found.format == judge.name.replace("-", "_")
        try:
            close(sae.encode(x), theirs["z"])
            close(sae.decode(sae.encode(x), x), theirs["rebuilt"])
            sae.save(tmp_path / "ours")
            again = SparseAutoencoder.load(tmp_path / "ours")
            close(again.decode(again.encode(x), x), theirs["rebuilt"])
        except AssertionError as error:
            raise AssertionError(f"{judge.name}: {kind}: {error}") from None
        assert found.hook and found.model == "gpt2"


@SAELENS.needed
def test_saelens_has_no_transcoder_that_takes_the_k_largest(tmp_path: Path) -> None:
    """So none is written for it; a folder of this studio's own that holds one it refuses by name."""
    sae = transcoder("topk")
    assert isinstance(sae.rule, TopKRule)
    sae.save(tmp_path / "own")
    with pytest.raises(AssertionError, match="topk_transcoder"):
        SAELENS.read([tmp_path / "own"], torch.zeros(2, D), tmp_path)


@SAELENS.needed
def test_an_sae_of_heads_runs_in_saelens_as_its_note_says(tmp_path: Path) -> None:
    sae, hook = an_sae("jumprelu", metadata={"hook_name": "blocks.3.attn.hook_z"}), "blocks.3.attn.hook_z"
    (note,) = write("saelens", sae, tmp_path / "made", replace(ABOUT, hook=hook, hook_out=hook))
    code = f"""
import torch
from sae_lens import SAE
sae = SAE.load_from_disk(".")
x = torch.randn(4, {D})
sae.{note.partition("call its ")[2].partition(" first")[0]}
heads = x.unflatten(1, (4, -1))
latents = sae.encode(heads)
rebuilt = sae(heads).flatten(1)
"""
    (theirs,) = SAELENS.run_code([(tmp_path / "made", code)], tmp_path)
    close(theirs["z"], sae.encode(theirs["x"]))
    close(theirs["rebuilt"], sae.decode(sae.encode(theirs["x"])))
