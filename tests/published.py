"""Reading a folder of a published layout in tests, and holding it to the layout's own rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.formats import FolderListing, Imported, find, pickles, read

D, F = 16, 40
TOKENS = 24


class Here(pickles.Converted):
    """Its pickles are converted in this process: the process of their own has tests of its own, and takes seconds."""

    def path(self, name: str) -> Path:
        if not name.endswith((".pt", ".pth")):
            return super().path(name)
        out = self._folder / "here.safetensors"
        pickles.write(self._listing.path(name), out)
        return out


def linear(name: str, rows: int, columns: int, seed: int) -> dict[str, Tensor]:
    """A linear map under torch's names, with a bias."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=random) / columns**0.5
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(rows, generator=random)}


def vector(size: int, seed: int) -> Tensor:
    return 0.1 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def inputs(scale: float = 1.0) -> Tensor:
    return scale * (torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(99)) + 0.3)


def imported(folder: Path, scratch: Path, path: str | None = None) -> Imported:
    """The only SAE of a folder, or the one at ``path``, pickles allowed."""
    scratch.mkdir(exist_ok=True)
    listing = FolderListing(folder)
    found = [one for one in find(listing) if path in (None, one.path)]
    assert len(found) == 1, found
    return read(Here(listing, scratch), found[0])


def assert_same(one: Imported, x: Tensor, latents: Tensor, rebuilt: Tensor, saved: Path | None = None) -> None:
    """As the layout's own rule has it, to 1e-5; and rebuilt so again when it was saved as SAELens' folder."""
    assert (latents > 0).any()
    torch.testing.assert_close(one.sae.encode(x), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.sae.decode(one.sae.encode(x), x), rebuilt, rtol=1e-5, atol=1e-5)
    values, which = one.sae.encode_active(x)
    torch.testing.assert_close(one.sae.decode_active(values, which, x), rebuilt, rtol=1e-5, atol=1e-5)
    if saved is not None:
        one.sae.save(saved)
        again = type(one.sae).load(saved)
        torch.testing.assert_close(again.decode(again.encode(x), x), rebuilt, rtol=1e-4, atol=1e-4)


def topk(pre: Tensor, k: int) -> Tensor:
    """The k largest of each row, then ReLU, by sorting."""
    kept = torch.zeros_like(pre)
    for row, values in enumerate(pre):
        for latent in values.argsort(descending=True)[:k].tolist():
            kept[row, latent] = max(values[latent].item(), 0.0)
    return kept


def turned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices the other way round."""
    return {name: one.t().contiguous() if one.ndim == 2 else one for name, one in state.items()}
