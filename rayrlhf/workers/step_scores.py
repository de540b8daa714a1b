"""Process rewards: what single steps of a response earned, from ends in its text to tokens."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayrlhf.rewards.base import Score
from rayrlhf.types import FloatArray, IntArray, Rollouts


@dataclass(frozen=True)
class StepScores:
    """S scores of steps, each at the token that ends its step."""

    rows: IntArray  # [S] int64
    tokens: IntArray  # [S] int64, position in the row, prompt included
    values: FloatArray  # [S] float32

    @staticmethod
    def none() -> StepScores:
        empty = np.zeros(0, dtype=np.int64)
        return StepScores(empty, empty, np.zeros(0, dtype=np.float32))

    @staticmethod
    def of(rollouts: Rollouts, scores: Sequence[Score], rows: IntArray, tokenizer: Any) -> StepScores:
        """The steps in `scores`, one result for each of `rollouts`; rows: their numbers in the step."""
        found: list[tuple[int, int, float]] = []
        for index, score in enumerate(scores):
            if not score.steps or score.value is None:
                continue
            start = int(rollouts.prompt_lengths[index])
            response = rollouts.tokens[rollouts.offsets[index] + start : rollouts.offsets[index + 1]]
            ends = token_ends(response, [end for end, _ in score.steps], tokenizer)
            found += [(int(rows[index]), start + end, value) for end, (_, value) in zip(ends, score.steps, strict=True)]
        if not found:
            return StepScores.none()
        all_rows, tokens, values = zip(*found, strict=True)
        return StepScores(np.array(all_rows), np.array(tokens), np.array(values, dtype=np.float32))

    @staticmethod
    def concat(parts: Sequence[StepScores]) -> StepScores:
        """All of several shares."""
        return StepScores(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "tokens", "values"))
        )

    def take(self, rows: IntArray) -> StepScores:
        """Those of `rows`, which are numbered anew in that order."""
        places = {int(row): place for place, row in enumerate(rows)}
        kept = [index for index, row in enumerate(self.rows.tolist()) if row in places]
        renumbered = np.array([places[int(self.rows[index])] for index in kept], dtype=np.int64)
        return StepScores(renumbered, self.tokens[kept], self.values[kept])

    def padded(self, shape: tuple[int, ...]) -> FloatArray | None:
        """[B, T], 0 where no step ends; None without steps."""
        if not len(self.rows):
            return None
        padded = np.zeros(shape, dtype=np.float32)
        np.add.at(padded, (self.rows, self.tokens), self.values)
        return padded


def token_ends(tokens: IntArray, ends: Sequence[int], tokenizer: Any) -> list[int]:
    """Which token of a response each step ends with, from the numbers of characters before the steps' ends: the first
    token that reaches that far, or the last one. O(log T) decodings for each step."""

    def characters(count: int) -> int:
        # A token may end in the middle of a character, which is not there before the next one.
        return len(tokenizer.decode(tokens[:count], skip_special_tokens=True).rstrip("\N{REPLACEMENT CHARACTER}"))

    counts = range(len(tokens) + 1)
    return [min(bisect.bisect_left(counts, end, key=characters), len(tokens)) - 1 for end in ends]
