"""Between scoring and learning: shares of all ranks → advantages and returns, and the step's figures and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayrlhf.algorithms import Algorithm, ScoredRollouts
from rayrlhf.algorithms.moments import RunningMoments
from rayrlhf.models import load_tokenizer
from rayrlhf.rewards import RewardError
from rayrlhf.types import FloatArray, Rollouts, RowShare
from rayrlhf.workers.rewarder import decode_samples
from rayrlhf.workers.score_share import ScoreShare, check_rejections


class CreditAssigner:
    """Sees a whole step at once, as whitening, groups and the KL figures need; the loop never does.

    Its methods take what the roles said of a step's rollouts as one flat list, since only an actor's own arguments are
    fetched from the object store: `sizes` says under which name how many of them follow. Names are `rollouts` (the
    samplers' parts) and the ranks' shares of `scores`, `old_logprobs`, `ref_logprobs`, `values`; `greedy_rollouts` and
    `greedy_scores` are those of the greedy responses. Without `old_logprobs` they are those that the samplers reported.
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
        self, version: int, kl_coef: float, rollouts_file: str | None, sizes: Mapping[str, int], *values: Any
    ) -> Any:
        """(metrics, ends, batch) of a step that learns from weights `version`.

        Rollouts without a score are left out and counted; RewardError if they are more than `max_reject_share`. `ends`
        has None for each rollout that is trained on and a reason for each that is not, by (prompt id, sample id).
        """
        judged, scores = self._judged(_named(values, sizes))
        drawn = len(judged.rollouts)
        if rollouts_file is not None:
            self._write(rollouts_file, judged, scores)
        check_rejections(scores, self._max_reject_share)
        everything, judged = judged.rollouts, with_scores(judged)
        trained = len(judged.rollouts)
        if not trained:
            raise RewardError(f"none of the step's {drawn} rollouts and its greedy response both have a score")
        if self._algorithm.normalize_scores:
            judged = replace(judged, scores=self._moments.normalise(judged.scores))
        batch, metrics = self._algorithm.assign_credit(judged, kl_coef)
        metrics |= scores.metrics()
        if self._compare_logprobs:
            metrics |= logprob_gap(judged.rollouts, judged.old_logprobs, version)
        metrics["engine/version_min"] = float(judged.rollouts.oldest_versions.min())
        metrics["engine/version_max"] = float(judged.rollouts.newest_versions.max())
        metrics["engine/staleness_mean"] = float(
            (version - judged.rollouts.versions)[judged.rollouts.response_mask].mean()
        )
        metrics["ledger/trained"] = float(trained)
        metrics["ledger/rejected"] = float(drawn - trained)
        return metrics, _ends(everything, judged.rollouts, scores), batch

    def select(self, tolerance: float, max_groups: int, sizes: Mapping[str, int], *values: Any) -> Any:
        """(number of groups, rollouts, share of scores): of what was drawn, the first `max_groups` groups whose scores
        differ by more than `tolerance`, added to `kept_rollouts` and `kept_scores`."""
        given = _named(values, sizes)
        rollouts = Rollouts.concat(given["rollouts"])
        scores = ScoreShare.merge(given["scores"], len(rollouts))
        ids, groups = np.unique(rollouts.prompt_ids, return_inverse=True)
        spreads = [_spread(scores.values[groups == group]) for group in range(len(ids))]
        teaching = [group for group, spread in enumerate(spreads) if spread > tolerance][:max_groups]
        rows = np.flatnonzero(np.isin(groups, teaching))
        both = [*given["kept_rollouts"], rollouts.take(rows)]
        prompt_ids, sample_ids = (
            np.concatenate([getattr(part, n) for part in both]) for n in ("prompt_ids", "sample_ids")
        )
        order = np.lexsort((sample_ids, prompt_ids))  # as `Rollouts.concat` puts them
        joined = ScoreShare.join([*given["kept_scores"], scores.take(rows)])
        return len(teaching), Rollouts.concat(both), joined.take(order)

    def evaluate(self, rollouts_file: str, sizes: Mapping[str, int], *values: Any) -> dict[str, float]:
        """Figures of held-out responses."""
        judged, scores = self._judged(_named(values, sizes))
        self._write(rollouts_file, judged, scores)
        check_rejections(scores, self._max_reject_share)
        judged = with_scores(judged)
        score, rows = judged.scores, len(judged.rollouts)
        figures = {
            "eval/reward_mean": float(score.mean()),
            "eval/reward_se": float(score.std(ddof=1) / np.sqrt(rows)) if rows > 1 else 0.0,
            "eval/length_mean": float(judged.rollouts.response_lengths.mean()),
            "eval/finished_share": float(judged.rollouts.finished.mean()),
            "eval/num_responses": float(rows),
        }
        for name, (mean, error) in scores.part_means().items():
            figures |= {f"eval/reward/{name}_mean": mean, f"eval/reward/{name}_se": error}
        if judged.ref_logprobs is not None:
            figures["eval/kl_mean"] = float((judged.old_logprobs - judged.ref_logprobs).sum(1).mean())
        return figures

    def _judged(self, given: Mapping[str, list[Any]]) -> tuple[ScoredRollouts, ScoreShare]:
        rollouts = Rollouts.concat(given["rollouts"])

        def merged(name: str) -> FloatArray | None:
            return RowShare.merge(given[name], len(rollouts)) if name in given else None

        assert ("old_logprobs" in given) == (self._algorithm.old_logprobs == "learner")
        scores, old_logprobs = ScoreShare.merge(given["scores"], len(rollouts)), merged("old_logprobs")
        if old_logprobs is None:
            old_logprobs = rollouts.engine_logprobs
        baselines = None
        if "greedy_rollouts" in given:
            greedy = Rollouts.concat(given["greedy_rollouts"])
            greedy_scores = ScoreShare.merge(given["greedy_scores"], len(greedy)).values
            of_prompt = dict(zip(greedy.prompt_ids.tolist(), greedy_scores.tolist(), strict=True))
            baselines = np.array([of_prompt[prompt] for prompt in rollouts.prompt_ids.tolist()], dtype=np.float32)
        judged = ScoredRollouts(
            rollouts,
            scores.values,
            old_logprobs,
            self._max_response_tokens,
            merged("ref_logprobs"),
            merged("values"),
            baselines,
        )
        return judged, scores

    def _write(self, file: str, judged: ScoredRollouts, scores: ScoreShare) -> None:
        """The rollouts as text, with their scores, in a Parquet file."""
        import pyarrow
        import pyarrow.parquet

        rollouts = judged.rollouts
        kl = judged.old_logprobs - judged.ref_logprobs if judged.ref_logprobs is not None else None

        samples = decode_samples(rollouts, self._tokenizer, gold_answers=None)
        parts = {f"score/{name}": scores.part_values[:, k] for k, name in enumerate(scores.part_names)}
        table = pyarrow.table(
            {
                "prompt_id": rollouts.prompt_ids,
                "sample_id": rollouts.sample_ids,
                "prompt": [sample.prompt for sample in samples],
                "response": [sample.response for sample in samples],
                "score": scores.values,
                **parts,
                "rejected": [why.reason if (why := scores.rejections.get(row)) else None for row in scores.rows],
                "kl": np.full(len(rollouts), np.nan, np.float32) if kl is None else kl.sum(1),
                "response_length": rollouts.response_lengths,
                "finished": rollouts.finished,
                "version": rollouts.oldest_versions,
                "newest_version": rollouts.newest_versions,
            }
        )
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, file)


