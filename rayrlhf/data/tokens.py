"""Records as tokens, once and for all: prompts for PPO, sequences with their prompt's length for SFT and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from rayrlhf.config import Config
from rayrlhf.data.reader import Tally
from rayrlhf.data.records import Answer, Preference, PromptText
from rayrlhf.data.templates import Template
from rayrlhf.types import Prompt

Overlong = Literal["drop", "cut"]


class PromptLimit(Config):
    """What to do with prompts that are too long."""

    max_prompt_tokens: PositiveInt = 256
    overlong_prompts: Literal["drop", "cut", "keep"] = "drop"
    """`drop` leaves them out, `cut` keeps their last tokens, `keep` lets them be; each is counted."""


@dataclass(frozen=True)
class Sequences:
    """N token sequences, prompt then answer, end to end: a handful of arrays that Ray shares without a copy."""

    tokens: np.ndarray  # [sum(lengths)] int32
    offsets: np.ndarray  # [N + 1] int64, row i is tokens[offsets[i]:offsets[i + 1]]
    prompt_lengths: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64, tokens per row."""
        return np.diff(self.offsets)

    def padded(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The given rows, [B, T] int64, right-padded with 0."""
        lengths = self.lengths[rows]
        batch = np.zeros((len(rows), int(lengths.max(initial=1))), dtype=np.int64)
        for index, row in enumerate(rows):
            batch[index, : lengths[index]] = self.tokens[self.offsets[row] : self.offsets[row + 1]]
        return batch

    @staticmethod
    def build(rows: Sequence[tuple[list[int], list[int]]]) -> Sequences:
        """From (prompt ids, answer ids) pairs."""
        lengths = [len(prompt) + len(answer) for prompt, answer in rows]
        return Sequences(
            tokens=np.fromiter((i for prompt, answer in rows for i in (*prompt, *answer)), np.int32, sum(lengths)),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            prompt_lengths=np.array([len(prompt) for prompt, _ in rows], dtype=np.int32),
        )


def answer_tokens(text: str, tokenizer: Any) -> list[int]:
    """An answer's token ids with the eos that ends it: both are trained, the prompt is not."""
    return [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def tokenize_answers(
    answers: Sequence[Answer],
    template: Template,
    tokenizer: Any,
    max_tokens: int,
    overlong: Overlong,
    tally: Tally,
) -> Sequences:
    """SFT rows. Rows of more than `max_tokens` are dropped, or their answers cut (the eos goes with the rest)."""
    rows = []
    for answer in answers:
        prompt = template.encode(answer.prompt, tokenizer)
        reply = answer_tokens(answer.text, tokenizer)
        if len(prompt) + len(reply) > max_tokens:
            if overlong == "drop" or len(prompt) >= max_tokens:
                tally.drop("too long")
                continue
            reply = reply[: max_tokens - len(prompt)]
        rows.append((prompt, reply))
    return Sequences.build(rows)


def tokenize_preferences(
    pairs: Sequence[Preference],
    template: Template,
    tokenizer: Any,
    max_tokens: int,
    overlong: Overlong,
    tally: Tally,
) -> tuple[Sequences, Sequences]:
    """(chosen, rejected) with the same rows; a pair is dropped whole, or both its answers cut."""
    chosen, rejected = [], []
    for pair in pairs:
        prompt = template.encode(pair.prompt, tokenizer)
        better, worse = answer_tokens(pair.chosen, tokenizer), answer_tokens(pair.rejected, tokenizer)
        room = max_tokens - len(prompt)
        if max(len(better), len(worse)) > room:
            if overlong == "drop" or room < 1:
                tally.drop("too long")
                continue
            better, worse = better[:room], worse[:room]
            if better == worse:
                tally.drop("equal after the cut")
                continue
        chosen.append((prompt, better))
        rejected.append((prompt, worse))
    return Sequences.build(chosen), Sequences.build(rejected)


def tokenize_prompts(
    prompts: Sequence[PromptText], template: Template, tokenizer: Any, limit: PromptLimit, tally: Tally
) -> list[Prompt]:
    """Prompts for PPO; ids are positions in the result. Over-long ones follow `limit` and are counted."""
    kept: list[Prompt] = []
    for prompt in prompts:
        ids = template.encode(prompt, tokenizer)
        if len(ids) > limit.max_prompt_tokens and limit.overlong_prompts != "keep":
            if limit.overlong_prompts == "drop":
                tally.drop("prompt too long")
                continue
            ids = ids[-limit.max_prompt_tokens :]
        kept.append(Prompt(id=len(kept), token_ids=tuple(ids)))
    return kept
