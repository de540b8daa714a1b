"""What all rewards share: the texts that they score, the scores, and the settings that become a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np

from rayrlhf.config import Config, UserError


class RewardError(UserError):
    """A reward cannot be used, or gave too few scores to train on."""


@dataclass(frozen=True)
class SampleText:
    """One response as text, with what it answers."""

    prompt: str
    response: str
    gold_answer: str | None
    """The known good answer to the prompt, if the data have one."""
    finished: bool
    """True if the response ended by itself, False if it was cut at the limit."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The prompt's values of the columns that `data.columns` names, None where its row has none."""


@dataclass(frozen=True)
class Score:
    """A score, or why there is none: a response without a score is rejected, never scored as 0."""

    value: float | None
    reason: str = ""
    """Short and without details of the row, so that equal reasons can be counted."""
    trace: str = ""
    """The details: a traceback, or what a server answered."""
    parts: dict[str, float] = field(default_factory=dict)
    """The scores that `value` is made of, by name, before weighting."""
    steps: Sequence[tuple[int, float]] = ()
    """What single steps earned, which `value` includes: how many characters of the response come before a step's end,
    and its score."""


Ids = TypeVar("Ids", int, np.ndarray)


def rewards_rank(prompt_ids: Ids, num_ranks: int) -> Ids:
    """Which rank scores a prompt where any part of the reward reads texts: known before the step is complete."""
    return prompt_ids % num_ranks


class Judge:
    """A reward that is ready to score."""

    compares: bool = False
    """Whether scores depend on the other responses to the prompt: it is then given whole groups only."""

    def judge(self, samples: Sequence[SampleText]) -> list[Score]:
        """One result per sample, in order."""
        raise NotImplementedError

    def judge_group(self, samples: Sequence[SampleText]) -> list[Score]:
        """One result for each sample of one prompt, in order."""
        return self.judge(samples)

    def close(self) -> None:
        """End what was started for judging; most have nothing to end."""


class BaseReward(Config):
    """Settings of any reward."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that every score comes with: the same on all ranks."""
        return ()

    @property
    def scores_texts(self) -> bool:
        """Whether any part is a text reward, which can score groups before the step is complete."""
        return False

    def resolved(self) -> Self:
        """With absolute paths, as workers in other working directories need them."""
        return self
