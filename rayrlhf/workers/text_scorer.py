"""A reward model that reads text: responses in the tokens of its own tokenizer, which need not be the policy's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import PromptText
from rayrlhf.data.templates import CustomTemplate
from rayrlhf.data.templates.base import encode_answers
from rayrlhf.data.tokens.sequences import Sequences, TokenRow
from rayrlhf.models import load_tokenizer, read_model_config
from rayrlhf.rewards.base import Judge, RewardError, SampleText, Score
from rayrlhf.rewards.reward_model import RewardModelReward
from rayrlhf.types import Rollouts, RowShare
from rayrlhf.workers.scorer import RewardModelScorer
from rayrlhf.workers.step_scores import token_ends


class TextScorer(Judge):
    """Encodes prompt and response as reward-model training does, and scores them.

    Raises UserError for a template that the model's tokenizer cannot fill.
    """

    def __init__(self, source: RewardModelReward, scorer: RewardModelScorer) -> None:
        self._template = source.template or CustomTemplate(text="{prompt}")
        self._scorer = scorer
        self._tokenizer: Any = load_tokenizer(source.model)
        try:
            self._template.encode(PromptText.of("?"), self._tokenizer)
        except Rejected as error:
            raise RewardError(f"reward.source.template: {error.detail}; choose another for {source.model!r}") from None
        self._max_tokens = getattr(read_model_config(source.model), "max_position_embeddings", None)

    def judge(self, samples: Sequence[SampleText]) -> list[Score]:
        """One result per sample; what is longer than the model reads is rejected."""
        rows = self._encode(samples)
        kept = [row for row in rows if not isinstance(row, Score)]
        scores = iter(scored(self._scorer, as_rollouts(kept), self._tokenizer) if kept else [])
        return [row if isinstance(row, Score) else next(scores) for row in rows]

    def _encode(self, samples: Sequence[SampleText]) -> list[TokenRow | Score]:
        """Special tokens of this model that the texts spell are plain text."""
        prompts = self._template.encode_batch([PromptText.of(sample.prompt) for sample in samples], self._tokenizer)
        special = self._template.special_tokens(self._tokenizer)
        responses = encode_answers([sample.response for sample in samples], self._tokenizer, special)
        return [
            self._row(prompt, response, sample.finished)
            for prompt, response, sample in zip(prompts, responses, samples, strict=True)
        ]

    def _row(self, prompt: list[int] | Rejected, response: list[int] | Rejected, finished: bool) -> TokenRow | Score:
        for part in (prompt, response):
            if isinstance(part, Rejected):
                return Score(None, f"{part.reason}: {part.detail}")
        assert isinstance(prompt, list) and isinstance(response, list)
        if finished:
            response = [*response, self._tokenizer.eos_token_id]
        if self._max_tokens is not None and len(prompt) + len(response) > self._max_tokens:
            return Score(None, f"longer than the {self._max_tokens} tokens that the reward model reads")
        return prompt, response


def scored(scorer: RewardModelScorer, rollouts: Rollouts, tokenizer: Any) -> list[Score]:
    """One result per rollout, ordered as `Rollouts.concat` orders; a model that overflows gives no score.

    tokenizer: of the rollouts, for a model that scores steps.
    """
    if scorer.step_end is not None:
        return _scored_steps(scorer, rollouts, tokenizer, scorer.step_end)
    share = scorer.score(rollouts)
    scores = np.empty(len(rollouts), dtype=np.float32)
    scores[share.rows] = share.values
    return [
        Score(float(score)) if np.isfinite(score) else Score(None, "the model's score is not finite")
        for score in scores
    ]


def _scored_steps(scorer: RewardModelScorer, rollouts: Rollouts, tokenizer: Any, step_end: str) -> list[Score]:
    flat = RowShare.merge([scorer.outputs(rollouts)], len(rollouts))
    results: list[Score] = []
    for start, end, prompt in zip(rollouts.offsets, rollouts.offsets[1:], rollouts.prompt_lengths, strict=False):
        response = rollouts.tokens[start + prompt : end]
        text = tokenizer.decode(response, skip_special_tokens=True)
        ends = [match.end() for match in re.finditer(re.escape(step_end), text)]
        if not ends or ends[-1] < len(text):
            ends.append(max(1, len(text)))
        values = flat[start + prompt + np.array(token_ends(response, ends, tokenizer))]
        if np.isfinite(values).all():
            results.append(Score(float(values.sum()), steps=list(zip(ends, values.tolist(), strict=True))))
        else:
            results.append(Score(None, "the model's score is not finite"))
    return results


def as_rollouts(rows: Sequence[TokenRow]) -> Rollouts:
    """(prompt ids, response ids) as rollouts that keep this order; nothing is known of how they were sampled."""
    sequences = Sequences.build(rows)
    positions = np.arange(len(sequences.tokens)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    return Rollouts(
        offsets=sequences.offsets,
        tokens=sequences.tokens,
        loss_mask=positions >= np.repeat(sequences.prompt_lengths, sequences.lengths),
        engine_logprobs=np.zeros(len(sequences.tokens), dtype=np.float32),
        versions=np.zeros(len(sequences.tokens), dtype=np.int32),
        prompt_lengths=sequences.prompt_lengths,
        finished=np.ones(len(rows), dtype=bool),
        prompt_ids=np.arange(len(rows)),
        sample_ids=np.zeros(len(rows), dtype=np.int32),
    )
