"""Adam with clipped gradients, one pass over memory where there is native code: it also gives decoder rows unit norm.

The same arithmetic as ``torch.optim.Adam(fused=True)``, whose state it keeps, and which does the work elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mistudiod.engine import native
from mistudiod.engine.architectures import TrainingSae
from mistudiod.engine.architectures.step import StepResult

BETAS, EPS = (0.9, 0.999), 6.25e-10  # Gao et al. 2024, appendix A: the gradients of rare latents are tiny
SILENT = ("W_enc_T", "W_dec")  # whose rows StepResult.silent speaks of


class Adam(torch.optim.Adam):
    def __init__(self, sae: TrainingSae, lr: float) -> None:
        super().__init__(sae.params.values(), lr=lr, betas=BETAS, eps=EPS, fused=True)
        self._sae = sae
        self._library = native.library() if sae.params["W_dec"].device.type == "cpu" else None

    @torch.no_grad()
    def update(self, result: StepResult, lr: float) -> None:
        """One step with ``result``'s gradients, clipped to ``clip_norm``; then ``after_step``."""
        if self._library is None:
            self._update_by_torch(result.grads, result.norm, lr)
            self._sae.after_step()
            return
        most = self._sae.clip_norm
        clip = most / max(float(result.norm), most)  # not a number where the norm is none
        for name, parameter in self._sae.params.items():
            self._update_natively(self._library, name, parameter, result, clip, lr)
        self._sae.after_step(rows_are_unit=True)

    def _update_by_torch(self, grads: Mapping[str, Tensor], norm: Tensor, lr: float) -> None:
        for name, parameter in self._sae.params.items():
            parameter.grad = grads[name]
        self.param_groups[0]["lr"] = lr
        # The fused kernel divides the gradients by grad_scale as it reads them: clipping without a pass or a wait.
        self.grad_scale = (norm / self._sae.clip_norm).clamp(min=1.0)
        self.step()

    def _update_natively(
        self, library: native.Library, name: str, parameter: Tensor, result: StepResult, clip: float, lr: float
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = native.in_large_pages(torch.zeros_like(parameter))
        state["step"] += 1
        steps = int(state["step"])
        rows = len(parameter) if parameter.dim() > 1 else 1
        memory = parameter, result.grads[name], state["exp_avg"], state["exp_avg_sq"], rows, parameter.numel() // rows
        silent = result.silent if name in SILENT else None
        rates = lr, *BETAS, *(1 - beta**steps for beta in BETAS), EPS
        library.call("adam", *memory, silent, clip, *rates, int(name == "W_dec"))
