"""Odds ratio preference optimization."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rayrlhf.algorithms.preference.base import PairLoss, PairLosses
from rayrlhf.functional import log1mexp, pairwise_loss


class ORPO(PairLoss):
    """−log p̄_chosen − β log σ(log odds p̄_chosen − log odds p̄_rejected) (Hong et al. 2024, eqs. 6 and 7), without a
    reference; log p̄ is an answer's mean log-probability per token, and odds p̄ = p̄ / (1 − p̄).

    The first term is the answer's alone, as in the paper. TRL takes the prompt's tokens into it.
    """

    needs_reference: ClassVar[bool] = False
    kind: Literal["orpo"] = "orpo"
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Weight of the odds-ratio term: λ in the paper, `beta` in TRL."""

    def evaluate(self, logprobs: Tensor, ref_logprobs: Tensor | None, lengths: Tensor) -> PairLosses:
        means = logprobs / lengths
        log_odds = means - log1mexp(means)
        loss = -means[0] + self.beta * pairwise_loss(log_odds[0], log_odds[1])
        return PairLosses(loss, self.beta * means.detach())
