"""Where an SAE may have been meant to read that is said to read elsewhere, and the values there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from mistudiod.engine.lm import LM
from mistudiod.facts import FAMILIES, POINTS, ModelFacts, check_hook, parse_hook

UNNORMED = " before its norm"  # behind a hook's name: what goes into the norm whose output the hook gives


def near_hooks(facts: ModelFacts, hook: str) -> list[str]:
    """Where an SAE may have been meant to read that is said to read at ``hook``: at every other place of the block that
    is as wide, and at the same place a block before and behind; of a family with norms between a block's parts and the
    stream, in front of that norm. None is named twice: a block's output is the next one's input. Raises UnknownHook.
    """
    layer, point = parse_hook(hook)
    width = check_hook(facts, hook)
    near = [f"blocks.{layer}.{other}" for other in POINTS]
    near += [f"blocks.{other}.{point}" for other in (layer - 1, layer + 1) if 0 <= other < facts.n_layers]
    same = {
        "hook_resid_pre": f"blocks.{layer + 1}.hook_resid_pre",
        "hook_resid_post": f"blocks.{layer - 1}.hook_resid_post",
    }.get(point)
    near = [other for other in near if other not in (hook, same) and check_hook(facts, other) == width]
    normed = point in ("hook_mlp_out", "hook_attn_out") and FAMILIES[facts.family].post_normed
    return [*near, hook + UNNORMED] if normed else near


def values_at(lm: LM, ids: Tensor, hooks: Sequence[str]) -> list[Tensor]:
    """The values at hooks, as ``LM.activations_at``, of which some may be in front of a norm (``UNNORMED``)."""
    plain = list(dict.fromkeys(hook.removesuffix(UNNORMED) for hook in hooks))
    wanted = [hook for hook in hooks if hook.endswith(UNNORMED)]
    with _unnormed(lm, wanted) as found:
        values = dict(zip(plain, lm.activations_at(ids, plain), strict=True))
    return [{**values, **found}[hook] for hook in hooks]


@contextmanager
def _unnormed(lm: LM, hooks: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    family, values = FAMILIES[lm.facts.family], {}

    def keep(hook: str) -> Callable[..., None]:
        def heard(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            values[hook] = output[0] if isinstance(output, tuple) else output

        return heard

    with ExitStack() as stack:
        for hook in hooks:
            layer, point = parse_hook(hook.removesuffix(UNNORMED))
            block = getattr(lm.model.base_model, family.blocks)[layer]
            part = block.get_submodule(family.attention if point == "hook_attn_out" else "mlp")
            handle = part.register_forward_hook(keep(hook))
            stack.callback(handle.remove)
        yield values
