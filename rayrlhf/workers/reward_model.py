"""Reward-model training on one rank: −log σ(r_chosen − r_rejected) over pairs (Ouyang et al. 2022, eq. 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from rayrlhf.config import Config
from rayrlhf.data.sequences import Sequences
from rayrlhf.functional import pairwise_loss
from rayrlhf.models import RewardStatistics, ScalarModel
from rayrlhf.models.scalar import Pooling, pool_scores
from rayrlhf.workers.offline import OfflineWorker, gather_objects, merge_reports
from rayrlhf.workers.parallel import Ranks
from rayrlhf.workers.trainee import Trainee, TrainingConfig


class PairwiseLoss(Config):
    """Options of the pairwise loss."""

    margin: NonNegativeFloat = 0.0
    """Reward difference below which a pair still costs (Llama 2, section 3.2.2)."""
    center_coef: NonNegativeFloat = 0.0
    """Weight of (r_chosen + r_rejected)², which keeps scores around 0 (Eisenstein et al. 2023)."""
    pooling: Pooling = "last"


class RewardModelWorker(OfflineWorker):
    """Trains a scalar head on pairs; (chosen, rejected) are rows of the same number."""

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        config: TrainingConfig,
        loss: PairwiseLoss,
        train: tuple[Sequences, Sequences],
        heldout: tuple[Sequences, Sequences],
        total_steps: int,
        ranks: Ranks,
    ) -> None:
        super().__init__(Trainee(ScalarModel.load(model, config.dtype), config, total_steps, ranks), tokenizer)
        self._loss, self._train, self._heldout = loss, train, heldout

    @property
    def num_rows(self) -> int:
        return len(self._train[0])

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        num_pairs = len(rows)

        def loss_of(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            chosen, rejected = self._scores(self._train, rows[picked])
            loss = pairwise_loss(chosen, rejected, torch.full_like(chosen, self._loss.margin)).sum()
            loss = (loss + self._loss.center_coef * ((chosen + rejected) ** 2).sum()) / num_pairs
            return loss, {
                "reward_model/loss": loss,
                "reward_model/accuracy": (chosen > rejected).sum() / num_pairs,
            }

        report = self.trainee.step(self.plan(_pair_lengths(self._train, rows)), loss_of)
        report.shared = {f"reward_model/{name}": value for name, value in report.shared.items()}
        return merge_reports(report, self.trainee.ranks.world_size)

    def evaluate(self) -> dict[str, float]:
        """Accuracy (chosen strictly above rejected) with n, and that of "pick the longer answer"."""
        chosen, rejected = self._score_all(self._heldout)
        longer = self._heldout[0].lengths - self._heldout[1].lengths
        return {
            "eval/accuracy": float((chosen > rejected).mean()),
            "eval/longer_answer_accuracy": float((longer > 0).mean()),
            "eval/num_pairs": float(len(chosen)),
            "eval/loss": float(np.logaddexp(0, rejected - chosen).mean()),
            "eval/margin_mean": float((chosen - rejected).mean()),
        }

    def before_save(self) -> None:
        """Store mean and standard deviation of the scores of all training answers in the model folder."""
        scores = np.concatenate(self._score_all(self._train))
        self.trainee.inner.statistics = RewardStatistics(float(scores.mean()), float(max(scores.std(), 1e-6)))

    @torch.no_grad()
    def _score_all(self, data: tuple[Sequences, Sequences]) -> tuple[np.ndarray, np.ndarray]:
        """Raw scores of every pair, (chosen [N], rejected [N]), on every rank."""
        self.trainee.module.eval()
        own: list[tuple[list[int], np.ndarray, np.ndarray]] = []
        for picked in self.plan(_pair_lengths(data, np.arange(len(data[0])))):
            with self.trainee.autocast():
                chosen, rejected = self._scores(data, np.array(picked or [0]))
            if picked:
                own.append((picked, chosen.cpu().numpy(), rejected.cpu().numpy()))
        result = np.zeros((2, len(data[0])), dtype=np.float64)
        for part in gather_objects(own, self.trainee.ranks.world_size):
            for rows, chosen_scores, rejected_scores in part:
                result[0, rows], result[1, rows] = chosen_scores, rejected_scores
        return result[0], result[1]

    def _scores(self, data: tuple[Sequences, Sequences], rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Raw scores (chosen [b], rejected [b]) in one forward pass, so that sharded layers are gathered once."""
        chosen, rejected = (side.padded(rows) for side in data)
        width = max(chosen.shape[1], rejected.shape[1])
        tokens = np.concatenate([np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (chosen, rejected)])
        lengths = np.concatenate([side.lengths_of(rows) for side in data])
        outputs = self.trainee.module(self.to_device(tokens))
        scores = pool_scores(outputs, self.to_device(lengths), self._loss.pooling)
        return scores[: len(rows)], scores[len(rows) :]


def _pair_lengths(data: tuple[Sequences, Sequences], rows: np.ndarray) -> np.ndarray:
    """[b] tokens that each pair costs: both answers, padded to the longer."""
    return 2 * np.maximum(*(side.lengths_of(rows) for side in data))
