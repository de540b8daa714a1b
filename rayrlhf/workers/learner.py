"""Learners: the policy and the critic in training. Plain classes; ranks of one role share a process group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayrlhf.algorithms import Algorithm
from rayrlhf.algorithms.ppo import TokenTensors
from rayrlhf.data.batching import plan_microbatches
from rayrlhf.models import Policy, RewardStatistics, ScalarModel, load_tokenizer
from rayrlhf.models.scalar import shift_to_states
from rayrlhf.types import Batch, FloatArray, Rollouts, RowShare
from rayrlhf.weights.buckets import Bucket, pack
from rayrlhf.workers.parallel import Ranks, whole
from rayrlhf.workers.scoring import forward_rows, row_tensors
from rayrlhf.workers.trainee import StepReport, Trainee, TrainingConfig

LossOf = Callable[[Tensor, TokenTensors, int], tuple[Tensor, dict[str, Tensor]]]


class _Learner:
    """What policy and critic learners have in common."""

    prefix: str

    def __init__(self, trainee: Trainee, tokenizer_folder: str) -> None:
        self.trainee = trainee
        self._tokenizer = load_tokenizer(tokenizer_folder, for_model=tokenizer_folder)

    def save(self, folder: str) -> None:
        """Write a Hugging Face folder; all ranks gather, rank 0 writes."""
        state = self.trainee.state_dict()
        if self.trainee.ranks.rank == 0:
            self.trainee.inner.save(Path(folder), self._tokenizer, state)

    def _forward(self, rollouts: Rollouts, row_pass: Callable[[Tensor, Tensor, Tensor], Tensor]) -> RowShare:
        self.trainee.module.eval()
        ranks, config = self.trainee.ranks, self.trainee.config
        share = forward_rows(rollouts, ranks, config.max_tokens_per_microbatch, self.trainee.autocast(), row_pass)
        self.trainee.reshard()
        return share

    def _update(self, batch: Batch, rows: np.ndarray, loss_of: LossOf) -> StepReport:
        """One optimizer step on the rollouts `rows`, shared out over ranks."""
        ranks = self.trainee.ranks
        num_tokens = int(batch.rollouts.response_lengths[rows].sum())
        plan = plan_microbatches(
            batch.rollouts.lengths[rows], self.trainee.config.max_tokens_per_microbatch, ranks.world_size
        )[ranks.rank]

        def loss_of_rows(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            taken = rows[picked]
            tokens, mask, _ = row_tensors(batch.rollouts, taken, ranks.device)
            width = tokens.shape[1]

            def column(array: FloatArray) -> Tensor:
                return torch.from_numpy(array[taken, :width]).to(ranks.device)

            data = TokenTensors(
                mask=mask,
                old_logprobs=column(batch.old_logprobs),
                old_values=column(batch.values),
                advantages=column(batch.advantages),
                returns=column(batch.returns),
            )
            return loss_of(tokens, data, num_tokens)

        report = self.trainee.step(plan, loss_of_rows)
        report.shared = {f"{self.prefix}/{name}": value for name, value in report.shared.items()}
        return report


class PolicyLearner(_Learner):
    """π_θ."""

    prefix = "policy"

    def __init__(
        self, model: str, config: TrainingConfig, algorithm: Algorithm, total_steps: int, ranks: Ranks
    ) -> None:
        super().__init__(Trainee(Policy.load(model, config.dtype), config, total_steps, ranks), model)
        self._algorithm = algorithm

    def logprobs(self, temperature: float, *parts: Rollouts) -> RowShare:
        """This rank's share of log π_θ(token_t | before) at the sampling temperature: [n, T]."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            return self.trainee.module(tokens, mask, temperature).logprobs

        return self._forward(Rollouts.concat(parts), row_pass)

    def update(self, batch: Batch, rows: np.ndarray, temperature: float) -> StepReport:
        """One optimizer step of the policy on the rollouts `rows`."""

        def loss_of(tokens: Tensor, data: TokenTensors, num_tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
            new = self.trainee.module(tokens, data.mask, temperature, with_entropy=True)
            return self._algorithm.policy_loss(new, data, num_tokens)

        return self._update(batch, rows, loss_of)

    def export(self, dtype: torch.dtype | None) -> Iterator[Bucket]:
        """The weights as buckets, cast to the sampler's dtype. All ranks must iterate; only rank 0's are used."""
        return pack(self.trainee.inner.weights(whole), dtype)


class CriticLearner(_Learner):
    """V_φ."""

    prefix = "value"

    def __init__(
        self,
        model: str,
        config: TrainingConfig,
        algorithm: Algorithm,
        total_steps: int,
        normalize: bool,
        ranks: Ranks,
    ) -> None:
        scalar = ScalarModel.load(model, config.dtype)
        if normalize:
            _fold_statistics(scalar)
        super().__init__(Trainee(scalar, config, total_steps, ranks), model)
        self._algorithm = algorithm

    def values(self, *parts: Rollouts) -> RowShare:
        """This rank's share of V(state before token t): [n, T], 0 outside the response."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            return self._values(tokens, mask)

        return self._forward(Rollouts.concat(parts), row_pass)

    def update(self, batch: Batch, rows: np.ndarray) -> StepReport:
        """One optimizer step of the critic on the rollouts `rows`."""

        def loss_of(tokens: Tensor, data: TokenTensors, num_tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
            return self._algorithm.value_loss(self._values(tokens, data.mask), data, num_tokens)

        return self._update(batch, rows, loss_of)

    def _values(self, tokens: Tensor, mask: Tensor) -> Tensor:
        outputs = self.trainee.module(tokens)  # through the wrapper, whose hooks exchange gradients and shards
        return shift_to_states(outputs, mask)


def _fold_statistics(scalar: ScalarModel) -> None:
    """Scale the head as the reward is scaled, so that V starts in the units it has to predict."""
    statistics: Any = scalar.statistics
    with torch.no_grad():
        scalar.model.score.weight.div_(statistics.std)
    scalar.statistics = RewardStatistics()  # a critic that starts from this one's checkpoint is already scaled
