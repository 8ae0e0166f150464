"""What the tests of published layouts share: known weights, the plain rule of each kind of SAE, a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mistudiod.engine.formats import FolderListing, Imported, find, read
from mistudiod.engine.sae import SparseAutoencoder

D, F = 24, 96  # d_in and d_sae of every SAE here


def weights(seed: int = 0, d_in: int = D, d_out: int = D, unit: bool = False) -> dict[str, Tensor]:
    """W_enc (d_in, F), W_dec (F, d_out), b_enc, b_dec (d_out,), threshold (F,) above 0; nothing symmetrical in them."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(F, d_out, generator=generator)
    return {
        "W_enc": torch.randn(d_in, F, generator=generator),
        "W_dec": torch.nn.functional.normalize(W_dec) if unit else W_dec,
        "b_enc": torch.randn(F, generator=generator),
        "b_dec": torch.randn(d_out, generator=generator),
        "threshold": torch.rand(F, generator=generator) * 3,
    }


def inputs(d_in: int = D, tokens: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(tokens, d_in, generator=generator) * 3 + torch.randn(d_in, generator=generator)


def only_largest(pre: Tensor, k: int) -> Tensor:
    """ReLU of the k largest of each row, by sorting."""
    rank = pre.argsort(dim=1, descending=True).argsort(dim=1)
    return pre.relu() * (rank < k)


def write_folder(
    folder: Path,
    config: dict[str, object] | None,
    tensors: dict[str, Tensor],
    named: str = "cfg.json",
    weights: str = "sae_weights.safetensors",
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / named).write_text(json.dumps(config))
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / weights)


def only(path: Path) -> Imported:
    """What is read of a source that holds one SAE; of ``find`` no more than ``read`` confirms."""
    listing = FolderListing(path)
    (found,) = find(listing)
    imported = read(listing, found)
    assert found.width in (None, imported.sae.d_sae) and imported.found.width == imported.sae.d_sae
    return imported


def saved(imported: Imported, folder: Path) -> SparseAutoencoder:
    imported.sae.save(folder)
    return SparseAutoencoder.load(folder)


def close(ours: Tensor, reference: Tensor) -> None:
    """Equal to 1e-5 of the largest."""
    assert reference.abs().max() > 0
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5 * reference.abs().max().item())


def same_everywhere(imported: Imported, x: Tensor, z: Tensor, rebuilt: Tensor, folder: Path) -> None:
    """Latents as the format's rule has them, and what is rebuilt, as it was read and after it was saved.

    Saving may multiply each latent by the norm of its row, so there it is the products that stay.
    """
    sae = imported.sae
    close(sae.encode(x), z)
    close(sae.decode(sae.encode(x), x), rebuilt)
    again = saved(imported, folder)
    close(again.decode(again.encode(x), x), rebuilt)
    assert torch.equal(again.encode(x) > 0, sae.encode(x) > 0)
