"""Proximal policy optimization for language models (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

Deviations from the papers: the KL penalty is a per-token reward (Ziegler et al. 2019, section 2.2) and the score is
placed on the last response token; advantages are whitened over the whole step; losses are token means over the whole
optimizer step, so that they do not depend on micro-batches or ranks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import pad

from rayrlhf.algorithms.base import Algorithm, Credit, ScoredRollouts
from rayrlhf.algorithms.policy_loss import Loss, TokenTensors, token_weights
from rayrlhf.functional import gae, masked_sum, masked_whiten, sequence_mean
from rayrlhf.types import StepSize


class PPO(Algorithm):
    """PPO with a critic."""

    needs_critic: ClassVar[bool] = True

    kind: Literal["ppo"] = "ppo"
    advantage: Literal["gae", "sequence"] = "gae"
    """`sequence` has one advantage per response: its whole reward less the mean of its values (KoChatGPT)."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    length_adaptive_lam: PositiveFloat | None = None
    """α of λ = 1 − 1 / (α · tokens of the response) in the policy's advantages, in place of `lam`, so that a score
    reaches the first tokens of long responses too (VAPO; Yue et al. 2025, section 4.2; they took 0.05)."""
    critic_lam: Annotated[float, Field(ge=0, le=1)] | None = None
    """λ of the critic's returns (decoupled GAE; Yuan et al. 2025). Null is the policy's, or 1, as in VAPO, where that
    follows the length: returns of short responses would be nothing but the next value."""
    score_on: Literal["last_token", "next_state"] = "last_token"
    """Where the score stands. `next_state` is one later, on the state after the response, whose value then counts too;
    the step's longest responses have no such state and get it on their last token (TRL, DeepSpeed-Chat)."""
    learn_next_state: bool = False
    """Whether the value of that state is learned as well."""
    eos_is_pad: bool = False
    """A response's eos is no part of it but the state after it: the score stands there, and neither its probability nor
    its value is learned. What DeepSpeed-Chat does where the pad token is the eos token (OPT, Polyglot)."""
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

    @model_validator(mode="after")
    def _eos_can_be_pad(self) -> Self:
        if self.eos_is_pad and (self.score_on != "next_state" or self.learn_next_state or self.advantage != "gae"):
            raise ValueError(
                "eos_is_pad puts the score on the eos, as on a next state that is not learned: set "
                "score_on=next_state, learn_next_state=false and advantage=gae with it"
            )
        return self

    @model_validator(mode="after")
    def _lam_is_of_gae(self) -> Self:
        given = [name for name in ("length_adaptive_lam", "critic_lam") if getattr(self, name) is not None]
        if self.advantage == "sequence" and given:
            raise ValueError(
                f"{given[0]} is a λ of GAE, and advantage 'sequence' has none: set advantage=gae, or {given[0]}=null"
            )
        return self

    @property
    def first_policy_step(self) -> int:
        return self.critic_warmup_steps

    def credit(self, rewards: Tensor, scored: ScoredRollouts, mask: Tensor) -> Credit:
        assert scored.values is not None, "PPO needs the critic's values"
        states = pad(mask, (0, 1))
        if self.advantage == "sequence":
            return self._sequence_credit(rewards, torch.from_numpy(scored.values.copy()), states)
        loss_mask = self._without_eos(scored, mask) if self.eos_is_pad else mask
        rewards, learned = pad(rewards, (0, 1)), pad(loss_mask, (0, 1))
        if self.score_on == "next_state":
            rewards, states = self._move_scores(rewards, scored, states)
            learned = states if self.learn_next_state else learned
        if self.whiten_rewards:
            rewards = masked_whiten(rewards, states, shift_mean=False)
        values = torch.where(states, torch.from_numpy(scored.values.copy()), 0.0)
        lam = self.lam if self.length_adaptive_lam is None else self._lam_of(mask).to(values.dtype)
        advantages, returns = gae(rewards, values, states, self.gamma, lam)
        critic_lam = 1.0 if self.critic_lam is None and self.length_adaptive_lam is not None else self.critic_lam
        if critic_lam is not None:
            returns = gae(rewards, values, states, self.gamma, critic_lam)[1]
        advantages = advantages[:, :-1]
        if self.whiten_advantages:
            advantages = self.whiten(advantages, loss_mask)
        return Credit(advantages, returns, values, learned, loss_mask)

    def _lam_of(self, mask: Tensor) -> Tensor:
        """[B], each response's own λ."""
        assert self.length_adaptive_lam is not None
        return (1 - 1 / (self.length_adaptive_lam * mask.sum(1))).clamp(min=0)

    def _without_eos(self, scored: ScoredRollouts, mask: Tensor) -> Tensor:
        """[B, T] bool, `mask` without the last token of finished responses."""
        rows = torch.from_numpy(np.flatnonzero(scored.rollouts.finished))
        mask = mask.clone()
        mask[rows, scored.last_token[rows]] = False
        return mask

    def _move_scores(self, rewards: Tensor, scored: ScoredRollouts, states: Tensor) -> tuple[Tensor, Tensor]:
        """(rewards, states) with the scores of all but the longest responses one state later; those of steps stay."""
        last = scored.last_token
        response_lengths = scored.rollouts.response_lengths
        later = response_lengths < response_lengths.max()
        if self.eos_is_pad:
            later &= ~scored.rollouts.finished  # theirs stands on the eos, the last token
        rows = torch.from_numpy(np.flatnonzero(later))
        scores = self.last_rewards(scored)[rows]
        rewards, states = rewards.clone(), states.clone()
        rewards[rows, last[rows]] -= scores
        rewards[rows, last[rows] + 1] += scores
        states[rows, last[rows] + 1] = True
        return rewards, states

    def _sequence_credit(self, rewards: Tensor, values: Tensor, states: Tensor) -> Credit:
        returns = rewards.sum(1, keepdim=True)  # [B, 1]
        value = sequence_mean(values, states).unsqueeze(1)
        advantages = torch.where(states, returns - value, 0.0)[:, :-1]
        if self.whiten_advantages:
            advantages = self.whiten(advantages, states[:, :-1])
        kept = torch.where(states, values, 0.0)
        return Credit(advantages, torch.where(states, returns, 0.0), kept, states)

    def value_loss(self, values: Tensor, data: TokenTensors, size: StepSize) -> Loss:
        """½ max((V − R)², (clip(V, V_old ± ε) − R)²) of a micro-batch, as its share of the optimizer step.

        values: [B, T + 1]. With `advantage: sequence` V and V_old are the responses' means.
        """
        assert data.values is not None and data.returns is not None and data.value_mask is not None
        old, returns, mask = data.values, data.returns, data.value_mask
        if self.advantage == "sequence":
            values, old, returns = (sequence_mean(part, mask).unsqueeze(1) for part in (values, old, returns))
            weights, mask = torch.full_like(values, 1 / size.num_sequences), torch.ones_like(values, dtype=torch.bool)
        else:
            weights = token_weights(self.aggregation, mask, replace(size, num_tokens=size.num_states), values.dtype)
        error = (values - returns) ** 2
        clipped = torch.zeros_like(mask)
        if self.cliprange_value is not None:
            near = old + (values - old).clamp(-self.cliprange_value, self.cliprange_value)
            near_error = (near - returns) ** 2
            clipped = near_error > error
            error = torch.maximum(error, near_error)
        loss = 0.5 * self.vf_coef * masked_sum(error * weights, mask)
        count = size.num_sequences if self.advantage == "sequence" else size.num_states
        return loss, {"value/loss": loss, "value/clip_share": masked_sum(clipped.float(), mask) / count}
