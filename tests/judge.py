"""Run by the interpreter of another library: load SAE folders with it and write down what it computes, or make some.

    python judge.py LIBRARY answer ASKED INPUTS OUTPUTS
    python judge.py LIBRARY make FOLDER

ASKED says ``{"read": [folder]}``, which are given x of INPUTS, or ``{"run": [{"folder", "code"}]}``; OUTPUTS gets of
each, under its number, x, z (tokens, d_sae) and rebuilt. ``make`` saves an SAE of each kind into FOLDER/<kind>, and its
x, z and rebuilt beside it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

D, F, K = 24, 100, 6
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


def random(d_in: int = D) -> torch.Tensor:
    return 2 * torch.randn(40, d_in, generator=torch.Generator().manual_seed(3)) + 0.5


def stir(module: Any) -> None:
    """Nothing of it is left as it began; thresholds stay above 0, rows of the decoder differ in norm."""
    torch.manual_seed(1)
    for name, one in module.named_parameters():
        if name == "log_threshold":
            continue
        one.data = torch.rand_like(one) if "threshold" in name else one.data + 0.2 * torch.randn_like(one)


def dense(latents: Any, width: int) -> torch.Tensor:
    """sparsify gives the k largest."""
    if isinstance(latents, torch.Tensor):
        return latents.to_dense() if latents.is_sparse else latents
    z = torch.zeros(len(latents.top_acts), width, dtype=latents.top_acts.dtype)
    return z.scatter_(1, latents.top_indices, latents.top_acts)


# What each library loads a folder with, and computes


def with_saelens(folder: str, x: torch.Tensor) -> tuple[Any, Any]:
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder, dtype="float32")
    return sae.encode(x), sae(x)


def with_sparsify(folder: str, x: torch.Tensor) -> tuple[Any, Any]:
    from sparsify import SparseCoder

    sae = SparseCoder.load_from_disk(folder).float()
    top = sae.encode(x)  # sae(x) of one trained with multi_topk is what 4 k latents rebuild
    rebuilt = sae.decode(top.top_acts, top.top_indices)
    return dense(top, sae.num_latents), rebuilt if sae.W_skip is None else rebuilt + x @ sae.W_skip.T


def with_dictionary_learning(folder: str, x: torch.Tensor) -> tuple[Any, Any]:
    from dictionary_learning.utils import load_dictionary

    sae, _ = load_dictionary(folder, "cpu")
    return sae.encode(x), sae(x)


# What each library saves


def make_saelens(folder: Path) -> list[str]:
    from sae_lens import SAE, TrainingSAE
    from sae_lens.registry import get_sae_training_class

    base = {"d_in": D, "d_sae": F, "apply_b_dec_to_input": True}
    about = {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_post", "hook_name_out": "blocks.3.hook_mlp_out"}
    kinds: dict[str, dict[str, Any]] = {
        "standard": {},
        "gated": {},
        "jumprelu": {},
        "topk": {"k": K, "rescale_acts_by_decoder_norm": False},
        "topk-rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
        "standard-uncentred": {"apply_b_dec_to_input": False},
        "jumprelu-layer_norm": {"normalize_activations": "layer_norm"},
        "topk-constant_norm": {"normalize_activations": "constant_norm_rescale", "k": K},
        "standard-bfloat16": {"dtype": "bfloat16"},
    } | {name: {"d_out": D + 4 * ("skip" in name), "apply_b_dec_to_input": False} for name in TRANSCODERS}
    for kind, more in kinds.items():
        sae = SAE.from_dict({**base, "architecture": kind.split("-")[0], **more, "metadata": about})
        stir(sae)
        sae.save_model(folder / kind)
    trained = {name: {} for name in ("standard", "gated", "jumprelu")} | {"topk": {"k": K}, "batchtopk": {"k": K}}
    trained["matryoshka_batchtopk"] = {"k": K, "matryoshka_widths": [F // 2, F]}
    for name, more in trained.items():
        made, config = get_sae_training_class(name)
        sae = made(config(d_in=D, d_sae=F, **more))
        assert isinstance(sae, TrainingSAE)
        stir(sae)
        if "batchtopk" in name:
            sae.topk_threshold.fill_(0.3)
        for key, value in about.items():
            sae.cfg.metadata[key] = value
        sae.save_inference_model(folder / f"trained-{name}")
    return [*kinds, *(f"trained-{name}" for name in trained)]


def make_sparsify(folder: Path) -> list[str]:
    from sparsify import SparseCoder, SparseCoderConfig

    kinds: dict[str, dict[str, Any]] = {
        "sae": {"num_latents": F},
        "expanded": {"expansion_factor": 4},
        "multi": {"num_latents": F, "multi_topk": True},
        "unequal": {"num_latents": F, "normalize_decoder": False},
        "bfloat16": {"num_latents": F},
        "transcoder": {"num_latents": F, "transcode": True},
        "skip": {"num_latents": F, "transcode": True, "skip_connection": True},
    }
    for kind, more in kinds.items():
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        sae = SparseCoder(D, SparseCoderConfig(k=K, **more), dtype=dtype)
        stir(sae)
        if sae.cfg.normalize_decoder and not sae.cfg.transcode:
            sae.set_decoder_norm_to_unit_norm()
        sae.save_to_disk(folder / kind / "layers.2.mlp")
        (folder / kind / "config.json").write_text('{"model": "gpt2"}')
    return list(kinds)


def make_dictionary_learning(folder: Path) -> list[str]:
    from dictionary_learning import trainers
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer

    names = ("StandardTrainer", "GatedSAETrainer", "TopKTrainer", "BatchTopKTrainer", "JumpReluTrainer")
    kinds = {name: getattr(trainers, name) for name in names} | {"Matryoshka": MatryoshkaBatchTopKTrainer}
    for kind, made in kinds.items():
        more: dict[str, Any] = {"k": K} if "TopK" in made.__name__ else {}
        more |= {"group_fractions": [0.5, 0.5]} if kind == "Matryoshka" else {}
        about = {"steps": 5000, "activation_dim": D, "dict_size": F, "layer": 3, "lm_name": "gpt2", "device": "cpu"}
        trainer = made(**about, **more, warmup_steps=10, submodule_name="resid_post_layer_3")
        stir(trainer.ae)
        if "Batch" in made.__name__:
            trainer.ae.threshold.fill_(0.3)
        (folder / kind).mkdir(parents=True)
        torch.save(trainer.ae.state_dict(), folder / kind / "ae.pt")
        config = {"trainer": trainer.config, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128}}
        (folder / kind / "config.json").write_text(json.dumps(config))
    return list(kinds)


LOAD = {"saelens": with_saelens, "sparsify": with_sparsify, "dictionary-learning": with_dictionary_learning}
MAKE = {"saelens": make_saelens, "sparsify": make_sparsify, "dictionary-learning": make_dictionary_learning}


def run(folder: str, code: str) -> tuple[torch.Tensor, Any, Any]:
    os.chdir(folder)
    said: dict[str, Any] = {}
    exec(code, said)
    return said["x"], dense(said["latents"], getattr(said["sae"], "num_latents", 0)), said["rebuilt"]


def keep(found: dict[str, Any], to: Path) -> None:
    save_file({name: one.detach().contiguous() for name, one in found.items()}, to)


@torch.no_grad()
def main(library: str, act: str, *paths: str) -> None:
    if act == "make":
        folder = Path(paths[0])
        kinds = MAKE[library](folder)
        for kind in kinds:
            (place,) = (folder / kind).rglob("layers.*") if library == "sparsify" else (folder / kind,)
            z, rebuilt = LOAD[library](str(place), random())
            keep({"x": random(), "z": z, "rebuilt": rebuilt}, folder / f"{kind}.safetensors")
        print(json.dumps(kinds))
        return
    asked, x, answers = json.loads(Path(paths[0]).read_text()), load_file(paths[1])["x"], {}
    for number, folder in enumerate(asked.get("read", ())):
        z, rebuilt = LOAD[library](folder, x)
        answers |= {f"{number}.x": x.clone(), f"{number}.z": z, f"{number}.rebuilt": rebuilt}
    for number, one in enumerate(asked.get("run", ())):
        drawn, z, rebuilt = run(one["folder"], one["code"])
        answers |= {f"{number}.x": drawn, f"{number}.z": z, f"{number}.rebuilt": rebuilt}
    keep(answers, Path(paths[2]))


if __name__ == "__main__":
    main(*sys.argv[1:])
