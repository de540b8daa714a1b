"""From scores and log-probabilities of a step to advantages: the frame that every algorithm fills in."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from rayrlhf.algorithms.policy_loss import PolicyLoss
from rayrlhf.config import Config
from rayrlhf.functional import masked_mean, masked_whiten
from rayrlhf.types import FloatArray, Rollouts, TrainBatch


@dataclass(frozen=True)
class ScoredRollouts:
    """A step's rollouts with all that was said of them; None is what the algorithm does not need."""

    rollouts: Rollouts
    scores: FloatArray  # [B]
    old_logprobs: FloatArray  # [B, T], log π_old
    max_response_tokens: int
    ref_logprobs: FloatArray | None = None  # [B, T], log π_ref
    values: FloatArray | None = None  # [B, T + 1], V(state before token t); index `length` is the state after the end
    baselines: FloatArray | None = None  # [B], score of the greedy response to the same prompt

    @property
    def mask(self) -> Tensor:
        """[B, T] bool, True on response tokens."""
        return torch.from_numpy(self.rollouts.response_mask)

    @property
    def groups(self) -> Tensor:
        """[B] int64: rollouts of one prompt have the same number."""
        return torch.from_numpy(np.unique(self.rollouts.prompt_ids, return_inverse=True)[1])


@dataclass(frozen=True)
class Credit:
    """What each token is worth; what concerns states is None without a critic."""

    advantages: Tensor  # [B, T]
    returns: Tensor | None = None  # [B, T + 1]
    values: Tensor | None = None  # [B, T + 1]
    value_mask: Tensor | None = None  # [B, T + 1] bool, the states whose values are learnt


class OverlongPenalty(Config):
    """A penalty that grows over the last tokens before the limit (DAPO, section 3.4, eq. 13)."""

    buffer_tokens: PositiveInt
    """The penalty begins at `max_completion_length` less this."""
    factor: PositiveFloat = 1.0
    """What a response that fills the limit pays."""

    def of(self, lengths: FloatArray, max_response_tokens: int) -> FloatArray:
        """[B] lengths in tokens → [B] penalties in [0, factor]."""
        excess = lengths - (max_response_tokens - self.buffer_tokens)
        penalties: FloatArray = self.factor * np.clip(excess / self.buffer_tokens, 0, 1)
        return penalties


