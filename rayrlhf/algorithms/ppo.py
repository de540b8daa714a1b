"""Proximal policy optimisation for language models (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

Deviations from the papers: the KL penalty is a per-token reward (Ziegler et al. 2019, section 2.2) and the score is
placed on the last response token; advantages are whitened over the whole step; losses are token means over the whole
optimizer step, so that they do not depend on micro-batches or ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from rayrlhf.config import Config
from rayrlhf.functional import (
    KL_ESTIMATORS,
    TokenLogprobs,
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    masked_mean,
    masked_sum,
    masked_whiten,
)
from rayrlhf.types import Batch, FloatArray, Rollouts

Loss = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class TokenTensors:
    """What a loss reads of a micro-batch, all [B, T]."""

    mask: Tensor
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


class PPO(Config):
    """Settings of PPO, and its pure methods."""

    kind: Literal["ppo"] = "ppo"
    gamma: float = Field(default=1.0, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    cliprange: PositiveFloat = 0.2
    cliprange_value: PositiveFloat = 0.2
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the entropy bonus."""
    kl_coef: NonNegativeFloat = 0.05
    """Weight of the KL penalty; where the adaptive controller starts."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_target: PositiveFloat | None = None
    """KL per response, in nats, that an adaptive coefficient steers to; null keeps `kl_coef` fixed."""
    kl_horizon: PositiveInt = 10_000
    """Responses over which the adaptive coefficient moves."""
    missing_eos_penalty: NonNegativeFloat | None = None
    """Taken off the score of a response that was cut at the length limit."""
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    num_epochs: PositiveInt = 4
    """Passes over a step's rollouts."""
    minibatch_size: PositiveInt = 64
    """Samples of one optimizer step, over all ranks."""

    def assign_credit(
        self,
        rollouts: Rollouts,
        scores: FloatArray,
        ref_logprobs: FloatArray,
        old_logprobs: FloatArray,
        values: FloatArray,
        kl_coef: float,
    ) -> tuple[Batch, dict[str, float]]:
        """Scores and log-probabilities of a step → advantages and returns.

        scores: [B]; ref_logprobs, old_logprobs, values: [B, T]. Returns the batch and the step's metrics.
        """
        mask = torch.from_numpy(rollouts.response_mask)
        log_ratio = torch.from_numpy(old_logprobs - ref_logprobs)  # log π_old − log π_ref
        kl = torch.where(mask, KL_ESTIMATORS[self.kl_estimator](log_ratio), 0.0)
        final_scores: FloatArray = np.array(scores, dtype=np.float32)
        if self.missing_eos_penalty is not None:
            final_scores = final_scores - self.missing_eos_penalty * ~rollouts.finished
        rewards = -kl_coef * kl
        rewards[torch.arange(len(rollouts)), torch.from_numpy(rollouts.lengths - 1).long()] += torch.from_numpy(
            final_scores
        )
        reward_sums = rewards.sum(1)
        if self.whiten_rewards:
            rewards = masked_whiten(rewards, mask, shift_mean=False)
        old_values = torch.where(mask, torch.from_numpy(np.array(values)), 0.0)
        advantages, returns = gae(rewards, old_values, mask, self.gamma, self.lam)
        returns_mean = masked_mean(returns, mask)
        residual = masked_mean((returns - old_values) ** 2, mask)
        spread = masked_mean((returns - returns_mean) ** 2, mask)
        if self.whiten_advantages:
            advantages = masked_whiten(advantages, mask)
        metrics = {
            "reward/score_mean": float(np.mean(scores)),
            "reward/score_std": float(np.std(scores)),
            "reward/with_kl_mean": float(reward_sums.mean()),
            "kl/sequence_mean": float(torch.where(mask, log_ratio, 0.0).sum(1).mean()),
            "kl/token_mean": float(masked_mean(log_ratio, mask)),
            "kl/coef": kl_coef,
            "value/mean": float(masked_mean(old_values, mask)),
            "value/explained_variance": float(1 - residual / spread.clamp(min=1e-8)),
            "length/mean": float(rollouts.response_lengths.mean()),
            "length/finished_share": float(rollouts.finished.mean()),
        }
        batch = Batch(rollouts, old_logprobs, old_values.numpy(), advantages.numpy(), returns.numpy())
        return batch, metrics

    def policy_loss(self, new: TokenLogprobs, data: TokenTensors, num_tokens: int) -> Loss:
        """Clipped surrogate and entropy bonus of a micro-batch, over `num_tokens` of the whole optimizer step."""
        surrogate = clipped_policy_loss(new.logprobs, data.old_logprobs, data.advantages, self.cliprange)
        policy = masked_sum(surrogate.loss, data.mask) / num_tokens
        assert new.entropy is not None, "the policy's loss needs the entropy"
        entropy = masked_sum(new.entropy, data.mask) / num_tokens
        log_ratio = (new.logprobs - data.old_logprobs).detach()
        loss = policy - self.entropy_coef * entropy if self.entropy_coef else policy
        return loss, {
            "policy/loss": policy,
            "policy/entropy": entropy,
            "policy/clip_share": masked_sum(surrogate.clipped.float(), data.mask) / num_tokens,
            "policy/ratio_mean": masked_sum(torch.exp(log_ratio), data.mask) / num_tokens,
            "policy/approx_kl": masked_sum(0.5 * log_ratio**2, data.mask) / num_tokens,
        }

    def value_loss(self, values: Tensor, data: TokenTensors, num_tokens: int) -> Loss:
        """Clipped squared error of a micro-batch, over `num_tokens` of the whole optimizer step."""
        error = clipped_value_loss(values, data.old_values, data.returns, self.cliprange_value)
        loss = masked_sum(error.loss, data.mask) / num_tokens
        return loss, {
            "value/loss": loss,
            "value/clip_share": masked_sum(error.clipped.float(), data.mask) / num_tokens,
        }

    def next_kl_coef(self, kl_coef: float, kl: float, num_samples: int) -> float:
        """The coefficient after a step with mean KL `kl` per response (Ziegler et al. 2019, section 2.2, eq. 4–5)."""
        if self.kl_target is None or not math.isfinite(kl):
            return kl_coef
        error = min(max(kl / self.kl_target - 1, -0.2), 0.2)
        return kl_coef * (1 + error * min(1.0, num_samples / self.kl_horizon))
