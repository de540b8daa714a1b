"""Kahneman-Tversky optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rayrlhf.config import Config


@dataclass(frozen=True)
class AnswerLosses:
    """What a loss says of b answers."""

    loss: Tensor  # [b]
    rewards: Tensor  # [b], implicit rewards, without gradient


class KTO(Config):
    """λ_D (1 − σ(r̂ − z)) for a desirable answer and λ_U (1 − σ(z − r̂)) for an undesirable one (Ethayarajh et al. 2024,
    eqs. 7 and 8), r̂ = β (log π(y|x) − log π_ref(y|x)) and z = β KL(π || π_ref) the point of reference.

    The KL is estimated as in the paper, by answers to other prompts. Deviations: answers are put to other prompts once
    for a data set, and not anew in each micro-batch, so that the reference scores them once; and the mean is over the
    whole optimizer step, so that neither micro-batches nor ranks change the loss.
    """

    reads: ClassVar[Literal["labeled_answers"]] = "labeled_answers"
    needs_reference: ClassVar[bool] = True

    kind: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """How strongly the policy is held to the reference; smaller lets it go further away."""
    desirable_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """λ_D. The paper advises weights that make up for unequal numbers of labels: λ_D n_D / (λ_U n_U) from 1 to 4/3."""
    undesirable_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """λ_U."""

    def evaluate(self, log_ratios: Tensor, desirable: Tensor, kl: float) -> AnswerLosses:
        """Losses and implicit rewards of b answers.

        log_ratios: [b], Σ (log π − log π_ref) over each answer's tokens; desirable: [b] bool; kl: from `kl`.
        """
        good = desirable.to(log_ratios)
        weight = good * self.desirable_weight + (1 - good) * self.undesirable_weight
        value = (2 * good - 1) * self.beta * (log_ratios - kl)
        loss = weight * torch.sigmoid(-value)  # 1 − σ(x) = σ(−x)
        return AnswerLosses(loss, self.beta * log_ratios.detach())

    @staticmethod
    def kl(log_ratios: Tensor) -> float:
        """A step's KL from [n], Σ (log π − log π_ref) of answers to other prompts: their mean, or 0 if negative."""
        return max(0.0, float(log_ratios.detach().mean()))
