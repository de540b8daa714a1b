"""Rewards that need texts only: their judges score in the background."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from rayrlhf.rewards.base import BaseReward, Judge, SampleText, Score
from rayrlhf.rewards.callers import Callers, Unit


class TextReward(BaseReward):
    """Settings of a reward that needs texts only, no model of ours."""

    @property
    def scores_texts(self) -> bool:
        return True

    @property
    def needs_gold_answers(self) -> bool:
        """Whether nothing can be scored without the data's answers."""
        return False

    def start(self, columns: Sequence[str] = ()) -> TextJudge:
        """Ready to score samples with these columns. Raises UserError for settings that cannot work here."""
        raise NotImplementedError


class TextJudge(Judge):
    """A judge whose calls run in threads of its own: see `Callers`."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def submit(self, units: Sequence[Unit]) -> list[Future[list[Score]]]:
        """Start to score and return immediately. Units are single samples, or whole groups if it `compares`."""
        return self._callers.submit(units)

    def judge(self, samples: Sequence[SampleText]) -> list[Score]:
        units = [samples] if self.compares else [[sample] for sample in samples]
        return [score for future in self.submit(units) for score in future.result()]

    def close(self) -> None:
        self._callers.close()
