"""Scores that are asked for as groups complete, and taken when the step does: see `Rewarder.begin`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from itertools import chain

from rayrlhf.rewards.base import SampleText, Score
from rayrlhf.rewards.text import TextJudge

KEPT_TAKES = 16
"""What was asked for is dropped after so many later steps or evaluations that did not take it: the pool dropped it."""

Key = tuple[int, tuple[Hashable, ...]]
"""(index of the judge, keys of the rows that it scores together)"""


class EarlyScores:
    """Scores of text judges, each computed once: early if its rows were begun, else when they are taken.

    A row's key identifies its prompt and response. Where a judge compares, scores are kept under the keys of the whole
    group: with one other response in it, all are computed again.
    """

    def __init__(self, judges: Sequence[TextJudge]) -> None:
        self._judges = judges
        self._begun: dict[Key, tuple[int, Future[list[Score]]]] = {}  # with the number of takes before
        self._num_takes = 0

    def begin(
        self,
        keys: Sequence[Hashable],
        groups: Sequence[Sequence[int]],
        decode: Callable[[Sequence[int]], Sequence[SampleText]],
    ) -> None:
        """Ask for what is not asked for yet, and return immediately.

        keys: one per row; groups: rows of each prompt, in an order that depends on nothing but their samples;
        decode: given rows as texts.
        """
        missing = [
            [unit for unit in units if self._key(index, unit, keys) not in self._begun]
            for index, units in enumerate(self._units(groups))
        ]
        rows = sorted(set(chain.from_iterable(chain.from_iterable(missing))))
        if not rows:
            return
        samples = dict(zip(rows, decode(rows), strict=True))
        for index, (judge, units) in enumerate(zip(self._judges, missing, strict=True)):
            futures = judge.submit([[samples[row] for row in unit] for unit in units])
            for unit, future in zip(units, futures, strict=True):
                self._begun[self._key(index, unit, keys)] = (self._num_takes, future)

    def take(self, keys: Sequence[Hashable], groups: Sequence[Sequence[int]]) -> list[list[Score]]:
        """Each judge's score of every row, as soon as all that was begun is there; it is forgotten then.

        Raises what a judge raised for one of the rows.
        """
        units = self._units(groups)
        taken = [
            [(unit, self._begun[self._key(index, unit, keys)][1]) for unit in of_judge]
            for index, of_judge in enumerate(units)
        ]
        try:
            return [[score for _, score in sorted(_by_row(of_judge), key=lambda pair: pair[0])] for of_judge in taken]
        finally:
            for index, of_judge in enumerate(units):
                for unit in of_judge:
                    self._begun.pop(self._key(index, unit, keys), None)
            self._num_takes += 1
            self._drop_old()

    def _units(self, groups: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
        """For each judge the rows that it scores together, in the order of the rows."""
        rows = [[row] for row in sorted(chain.from_iterable(groups))]
        return [list(groups) if judge.compares else list(rows) for judge in self._judges]

    @staticmethod
    def _key(index: int, unit: Sequence[int], keys: Sequence[Hashable]) -> Key:
        return index, tuple(keys[row] for row in unit)

    def _drop_old(self) -> None:
        for key, (takes, future) in list(self._begun.items()):
            if takes + KEPT_TAKES <= self._num_takes:
                future.cancel()
                del self._begun[key]

    def close(self) -> None:
        """End the judges."""
        for judge in self._judges:
            judge.close()


def _by_row(taken: Sequence[tuple[Sequence[int], Future[list[Score]]]]) -> list[tuple[int, Score]]:
    return [pair for unit, future in taken for pair in zip(unit, future.result(), strict=True)]
