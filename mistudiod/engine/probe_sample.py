"""The tokens that probes are trained and tried on: activations, what fires on them, and the answers that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.by_document import LEAST_UNITS
from mistudiod.engine.encode import Encoder
from mistudiod.engine.harvest import Harvest, NoActivations
from mistudiod.engine.held_out import with_text
from mistudiod.engine.norms import normalized
from mistudiod.engine.probe_tasks import answers, letters, places
from mistudiod.engine.sae import SparseAutoencoder

TOKENS = 20_000  # at most
TRAIN_SHARE = 0.6  # of the tokens
LEAST_DOCUMENTS = 4 * LEAST_UNITS  # of fewer, too few would be in the test part: windows are parted instead
MOST_FIRING = 1_000  # latents on a token, mean: of more, the list of them would not fit into memory

Units = Callable[[NDArray[np.integer]], NDArray[np.integer]]  # of windows (n,) the document of each token (n, context)
Spell = Callable[[Sequence[int]], Sequence[bytes]]  # the bytes of each of some tokens


class NoSample(ValueError):
    """There is no text that counts, or so many latents fire that probes of a few make no sense."""


@dataclass(frozen=True)
class Sample:
    """Of n tokens, in order. ``unit``, document or window, is what train and test part have none of in common.

    Firing latents are a list by token: those of token t are ``latents[starts[t] : starts[t + 1]]``.
    """

    x: Tensor  # (n, d_in) bf16 on the CPU, as the model has it
    norm: str  # what the SAE does to it before it reads it
    starts: NDArray[np.int64]  # (n + 1,)
    latents: NDArray[np.int32]
    values: NDArray[np.float32]
    ids: NDArray[np.int64]  # (n,) of the tokens
    spelling: Mapping[int, bytes]  # of each of them
    answers: NDArray[np.int8]  # (n, tasks), as ``probe_tasks.answers``
    letters: NDArray[np.int8]  # (n,), as ``probe_tasks.letters``
    units: NDArray[np.int64]  # (n,), from 0 in the test part; -1 in the train part
    unit: str

    @property
    def train(self) -> NDArray[np.bool_]:
        return self.units < 0

    @property
    def test_units(self) -> int:
        return int(self.units.max(initial=-1)) + 1

    def activations(self, tokens: NDArray[np.integer]) -> Tensor:
        """As the SAE reads them: (tokens, d_in) float64."""
        return normalized(self.norm, self.x[torch.from_numpy(tokens)].float()).double()

    def columns(self, latents: NDArray[np.integer], tokens: NDArray[np.integer]) -> Tensor:
        """Activations of a few latents on some tokens: (tokens, latents) float64."""
        found = np.zeros((len(tokens), len(latents)))
        at, entries = self.entries(tokens)
        wanted = {int(one): n for n, one in enumerate(latents)}
        hit = np.flatnonzero(np.isin(self.latents[entries], latents))
        columns = np.array([wanted[int(one)] for one in self.latents[entries[hit]]], dtype=np.int64)
        found[at[hit], columns] = self.values[entries[hit]]
        return torch.from_numpy(found)

    def means(self, tokens: NDArray[np.integer], d_sae: int) -> NDArray[np.float64]:
        """Of every latent over some tokens: (d_sae,)."""
        entries = self.entries(tokens)[1]
        return np.bincount(self.latents[entries], self.values[entries], minlength=d_sae) / max(len(tokens), 1)

    def entries(self, tokens: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What fires on some tokens: of each entry which of ``tokens`` it is on, and where it is in the list."""
        counts = self.starts[tokens + 1] - self.starts[tokens]
        at = np.repeat(np.arange(len(tokens)), counts)
        first = np.repeat(self.starts[tokens] - np.cumsum(counts) + counts, counts)
        return at, first + np.arange(len(at))


def take(
    harvest: Harvest,
    numbers: NDArray[np.integer],
    columns: slice,
    sae: SparseAutoencoder,
    spell: Spell,
    documents: Units,
    heard: Callable[[int], None],
    tokens: int = TOKENS,
) -> Sample:
    """The tokens that count of some of the windows ``numbers``, drawn; ``columns`` of their activations.

    ``heard`` is told how many tokens have come. Raises NoSample, and NoActivations when activations are not finite.
    """
    encoder, context = Encoder(sae), harvest.windows.context
    chosen = np.asarray(with_text(harvest.windows, numbers, tokens)[0], dtype=np.int64)
    x, where, counts, latents, values = [], [], [], [], []
    came = fired = 0
    for block in harvest.blocks(chosen):
        harvest.commit()
        counting = ~harvest.beyond(block.values)
        read = block.values[counting][:, columns]
        if not read.isfinite().all():
            raise NoActivations("the model's activations are not all finite numbers")
        for firing in encoder.blocks(read.float()):
            counts.append(firing.counts)
            latents.append(firing.latents)
            values.append(firing.values)
            fired += len(firing.latents)
        x.append(read.cpu().clone())  # a view would keep the other columns
        where.append(block.where.numpy()[counting.cpu().numpy()])
        came += len(read)
        if fired > MOST_FIRING * came:
            raise NoSample(f"{fired / came:.0f} latents fire on a token; probes are for {MOST_FIRING} at most")
        heard(came)
    if not came:
        raise NoSample("the held-out text has no token that counts")
    places = np.concatenate(where)
    asked, first, ids, spelling = _read(harvest, chosen, places, spell)
    of = np.asarray(documents(chosen)).reshape(-1)[_at(chosen, places, context)]
    units, unit = parted(of, places // context)
    return Sample(
        x=torch.cat(x),
        norm=sae.norm,
        starts=np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64),
        latents=np.concatenate(latents),
        values=np.concatenate(values),
        ids=ids,
        spelling=spelling,
        answers=asked,
        letters=first,
        units=units,
        unit=unit,
    )


def _read(
    harvest: Harvest, chosen: NDArray[np.int64], where: NDArray[np.int64], spell: Spell
) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int64], dict[int, bytes]]:
    """Answers, letters and ids of the places ``where`` in the windows ``chosen``, and the spelling of all ids."""
    rows = harvest.windows.rows(chosen)
    known = np.unique(rows).tolist()
    spelling = dict(zip(known, spell(known), strict=True))
    of_windows = [(answers(some), letters(some)) for some in places(rows, harvest.windows.special_mask(rows), spelling)]
    at = _at(chosen, where, harvest.windows.context)
    asked, first = (np.concatenate(part)[at] for part in zip(*of_windows, strict=True))
    return asked, first, rows.reshape(-1)[at], spelling


def _at(chosen: NDArray[np.int64], where: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """Of places known as window x context + position, where they are in the windows ``chosen`` in a row."""
    return np.searchsorted(chosen, where // context) * context + where % context


def parted(documents: NDArray[np.integer], windows: NDArray[np.integer]) -> tuple[NDArray[np.int64], str]:
    """Of tokens, -1 for the train part and the number of its unit for the test part, and what a unit is.

    Drawn: units go to the train part until it has TRAIN_SHARE of the tokens.
    """
    unit = "document" if len(np.unique(documents)) >= LEAST_DOCUMENTS else "window"
    _, units, sizes = np.unique(documents if unit == "document" else windows, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    for_test = np.sort(order[before >= TRAIN_SHARE * len(units)])
    renumbered = np.full(len(sizes), -1, dtype=np.int64)
    renumbered[for_test] = np.arange(len(for_test))
    return renumbered[units.reshape(-1)], unit
