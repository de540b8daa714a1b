"""Direct preference optimization."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from rayrlhf.algorithms.preference.base import LogRatioLoss
from rayrlhf.functional import pairwise_loss


class DPO(LogRatioLoss):
    """−log σ(r̂_chosen − r̂_rejected) (Rafailov et al. 2023, eq. 7), smoothed for labels that may be wrong."""

    kind: Literal["dpo"] = "dpo"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of pairs thought to be labeled the wrong way round (conservative DPO; Mitchell 2023, eq. 3)."""

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        chosen, rejected = self.beta * chosen, self.beta * rejected
        loss = pairwise_loss(chosen, rejected)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * pairwise_loss(rejected, chosen)
        return loss
