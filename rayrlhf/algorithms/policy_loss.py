"""The policy's loss: what all algorithms share once every token has its advantage.

A loss is a weighted sum over tokens, and the weights are those of the whole optimizer step: so neither micro-batches
nor ranks nor padding change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from rayrlhf.config import Config
from rayrlhf.functional import KL_ESTIMATORS, KLEstimator, TokenLogprobs, masked_sum, sequence_mean
from rayrlhf.types import StepSize

Loss: TypeAlias = tuple[Tensor, dict[str, Tensor]]
Aggregation: TypeAlias = Literal["token_mean", "sequence_mean", "fixed_length"]
Range: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class TokenTensors:
    """What a loss reads of a micro-batch, [B, T] unless stated; None is what the algorithm does not need."""

    mask: Tensor
    old_logprobs: Tensor
    engine_logprobs: Tensor
    advantages: Tensor
    ref_logprobs: Tensor | None = None
    values: Tensor | None = None  # [B, T + 1], as in `TrainBatch`
    returns: Tensor | None = None  # [B, T + 1]
    value_mask: Tensor | None = None  # [B, T + 1]


class ImportanceCorrection(Config):
    """Weights for samples of a slightly different distribution than the learner's: π_old / π_sampler.

    Truncated: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training". `truncate`,
    `mask` and `sequence_mask` at the level of tokens, with a floor, are OpenRLHF's `tis`, `icepop` and `seq-mask-tis`.
    """

    kind: Literal["truncate", "mask", "sequence_mask", "reject"] = "truncate"
    """`truncate` moves ratios beyond the bounds to them; with `mask` what is beyond them counts nothing. With
    `sequence_mask` tokens have their own ratio, unbounded, in responses whose geometric mean of ratios is within the
    bounds, and the other responses count nothing. `reject` weighs nothing: what is beyond the bounds is left out, and
    the rest counts as it is."""
    level: Literal["token", "sequence", "geometric"] = "token"
    """A ratio for each token, or one for the response: the product over its tokens, or their geometric mean, which does
    not grow with the length."""
    cap: PositiveFloat = 2.0
    """The upper bound."""
    floor: PositiveFloat | None = None
    """The lower bound; null is none."""

    @model_validator(mode="after")
    def _bounds_and_level_fit(self) -> Self:
        if self.floor is not None and self.floor > self.cap:
            raise ValueError(f"importance_correction.floor {self.floor:g} is above its cap {self.cap:g}: lower it")
        if self.kind == "sequence_mask" and self.level != "token":
            raise ValueError(
                "importance_correction.kind 'sequence_mask' leaves out whole responses and weighs the tokens of the "
                "others: set its level to token, or its kind to mask"
            )
        return self

    def weights(self, data: TokenTensors) -> Tensor:
        """[B, T], no gradient."""
        log_ratio = torch.where(data.mask, data.old_logprobs - data.engine_logprobs, 0.0)
        if self.level == "sequence":
            log_ratio = log_ratio.sum(1, keepdim=True).expand_as(log_ratio)
        elif self.level == "geometric":
            log_ratio = sequence_mean(log_ratio, data.mask).unsqueeze(1).expand_as(log_ratio)
        ratio = torch.exp(log_ratio)
        if self.kind == "truncate":
            return ratio.clamp(self.floor, self.cap)
        bounded = ratio
        if self.kind == "sequence_mask":
            bounded = torch.exp(sequence_mean(log_ratio, data.mask)).unsqueeze(1)
        weight = torch.ones_like(ratio) if self.kind == "reject" else ratio
        return torch.where((bounded >= (self.floor or 0.0)) & (bounded <= self.cap), weight, 0.0)


class PolicyLoss(Config):
    """Settings of the policy's loss."""

    objective: Literal["clip", "cispo"] = "clip"
    """`clip` is PPO's surrogate (Schulman et al. 2017, eq. 7). `cispo` weights log π by the ratio, cut at 1 + the upper
    clip range, so that every token keeps a gradient (MiniMax-M1, section 3.1). There is no lower bound: that paper
    imposed none in its runs and TRL has none; `cliprange` counts only where `cliprange_high` is not set."""
    ratio: Literal["token", "sequence"] = "token"
    """`sequence` uses the geometric mean of a response's ratios for each of its tokens (GSPO; Zheng et al. 2025,
    eq. 7); its clip ranges are some hundred times smaller."""
    cliprange: Range = 0.2
    cliprange_high: PositiveFloat | None = None
    """Upper clip range, if it is another one (clip-higher; DAPO, section 3.1)."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """For A < 0 the loss is at most this many times −A (Ye et al. 2020, eq. 5)."""
    max_log_ratio: PositiveFloat | None = None
    """Log-ratios are clamped to ± this before the exponential."""
    aggregation: Aggregation = "token_mean"
    """How tokens of an optimizer step become one loss: every token counts the same; every response counts the same; or
    the sum is divided by responses · `max_completion_length` (Dr.GRPO, section 3.1)."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the entropy bonus."""
    old_logprobs: Literal["learner", "sampler"] = "learner"
    """Whose log π_old the ratio is over: recomputed by the learner, or what the sampler reported as it sampled, which
    saves the learner a forward pass and has the sampler's rounding in every ratio."""
    importance_correction: ImportanceCorrection | None = None
    """Corrects for the difference between sampler and learner."""
    kl_coef: NonNegativeFloat = 0.05
    """Weight of the KL penalty; where the adaptive controller starts. 0 needs no reference."""
    kl_estimator: KLEstimator = "k1"
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the penalty stands: a reward of each token, or a term of the loss."""
    kl_clamp: PositiveFloat | Literal["auto"] | None = "auto"
    """Each token's KL is clamped to ± this; `auto` is 10 for k3, which grows exponentially, and no bound for others."""
    kl_ratio: bool = False
    """In the loss, weigh each token's KL by π / π_old: its gradient is then that of the KL itself, for k1 and k3 (as
    verl, NeMo-RL and TRL can)."""

    @model_validator(mode="after")
    def _kl_moves_the_policy(self) -> Self:
        if self.kl_in == "loss" and self.kl_estimator == "k1" and self.kl_coef and not self.kl_ratio:
            raise ValueError(
                "kl_in 'loss' with kl_estimator 'k1' has a gradient of 0 in expectation, so it would hold the policy "
                "nowhere: set kl_estimator=k3, or kl_ratio=true, or kl_in=reward"
            )
        if self.kl_ratio and self.kl_in == "reward":
            raise ValueError("kl_ratio weighs the KL in the loss: set kl_in=loss with it, or leave it out")
        return self

    @model_validator(mode="after")
    def _variants_fit(self) -> Self:
        if self.ratio == "sequence" and self.aggregation == "token_mean":
            raise ValueError(
                "ratio 'sequence' gives each response one ratio, and aggregation 'token_mean' would count long "
                "responses more (GSPO does not): set aggregation=sequence_mean"
            )
        if self.objective == "cispo" and self.dual_clip is not None:
            raise ValueError(
                "dual_clip bounds the clipped surrogate, which objective 'cispo' has not: set dual_clip=null"
            )
        return self

    @model_validator(mode="after")
    def _corrects_a_difference(self) -> Self:
        if self.old_logprobs == "sampler" and self.importance_correction is not None:
            raise ValueError(
                "importance_correction weighs by the learner's log-probabilities over the sampler's, but with "
                "old_logprobs 'sampler' there are no others: set old_logprobs=learner, or importance_correction=null"
            )
        return self

    def policy_loss(self, new: TokenLogprobs, data: TokenTensors, size: StepSize, kl_coef: float) -> Loss:
        """The loss of a micro-batch as its share of an optimizer step of `size`, and metrics that add up likewise."""
        log_ratio = self._log_ratio(new.logprobs, data)
        surrogate = self._surrogate(new.logprobs, log_ratio, data.advantages)
        weights = token_weights(self.aggregation, data.mask, size, new.logprobs.dtype)

        def mean(values: Tensor) -> Tensor:
            return masked_sum(values, data.mask) / size.num_tokens

        loss = surrogate.loss
        metrics: dict[str, Tensor] = {}
        if self.importance_correction is not None:
            correction = self.importance_correction.weights(data)
            loss = loss * correction
            metrics["policy/importance_weight_mean"] = mean(correction)
        policy = masked_sum(loss * weights, data.mask)
        total = policy
        if self.kl_in == "loss" and data.ref_logprobs is not None:
            kl = self.token_kl(new.logprobs - data.ref_logprobs)
            if self.kl_ratio:
                kl = kl * torch.exp(torch.where(data.mask, new.logprobs - data.old_logprobs, 0.0))
            penalty = masked_sum(kl * weights, data.mask)
            total = total + kl_coef * penalty
            metrics["policy/kl_loss"] = penalty
        assert new.entropy is not None, "the policy's loss needs the entropy"
        if self.entropy_coef:
            total = total - self.entropy_coef * masked_sum(new.entropy * weights, data.mask)
        difference = (new.logprobs - data.old_logprobs).detach()
        return total, metrics | {
            "policy/loss": policy,
            "policy/entropy": mean(new.entropy),
            "policy/clip_share": mean(surrogate.clipped.float()),
            "policy/ratio_mean": mean(torch.exp(difference)),
            "policy/approx_kl": mean(0.5 * difference**2),
        }

    def token_kl(self, log_ratio: Tensor) -> Tensor:
        """log π − log π_ref of tokens → the penalty of each, before its coefficient."""
        kl = KL_ESTIMATORS[self.kl_estimator](log_ratio)
        bound = (10.0 if self.kl_estimator == "k3" else None) if self.kl_clamp == "auto" else self.kl_clamp
        return kl if bound is None else kl.clamp(-bound, bound)

    def _log_ratio(self, logprobs: Tensor, data: TokenTensors) -> Tensor:
        log_ratio = torch.where(data.mask, logprobs - data.old_logprobs, 0.0)
        if self.ratio == "sequence":
            log_ratio = sequence_mean(log_ratio, data.mask).unsqueeze(1).expand_as(log_ratio)
        return log_ratio if self.max_log_ratio is None else log_ratio.clamp(-self.max_log_ratio, self.max_log_ratio)

    def _surrogate(self, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor) -> ClippedLoss:
        """Per token, [B, T]."""
        ratio = torch.exp(log_ratio)
        low, high = 1 - self.cliprange, 1 + (self.cliprange_high or self.cliprange)
        if self.objective == "cispo":
            return ClippedLoss(-advantages * ratio.clamp(max=high).detach() * logprobs, ratio > high)
        unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(low, high)
        loss = torch.maximum(unclipped, clipped)
        if self.dual_clip is not None:
            loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * self.dual_clip), loss)
        return ClippedLoss(loss, clipped > unclipped)


@dataclass(frozen=True)
class ClippedLoss:
    """A clipped loss, per token."""

    loss: Tensor  # [B, T]
    clipped: Tensor  # [B, T] bool: True where the clipped branch was the one taken


def token_weights(aggregation: Aggregation, mask: Tensor, size: StepSize, dtype: torch.dtype) -> Tensor:
    """What each token of a micro-batch counts in an optimizer step of `size`: [B, T], to be read inside the mask."""
    lengths = mask.sum(1, keepdim=True).clamp(min=1).to(dtype)
    divisors: dict[Aggregation, Tensor] = {
        "token_mean": torch.full_like(lengths, size.num_tokens),
        "sequence_mean": lengths * size.num_sequences,
        "fixed_length": torch.full_like(lengths, size.num_sequences * size.max_response_tokens),
    }
    return (1 / divisors[aggregation]).expand(mask.shape)
