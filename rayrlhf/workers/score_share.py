"""Scores of a step's rollouts as the reward's ranks give them: some rows rejected, parts beside the sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rayrlhf.rewards.base import RewardError, Score
from rayrlhf.types import BoolArray, FloatArray, IntArray, share_order
from rayrlhf.workers.step_scores import StepScores


@dataclass(frozen=True)
class Rejection:
    """Why a rollout has no score."""

    reason: str
    """Equal for rows that failed alike."""
    trace: str = ""


@dataclass(frozen=True)
class ScoreShare:
    """What one rank of the reward gave for the rollouts `rows` of the step, or all ranks together."""

    rows: IntArray  # [n] int64, ascending
    values: FloatArray  # [n] float32, NaN where the rollout is rejected
    part_values: FloatArray  # [n, K] float32, the scores that a value is made of, NaN where it is rejected
    part_names: tuple[str, ...]  # K names
    rejections: dict[int, Rejection]  # by row of the step
    steps: StepScores = field(default_factory=StepScores.none)
    """What single steps earned, which `values` include."""

    @staticmethod
    def of(
        rows: IntArray, verdicts: Sequence[Score], part_names: tuple[str, ...], steps: StepScores | None = None
    ) -> ScoreShare:
        """One result per row."""
        missing = dict.fromkeys(part_names, np.nan)
        parts = [list((result.parts if result.value is not None else missing).values()) for result in verdicts]
        assert all(result.value is None or tuple(result.parts) == part_names for result in verdicts)
        return ScoreShare(
            rows=rows,
            values=np.array([np.nan if r.value is None else r.value for r in verdicts], dtype=np.float32),
            part_values=np.array(parts, dtype=np.float32).reshape(len(rows), len(part_names)),
            part_names=part_names,
            rejections={
                int(row): Rejection(result.reason, result.trace)
                for row, result in zip(rows, verdicts, strict=True)
                if result.value is None
            },
            steps=steps or StepScores.none(),
        )

    @staticmethod
    def merge(shares: Sequence[ScoreShare], num_rows: int) -> ScoreShare:
        """The shares of all ranks as one, rows in order: every row must be there exactly once."""
        order = share_order(shares, num_rows)
        names = {share.part_names for share in shares}
        assert len(names) == 1, f"ranks disagree about the reward's parts: {sorted(names)}"
        rejections = {row: why for share in shares for row, why in share.rejections.items()}
        return ScoreShare(
            rows=np.arange(num_rows),
            values=np.concatenate([share.values for share in shares])[order],
            part_values=np.concatenate([share.part_values for share in shares])[order],
            part_names=names.pop(),
            rejections={row: rejections[row] for row in sorted(rejections)},
            steps=StepScores.concat([share.steps for share in shares]),
        )

    def take(self, rows: IntArray) -> ScoreShare:
        """The given entries, numbered anew from 0."""
        kept = {new: self.rejections[int(self.rows[old])] for new, old in enumerate(rows) if np.isnan(self.values[old])}
        steps = self.steps.take(self.rows[rows])
        return ScoreShare(np.arange(len(rows)), self.values[rows], self.part_values[rows], self.part_names, kept, steps)

    @staticmethod
    def join(shares: Sequence[ScoreShare]) -> ScoreShare:
        """Whole sets of rows, one behind the other."""
        starts = np.cumsum([0, *(len(share.rows) for share in shares)])
        moved = [
            replace(
                share,
                rows=share.rows + start,
                rejections={row + int(start): why for row, why in share.rejections.items()},
                steps=replace(share.steps, rows=share.steps.rows + start),
            )
            for share, start in zip(shares, starts, strict=False)
        ]
        return ScoreShare.merge(moved, int(starts[-1]))

    @property
    def accepted(self) -> BoolArray:
        """[n], False where the rollout is rejected and must not be trained on."""
        return ~np.isnan(self.values)

    def metrics(self) -> dict[str, float]:
        """The mean of each part over the rollouts that have scores, and the share of those that have none."""
        metrics = {"reward/rejected_share": float(1 - self.accepted.mean())}
        return metrics | {f"reward/{name}_mean": mean for name, (mean, _) in self.part_means().items()}

    def part_means(self) -> dict[str, tuple[float, float]]:
        """(mean, standard error) of each part over the rollouts that have scores; empty if none has one."""
        values = self.part_values[self.accepted].astype(np.float64)  # [m, K]
        if not len(values):
            return {}
        errors = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(len(self.part_names))
        return dict(zip(self.part_names, zip(values.mean(0).tolist(), errors.tolist(), strict=True), strict=True))


def check_rejections(merged: ScoreShare, max_share: float) -> None:
    """Raises RewardError if more than `max_share` of all rollouts are rejected, or none is left.

    The message has each reason with its count, the most frequent first, and the first row's details.
    """
    total, rejections = len(merged.rows), merged.rejections
    if not rejections or (len(rejections) <= max_share * total and len(rejections) < total):
        return
    counts = Counter(rejection.reason for rejection in rejections.values())
    reasons = "; ".join(f"{count} × {reason}" for reason, count in counts.most_common())
    row, first = next(((row, why) for row, why in rejections.items() if why.trace), next(iter(rejections.items())))
    details = f"\nrow {row}: {first.reason}\n{first.trace}".rstrip() if first.trace else ""
    raise RewardError(
        f"{len(rejections)} of {total} rollouts got no reward, more than reward.max_reject_share={max_share:g} allows: "
        f"{reasons}; fix the reward, or raise reward.max_reject_share{details}"
    )
