"""Learners: the policy and the critic in training. Plain classes; ranks of one role share a process group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayrlhf.algorithms import Algorithm
from rayrlhf.algorithms.policy_loss import Loss, TokenTensors
from rayrlhf.functional import last_masked
from rayrlhf.metrics import prefixed
from rayrlhf.models import Policy, RewardStatistics, ScalarModel, load_tokenizer
from rayrlhf.models.checkpoint import check_same_in_training
from rayrlhf.models.scalar import shift_to_states
from rayrlhf.training.ema import WeightAverage
from rayrlhf.training.forward import forward_rows, row_tensors
from rayrlhf.training.model_trainer import ModelTrainer, StepReport, TrainingConfig
from rayrlhf.training.offline_worker import seed_step
from rayrlhf.training.parallel import Ranks, whole
from rayrlhf.training.ptx import PtxMix
from rayrlhf.types import Rollouts, RowShare, StepSize, TrainBatch
from rayrlhf.weights import ObjectStore, WeightTransport
from rayrlhf.weights.buckets import Bucket

LossOf = Callable[[Tensor, TokenTensors, StepSize], Loss]


class _Learner:
    """What policy and critic learners have in common."""

    prefix: str

    def __init__(self, trainer: ModelTrainer, tokenizer_folder: str) -> None:
        self.trainer = trainer
        self._tokenizer = load_tokenizer(tokenizer_folder, for_model=tokenizer_folder)

    def save(self, folder: str) -> None:
        """Write a Hugging Face folder; all ranks gather, rank 0 writes."""
        state = self.trainer.state_dict()
        if self.trainer.ranks.rank == 0:
            self.trainer.inner.save(Path(folder), self._tokenizer, state)

    def _forward(self, rollouts: Rollouts, row_pass: Callable[[Tensor, Tensor, Tensor], Tensor]) -> RowShare:
        self.trainer.module.eval()
        ranks, config = self.trainer.ranks, self.trainer.config
        share = forward_rows(rollouts, ranks, config.max_tokens_per_microbatch, self.trainer.autocast(), row_pass)
        self.trainer.reshard()
        return share

    def _update(
        self, batch: TrainBatch, rows: np.ndarray, size: StepSize, loss_of: LossOf, ptx: PtxMix | None = None
    ) -> StepReport:
        """One optimizer step of `size` on the rollouts `rows`, shared out over ranks, and on rows of `ptx` beside
        them. Without any row there is none: an optimizer with momentum would move."""
        ranks, num_rollouts = self.trainer.ranks, len(rows)
        if not num_rollouts and ptx is None:
            return StepReport()
        plan = self.trainer.plan(batch.rollouts.lengths[rows])
        ptx_rows = np.zeros(0, dtype=np.int64)
        if ptx is not None:
            ptx_rows = ptx.next_rows()
            plan += [[num_rollouts + row for row in picked] for picked in self.trainer.plan(ptx.lengths(ptx_rows))]

        def loss_of_rows(picked: list[int]) -> Loss:
            if ptx is not None and picked[0] >= num_rollouts:
                loss = ptx.loss(self.trainer.module, ptx_rows[np.array(picked) - num_rollouts], ptx_rows, ranks.device)
                return loss, {"policy/ptx_loss": loss}
            taken = rows[picked]
            tokens, mask, _ = row_tensors(batch.rollouts, taken, ranks.device)

            def column(flat: np.ndarray | None) -> Any:
                if flat is None:
                    return None
                return torch.from_numpy(batch.rollouts.padded(flat, taken)).to(ranks.device)

            data = TokenTensors(
                mask,
                column(batch.old_logprobs),
                column(batch.rollouts.engine_logprobs),
                column(batch.advantages),
                column(batch.ref_logprobs),
                column(batch.values),
                column(batch.returns),
                column(batch.value_mask),
            )
            return loss_of(tokens, data, size)

        report = self.trainer.step(plan, loss_of_rows)
        report.shared = prefixed(self.prefix, report.shared)
        return report


class PolicyLearner(_Learner):
    """π_θ."""

    prefix = "policy"

    def __init__(
        self,
        model: str,
        config: TrainingConfig,
        algorithm: Algorithm,
        total_steps: int,
        ranks: Ranks,
        ptx: PtxMix | None = None,
        ema_decay: float | None = None,
        sends_adapters: bool = False,
        transport: WeightTransport | None = None,
        float32_head: bool = False,
    ) -> None:
        assert config.lora is not None or not sends_adapters, "there are adapters to send"
        policy = Policy.load(model, config.dtype, config.load_in_4bit, float32_head=float32_head)
        check_same_in_training(policy.model, model)
        super().__init__(ModelTrainer(policy, config, total_steps, ranks), model)
        self._algorithm = algorithm
        self._ptx = ptx
        self._sends_adapters = sends_adapters
        self._transport = transport or ObjectStore()
        self._average = None if ema_decay is None else WeightAverage(self.trainer.trained, ema_decay)

    def save(self, folder: str) -> None:
        """Write a Hugging Face folder, and one of the averaged weights in `folder`_ema if they are kept."""
        super().save(folder)
        if self._average is not None:
            with self._average.applied():
                super().save(f"{folder}_ema")

    def logprobs(self, rollouts: Rollouts, temperature: float) -> RowShare:
        """This rank's share of log π_θ(token_t | before) at the sampling temperature, one for each token."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            return self.trainer.module(tokens, mask, temperature).logprobs

        return self._forward(rollouts, row_pass)

    def update(
        self, batch: TrainBatch, rows: np.ndarray, temperature: float, seed: tuple[int, ...] = (0,)
    ) -> StepReport:
        """One optimizer step of the policy on those of the rollouts `rows` that have tokens to learn.

        seed: of the adapters' dropout, a different one for each step; ranks drop other units.
        """
        seed_step(*seed, self.trainer.ranks.rank)
        learned = rows[batch.rollouts.response_lengths[rows] > 0]

        def loss_of(tokens: Tensor, data: TokenTensors, size: StepSize) -> Loss:
            new = self.trainer.module(tokens, data.mask, temperature, with_entropy=True)
            return self._algorithm.policy_loss(new, data, size, batch.kl_coef)

        report = self._update(batch, learned, batch.size_of(rows), loss_of, self._ptx)
        if self._average is not None and report.shared:
            self._average.update()
        return report

    def export(self, dtype: torch.dtype | None) -> Iterator[Bucket]:
        """The weights, or the adapters alone, as buckets of the transport, cast to what the engine keeps.

        All ranks must iterate; only rank 0's are used.
        """
        policy = self.trainer.inner
        return self._transport.pack(policy.adapters(whole) if self._sends_adapters else policy.weights(whole), dtype)


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
        scalar = ScalarModel.load(model, config.dtype, config.load_in_4bit)
        check_same_in_training(scalar.model, model)
        self._offset = _fold_statistics(scalar) if normalize else 0.0
        super().__init__(ModelTrainer(scalar, config, total_steps, ranks), model)
        self._algorithm = algorithm

    def values(self, rollouts: Rollouts) -> RowShare:
        """This rank's share of V(state before token t), T + 1 for each row: before the tokens that are trained on,
        and after the last of them; 0 elsewhere."""

        def row_pass(tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
            states = torch.nn.functional.pad(mask, (0, 1))
            states[torch.arange(len(lengths), device=states.device), last_masked(mask) + 1] = True
            return self._values(tokens, states)

        return self._forward(rollouts, row_pass)

    def update(self, batch: TrainBatch, rows: np.ndarray, seed: tuple[int, ...] = (0,)) -> StepReport:
        """One optimizer step of the critic on the rollouts `rows`; `seed` as for the policy."""
        seed_step(*seed, self.trainer.ranks.rank)

        def loss_of(tokens: Tensor, data: TokenTensors, size: StepSize) -> Loss:
            assert data.value_mask is not None, "a critic learns from states"
            return self._algorithm.value_loss(self._values(tokens, data.value_mask), data, size)

        return self._update(batch, rows, batch.size_of(rows), loss_of)

    def _values(self, tokens: Tensor, states: Tensor) -> Tensor:
        """[b, t + 1]: the values of `states` ([b, t + 1] bool), one more than tokens."""
        outputs = self.trainer.module(tokens)  # through the wrapper, whose hooks exchange gradients and shards
        return shift_to_states(torch.nn.functional.pad(outputs - self._offset, (0, 1)), states)


def _fold_statistics(scalar: ScalarModel) -> float:
    """Scale the head as the reward is scaled; the number to subtract from its outputs, so that V starts as the reward
    that it has to predict, (score − mean) / std.

    The statistics become that number and 1: a critic that starts from this one's folder is not scaled again.
    """
    statistics = scalar.statistics
    with torch.no_grad():
        scalar.model.score.weight.div_(statistics.std)
    offset = statistics.mean / statistics.std
    scalar.statistics = RewardStatistics(offset, 1.0)
    return offset
