"""REINFORCE leave-one-out (Ahmadian et al. 2024, section 4; Kool et al. 2019)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rayrlhf.algorithms.grpo import GroupAlgorithm
from rayrlhf.functional import group_mean, group_size


class RLOO(GroupAlgorithm):
    """A = R − mean of the other responses to the prompt; R is the score less the KL penalty of the whole response."""

    kind: Literal["rloo"] = "rloo"

    def compare(self, totals: Tensor, groups: Tensor) -> Tensor:
        count = group_size(groups).to(totals.dtype)
        # R − (sum − R)/(n − 1) = (R − mean) · n/(n − 1); a response whose group was rejected around it has no baseline
        return (totals - group_mean(totals, groups)) * count / (count - 1).clamp(min=1)
