"""TransformerLens' hook names on Hugging Face modules: capture and edit through one function, ``hooked``.

In a block: ``resid_post = resid_pre + attn_out + mlp_out``. ``attn_out`` and ``mlp_out`` are what is added to the
residual stream, so Gemma 2 and 3 give them after their post-norms. Hooks that fall on the same module run in the order
in which they were set: a capture sees the edits made before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mistudiod.facts import FAMILIES, UnknownModel, find_hook, hook_place, parse_hook

Args = tuple[Any, ...]
HookFn = Callable[[Tensor], Tensor | None]  # (B, T, width) → what replaces it, or None to leave it


@contextmanager
def hooked(model: nn.Module, functions: Mapping[str, HookFn]) -> Iterator[None]:
    """Run ``functions[hook](x)`` wherever a forward pass comes by ``hook``; x is (B, T, width).

    What a function returns takes the place of x (cast to x's dtype); None leaves x as it is. Nests, and is undone on
    the way out. ``model`` is a Hugging Face model with or without its head. While generating with a KV cache, T is
    1 after the prompt. Raises UnknownHook, UnknownModel, and ValueError when a function returns another shape.
    """
    with ExitStack() as handles:
        for hook, function in functions.items():
            handles.enter_context(_attach(model, hook, function))
        yield


@contextmanager
def capture(model: nn.Module, hooks: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Keep the values at ``hooks`` of the latest forward pass: a dict from name to (B, T, width)."""
    values: dict[str, Tensor] = {}
    with hooked(model, {hook: _keeper(values, hook) for hook in hooks}):
        yield values


def layers_needed(hook: str) -> int:
    """How many of the first blocks must run for the value at ``hook``; raises UnknownHook.

    A block's ``hook_resid_pre`` is the output of the block before it; block 0 is needed for its own.
    """
    layer, point = parse_hook(hook)
    return max(layer, 1) if point == "hook_resid_pre" else layer + 1


@contextmanager
def only_first(model: nn.Module, n: int) -> Iterator[None]:
    """Let ``model`` skip all blocks but the first ``n``; not for use by several threads at once."""
    base, name = cast(nn.Module, model.base_model), FAMILIES[_family(model)].blocks
    blocks = getattr(base, name)
    setattr(base, name, blocks[:n])
    try:
        yield
    finally:
        setattr(base, name, blocks)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The blocks of a model with or without its head, in order; raises UnknownModel."""
    blocks: nn.ModuleList = getattr(model.base_model, FAMILIES[_family(model)].blocks)  # its own base without a head
    return blocks


def _family(model: nn.Module) -> str:
    family = getattr(getattr(model, "config", None), "model_type", None)
    if family not in FAMILIES:
        raise UnknownModel(f"{family!r} is not a known type of model: the known types are {', '.join(FAMILIES)}")
    return str(family)


def _attach(model: nn.Module, hook: str, function: HookFn) -> RemovableHandle:
    family, blocks = _family(model), blocks_of(model)
    layer, point = find_hook(hook, len(blocks))
    place = hook_place(family, point)
    module = blocks[layer].get_submodule(place.module)
    if place.side == "in":
        return module.register_forward_pre_hook(_on_input(hook, function), with_kwargs=True)
    return module.register_forward_hook(_on_output(hook, function))


def _on_input(hook: str, function: HookFn) -> Callable[..., tuple[Args, dict[str, Any]]]:
    def run(_module: nn.Module, args: Args, kwargs: dict[str, Any]) -> tuple[Args, dict[str, Any]]:
        if args:
            return (_apply(hook, function, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": _apply(hook, function, kwargs["hidden_states"])}

    return run


def _on_output(hook: str, function: HookFn) -> Callable[..., Tensor | Args]:
    def run(_module: nn.Module, _args: Args, output: Tensor | Args) -> Tensor | Args:
        if isinstance(output, tuple):
            return (_apply(hook, function, output[0]), *output[1:])
        return _apply(hook, function, output)

    return run


def _apply(hook: str, function: HookFn, x: Tensor) -> Tensor:
    new = function(x)
    if new is None:
        return x
    if new.shape != x.shape:
        raise ValueError(f"the function at {hook} returned the shape {tuple(new.shape)} for {tuple(x.shape)}")
    return new.to(x.dtype)


def _keeper(values: dict[str, Tensor], hook: str) -> HookFn:
    def keep(x: Tensor) -> None:
        values[hook] = x

    return keep
