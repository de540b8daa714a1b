"""The reward's workers: rollouts as text to functions, servers and rules, as tokens to reward models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rayrlhf.models import load_tokenizer
from rayrlhf.rewards import Reward, RewardModelReward, SingleReward, SumReward, singles
from rayrlhf.rewards.base import Judge, SampleText
from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import IntArray, Rollouts
from rayrlhf.workers.score_share import ScoreShare
from rayrlhf.workers.scorer import RewardModelScorer, ScorerConfig
from rayrlhf.workers.text_scorer import TextScorer, scored


class Rewarder:
    """r(x, y) of whole responses by any reward; what it cannot score is rejected with a reason, never scored as 0.

    gold_answers: the known good answers by prompt id, None for prompts without one; None if the data have none at all.
    Raises UserError for a reward that cannot work here.
    """

    def __init__(
        self,
        source: Reward,
        config: ScorerConfig,
        tokenizer_folder: str,
        gold_answers: Sequence[str | None] | None,
        ranks: Ranks,
    ) -> None:
        self._source, self._config, self._ranks = source, config, ranks
        self._gold_answers = gold_answers
        self._judges = [self._start(single) for single in singles(source)]
        self._has_models = any(isinstance(single, RewardModelReward) for single in singles(source))
        self._needs_texts = any(isinstance(judge, Judge) for judge in self._judges)
        self._tokenizer: Any = load_tokenizer(tokenizer_folder) if self._needs_texts else None

    def score(self, rollouts: Rollouts) -> ScoreShare:
        """This rank's share of the scores."""
        rows = self._own_rows(rollouts)
        own = rollouts.take(rows)
        if not len(rows):
            return ScoreShare.of(rows, [], self._source.part_names)
        samples = decode_samples(own, self._tokenizer, self._gold_answers) if self._needs_texts else []
        by_judge = [
            scored(judge, own) if isinstance(judge, RewardModelScorer) else judge.judge(samples)
            for judge in self._judges
        ]
        if isinstance(self._source, SumReward):
            judged = [self._source.combine(results) for results in zip(*by_judge, strict=True)]
        else:
            (judged,) = by_judge
        return ScoreShare.of(rows, judged, self._source.part_names)

    def _start(self, source: SingleReward) -> Judge | RewardModelScorer:
        if isinstance(source, RewardModelReward):
            # The rows are shared out here, for all parts alike: each model sees all that this rank has.
            alone = Ranks(joins=False)
            scorer = RewardModelScorer(source.model, source.pooling, source.normalize, self._config, alone)
            return TextScorer(source, scorer) if source.retokenize else scorer
        return source.start()

    def _own_rows(self, rollouts: Rollouts) -> IntArray:
        """[n] int64, ascending. Models share by tokens, which are what costs them time; others by rows."""
        if not self._has_models:
            return np.arange(self._ranks.rank, len(rollouts), self._ranks.world_size)
        plan = plan_microbatches(rollouts.lengths, self._config.max_tokens_per_microbatch, self._ranks.world_size)
        return np.array(sorted(row for microbatch in plan[self._ranks.rank] for row in microbatch), dtype=np.int64)


def decode_samples(rollouts: Rollouts, tokenizer: Any, gold_answers: Sequence[str | None] | None) -> list[SampleText]:
    """The rollouts as text, without special tokens, each with its prompt's gold answer."""
    starts, ends = rollouts.offsets[:-1], rollouts.offsets[1:]
    return [
        SampleText(
            prompt=tokenizer.decode(rollouts.tokens[start : start + prompt], skip_special_tokens=True),
            response=tokenizer.decode(rollouts.tokens[start + prompt : end], skip_special_tokens=True),
            gold_answer=gold_answers[prompt_id] if gold_answers is not None else None,
            finished=bool(finished),
        )
        for start, end, prompt, prompt_id, finished in zip(
            starts, ends, rollouts.prompt_lengths, rollouts.prompt_ids, rollouts.finished, strict=True
        )
    ]
