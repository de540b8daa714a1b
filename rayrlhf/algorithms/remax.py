"""ReMax (Li et al. 2024): REINFORCE whose baseline is the score of the greedy response to the same prompt."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rayrlhf.algorithms.base import Algorithm, Credit, ScoredRollouts
from rayrlhf.functional import returns_to_go


class ReMax(Algorithm):
    """A_t = Σ_{s ≥ t} r_s − r(x, greedy response), with the KL penalty among the token rewards r_s.

    Both scores go through the same normalization, clipping and penalties.
    """

    needs_greedy: ClassVar[bool] = True

    kind: Literal["remax"] = "remax"

    def credit(self, rewards: Tensor, scored: ScoredRollouts, mask: Tensor) -> Credit:
        baselines = torch.from_numpy(self.final_baselines(scored)).to(rewards.dtype)
        return Credit(returns_to_go(rewards, mask, gamma=1.0) - baselines.unsqueeze(1))
