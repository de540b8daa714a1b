"""Simple preference optimization."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rayrlhf.algorithms.preference.base import PairLoss, PairLosses
from rayrlhf.functional import pairwise_loss


class SimPO(PairLoss):
    """−log σ(r_chosen − r_rejected − γ), r = β log π(y|x) / |y| (Meng et al. 2024, eq. 6), without a reference."""

    needs_reference: ClassVar[bool] = False
    kind: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Scale of the reward: larger ones than DPO's, since a mean over tokens is small (the paper: 2 to 10)."""
    gamma: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """The difference of rewards that is aimed at (the paper: 0.3 to 1.6; TRL's `simpo_gamma`)."""

    def evaluate(self, logprobs: Tensor, ref_logprobs: Tensor | None, lengths: Tensor) -> PairLosses:
        rewards = self.beta * logprobs / lengths
        return PairLosses(pairwise_loss(rewards[0], rewards[1], self.gamma), rewards.detach())
