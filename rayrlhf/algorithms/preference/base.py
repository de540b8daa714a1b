"""What losses on pairs have in common. Tensors of pairs are [2, b]: chosen, then rejected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rayrlhf.config import Config


@dataclass(frozen=True)
class PairLosses:
    """What a loss says of b pairs."""

    loss: Tensor  # [b]
    rewards: Tensor  # [2, b], implicit rewards of chosen and rejected answers, without gradient


class PairLoss(Config, ABC):
    """A loss on pairs."""

    reads: ClassVar[Literal["preferences"]] = "preferences"
    """The kind of records it learns from."""
    needs_reference: ClassVar[bool]
    """Whether it compares the policy with a frozen reference."""

    kind: str

    @abstractmethod
    def evaluate(self, logprobs: Tensor, ref_logprobs: Tensor | None, lengths: Tensor) -> PairLosses:
        """Losses and implicit rewards of b pairs.

        logprobs, ref_logprobs: [2, b], Σ log π and Σ log π_ref over each answer's tokens, the latter None for a loss
        without a reference; lengths: [2, b], how many tokens.
        """


class LogRatioLoss(PairLoss):
    """What an answer is worth is the policy's own opinion of it: r̂ = β (log π(y|x) − log π_ref(y|x)), the reward under
    which π would be optimal at KL weight β (Rafailov et al. 2023, eq. 5)."""

    needs_reference: ClassVar[bool] = True

    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """How strongly the policy is held to the reference; smaller lets it go further away."""
    sft_coef: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the chosen answer's negative log-likelihood per token, which keeps its probability from falling
    together with the rejected one's (RPO; Pang et al. 2024, eq. 1)."""

    def evaluate(self, logprobs: Tensor, ref_logprobs: Tensor | None, lengths: Tensor) -> PairLosses:
        assert ref_logprobs is not None, "the worker computes what the loss needs"
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
