"""From scores and log-probabilities of a step to advantages: the frame that every algorithm fills in."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from rayrlhf.algorithms.policy_loss import Loss, PolicyLoss, TokenTensors
from rayrlhf.config import Config
from rayrlhf.functional import last_masked, masked_mean, masked_whiten
from rayrlhf.types import BoolArray, FloatArray, IntArray, Rollouts, StepSize, TrainBatch, unpad_rows


@dataclass(frozen=True)
class Baselines:
    """The greedy response to each rollout's prompt."""

    scores: FloatArray  # [B], raw
    lengths: IntArray  # [B], tokens of the response
    finished: BoolArray  # [B]

    def take(self, rows: IntArray) -> Baselines:
        """The given rows, in that order."""
        return Baselines(self.scores[rows], self.lengths[rows], self.finished[rows])


@dataclass(frozen=True)
class ScoredRollouts:
    """A step's rollouts with what the roles computed for them; None is what the algorithm does not need.

    Credit looks at the whole step at once, so per-token arrays are padded here: [B, T], right-padded.
    """

    rollouts: Rollouts
    scores: FloatArray  # [B], raw
    old_logprobs: FloatArray  # [B, T], log π_old
    max_response_tokens: int
    ref_logprobs: FloatArray | None = None  # [B, T], log π_ref
    values: FloatArray | None = None  # [B, T + 1], V(state before token t); index `length` is the state after the end
    baselines: Baselines | None = None
    step_scores: FloatArray | None = None  # [B, T], what single steps earned, at their last tokens; `scores` has it too
    moments: tuple[float, float] = (0.0, 1.0)
    """What is subtracted from scores and what they are then divided by, before anything else."""
    extras: Mapping[str, FloatArray] = field(
        default_factory=dict
    )  # outputs of further roles, [B], [B, T] or [B, T + 1]

    @cached_property
    def mask(self) -> Tensor:
        """[B, T] bool, True on the tokens that are trained on."""
        rollouts = self.rollouts
        return torch.from_numpy(rollouts.padded(rollouts.loss_mask, width=self.old_logprobs.shape[1]))

    @cached_property
    def last_token(self) -> Tensor:
        """[B] int64, the index of each row's last token that is trained on: where its score is placed."""
        return last_masked(self.mask)

    @property
    def groups(self) -> Tensor:
        """[B] int64: rollouts of one prompt have the same number."""
        return torch.from_numpy(np.unique(self.rollouts.prompt_ids, return_inverse=True)[1])

    def take(self, rows: IntArray) -> ScoredRollouts:
        """The given rows, in that order."""
        names = ("scores", "old_logprobs", "ref_logprobs", "values", "step_scores")
        arrays = {name: array[rows] for name in names if (array := getattr(self, name)) is not None}
        extras = {name: array[rows] for name, array in self.extras.items()}
        baselines = None if self.baselines is None else self.baselines.take(rows)
        return replace(self, rollouts=self.rollouts.take(rows), extras=extras, baselines=baselines, **arrays)

    @cached_property
    def log_ratio(self) -> Tensor | None:
        """[B, T] log π_old − log π_ref, 0 outside the mask; None without a reference."""
        if self.ref_logprobs is None:
            return None
        return torch.where(self.mask, torch.from_numpy(self.old_logprobs - self.ref_logprobs), 0.0)

    @property
    def mean_kl(self) -> float:
        """KL to the reference, nats per response; NaN without a reference."""
        return math.nan if self.log_ratio is None else float(self.log_ratio.sum(1).mean())


@dataclass(frozen=True)
class Credit:
    """What each token is worth; what concerns states is None without a critic."""

    advantages: Tensor  # [B, T]
    returns: Tensor | None = None  # [B, T + 1]
    values: Tensor | None = None  # [B, T + 1]
    value_mask: Tensor | None = None  # [B, T + 1] bool, the states whose values are learned
    loss_mask: Tensor | None = None  # [B, T] bool, the tokens that the policy learns, if they are not all


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


