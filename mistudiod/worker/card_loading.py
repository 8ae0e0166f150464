"""The part of a card that says how an SAE is loaded: code that runs in the folder of the card."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from mistudiod.engine.formats import write_gemma_scope_npz, write_sparsify
from mistudiod.engine.formats.writers import lacks
from mistudiod.worker.shared import Shared

_SAELENS = """\
import torch
from sae_lens import SAE

sae = SAE.load_from_disk("{at}")
x = torch.randn(4, sae.cfg.d_in)  # activations at {hook}
latents = sae.encode(x)
rebuilt = sae(x)"""
_SPARSIFY = """\
import torch
from sparsify import SparseCoder

sae = SparseCoder.load_from_disk("{at}")
x = torch.randn(4, sae.d_in)  # activations at {hook}
latents = sae.encode(x)  # of each token the k largest: top_acts, top_indices
rebuilt = sae(x).sae_out"""
_DICTIONARY_LEARNING = """\
import torch
from dictionary_learning.utils import load_dictionary

sae, config = load_dictionary("{at}", "cpu")
x = torch.randn(4, config["trainer"]["activation_dim"])  # activations at {hook}
latents = sae.encode(x)
rebuilt = sae.decode(latents)"""
_NPZ = """\
import numpy as np

w = np.load("{at}")
x = np.random.randn(4, w["W_enc"].shape[0]).astype(np.float32)  # activations at {hook}
pre = x @ w["W_enc"] + w["b_enc"]
latents = np.maximum(pre, 0) * (pre > w["threshold"])
rebuilt = latents @ w["W_dec"] + w["b_dec"]"""
_LIBRARIES = {  # layout → its name, its code, the file or folder in a folder of it
    "saelens": ("SAELens", _SAELENS),
    "sparsify": ("sparsify", _SPARSIFY),
    "dictionary_learning": ("dictionary\\_learning", _DICTIONARY_LEARNING),
    "gemma_scope_npz": ("numpy", _NPZ),
}


def loading(shared: Shared, layout: str) -> str:
    """For each library code that runs here, or what has to be written first; and how miStudio takes it in."""
    others = [one for one in ("saelens", "sparsify", "dictionary_learning") if one != layout]
    parts = [_block(shared, layout, "."), *(_otherwise(shared, one) for one in others)]
    more = " --allow-pickle" if layout == "dictionary_learning" else ""
    if layout == "gemma_scope_npz":  # says neither
        more += f" --hook {as_code(shared.about.hook)} --model {as_code(str(shared.model.get('name') or 'MODEL'))}"
    parts.append(f"### miStudio\n\n```bash\nmistudio sae add . --name {shared.name}{more}\n```")
    return "\n\n".join(parts)


def _otherwise(shared: Shared, layout: str) -> str:
    name = _LIBRARIES[layout][0]
    if why := lacks(layout, shared.sae):
        return f"### {name}\n\nNot for this SAE: {why}."
    folder = f"{shared.name}-{layout}"
    export = f"```bash\nmistudio sae export {shared.name} --format {layout} --to {folder}\n```"
    title, _, code = _block(shared, layout, folder).partition("\n\n")
    return f"{title}\n\nWritten by the studio that has it:\n\n{export}\n\n{code}"


def _block(shared: Shared, layout: str, folder: str) -> str:
    name, code = _LIBRARIES[layout]
    place = _PLACES.get(layout, lambda _: "")(shared)
    at = str(PurePosixPath(folder, place))
    return f"### {name}\n\n```python\n{code.format(at=at, hook=as_code(shared.about.hook))}\n```"


_PLACES: dict[str, Callable[[Shared], str]] = {
    "sparsify": lambda shared: write_sparsify.module(shared.sae, shared.about)[0],
    "gemma_scope_npz": lambda shared: str(write_gemma_scope_npz.place(shared.sae.d_sae, shared.about) / "params.npz"),
}


def as_code(text: str) -> str:
    """A hook's name, from wherever it came, so that it is nothing else in code."""
    return re.sub(r"[^A-Za-z0-9._-]", "", text)[:200]
