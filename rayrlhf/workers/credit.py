"""Between scoring and learning: shares of all ranks → advantages and returns, and the step's figures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayrlhf.algorithms import Algorithm
from rayrlhf.models import load_tokenizer
from rayrlhf.types import FloatArray, Rollouts, RowShare


class CreditAssigner:
    """Sees a whole step at once, as whitening and the KL figures need; the loop never does."""

    def __init__(self, algorithm: Algorithm, tokenizer_folder: str, compare_logprobs: bool) -> None:
        self._algorithm = algorithm
        self._tokenizer: Any = load_tokenizer(tokenizer_folder)
        self._compare_logprobs = compare_logprobs

    def assign(self, kl_coef: float, rollouts_file: str | None, sizes: Sequence[int], *values: Any) -> Any:
        """(metrics, batch) of a step.

        values: the samplers' rollouts, then the ranks' shares of scores, reference log-probs, old log-probs and
        values, one after another; sizes: how many there are of each.
        """
        parts, scores, ref_logprobs, old_logprobs, state_values = _split(values, sizes)
        rollouts = Rollouts.concat(parts)
        rows = len(rollouts)
        score = RowShare.merge(scores, rows)
        reference, old = RowShare.merge(ref_logprobs, rows), RowShare.merge(old_logprobs, rows)
        batch, metrics = self._algorithm.assign_credit(
            rollouts, score, reference, old, RowShare.merge(state_values, rows), kl_coef
        )
        if self._compare_logprobs:
            metrics |= logprob_gap(rollouts, old)
        metrics["engine/version_min"] = float(rollouts.versions.min())
        metrics["engine/version_max"] = float(rollouts.versions.max())
        if rollouts_file is not None:
            self._write(rollouts_file, rollouts, score, (old - reference).sum(1))
        return metrics, batch

    def evaluate(self, rollouts_file: str, sizes: Sequence[int], *values: Any) -> dict[str, float]:
        """Figures of held-out responses; the same order of values, without state values."""
        parts, scores, ref_logprobs, logprobs = _split(values, sizes)
        rollouts = Rollouts.concat(parts)
        rows = len(rollouts)
        score = RowShare.merge(scores, rows)
        kl = (RowShare.merge(logprobs, rows) - RowShare.merge(ref_logprobs, rows)).sum(1)
        self._write(rollouts_file, rollouts, score, kl)
        return {
            "eval/reward_mean": float(score.mean()),
            "eval/reward_se": float(score.std(ddof=1) / np.sqrt(rows)) if rows > 1 else 0.0,
            "eval/kl_mean": float(kl.mean()),
            "eval/length_mean": float(rollouts.response_lengths.mean()),
            "eval/finished_share": float(rollouts.finished.mean()),
            "eval/num_responses": float(rows),
        }

    def _write(self, file: str, rollouts: Rollouts, scores: FloatArray, kl: FloatArray) -> None:
        """The rollouts as text, with their scores, in a Parquet file."""
        import pyarrow
        import pyarrow.parquet

        def texts(starts: np.ndarray, ends: np.ndarray) -> list[str]:
            return [
                self._tokenizer.decode(rollouts.tokens[row, start:end], skip_special_tokens=True)
                for row, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]

        table = pyarrow.table(
            {
                "prompt_id": rollouts.prompt_ids,
                "sample_id": rollouts.sample_ids,
                "prompt": texts(np.zeros_like(rollouts.lengths), rollouts.prompt_lengths),
                "response": texts(rollouts.prompt_lengths, rollouts.lengths),
                "score": np.asarray(scores, dtype=np.float32),
                "kl": np.asarray(kl, dtype=np.float32),
                "response_length": rollouts.response_lengths,
                "finished": rollouts.finished,
                "version": rollouts.versions,
            }
        )
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, file)


def logprob_gap(rollouts: Rollouts, learner_logprobs: FloatArray) -> dict[str, float]:
    """|log π_engine − log π_learner| over the response tokens, in nats: what a failed weight sync shows up in."""
    gap = np.abs(rollouts.engine_logprobs - learner_logprobs)[rollouts.response_mask]
    return {"engine/logprob_gap_mean": float(gap.mean()), "engine/logprob_gap_max": float(gap.max())}


def _split(values: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    assert sum(sizes) == len(values)
    ends = np.cumsum(sizes)
    return [list(values[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
