"""Matryoshka (Bussmann et al. 2025, arXiv:2503.17547): a BatchTopK whose first latents rebuild x on their own too.

loss = mean over levels m of the FVU of f[:, :m] W_dec[:m] + b_dec, plus AuxK / 32. Latents of an early level are under
pressure to be general, those of a late one to add detail. Levels end at 1/32, 3/32, 7/32, 15/32 and all of d_sae.
"""

from __future__ import annotations

from mistudiod.engine.architectures.batchtopk import BatchTopK

SHARES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1)


class Matryoshka(BatchTopK):
    name = "matryoshka"

    def _levels(self) -> list[int]:
        return sorted({max(1, round(share * self.d_sae)) for share in SHARES})
