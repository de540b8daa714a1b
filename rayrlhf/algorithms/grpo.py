"""Group-relative policy optimization: a response is as good as it is better than the others to the same prompt.

GRPO: Shao et al. 2024 (DeepSeekMath), section 4.1, with one optimizer step's aggregation over all its responses.
Dr.GRPO: Liu et al. 2025, "Understanding R1-Zero-like training", section 3: no division by the deviation or the length.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from rayrlhf.algorithms.base import Algorithm, Credit, DynamicSampling, ScoredRollouts
from rayrlhf.algorithms.policy_loss import Aggregation
from rayrlhf.functional import KLEstimator, group_mean, group_std, returns_to_go


class GroupAlgorithm(Algorithm):
    """What algorithms that compare responses to one prompt have in common."""

    min_generations: ClassVar[int] = 2

    dynamic_sampling: DynamicSampling | None = None
    baseline_of: Literal["return", "score"] = "return"
    """What is compared within a group: a response's whole reward, KL penalty included; or its score alone, and each
    token then pays the penalties from itself on (OpenRLHF). The same with `kl_in: loss`."""

    @property
    def resampling(self) -> DynamicSampling | None:
        return self.dynamic_sampling

    @abstractmethod
    def compare(self, totals: Tensor, groups: Tensor) -> Tensor:
        """What each response earned, [B], and its group's number → its advantage, [B]."""

    def credit(self, rewards: Tensor, scored: ScoredRollouts, mask: Tensor) -> Credit:
        if self.baseline_of == "return":
            return Credit(self.compare(rewards.sum(1), scored.groups).unsqueeze(1).expand(mask.shape))
        scores = torch.from_numpy(self.final_scores(scored))
        penalties = rewards.clone()
        penalties[torch.arange(len(scores)), scored.last_token] -= scores
        compared = self.compare(scores, scored.groups).unsqueeze(1)
        return Credit(compared + returns_to_go(penalties, mask, gamma=1.0))


class _GroupRelative(GroupAlgorithm):
    """A = (R − mean of the group) / a standard deviation."""

    scale_advantages: Literal["group", "batch", "none"] = "group"
    """Divide by the standard deviation (unbiased) of the group's rewards, of the step's, or not at all."""
    std_epsilon: PositiveFloat = 1e-4
    """Added to that deviation."""
    aggregation: Aggregation = "sequence_mean"
    kl_coef: NonNegativeFloat = 0.04
    kl_estimator: KLEstimator = "k3"
    kl_in: Literal["reward", "loss"] = "loss"

    def compare(self, totals: Tensor, groups: Tensor) -> Tensor:
        advantages = totals - group_mean(totals, groups)
        if self.scale_advantages == "group":
            return advantages / (group_std(totals, groups) + self.std_epsilon)
        if self.scale_advantages == "batch":
            return advantages / (torch.std(totals, unbiased=len(totals) > 1) + self.std_epsilon)
        return advantages


class GRPO(_GroupRelative):
    """A = (R − mean of the group) / its standard deviation."""

    kind: Literal["grpo"] = "grpo"


class DrGRPO(_GroupRelative):
    """GRPO done right: A = R − mean of the group, and a loss that no response's length divides."""

    kind: Literal["dr_grpo"] = "dr_grpo"
    scale_advantages: Literal["group", "batch", "none"] = "none"
    aggregation: Aggregation = "fixed_length"
    kl_coef: NonNegativeFloat = 0.0
