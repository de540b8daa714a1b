"""The reward's workers: rollouts as text to functions, servers and rules, as tokens to reward models."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from rayrlhf.data.tokens.columns import Columns
from rayrlhf.models import load_tokenizer
from rayrlhf.rewards import Reward, RewardModelReward, SumReward, TextJudge, TextReward, singles
from rayrlhf.rewards.base import Judge, SampleText, Score, rewards_rank
from rayrlhf.rewards.early import EarlyScores
from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import IntArray, Rollouts
from rayrlhf.workers.score_share import ScoreShare
from rayrlhf.workers.scorer import RewardModelScorer, ScorerConfig
from rayrlhf.workers.step_scores import StepScores
from rayrlhf.workers.text_scorer import TextScorer, scored


class Rewarder:
    """r(x, y) of whole responses by any reward; what it cannot score is rejected with a reason, never scored as 0.

    All samples of a prompt are scored by one rank. gold_answers: the known good answers by prompt id, None for prompts
    without one; None if the data have none at all. columns: what `data.columns` names, by prompt id. Raises UserError
    for a reward that cannot work here.
    """

    def __init__(
        self,
        source: Reward,
        config: ScorerConfig,
        tokenizer_folder: str,
        gold_answers: Sequence[str | None] | None,
        ranks: Ranks,
        columns: Columns | None = None,
    ) -> None:
        self._source, self._config, self._ranks = source, config, ranks
        self._gold_answers, self._columns = gold_answers, columns
        names = columns.names if columns is not None else ()
        self._judges = [
            single.start(names) if isinstance(single, TextReward) else self._load(single) for single in singles(source)
        ]
        self._early = EarlyScores([judge for judge in self._judges if isinstance(judge, TextJudge)])
        needs_texts = any(isinstance(judge, Judge) or judge.step_end is not None for judge in self._judges)
        self._tokenizer: Any = load_tokenizer(tokenizer_folder) if needs_texts else None

    def begin(self, rollouts: Rollouts) -> None:
        """Start to score whole groups that just completed, by the parts that read texts; returns immediately.

        Groups of other ranks (`rewards_rank`) are left to them. Scores do not depend on what was begun, or when.
        """
        if not self._source.scores_texts:
            return
        rows = self._own_rows(rollouts)
        if len(rows):
            own = rollouts.take(rows)
            self._begin(own, row_keys(own), groups_of(own))

    def score(self, rollouts: Rollouts) -> ScoreShare:
        """This rank's share of the scores; what `begin` has started is waited for, the rest is computed now."""
        rows = self._own_rows(rollouts)
        own = rollouts.take(rows)
        if not len(rows):
            return ScoreShare.of(rows, [], self._source.part_names)
        keys, groups = row_keys(own), groups_of(own)
        self._begin(own, keys, groups)
        of_models = [self._by_model(judge, own, groups) for judge in self._judges if not isinstance(judge, TextJudge)]
        models, texts = iter(of_models), iter(self._early.take(keys, groups))
        by_judge = [next(texts if isinstance(judge, TextJudge) else models) for judge in self._judges]
        if isinstance(self._source, SumReward):
            scores = [self._source.combine(results) for results in zip(*by_judge, strict=True)]
        else:
            (scores,) = by_judge
        steps = StepScores.of(own, scores, rows, self._tokenizer)
        return ScoreShare.of(rows, scores, self._source.part_names, steps)

    def close(self) -> None:
        """End the processes and threads of the reward."""
        self._early.close()

    def _load(self, source: RewardModelReward) -> TextScorer | RewardModelScorer:
        # The rows are shared out here, for all parts alike: each model sees all that this rank has.
        alone = Ranks(joins=False)
        scorer = RewardModelScorer(source.model, source.pooling, source.normalize, self._config, alone, source.step_end)
        return TextScorer(source, scorer) if source.retokenize else scorer

    def _own_rows(self, rollouts: Rollouts) -> IntArray:
        """[n] int64, ascending: whole groups. Models alone share by tokens, which are what costs them time."""
        num_ranks = self._ranks.world_size
        if self._source.scores_texts:
            return np.flatnonzero(rewards_rank(rollouts.prompt_ids, num_ranks) == self._ranks.rank)
        _, group_of_row = np.unique(rollouts.prompt_ids, return_inverse=True)
        tokens = np.bincount(group_of_row, weights=rollouts.lengths).astype(np.int64)
        plan = plan_microbatches(tokens, self._config.max_tokens_per_microbatch, num_ranks)
        own = [group for microbatch in plan[self._ranks.rank] for group in microbatch]
        return np.flatnonzero(np.isin(group_of_row, own))

    def _begin(self, own: Rollouts, keys: Sequence[Hashable], groups: Sequence[Sequence[int]]) -> None:
        self._early.begin(keys, groups, lambda rows: self._decode(own.take(np.array(rows))))

    def _by_model(
        self, judge: RewardModelScorer | Judge, own: Rollouts, groups: Sequence[Sequence[int]]
    ) -> list[Score]:
        if isinstance(judge, RewardModelScorer):
            return scored(judge, own, self._tokenizer)
        samples = self._decode(own)
        if not judge.compares:
            return judge.judge(samples)
        scores: dict[int, Score] = {}
        for rows in groups:
            scores |= zip(rows, judge.judge_group([samples[row] for row in rows]), strict=True)
        return [scores[row] for row in range(len(own))]

    def _decode(self, rollouts: Rollouts) -> list[SampleText]:
        return decode_samples(rollouts, self._tokenizer, self._gold_answers, self._columns)


def groups_of(rollouts: Rollouts) -> list[list[int]]:
    """The rows of each prompt, ordered by sample."""
    order = np.lexsort((rollouts.sample_ids, rollouts.prompt_ids))
    starts = np.flatnonzero(np.diff(rollouts.prompt_ids[order])) + 1
    return [rows.tolist() for rows in np.split(order, starts) if len(rows)]


def row_keys(rollouts: Rollouts) -> list[Hashable]:
    """One per row; equal only for the same sample of the same prompt with the same tokens."""
    return [
        (prompt_id, sample_id, finished, _digest(prompt), _digest(response))
        for prompt_id, sample_id, finished, (prompt, response) in zip(
            rollouts.prompt_ids.tolist(),
            rollouts.sample_ids.tolist(),
            rollouts.finished.tolist(),
            token_rows(rollouts),
            strict=True,
        )
    ]


def _digest(tokens: IntArray) -> bytes:
    return hashlib.blake2b(tokens.astype(np.int32).tobytes(), digest_size=16).digest()


def token_rows(rollouts: Rollouts) -> Iterator[tuple[IntArray, IntArray]]:
    """(prompt tokens, response tokens) of each row."""
    for row, end in zip(np.split(rollouts.tokens, rollouts.offsets[1:-1]), rollouts.prompt_lengths, strict=True):
        yield row[:end], row[end:]


def decode_samples(
    rollouts: Rollouts, tokenizer: Any, gold_answers: Sequence[str | None] | None, columns: Columns | None = None
) -> list[SampleText]:
    """The rollouts as text, without special tokens, each with its prompt's gold answer and columns."""
    return [
        SampleText(
            prompt=tokenizer.decode(prompt, skip_special_tokens=True),
            response=tokenizer.decode(response, skip_special_tokens=True),
            gold_answer=gold_answers[prompt_id] if gold_answers is not None else None,
            finished=finished,
            columns=columns.row(prompt_id) if columns is not None else {},
        )
        for (prompt, response), prompt_id, finished in zip(
            token_rows(rollouts), rollouts.prompt_ids.tolist(), rollouts.finished.tolist(), strict=True
        )
    ]
