"""REINFORCE++ (Hu 2025): PPO's clip and per-token KL reward, no critic; advantages normalized over the whole step."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rayrlhf.algorithms.base import Algorithm, Credit, ScoredRollouts
from rayrlhf.algorithms.grpo import GroupAlgorithm
from rayrlhf.functional import KLEstimator, group_mean, returns_to_go


class ReinforcePP(Algorithm):
    """A_t = normalized Σ_{s ≥ t} γ^{s−t} r_s."""

    kind: Literal["reinforce_pp"] = "reinforce_pp"
    gamma: float = Field(default=1.0, ge=0, le=1)

    def credit(self, rewards: Tensor, scored: ScoredRollouts, mask: Tensor) -> Credit:
        return Credit(self.whiten(returns_to_go(rewards, mask, self.gamma), mask))


class ReinforcePPBaseline(GroupAlgorithm):
    """The group's mean is taken off first (section 3.3 there); the KL penalty is a term of the loss, with k2."""

    min_generations: ClassVar[int] = 2

    kind: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"
    kl_estimator: KLEstimator = "k2"
    kl_in: Literal["reward", "loss"] = "loss"

    def compare(self, totals: Tensor, groups: Tensor) -> Tensor:
        return totals - group_mean(totals, groups)

    def credit(self, rewards: Tensor, scored: ScoredRollouts, mask: Tensor) -> Credit:
        return Credit(self.whiten(super().credit(rewards, scored, mask).advantages, mask))