class Algorithm(PolicyLoss):
    """Settings that every algorithm has, and its pure methods. A subclass says what a token's advantage is."""

    needs_critic: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False
    """Whether each prompt's greedy response is drawn and scored too."""
    min_generations: ClassVar[int] = 1
    """Responses per prompt that it takes to compare them."""

    num_epochs: PositiveInt = 1
    """Passes over a step's rollouts."""
    minibatch_size: PositiveInt = 64
    """Samples of one optimizer step, over all ranks."""
    kl_target: PositiveFloat | None = None
    """KL per response, in nats, that an adaptive coefficient steers to; null keeps `kl_coef` fixed."""
    kl_horizon: PositiveInt = 10_000
    """Responses over which the adaptive coefficient moves."""
    score_clip: PositiveFloat | None = None
    """Scores are clipped to ± this."""
    normalize_scores: bool = False
    """Subtract the mean of all scores so far and divide by their standard deviation."""
    kl_reduction: Literal["sum", "mean"] = "sum"
    """A penalty in the reward is each token's KL, or that divided by the response's length: their sum is the mean."""
    whiten_variance: Literal["unbiased", "biased"] = "unbiased"
    """Where advantages are whitened over the step: divide squares by N − 1 or by N."""
    missing_eos_penalty: NonNegativeFloat | None = None
    """Taken off the score of a response that was cut at the length limit."""
    overlong_penalty: OverlongPenalty | None = None
    """Taken off the score of a response that comes near the length limit."""

    @property
    def needs_reference(self) -> bool:
        return self.kl_coef > 0

    @property
    def first_policy_step(self) -> int:
        """The step in which the policy begins to learn."""
        return 0

    @property
    def draws_per_step(self) -> int:
        """How often a step draws prompts at most."""
        return 1

    @abstractmethod
    def credit(self, rewards: Tensor, judged: ScoredRollouts, mask: Tensor) -> Credit:
        """Token rewards [B, T], 0 outside the mask, score and KL penalty included → the credit of each token."""

    def assign_credit(self, judged: ScoredRollouts, kl_coef: float) -> tuple[TrainBatch, dict[str, float]]:
        """A step's scores and log-probabilities → what the learners train on, and the step's metrics."""
        mask = judged.mask
        rewards = self.token_rewards(judged, mask, kl_coef)
        credit = self.credit(rewards, judged, mask)
        batch = TrainBatch(
            judged.rollouts,
            judged.old_logprobs,
            torch.where(mask, credit.advantages, 0.0).numpy(),
            kl_coef,
            judged.max_response_tokens,
            judged.ref_logprobs if self.kl_in == "loss" else None,
            *(None if array is None else array.numpy() for array in (credit.values, credit.returns, credit.value_mask)),
        )
        return batch, self._metrics(judged, mask, rewards, credit, kl_coef)

    def token_rewards(self, judged: ScoredRollouts, mask: Tensor, kl_coef: float) -> Tensor:
        """[B, T]: the score on the last response token and, if the penalty is a reward, −kl_coef · KL on every one."""
        rewards = torch.zeros(mask.shape, dtype=torch.from_numpy(judged.old_logprobs[:0].copy()).dtype)
        if self.kl_in == "reward" and judged.ref_logprobs is not None:
            kl = self.token_kl(_log_ratio(judged))
            if self.kl_reduction == "mean":
                kl = kl / mask.sum(1, keepdim=True)
            rewards -= kl_coef * torch.where(mask, kl, 0.0)
        last = torch.from_numpy(judged.rollouts.lengths - 1).long()
        rewards[torch.arange(len(judged.rollouts)), last] += torch.from_numpy(self.final_scores(judged))
        return rewards

    def final_scores(self, judged: ScoredRollouts) -> FloatArray:
        """[B]: scores after clipping and penalties."""
        rollouts = judged.rollouts
        scores: FloatArray = np.array(judged.scores, dtype=judged.old_logprobs.dtype)
        if self.score_clip is not None:
            scores = scores.clip(-self.score_clip, self.score_clip)
        if self.missing_eos_penalty is not None:
            scores = scores - self.missing_eos_penalty * ~rollouts.finished
        if self.overlong_penalty is not None:
            scores = scores - self.overlong_penalty.of(rollouts.response_lengths, judged.max_response_tokens)
        return scores.astype(judged.old_logprobs.dtype)

    def whiten(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """[B, T], to mean 0 and variance 1 over the step's response tokens."""
        return masked_whiten(advantages, mask, biased=self.whiten_variance == "biased")

    def next_kl_coef(self, kl_coef: float, kl: float, num_samples: int) -> float:
        """The coefficient after a step with mean KL `kl` per response (Ziegler et al. 2019, section 2.2, eq. 4–5)."""
        if self.kl_target is None or not math.isfinite(kl):
            return kl_coef
        error = min(max(kl / self.kl_target - 1, -0.2), 0.2)
        return kl_coef * (1 + error * min(1.0, num_samples / self.kl_horizon))

    def _metrics(
        self, judged: ScoredRollouts, mask: Tensor, rewards: Tensor, credit: Credit, kl_coef: float
    ) -> dict[str, float]:
        scores, rollouts = judged.scores, judged.rollouts
        metrics = {
            "reward/score_mean": float(np.mean(scores)),
            "reward/score_std": float(np.std(scores)),
            "reward/with_kl_mean": float(rewards.sum(1).mean()),
            "reward/length_correlation": _correlation(scores, rollouts.response_lengths),
            "policy/advantage_std": float(torch.where(mask, credit.advantages, 0.0)[mask].std(unbiased=False)),
            "length/mean": float(rollouts.response_lengths.mean()),
            "length/finished_share": float(rollouts.finished.mean()),
        }
        if judged.ref_logprobs is not None:
            log_ratio = torch.where(mask, _log_ratio(judged), 0.0)
            metrics["kl/sequence_mean"] = float(log_ratio.sum(1).mean())
            metrics["kl/token_mean"] = float(masked_mean(log_ratio, mask))
            metrics["kl/coef"] = kl_coef
        if credit.values is not None and credit.returns is not None:
            values, returns = credit.values[:, :-1], credit.returns[:, :-1]
            residual = masked_mean((returns - values) ** 2, mask)
            spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
            metrics["value/mean"] = float(masked_mean(values, mask))
            metrics["value/explained_variance"] = float(1 - residual / spread.clamp(min=1e-8))
        return metrics


def _log_ratio(judged: ScoredRollouts) -> Tensor:
    """log π_old − log π_ref, [B, T]."""
    assert judged.ref_logprobs is not None
    return torch.from_numpy(judged.old_logprobs - judged.ref_logprobs)


def _correlation(scores: FloatArray, lengths: FloatArray) -> float:
    """Pearson's, of score and length; 0 if one of them is constant."""
    if np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return 0.0
    return float(np.corrcoef(scores, lengths)[0, 1])
