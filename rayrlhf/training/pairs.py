"""Preference pairs on one rank, for DPO and the reward model: both answers in one forward pass, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.functional import wins
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.offline_worker import RowPass, score_rows
from rayrlhf.training.parallel import Ranks

PairSet: TypeAlias = tuple[Sequences, Sequences]
"""(chosen, rejected), with the same rows."""


def pair_lengths(pairs: PairSet, rows: np.ndarray) -> np.ndarray:
    """[b] tokens that each pair takes: both answers, padded to the longer."""
    return 2 * np.maximum(*(side.lengths_of(rows) for side in pairs))


def stack_sides(sides: Sequence[np.ndarray]) -> np.ndarray:
    """[b, t] of chosen and of rejected answers → [2b, T], right-padded with 0.

    Both go through one forward pass, so that sharded layers are gathered once.
    """
    width = max(side.shape[1] for side in sides)
    return np.concatenate([np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in sides])


def score_pairs(pairs: PairSet, config: TrainingConfig, ranks: Ranks, pair_pass: RowPass) -> np.ndarray:
    """`pair_pass` (rows [b] → one number per answer, [2, b]) over all pairs, split over ranks: [2, N] float64, the same
    on every rank."""
    return score_rows(pair_lengths(pairs, np.arange(len(pairs[0]))), config, ranks, pair_pass)


def pair_metrics(pairs: PairSet, chosen: np.ndarray, rejected: np.ndarray) -> dict[str, float]:
    """Held-out accuracy, its n, and the accuracy of "pick the longer answer" and of the better one of this and "pick
    the shorter answer". A tie counts half.

    chosen, rejected: [N], the score of each answer.
    """
    longer = float(wins(pairs[0].lengths, pairs[1].lengths).mean())
    return {
        "eval/accuracy": float(wins(chosen, rejected).mean()),
        "eval/longer_answer_accuracy": longer,
        "eval/length_baseline_accuracy": max(longer, 1 - longer),
        "eval/num_pairs": float(len(chosen)),
        "eval/margin_mean": float((chosen - rejected).mean()),
    }
