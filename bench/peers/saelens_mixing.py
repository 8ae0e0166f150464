"""Which windows meet in SAELens' batches: ``python saelens_mixing.py WINDOWS CONTEXT BATCH IN_BUFFER PROMPTS``.

Its own ``mixing_buffer`` is given numbers of windows in place of activations, ``PROMPTS`` windows at a time and in the
order of the data set, as ``ActivationsStore.get_data_loader`` does it. Prints one line of JSON for each batch.
"""

from __future__ import annotations

import json
import os
import sys

import torch
from sae_lens.training.mixing_buffer import mixing_buffer


def main() -> None:
    windows, context, batch, in_buffer, prompts = map(int, sys.argv[1:])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.manual_seed(0)
    parts = torch.arange(windows).repeat_interleave(context).split(prompts * context)
    try:
        for given in mixing_buffer(in_buffer * context, batch, iter(parts)):
            print(json.dumps(given.tolist()), file=answers)
    except ValueError as error:
        print(json.dumps(f"ValueError: {error}"), file=answers)


if __name__ == "__main__":
    main()
