"""Reward-model training on one rank: −log σ(r_chosen − r_rejected) over pairs (Ouyang et al. 2022, eq. 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import NonNegativeFloat
from torch import Tensor

from rayrlhf.config import Config
from rayrlhf.functional import pairwise_loss, wins
from rayrlhf.models import RewardStatistics, ScalarModel
from rayrlhf.models.scalar import Pooling, pool_scores
from rayrlhf.training.model_trainer import ModelTrainer, SupervisedTraining
from rayrlhf.training.offline_worker import OfflineWorker
from rayrlhf.training.pairs import PairSet, pair_lengths, pair_metrics, score_pairs, stack_sides
from rayrlhf.training.parallel import Ranks


class PairwiseLoss(Config):
    """Options of the pairwise loss."""

    margin: NonNegativeFloat = 0.0
    """Subtracted from the reward difference of each pair (Llama 2, section 3.2.2)."""
    margin_from_scores: NonNegativeFloat = 0.0
    """What the pair's own margin, the difference of its answers' scores in the data, is multiplied with and subtracted
    too: pairs of which people were surer are to lie further apart. Pairs without scores have none."""
    center_coef: NonNegativeFloat = 0.0
    """Weight of (r_chosen + r_rejected)², which keeps scores around 0 (Eisenstein et al. 2023)."""
    pooling: Pooling = "last"


class RewardModelWorker(OfflineWorker):
    """Trains a scalar head on pairs; row i of `chosen` and row i of `rejected` are one pair."""

    prefix = "reward_model"

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        config: SupervisedTraining,
        loss: PairwiseLoss,
        train: PairSet,
        heldout: PairSet,
        total_steps: int,
        ranks: Ranks,
        margins: np.ndarray | None = None,
    ) -> None:
        """margins: [N], of the training pairs; None is 0 for all."""
        loaded = ScalarModel.load(model, config.dtype, config.load_in_4bit, config.dropout)
        super().__init__(ModelTrainer(loaded, config, total_steps, ranks), tokenizer)
        self._loss, self._train, self._heldout = loss, train, heldout
        self._margins = np.zeros(len(train[0])) if margins is None else margins

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        num_pairs = len(rows)
        margins = self._loss.margin + self._loss.margin_from_scores * self._margins[rows]

        def loss_of(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            chosen, rejected = self._scores(self._train, rows[picked])
            loss = pairwise_loss(chosen, rejected, self.to_device(margins[picked]).to(chosen)).sum()
            loss = (loss + self._loss.center_coef * ((chosen + rejected) ** 2).sum()) / num_pairs
            return loss, {
                "loss": loss,
                "accuracy": wins(chosen, rejected).sum() / num_pairs,
            }

        return self.optimizer_step(pair_lengths(self._train, rows), loss_of)

    def evaluate(self) -> dict[str, float]:
        """Held-out accuracy, that of going by the length, and the loss without margin and centering."""
        chosen, rejected = self._score_all(self._heldout)
        return pair_metrics(self._heldout, chosen, rejected) | {
            "eval/loss": float(np.logaddexp(0, rejected - chosen).mean())
        }

    def before_save(self) -> None:
        """Store the mean and standard deviation of all training scores in the model's configuration."""
        scores = self._score_all(self._train)
        self.trainer.inner.statistics = RewardStatistics(float(scores.mean()), float(max(scores.std(), 1e-6)))

    def _score_all(self, data: PairSet) -> np.ndarray:
        """Raw scores of every pair, [2, N]: chosen, then rejected; the same on every rank."""
        self.trainer.module.eval()
        return score_pairs(data, self.trainer.config, self.trainer.ranks, lambda rows: self._scores(data, rows))

    def _scores(self, data: PairSet, rows: np.ndarray) -> Tensor:
        """Raw scores of the given pairs, [2, b]: chosen, then rejected."""
        tokens = stack_sides([side.padded(rows) for side in data])
        lengths = np.concatenate([side.lengths_of(rows) for side in data])
        outputs = self.trainer.module(self.to_device(tokens))
        return pool_scores(outputs, self.to_device(lengths), self._loss.pooling).view(2, -1)
