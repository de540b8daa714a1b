"""Frozen models that judge rollouts: the reference policy and the reward model."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from rayrlhf.config import Config
from rayrlhf.models import Policy, RewardStatistics, ScalarModel
from rayrlhf.models.scalar import Pooling
from rayrlhf.training.forward import RowPass, forward_rows
from rayrlhf.training.parallel import Precision, Ranks, autocast
from rayrlhf.types import Rollouts, RowShare


class ScorerConfig(Config):
    """How a frozen model is run."""

    max_tokens_per_microbatch: PositiveInt = 16384
    """Padded tokens in one forward pass."""
    precision: Precision = "auto"


class _Scorer:
    """What frozen models have in common."""

    def __init__(self, config: ScorerConfig, ranks: Ranks) -> None:
        self._config, self._ranks = config, ranks

    def _forward(self, rollouts: Rollouts, row_pass: RowPass) -> RowShare:
        return forward_rows(
            rollouts,
            self._ranks,
            self._config.max_tokens_per_microbatch,
            autocast(self._ranks.device, self._config.precision),
            row_pass,
        )


class ReferenceScorer(_Scorer):
    """log π_ref of responses."""

    def __init__(
        self,
        model: str,
        config: ScorerConfig,
        ranks: Ranks,
        dtype: torch.dtype = torch.float32,
        float32_head: bool = False,
    ) -> None:
        super().__init__(config, ranks)
        self._policy = (
            Policy.load(model, dtype, float32_head=float32_head).to(ranks.device).eval().requires_grad_(False)
        )

    def logprobs(self, rollouts: Rollouts, temperature: float) -> RowShare:
        """This rank's share of log π_ref(token_t | before), one for each token."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            return self._policy(tokens, mask, temperature).logprobs

        return self._forward(rollouts, row_pass)


class RewardModelScorer(_Scorer):
    """r(x, y) of whole responses by a reward model."""

    def __init__(
        self,
        model: str,
        pooling: Pooling,
        normalize: bool,
        config: ScorerConfig,
        ranks: Ranks,
        step_end: str | None = None,
    ) -> None:
        super().__init__(config, ranks)
        self.step_end = step_end
        """The text that ends a step, if steps are scored."""
        self._pooling = pooling
        self._model = ScalarModel.load(model, needs_head=True).to(ranks.device).eval().requires_grad_(False)
        self._statistics = self._model.statistics if normalize else RewardStatistics()

    def score(self, rollouts: Rollouts) -> RowShare:
        """This rank's share of the scores: [n], normalized if so configured."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            raw: torch.Tensor = self._model.scores(tokens, lengths, self._pooling)
            return self._statistics.normalize(raw)

        return self._forward(rollouts, row_pass)

    def outputs(self, rollouts: Rollouts) -> RowShare:
        """This rank's share of what the head gives after reading each token, normalized if so configured."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            outputs: torch.Tensor = self._model(tokens)
            return self._statistics.normalize(outputs)

        return self._forward(rollouts, row_pass)