def logprob_gap(rollouts: Rollouts, learner_logprobs: FloatArray, version: int) -> dict[str, float]:
    """|log π_engine − log π_learner| over the response tokens that the learner's `version` drew, in nats: what a failed
    weight sync shows up in. Nothing if there are none."""
    drawn = rollouts.response_mask & (rollouts.versions == version)
    if not drawn.any():
        return {}
    gap = np.abs(rollouts.engine_logprobs - learner_logprobs)[drawn]
    return {"engine/logprob_gap_mean": float(gap.mean()), "engine/logprob_gap_max": float(gap.max())}


def _ends(drawn: Rollouts, trained: Rollouts, scores: ScoreShare) -> dict[tuple[int, int], str | None]:
    trained_keys = set(_keys(trained))
    reasons = {row: why.reason for row, why in scores.rejections.items()}
    return {
        key: None if key in trained_keys else reasons.get(row, "its prompt's greedy response has no score")
        for row, key in enumerate(_keys(drawn))
    }


def _keys(rollouts: Rollouts) -> list[tuple[int, int]]:
    return list(zip(rollouts.prompt_ids.tolist(), rollouts.sample_ids.tolist(), strict=True))


def with_scores(judged: ScoredRollouts) -> ScoredRollouts:
    """Without the rollouts that have no score, or whose greedy one has none: NaN says so."""
    missing = np.isnan(judged.scores)
    if judged.baselines is not None:
        missing = missing | np.isnan(judged.baselines)
    if not missing.any():
        return judged
    rows = np.flatnonzero(~missing)
    arrays: dict[str, Any] = {
        name: None if (array := getattr(judged, name)) is None else array[rows]
        for name in ("scores", "old_logprobs", "ref_logprobs", "values", "baselines")
    }
    return replace(judged, rollouts=judged.rollouts.take(rows), **arrays)


def _spread(scores: FloatArray) -> float:
    """Largest less smallest; rejected ones (NaN) not counted."""
    scores = scores[~np.isnan(scores)]
    return float(np.ptp(scores)) if len(scores) else 0.0


def _named(values: Sequence[Any], sizes: Mapping[str, int]) -> dict[str, list[Any]]:
    assert sum(sizes.values()) == len(values)
    ends = np.cumsum(list(sizes.values()))
    return {name: list(values[end - size : end]) for (name, size), end in zip(sizes.items(), ends, strict=True)}
