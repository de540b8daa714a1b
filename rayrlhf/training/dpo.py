"""Direct preference optimization (Rafailov et al. 2023) on one rank, and other losses on pairs: a policy, and a frozen
reference for the losses that have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayrlhf.algorithms.preference import PairLoss, PairLosses
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.functional import wins
from rayrlhf.models import Policy
from rayrlhf.models.checkpoint import check_same_in_training
from rayrlhf.training.model_trainer import ModelTrainer, TrainingConfig
from rayrlhf.training.offline_worker import OfflineWorker
from rayrlhf.training.pairs import PairSet, pair_lengths, pair_metrics, score_pairs, stack_sides
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.reference import load_reference
from rayrlhf.training.sft import label_mask, trained_lengths


@dataclass(frozen=True)
class ReferencedPairs:
    """Pairs with all that the loss needs besides the policy's log-probabilities."""

    pairs: PairSet
    ref_logprobs: np.ndarray | None  # [2, N] float64, Σ log π_ref over each answer's tokens, its eos included
    lengths: np.ndarray  # [2, N] int64, the number of these tokens

    def __len__(self) -> int:
        return self.lengths.shape[1]


class DPOWorker(OfflineWorker):
    """Trains a policy on pairs; row i of `chosen` and row i of `rejected` are one pair."""

    prefix = "dpo"

    def __init__(
        self,
        model: str,
        reference_model: str | None,
        tokenizer: Any,
        config: TrainingConfig,
        loss: PairLoss,
        train: PairSet,
        heldout: PairSet,
        total_steps: int,
        ranks: Ranks,
    ) -> None:
        self._loss = loss
        self._train, self._heldout = _referenced(reference_model, (train, heldout), config, ranks)
        loaded = Policy.load(model, config.dtype, config.load_in_4bit)
        if reference_model is not None:
            check_same_in_training(loaded.model, model)
        super().__init__(ModelTrainer(loaded, config, total_steps, ranks), tokenizer)

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        num_pairs = len(rows)

        def loss_of(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            logprobs = answer_logprobs(self.trainer.module, self._train.pairs, rows[picked], self.trainer.ranks)
            losses = self._losses(logprobs, self._train, rows[picked])
            loss = losses.loss.sum() / num_pairs
            chosen, rejected = losses.rewards
            return loss, {
                "loss": loss,
                "accuracy": wins(chosen, rejected).sum() / num_pairs,
                "margin_mean": (chosen - rejected).sum() / num_pairs,
                "chosen_reward_mean": chosen.sum() / num_pairs,
                "rejected_reward_mean": rejected.sum() / num_pairs,
            }

        return self.optimizer_step(pair_lengths(self._train.pairs, rows), loss_of)

    def evaluate(self) -> dict[str, float]:
        """Loss, implicit rewards and accuracy on the held-out pairs."""
        self.trainer.module.eval()
        pairs, ranks = self._heldout.pairs, self.trainer.ranks
        logprobs = score_pairs(
            pairs, self.trainer.config, ranks, lambda rows: answer_logprobs(self.trainer.module, pairs, rows, ranks)
        )
        losses = self._losses(torch.from_numpy(logprobs), self._heldout, np.arange(len(self._heldout)))
        chosen, rejected = losses.rewards.numpy()
        return pair_metrics(pairs, chosen, rejected) | {
            "eval/loss": float(losses.loss.mean()),
            "eval/chosen_reward_mean": float(chosen.mean()),
            "eval/rejected_reward_mean": float(rejected.mean()),
        }

    def before_save(self) -> None:
        """Nothing to add: the model is its weights."""

    def _losses(self, logprobs: Tensor, data: ReferencedPairs, rows: np.ndarray) -> PairLosses:
        """logprobs: [2, b] of the given rows; the loss is computed in its dtype, on its device."""
        reference = None if data.ref_logprobs is None else torch.from_numpy(data.ref_logprobs[:, rows]).to(logprobs)
        return self._loss.evaluate(logprobs, reference, torch.from_numpy(data.lengths[:, rows]).to(logprobs))


def _referenced(
    model: str | None, sets: tuple[PairSet, ...], config: TrainingConfig, ranks: Ranks
) -> list[ReferencedPairs]:
    """Each of `sets` with its log-probabilities under the policy in folder `model`, if there is one."""
    module = None if model is None else load_reference(model, config, ranks)

    def logprobs(pairs: PairSet) -> np.ndarray | None:
        if module is None:
            return None
        return score_pairs(pairs, config, ranks, lambda rows: answer_logprobs(module, pairs, rows, ranks))

    return [ReferencedPairs(pairs, logprobs(pairs), np.stack([num_trained(side) for side in pairs])) for pairs in sets]


def num_trained(answers: Sequences) -> np.ndarray:
    """[N] int64, tokens of each answer that have a log-probability; 1 where none has, which makes a mean of 0."""
    return np.maximum(trained_lengths(answers, np.arange(len(answers)), train_on_prompt=False), 1)


def answer_logprobs(module: nn.Module, pairs: PairSet, rows: np.ndarray, ranks: Ranks) -> Tensor:
    """Σ log p over the tokens of both answers of the given pairs, eos included: [2, b], chosen then rejected."""
    tokens, mask = (
        torch.from_numpy(stack_sides(sides)).to(ranks.device)
        for sides in (
            [side.padded(rows) for side in pairs],
            [label_mask(side, rows, train_on_prompt=False) for side in pairs],
        )
    )
    return module(tokens, mask).logprobs.sum(1).view(2, -1)
