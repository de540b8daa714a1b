"""Direct preference optimisation on one rank: a policy trained on pairs against a frozen reference.

The reference never changes, so log π_ref of every answer is computed once, before the policy is loaded: there is never
a second model in memory. A worker that is made again after a failure computes it again, from the same folder.
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
from rayrlhf.training.offline_worker import OfflineWorker, merge_reports
from rayrlhf.training.pairs import PairSet, pair_lengths, pair_metrics, score_pairs, stack_sides
from rayrlhf.training.parallel import Ranks, distribute
from rayrlhf.training.sft import label_mask, trained_lengths


@dataclass(frozen=True)
class ReferencedPairs:
    """Pairs with what the loss needs to know of them beside the policy's log-probabilities."""

    pairs: PairSet
    ref_logprobs: np.ndarray  # [2, N] float64, Σ log π_ref over each answer's tokens, its eos included
    lengths: np.ndarray  # [2, N] int64, the number of these tokens

    def __len__(self) -> int:
        return self.lengths.shape[1]


class DPOWorker(OfflineWorker):
    """Trains a policy on pairs; (chosen, rejected) are rows of the same number."""

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

    @property
    def num_rows(self) -> int:
        return len(self._train)

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        num_pairs = len(rows)

        def loss_of(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            logprobs = answer_logprobs(self.trainee.module, self._train.pairs, rows[picked], self.trainee.ranks)
            losses = self._losses(logprobs, self._train, rows[picked])
            loss = losses.loss.sum() / num_pairs
            chosen, rejected = losses.rewards
            return loss, {
                "dpo/loss": loss,
                "dpo/accuracy": (chosen > rejected).sum() / num_pairs,
                "dpo/margin_mean": (chosen - rejected).sum() / num_pairs,
                "dpo/chosen_reward_mean": chosen.sum() / num_pairs,
                "dpo/rejected_reward_mean": rejected.sum() / num_pairs,
            }

        report = self.trainee.step(self.plan(pair_lengths(self._train.pairs, rows)), loss_of)
        report.shared = {f"dpo/{name}": value for name, value in report.shared.items()}
        return merge_reports(report, self.trainee.ranks.world_size)

    def evaluate(self) -> dict[str, float]:
        """Loss, implicit rewards and accuracy on the held-out pairs.

        The policy that training starts from has nothing above its own reference: its accuracy is 0, not a half.
        """
        self.trainee.module.eval()
        pairs, ranks = self._heldout.pairs, self.trainee.ranks
        logprobs = score_pairs(
            pairs, self.trainee.config, ranks, lambda rows: answer_logprobs(self.trainee.module, pairs, rows, ranks)
        )
        losses = self._losses(torch.from_numpy(logprobs), self._heldout, np.arange(len(self._heldout)))
        chosen, rejected = losses.rewards.numpy()
        return pair_metrics(pairs, chosen, rejected) | {
            "eval/loss": float(losses.loss.mean()),
            "eval/chosen_reward_mean": float(chosen.mean()),
            "eval/rejected_reward_mean": float(rejected.mean()),
        }

    def before_save(self) -> None:
        """Nothing: the weights are all there is."""

    def _losses(self, logprobs: Tensor, data: ReferencedPairs, rows: np.ndarray) -> PairLosses:
        """logprobs: [2, b] of the given rows, in the precision and on the device that the loss is computed in."""
        known = (torch.from_numpy(array[:, rows]).to(logprobs) for array in (data.ref_logprobs, data.lengths))
        return self._loss.evaluate(logprobs, *known)


def refer(model: str, sets: tuple[PairSet, ...], config: TrainingConfig, ranks: Ranks) -> list[ReferencedPairs]:
    """Sets of pairs with the log-probabilities of the policy in folder `model`, which is dropped afterwards.

    In 4 bits if the trained policy is, so that the two differ by what is learnt alone.
    """
    policy = Policy.load(model, load_in_4bit=config.load_in_4bit).requires_grad_(False).eval()
    # Nothing is learnt here, so a replica needs no wrapper; shards do, since one device may not hold the whole.
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