class DynamicSampling(Config):
    """Groups whose responses all earned the same teach nothing: sample others in their place (DAPO, section 3.2)."""

    max_rounds: PositiveInt = 3
    """Batches that a step samples, the first one included; after that it trains on what it has."""
    tolerance: NonNegativeFloat = 1e-6
    """Scores that differ by no more are the same."""


class Algorithm(PolicyLoss):
    """Settings that every algorithm has, and its pure methods. A subclass says what a token's advantage is."""

    needs_critic: ClassVar[bool] = False
    needs_greedy: ClassVar[bool] = False
    """Whether each prompt's greedy response is sampled and scored too."""
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
    mask_truncated: bool = False
    """Leave responses that were cut at the length limit out of the policy's loss; groups still compare with them (DAPO,
    section 3.4)."""

    @model_validator(mode="after")
    def _kl_target_can_be_reached(self) -> Self:
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target steers kl_coef by factors, and 0 stays 0: set kl_coef=0.05, or kl_target=null")
        return self

    @model_validator(mode="after")
    def _kl_reduction_is_of_rewards(self) -> Self:
        if self.kl_reduction == "mean" and self.kl_in == "loss":
            raise ValueError(
                "kl_reduction 'mean' divides a penalty in the reward, and with kl_in 'loss' aggregation says how "
                "tokens count: set kl_reduction=sum and aggregation=sequence_mean, or kl_in=reward"
            )
        return self

    @property
    def needs_reference(self) -> bool:
        return self.kl_coef > 0

    @property
    def first_policy_step(self) -> int:
        """The step in which the policy begins to learn."""
        return 0

    @property
    def resampling(self) -> DynamicSampling | None:
        """When a step samples other prompts in place of some of its own; None is never."""
        return None

    @abstractmethod
    def credit(self, rewards: Tensor, scored: ScoredRollouts, mask: Tensor) -> Credit:
        """Token rewards [B, T], 0 outside the mask, score and KL penalty included → the credit of each token."""

    def value_loss(self, values: Tensor, data: TokenTensors, size: StepSize) -> Loss:
        """The critic's loss of a micro-batch as its share of an optimizer step of `size`, and metrics that add up
        likewise. values: [B, T + 1], of the states in `data.value_mask`. An algorithm with `needs_critic` has one."""
        raise NotImplementedError(f"{type(self).__name__} trains no critic")

    def assign_credit(self, scored: ScoredRollouts, kl_coef: float) -> tuple[TrainBatch, dict[str, float]]:
        """A step's scores and log-probabilities → what the learners train on, and the step's metrics."""
        mask = scored.mask
        rewards = self.token_rewards(scored, mask, kl_coef)
        credit = self.credit(rewards, scored, mask)
        lengths = scored.rollouts.lengths
        learned = self._learned(scored.rollouts, credit)
        advantages = unpad_rows(torch.where(mask, credit.advantages, 0.0).numpy(), lengths)
        batch = TrainBatch(
            learned,
            unpad_rows(scored.old_logprobs, lengths),
            np.where(learned.loss_mask, advantages, np.zeros_like(advantages)),
            kl_coef,
            scored.max_response_tokens,
            unpad_rows(scored.ref_logprobs, lengths)
            if scored.ref_logprobs is not None and self.kl_in == "loss"
            else None,
            *(
                None if array is None else unpad_rows(array.numpy(), lengths + 1)
                for array in (credit.values, credit.returns, credit.value_mask)
            ),
        )
        return batch, self._metrics(scored, mask, rewards, credit, kl_coef)

    def _learned(self, rollouts: Rollouts, credit: Credit) -> Rollouts:
        """The rollouts with the mask of what the policy learns."""
        mask = rollouts.loss_mask
        if credit.loss_mask is not None:
            mask = unpad_rows(credit.loss_mask.numpy(), rollouts.lengths)
        if self.mask_truncated:
            mask = mask & np.repeat(rollouts.finished, rollouts.lengths)
        return replace(rollouts, loss_mask=mask)

    def token_rewards(self, scored: ScoredRollouts, mask: Tensor, kl_coef: float) -> Tensor:
        """[B, T]: the score on the last trained token, less what steps earned, which stands where they end; and, if the
        penalty is a reward, −kl_coef · KL on every token."""
        rewards = self.step_rewards(scored)
        if self.kl_in == "reward" and scored.log_ratio is not None:
            kl = self.token_kl(scored.log_ratio)
            if self.kl_reduction == "mean":
                kl = kl / mask.sum(1, keepdim=True)
            rewards = rewards - kl_coef * torch.where(mask, kl, 0.0)
        rewards[torch.arange(len(scored.rollouts)), scored.last_token] += self.last_rewards(scored)
        return rewards

    def step_rewards(self, scored: ScoredRollouts) -> Tensor:
        """[B, T]: what single steps earned, in the units of the final scores, at the tokens that end them."""
        if scored.step_scores is None:
            return torch.from_numpy(np.zeros_like(scored.old_logprobs))
        of_steps = torch.from_numpy((scored.step_scores / scored.moments[1]).astype(scored.old_logprobs.dtype))
        return torch.where(scored.mask, of_steps, 0.0)

    def last_rewards(self, scored: ScoredRollouts) -> Tensor:
        """[B]: what of the final scores no step earned."""
        return torch.from_numpy(self.final_scores(scored)) - self.step_rewards(scored).sum(1)

    def final_scores(self, scored: ScoredRollouts) -> FloatArray:
        """[B]: scores after normalization, clipping and penalties."""
        rollouts = scored.rollouts
        return self._final(scored, scored.scores, rollouts.response_lengths, rollouts.finished)

    def final_baselines(self, scored: ScoredRollouts) -> FloatArray:
        """[B]: the same of the greedy responses, so that one as good as the sampled one is worth as much."""
        assert scored.baselines is not None, "there are no greedy responses"
        return self._final(scored, scored.baselines.scores, scored.baselines.lengths, scored.baselines.finished)

    def _final(self, scored: ScoredRollouts, raw: FloatArray, lengths: IntArray, finished: BoolArray) -> FloatArray:
        dtype = scored.old_logprobs.dtype
        mean, deviation = scored.moments
        scores: FloatArray = (np.array(raw, dtype=dtype) - mean) / deviation
        if self.score_clip is not None:
            scores = scores.clip(-self.score_clip, self.score_clip)
        if self.missing_eos_penalty is not None:
            scores = scores - self.missing_eos_penalty * ~finished
        if self.overlong_penalty is not None:
            scores = scores - self.overlong_penalty.of(lengths, scored.max_response_tokens)
        return scores.astype(dtype)

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
        self, scored: ScoredRollouts, mask: Tensor, rewards: Tensor, credit: Credit, kl_coef: float
    ) -> dict[str, float]:
        scores, rollouts = scored.scores, scored.rollouts
        metrics = {
            "reward/score_mean": float(np.mean(scores)),
            "reward/score_std": float(np.std(scores)),
            "reward/with_kl_mean": float(rewards.sum(1).mean()),
            "reward/length_correlation": _correlation(scores, rollouts.response_lengths),
            "policy/advantage_std": float(torch.where(mask, credit.advantages, 0.0)[mask].std(unbiased=False)),
            "length/mean": float(rollouts.response_lengths.mean()),
            "length/finished_share": float(rollouts.finished.mean()),
        }
        if scored.log_ratio is not None:
            metrics["kl/sequence_mean"] = scored.mean_kl
            metrics["kl/token_mean"] = float(masked_mean(scored.log_ratio, mask))
            metrics["kl/coef"] = kl_coef
        if credit.values is not None and credit.returns is not None:
            values, returns = credit.values[:, :-1], credit.returns[:, :-1]
            residual = masked_mean((returns - values) ** 2, mask)
            spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
            metrics["value/mean"] = float(masked_mean(values, mask))
            metrics["value/explained_variance"] = float(1 - residual / spread.clamp(min=1e-8))
        return metrics


def _correlation(scores: FloatArray, lengths: FloatArray) -> float:
    """Pearson's, of score and length; 0 if one of them is constant."""
    if np.ptp(scores) == 0 or np.ptp(lengths) == 0:
        return 0.0
    return float(np.corrcoef(scores, lengths)[0, 1])
