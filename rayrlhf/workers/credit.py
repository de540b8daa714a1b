"""Between scoring and learning: the roles' outputs for a step's rollouts → what is trained on, and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rayrlhf.algorithms import Algorithm, ScoredRollouts
from rayrlhf.algorithms.base import Baselines
from rayrlhf.algorithms.moments import RunningMoments
from rayrlhf.models import load_tokenizer
from rayrlhf.rewards import RewardError
from rayrlhf.types import FloatArray, Rollouts, RowShare, TrainBatch
from rayrlhf.workers.rollouts_file import write_rollouts
from rayrlhf.workers.score_share import ScoreShare, check_rejections

Key = tuple[int, int]
"""(prompt id, sample id)."""


@dataclass(frozen=True)
class StepOutcome:
    """What became of a step's rollouts."""

    ends: Mapping[Key, str | None]
    """None for each rollout that is trained on, and the reason for each that is not."""
    num_trained: int
    mean_kl: float
    """To the reference, nats per response; NaN without a reference."""
    metrics: dict[str, float]
    batch: Any = None
    """The `TrainBatch`: in the loop, an object reference to it."""


class CreditAssigner:
    """Sees a whole step at once, as whitening, groups and KL metrics need; the loop never does.

    `scores`, `old_logprobs`, `ref_logprobs` and `values` are the shares of all ranks of a role; None is a role that the
    algorithm does not need. Without `old_logprobs` they are those that the samplers reported.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        tokenizer_folder: str,
        max_response_tokens: int,
        compare_logprobs: bool,
        max_reject_share: float = 0.0,
    ) -> None:
        self._algorithm = algorithm
        self._tokenizer: Any = load_tokenizer(tokenizer_folder)
        self._max_response_tokens = max_response_tokens
        self._compare_logprobs = compare_logprobs
        self._max_reject_share = max_reject_share
        self._moments = RunningMoments()

    def assign(
        self, version: int, kl_coef: float, rollouts_file: str | None = None, **outputs: Any
    ) -> tuple[StepOutcome, TrainBatch]:
        """Credit of a step that learns from weights `version`; `outputs` is what `_scored` takes.

        Rollouts without a score are left out and counted. Raises RewardError if they are more than `max_reject_share`.
        """
        everything, scores = self._scored(**outputs)
        num_sampled = len(everything.rollouts)
        if rollouts_file is not None:
            write_rollouts(rollouts_file, everything, scores, self._tokenizer)
        check_rejections(scores, self._max_reject_share)
        scored = with_scores(everything)
        num_trained = len(scored.rollouts)
        if not num_trained:
            raise RewardError(f"none of the step's {num_sampled} rollouts and its greedy response both have a score")
        if self._algorithm.normalize_scores:
            self._moments.update(scored.scores)
            scored = replace(scored, moments=(self._moments.mean, self._moments.deviation))
        batch, metrics = self._algorithm.assign_credit(scored, kl_coef)
        metrics |= scores.metrics()
        if self._compare_logprobs:
            metrics |= logprob_gap(scored.rollouts, batch.old_logprobs, version)
        metrics |= _staleness(scored.rollouts, version)
        metrics["ledger/trained"] = float(num_trained)
        metrics["ledger/rejected"] = float(num_sampled - num_trained)
        ends = _ends(everything.rollouts, scored.rollouts, scores)
        return StepOutcome(ends, num_trained, scored.mean_kl, metrics), batch

    def select(
        self,
        rollouts: Rollouts,
        scores: Sequence[ScoreShare],
        kept: tuple[Rollouts, ScoreShare] | None,
        num_generations: int,
        tolerance: float,
        max_groups: int,
    ) -> tuple[int, Rollouts, ScoreShare]:
        """(number of groups, rollouts, scores): at most `max_groups` groups of `num_generations` whose scores differ by
        more than `tolerance`, together with those `kept` before.

        A prompt that was drawn twice has two groups. If there are too many, those kept are chosen by chance, seeded
        with the prompts: the first ones would always be the first of the data.
        """
        merged = ScoreShare.merge(scores, len(rollouts))
        draws = np.stack([rollouts.prompt_ids, rollouts.sample_ids // num_generations])
        (ids, _), groups = np.unique(draws, axis=1, return_inverse=True)
        order = np.random.default_rng(ids).permutation(len(ids))
        chosen = [group for group in order if _spread(merged.values[groups == group]) > tolerance][:max_groups]
        rows = np.flatnonzero(np.isin(groups, chosen))
        found, found_scores = rollouts.take(rows), merged.take(rows)
        if kept is None:
            return len(chosen), found, found_scores
        both = (kept[0], found)
        prompt_ids, sample_ids = (
            np.concatenate([getattr(x, name) for x in both]) for name in ("prompt_ids", "sample_ids")
        )
        order = np.lexsort((sample_ids, prompt_ids))  # as `Rollouts.concat` puts them
        return len(chosen), Rollouts.concat(both), ScoreShare.join([kept[1], found_scores]).take(order)

    def evaluate(self, rollouts_file: str, **outputs: Any) -> dict[str, float]:
        """Metrics of held-out responses."""
        scored, scores = self._scored(**outputs)
        write_rollouts(rollouts_file, scored, scores, self._tokenizer)
        check_rejections(scores, self._max_reject_share)
        scored = with_scores(scored)
        score, rows = scored.scores, len(scored.rollouts)
        metrics = {
            "eval/reward_mean": float(score.mean()),
            "eval/reward_se": float(score.std(ddof=1) / np.sqrt(rows)) if rows > 1 else 0.0,
            "eval/length_mean": float(scored.rollouts.response_lengths.mean()),
            "eval/finished_share": float(scored.rollouts.finished.mean()),
            "eval/num_responses": float(rows),
        }
        for name, (mean, error) in scores.part_means().items():
            metrics |= {f"eval/reward/{name}_mean": mean, f"eval/reward/{name}_se": error}
        if scored.ref_logprobs is not None:
            metrics["eval/kl_mean"] = float((scored.old_logprobs - scored.ref_logprobs).sum(1).mean())
        return metrics

    def _scored(
        self,
        rollouts: Rollouts,
        scores: Sequence[ScoreShare],
        old_logprobs: Sequence[RowShare] | None = None,
        ref_logprobs: Sequence[RowShare] | None = None,
        values: Sequence[RowShare] | None = None,
        greedy: Rollouts | None = None,
        greedy_scores: Sequence[ScoreShare] = (),
        **extras: Sequence[RowShare],
    ) -> tuple[ScoredRollouts, ScoreShare]:
        """All shares put together, padded. extras: of further roles, by the name of their output."""

        def padded(shares: Sequence[RowShare] | None) -> Any:
            if shares is None:
                return None
            merged = RowShare.merge(shares, len(rollouts))
            return merged if all(share.lengths is None for share in shares) else rollouts.padded(merged)

        assert (old_logprobs is not None) == (self._algorithm.old_logprobs == "learner")
        merged = ScoreShare.merge(scores, len(rollouts))
        old = rollouts.padded(rollouts.engine_logprobs) if old_logprobs is None else padded(old_logprobs)
        baselines = None if greedy is None else _baselines(rollouts, greedy, greedy_scores)
        scored = ScoredRollouts(
            rollouts,
            merged.values,
            old,
            self._max_response_tokens,
            padded(ref_logprobs),
            padded(values),
            baselines,
            step_scores=merged.steps.padded(old.shape),
            extras={name: padded(shares) for name, shares in extras.items()},
        )
        return scored, merged


def logprob_gap(rollouts: Rollouts, learner_logprobs: FloatArray, version: int) -> dict[str, float]:
    """|log π_engine − log π_learner| over the trained tokens that the learner's `version` sampled, in nats: a failed
    weight sync shows here. Nothing if there are none. learner_logprobs: [N]."""
    comparable = rollouts.loss_mask & (rollouts.versions == version)
    if not comparable.any():
        return {}
    gap = np.abs(rollouts.engine_logprobs - learner_logprobs)[comparable]
    return {"engine/logprob_gap_mean": float(gap.mean()), "engine/logprob_gap_max": float(gap.max())}


def with_scores(scored: ScoredRollouts) -> ScoredRollouts:
    """Without the rollouts that have no score (NaN), or whose greedy response has none."""
    missing = np.isnan(scored.scores)
    if scored.baselines is not None:
        missing = missing | np.isnan(scored.baselines.scores)
    return scored.take(np.flatnonzero(~missing)) if missing.any() else scored


def _baselines(rollouts: Rollouts, greedy: Rollouts, greedy_scores: Sequence[ScoreShare]) -> Baselines:
    """The greedy response to each rollout's prompt."""
    row_of = {prompt: row for row, prompt in enumerate(greedy.prompt_ids.tolist())}
    rows = np.array([row_of[prompt] for prompt in rollouts.prompt_ids.tolist()], dtype=np.int64)
    scores = ScoreShare.merge(greedy_scores, len(greedy)).values
    return Baselines(scores, greedy.response_lengths, greedy.finished).take(rows)


def _staleness(rollouts: Rollouts, version: int) -> dict[str, float]:
    """Versions of the weights that sampled what is trained on."""
    return {
        "engine/version_min": float(rollouts.oldest_versions.min()),
        "engine/version_max": float(rollouts.newest_versions.max()),
        "engine/staleness_mean": float((version - rollouts.versions)[rollouts.loss_mask].mean()),
    }


def _ends(sampled: Rollouts, trained: Rollouts, scores: ScoreShare) -> dict[Key, str | None]:
    trained_keys = set(trained.keys)
    reasons = {row: why.reason for row, why in scores.rejections.items()}
    return {
        key: None if key in trained_keys else reasons.get(row, "its prompt's greedy response has no score")
        for row, key in enumerate(sampled.keys)
    }


def _spread(scores: FloatArray) -> float:
    """Largest less smallest; rejected ones (NaN) are not counted."""
    scores = scores[~np.isnan(scores)]
    return float(np.ptp(scores)) if len(scores) else 0.0
