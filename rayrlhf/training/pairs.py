"""Preference pairs on one rank, for DPO and the reward model: both answers in one forward pass, and their metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.offline_worker import gather_objects
from rayrlhf.training.parallel import Ranks, autocast

PairSet: TypeAlias = tuple[Sequences, Sequences]
"""(chosen, rejected), with the same rows."""

PairPass = Callable[[np.ndarray], Tensor]
"""rows [b] → one number per answer, [2, b]: chosen, then rejected."""


def pair_lengths(pairs: PairSet, rows: np.ndarray) -> np.ndarray:
    """[b] tokens that each pair takes: both answers, padded to the longer."""
    return 2 * np.maximum(*(side.lengths_of(rows) for side in pairs))


def stack_sides(sides: Sequence[np.ndarray]) -> np.ndarray:
    """[b, t] of chosen and of rejected answers → [2b, T], right-padded with 0.

    Both go through one forward pass, so that sharded layers are gathered once.
    """
    width = max(side.shape[1] for side in sides)
    return np.concatenate([np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in sides])


@torch.no_grad()
def score_pairs(pairs: PairSet, config: TrainingConfig, ranks: Ranks, pair_pass: PairPass) -> np.ndarray:
    """`pair_pass` over all pairs, split over ranks: [2, N] float64, the same on every rank."""
    lengths = pair_lengths(pairs, np.arange(len(pairs[0])))
    own: list[tuple[list[int], np.ndarray]] = []
    for picked in plan_microbatches(lengths, config.max_tokens_per_microbatch, ranks.world_size)[ranks.rank]:
        with autocast(ranks.device, config.compute_precision):
            scores = pair_pass(np.array(picked or [0]))
        if picked:
            own.append((picked, scores.float().cpu().numpy()))
    result = np.zeros((2, len(lengths)), dtype=np.float64)
    for part in gather_objects(own, ranks.world_size):
        for rows, of_rows in part:
            result[:, rows] = of_rows
    return result


def pair_metrics(pairs: PairSet, chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """Held-out accuracy (chosen strictly above rejected), its n, and the accuracy of "pick the longer answer".

    chosen, rejected: [N], the score of each answer.
    """
    longer = pairs[0].lengths - pairs[1].lengths
    return {
        "eval/accuracy": float((chosen > rejected).mean()),
        "eval/longer_answer_accuracy": float((longer > 0).mean()),
        "eval/num_pairs": float(len(chosen)),
        "eval/margin_mean": float((chosen - rejected).mean()),
    }
