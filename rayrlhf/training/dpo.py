"""Direct preference optimization (Rafailov et al. 2023) on one rank: a policy trained on pairs and a frozen reference.

The reference never changes, so log π_ref of every answer is computed once, before the policy is loaded: two models are
never in memory together. A restarted worker computes it again, from the same folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayrlhf.algorithms.preference import PairLosses, PreferenceLoss
from rayrlhf.models import Policy
from rayrlhf.training.model_trainer import ModelTrainer, TrainingConfig
from rayrlhf.training.offline_worker import OfflineWorker
from rayrlhf.training.pairs import PairSet, pair_lengths, pair_metrics, score_pairs, stack_sides
from rayrlhf.training.parallel import Ranks, distribute
from rayrlhf.training.sft import label_mask, trained_lengths


@dataclass(frozen=True)
class ReferencedPairs:
    """Pairs with all that the loss needs besides the policy's log-probabilities."""

    pairs: PairSet
    ref_logprobs: np.ndarray  # [2, N] float64, Σ log π_ref over each answer's tokens, its eos included
    lengths: np.ndarray  # [2, N] int64, the number of these tokens

    def __len__(self) -> int:
        return self.lengths.shape[1]


class DPOWorker(OfflineWorker):
    """Trains a policy on pairs; row i of `chosen` and row i of `rejected` are one pair."""

    prefix = "dpo"

    def __init__(
        self,
        model: str,
        reference_model: str,
        tokenizer: Any,
        config: TrainingConfig,
        loss: PreferenceLoss,
        train: PairSet,
        heldout: PairSet,
        total_steps: int,
        ranks: Ranks,
    ) -> None:
        self._loss = loss
        self._train, self._heldout = refer(reference_model, (train, heldout), config, ranks)
        loaded = Policy.load(model, config.dtype, config.load_in_4bit)
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
                "accuracy": (chosen > rejected).sum() / num_pairs,
                "margin_mean": (chosen - rejected).sum() / num_pairs,
                "chosen_reward_mean": chosen.sum() / num_pairs,
                "rejected_reward_mean": rejected.sum() / num_pairs,
            }

        return self.optimizer_step(pair_lengths(self._train.pairs, rows), loss_of)

    def evaluate(self) -> dict[str, float]:
        """Loss, implicit rewards and accuracy on the held-out pairs.

        Accuracy counts chosen strictly above rejected, so a policy that equals its reference has accuracy 0, not 0.5.
        """
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
        known = (torch.from_numpy(array[:, rows]).to(logprobs) for array in (data.ref_logprobs, data.lengths))
        return self._loss.evaluate(logprobs, *known)


def refer(model: str, sets: tuple[PairSet, ...], config: TrainingConfig, ranks: Ranks) -> list[ReferencedPairs]:
    """Each of `sets` with its log-probabilities under the policy in folder `model`, which is then released.

    Loaded as the trained policy is, so that the two differ by what was learned only.
    """
    policy = Policy.load(model, config.dtype, config.load_in_4bit).requires_grad_(False).eval()
    # Nothing is trained here, so replicas need no DDP wrapper. Shards do: one device may not hold the whole model.
    module = distribute(policy, "fsdp", ranks) if config.sharding == "fsdp" else policy.to(ranks.device)
    return [
        ReferencedPairs(
            pairs,
            score_pairs(pairs, config, ranks, lambda rows, pairs=pairs: answer_logprobs(module, pairs, rows, ranks)),
            np.stack([np.maximum(trained_lengths(side, np.arange(len(side)), False), 1) for side in pairs]),
        )
        for pairs in sets
    ]


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
