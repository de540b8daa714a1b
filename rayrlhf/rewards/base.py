"""What all rewards share: the texts that are judged, what comes of it, and how settings become a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

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


class Judge:
    """A reward that is ready to score."""

    def judge(self, samples: Sequence[SampleText]) -> list[Score]:
        """One result per sample, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """End what was started for judging; most have nothing to end."""


class BaseReward(Config):
    """Settings of any reward."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that every score comes with: the same on all ranks."""
        return ()

    def resolved(self) -> Self:
        """With absolute paths, as workers in other working directories need them."""
        return self


class TextReward(BaseReward):
    """Settings of a reward that needs texts only, no model of ours."""

    @property
    def needs_gold_answers(self) -> bool:
        """Whether nothing can be scored without the data's answers."""
        return False

    def start(self) -> Judge:
        """Ready to score. Raises UserError for settings that cannot work here."""
        raise NotImplementedError
