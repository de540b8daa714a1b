"""Proximal policy optimisation for language models (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

Deviations from the papers: the KL penalty is a per-token reward (Ziegler et al. 2019, section 2.2) and the score is
placed on the last response token; advantages are whitened over the whole step; losses are token means over the whole
optimizer step, so that they do not depend on micro-batches or ranks.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from rayrlhf.algorithms.base import Algorithm, Credit, Judged
from rayrlhf.algorithms.policy_loss import Loss, TokenTensors, token_weights
from rayrlhf.functional import gae, masked_sum, masked_whiten
from rayrlhf.types import StepSize


class PPO(Algorithm):
    """PPO with a critic and generalised advantage estimation."""

    needs_critic: ClassVar[bool] = True

    kind: Literal["ppo"] = "ppo"
    gamma: float = Field(default=1.0, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    cliprange_value: PositiveFloat | None = 0.2
    """How far a value may move from its old one before the loss ignores the move; null does not clip."""
    vf_coef: PositiveFloat = 1.0
    """Weight of the value loss. The critic has an optimizer of its own, so this matters to its gradient clip only."""
    critic_warmup_steps: NonNegativeInt = 0
    """First steps in which the critic learns and the policy waits."""
    num_epochs: PositiveInt = 4
    """Passes over a step's rollouts."""

    @property
    def first_policy_step(self) -> int:
        return self.critic_warmup_steps

    def credit(self, rewards: Tensor, judged: Judged, mask: Tensor) -> Credit:
        assert judged.values is not None, "PPO needs the critic's values"
        if self.whiten_rewards:
            rewards = masked_whiten(rewards, mask, shift_mean=False)
        values = torch.where(mask, torch.from_numpy(judged.values.copy()), 0.0)
        advantages, returns = gae(rewards, values, mask, self.gamma, self.lam)
        if self.whiten_advantages:
            advantages = masked_whiten(advantages, mask)
        return Credit(advantages, returns, values)

    def value_loss(self, values: Tensor, data: TokenTensors, size: StepSize) -> Loss:
        """½ max((V − R)², (clip(V, V_old ± ε) − R)²) of a micro-batch, as its share of the optimizer step."""
        assert data.values is not None and data.returns is not None
        error = (values - data.returns) ** 2
        clipped = torch.zeros_like(data.mask)
        if self.cliprange_value is not None:
            near = data.values + (values - data.values).clamp(-self.cliprange_value, self.cliprange_value)
            near_error = (near - data.returns) ** 2
            clipped = near_error > error
            error = torch.maximum(error, near_error)
        weights = token_weights(self.aggregation, data.mask, size)
        loss = 0.5 * self.vf_coef * masked_sum(error * weights, data.mask)
        return loss, {
            "value/loss": loss,
            "value/clip_share": masked_sum(clipped.float(), data.mask) / size.num_tokens,
        }
