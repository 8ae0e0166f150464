"""Run by the interpreter that has sae-lens: load SAE folders with SAELens and write down what it computes.

    python saelens_check.py INPUTS OUTPUTS FOLDER...

INPUTS holds for each folder, under its number, x (tokens, d_in) and y (tokens, d_out); OUTPUTS gets z (tokens, d_sae),
the reconstruction (tokens, d_out), and what was read of its config, with the explained variance of y.
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file

BATCH = 100  # tokens that the explained variance takes in at a time


def main(inputs: str, outputs: str, *folders: str) -> None:
    from sae_lens import SAE, __version__
    from sae_lens.evals import ExplainedVarianceCalculator

    given = load_file(inputs)
    tensors, read = {}, []
    for number, folder in enumerate(folders):
        x, y = given[f"{number}.x"], given[f"{number}.y"]
        sae, variance = SAE.load_from_disk(folder, device="cpu"), ExplainedVarianceCalculator()
        with torch.no_grad():
            rebuilt = sae(x)
            tensors |= {f"{number}.z": sae.encode(x), f"{number}.rebuilt": rebuilt}
        for one, other in zip(rebuilt.split(BATCH), y.split(BATCH)):
            variance.add_batch(one, other)
        tensors[f"{number}.W_dec"] = sae.W_dec.detach()
        about = {"version": __version__, "architecture": sae.cfg.architecture()}
        about |= {"explained_variance": variance.compute()}
        about |= {name: getattr(sae.cfg, name, None) for name in ("d_in", "d_sae", "d_out", "k")}
        names = ("model_name", "hook_name", "hook_name_out", "prepend_bos", "context_size", "training_architecture")
        read.append(about | {name: sae.cfg.metadata[name] for name in names})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, outputs, {"read": json.dumps(read)})


if __name__ == "__main__":
    main(*sys.argv[1:])
