"""Weights read from safetensors files one at a time, when they are wanted and where they lie: nothing else is read.

A mapped file would be read ahead into the memory beside the wanted tensors, its pages would count twice while they
are converted, and a file cut short meanwhile would end the process with a bus error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch
from torch import Tensor

from mistudiod.facts import Stored, UnknownModel, read_weights

_TYPES = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16}
_TYPES |= {"I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64}
_TYPES |= {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_MOST_BYTES = 1 << 30  # the kernel reads no more than 2 GiB at once


@dataclass(frozen=True)
class LazyTensor:
    """What transformers takes for a tensor of a state dict: ``tensor[...]`` reads it."""

    stored: Stored

    def __getitem__(self, _all: EllipsisType) -> Tensor:
        data = torch.empty(self.stored.size_bytes, dtype=torch.uint8)
        _read(self.stored, memoryview(data.numpy()))
        return data.view(_TYPES[self.stored.dtype]).reshape(self.stored.shape)

    def get_dtype(self) -> str:
        return self.stored.dtype

    def get_shape(self) -> list[int]:
        return list(self.stored.shape)


def lazy_weights(folder: Path) -> dict[str, LazyTensor]:
    """Every tensor of the model in ``folder``, unread; raises UnknownModel."""
    return {name: LazyTensor(stored) for name, stored in read_weights(folder)[1].items()}


def _read(stored: Stored, into: memoryview) -> None:
    file = os.open(stored.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # What is wanted, all at once; without it the kernel reads ahead far into neighbours that are not.
        os.posix_fadvise(file, stored.start, stored.size_bytes, os.POSIX_FADV_WILLNEED)
        done = 0
        while done < stored.size_bytes:
            n = os.preadv(file, [into[done : done + _MOST_BYTES]], stored.start + done)
            if n == 0:
                raise UnknownModel(f"{stored.file} was cut short while it was read")
            done += n
    finally:
        os.close(file)
