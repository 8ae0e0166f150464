"""Every tensor that some computation makes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Made(TorchDispatchMode):
    """Within it, ``tensors`` gathers what operations give, views too."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        each = made if isinstance(made, (tuple, list)) else [made]
        self.tensors += [one for one in each if isinstance(one, Tensor)]
        return made

    @property
    def largest(self) -> int:
        """How many numbers the largest has."""
        return max(one.numel() for one in self.tensors)
