"""Run by the interpreter that has dictionary-learning: load folders with it and write down what it computes.

inputs, outputs, folder…: ``x`` (tokens, d_in) gives ``number.z`` and ``number.rebuilt`` of each folder.
"""

from __future__ import annotations

import sys

import torch
from dictionary_learning.utils import load_dictionary
from safetensors.torch import load_file, save_file


def main(inputs: str, outputs: str, *folders: str) -> None:
    x, computed = load_file(inputs)["x"], {}
    for number, folder in enumerate(folders):
        dictionary, _ = load_dictionary(folder, "cpu")
        with torch.no_grad():
            z = dictionary.encode(x)
            computed[f"{number}.z"], computed[f"{number}.rebuilt"] = z.contiguous(), dictionary.decode(z).contiguous()
    save_file(computed, outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
