"""Run by the interpreter that has sae-lens: load an SAE folder with SAELens and write down what it computes.

    python saelens_check.py FOLDER INPUTS OUTPUTS

INPUTS holds x (tokens, d_in); OUTPUTS gets z (tokens, d_sae), x_hat (tokens, d_in), and the metadata that was read.
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file


def main(folder: str, inputs: str, outputs: str) -> None:
    from sae_lens import SAE, __version__

    sae = SAE.load_from_disk(folder, device="cpu")
    x = load_file(inputs)["x"]
    with torch.no_grad():
        z = sae.encode(x)
        x_hat = sae.decode(z)
        forward = sae(x)
    read = {
        "version": __version__,
        "architecture": sae.cfg.architecture(),
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "k": sae.cfg.k,
        **{name: sae.cfg.metadata[name] for name in ("model_name", "hook_name", "prepend_bos", "context_size")},
    }
    tensors = {"z": z, "x_hat": x_hat, "forward": forward, "W_dec": sae.W_dec.detach()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, outputs, {"read": json.dumps(read)})


if __name__ == "__main__":
    main(*sys.argv[1:])
