"""The precisions in which a model can be loaded, and which of them work on a device: found out by using them.

That a library can be imported proves nothing: one that was built for another GPU fails at its first kernel.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import sys
from collections.abc import Iterator
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from mistudiod.facts import FAMILIES, PRECISIONS
from mistudiod.oom import classify

# Of all that is not quantised, and of what is captured.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPES |= {"int8": torch.bfloat16, "nf4": torch.bfloat16}
_HEADS = sorted({family.head.removesuffix(".weight") for family in FAMILIES.values()})
_OLDEST = (0, 50)  # of bitsandbytes
_MOST_WRONG = {"fp32": 1e-4, "bf16": 0.02, "fp16": 0.005, "int8": 0.05, "nf4": 0.15}  # of a product, relative
# What a library can raise that is not there, too old, or built for another machine.
_FAILURES = (ImportError, OSError, RuntimeError, AssertionError, ArithmeticError, LookupError, AttributeError)
_FAILURES += (TypeError, ValueError)


class NoPrecision(ValueError):
    """The precision does not work on the device, said in one sentence."""


def capabilities(device: str | torch.device) -> dict[str, str | None]:
    """Of every precision why it does not work on ``device``; None when it does. Asked once a process."""
    return {precision: why_not(precision, device) for precision in PRECISIONS}


def why_not(precision: str, device: str | torch.device) -> str | None:
    """Why ``precision`` does not work on ``device``, in one sentence; None when it does. Asked once a process.

    Raises whatever says that memory ran out: a full GPU says nothing about the precision. A kernel of bitsandbytes that
    fails on a GPU may end the process instead.
    """
    return _tried(precision, str(torch.device(device)))


def check_precision(precision: str, device: str | torch.device) -> None:
    """Raises NoPrecision when ``precision`` does not work on ``device``."""
    if reason := why_not(precision, device):
        raise NoPrecision(reason)


def quantization_config(precision: str, keep: list[str] | None = None) -> BitsAndBytesConfig | None:
    """What transformers must be told for ``precision``; None when nothing is quantised.

    ``keep`` are modules that stay as they are, besides the head. The head is named because transformers would find it
    by itself only in a model that is whole.
    """
    skip = [*_HEADS, *(keep or [])]
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    if precision == "nf4":  # transformers' own defaults are fp4 and float32
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=skip,
        )
    return None


def as_packed(model: nn.Module) -> None:
    """Let the 4-bit layers of ``model`` keep their weights as they were packed.

    On a CPU with AVX512-BF16 they would be packed anew at the first pass: that fails for widths that are no multiple
    of 32, drops gradients without a word, and makes what is captured depend on the machine. With any AVX512 its code
    takes a block to begin with every row: where rows are no whole blocks they are unpacked as a single one.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            packing = module.weight.quant_state
            if module.weight.device.type == "cpu" and packing.shape[-1] % packing.blocksize:
                module.forward = partial(_product, module)


def _product(layer: nn.Module, x: Tensor) -> Tensor:
    """What a 4-bit layer computes, with its weights unpacked as one long row."""
    packing = layer.weight.quant_state
    row = copy.copy(packing)
    row.shape = torch.Size([packing.shape.numel()])
    weight = bitsandbytes().functional.dequantize_4bit(layer.weight.data, row).view(packing.shape)
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    return nn.functional.linear(x.to(layer.compute_dtype), weight.to(layer.compute_dtype), bias).to(x.dtype)


def stamp(precision: str) -> dict[str, str | None]:
    """What to write beside anything made from activations: an SAE of another precision is another SAE."""
    quantised = quantization_config(precision) is not None
    return {
        "precision": precision,
        "compute_dtype": str(DTYPES[precision]).removeprefix("torch."),
        "bitsandbytes": bitsandbytes().__version__ if quantised else None,
    }


@cache
def bitsandbytes() -> Any:
    """The library, imported so that it fetches nothing; raises ImportError.

    On a CPU with AVX512-BF16 it asks the package ``kernels``, where that is installed, for native code from the Hub.
    """
    for name in ("bitsandbytes", "transformers.integrations.bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a line for every layer at its first pass
    with _without("kernels"):
        library = importlib.import_module("bitsandbytes")
    version = tuple(int(part) for part in library.__version__.split(".")[:2])
    if version < _OLDEST:
        raise ImportError(f"bitsandbytes {library.__version__} is too old: install 0.50 or newer")
    return library


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    """Let the package ``name`` seem absent to what is imported meanwhile."""
    hidden: dict[str, ModuleType | None] = {name: sys.modules.get(name)}
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update({key: module for key, module in hidden.items() if module is not None})


@cache
def _tried(precision: str, device: str) -> str | None:
    try:
        wrong = _error(precision, torch.device(device))
    except ModuleNotFoundError as error:
        return f"{precision} needs the Python package {error.name}: run pip install 'mistudio[worker]'"
    except _FAILURES as error:
        if classify(f"{type(error).__name__}: {error}"):
            raise
        said = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        return f"{precision} does not work on {device}: {said}"
    if not wrong <= _MOST_WRONG[precision]:
        return f"{precision} does not work on {device}: a product came out {wrong:.2g} wrong"
    return None


@torch.no_grad()
def _error(precision: str, device: torch.device) -> float:
    """How wrong a small product is: |x - exact| / |exact|."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(16, 96, generator=generator),
        torch.randn(48, 96, generator=generator),
    )  # neither a multiple of 32 nor whole blocks of 64
    exact = x @ weight.T
    layer = _layer(precision, weight).to(device).eval()
    as_packed(layer)
    product: Tensor = layer(x.to(device, DTYPES[precision])).float().cpu()
    return float((product - exact).norm() / exact.norm())


def _layer(precision: str, weight: Tensor) -> nn.Module:
    """A linear layer without a bias, not yet on its device: bitsandbytes quantises on the way there."""
    outs, ins = weight.shape
    if precision == "int8":
        layer = bitsandbytes().nn.Linear8bitLt(ins, outs, bias=False, has_fp16_weights=False, threshold=6.0)
        layer.weight = bitsandbytes().nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    elif precision == "nf4":
        importlib.import_module("accelerate")  # transformers quantises with nothing less
        layer = bitsandbytes().nn.Linear4bit(ins, outs, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        layer.weight = bitsandbytes().nn.Params4bit(weight.bfloat16(), requires_grad=False, quant_type="nf4")
    else:
        layer = nn.Linear(ins, outs, bias=False, dtype=DTYPES[precision])
        layer.weight = nn.Parameter(weight.to(DTYPES[precision]), requires_grad=False)
    return layer
