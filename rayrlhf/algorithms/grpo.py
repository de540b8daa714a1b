"""Group-relative policy optimisation: a response is as good as it is better than the others to the same prompt.

GRPO: Shao et al. 2024 (DeepSeekMath), section 4.1, with one optimizer step's aggregation over all its responses.
Dr.GRPO: Liu et al. 2025, "Understanding R1-Zero-like training", section 3: no division by the deviation or the length.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from rayrlhf.algorithms.base import Algorithm, Credit, Judged
from rayrlhf.algorithms.policy_loss import Aggregation
from rayrlhf.config import Config
from rayrlhf.functional import KLEstimator, group_mean, group_std


class DynamicSampling(Config):
    """Groups whose responses all earned the same teach nothing: draw others in their place (DAPO, section 3.2)."""

    max_rounds: PositiveInt = 3
    """How often a step draws, the first time included; after that it trains on what it has."""
    tolerance: NonNegativeFloat = 1e-6
    """Scores that differ by no more are the same."""


class GroupAlgorithm(Algorithm):
    """What algorithms that compare responses to one prompt have in common."""

    min_generations: ClassVar[int] = 2

    dynamic_sampling: DynamicSampling | None = None

    @property
    def draws_per_step(self) -> int:
        return self.dynamic_sampling.max_rounds if self.dynamic_sampling else 1


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

    def credit(self, rewards: Tensor, judged: Judged, mask: Tensor) -> Credit:
        total = rewards.sum(1)  # [B]
        advantages = total - group_mean(total, judged.groups)
        if self.scale_advantages == "group":
            advantages = advantages / (group_std(total, judged.groups) + self.std_epsilon)
        elif self.scale_advantages == "batch":
            advantages = advantages / (torch.std(total, unbiased=len(total) > 1) + self.std_epsilon)
        return Credit(advantages.unsqueeze(1).expand(mask.shape))


class GRPO(_GroupRelative):
    """A = (R − mean of the group) / its standard deviation."""

    kind: Literal["grpo"] = "grpo"


class DrGRPO(_GroupRelative):
    """GRPO done right: A = R − mean of the group, and a loss that no response's length divides."""

    kind: Literal["dr_grpo"] = "dr_grpo"
    scale_advantages: Literal["group", "batch", "none"] = "none"
    aggregation: Aggregation = "fixed_length"
    kl_coef: NonNegativeFloat = 0.0
