"""Losses that train a policy on preference pairs directly, without a reward model.

What an answer is worth is the policy's own opinion of it: r̂ = β (log π(y|x) − log π_ref(y|x)), the reward under which
π would be optimal at KL weight β (Rafailov et al. 2023, eq. 5). Tensors of pairs are [2, b]: chosen, then rejected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from rayrlhf.config import Config, short_form
from rayrlhf.functional import pairwise_loss


@dataclass(frozen=True)
class PairLosses:
    """What a loss says of b pairs."""

    loss: Tensor  # [b]
    rewards: Tensor  # [2, b], implicit rewards of chosen and rejected answers, without gradient


class _PairLoss(Config, ABC):
    """What losses on pairs have in common."""

    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """How strongly the policy is held to the reference; smaller lets it go further away."""
    sft_coef: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the chosen answer's negative log-likelihood per token, which keeps its probability from falling
    together with the rejected one's (RPO; Pang et al. 2024, eq. 1)."""

    def evaluate(self, logprobs: Tensor, ref_logprobs: Tensor, lengths: Tensor) -> PairLosses:
        """Losses and implicit rewards of b pairs.

        logprobs, ref_logprobs: [2, b], Σ log π and Σ log π_ref over each answer's tokens; lengths: [2, b], how many.
        """
        ratios = self.log_ratios(logprobs - ref_logprobs, lengths)
        loss = self.pair_loss(ratios[0], ratios[1])
        if self.sft_coef:
            loss = loss - self.sft_coef * logprobs[0] / lengths[0]
        return PairLosses(loss, self.beta * ratios.detach())

    def log_ratios(self, sums: Tensor, lengths: Tensor) -> Tensor:
        """What the loss compares, from Σ (log π − log π_ref) and the numbers of tokens; all [2, b]."""
        return sums

    @abstractmethod
    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss of each pair from its two log-ratios; all [b]."""


class DPO(_PairLoss):
    """−log σ(r̂_chosen − r̂_rejected) (Rafailov et al. 2023, eq. 7), smoothed for labels that may be wrong."""

    kind: Literal["dpo"] = "dpo"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of pairs thought to be labelled the wrong way round (conservative DPO; Mitchell 2023, eq. 3)."""

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        chosen, rejected = self.beta * chosen, self.beta * rejected
        loss = pairwise_loss(chosen, rejected)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * pairwise_loss(rejected, chosen)
        return loss


class IPO(_PairLoss):
    """(h − 1/(2β))², h the difference of the log-ratios (Azar et al. 2023, eq. 17, whose τ is β here).

    Deviation from the paper: log-ratios are means over an answer's tokens. Equation 17 has whole answers and says
    nothing of tokens; with sums, the same β would ask less of each token the longer the answers are. Its authors
    have since recommended the mean, and others that have IPO use it, so β keeps the size people know.
    """

    kind: Literal["ipo"] = "ipo"

    def log_ratios(self, sums: Tensor, lengths: Tensor) -> Tensor:
        return sums / lengths

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return (chosen - rejected - 1 / (2 * self.beta)) ** 2


PreferenceLoss = Annotated[Annotated[DPO | IPO, Field(discriminator="kind")], short_form(kind="dpo")]
"""The union of losses. `loss: ipo` is short for `loss: {kind: ipo}`, and without a kind it is `dpo`."""
